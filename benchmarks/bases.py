"""Which bases work?  `make bases` asks tiny random models of all kinds and writes docs/bases.md.

All kinds that both llama.cpp's converter and transformers know as causal language models, each in processes of its
own with a time limit.  `python benchmarks/bases.py KIND...` asks some of them and prints their rows.
"""

from __future__ import annotations

import functools
import hashlib
import logging
import os
import pickle
import re
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import transformers
from peft import LoraConfig, get_peft_model
from torch import Tensor
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from base_families import FAMILIES, Family
from base_giants import GIANTS
from base_onnx import onnx_cell
from base_rows import Row, page
from edgekit.bases.probe.compare import distance
from edgekit.bases.probe.measure import PROMPT, Measured, Written, measure, torch_logits, write_tiny
from edgekit.bases.probe.shrunk import __file__ as shrunk_rules
from edgekit.bases.probe.shrunk import known, shrunk
from edgekit.bases.probe.tiny import random_model, random_pairs
from edgekit.bases.quantized import load_quantized
from edgekit.bases.quantized.experts import QuantizedExperts, shown_as_parameters
from edgekit.bases.quantized.mapping import stored_tensors
from edgekit_exporters.cache import cache_folder
from edgekit_exporters.conversion.converters import CONVERSION, tools_folder
from edgekit_exporters.conversion.tensor_map import plain_ggufs, tensor_map
from edgekit_exporters.gguf.base import Recipe
from edgekit_exporters.peft.as_named import as_named
from edgekit_exporters.peft.names import PREFIX
from edgekit_runtime.errors import EdgekitError

PAGE = Path(__file__).parents[1] / "docs" / "bases.md"
SECONDS = 900  # for each process of a kind
AT_ONCE = 8  # kinds in one process of the converter
# Inner models and aliases of kinds that have a row.
NO_ROW = ("gpt-sw3", "internlm3", "iquestcoder", "gemma3", "gemma3n", "gemma4", "gemma4_unified", "llama4", "qwen3_5")
NO_ROW += ("qwen3_5_moe", "qwen4_exp", "dots3_note")


@dataclass(frozen=True)
class Asked:
    """A family, and its configuration without a window where the engine has none."""

    family: Family
    config: dict[str, Any]
    window_ignored: bool = False


def main(kinds: Sequence[str]) -> None:
    """Ask, and write the page; of some kinds the rows are printed alone."""
    logging.disable(logging.WARNING)
    transformers.utils.logging.disable_progress_bar()
    torch.set_num_threads(1)
    families = [family for family in all_families() if not kinds or family.kind in kinds]
    if kinds:
        families.sort(key=lambda family: kinds.index(family.kind))
    rows = {
        number: _with_onnx(family, row) for number, family in enumerate(families) if (row := _kept(family)) is not None
    }
    missing = [number for number in range(len(families)) if number not in rows]
    for start in range(0, len(missing), AT_ONCE):
        numbers = missing[start : start + AT_ONCE]
        for row in ask_all([families[number] for number in numbers]):
            number = next(each for each in numbers if _names(families[each]) == (row.kind, row.names))
            _keep(families[number], row)
            rows[number] = _with_onnx(families[number], row)
            print(rows[number].line, flush=True)
        if not kinds:
            _write_page(families, rows)
    if not kinds:
        _write_page(families, rows)
    else:
        print(*(rows[number].line for number in sorted(set(rows) - set(missing))), sep="\n")


def _write_page(families: Sequence[Family], rows: Mapping[int, Row]) -> None:
    unasked = [Row(*_names(family), failure="not asked yet") for family in families]
    PAGE.write_text(page([rows.get(number, unasked[number]) for number in range(len(families))]), "utf-8")


def _names(family: Family) -> tuple[str, str]:
    return family.kind, family.names


def _with_onnx(family: Family, row: Row) -> Row:
    return replace(row, onnx=forked(lambda: onnx_cell(family.raw)))


def _kept(family: Family) -> Row | None:
    """The row of an earlier run of the same code, so that a run that was stopped goes on."""
    place = _place(family)
    row: Row | None = pickle.loads(place.read_bytes()) if place.is_file() else None
    return row


def _keep(family: Family, row: Row) -> None:
    _place(family).write_bytes(pickle.dumps(row))


