"""The heads of a project's adapters, as they go into a bundle."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

from edgekit.project import Adapter, Project
from edgekit.routing.fit import fit_heads
from edgekit.routing.rows import training_texts
from edgekit_exporters.progress import stage
from edgekit_runtime.engines.llama.token_rows import TokenRows
from edgekit_runtime.engines.llama.vocabulary import LlamaVocabulary
from edgekit_runtime.formats.gguf import read_gguf
from edgekit_runtime.formats.route import Head
from edgekit_runtime.runtime.routing import text_features


def make_heads(project: Project, adapters: Sequence[Adapter], base_file: Path) -> dict[str, Head]:
    """The head of each adapter, over the embedding of the base file that devices load; of an ONNX base over words."""
    texts = {adapter.name: training_texts(project, adapter.name) for adapter in adapters}
    with stage("training the router of auto"):
        if base_file.is_dir():
            return fit_heads(texts, lambda text: text_features(text, _no_tokens, None))
        vocabulary = LlamaVocabulary.open(base_file)
        rows = TokenRows(read_gguf(base_file))
        try:
            return fit_heads(texts, functools.partial(text_features, tokenize=vocabulary.tokenize, rows=rows))
        finally:
            vocabulary.close()


def _no_tokens(text: str, *, add_special: bool, parse_special: bool = True) -> list[int]:
    """Words alone need none."""
    raise AssertionError(text)
