"""What an adapter file (LoRA GGUF or .onnx_adapter) says of itself, and whether it fits a base."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekit_runtime.errors import InputError
from edgekit_runtime.gguf import GgufFile, read_gguf
from edgekit_runtime.manifest import NAME_PATTERN, AdapterEntry
from edgekit_runtime.onnx_adapter import SUFFIX as ONNX_SUFFIX
from edgekit_runtime.onnx_adapter import OnnxAdapter, is_onnx_adapter, model_version, read_onnx_adapter
from edgekit_runtime.onnx_base import KEY_LAYERS, LORA_A, LORA_B

ADAPTER_SCHEMA = "edgekit.adapter/1"
ADAPTER_SUFFIXES = (".gguf", ONNX_SUFFIX)
KEY_SCHEMA = "edgekit.schema"
KEY_NAME = "edgekit.name"
KEY_VERSION = "edgekit.version"
KEY_FAMILY = "edgekit.family"
KEY_RANK = "edgekit.rank"
KEY_TARGETS = "edgekit.targets"
KEY_SYSTEM = "edgekit.system"
KEY_GENERATION = "edgekit.generation"
KEY_OUTPUT_SCHEMA = "edgekit.output_schema"
KEY_TEMPLATE_ARGUMENTS = "edgekit.template_arguments"
# llama.cpp's own keys (gguf-py, class Keys.Adapter)
KEY_KIND = "general.type"
KEY_ARCHITECTURE = "general.architecture"
KEY_ADAPTER_TYPE = "adapter.type"
KEY_ALPHA = "adapter.lora.alpha"
KEY_INVOCATION = "adapter.alora.invocation_tokens"

SUFFIX_A, SUFFIX_B = ".lora_a", ".lora_b"
MAX_INVOCATION = 1024  # tokens
FLOAT_TYPES = ("F32", "F16", "BF16", "Q8_0")


@dataclass(frozen=True)
class AdapterFacts:
    """An adapter file's own account; the ``edgekit.*`` facts are None in files that others made.

    ``pairs`` maps what is changed, the base's tensor or the ONNX graph's layer, to (input width, output width, rank);
    ``invocation`` are the tokens from which an activated LoRA works, none for any other.
    """

    path: Path
    architecture: str
    alpha: float
    pairs: dict[str, tuple[int, int, int]]
    name: str | None
    version: str | None
    family: str | None
    system: str | None
    generation: dict[str, Any] | None
    output_schema: dict[str, Any] | None
    template_arguments: dict[str, Any] | None = None
    invocation: tuple[int, ...] = ()
    onnx: bool = False

    @property
    def rank(self) -> int:
        """The largest rank."""
        return max(rank for _, _, rank in self.pairs.values())

    @classmethod
    def read(cls, path: Path | str) -> AdapterFacts:
        """Read an adapter file.

        Raises:
            InputError: not a sound LoRA GGUF or ``.onnx_adapter``.
        """
        if is_onnx_adapter(Path(path)):
            return _onnx_facts(read_onnx_adapter(path))
        gguf = read_gguf(path)
        metadata = gguf.metadata
        if metadata.get(KEY_KIND) != "adapter" or metadata.get(KEY_ADAPTER_TYPE) != "lora":
            raise InputError(
                f"{path} is not a LoRA adapter but a {metadata.get(KEY_KIND, 'nameless file')}",
                "give a LoRA GGUF, as `edgekit export` makes it",
            )
        return cls(
            path=gguf.path,
            architecture=_text(gguf, KEY_ARCHITECTURE) or "",
            alpha=_number(gguf, KEY_ALPHA),
            pairs=_pairs(gguf),
            name=_text(gguf, KEY_NAME),
            version=_text(gguf, KEY_VERSION),
            family=_text(gguf, KEY_FAMILY),
            system=_text(gguf, KEY_SYSTEM),
            generation=_json(gguf, KEY_GENERATION),
            output_schema=_json(gguf, KEY_OUTPUT_SCHEMA),
            template_arguments=_json(gguf, KEY_TEMPLATE_ARGUMENTS),
            invocation=_tokens(gguf.path, metadata.get(KEY_INVOCATION)),
        )


UNVERIFIED = {"verified": False}  # quality of an adapter that came without edgekit's facts


def adapter_entry(facts: AdapterFacts, *, family: str, file: str, digest: str, name: str | None = None) -> AdapterEntry:
    """The manifest entry of an adapter file that comes alone.

    Args:
        facts: what the file says of itself.
        family: of the base that it has been checked against.
        file: where it is.
        digest: its sha256.
        name: another name than its own, or than its file's where it has none.

    Raises:
        InputError: no name that an adapter can have.
    """
    name = name or facts.name or re.sub(r"[^a-z0-9._-]+", "-", facts.path.stem.lower()).strip("._-")
    if not re.fullmatch(NAME_PATTERN, name):
        raise InputError(f"{name!r} is no name for an adapter", "use a-z, 0-9, . _ and -")
    return AdapterEntry(
        name=name,
        version=facts.version or "0",
        file=file,
        rank=facts.rank,
        targets=tuple(sorted({target.removesuffix(".weight").rpartition(".")[2] for target in facts.pairs})),
        family=family,
        digest=digest,
        system=facts.system,
        generation=facts.generation,
        schema=facts.output_schema,
        template_arguments=facts.template_arguments,
        quality=None if facts.family else UNVERIFIED,
    )


def check_fits(adapter: AdapterFacts, base: GgufFile, *, family: str | None = None) -> None:
    """Check that ``adapter`` belongs to ``base``.

    Args:
        adapter: the adapter.
        base: the base's header.
        family: the base's family where a manifest tells it; otherwise the file's own is used, when it has one.

    Raises:
        InputError: other family or architecture, or a pair that matches no tensor of the base.
    """
    family = family or base.metadata.get(KEY_FAMILY)
    if adapter.family and family and adapter.family != family:
        raise InputError(
            f"{adapter.path} was trained for the base {adapter.family}, and this base is {family}",
            "use the adapter with its own base, or train it for this one",
        )
    if adapter.onnx != (KEY_LAYERS in base.metadata):
        wanted = "gguf" if adapter.onnx else "onnx"  # what this base runs
        raise InputError(f"{adapter.path} is for another engine than this base", f"export it with --format {wanted}")
    known = base.metadata.get("tokenizer.ggml.tokens")
    if adapter.invocation and known is not None and max(adapter.invocation) >= len(known):
        raise InputError(
            f"{adapter.path} is invoked by a token that the base doesn't have", "use the adapter with its own base"
        )
    if adapter.onnx:
        _check_layers(adapter, base)
        return
    architecture = base.metadata.get(KEY_ARCHITECTURE)
    if adapter.architecture != architecture:
        raise InputError(
            f"{adapter.path} is for the architecture {adapter.architecture}, and the base is {architecture}",
            "use the adapter with its own base",
        )
    for name, (inputs, outputs, _) in adapter.pairs.items():
        tensor = base.tensors.get(name)
        if tensor is None or tensor.shape != (inputs, outputs):
            found = (
                "which the base lacks" if tensor is None else f"which has the shape {list(tensor.shape)} in the base"
            )
            raise InputError(
                f"{adapter.path} changes {name} as [{inputs}, {outputs}], {found}",
                "use the adapter with its own base",
            )


def _check_layers(adapter: AdapterFacts, base: GgufFile) -> None:
    """An ONNX base tells which layers take adapters, and how wide they are."""
    lines = [line.split() for line in base.metadata[KEY_LAYERS]]
    layers = {name: (int(inputs), int(outputs)) for name, inputs, outputs in lines}
    for name, (inputs, outputs, _) in adapter.pairs.items():
        if layers.get(name) != (inputs, outputs):
            found = "which the base lacks" if name not in layers else f"which is {list(layers[name])} in the base"
            raise InputError(
                f"{adapter.path} changes {name} as [{inputs}, {outputs}], {found}",
                "use the adapter with its own base",
            )


def _onnx_facts(file: OnnxAdapter) -> AdapterFacts:
    facts = file.facts

    def known(key: str, kind: type) -> Any:
        value = facts.get(key)
        if value is not None and not isinstance(value, kind):
            raise _unsound_onnx(file, f"{key} is not {'text' if kind is str else 'a JSON object'}")
        return value

    family = known(KEY_FAMILY, str)
    if family is not None and file.model_version != model_version(family):
        raise _unsound_onnx(file, f"its model version is not that of {family}")
    return AdapterFacts(
        path=file.path,
        architecture="",
        alpha=1.0,
        pairs=_onnx_pairs(file),
        name=known(KEY_NAME, str),
        version=known(KEY_VERSION, str),
        family=family,
        system=known(KEY_SYSTEM, str),
        generation=known(KEY_GENERATION, dict),
        output_schema=known(KEY_OUTPUT_SCHEMA, dict),
        template_arguments=known(KEY_TEMPLATE_ARGUMENTS, dict),
        invocation=_tokens(file.path, facts.get(KEY_INVOCATION)),
        onnx=True,
    )


def _onnx_pairs(file: OnnxAdapter) -> dict[str, tuple[int, int, int]]:
    """A is [in, rank] and B [rank, out]."""
    pairs: dict[str, tuple[int, int, int]] = {}
    for name, a in file.parameters.items():
        layer = name.removesuffix(LORA_A)
        if layer == name:
            if name.removesuffix(LORA_B) + LORA_A not in file.parameters:
                raise _unsound_onnx(file, f"{name} is no half of a LoRA pair")
            continue
        b = file.parameters.get(layer + LORA_B)
        if b is None:
            raise _unsound_onnx(file, f"{layer} has no B matrix")
        if a.shape[1] != b.shape[0]:
            raise _unsound_onnx(file, f"the ranks of {layer} differ: A has {a.shape[1]}, B has {b.shape[0]}")
        pairs[layer] = (a.shape[0], b.shape[1], a.shape[1])
    if not pairs:
        raise _unsound_onnx(file, "it holds no LoRA pair")
    return pairs


def _unsound_onnx(file: OnnxAdapter, problem: str) -> InputError:
    return InputError(f"{file.path} is not a sound adapter: {problem}", "copy or export it again")


def _pairs(gguf: GgufFile) -> dict[str, tuple[int, int, int]]:
    """A is [in, rank] and B is [rank, out] in ggml's order; the embedding's A is stored transposed by llama.cpp."""
    pairs: dict[str, tuple[int, int, int]] = {}
    for name, a in gguf.tensors.items():
        target = name.removesuffix(SUFFIX_A)
        if target == name:
            if not name.endswith(SUFFIX_B) or name.removesuffix(SUFFIX_B) + SUFFIX_A not in gguf.tensors:
                raise _unsound(gguf, f"tensor {name} is no half of a LoRA pair")
            continue
        b = gguf.tensors.get(target + SUFFIX_B)
        if b is None:
            raise _unsound(gguf, f"{target} has no B matrix")
        if a.type_name not in FLOAT_TYPES or b.type_name not in FLOAT_TYPES:
            raise _unsound(gguf, f"{target} is stored as {a.type_name}/{b.type_name}")
        if len(a.shape) != 2 or len(b.shape) != 2:
            raise _unsound(gguf, f"{target} is no pair of matrices")
        inputs, rank = a.shape if target != "token_embd.weight" else a.shape[::-1]
        if rank != b.shape[0]:
            raise _unsound(gguf, f"the ranks of {target} differ: A has {rank}, B has {b.shape[0]}")
        pairs[target] = (inputs, b.shape[1], rank)
    if not pairs:
        raise _unsound(gguf, "it holds no LoRA pair")
    return pairs


def _text(gguf: GgufFile, key: str) -> str | None:
    value = gguf.metadata.get(key)
    if value is not None and not isinstance(value, str):
        raise _unsound(gguf, f"{key} is not text")
    return value


def _number(gguf: GgufFile, key: str) -> float:
    value = gguf.metadata.get(key)
    # The comparison is false for NaN too, which would make every logit NaN.
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < 1e6:
        raise _unsound(gguf, f"{key} is no sensible number")
    return float(value)


def _json(gguf: GgufFile, key: str) -> dict[str, Any] | None:
    text = _text(gguf, key)
    if text is None:
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise _unsound(gguf, f"{key} is not a JSON object")
    return value


def _tokens(path: Path, value: Any) -> tuple[int, ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or not 0 < len(value) <= MAX_INVOCATION or not all(map(_is_token, value)):
        raise InputError(f"{path} is not a sound adapter: {KEY_INVOCATION} is no list of tokens", "export it again")
    return tuple(value)


def _is_token(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 31


def _unsound(gguf: GgufFile, problem: str) -> InputError:
    return InputError(f"{gguf.path} is not a sound adapter: {problem}", "copy or export it again")
