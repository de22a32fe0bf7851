"""The model card of a trained adapter: README.md of its folder, as the Hugging Face hub reads it.

Training writes it, evaluations and exports fill in its scores.  What isn't known is left out.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekit.project import PREFERENCE, VIRTUAL
from edgekit.training.record import PLOT_FILE, RunRecord, final_losses, versions
from edgekit_exporters.base import Base
from edgekit_runtime.errors import EdgekitError
from edgekit_runtime.files.atomic import write_whole
from edgekit_runtime.formats.gguf import read_gguf

log = logging.getLogger(__name__)

CARD_FILE = "README.md"
_BEGIN, _END = "<!-- scores: edgekit fills these in -->", "<!-- end of scores -->"
_HEADING = ("answers of", "rows", "score", "base", "adapter")
_ENOUGH = 2  # cells that tell one measurement from another
_UNKNOWN = ("", "unknown", "none")


@dataclass(frozen=True)
class CardScore:
    """One line of the scores: ``base`` None where it wasn't asked; figures are of 100."""

    answers_of: str
    rows: int
    metric: str
    base: float | None
    adapter: float

    def cells(self) -> tuple[str, ...]:
        """As a row of the table."""
        base = "" if self.base is None else f"{self.base:.1f}"
        return (self.answers_of, str(self.rows), self.metric.replace("_", " "), base, f"{self.adapter:.1f}")


def base_license(base: Base) -> str | None:
    """What the base's own files say of its licence; None when they say nothing."""
    if base.gguf is not None:
        said = read_gguf(base.gguf).metadata.get("general.license")
    else:
        said = _front_matter(base.vision or base.folder).get("license")
    return said if isinstance(said, str) and said.strip().lower() not in _UNKNOWN else None


def write_card(folder: Path, record: RunRecord, base: Base, *, task: str) -> None:
    """Write README.md into the folder of a trained adapter.

    Args:
        folder: the adapter's; the loss plot lies there too.
        record: of its training.
        base: that it was trained on.
        task: "text" or "caption".
    """
    license = base_license(base)
    made = "trained" if record.combined is None else "combined"
    parts = [
        _header(record, base, task, license),
        f"# {record.adapter}",
        f"A LoRA adapter for {_named(record, base)}, {made} with edgekit.",
        "## Base",
        _list(_base_facts(record, base, license)),
        *(_made_of(record.combined) if record.combined is not None else _trained(record)),
        *([] if not record.system else ["The system prompt that it was trained with:", _quoted(record.system)]),
        *(_trimmed(record.trimmed) if record.trimmed else []),
        "## Scores",
        _BEGIN,
        f"Not measured yet: `edgekit evaluate {record.adapter}` and `edgekit export` write them here.",
        _END,
        "## How to use it",
        _usage(record, base),
    ]
    if license:
        said = f"The base is under `{license}`; what it asks of models made from it holds for this one."
        parts += ["## License", said]
    (folder / CARD_FILE).write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def add_scores(folder: Path, scores: Sequence[CardScore]) -> None:
    """Put scores into the card of an adapter folder; a card of somebody else, or none, stays as it is.

    A later measurement of the same answers on as many rows takes the place of the earlier one.
    """
    path = folder / CARD_FILE
    try:
        text = path.read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError):
        return
    before, begin, rest = text.partition(_BEGIN)
    section, end, after = rest.partition(_END)
    if not begin or not end:
        return
    rows = {cells[:_ENOUGH]: cells for cells in _rows_in(section)}
    rows |= {score.cells()[:_ENOUGH]: score.cells() for score in scores}
    explained = "Scores are of 100, on the first evaluation rows of the project."
    new = f"{before}{_BEGIN}\n\n{_table(_HEADING, list(rows.values()))}\n\n{explained}\n\n{_END}{after}"
    if new == text:
        return
    try:
        write_whole(path, new.encode())
    except (EdgekitError, OSError) as error:  # what was measured is told elsewhere too
        log.warning("the scores could not be written into %s (%s)", path, error)


def _rows_in(section: str) -> list[tuple[str, ...]]:
    lines = [line.strip() for line in section.splitlines() if line.strip().startswith("|")]
    rows = [tuple(cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]) for line in lines[2:]]
    return [row for row in rows if len(row) == len(_HEADING)]