def _place(family: Family) -> Path:
    """Named by all that a row depends on; of how it is shrunk the result counts, so that each rule may change alone."""
    try:
        small = str(shrunk(family.raw))
    except Exception:  # _write says why
        small = Path(shrunk_rules).read_text(encoding="utf-8")
    digest = hashlib.sha256(f"{family.raw}:{small}:{PROMPT}:{CONVERSION}:{_code()}".encode())
    return cache_folder("bases-table") / digest.hexdigest()[:24]


@functools.cache
def _code() -> str:
    """Digest of the code that a row depends on."""
    root = Path(__file__).parents[1]
    folders = ("edgekit/bases/probe", "edgekit/bases/quantized", "exporters/edgekit_exporters/conversion")
    files = [path for folder in folders for path in sorted((root / folder).glob("*.py"))]
    files = [path for path in files if path != Path(shrunk_rules)]
    digest = hashlib.sha256()
    for path in (*files, root / "exporters/edgekit_exporters/gguf/lora.py"):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def all_families() -> list[Family]:
    """Those with a configuration by hand, then every other kind with transformers' own."""
    described = {family.kind for family in (*FAMILIES, *GIANTS)}
    others = [kind for kind in known_kinds() if kind not in described and kind not in NO_ROW]
    return [*FAMILIES, *GIANTS, *(Family(kind, MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[kind]) for kind in others)]


def known_kinds() -> list[str]:
    """Of causal language models, to both the pinned converter and transformers."""
    text = (tools_folder() / "conversion" / "__init__.py").read_text(encoding="utf-8")
    listed = set(re.findall(r'^    "(\w+)":', text[text.index("TEXT_MODEL_MAP") :].partition("\n}")[0], re.MULTILINE))
    return [kind for kind, name in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.items() if name in listed]


def ask_all(families: Sequence[Family]) -> Iterator[Row]:
    """The rows of some families."""
    again = []
    for asked, row in _asked([Asked(family, {}) for family in families]):
        if row.base is not None and not row.base.agree and (window := _window(asked)) is not None:
            again.append((asked, row, window))
        else:
            yield row
    open_ended = [Asked(asked.family, {**asked.config, "sliding_window": None}, True) for asked, _, _ in again]
    for (asked, first, window), (_, row) in zip(again, _asked(open_ended) if open_ended else (), strict=True):
        agrees = row.base is not None and row.base.agree
        context = known(asked.family.raw).max_position_embeddings
        yield (replace(row, window=window) if window < context else row) if agrees else first


def _window(asked: Asked) -> int | None:
    """Of attention, where it has one that the small configuration shrinks."""
    return known(asked.family.raw).sliding_window if asked.config.get("sliding_window") else None


def _asked(all_asked: Sequence[Asked]) -> Iterator[tuple[Asked, Row]]:
    with tempfile.TemporaryDirectory(prefix="edgekit-bases-") as scratch:
        folders, failed = {}, {}
        for number, asked in enumerate(all_asked):
            folder = Path(scratch, str(number))
            made = forked(lambda asked=asked, folder=folder: _write(asked, folder))
            if isinstance(made, str):
                failed[number] = asked.family.obstacle or f"transformers makes no small model of it: {made}"
            else:
                all_asked = [*all_asked[:number], made, *all_asked[number + 1 :]]
                folders[number] = folder
        files = dict(zip(folders, plain_ggufs(list(folders.values())), strict=True)) if folders else {}
        for number, asked in enumerate(all_asked):
            row = Row(asked.family.kind, asked.family.names)
            if number in failed:
                yield asked, replace(row, failure=failed[number])
                continue
            base, merged = files[number]
            if isinstance(base, str):
                failure = asked.family.obstacle or f"llama.cpp's converter refuses it: {base}"
                yield asked, replace(row, failure=failure)
                continue
            found = forked(lambda asked=asked, at=number, files=(base, merged): _measure(asked, folders[at], *files))
            shutil.rmtree(folders[number])
            if isinstance(found, str):
                yield asked, replace(row, failure=found)
                continue
            measured, blocks = found
            yield (
                asked,
                replace(
                    row,
                    base=measured.base,
                    adapted=measured.adapted,
                    merged=measured.merged,
                    layers=measured.layers,
                    blocks=blocks,
                ),
            )


