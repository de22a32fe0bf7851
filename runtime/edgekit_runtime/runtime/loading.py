"""From a bundle or a device store to an engine that is ready: verified, checked against its base, loaded."""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

from edgekit_runtime.engines import Engine, Images
from edgekit_runtime.engines.memory import default_context
from edgekit_runtime.errors import InputError, UsageError
from edgekit_runtime.formats.base_files import BaseFiles
from edgekit_runtime.formats.base_header import check_base_header
from edgekit_runtime.formats.bundle import Bundle, open_bundle
from edgekit_runtime.formats.gguf import GgufFile, read_gguf
from edgekit_runtime.formats.kv_cache import check_kv_cache, refuse_for_onnx, with_kv_cache
from edgekit_runtime.formats.manifest import F16
from edgekit_runtime.formats.model_facts import gguf_facts
from edgekit_runtime.formats.onnx_base import ENGINE as ONNX
from edgekit_runtime.intake.adapters import take_in_bundle
from edgekit_runtime.intake.probed import FOLDER as PROBED
from edgekit_runtime.intake.probed import Probed, user_folder
from edgekit_runtime.machine import MOST_PARALLEL, MOST_THREADS, decode_threads
from edgekit_runtime.store import Store, is_store

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Loaded:
    """A bundle whose base is in memory.

    Attributes:
        bundle: its files; of a store those of a generation.
        base_files: the base's, and the KV cache that the engine has.
        header: metadata of the base's GGUF, or of an ONNX base's vocabulary.
        engine: with the base.
        images: what reads images, in a caption bundle.
        is_stored: whether it came from a store.
    """

    bundle: Bundle
    base_files: BaseFiles
    header: GgufFile
    engine: Engine
    images: Images | None
    is_stored: bool


def load(
    path: Path | str,
    resources: ExitStack,
    *,
    threads: int | None,
    context: int | None,
    parallel: int,
    kv_cache: str | None,
    exact: bool,
    probe: bool,
    generation: int | None,
) -> Loaded:
    """Load a bundle, a .tar of one or a store; what has to be freed goes to ``resources``.

    Raises:
        InputError: it doesn't verify, an adapter doesn't fit, the engine refuses a file.
        UsageError: a context, a KV cache, a number of threads or of requests that can't be had.
    """
    bundle = resources.enter_context(_opened(path, generation))
    header = read_gguf(bundle.base_files.header)
    stored = is_store(Path(path))
    if stored:
        check_base_header(header)
    else:
        take_in_bundle(bundle, header)
    files = _with_cache(bundle, header, kv_cache)
    if probe:
        noted = Probed(bundle.root / PROBED if stored else user_folder())
        noted.ensure(bundle.manifest.base, files)
    engine = _engine(files, bundle.manifest.base.context, threads, context, parallel, exact=exact)
    resources.callback(engine.close)
    images = _images(bundle, engine)
    if images is not None:
        resources.callback(images.close)
    return Loaded(bundle, files, header, engine, images, stored)


def _opened(path: Path | str, generation: int | None) -> AbstractContextManager[Bundle]:
    return nullcontext(Store(path).bundle(generation)) if is_store(Path(path)) else open_bundle(path)


def _with_cache(bundle: Bundle, header: GgufFile, kv_cache: str | None) -> BaseFiles:
    """The base's files with the KV cache that was asked for; the manifest's where none was."""
    files, manifest = bundle.base_files, bundle.manifest
    kind = kv_cache or files.kv_cache
    check_kv_cache(kind)
    if files.engine == ONNX:
        refuse_for_onnx(kind)
    elif kind != F16:
        with_kv_cache(gguf_facts(header), kind, manifest.base.family)
    if kind not in (files.kv_cache, F16) and manifest.proofs():
        log.warning(
            "the adapters were proven with a KV cache of %s, and %s is another: `edgekit export --kv-cache %s` proves"
            " them with it",
            files.kv_cache,
            kind,
            kind,
        )
    return replace(files, kv_cache=kind)


def _engine(
    files: BaseFiles, longest: int, threads: int | None, context: int | None, parallel: int, *, exact: bool
) -> Engine:
    from edgekit_runtime.engines.opening import open_engine

    if context is not None and not 0 < context <= longest:
        raise UsageError(f"a context of {context} tokens can't be had", f"ask for 1 to {longest}")
    if not 0 < parallel <= MOST_PARALLEL:
        raise UsageError(f"{parallel} requests at once can't be had", f"ask for 1 to {MOST_PARALLEL}")
    if threads is not None and not 0 < threads <= MOST_THREADS:
        raise UsageError(f"{threads} threads can't be had", f"ask for 1 to {MOST_THREADS}")
    return open_engine(
        files,
        context=context or default_context(longest, parallel),
        threads=threads or decode_threads(),
        sequences=parallel,
        exact=exact,
    )


def _images(bundle: Bundle, engine: Engine) -> Images | None:
    projector = bundle.projector_path
    if projector is None:
        return None
    from edgekit_runtime.engines.llama.engine import LlamaEngine

    if not isinstance(engine, LlamaEngine):
        raise InputError(f"{bundle.manifest.engine} reads no images here", "export with --format gguf")
    return engine.images(projector)
