"""`edgekit init`: a project folder that works as it stands."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgekit.bases.resolve import check_new_base, gguf_file, template_for
from edgekit.examples import caption, chat, inspection, monitoring
from edgekit.examples.drawing import Rows
from edgekit.project import PROJECT_FILE
from edgekit_exporters.requantized import requantized_from
from edgekit_runtime.errors import UsageError
from edgekit_runtime.files.atomic import publish
from edgekit_runtime.hints import did_you_mean

SEED = 7
TRAIN_ROWS = 800
EVAL_ROWS = 200


@dataclass(frozen=True)
class Example:
    """An example adapter: its name, system prompt and generator (train rows, evaluation rows, seed)."""

    name: str
    system: str
    generate: Callable[[int, int, int], tuple[Rows, Rows]]
    train_rows: int = TRAIN_ROWS
    eval_rows: int = EVAL_ROWS
    rank: int = 16
    epochs: int = 3


INSPECTION = Example("inspection", inspection.SYSTEM, inspection.generate)
MONITORING = Example("monitoring", monitoring.SYSTEM, monitoring.generate)
CHAT = Example("style", chat.SYSTEM, chat.generate, chat.TRAIN_ROWS, chat.EVAL_ROWS)
REPORT = Example(
    "report", caption.REPORT_SYSTEM, caption.generate_reports, caption.TRAIN_ROWS, caption.EVAL_ROWS, rank=8, epochs=1
)
CASTINGS = Example(
    "castings",
    caption.CASTINGS_SYSTEM,
    caption.generate_castings,
    caption.TRAIN_ROWS,
    caption.EVAL_ROWS,
    rank=8,
    epochs=1,
)
TEMPLATES: dict[str, Sequence[Example]] = {
    "inspection": (INSPECTION, MONITORING),
    "monitoring": (MONITORING,),
    "chat": (CHAT,),
    "caption": (REPORT, CASTINGS),
}


def init_project(
    folder: Path, template: str = "inspection", *, base: str | None = None, max_steps: int | None = None
) -> Path:
    """Write a new project with example data; returns its edgekit.yaml.

    Args:
        folder: where; it must be missing or empty.
        template: "inspection" (with a second adapter for monitoring), "monitoring", "chat" or "caption" (images).
        base: the base, as users name it; the packaged demo one when None.
        max_steps: bound on training steps, written into the project file.

    Raises:
        UsageError: no such template.
        InputError: the folder has other content, or can't be written; the base is none.
    """
    if template not in TEMPLATES:
        raise UsageError(f"no template is called {template!r}", did_you_mean(template, TEMPLATES))
    chosen, export = (None, EXPORT) if base is None else (_base_lines(base), _export_lines(base))
    folder = folder.expanduser().absolute()
    examples = TEMPLATES[template]
    with publish(folder, is_ours=lambda _: False) as temporary:
        (temporary / "data").mkdir()
        for example in examples:
            train, evaluation = example.generate(example.train_rows, example.eval_rows, SEED)
            _write_rows(temporary / "data" / f"{example.name}.train.jsonl", train)
            _write_rows(temporary / "data" / f"{example.name}.eval.jsonl", evaluation)
        text = _project_file(folder.name, template, chosen, export, examples, max_steps)
        (temporary / PROJECT_FILE).write_text(text, encoding="utf-8")
    return folder / PROJECT_FILE


def _write_rows(path: Path, rows: Rows) -> None:
    """JSONL, and the images of its rows beside it."""
    folder = path.parent / "images"
    with path.open("w", encoding="utf-8") as stream:
        for number, row in enumerate(rows):
            if "image" in row:
                folder.mkdir(exist_ok=True)
                file = folder / f"{path.stem}-{number:04}.png"
                row["image"].save(file)  # type: ignore[attr-defined]
                row = row | {"image": file.relative_to(path.parent).as_posix()}
            stream.write(json.dumps(row, ensure_ascii=False) + "\n")


def _base_lines(base: str) -> str:
    """``base:``, and a chat template where the base has none."""
    check_new_base(base)
    path = Path(base).expanduser()
    fits = template_for(base)
    # The folder without `..`, the name as it is: what a link of the hub's cache points to is called by a digest.
    place = path.parent.resolve() / path.name if path.exists() and path.name not in ("", "..") else path.absolute()
    lines = f"base: {json.dumps(str(place) if path.exists() else base)}\n"
    return lines + (
        f"chat_template: {fits}           # the base has none; or a jinja file of your own\n" if fits else ""
    )


def _export_lines(base: str) -> str:
    """The example's export, at the type that a user's own file has: its blocks stay as they are."""
    own = requantized_from(gguf_file(base), EXAMPLE_TYPE) if Path(base).expanduser().exists() else None
    if own is None:
        return EXPORT
    return EXPORT.replace(f"quantize: {EXAMPLE_TYPE}\n", f"quantize: {own}              # as the base's file has it\n")


def _project_file(
    name: str, template: str, base: str | None, export: str, examples: Sequence[Example], max_steps: int | None
) -> str:
    slug = "".join(sign if sign.isalnum() or sign in "._-" else "-" for sign in name.lower()).strip("._-") or "project"
    adapters = "".join(
        ADAPTER.format(
            name=each.name,
            system=json.dumps(each.system),
            max_steps=max_steps or "null",
            rank=each.rank,
            alpha=2 * each.rank,
            epochs=each.epochs,
        )
        for each in examples
    )
    task, demo = ("caption", DEMO_VLM) if template == "caption" else ("text", DEMO_TEXT)
    return HEAD.format(project=slug, task=task) + (base or demo) + ADAPTERS + adapters + export


HEAD = """\
# All keys are in docs/formats.md.  Every command works in this folder without further arguments.
project: {project}
task: {task}
"""
DEMO_TEXT = """\
base: smollm2-135m              # a hub id, a Hugging Face folder, a GGUF file, or this packaged demo base
"""
DEMO_VLM = """\
base: demo-vlm                  # a hub id or Hugging Face folder of a model that reads images, or this small demo one
"""
ADAPTERS = """\
adapters:                       # trained on the very blocks that devices run (export below)
"""
ADAPTER = """\
  {name}:
    method: qlora
    rank: {rank}
    alpha: {alpha}
    targets: all-linear
    learning_rate: 1.0e-3
    batch_size: 8
    epochs: {epochs}
    max_steps: {max_steps}
    seed: 0
    system: {system}
    data: {{train: data/{name}.train.jsonl, eval: data/{name}.eval.jsonl}}
"""
EXAMPLE_TYPE = "Q4_0"
EXPORT = f"""\
export:
  format: gguf
  quantize: {EXAMPLE_TYPE}
  device: raspberry-pi-5
"""