def _front_matter(folder: Path) -> Mapping[str, Any]:
    """The YAML at the head of a folder's README.md."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        text = (folder / CARD_FILE).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return {}
    found = re.match(r"---\s*\n(.*?)\n---\s*(\n|$)", text, re.DOTALL)
    try:
        document = YAML(typ="safe").load(found[1]) if found else None
    except (YAMLError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}


def _header(record: RunRecord, base: Base, task: str, license: str | None) -> str:
    virtual = record.hyperparameters.get("method") in VIRTUAL
    tags = [
        "prompt-tuning" if virtual else "lora",
        "edgekit",
        *([f"base_model:adapter:{base.name}"] if base.on_hub else []),
    ]
    lines = [f"base_model: {json.dumps(base.name)}"] if base.on_hub else []
    lines += ["library_name: peft"]
    lines += [f"license: {json.dumps(license)}"] if license else []
    lines += [f"pipeline_tag: {'image-text-to-text' if task == 'caption' else 'text-generation'}"]
    lines += ["tags:", *(f"  - {json.dumps(tag)}" for tag in tags)]
    return "\n".join(["---", *lines, "---"])


def _named(record: RunRecord, base: Base) -> str:
    return f"`{base.name if base.on_hub else record.base}`"


def _base_facts(record: RunRecord, base: Base, license: str | None) -> list[tuple[str, str]]:
    facts = [("model", _named(record, base)), ("family", f"`{record.family}`"), ("license", license or "")]
    facts.append(("weights in training", record.base_precision))
    if record.quantization and record.base_precision != record.quantization:
        facts.append(("quantization on devices", record.quantization))
    return [fact for fact in facts if fact[1]]


def _trained(record: RunRecord) -> list[str]:
    return [
        "## Data",
        _list(_data_facts(record)),
        "## Training",
        f"![Loss over the steps of training]({PLOT_FILE})",
        *_losses(record),
        _table(("setting", "value"), _settings(record)),
    ]


def _made_of(combined: Mapping[str, Any]) -> list[str]:
    """The parts of a combination, and what it has made of their scores."""
    settings = {key: value for key, value in combined["settings"].items() if key != "parts"}
    rows = [
        (
            part["name"],
            f"{part['weight']:g}",
            *((f"{part['before']:.1f}", f"{part['after']:.1f}") if "before" in part else ("", "")),
            f"`{part['digest']}`",
        )
        for part in combined["parts"]
    ]
    return [
        "## Parts",
        _list([(key, _value(value)) for key, value in (settings | {"seed": combined["seed"]}).items()]),
        _table(("adapter", "weight", "its own score", "score of this one", "sha256"), rows),
        "Scores are of 100, on the evaluation rows of the part.",
        *([f"Shipped although it loses more than allowed: {combined['accepted']}"] if combined["accepted"] else []),
    ]


def _data_facts(record: RunRecord) -> list[tuple[str, str]]:
    data = record.data
    held_out = ", held out of the training rows" if data.get("held_out") else ""
    return [
        ("training rows", str(data["train_rows"])),
        ("evaluation rows", f"{data['eval_rows']}{held_out}"),
        ("sha256 of both", f"`{data['digest']}`"),
    ]


def _settings(record: RunRecord) -> list[tuple[str, str]]:
    idle = {"system", *(["epochs"] if record.hyperparameters.get("max_steps") else [])}  # max_steps wins
    given = record.hyperparameters.items()
    shown = {key: value for key, value in given if key not in idle and value is not None and value is not False}
    if record.trimmed:
        shown["targets"] = f"auto: {record.trimmed['matrices']} of {record.trimmed['matrices_before']} matrices"
    return [(key.replace("_", " "), _cell(_value(value))) for key, value in shown.items() if value != {}]


def _trimmed(found: Mapping[str, Any]) -> list[str]:
    """What `targets: auto` has left out, and what it has kept."""
    decode = f"{found['share']:.2f} of the bare base's on {found['device']}, an estimate; "
    facts = [("decode", f"{decode}{found['share_before']:.2f} with all matrices")]
    if found["score"] is not None:
        score = f"{found['score']:.1f} of 100 on {found['rows']} rows; "
        facts.append(("score", f"{score}{found['score_before']:.1f} with all matrices"))
    for kind, layers in found["kept"].items():
        facts.append((f"`{kind}`", f"in {len(layers)} layers: {', '.join(map(str, layers))}"))
    return ["## What it changes", "Matrices that cost more than they gave were left out after training.", _list(facts)]


def _value(value: Any) -> str:
    if value is True:
        return "yes"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value))
    return f"`{json.dumps(value, ensure_ascii=False)}`" if isinstance(value, dict) else str(value)


def _losses(record: RunRecord) -> list[str]:
    """The last ones of what is kept: the plot has all."""
    last = final_losses(record.losses, record.kept_step)
    said = [
        f"{last[key]:.3f} on {name} rows"
        for key, name in (("loss", "training"), ("eval_loss", "evaluation"))
        if key in last
    ]
    step = int(last.get("step", 0))
    loss = "Preference loss" if record.hyperparameters.get("method") == PREFERENCE else "Loss per answer token"
    return [f"{loss} after {step} steps: {' and '.join(said)}."] if said else []


def _usage(record: RunRecord, base: Base) -> str:
    commands = f"edgekit evaluate {record.adapter}\nedgekit export {record.adapter}"
    edgekit = f"With edgekit, in the project's folder:\n\n```sh\n{commands}\n```"
    if base.vision is not None:  # it stands on the text model, which PEFT can't take out of the whole one
        return edgekit
    name = base.name if base.on_hub else "FOLDER OF THE BASE"
    file = "" if base.gguf is None else f', gguf_file="{base.gguf.name}"'
    lines = [
        "from peft import PeftModel",
        "from transformers import AutoModelForCausalLM, AutoTokenizer",
        "",
        f'base = AutoModelForCausalLM.from_pretrained("{name}"{file})',
        f'tokenizer = AutoTokenizer.from_pretrained("{name}"{file})',
        'model = PeftModel.from_pretrained(base, "FOLDER OF THIS ADAPTER")',
    ]
    made = versions()
    packages = ", ".join(f"{name} {made[name]}" for name in ("peft", "transformers", "torch"))
    code = "\n".join(lines)
    return f"{edgekit}\n\nWith PEFT (made with {packages}):\n\n```python\n{code}\n```"


def _quoted(text: str) -> str:
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall(r"`+", text)), default=0))
    return f"{fence}text\n{text}\n{fence}"


def _list(facts: Sequence[tuple[str, str]]) -> str:
    return "\n".join(f"* {name}: {value}" for name, value in facts)


def _table(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heading, ["---"] * len(heading), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
