"""`edgekit init`: a project folder that works as it stands."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ruamel.yaml import YAML

from edgekit.bases.resolve import check_new_base, gguf_file, template_for
from edgekit.examples import (
    caption,
    chat,
    contract,
    finance,
    inspection,
    inspection_numeric,
    lesson,
    machine_tools,
    monitoring,
    service_desk,
    triage,
)
from edgekit.examples.answers import Schema
from edgekit.examples.drawing import Rows
from edgekit.project import PROJECT_FILE
from edgekit_exporters.requantized import requantized_from
from edgekit_runtime.errors import UsageError
from edgekit_runtime.files.atomic import publish
from edgekit_runtime.hints import did_you_mean

SEED = 7
TRAIN_ROWS = 800
EVAL_ROWS = 200
LONGEST_NAME = 64  # of a project that init names; the file may have a longer one
SCHEMA_FILE = "data/{name}.schema.json"


@dataclass(frozen=True)
class Example:
    """An example adapter.

    Attributes:
        name: of the adapter.
        system: its system prompt; short, as each row has it.
        generate: makes training and evaluation rows from their numbers and a seed.
        schema: JSON schema of its answers; None where they are text.
        notice: what a reader of the project file has to know.
    """

    name: str
    system: str
    generate: Callable[[int, int, int], tuple[Rows, Rows]]
    schema: Schema | None = None
    train_rows: int = TRAIN_ROWS
    eval_rows: int = EVAL_ROWS
    rank: int = 16
    dropout: float = 0.0
    learning_rate: str = "2.0e-3"
    batch_size: int = 4  # more steps from the same rows
    epochs: int = 1
    max_steps: int | None = None
    notice: str | None = None


INSPECTION = Example("inspection", inspection.SYSTEM, inspection.generate, inspection.SCHEMA)
MONITORING = Example("monitoring", monitoring.SYSTEM, monitoring.generate, monitoring.SCHEMA)
NUMERIC = Example(
    "inspection",
    inspection_numeric.SYSTEM,
    inspection_numeric.generate,
    inspection_numeric.SCHEMA,
    dropout=0.05,
    learning_rate="1.0e-3",
    batch_size=8,
    epochs=3,
)
SERVICE_DESK = Example("service-desk", service_desk.SYSTEM, service_desk.generate, service_desk.SCHEMA)
FINANCE = Example("finance", finance.SYSTEM, finance.generate, finance.SCHEMA)
TRIAGE = Example("triage", triage.SYSTEM, triage.generate, triage.SCHEMA, notice=triage.NOTICE)
CONTRACT = Example("contract", contract.SYSTEM, contract.generate, contract.SCHEMA)
LESSON = Example("lesson", lesson.SYSTEM, lesson.generate, lesson.SCHEMA, lesson.TRAIN_ROWS, lesson.EVAL_ROWS, epochs=2)
TOOLS = Example(
    "operator",
    machine_tools.SYSTEM,
    machine_tools.generate,
    train_rows=machine_tools.TRAIN_ROWS,
    learning_rate="1.0e-3",
)
CHAT = Example(
    "style", chat.SYSTEM, chat.generate, None, chat.TRAIN_ROWS, chat.EVAL_ROWS, epochs=3, learning_rate="1.0e-3"
)
REPORT, CASTINGS = (
    Example(
        name,
        system,
        generate,
        schema,
        caption.TRAIN_ROWS,
        caption.EVAL_ROWS,
        rank=8,
        dropout=0.05,
        learning_rate="1.0e-3",
        batch_size=8,
    )
    for name, system, generate, schema in (
        ("report", caption.REPORT_SYSTEM, caption.generate_reports, caption.REPORT_SCHEMA),
        ("castings", caption.CASTINGS_SYSTEM, caption.generate_castings, None),
    )
)
MANY_STEPS = 40  # of each adapter: all of them take the time of a coffee
MANY = tuple(
    replace(each, rank=8, epochs=1, max_steps=MANY_STEPS)
    for each in (INSPECTION, MONITORING, SERVICE_DESK, FINANCE, TRIAGE, CONTRACT, LESSON, TOOLS)
)
TEMPLATES: dict[str, Sequence[Example]] = {
    "inspection": (INSPECTION, MONITORING),
    "monitoring": (MONITORING,),
    "inspection-numeric": (NUMERIC,),
    "service-desk": (SERVICE_DESK,),
    "finance": (FINANCE,),
    "triage": (TRIAGE,),
    "contract": (CONTRACT,),
    "lesson": (LESSON,),
    "tools": (TOOLS,),
    "chat": (CHAT,),
    "caption": (REPORT, CASTINGS),
    "many": MANY,
}


def init_project(
    folder: Path, template: str = "inspection", *, base: str | None = None, max_steps: int | None = None
) -> Path:
    """Write a new project with example data; returns its edgekit.yaml.

    Args:
        folder: where; it must be missing or empty.
        template: a key of ``TEMPLATES``; "inspection" has a second adapter for monitoring, "caption" has images, "many"
            has eight adapters and `auto`.
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
            if example.schema is not None:
                schema = json.dumps(example.schema, ensure_ascii=False, indent=2)
                (temporary / SCHEMA_FILE.format(name=example.name)).write_text(schema + "\n", encoding="utf-8")
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
    signs = (sign if sign.isascii() and (sign.isalnum() or sign in "._-") else "-" for sign in name.lower())
    slug = "".join(signs).strip("._-")[:LONGEST_NAME] or "project"
    if not isinstance(YAML(typ="safe").load(slug), str):  # 0, no and null are something else in YAML
        slug = json.dumps(slug)
    adapters = "".join(_adapter_lines(each, max_steps) for each in examples)
    task, demo = ("caption", DEMO_VLM) if template == "caption" else ("text", DEMO_TEXT)
    more = CHOOSING if template == "many" else ""
    return HEAD.format(project=slug, task=task) + (base or demo) + ADAPTERS + adapters + more + export


def _adapter_lines(example: Example, max_steps: int | None) -> str:
    text = ADAPTER.format(
        name=example.name,
        notice="" if example.notice is None else f"  # {example.notice}",
        system=json.dumps(example.system),
        max_steps=max_steps or example.max_steps or "null",
        rank=example.rank,
        alpha=2 * example.rank,
        dropout=example.dropout,
        batch=example.batch_size,
        epochs=example.epochs,
        rate=example.learning_rate,
    )
    return text if example.schema is None else f"{text}    schema: {SCHEMA_FILE.format(name=example.name)}\n"


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
  {name}:{notice}
    method: qlora
    rank: {rank}
    alpha: {alpha}
    dropout: {dropout}
    targets: all-linear
    learning_rate: {rate}
    batch_size: {batch}
    epochs: {epochs}
    max_steps: {max_steps}
    seed: 0
    system: {system}
    data: {{train: data/{name}.train.jsonl, eval: data/{name}.eval.jsonl}}
"""
CHOOSING = """\
auto: {fallback: base}          # devices choose the adapter of a request for `auto`
gate: {rows: 16}                # evaluation rows of each adapter that the proof asks
"""
EXAMPLE_TYPE = "Q4_0"
EXPORT = f"""\
export:
  format: gguf
  quantize: {EXAMPLE_TYPE}
  device: raspberry-pi-5
"""
