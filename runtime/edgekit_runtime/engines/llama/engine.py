"""llama.cpp through llama-cpp-python's low-level bindings.

One model, one context, one KV stream per sequence.  Adapters are read once; ``llama_set_adapters_lora`` switches
between them without touching the base.

With several sequences the arithmetic has to be the same however many of them are decoded together, or one request would
change another's answer; with one that looks ahead it has to be however many guesses are decoded with a token.  Three
things see to that, and :meth:`LlamaEngine.batches_exactly` measures whether they do on this CPU with this base:

* each sequence has a KV stream of its own (``kv_unified = False``), so where its cells lie depends on nobody else;
* flash attention is off with values of F16 in the KV cache, as it splits long sequences over threads only when a single
  token is decoded, and works in tiles of many tokens.  With quantized values it does neither: each token goes through
  the cells one by one, so it can be on there, as it has to be;
* with several, adapters are loaded with an odd rank (:mod:`~edgekit_runtime.engines.llama.odd_rank`); with one, where
  that is quicker, with the rank of a whole step.

Without ``exact``, several sequences have one stream, flash attention and adapters as they are: a step takes any tokens
of all of them.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llama_cpp import llama_cpp as llama

from edgekit_runtime.engines import probe
from edgekit_runtime.engines.base import BARE, Part, ReadyAdapter, Sampling, Stack
from edgekit_runtime.engines.llama.context import LlamaContext, LlamaSampler
from edgekit_runtime.engines.llama.embedder import LlamaEmbedder
from edgekit_runtime.engines.llama.images import LlamaImages
from edgekit_runtime.engines.llama.library import (
    clear_errors,
    dots_in_steps,
    engine_info,
    model_parameters,
    reason,
    start_backend,
)
from edgekit_runtime.engines.llama.odd_rank import with_odd_rank, with_whole_step
from edgekit_runtime.engines.llama.samplers import LogitsSampler, Said
from edgekit_runtime.engines.llama.sheets import Sheets
from edgekit_runtime.engines.llama.virtual_tokens import VirtualTokens
from edgekit_runtime.engines.llama.vocabulary import LlamaVocabulary, VocabularyUser
from edgekit_runtime.engines.threads import Threads
from edgekit_runtime.errors import InputError
from edgekit_runtime.formats.gguf import GgufFile, read_gguf
from edgekit_runtime.formats.kv_cache import with_kv_cache
from edgekit_runtime.formats.manifest import F16
from edgekit_runtime.formats.model_facts import gguf_facts
from edgekit_runtime.formats.prompt_adapter import is_prompt_adapter

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class LlamaEngine(VocabularyUser):
    """A base GGUF and any number of adapters: LoRA GGUFs, and those of virtual tokens."""

    def __init__(
        self,
        base: Path,
        *,
        context: int,
        threads: int,
        sequences: int = 1,
        kv_cache: str = F16,
        exact: bool = True,
    ) -> None:
        """Map the base into memory and make ``sequences`` KV streams of ``context`` tokens each, of type ``kv_cache``.

        Without ``exact``, logits may depend on which sequences are decoded together.

        Raises:
            InputError: llama.cpp refuses the file or the cache's type, or there is not enough memory for the context.
        """
        start_backend()
        if kv_cache != F16:  # llama.cpp ends the process over some
            with_kv_cache(gguf_facts(read_gguf(base)), kv_cache, base.name)
        self.context, self.threads, self.sequences, self.kv_cache = context, threads, sequences, kv_cache
        self.exact = self.splits_at_gaps = exact
        self._choice = Threads(threads)
        self.holder: object = None
        self._adapters: dict[str, Any] = {}
        self._prompts: dict[str, VirtualTokens] = {}
        self._sheets = Sheets()
        self._selected: Stack | None = BARE
        self._shapes: dict[str, int] = {}  # a hash of each adapter's tensors' shapes
        self._pays: bool | None = None
        self._exact: dict[tuple[int, ...], probe.Exactness] = {}
        self._llama: LlamaContext | None = None
        clear_errors()
        self._model = llama.llama_model_load_from_file(str(base).encode(), model_parameters())
        if not self._model:
            raise InputError(f"llama.cpp refuses {base}{reason()}", "copy or export it again")
        try:
            self._llama = self._context_of(context)
        except InputError:
            self.close()
            raise
        self._vocabulary = LlamaVocabulary(self._model)

    def images(self, projector: Path) -> LlamaImages:
        """A projector for this base.

        Raises:
            InputError: llama.cpp refuses it.
        """
        return LlamaImages(projector, self._model, threads=self.threads)

    def ready(self, path: Path, header: GgufFile | None = None) -> ReadyAdapter:
        """The copy of a LoRA with another rank, where this engine wants one; llama.cpp isn't asked anything.

        Raises:
            InputError: the file is not sound.
        """
        header = header or read_gguf(path)
        if is_prompt_adapter(header):
            return ReadyAdapter(path, path, header)
        widened = (
            with_odd_rank(header, wanted=self.exact, sheets=self._sheets)
            if self.sequences > 1
            else with_whole_step(header, wanted=dots_in_steps(), sheets=self._sheets)
        )
        with ExitStack() as stack:
            return ReadyAdapter(path, stack.enter_context(widened), header, stack.pop_all().close)

    def load_adapter(self, name: str, adapter: Path | ReadyAdapter) -> int:
        """Read an adapter's GGUF into memory under ``name``; a loaded one of that name stays.  Returns its bytes.

        Raises:
            InputError: llama.cpp refuses the file.
        """
        if isinstance(adapter, Path):
            with closing(self.ready(adapter)) as ready:
                return self.load_adapter(name, ready)
        header = adapter.header
        assert header is not None  # ready() reads it
        if is_prompt_adapter(header):
            return self._load_prompt(name, header)
        # The same rank is added to adapters of the same shapes, so the file's own tell them apart.
        self._shapes[name] = hash(tuple((key, each.shape, each.type_name) for key, each in header.tensors.items()))
        if name not in self._adapters:
            clear_errors()
            handle = llama.llama_adapter_lora_init(self._model, str(adapter.file).encode())
            if not handle:
                raise InputError(
                    f"llama.cpp refuses the adapter {adapter.source}{reason()}", "export it for this base again"
                )
            self._adapters[name] = handle
        return adapter.file.stat().st_size - header.data_offset

    def _load_prompt(self, name: str, header: GgufFile) -> int:
        """Virtual tokens never reach llama.cpp as an adapter: they are decoded as embeddings."""
        if name not in self._prompts:
            width = int(llama.llama_model_n_embd_inp(self._model))
            self._prompts[name] = VirtualTokens.read(header, width=width)
        return self._prompts[name].size

    def virtual_tokens(self, name: str) -> VirtualTokens | None:
        """What a loaded prompt adapter puts before each prompt; None for a LoRA."""
        return self._prompts.get(name)

    def unload_adapter(self, name: str) -> None:
        """Free an adapter's memory.

        The context must not know it any more then.  The next adapter may come to lie at the same address: llama.cpp
        would take it for this one, and compute its graph over freed tensors once more.
        """
        self._prompts.pop(name, None)
        if name not in self._adapters:
            return
        if self._selected is None or any(name == each for each, _ in self._selected):
            self.select(BARE)
        llama.llama_adapter_lora_free(self._adapters.pop(name))

    def invocation(self, name: str) -> list[int]:
        """The tokens that switch an activated LoRA (aLoRA) on; none for any other adapter."""
        if name in self._prompts:
            return []
        handle = self._adapters[name]
        count = llama.llama_adapter_get_alora_n_invocation_tokens(handle)
        return list(llama.llama_adapter_get_alora_invocation_tokens(handle)[:count]) if count else []

    def select(self, stack: Stack) -> None:
        """Use these loaded adapters for what comes."""
        stack = self._loras(stack)
        if stack != self._selected:
            adapters = self._handles(stack)
            self._selected = None  # unknown, should the switch fail
            self._open.select(adapters)
            self._selected = stack

    def batches_exactly(self, stack: Stack) -> bool:
        """Whether logits are the same to the bit for any number of sequences; tried once for adapters of the same
        shapes.
        """
        return self._tried(stack).batches

    def cuts_exactly(self, stack: Stack) -> bool:
        """Whether they are for any cut of a prompt into parts of two tokens and more; tried likewise."""
        return self._tried(stack).cuts

    def looks_ahead(self, stack: Stack) -> bool:
        """Tried likewise; what steps take is measured once, when this is asked first."""
        if self.sequences > 1 or not self.cuts_exactly(stack):
            return False
        if self._pays is None:
            self._pays = self._guesses_pay(stack)
        return self._pays

    def mixes(self, stacks: Sequence[Stack]) -> bool:
        """A context has one set of adapters at a time."""
        return len(stacks) == 1 and self.batches_exactly(stacks[0])

    def decode(self, parts: Sequence[Part]) -> None:
        """Decode all parts at once.

        Raises:
            InputError: a sequence's context is full.
        """
        self._open.decode(parts)

    def sampler(self, sampling: Sampling, prompt: Sequence[int] = ()) -> LlamaSampler | LogitsSampler:
        """A sampler for one request with this prompt.

        Raises:
            InputError: llguidance refuses the grammar.
        """
        if not sampling.looks_at_each:
            return LlamaSampler(self._open, sampling, Said(prompt, self.context, self._vocabulary.size))
        return LogitsSampler(self._vocabulary, sampling, self.row, prompt, self.context)

    def row(self, number: int) -> NDArray[np.float32]:
        """A row of logits of the last decode, [vocabulary]; valid until the next one."""
        return self._open.row(number)

    def embedder(self, tokens: int) -> LlamaEmbedder:
        """What reads hidden states of texts of so many tokens at most.

        Raises:
            InputError: there is not enough memory for it.
        """
        return LlamaEmbedder(self._model, self._adapters, tokens=tokens, threads=self._choice, kv_cache=self.kv_cache)

    def forget(self, sequence: int, start: int = 0) -> bool:
        """Drop a sequence's KV cache from a position on; False when only all of it could be dropped, and was."""
        return self._open.forget(sequence, start)

    def save(self, sequence: int) -> bytes:
        """The KV cache of a sequence, in llama.cpp's own form (``llama_state_seq_get_data``)."""
        handle = self._open.handle
        size = llama.llama_state_seq_get_size(handle, sequence)
        state = (ctypes.c_ubyte * size)()
        written = llama.llama_state_seq_get_data(handle, state, size, sequence)
        return bytes(memoryview(state)[:written])

    def restore(self, sequence: int, state: bytes) -> bool:
        """Put a saved KV cache into an empty sequence; False, and empty still, when it doesn't fit."""
        buffer = ctypes.cast(ctypes.c_char_p(state), ctypes.POINTER(ctypes.c_uint8))  # llama.cpp only reads it
        if llama.llama_state_seq_set_data(self._open.handle, buffer, len(state), sequence) == len(state):
            return True
        self.forget(sequence)
        return False

    def info(self) -> dict[str, Any]:
        """Name, versions and the CPU features that this build of llama.cpp uses; the type of the KV cache."""
        return {**engine_info(), "kv_cache": self.kv_cache}

    def close(self) -> None:
        """Free context and model; adapters go with the model."""
        if self._llama is not None:
            self._llama.close()
            self._llama = None
        if self._model:
            llama.llama_model_free(self._model)
            self._model = None
        self._adapters.clear()
        self._prompts.clear()
        self._sheets.close()

    def _loras(self, stack: Stack) -> Stack:
        return tuple(each for each in stack if each[0] not in self._prompts)

    def _handles(self, stack: Stack) -> list[tuple[Any, float]]:
        return [(self._adapters[name], scale) for name, scale in stack]

    @property
    def _open(self) -> LlamaContext:
        assert self._llama is not None, "the engine is closed"
        return self._llama

    def _context_of(self, context: int, threads: Threads | None = None) -> LlamaContext:
        return LlamaContext(
            self._model,
            context=context,
            threads=threads or self._choice,
            sequences=self.sequences,
            kv_cache=self.kv_cache,
            apart=self.exact or self.sequences == 1,
        )

    def _tried(self, stack: Stack) -> probe.Exactness:
        stack = self._loras(stack)
        shapes = tuple(sorted(self._shapes[name] for name, _ in stack))
        if shapes not in self._exact:
            self._exact[shapes] = self._probe(stack)
        return self._exact[shapes]

    def _probe(self, stack: Stack) -> probe.Exactness:
        """Tried with one thread: bits don't depend on their number, and beside a busy process one is not held up."""
        context = self._context_of(probe.TOKENS, Threads(1))
        try:
            context.select(self._handles(stack))
            probe.fill(context, self.sequences)
            cuts = probe.cuts_are_exact(context)
            batches = cuts and self.sequences > 1 and probe.batches_are_exact(context, self.sequences)
        finally:
            context.close()
        return probe.Exactness(batches, cuts and (batches or self.sequences == 1))

    def _guesses_pay(self, stack: Stack) -> bool:
        """Measured with one thread, which waits for no other."""
        context = self._context_of(probe.TOKENS, Threads(1))
        try:
            context.select(self._handles(self._loras(stack)))
            return probe.can_look_ahead(context)
        finally:
            context.close()