def _write(asked: Asked, folder: Path) -> Asked:
    config = asked.config or shrunk(asked.family.raw)
    write_tiny(config, folder, merged=True)
    return replace(asked, config=config)


def _measure(asked: Asked, folder: Path, base: Path, merged: Path | str) -> tuple[Measured, str]:
    model = random_model(known(asked.config))
    written = Written(folder, model, random_pairs(model))
    measured = measure(written, base, None if isinstance(merged, str) else merged)
    try:
        blocks = trains_on_blocks(written, base, measured)
    except Exception as error:
        blocks = _line(error)
    return measured, blocks


def trains_on_blocks(written: Written, base: Path, measured: Measured) -> str:
    """Say "yes" if Q8_0 gives back each weight to the bit, the packed model answers alike, and gradients come.

    The weights are such that Q8_0 rounds none of them.  Else say what is wrong.
    """
    packed_file = written.folder / "q8.gguf"
    Recipe("Q8_0").quantize(base, packed_file)
    weights = written.model.state_dict()
    for name, tensor in stored_tensors(packed_file, tensor_map(written.folder), written.folder):
        expected = weights[name]
        found = tensor.floats(torch.float32)
        rows = len(expected) if expected.dim() else 1
        found = found[:rows] if expected.dim() else found
        if not (torch.equal(found, expected) if tensor.factors is None else _rounded_alike(found, expected)):
            return f"{name} comes back changed"
    packed = load_quantized(packed_file, written.folder, dtype=torch.float32)
    layers = measured.layers
    usable = [name for name in (*layers.honoured, *layers.idle) if name not in layers.routers]
    if not distance(torch_logits(written.model), torch_logits(packed)).agree:
        return "the packed model answers otherwise"
    if not usable:
        return "no layer takes an adapter"
    packed.train()
    tuned: Any = _adapted(packed, usable)
    tokens = torch.tensor([PROMPT])
    tuned(input_ids=tokens, labels=tokens, use_cache=False).loss.backward()
    live = [name for name in usable if name not in layers.idle]
    for name, parameter in tuned.named_parameters():
        if any(part in name for part in (".lora_B.", ".lora_embedding_A.")) and _adapts(tuned, name) in live:
            grad = parameter.grad
            if grad is None or not torch.isfinite(grad).all() or not grad.abs().max() > 0:
                return f"no gradient comes to {name}"
    return "yes"


def _adapted(model: Any, names: Sequence[str]) -> Any:
    inner = [name for name in names if isinstance(model.get_submodule(name), QuantizedExperts)]
    layers = [name for name in names if name not in inner]
    settings = LoraConfig(r=2, target_modules=layers, target_parameters=inner or None, task_type="CAUSAL_LM")
    with as_named(), shown_as_parameters(model):
        return get_peft_model(model, settings)


def _adapts(tuned: Any, parameter: str) -> str:
    """What of the base an adapter's parameter is for."""
    wrapper = parameter.partition(".lora_")[0]
    name = wrapper.removeprefix(PREFIX).replace(".base_layer", "")
    inner = getattr(tuned.get_submodule(wrapper), "parameter_name", None)
    return f"{name}.{inner}" if inner else name


def _rounded_alike(found: Tensor, expected: Tensor) -> bool:
    """Whether a matrix that the conversion scales has come back within half a step of Q8_0."""
    return bool(((found - expected).abs() <= expected.abs().max() / 127 * 0.502).all())


def forked(work: Callable[[], Any]) -> Any:
    """The result of ``work`` in a process of its own, or a line that says why there is none."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        signal.alarm(SECONDS)
        try:
            result = work()
        except BaseException as error:
            result = _line(error)
        with os.fdopen(writing, "wb") as stream:
            pickle.dump(result, stream)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as stream:
        content = stream.read()
    os.waitpid(child, 0)
    return pickle.loads(content) if content else f"it dies, or takes more than {SECONDS} s"


def _line(error: BaseException) -> str:
    if isinstance(error, EdgekitError):
        return error.problem
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:160]}" if lines else type(error).__name__


if __name__ == "__main__":
    main(sys.argv[1:])
