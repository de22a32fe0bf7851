"""What an adapter file (LoRA GGUF, prompt adapter or .onnx_adapter) says of itself."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from edgekit_runtime.errors import InputError, shown
from edgekit_runtime.files.strict_json import json_object
from edgekit_runtime.formats.gguf import ADAPTER_METADATA, GgufFile, TensorInfo, read_gguf
from edgekit_runtime.formats.manifest import AUTO, NAME_MEND, NAME_PATTERN, AdapterEntry, check_version, name_from
from edgekit_runtime.formats.matrix_values import MATRIX_TYPES
from edgekit_runtime.formats.onnx_adapter import SUFFIX as ONNX_SUFFIX
from edgekit_runtime.formats.onnx_adapter import OnnxAdapter, is_onnx_adapter, model_version, read_onnx_adapter
from edgekit_runtime.formats.onnx_base import FUSED, FUSED_PARTS, LORA_A, LORA_B
from edgekit_runtime.formats.prompt_adapter import (
    KEY_GENERAL_TYPE,
    PROMPT_KIND,
    is_prompt_adapter,
    rows_tensor,
    unsound,
)
from edgekit_runtime.formats.route import read_head
from edgekit_runtime.formats.sampling_defaults import check_generation

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
KEY_ROUTE = "edgekit.route"
# llama.cpp's own keys (gguf-py, class Keys.Adapter)
KEY_ARCHITECTURE = "general.architecture"
KEY_ADAPTER_TYPE = "adapter.type"
KEY_ALPHA = "adapter.lora.alpha"
KEY_INVOCATION = "adapter.alora.invocation_tokens"

SUFFIX_A, SUFFIX_B = ".lora_a", ".lora_b"
EMBEDDING = "token_embd.weight"
NORM = "_norm.weight"
MAX_INVOCATION = 1024  # tokens
MAX_ALPHA = 1e6

Pair: TypeAlias = "tuple[TensorInfo, TensorInfo]"  # A and B


@dataclass(frozen=True)
class AdapterFacts:
    """An adapter file's own account; the ``edgekit.*`` facts are None in files that others made.

    ``pairs`` maps what is changed, the base's tensor or the ONNX graph's layer, to (input width, output width, rank),
    and ``matrices`` to where A and B are in the file; ``stated_rank`` is the rank of the trained adapter;
    ``invocation`` are the tokens from which an activated LoRA works, none for any other.  Of a prompt adapter, which
    changes no tensor, ``rows`` is where its virtual tokens are in the file.
    """

    path: Path
    architecture: str
    alpha: float
    pairs: dict[str, tuple[int, int, int]]
    matrices: dict[str, Pair]
    stated_rank: int | None
    name: str | None
    version: str | None
    family: str | None
    system: str | None
    generation: dict[str, Any] | None
    output_schema: dict[str, Any] | None
    template_arguments: dict[str, Any] | None = None
    invocation: tuple[int, ...] = ()
    onnx: bool = False
    rows: TensorInfo | None = None
    route: dict[str, Any] | None = None

    @property
    def rank(self) -> int:
        """The rank of the trained adapter, or the largest in the file where that doesn't say; 0 without pairs."""
        return self.stated_rank or max((rank for _, _, rank in self.pairs.values()), default=0)

    @property
    def targets(self) -> tuple[str, ...]:
        """Which kinds of layers it changes."""
        return tuple(sorted({target.removesuffix(".weight").rpartition(".")[2] for target in self.pairs}))

    @property
    def virtual_tokens(self) -> int | None:
        """How many virtual tokens it puts before a prompt; None for a LoRA."""
        return None if self.rows is None else self.rows.shape[1]

    @property
    def knows_rank(self) -> bool:
        """Whether :attr:`rank` is the trained adapter's: a fused layer of an ONNX graph has more."""
        return self.stated_rank is not None or not self.onnx

    @classmethod
    def read(cls, path: Path | str) -> AdapterFacts:
        """Read an adapter file.

        Raises:
            InputError: not a sound LoRA GGUF, prompt adapter or ``.onnx_adapter``.
        """
        if is_onnx_adapter(Path(path)):
            return _onnx_facts(read_onnx_adapter(path))
        return cls.of(read_gguf(path, budget=ADAPTER_METADATA))

    @classmethod
    def of(cls, header: GgufFile) -> AdapterFacts:
        """The same of a GGUF whose header has been read.

        Raises:
            InputError: not a sound LoRA GGUF or prompt adapter.
        """
        return _gguf_facts(header)


