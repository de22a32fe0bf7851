"""Importance of the base's weights for a project's own data, measured in torch."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from edgekit.data import data_digest, load_rows
from edgekit.encoding.completions import default_reasoning
from edgekit.encoding.encoder import Encoder
from edgekit.encoding.images import RowImages, let_see, row_images
from edgekit.project import Project
from edgekit.project.data_files import NO_ROWS
from edgekit_exporters.base import Base
from edgekit_exporters.cache import cache_folder, cached
from edgekit_exporters.gguf.base import base_gguf
from edgekit_exporters.gguf.imatrix import Importance, write_imatrix
from edgekit_exporters.progress import staged
from edgekit_runtime.formats.gguf import read_gguf

ROWS = 64  # training rows of each adapter; some ten thousand tokens are plenty for column means


def project_imatrix(project: Project, base: Base) -> Path:
    """The importance matrix of ``base`` on the training rows of all adapters; made once, then taken from the cache.

    Raises:
        InputError: bad rows, or a base that can't be read.
    """
    named = [each for each in project.adapters.values() if each.combined is None and (each.data or project.data)]
    adapters = [adapter for adapter in named if project.data_for(adapter.name).train != NO_ROWS]
    files = [project.data_for(adapter.name).train for adapter in adapters]
    rows = [load_rows(file) for file in files]
    asked = [adapter.reasoning or default_reasoning(own) for adapter, own in zip(adapters, rows, strict=True)]
    systems = json.dumps([[adapter.system, mode] for adapter, mode in zip(adapters, asked, strict=True)])
    seen_through = project.export.projector if project.task == "caption" else ""
    digest = hashlib.sha256(f"{data_digest(files)}{systems}{ROWS}{seen_through}".encode()).hexdigest()[:16]
    target = cache_folder("imatrix", base.key) / f"{digest}.gguf"
    if target.exists():
        return target
    images = row_images(project, base)
    encoders = {mode: Encoder(base.folder, images=images, reasoning=mode) for mode in set(asked)}
    texts = [
        example["input_ids"]
        for adapter, mode, own in zip(adapters, asked, rows, strict=True)
        for row in own[:ROWS]
        for example in encoders[mode].encode(row, adapter.system, sys.maxsize)
    ]
    counted = staged(texts, "measuring the importance of weights on training rows (once)", len(texts))
    entries = measure_importance(base, counted, images)
    longest = max(map(len, texts))
    return cached(target, lambda path: write_imatrix(path, entries, project.project, len(texts), longest))


def measure_importance(
    base: Base, texts: Iterable[list[int]], images: RowImages | None = None
) -> dict[str, Importance]:
    """Sums of squared inputs of every linear layer of the float model, by GGUF tensor name.

    Args:
        base: which model.
        texts: token ids, one text each, as the encoder makes them for a model.
        images: what their cells stand for.
    """
    import transformers

    model: Any = transformers.AutoModelForCausalLM.from_pretrained(
        base.folder, trust_remote_code=False, use_safetensors=True, dtype=torch.float32
    ).eval()
    names = _tensor_names(base, model)
    let_see(model, images)
    sums: dict[str, np.ndarray] = {}
    count = 0
    with _watching(model, names, sums), torch.inference_mode():
        for ids in texts:
            count += len(ids)
            model(input_ids=torch.tensor([ids]))
    return {name: Importance(values, count) for name, values in sums.items()}


@contextmanager
def _watching(model: Any, names: dict[str, str], sums: dict[str, np.ndarray]) -> Iterator[None]:
    def watch(tensor: str) -> Any:
        def add(_module: Any, inputs: tuple[torch.Tensor, ...], _output: Any) -> None:
            squares = inputs[0].flatten(0, -2).float().square().sum(0).numpy()
            sums[tensor] = sums.get(tensor, 0.0) + squares

        return add

    handles = [model.get_submodule(name).register_forward_hook(watch(tensor)) for name, tensor in names.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _tensor_names(base: Base, model: Any) -> dict[str, str]:
    """Module name -> GGUF tensor name of its weight; a tied output matrix is the embedding's tensor."""
    import gguf

    header = read_gguf(base.gguf or base_gguf(base, "F16"))
    architecture = header.metadata["general.architecture"]
    number = next(key for key, value in gguf.MODEL_ARCH_NAMES.items() if value == architecture)
    table = gguf.get_tensor_name_map(number, model.config.num_hidden_layers)
    names = {}
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear):
            tensor = table.get_name(f"{name}.weight", try_suffixes=(".weight",))
            if tensor == "output.weight" and tensor not in header.tensors:
                tensor = "token_embd.weight"
            if tensor in header.tensors:
                names[name] = tensor
    return names
