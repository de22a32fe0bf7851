"""What the header of a base has to say before an engine reads it.

llama.cpp ends the process over many mistakes in a file, by an assertion or an exception that nobody catches.  What it
is known to end over is refused here; :mod:`~edgekit_runtime.intake.canary` finds the rest in a process of its own.
"""

from __future__ import annotations

import itertools
import math
import re
from functools import lru_cache
from typing import Any, NoReturn

from edgekit_runtime.errors import InputError, shown
from edgekit_runtime.formats.adapter import KEY_ARCHITECTURE
from edgekit_runtime.formats.gguf import GgufFile
from edgekit_runtime.formats.llama_keys import GENERAL, OF_ARCHITECTURE, PROJECTOR, SQUARE_HEADS
from edgekit_runtime.formats.onnx_base import KEY_LAYERS
from edgekit_runtime.formats.vocabulary_header import check_vocabulary

ANY_ARRAY = ("[U32]", "[I32]", "[BOOL]")
MOST_LAYERS, MOST_EXPERTS = 512, 1024  # LLAMA_MAX_LAYERS, LLAMA_MAX_EXPERTS
MOST_CONTEXT, MOST_WIDTH, MOST_HEADS = 1 << 30, 1 << 20, 1 << 16
SIZE = re.compile("[1-9][0-9]{0,6}")
ROPE_SCALINGS = ("none", "linear", "yarn", "longrope")
WEIGHT_TYPES = re.compile(r"F32|F16|BF16|MXFP4|I?Q(?!8_[1K])\w+|TQ\w+")
TABLE_NAMES = ".ffn_gate_tid2eid."  # a table of whole numbers, not of weights
EPSILONS = ("layer_norm_epsilon", "layer_norm_rms_epsilon", "group_norm_epsilon")
PER_LAYER = ("expert_used_count", "feed_forward_length", "attention.head_count", "attention.head_count_kv")
ONE_EXPERT_IS_NONE = ("hunyuan-dense", "hunyuan_vl")


def check_base_header(header: GgufFile) -> None:
    """Check a base, or the GGUF that has the vocabulary of an ONNX base.

    Raises:
        InputError: llama.cpp would end the process over it, or refuse it.
    """
    check_types(header)
    metadata = header.metadata
    if metadata.get("split.count", 1) > 1:
        _fail(header, "it is one of several files", "merge them with llama.cpp's `llama-gguf-split --merge`")
    check_vocabulary(header)
    if KEY_LAYERS in metadata:
        onnx_layers(header)
    else:
        _Sizes(header).check()
        _check_tensors(header)


def onnx_layers(header: GgufFile) -> dict[str, tuple[int, int]]:
    """[in, out] of the layers of an ONNX base that take adapters, by name.

    Raises:
        InputError: its GGUF says something else in their place.
    """
    if header.types[KEY_LAYERS] != "[STRING]":
        _fail(header, f"{KEY_LAYERS} is stored as {header.types[KEY_LAYERS]}, and has to be [STRING]")
    layers: dict[str, tuple[int, int]] = {}
    for line in header.metadata[KEY_LAYERS]:
        words = line.split()
        if len(words) != 3 or not all(map(SIZE.fullmatch, words[1:])):
            _fail(header, f"{KEY_LAYERS} has {shown(line)}, which is no layer with its widths")
        layers[words[0]] = (int(words[1]), int(words[2]))
    return layers


def check_projector(header: GgufFile) -> None:
    """Check the file that reads images for a base.

    Raises:
        InputError: llama.cpp would end the process over it.
    """
    check_types(header)
    for name in ("embedding_length", "attention.head_count", "block_count", "projection_dim", "image_size"):
        value = header.metadata.get(f"clip.vision.{name}", 0)
        if not 0 < value <= MOST_WIDTH:
            _fail(header, f"clip.vision.{name} is {value}")
    patch, size = header.metadata.get("clip.vision.patch_size", 0), header.metadata["clip.vision.image_size"]
    if not 0 < patch <= size:
        _fail(header, f"clip.vision.patch_size is {patch}, and images are {size} wide")
    _check_tensors(header)


def check_types(header: GgufFile) -> None:
    """Check that what llama.cpp reads is stored as it reads it, and that numbers are numbers.

    Raises:
        InputError: it isn't.
    """
    expected = _expected(str(header.metadata.get(KEY_ARCHITECTURE)))
    for key, stored in header.types.items():
        if key in expected and stored not in expected[key]:
            _fail(header, f"{key} is stored as {stored}, and llama.cpp reads {' or '.join(expected[key])}")
        if key in expected and stored in ("F32", "[F32]"):
            value = header.metadata[key]
            if not all(map(math.isfinite, value if isinstance(value, list) else [value])):
                _fail(header, f"{key} is no number")


@lru_cache(8)
def _expected(architecture: str) -> dict[str, tuple[str, ...]]:
    """Each key that llama.cpp reads, with the types that it may have."""
    found: dict[str, tuple[str, ...]] = {}
    for prefix, table in ((f"{architecture}.", OF_ARCHITECTURE), ("", GENERAL), ("", PROJECTOR)):
        for kind, names in table.items():
            for name, part in itertools.product(names.split(), ("vision", "audio", "gen.audio")):
                found[prefix + name.replace("%s", part)] = _types(kind)
    return found


