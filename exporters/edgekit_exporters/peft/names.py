"""Tensor names in adapter files: the wrappers that were around a model in training, told from the model's own names.

PEFT, torch.compile, DDP, FSDP and image models each put words into the names of one and the same layer.  A name is
understood when leaving such words out gives exactly one name of the base.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from edgekit_exporters.hf.vision import TEXT_MODELS
from edgekit_runtime.errors import InputError

PREFIX = "base_model.model."
ADAPTER = "default"  # PEFT's name of the adapter that is trained
# Inside a name, wherever a module was wrapped: torch.compile, FSDP, activation checkpointing.
WRAPPERS = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
LEADING = (PREFIX, "module.")  # PEFT, once or twice; DDP and DeepSpeed
# What PEFT hangs on a module.  The adapter's name, "default" mostly, is there in a model's state and not in a file.
PARTS = re.compile(
    r"(?P<module>.+?)\.(?P<part>(?:base_layer\.)*(?:"
    r"(?P<matrix>lora_[AB])(?:\.[^.]+)?\.(?P<kind>weight|bias)"
    r"|(?P<embedding>lora_embedding_[AB])(?:\.[^.]+)?"
    r"|(?P<magnitude>lora_magnitude_vector)(?:\.[^.]+)?(?:\.weight)?"
    r"|(?P<tokens>token_adapter\.trainable_tokens_delta)(?:\.[^.]+)?"
    r"))"
)
WHOLE = re.compile(r"(?P<module>.+?)\.(?:modules_to_save\.[^.]+|original_module|base_layer)\.(?P<kind>weight|bias)")


ONE_EXPERT = re.compile(r"\.experts\.\d+\.")


@dataclass(frozen=True)
class TensorName:
    """A tensor's place in the base.

    Attributes:
        written: its name in the file.
        module: the base's module, ``model.layers.0.self_attn.q_proj``.
        part: what it is of that module, ``lora_A.weight`` say, as PEFT writes it.
        trained_as: the module's name in the model that was trained, without wrappers that come after training starts.
        left_out: the words of the file's name that the base doesn't have.
    """

    written: str
    module: str
    part: str
    trained_as: str
    left_out: tuple[str, ...]

    @property
    def key(self) -> str:
        """The name that PEFT writes for the base alone."""
        return f"{PREFIX}{self.module}.{self.part}"


def understand(written: Iterable[str], modules: Container[str], known: Iterable[str], file: Path) -> list[TensorName]:
    """Find the place of each tensor of a file.

    Args:
        written: the file's names.
        modules: the base's modules.
        known: names to take the nearest of for a message: the base's modules that have weights.
        file: for messages.

    Raises:
        InputError: a name that fits no module of the base, or more than one; two names for one place.
    """
    names: dict[str, TensorName] = {}
    for each in written:
        name = _understand(each, modules, list(known), file)
        if name.key in names:
            raise InputError(
                f"{file}: {names[name.key].written} and {each} are two tensors for one place of the base",
                "save the adapter again, with one of them",
            )
        names[name.key] = name
    return list(names.values())


def normalization(names: Iterable[TensorName]) -> str | None:
    """One line about the words that were left out; None when there were none."""
    words: dict[str, int] = {}
    changed = 0
    for name in names:
        changed += bool(name.left_out)
        for word in dict.fromkeys(name.left_out):
            words[word] = words.get(word, 0) + 1
    if not words:
        return None
    return f"{', '.join(words)} left out of the names of {changed} tensors: they are the base's without"


def _understand(written: str, modules: Container[str], known: list[str], file: Path) -> TensorName:
    module, part = _split(written)
    places: dict[str, tuple[str, tuple[str, ...]]] = {}
    for found, trained_as, left_out in _readings(module):
        if found in modules and found not in places:
            places[found] = (trained_as, left_out)
    if len(places) != 1:
        if not places and ONE_EXPERT.search(module):
            raise InputError(
                f"{file}: {written} is of one expert, and the base holds all experts of a layer in one parameter:"
                " the adapter was trained with transformers 4",
                "load it with PEFT's PeftModel.from_pretrained on this base, and give what its save_pretrained writes",
            )
        if places:
            raise InputError(
                f"{file}: {written} may be {' or '.join(places)} of the base", "save the adapter with PEFT's own names"
            )
        plain = next(_unwrapped(_clean(module)))[0]
        near = difflib.get_close_matches(plain, known, 1, cutoff=0) or ["none"]
        raise InputError(
            f"{file}: {written} is no part of the base; the nearest that the base has is {near[0]}",
            "use the base that it was trained on, or save it with PEFT's own names",
        )
    found, (trained_as, left_out) = next(iter(places.items()))
    return TensorName(written, found, part, trained_as, left_out)


def _split(written: str) -> tuple[str, str]:
    """Module and part; the adapter's name is left out of the part."""
    match = PARTS.fullmatch(written)
    if match is not None:
        inner = "base_layer." * match["part"].count("base_layer.")
        if match["matrix"]:
            return match["module"], f"{inner}{match['matrix']}.{match['kind']}"
        return match["module"], inner + (match["embedding"] or match["magnitude"] or match["tokens"])
    match = WHOLE.fullmatch(written)
    if match is not None:
        trained = ".modules_to_save." in written
        return match["module"], match["kind"] if trained else f"base_layer.{match['kind']}"
    module, _, kind = written.rpartition(".")
    return module, kind


def _clean(module: str) -> str:
    return ".".join(word for word in module.split(".") if word not in WRAPPERS)


def _readings(module: str) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    """Each module of a base that a name may stand for, the name in training, and the words left out."""
    inside = tuple(f"{word}." for word in dict.fromkeys(module.split(".")) if word in WRAPPERS)
    for trained_as, leading in _unwrapped(_clean(module)):
        extra = () if leading == (PREFIX,) else leading  # PEFT's own, once, is how it should be
        yield trained_as, trained_as, (*inside, *extra)
        for tower in TEXT_MODELS:
            words = trained_as.split(".")
            if tower not in words:
                continue
            at = words.index(tower)
            before, after = words[:at], words[at + 1 :]
            readings = [before + after, [*before, "model", *after]]
            if before == ["model"]:
                readings.append(after)
            for reading in readings:
                yield ".".join(reading), trained_as, (*inside, *extra, f"{tower}.")


def _unwrapped(module: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    """The name without leading wrappers: none left out, one, and so on, the most first."""
    steps: list[tuple[str, tuple[str, ...]]] = [(module, ())]
    while (word := next((each for each in LEADING if steps[-1][0].startswith(each)), None)) is not None:
        rest, left = steps[-1]
        steps.append((rest.removeprefix(word), (*left, word)))
    yield from reversed(steps)


def file_names(names: Iterable[TensorName]) -> Mapping[str, str]:
    """What each module of the base was called in training."""
    return {name.module: name.trained_as for name in names}
