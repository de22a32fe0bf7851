"""ONNX Runtime over an ONNX Runtime GenAI folder.

The session is ONNX Runtime's own and the KV cache is ours: one buffer that the graph's GroupQueryAttention reads and
extends in place, a row of it for each sequence.  GenAI's generator keeps its cache to itself: it can't be saved, cut
back for one row of a batch or shared between requests, and a batch of it has one adapter.  The folder stays GenAI's:
its own generator loads the same files.

* Recurrent states (LFM2's convolutions) are given anew by each step; rows that rest keep theirs.
* Rows of a batch may have different lengths, as attention takes the length of each from its mask.
* With one sequence, switching adapters binds other matrices to the graph's inputs.  With several, the graph
  ``model.mixed.onnx`` takes all adapters of a step side by side in tiles, and a mask leaves each row its own.
* :meth:`OnnxEngine.batches_exactly` and :meth:`OnnxEngine.cuts_exactly` measure what is the same to the bit.
"""

from __future__ import annotations

import importlib.metadata
import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from edgekit_runtime.engines import probe
from edgekit_runtime.engines.base import BARE, Part, ReadyAdapter, Sampling, Stack
from edgekit_runtime.engines.llama.samplers import LogitsSampler
from edgekit_runtime.engines.llama.vocabulary import LlamaVocabulary, VocabularyUser
from edgekit_runtime.engines.onnx.adapter_sets import SPARE, AdapterSets, Shape, names_in
from edgekit_runtime.engines.onnx.adapters import Loaded, Values, added, masks
from edgekit_runtime.engines.onnx.bindings import Bindings
from edgekit_runtime.engines.onnx.graph import POSITIONS, cache_inputs, open_session, require_tiles
from edgekit_runtime.engines.onnx.kv_cache import KvCache
from edgekit_runtime.errors import EdgekitError, InputError
from edgekit_runtime.formats.base_files import BaseFiles
from edgekit_runtime.formats.onnx_base import LOGITS_FROM, MIXED_FILE, VOCABULARY_FILE

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from edgekit_runtime.formats.gguf import GgufFile