UNVERIFIED = {"verified": False}  # quality of an adapter that came without edgekit's facts


def check_name(name: str) -> None:
    """Refuse what can't be the name of an adapter that comes to a device.

    Raises:
        InputError: it has other letters, or requests use it for something else.
    """
    if not re.fullmatch(NAME_PATTERN, name):
        raise InputError(f"{shown(name)} is no name for an adapter", NAME_MEND)
    if name == AUTO:
        raise InputError(f"an adapter can't be called {AUTO}: devices choose one under this name", "rename it")


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
    name = name or facts.name or name_from(facts.path.stem)
    check_name(name)
    version = facts.version or "0"
    check_version(version, str(facts.path))
    return AdapterEntry(
        name=name,
        version=version,
        file=file,
        rank=facts.rank,
        targets=facts.targets,
        family=family,
        digest=digest,
        system=facts.system,
        generation=facts.generation,
        schema=facts.output_schema,
        template_arguments=facts.template_arguments,
        quality=None if facts.family else UNVERIFIED,
        kind=PROMPT_KIND if facts.rows else None,
        virtual_tokens=facts.virtual_tokens,
        route=facts.route,
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
    matrices = _onnx_matrices(file)
    pairs = {layer: _onnx_sizes(file, layer, *pair) for layer, pair in matrices.items()}
    return AdapterFacts(
        path=file.path,
        architecture="",
        alpha=1.0,
        pairs=pairs,
        matrices=matrices,
        stated_rank=_onnx_rank(file, pairs),
        name=known(KEY_NAME, str),
        version=known(KEY_VERSION, str),
        family=family,
        system=known(KEY_SYSTEM, str),
        generation=_defaults(file.path, known(KEY_GENERATION, dict)),
        output_schema=known(KEY_OUTPUT_SCHEMA, dict),
        template_arguments=known(KEY_TEMPLATE_ARGUMENTS, dict),
        route=_head(file.path, known(KEY_ROUTE, dict)),
        invocation=_tokens(file.path, facts.get(KEY_INVOCATION)),
        onnx=True,
    )


def _onnx_matrices(file: OnnxAdapter) -> dict[str, Pair]:
    found: dict[str, Pair] = {}
    for name in file.parameters:
        if not name.endswith((LORA_A, LORA_B)):
            raise _unsound_onnx(file, f"{name} is no half of a LoRA pair")
        layer = name[: -len(LORA_A)]
        a, b = file.parameters.get(layer + LORA_A), file.parameters.get(layer + LORA_B)
        if a is None or b is None:
            raise _unsound_onnx(file, f"{layer} has no {'A' if a is None else 'B'} matrix")
        if not all((*a.shape, *b.shape)):
            raise _unsound_onnx(file, f"{layer} is empty: A is {list(a.shape)}, B is {list(b.shape)}")
        found[layer] = (a.tensor, b.tensor)
    if not found:
        raise _unsound_onnx(file, "it holds no LoRA pair")
    return found


def _onnx_sizes(file: OnnxAdapter, layer: str, a: TensorInfo, b: TensorInfo) -> tuple[int, int, int]:
    """A is [in, rank] and B [rank, out]."""
    if a.shape[1] != b.shape[0]:
        raise _unsound_onnx(file, f"the ranks of {layer} differ: A has {a.shape[1]}, B has {b.shape[0]}")
    return a.shape[0], b.shape[1], a.shape[1]


def _onnx_rank(file: OnnxAdapter, pairs: dict[str, tuple[int, int, int]]) -> int | None:
    """What the trailer says, which some layer has; fused ones have the ranks of their parts in a row."""
    rank = _rank(file.path, file.facts.get(KEY_RANK))
    if rank is None:
        return None
    fused = {width for layer, (_, _, width) in pairs.items() if layer.endswith(f".{FUSED}")}
    single = {width for layer, (_, _, width) in pairs.items() if not layer.endswith(f".{FUSED}")}
    wholes = {rank * parts for parts in range(1, FUSED_PARTS + 1)}
    if max(single, default=0) > rank or max(fused, default=0) > max(wholes) or not (rank in single or fused & wholes):
        raise _unsound_onnx(file, f"{KEY_RANK} is {rank}, and its matrices have rank {max(single | fused)}")
    return rank


def _unsound_onnx(file: OnnxAdapter, problem: str) -> InputError:
    return InputError(f"{file.path} is not a sound adapter: {problem}", "copy or export it again")


def _gguf_facts(gguf: GgufFile) -> AdapterFacts:
    metadata = gguf.metadata
    if is_prompt_adapter(gguf):
        return _told(gguf, alpha=1.0, pairs={}, matrices={}, stated_rank=None, rows=rows_tensor(gguf))
    if metadata.get(KEY_GENERAL_TYPE) != "adapter" or metadata.get(KEY_ADAPTER_TYPE) != "lora":
        raise InputError(
            f"{gguf.path} is not a LoRA adapter but a {metadata.get(KEY_GENERAL_TYPE, 'nameless file')}",
            "give an adapter's GGUF, as `edgekit export` makes it",
        )
    matrices = _matrices(gguf)
    pairs = {target: _sizes(gguf, target, *pair) for target, pair in matrices.items()}
    rank = _rank(gguf.path, metadata.get(KEY_RANK))
    largest = max(each for _, _, each in pairs.values())
    if rank not in (None, largest):
        raise unsound(gguf, f"{KEY_RANK} is {rank}, and its matrices have rank {largest}")
    if gguf.types.get(KEY_INVOCATION, "[U32]") != "[U32]":
        raise unsound(gguf, f"{KEY_INVOCATION} is stored as {gguf.types[KEY_INVOCATION]}, and llama.cpp reads [U32]")
    invocation = _tokens(gguf.path, metadata.get(KEY_INVOCATION))
    return _told(gguf, alpha=_alpha(gguf), pairs=pairs, matrices=matrices, stated_rank=rank, invocation=invocation)


def _told(gguf: GgufFile, **found: Any) -> AdapterFacts:
    """What was found in a file, and what it tells besides."""
    return AdapterFacts(
        path=gguf.path,
        architecture=_text(gguf, KEY_ARCHITECTURE) or "",
        name=_text(gguf, KEY_NAME),
        version=_text(gguf, KEY_VERSION),
        family=_text(gguf, KEY_FAMILY),
        system=_text(gguf, KEY_SYSTEM),
        generation=_defaults(gguf.path, _json(gguf, KEY_GENERATION)),
        output_schema=_json(gguf, KEY_OUTPUT_SCHEMA),
        template_arguments=_json(gguf, KEY_TEMPLATE_ARGUMENTS),
        route=_head(gguf.path, _json(gguf, KEY_ROUTE)),
        **found,
    )


def _matrices(gguf: GgufFile) -> dict[str, Pair]:
    """A and B by the tensor that they change; nothing else may be in the file."""
    found: dict[str, Pair] = {}
    for name, tensor in gguf.tensors.items():
        if name.endswith(NORM):
            raise unsound(gguf, f"llama.cpp would leave out its tensor {name}")
        if not name.endswith((SUFFIX_A, SUFFIX_B)):
            raise unsound(gguf, f"tensor {name} is no half of a LoRA pair")
        target = name[: -len(SUFFIX_A)]
        a, b = gguf.tensors.get(target + SUFFIX_A), gguf.tensors.get(target + SUFFIX_B)
        if a is None or b is None:
            raise unsound(gguf, f"{target} has no {'A' if a is None else 'B'} matrix")
        if tensor.type_name not in MATRIX_TYPES:
            raise unsound(gguf, f"{name} is stored as {tensor.type_name}, and may be {', '.join(MATRIX_TYPES)}")
        found[target] = (a, b)
    if not found:
        raise unsound(gguf, "it holds no LoRA pair")
    return found


def _sizes(gguf: GgufFile, target: str, a: TensorInfo, b: TensorInfo) -> tuple[int, int, int]:
    """A is [in, rank] and B is [rank, out] in ggml's order, those of a layer's experts one behind the other.

    Of an embedding A is [rank, out]: llama.cpp takes a token's row of it, and what comes in is B's other side.
    """
    embedding = target.endswith(EMBEDDING)
    if len(a.shape) not in ((2,) if embedding else (2, 3)) or a.shape[2:] != b.shape[2:] or len(b.shape) < 2:
        raise unsound(gguf, f"{target} is no pair of matrices: A is {list(a.shape)}, B is {list(b.shape)}")
    (rank, outputs), inputs = (a.shape, b.shape[1]) if embedding else ((a.shape[1], b.shape[1]), a.shape[0])
    if rank != b.shape[0]:
        raise unsound(gguf, f"the ranks of {target} differ: A has {rank}, B has {b.shape[0]}")
    return inputs, outputs, rank


def _rank(path: Path, value: Any) -> int | None:
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
        raise InputError(f"{path} is not a sound adapter: {KEY_RANK} is no rank", "export it again")
    return value


def _text(gguf: GgufFile, key: str) -> str | None:
    value = gguf.metadata.get(key)
    if value is not None and not isinstance(value, str):
        raise unsound(gguf, f"{key} is not text")
    return value


def _alpha(gguf: GgufFile) -> float:
    """llama.cpp aborts over an alpha of another type, and takes 0 for none at all."""
    if KEY_ALPHA not in gguf.types:
        raise unsound(gguf, f"it has no {KEY_ALPHA}")
    if gguf.types[KEY_ALPHA] != "F32":
        raise unsound(gguf, f"{KEY_ALPHA} is stored as {gguf.types[KEY_ALPHA]}, and llama.cpp reads F32")
    value = float(gguf.metadata[KEY_ALPHA])
    if not 0 < abs(value) < MAX_ALPHA:  # false for NaN too, which would make every logit NaN
        raise unsound(gguf, f"{KEY_ALPHA} is {value:g}, which is no sensible number")
    return value


def _json(gguf: GgufFile, key: str) -> dict[str, Any] | None:
    text = _text(gguf, key)
    if text is None:
        return None
    value = json_object(text)
    if value is None:
        raise unsound(gguf, f"{key} is not a JSON object")
    return value


def _defaults(path: Path, generation: dict[str, Any] | None) -> dict[str, Any] | None:
    check_generation(generation, f"{path} is not a sound adapter")
    return generation


def _head(path: Path, route: dict[str, Any] | None) -> dict[str, Any] | None:
    if route is not None:
        read_head(route, f"{path} is not a sound adapter: {KEY_ROUTE}")
    return route


def _tokens(path: Path, value: Any) -> tuple[int, ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or not 0 < len(value) <= MAX_INVOCATION or not all(map(_is_token, value)):
        raise InputError(f"{path} is not a sound adapter: {KEY_INVOCATION} is no list of tokens", "export it again")
    return tuple(value)


def _is_token(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 31
