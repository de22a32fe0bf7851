"""One llama.cpp context: decoding parts of sequences, and sampling from what comes out."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from llama_cpp import llama_cpp as llama

from edgekit_runtime.engines.base import PREFILL_CHUNK, SCORED_CHUNK, Part, Sampling
from edgekit_runtime.engines.llama.library import clear_errors, reason
from edgekit_runtime.engines.llama.samplers import Said, sampler_chain
from edgekit_runtime.engines.threads import Threads
from edgekit_runtime.errors import EdgekitError, InputError
from edgekit_runtime.formats.kv_cache import needs_flash_attention, types_of
from edgekit_runtime.formats.manifest import F16

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FULL = 1  # llama_decode's status when no KV cell is free
_KV_TYPES = {F16: llama.GGML_TYPE_F16, "q8_0": llama.GGML_TYPE_Q8_0, "q4_0": llama.GGML_TYPE_Q4_0}
HIDDEN_CHUNK = 64  # tokens at once where hidden states are read: llama.cpp computes the logits of all of them too


def set_kv_cache(parameters: Any, kind: str) -> None:
    """Have keys and values kept in types of ``KV_CACHES``."""
    parameters.type_k, parameters.type_v = (_KV_TYPES[each] for each in types_of(kind))


class LlamaContext:
    """KV streams of one model, and the buffers to decode with."""

    def __init__(
        self,
        model: Any,
        *,
        context: int,
        threads: Threads,
        sequences: int,
        kv_cache: str = F16,
        hidden: bool = False,
        apart: bool = True,
    ) -> None:
        """Set aside ``sequences`` streams of ``context`` tokens; not ``apart``, one stream for all.

        ``threads`` chooses their number for each step.  ``kv_cache`` is the type of keys and values.  ``hidden``:
        :meth:`hidden` is wanted.

        Raises:
            InputError: llama.cpp refuses the type for this model, or there is not enough memory.
        """
        parameters = llama.llama_context_default_params()
        parameters.n_ctx = context * sequences
        parameters.n_seq_max = sequences
        parameters.n_batch = min(PREFILL_CHUNK, context * sequences)
        parameters.n_threads = parameters.n_threads_batch = threads.most
        parameters.n_ubatch = SCORED_CHUNK
        parameters.kv_unified = not apart
        set_kv_cache(parameters, kv_cache)
        parameters.flash_attn_type = (
            llama.LLAMA_FLASH_ATTN_TYPE_ENABLED
            if needs_flash_attention(kv_cache)
            else llama.LLAMA_FLASH_ATTN_TYPE_DISABLED
            if apart
            else llama.LLAMA_FLASH_ATTN_TYPE_AUTO
        )
        if hidden:
            parameters.n_batch = parameters.n_ubatch = HIDDEN_CHUNK
            parameters.embeddings = True
            parameters.pooling_type = llama.LLAMA_POOLING_TYPE_NONE
        clear_errors()
        self.handle = llama.llama_init_from_model(model, parameters)
        if not self.handle:
            at = "" if kv_cache == F16 else f" with a KV cache of {kv_cache}"
            mend = "ask for a smaller context" if kv_cache == F16 else f"use --kv-cache {F16}, or a smaller context"
            raise InputError(f"no memory for {sequences} x {context} tokens of context{at}{reason()}", mend)
        self._threads, self._set_threads = threads, threads.most
        self._context = context
        self._memory = llama.llama_get_memory(self.handle)
        self._vocabulary_size = int(llama.llama_vocab_n_tokens(llama.llama_model_get_vocab(model)))
        self._room = max(parameters.n_batch, sequences)
        self._batch = llama.llama_batch_init(self._room, 0, 1)
        self._width = int(llama.llama_model_n_embd_inp(model))
        self._hidden_width = int(llama.llama_model_n_embd_out(model))
        self._cells: Any = None  # a batch of embeddings, made when the first image comes

    def close(self) -> None:
        """Free it."""
        llama.llama_batch_free(self._batch)
        if self._cells is not None:
            llama.llama_batch_free(self._cells)
        llama.llama_free(self.handle)

    def select(self, adapters: Sequence[tuple[Any, float]]) -> None:
        """Use these adapters, each with its scale."""
        count = len(adapters)
        handles = (llama.llama_adapter_lora_p_ctypes * count)(*(handle for handle, _ in adapters))
        scales = (ctypes.c_float * count)(*(scale for _, scale in adapters))
        if llama.llama_set_adapters_lora(self.handle, handles, count, scales):
            raise EdgekitError(f"llama.cpp could not switch adapters{reason()}")

    def decode(self, parts: Sequence[Part]) -> None:
        """Decode all parts at once.

        Raises:
            InputError: a sequence's stream is full.
        """
        batch, at = self._batch, 0
        if parts[0].embeddings is not None:
            batch = self._embedded(parts[0].embeddings)
        for part in parts:
            last = len(part.tokens) - 1
            wanted = last if part.logits_from is None else part.logits_from
            for offset, token in enumerate(part.tokens):
                if part.embeddings is None:
                    batch.token[at] = token
                batch.pos[at] = part.start + offset
                batch.n_seq_id[at] = 1
                batch.seq_id[at][0] = part.sequence
                batch.logits[at] = offset >= wanted
                at += 1
        batch.n_tokens = at
        self._outputs = [number for number in range(at) if batch.logits[number]]
        status = self._timed(batch)
        if status == FULL:
            raise InputError(
                f"the context of {self._context} tokens is full",
                "ask for a larger context or a shorter answer",
            )
        if status:
            raise EdgekitError(f"llama.cpp failed to decode (status {status}){reason()}")

    def _timed(self, batch: Any) -> int:
        """Decode with as many threads as are fastest now."""
        threads = self._threads.next(batch.n_tokens)
        if threads != self._set_threads:
            llama.llama_set_n_threads(self.handle, threads, threads)
            self._set_threads = threads
        began = time.perf_counter()
        status = int(llama.llama_decode(self.handle, batch))
        self._threads.note(batch.n_tokens, time.perf_counter() - began)
        return status

    def _embedded(self, embeddings: NDArray[np.float32]) -> Any:
        """A batch that holds these."""
        import numpy as np

        if self._cells is None:
            self._cells = llama.llama_batch_init(self._room, self._width, 1)
        values = np.ascontiguousarray(embeddings, dtype=np.float32)
        ctypes.memmove(self._cells.embd, values.ctypes.data, values.nbytes)
        return self._cells

    def row(self, number: int) -> NDArray[np.float32]:
        """A row of logits of the last decode, [vocabulary]; valid until the next one."""
        import numpy as np

        return np.ctypeslib.as_array(self.logits(number), (self._vocabulary_size,))

    def logits(self, number: int) -> Any:
        """The same as a C pointer."""
        return llama.llama_get_logits_ith(self.handle, self._outputs[number])

    def hidden(self) -> NDArray[np.float32]:
        """The last hidden state, behind the last norm, of each output of the last decode, [outputs, width].

        Raises:
            InputError: llama.cpp knows none for this architecture.
        """
        import numpy as np

        rows = [llama.llama_get_embeddings_ith(self.handle, number) for number in self._outputs]
        if not all(rows):
            raise InputError("llama.cpp gives no hidden state of this base's architecture", "use another base for it")
        return np.stack([np.ctypeslib.as_array(row, (self._hidden_width,)) for row in rows])

    def output(self, number: int) -> int:
        """Where row ``number`` stands in the batch, as llama.cpp's samplers count."""
        return self._outputs[number]

    def forget(self, sequence: int, start: int = 0) -> bool:
        """Drop a sequence's cells from a position on; False when only all of them could be dropped, and were."""
        if llama.llama_memory_seq_rm(self._memory, sequence, start, -1):
            return True
        llama.llama_memory_seq_rm(self._memory, sequence, -1, -1)
        return False


class LlamaSampler:
    """A chain of llama.cpp's samplers for one request."""

    def __init__(self, context: LlamaContext, sampling: Sampling, said: Said) -> None:
        """Build the chain; it knows no grammar."""
        self._context = context
        self._chain = sampler_chain(sampling, said)

    def sample(self, row: int) -> int:
        """The next token, from a row of logits of the last decode."""
        return int(llama.llama_sampler_sample(self._chain, self._context.handle, self._context.output(row)))

    def forced(self) -> list[int]:
        """Nothing is forced without a grammar."""
        return []

    def close(self) -> None:
        """Free the chain."""
        if self._chain:
            llama.llama_sampler_free(self._chain)
            self._chain = None
