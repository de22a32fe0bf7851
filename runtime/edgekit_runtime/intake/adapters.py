"""The one way in for adapter files: bundles, single files, watched folders, HTTP, stores.

:func:`take_in` reads all of a file, values included, once: when it is installed, opened or loaded for the first time.
:func:`recognize` is for files that have been taken in and have their digest still: it reads the header alone.
"""

from __future__ import annotations

from pathlib import Path

from edgekit_runtime.errors import InputError
from edgekit_runtime.formats.adapter import EMBEDDING, KEY_ARCHITECTURE, KEY_FAMILY, AdapterFacts
from edgekit_runtime.formats.base_header import check_base_header, onnx_layers
from edgekit_runtime.formats.bundle import Bundle
from edgekit_runtime.formats.gguf import ADAPTER_METADATA, GgufFile, read_gguf
from edgekit_runtime.formats.matrix_values import check_values
from edgekit_runtime.formats.onnx_adapter import is_onnx_adapter
from edgekit_runtime.formats.onnx_base import ENGINE as ONNX
from edgekit_runtime.formats.onnx_base import KEY_LAYERS, MIXED_FILE
from edgekit_runtime.formats.onnx_graph import check_graph
from edgekit_runtime.formats.prompt_adapter import check_rows
from edgekit_runtime.prompts.rendering import chat_template
from edgekit_runtime.prompts.template import KEY_TEMPLATE

OUTPUT = "output.weight"  # a base without it uses the embedding in its place


def take_in(path: Path, base: GgufFile, *, family: str | None) -> AdapterFacts:
    """Read an adapter file that comes new, and check all that can be known of it without an engine.

    Args:
        path: a LoRA GGUF, a prompt adapter's or an ``.onnx_adapter``.
        base: the header of the base that it shall run on.
        family: of that base.

    Raises:
        InputError: it is not sound, not for this base, has values that are no numbers, or changes nothing.
    """
    facts = AdapterFacts.read(path)
    check_fits(facts, base, family=family)
    if facts.rows is not None:
        check_rows(path, facts.rows)
    else:
        check_values(path, facts.matrices.values())
    return facts


def take_in_bundle(bundle: Bundle, base: GgufFile) -> None:
    """Check the base and the chat template of an open bundle, and take in every adapter.

    Raises:
        InputError: as :func:`take_in`, an engine can't read the base, its graph asks for files that are none of its
            own, the manifest contradicts a file, or the template is no good.
    """
    check_base_header(base)
    engine, files = bundle.manifest.engine, bundle.base_files
    if (engine == ONNX) != (KEY_LAYERS in base.metadata):
        raise InputError(f"the manifest names the engine {engine}, and the base is for another", "export it again")
    if engine == ONNX:
        for graph in (files.model, *(part for name, part in files.parts.items() if name == MIXED_FILE)):
            check_graph(graph, files.parts)
    if KEY_TEMPLATE in base.metadata:
        chat_template(base)
    family = bundle.manifest.base.family
    for entry in bundle.manifest.adapters:
        if entry.family != family:
            raise InputError(
                f"adapter {entry.name} is for the base {entry.family}, and the bundle has {family}",
                "export it with its own base",
            )
        facts = take_in(bundle.root / entry.file, base, family=family)
        if entry.virtual_tokens != facts.virtual_tokens:
            raise InputError(
                f"adapter {entry.name} has {entry.virtual_tokens or 'no'} virtual tokens in the manifest, and"
                f" {facts.virtual_tokens or 'none'} in its file",
                "export the bundle again",
            )
        if entry.rank != facts.rank and facts.knows_rank:
            raise InputError(
                f"adapter {entry.name} has rank {entry.rank} in the manifest, and {facts.rank} in its file",
                "export the bundle again",
            )


def recognize(path: Path, base: GgufFile, *, family: str | None) -> GgufFile | None:
    """Check that a file that was taken in is for this base; its header, or None where it is an ``.onnx_adapter``.

    Raises:
        InputError: it is for another base.
    """
    if is_onnx_adapter(path):
        check_fits(AdapterFacts.read(path), base, family=family)
        return None
    header = read_gguf(path, budget=ADAPTER_METADATA)
    check_fits(AdapterFacts.of(header), base, family=family)
    return header


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
    if adapter.rows is not None and KEY_LAYERS in base.metadata:
        raise InputError(
            f"{adapter.path} is a prompt adapter, and an ONNX base takes token ids alone: its graph holds the"
            " embeddings",
            "export the base with --format gguf",
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
    if adapter.rows is not None:
        _check_width(adapter, base)
    for name, (inputs, outputs, _) in adapter.pairs.items():
        tensor = base.tensors.get(name)
        shape = (inputs, outputs, *adapter.matrices[name][0].shape[2:])
        if tensor is None or tensor.shape != shape:
            found = (
                "which the base lacks" if tensor is None else f"which has the shape {list(tensor.shape)} in the base"
            )
            raise InputError(
                f"{adapter.path} changes {name} as {list(shape)}, {found}",
                "use the adapter with its own base",
            )
    if EMBEDDING in adapter.pairs and OUTPUT not in base.tensors:
        raise InputError(
            f"{adapter.path} changes {EMBEDDING}, which is this base's output matrix too, and llama.cpp can't do that",
            "train it without embed_tokens, or merge it into the base",
        )


def _check_width(adapter: AdapterFacts, base: GgufFile) -> None:
    """Virtual tokens stand in the place of the base's embeddings."""
    width, embedding = adapter.rows.shape[0] if adapter.rows else 0, base.tensors.get(EMBEDDING)
    if embedding is None or embedding.shape[0] != width:
        found = "none" if embedding is None else embedding.shape[0]
        raise InputError(
            f"{adapter.path} has rows of {width} numbers, and an embedding of the base has {found}",
            "use the adapter with its own base",
        )


def _check_layers(adapter: AdapterFacts, base: GgufFile) -> None:
    """An ONNX base tells which layers take adapters, and how wide they are."""
    layers = onnx_layers(base)
    for name, (inputs, outputs, _) in adapter.pairs.items():
        if layers.get(name) != (inputs, outputs):
            found = "which the base lacks" if name not in layers else f"which is {list(layers[name])} in the base"
            raise InputError(
                f"{adapter.path} changes {name} as [{inputs}, {outputs}], {found}",
                "use the adapter with its own base",
            )
