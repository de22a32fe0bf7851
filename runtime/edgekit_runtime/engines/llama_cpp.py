"""llama.cpp through llama-cpp-python's low-level bindings.

One model, one context, one KV sequence.  Adapters are read once; ``llama_set_adapters_lora`` switches between them
without touching the base.  The KV cache is cleared for each prompt, so nothing computed under one adapter is ever
seen by another.
"""

from __future__ import annotations

import ctypes
import importlib.metadata
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llama_cpp import llama_cpp as llama

from edgekit_runtime.engines.base import Sampling
from edgekit_runtime.errors import EdgekitError, InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

log = logging.getLogger(__name__)

BATCH = 512  # prompt tokens decoded at once
MAX_PIECE_BYTES = 512
ERROR_LEVEL = 4  # GGML_LOG_LEVEL_ERROR


class LlamaEngine:
    """A base GGUF and any number of LoRA GGUFs."""

    def __init__(self, base: Path, *, context: int, threads: int) -> None:
        """Map the base into memory and make a context of ``context`` tokens.

        Raises:
            InputError: llama.cpp refuses the file, or there is not enough memory for the context.
        """
        _start_backend()
        self.context, self.threads = context, threads
        self._adapters: dict[str, Any] = {}
        self._selected: str | None = None
        self._context: Any = None
        _errors.clear()
        self._model = llama.llama_model_load_from_file(str(base).encode(), llama.llama_model_default_params())
        if not self._model:
            raise InputError(f"llama.cpp refuses {base}{_reason()}", "copy or export it again")
        parameters = llama.llama_context_default_params()
        parameters.n_ctx = context
        parameters.n_batch = min(BATCH, context)
        parameters.n_threads = parameters.n_threads_batch = threads
        self._context = llama.llama_init_from_model(self._model, parameters)
        if not self._context:
            self.close()
            raise InputError(f"no memory for a context of {context} tokens{_reason()}", "ask for a smaller context")
        self._memory = llama.llama_get_memory(self._context)
        self._vocabulary = llama.llama_model_get_vocab(self._model)
        self._vocabulary_size = int(llama.llama_vocab_n_tokens(self._vocabulary))
        self._piece = ctypes.create_string_buffer(MAX_PIECE_BYTES)

    def load_adapter(self, name: str, path: Path) -> None:
        """Read a LoRA GGUF into memory under ``name``; a loaded one of that name stays.

        Raises:
            InputError: llama.cpp refuses the file.
        """
        if name in self._adapters:
            return
        _errors.clear()
        handle = llama.llama_adapter_lora_init(self._model, str(path).encode())
        if not handle:
            raise InputError(f"llama.cpp refuses the adapter {path}{_reason()}", "export it for this base again")
        self._adapters[name] = handle

    def unload_adapter(self, name: str) -> None:
        """Free an adapter's memory."""
        if self._selected == name:
            self.select(None)
        handle = self._adapters.pop(name, None)
        if handle is not None:
            llama.llama_adapter_lora_free(handle)

    def select(self, adapter: str | None) -> None:
        """Use a loaded adapter for what comes, or the bare base."""
        if adapter == self._selected:
            return
        if adapter is None:
            failed = llama.llama_set_adapters_lora(self._context, None, 0, None)
        else:
            handles = (llama.llama_adapter_lora_p_ctypes * 1)(self._adapters[adapter])
            failed = llama.llama_set_adapters_lora(self._context, handles, 1, (ctypes.c_float * 1)(1.0))
        if failed:
            raise EdgekitError(f"llama.cpp could not switch to the adapter {adapter}{_reason()}")
        self._selected = adapter

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool = True) -> list[int]:
        """Text to token ids; ``add_special`` puts BOS first where the model wants it."""
        data = text.encode()
        room = len(data) + 8  # a token stands for at least one byte, specials come on top
        tokens = (llama.llama_token * room)()
        count = llama.llama_tokenize(self._vocabulary, data, len(data), tokens, room, add_special, parse_special)
        if count < 0:
            raise EdgekitError("llama.cpp could not tokenise the text")
        return list(tokens[:count])

    def piece(self, token: int) -> bytes:
        """The bytes of a token, none for special ones."""
        length = llama.llama_token_to_piece(self._vocabulary, token, self._piece, MAX_PIECE_BYTES, 0, False)
        return self._piece.raw[: max(length, 0)]

    def is_end(self, token: int) -> bool:
        """Whether the vocabulary marks this token as the end of a generation."""
        return bool(llama.llama_vocab_is_eog(self._vocabulary, token))

    def generate(self, prompt: Sequence[int], sampling: Sampling) -> Iterator[int]:
        """Prefill, then sample and decode one token at a time until the caller stops asking."""
        sampler = self._sampler(sampling)
        try:
            self._prefill(prompt)
            one = (llama.llama_token * 1)()
            while True:
                token = int(llama.llama_sampler_sample(sampler, self._context, -1))
                yield token
                one[0] = token
                self._decode(llama.llama_batch_get_one(one, 1))
        finally:
            llama.llama_sampler_free(sampler)

    def logits(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        """Teacher-forced logits, [len(tokens), vocabulary]."""
        import numpy as np

        result = np.empty((len(tokens), self._vocabulary_size), dtype=np.float32)
        llama.llama_memory_clear(self._memory, False)
        size = min(BATCH, self.context)
        batch = llama.llama_batch_init(size, 0, 1)
        try:
            for start in range(0, len(tokens), size):
                chunk = tokens[start : start + size]
                batch.n_tokens = len(chunk)
                for index, token in enumerate(chunk):
                    batch.token[index] = token
                    batch.pos[index] = start + index
                    batch.n_seq_id[index] = 1
                    batch.seq_id[index][0] = 0
                    batch.logits[index] = True
                self._decode(batch)
                rows = llama.llama_get_logits(self._context)
                result[start : start + len(chunk)] = np.ctypeslib.as_array(rows, (len(chunk), self._vocabulary_size))
        finally:
            llama.llama_batch_free(batch)
        return result

    def info(self) -> dict[str, Any]:
        """Name, versions and the CPU features that this build of llama.cpp uses."""
        return engine_info()

    def close(self) -> None:
        """Free context and model; adapters go with the model."""
        if self._context:
            llama.llama_free(self._context)
            self._context = None
        if self._model:
            llama.llama_model_free(self._model)
            self._model = None
        self._adapters.clear()

    def _prefill(self, prompt: Sequence[int]) -> None:
        llama.llama_memory_clear(self._memory, False)
        tokens = (llama.llama_token * len(prompt))(*prompt)
        for start in range(0, len(prompt), BATCH):
            count = min(BATCH, len(prompt) - start)
            # A view, not a copy: the batch only borrows the tokens.
            chunk = (llama.llama_token * count).from_buffer(tokens, start * ctypes.sizeof(llama.llama_token))
            self._decode(llama.llama_batch_get_one(chunk, count))

    def _decode(self, batch: Any) -> None:
        status = llama.llama_decode(self._context, batch)
        if status == 1:
            raise InputError(
                f"the context of {self.context} tokens is full",
                "ask for a larger context or a shorter answer",
            )
        if status:
            raise EdgekitError(f"llama.cpp failed to decode (status {status}){_reason()}")

    def _sampler(self, sampling: Sampling) -> Any:
        chain = llama.llama_sampler_chain_init(llama.llama_sampler_chain_default_params())
        if sampling.grammar is not None:
            grammar = llama.llama_sampler_init_grammar(self._vocabulary, sampling.grammar.encode(), b"root")
            if not grammar:
                llama.llama_sampler_free(chain)
                raise InputError(f"the schema makes no grammar that llama.cpp understands{_reason()}", "simplify it")
            llama.llama_sampler_chain_add(chain, grammar)
        if sampling.temperature <= 0:
            steps = [llama.llama_sampler_init_greedy()]
        else:
            steps = [
                llama.llama_sampler_init_top_k(sampling.top_k),
                llama.llama_sampler_init_top_p(sampling.top_p, 1),
                llama.llama_sampler_init_temp(sampling.temperature),
                llama.llama_sampler_init_dist(sampling.seed),
            ]
        for step in steps:
            llama.llama_sampler_chain_add(chain, step)
        return chain


def schema_grammar(schema: dict[str, Any]) -> str:
    """A JSON schema as GBNF, llama.cpp's grammar format.

    Raises:
        InputError: the schema uses what the converter doesn't know.
    """
    import json

    from llama_cpp.llama_grammar import json_schema_to_gbnf

    try:
        return str(json_schema_to_gbnf(json.dumps(schema)))
    except (ValueError, KeyError, TypeError, AssertionError, RecursionError) as error:
        raise InputError(
            f"the schema can't be turned into a grammar ({error})", "use plain JSON schema keywords"
        ) from None


@cache
def engine_info() -> dict[str, Any]:
    """See :meth:`LlamaEngine.info`."""
    features = llama.llama_print_system_info().decode()
    used = [part.partition(" = ")[0].strip() for part in features.replace("CPU :", "").split("|") if "= 1" in part]
    return {
        "name": "llama.cpp",
        "version": f"llama-cpp-python {importlib.metadata.version('llama-cpp-python')}",
        "cpu_features": used,
    }


# llama.cpp reports errors only through its log; the last ones explain what a null pointer doesn't.
_errors: list[str] = []


@llama.llama_log_callback  # type: ignore[untyped-decorator, unused-ignore]
def _log(level: int, text: bytes, _data: Any) -> None:
    line = text.decode("utf-8", "replace").rstrip()
    if level == ERROR_LEVEL and line:
        _errors.append(line)
        del _errors[:-8]
    if line:
        log.debug("%s", line)


def _reason() -> str:
    return f" ({_errors[0].partition(': ')[2] or _errors[0]})" if _errors else ""


@cache
def _start_backend() -> None:
    """Start llama.cpp once, with its log sent to Python's at debug level instead of to stderr."""
    llama.llama_log_set(_log, ctypes.c_void_p(0))
    llama.llama_backend_init()


@contextmanager
def engine_errors() -> Iterator[list[str]]:
    """Collect what llama.cpp reports as errors while the block runs."""
    _start_backend()
    _errors.clear()
    yield _errors