def _types(kind: str) -> tuple[str, ...]:
    match kind:
        case "array":
            return ANY_ARRAY
        case "F32 or array":
            return ("F32", "[F32]")
        case "U32 or array" | "I32 or array":
            return (kind.split()[0], *ANY_ARRAY)
    return tuple(kind.split(" or "))


class _Sizes:
    """Counts and widths of an architecture; their types are checked."""

    def __init__(self, header: GgufFile) -> None:
        self.header, self.architecture = header, str(header.metadata.get(KEY_ARCHITECTURE))
        self.square = self.architecture in SQUARE_HEADS.split()

    def check(self) -> None:
        self.between("context_length", 1, MOST_CONTEXT)
        width = self.between("embedding_length", 1, MOST_WIDTH)
        layers = self.between("block_count", 1, MOST_LAYERS)
        if self.get("nextn_predict_layers", 0) >= layers:
            self.fail("nextn_predict_layers", "as many as there are layers")
        for name in PER_LAYER:
            value = self.get(name, [])
            if isinstance(value, list) and value and len(value) != layers:
                self.fail(name, f"of {len(value)} layers, and there are {layers}")
        self.check_experts(layers)
        self.check_heads(width, layers)
        for name in EPSILONS:
            if self.get(f"attention.{name}", 0.0) < 0:
                self.fail(f"attention.{name}", "negative")
        for name in ("rope.freq_base", "rope.freq_base_swa"):
            if self.get(name, 1.0) <= 0:
                self.fail(name, "not above 0")
        if self.get("rope.scaling.type", ROPE_SCALINGS[0]) not in ROPE_SCALINGS:
            self.fail("rope.scaling.type", f"none of {', '.join(ROPE_SCALINGS)}")
        if self.get("attention.causal", True) is False:
            self.fail("attention.causal", "false: such a base doesn't write text")

    def check_experts(self, layers: int) -> None:
        count, used = self.get("expert_count", 0), max(self.each("expert_used_count", layers, 0))
        if self.architecture in ONE_EXPERT_IS_NONE and count <= 1:
            return
        if count > MOST_EXPERTS:
            self.fail("expert_count", f"more than {MOST_EXPERTS}")
        if used > count or (count and not used):
            self.fail("expert_used_count", f"{used} of {count} experts")
        groups, of = self.get("expert_group_count", 0), self.get("expert_group_used_count", 0)
        if groups and (groups >= count or (groups > 1 and (count % groups or not 0 < of < groups))):
            self.fail("expert_group_count", f"{groups} with {count} experts and {of} groups in use")

    def check_heads(self, width: int, layers: int) -> None:
        heads = self.each("attention.head_count", layers, 0)
        shared = self.each("attention.head_count_kv", layers, None)
        for count, keys in zip(heads, shared, strict=True):
            keys = count if keys is None else keys
            if count > MOST_HEADS or keys > count or (keys and count % keys):
                self.fail("attention.head_count_kv", f"{keys}, and the queries have {count} heads")
        if not heads[0]:  # not a transformer, as far as the first layer tells
            return
        default = width // heads[0]
        key = self.between("attention.key_length", 1, MOST_WIDTH, default)
        value = self.between("attention.value_length", 1, MOST_WIDTH, default)
        turned = self.between("rope.dimension_count", 0, MOST_WIDTH, key)
        if turned % 2 and (turned != key or self.square):
            self.fail("rope.dimension_count", f"{turned}, which is odd")
        if self.square and not key == value == turned:
            self.fail("attention.key_length", f"{key}, values have {value} and the rotation {turned}")

    def get(self, name: str, default: Any) -> Any:
        return self.header.metadata.get(f"{self.architecture}.{name}", default)

    def between(self, name: str, least: int, most: int, default: int | None = None) -> int:
        value = self.get(name, default)
        if value is None:
            _fail(self.header, f"it has no {self.architecture}.{name}")
        if not least <= value <= most:
            self.fail(name, f"{value}, and may be {least} to {most}")
        return int(value)

    def each(self, name: str, layers: int, default: Any) -> list[Any]:
        """A value for each layer."""
        value = self.get(name, default)
        return value or [default] * layers if isinstance(value, list) else [value] * layers

    def fail(self, name: str, problem: str) -> NoReturn:
        _fail(self.header, f"{self.architecture}.{name} is {problem}")


def _check_tensors(header: GgufFile) -> None:
    """Weights are of types that are multiplied; what is added or scales is F32, and no other type is possible."""
    for tensor in header.tensors.values():
        if tensor.type_name == "I32" and TABLE_NAMES in tensor.name:
            continue
        if not WEIGHT_TYPES.fullmatch(tensor.type_name):
            _fail(header, f"tensor {shown(tensor.name)} is stored as {tensor.type_name}, which is no type of weights")
        if len(tensor.shape) == 1 and tensor.type_name != "F32":
            _fail(header, f"tensor {shown(tensor.name)} is a vector and stored as {tensor.type_name}, not as F32")


def _fail(header: GgufFile, problem: str, hint: str = "copy or export it again") -> NoReturn:
    raise InputError(f"{header.path} is not a sound base: {problem}", hint)
