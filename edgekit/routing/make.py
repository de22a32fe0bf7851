"""The heads of a project's adapters, as they go into a bundle."""

from __future__ import annotations

import functools
import random
from collections.abc import Sequence
from pathlib import Path

from edgekit.data import load_rows
from edgekit.data.source import DataSource
from edgekit.project import Adapter, Project
from edgekit.routing.fit import fit_heads
from edgekit_exporters.progress import stage
from edgekit_runtime.engines.llama.token_rows import TokenRows
from edgekit_runtime.engines.llama.vocabulary import LlamaVocabulary
from edgekit_runtime.errors import InputError, UsageError
from edgekit_runtime.formats.gguf import read_gguf
from edgekit_runtime.formats.manifest import AUTO
from edgekit_runtime.formats.route import Head, user_text
from edgekit_runtime.runtime.routing import text_features

LEAST_ROWS = 3  # different ones, of an adapter
MOST_ASKED = 500  # evaluation rows of an adapter that the proof asks


def check_auto(project: Project, adapters: Sequence[Adapter]) -> None:
    """Look at what a router needs.

    Raises:
        UsageError: a merged bundle, or a fallback that isn't exported.
        InputError: an adapter without enough training rows.
    """
    auto = project.auto
    if auto is None:
        return
    if project.export.mode == "merged":
        raise UsageError("auto chooses among adapters, and a merged bundle has none", "leave out --mode merged or auto")
    names = [adapter.name for adapter in adapters]
    if auto.fallback in project.adapters and auto.fallback not in names:
        raise UsageError(f"auto.fallback {auto.fallback} is not among the exported adapters", "export it too")
    for name in names:
        training_texts(project, name)


def training_texts(project: Project, name: str) -> list[str]:
    """What users say in an adapter's training rows.

    Raises:
        InputError: there are too few, or none.
    """
    mend = f"add data: {{train: …, eval: …}} to adapters.{name}, or leave out {AUTO}"
    source = project.data_for(name).train
    if source.path is None and source.hub is None:
        raise InputError(f"auto learns from training rows, and {name} names none", mend)
    texts = _texts([source])
    if len(set(texts)) < LEAST_ROWS:
        raise InputError(
            f"auto needs {LEAST_ROWS} different questions of {name}, and there are {len(set(texts))}", mend
        )
    return texts


def evaluation_texts(project: Project, name: str) -> list[str]:
    """What users say in an adapter's evaluation rows; a fixed sample of many."""
    texts = list(dict.fromkeys(_texts(project.eval_files(name))))
    return texts if len(texts) <= MOST_ASKED else random.Random(0).sample(texts, MOST_ASKED)


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


def _texts(sources: Sequence[DataSource]) -> list[str]:
    return [text for source in sources for row in load_rows(source) if (text := user_text(row.messages))]
