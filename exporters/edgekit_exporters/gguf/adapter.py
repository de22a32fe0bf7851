"""An adapter as one GGUF adapter file that carries all a device needs to know of it."""

from __future__ import annotations

import json
import logging
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekit_exporters.base import Base, GgufBase
from edgekit_exporters.conversion.tensor_map import tensor_map
from edgekit_exporters.gguf.lora import lora_pairs, write_lora
from edgekit_exporters.gguf.metadata import rewrite_metadata
from edgekit_exporters.gguf.prompt import write_prompt
from edgekit_exporters.peft.canonical import CanonicalAdapter, NotAdditive, canonicalize
from edgekit_exporters.peft.intake import take_in, take_in_any
from edgekit_exporters.peft.prompts import TakenPrompt
from edgekit_exporters.peft.refit import refit
from edgekit_exporters.peft.ways_out import refuse_ends
from edgekit_runtime.errors import InputError
from edgekit_runtime.formats import adapter as keys
from edgekit_runtime.formats.adapter import AdapterFacts
from edgekit_runtime.formats.gguf import read_gguf
from edgekit_runtime.intake.adapters import take_in as take_in_ready

log = logging.getLogger(__name__)

# Types of the pairs.  F16 halves the file; A and B are small either way.
ADAPTER_TYPES = ("F32", "F16", "BF16", "Q8_0")


@dataclass(frozen=True)
class AdapterSource:
    """An adapter to export: where it is and what travels with it.

    Attributes:
        name: file-name safe name.
        version: shown to users, and part of the file name.
        folder: the adapter, in any form that :func:`~edgekit_exporters.peft.files.find_adapter` knows.
        system: system prompt that it was trained with.
        generation: defaults for the device, ``{"max_tokens": 128}`` say.
        output_schema: JSON schema of its answers.
        template_arguments: variables that the chat template gets, as in training.
        route: the head by which devices choose it, see :mod:`edgekit_runtime.formats.route`.
        refit_rank: rank of the closest LoRA for an adapter that isn't additive; None refuses such a one.
    """

    name: str
    version: str
    folder: Path
    system: str | None = None
    generation: dict[str, Any] | None = None
    output_schema: dict[str, Any] | None = None
    template_arguments: dict[str, Any] | None = None
    refit_rank: int | None = None
    route: dict[str, Any] | None = None


def canonical_adapter(source: AdapterSource, base: Base, *, onnx: bool = False) -> CanonicalAdapter:
    """The adapter's pairs: exact where that can be, else refitted when ``source`` asks for it.

    Raises:
        InputError: as :func:`~edgekit_exporters.peft.canonical.canonicalize`, or pairs that the engine has no
            place for.
    """
    try:
        canonical = canonicalize(source.folder, base)
    except NotAdditive:
        if source.refit_rank is None:
            raise
        canonical, error = refit(source.folder, base, source.refit_rank)
        log.warning(
            "%s is refitted at rank %d: %.1f %% of its change is lost", source.name, source.refit_rank, 100 * error
        )
    refuse_ends(take_in(source.folder, base), canonical.layers, onnx=onnx)
    return canonical


def separate_adapter(source: AdapterSource, base: Base, *, onnx: bool = False) -> CanonicalAdapter | TakenPrompt:
    """What a separate file holds: pairs, or the virtual tokens of a prompt adapter.

    Raises:
        InputError: as :func:`canonical_adapter`, or a prompt adapter for an engine that takes no embeddings.
    """
    taken = take_in_any(source.folder, base)
    if not isinstance(taken, TakenPrompt):
        return canonical_adapter(source, base, onnx=onnx)
    if onnx:
        raise InputError(
            f"{source.name} is a prompt adapter, and an ONNX base takes token ids alone: its graph holds the"
            " embeddings",
            "export it with --format gguf",
        )
    return taken


def write_adapter_gguf(
    source: AdapterSource, base: Base, destination: Path, *, float_type: str = "F16"
) -> CanonicalAdapter | TakenPrompt:
    """Write ``destination``: a LoRA GGUF that stock llama.cpp tools load too, or a prompt adapter's GGUF.

    F16 becomes F32 where half precision can't hold the numbers.  Virtual tokens are F32.

    Returns:
        The canonical adapter whose pairs are in the file, or the prompt adapter whose rows are.

    Raises:
        InputError: the adapter isn't low-rank additive, is damaged, or is of another base.
    """
    canonical = separate_adapter(source, base)
    if isinstance(canonical, TakenPrompt):
        architecture = tensor_map(base.folder).architecture
        with tempfile.TemporaryDirectory(dir=destination.parent, prefix=".adapter-") as scratch:
            plain = Path(scratch, "adapter.gguf")
            write_prompt(canonical.rows, architecture, plain)
            rewrite_metadata(plain, destination, _metadata(source, base, canonical))
        return canonical
    if float_type == "F16" and not canonical.fits_f16:
        log.info("%s is written at F32: F16 can't hold its numbers", source.name)
        float_type = "F32"
    with tempfile.TemporaryDirectory(dir=destination.parent, prefix=".adapter-") as scratch:
        plain = Path(scratch, "adapter.gguf")
        write_lora(lora_pairs(canonical.layers, tensor_map(base.folder)), plain, float_type)
        rewrite_metadata(plain, destination, _metadata(source, base, canonical))
    return canonical


def write_ready_adapter(source: AdapterSource, base: GgufBase, destination: Path) -> AdapterFacts:
    """Write ``destination``: a copy of the adapter's GGUF that also says what devices have to know of it.

    Its tensors stay as they are, byte for byte.  What it says of itself stays where ``source`` says nothing.

    Raises:
        InputError: it is no sound adapter, is of another base, or changes nothing.
    """
    held = take_in_ready(source.folder, read_gguf(base.gguf), family=base.family)
    rewrite_metadata(source.folder, destination, _metadata(source, base, held))
    return AdapterFacts.read(destination)


def adapter_facts(
    source: AdapterSource, base: Base | GgufBase, canonical: CanonicalAdapter | TakenPrompt | AdapterFacts
) -> dict[str, Any]:
    """What an adapter file of any format says of itself, by key; what was not given is left out."""
    facts = {
        keys.KEY_SCHEMA: keys.ADAPTER_SCHEMA,
        keys.KEY_NAME: source.name,
        keys.KEY_VERSION: source.version,
        keys.KEY_FAMILY: base.family,
        keys.KEY_RANK: canonical.rank or None,
        keys.KEY_TARGETS: list(canonical.targets) or None,
        keys.KEY_SYSTEM: source.system,
        keys.KEY_GENERATION: source.generation,
        keys.KEY_OUTPUT_SCHEMA: source.output_schema,
        keys.KEY_TEMPLATE_ARGUMENTS: source.template_arguments,
        keys.KEY_ROUTE: source.route,
        keys.KEY_INVOCATION: list(canonical.invocation) or None,
    }
    return {key: value for key, value in facts.items() if value is not None}


def _metadata(
    source: AdapterSource, base: Base | GgufBase, canonical: CanonicalAdapter | TakenPrompt | AdapterFacts
) -> dict[str, Any]:
    """The facts as GGUF can hold them: documents as JSON text."""
    facts = adapter_facts(source, base, canonical)
    for key in (keys.KEY_GENERATION, keys.KEY_OUTPUT_SCHEMA, keys.KEY_TEMPLATE_ARGUMENTS, keys.KEY_ROUTE):
        document = facts.pop(key, None)
        if document:
            facts[key] = json.dumps(document, sort_keys=True)
    return facts