class OnnxEngine(VocabularyUser):
    """A base as an ONNX graph, and any number of ``.onnx_adapter`` files."""

    splits_at_gaps = False
    exact = True

    def __init__(self, files: BaseFiles, *, context: int, threads: int, sequences: int = 1) -> None:
        """Load the graph and set aside ``sequences`` rows of ``context`` tokens.

        Raises:
            InputError: onnxruntime is missing or refuses a file, or there is not enough memory for the context.
        """
        self.context, self.threads, self.sequences = context, threads, sequences
        self.holder: object = None
        self._adapters: dict[str, Loaded] = {}
        self._stack: Stack = BARE
        self._exact: dict[Shape, probe.Exactness] = {}
        self._vocabulary = LlamaVocabulary.open(files.part(VOCABULARY_FILE))
        graph = files.part(MIXED_FILE) if sequences > 1 else files.model
        self._session: Any = open_session(graph, threads)
        self._layers = {each.name: tuple(each.shape) for each in self._session.get_overridable_initializers()}
        if sequences > 1:
            require_tiles(graph, self._layers)
        self._sets = AdapterSets(self._layers)
        self._cache = KvCache(*cache_inputs(self._session, graph), sequences, context)
        self._takes_positions = POSITIONS in {each.name for each in self._session.get_inputs()}
        self._bindings = Bindings(self._session, self._cache, self._layers, self._adapter_inputs)
        self._rows: Sequence[NDArray[np.float32]] = ()

    def ready(self, path: Path, header: GgufFile | None = None) -> ReadyAdapter:
        """The file as it is: reading it is what a load consists of."""
        return ReadyAdapter(path, path, header)

    def load_adapter(self, name: str, adapter: Path | ReadyAdapter) -> int:
        """Read an adapter file into memory under ``name``; a loaded one of that name stays.  Returns its bytes.

        Its matrices are bound to the graph here already, so that switching to it costs nothing later.

        Raises:
            InputError: the file is not sound.
        """
        if name not in self._adapters:
            read = Loaded.read(adapter if isinstance(adapter, Path) else adapter.file)
            if self.sequences > 1:
                self._sets.add(name, read)
                read = replace(read, arrays={})
            self._adapters[name] = read
            if self.sequences == 1:
                self._bindings.of(0, 1, [((name, 1.0),)])
        held = self._sets.side(frozenset([name])) if self.sequences > 1 else self._adapters[name]
        return held.size

    def unload_adapter(self, name: str) -> None:
        """Free an adapter's memory."""
        if self._adapters.pop(name, None) is None:
            return
        if any(name == each for each, _ in self._stack):
            self._stack = BARE
        self._sets.remove(name)
        self._bindings.drop(name)

    def virtual_tokens(self, name: str) -> None:
        """None: the graph holds its embeddings, and takes token ids alone."""

    def invocation(self, name: str) -> list[int]:
        """The tokens that switch an activated LoRA (aLoRA) on; none for any other adapter."""
        return list(self._adapters[name].invocation)

    def select(self, stack: Stack) -> None:
        """Use these loaded adapters for what comes."""
        for name, _ in stack:
            if name not in self._adapters:
                raise KeyError(name)
        self._stack = stack

    def batches_exactly(self, stack: Stack) -> bool:
        """Whether logits are the same to the bit however many sequences are decoded at once; tried once for adapters of
        the same ranks.
        """
        return self._tried(stack).batches

    def cuts_exactly(self, stack: Stack) -> bool:
        """Whether they are however a prompt is cut into parts of two tokens and more; tried likewise."""
        return self._tried(stack).cuts

    def looks_ahead(self, stack: Stack) -> bool:
        """Never: single tokens and parts of several go through other kernels here."""
        return False

    def mixes(self, stacks: Sequence[Stack]) -> bool:
        """Whether parts under these stacks can be decoded together without changing a bit of anybody's logits; tried
        once for adapters of the same ranks.
        """
        if not all(self.batches_exactly(stack) for stack in stacks):
            return False
        known = self._sets.exact(names_in(stacks))
        return self._probe_mixing(stacks) if known is None else known

    def decode(self, parts: Sequence[Part]) -> None:
        """Decode all parts: single tokens in one step, longer parts one after another.

        Raises:
            InputError: a sequence's context is full.
        """
        for part in parts:
            if part.start + len(part.tokens) > self.context:
                raise InputError(
                    f"the context of {self.context} tokens is full", "ask for a larger context or a shorter answer"
                )
        rows: list[NDArray[np.float32]] = []
        if self.sequences > 1 and all(len(part.tokens) == 1 for part in parts):
            rows = self._step(parts)
        else:
            for part in parts:
                rows += self._run_part(part)
        self._rows = rows

    def sampler(self, sampling: Sampling, prompt: Sequence[int] = ()) -> LogitsSampler:
        """A sampler for one request with this prompt.

        Raises:
            InputError: llguidance refuses the grammar.
        """
        return LogitsSampler(self._vocabulary, sampling, self.row, prompt, self.context)

    def row(self, number: int) -> NDArray[np.float32]:
        """A row of logits of the last decode, [vocabulary]; valid until the next one."""
        return self._rows[number]

    def embedder(self, tokens: int) -> NoReturn:
        """Always refused: the graph gives logits alone.

        Raises:
            InputError: says what to do.
        """
        raise InputError(
            "a bundle for ONNX Runtime gives no embeddings: its graph has logits alone",
            "export the base with --format gguf and ask that",
        )

    def forget(self, sequence: int, start: int = 0) -> bool:
        """Drop a sequence's KV cache from a position on; False when only all of it could be dropped, and was."""
        return self._cache.forget(sequence, start)

    def save(self, sequence: int) -> bytes:
        """The KV cache of a sequence; see :meth:`~edgekit_runtime.engines.onnx.kv_cache.KvCache.save`."""
        return self._cache.save(sequence)

    def restore(self, sequence: int, state: bytes) -> bool:
        """Put a saved KV cache into an empty sequence; False, and empty still, when it doesn't fit."""
        return self._cache.restore(sequence, state)

    def info(self) -> dict[str, Any]:
        """Name and version of the engine."""
        from edgekit_runtime import machine

        version = importlib.metadata.version("onnxruntime")
        return {"name": "onnxruntime", "version": f"onnxruntime {version}", "cpu_features": machine.describe()["flags"]}

    def close(self) -> None:
        """Free everything."""
        self._bindings.close()
        self._adapters.clear()
        self._sets = AdapterSets(self._layers)
        self._session = None
        self._cache.close()
        self._vocabulary.close()

    def _run_part(self, part: Part) -> list[NDArray[np.float32]]:
        """One sequence's tokens; the logits that are wanted of it."""
        count = len(part.tokens)
        wanted = count - 1 if part.logits_from is None else part.logits_from
        logits = self._run([part], wanted, [part.sequence])
        self._cache.lengths[part.sequence] = part.start + count
        return list(logits[0])

    def _step(self, parts: Sequence[Part]) -> list[NDArray[np.float32]]:
        """One token for each of several sequences.

        Rows that rest decode a token of no use, beyond what they hold: the buffer has a cell for it.  With adapters
        there are at least two: the float matrices of one row are multiplied in another way than those of several.
        """
        stacks = [self._stack if part.stack is None else part.stack for part in parts]
        first, last = min(part.sequence for part in parts), max(part.sequence for part in parts)
        if any(stacks) and first == last:
            first, last = (first, last + 1) if last + 1 < self.sequences else (first - 1, last)
        by_row = {part.sequence: part for part in parts}
        rows = [
            by_row.get(row) or Part(row, self._cache.lengths[row], [0], stack=BARE) for row in range(first, last + 1)
        ]
        logits = self._run(rows, 0, list(by_row))
        for part in parts:
            self._cache.lengths[part.sequence] = part.start + 1
        return [logits[part.sequence - first, -1] for part in parts]

    def _run(self, rows: Sequence[Part], logits_from: int, kept: Sequence[int]) -> NDArray[np.float32]:
        """Logits [rows, positions, vocabulary] of neighbouring rows with equally many tokens, from a position on.

        The sequences ``kept`` go on from here, the others rest.
        """
        import numpy as np
        import onnxruntime

        length = len(rows[0].tokens)
        ends = np.array([part.start + length for part in rows])
        seen = (np.arange(ends.max())[None] < ends[:, None]).astype(np.int64)
        tokens = [list(part.tokens) for part in rows]
        stacks = [self._stack if part.stack is None else part.stack for part in rows]
        binding = self._bound(rows[0].sequence, len(rows), stacks)
        binding.bind_cpu_input("input_ids", np.array(tokens, dtype=np.int64))
        binding.bind_cpu_input("attention_mask", seen)
        if self._takes_positions:
            binding.bind_cpu_input(POSITIONS, ends[:, None] - length + np.arange(length)[None])
        begin = onnxruntime.OrtValue.ortvalue_from_numpy(np.array([logits_from], dtype=np.int64))
        binding.bind_ortvalue_input(LOGITS_FROM, begin)
        binding.bind_output("logits", "cpu")
        try:
            self._session.run_with_iobinding(binding)
        except Exception as error:
            raise EdgekitError(f"onnxruntime failed to decode ({str(error).splitlines()[0]})") from None
        self._cache.keep(rows[0].sequence, len(rows), kept)
        found: NDArray[np.float32] = binding.get_outputs()[-1].numpy()
        return found

    def _bound(self, first: int, count: int, stacks: Sequence[Stack]) -> Any:
        if self._sets.dropped:  # some bindings may still use a dropped set
            self._bindings.clear()
            self._sets.dropped = False
        return self._bindings.of(first, count, stacks)

    def _adapter_inputs(self, stacks: Sequence[Stack]) -> Values:
        if self.sequences == 1:
            return added([(self._adapters[name], scale) for name, scale in stacks[0]])
        names = names_in(stacks)
        if not names:
            return {}
        side = self._sets.side(names)
        return {**side.values, **masks(side, stacks)}

    def _tried(self, stack: Stack) -> probe.Exactness:
        if self.sequences == 1:
            return probe.Exactness(batches=False, cuts=False)
        shape = self._sets.shape(names_in([stack]))
        if shape not in self._exact:
            self._exact[shape] = self._probe(stack)
        return self._exact[shape]

    def _probe(self, stack: Stack) -> probe.Exactness:
        with self._scratch():
            self._stack = stack
            probe.fill(self, self.sequences)
            # A recurrent state isn't cut back for the next trial: requests are decoded one after another.
            batches = not self._cache.recurrent and probe.batches_are_exact(self, self.sequences)
            return probe.Exactness(batches, probe.cuts_are_exact(self))

    def _probe_mixing(self, stacks: Sequence[Stack]) -> bool:
        """Decode a first token under each stack alone and under all of them at once, compare all bits."""
        names = names_in(stacks)
        rows = list(enumerate(itertools.islice(itertools.cycle(stacks), self.sequences)))
        least = max(2, -(-len(stacks) // SPARE))
        same = False
        try:
            with self._scratch():
                self._stack = BARE
                alone = [probe.step(self, [row], 0)[0] for row in rows]
                self._sets.side(names)
                self._sets.note(names, exact=True)  # for now: smaller batches are to use this set as well
                batches = (rows[:size] for size in range(len(rows), least - 1, -1))
                same = all(probe.same(probe.step(self, batch, 0), alone) for batch in batches)
        finally:
            self._sets.note(names, exact=same)
        return same

    @contextmanager
    def _scratch(self) -> Iterator[None]:
        """Sequences to try something on; they are afterwards what they were."""
        selected = self._stack
        try:
            with self._cache.scratch():
                yield
        finally:
            self._stack = selected
