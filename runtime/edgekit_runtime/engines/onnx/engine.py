"""ONNX Runtime over an ONNX Runtime GenAI folder.

The session is ONNX Runtime's own and the KV cache is ours: one buffer that the graph's GroupQueryAttention reads and
extends in place, a row of it for each sequence.  GenAI's generator keeps its cache to itself: it can't be saved, cut
back for one row of a batch or shared between requests, and a batch of it has one adapter.  The folder stays GenAI's:
its own generator loads the same files.

* Rows of a batch may have different lengths, as attention takes the length of each from its mask.
* With one sequence, switching adapters binds other matrices to the graph's inputs.  With several, the graph
  ``model.mixed.onnx`` takes all adapters of a step side by side in tiles, and a mask leaves each row its own.
* :meth:`OnnxEngine.batches_exactly` and :meth:`OnnxEngine.cuts_exactly` measure what is the same to the bit.
"""

from __future__ import annotations

import importlib.metadata
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from edgekit_runtime.engines import probe
from edgekit_runtime.engines.base import BARE, Part, Sampling, Stack
from edgekit_runtime.engines.llama.vocabulary import LlamaVocabulary, LogitsSampler
from edgekit_runtime.engines.onnx.adapter_sets import SPARE, AdapterSets, Shape, names_in
from edgekit_runtime.engines.onnx.adapters import Loaded, Values, added, masks
from edgekit_runtime.errors import EdgekitError, InputError
from edgekit_runtime.formats.base_files import BaseFiles
from edgekit_runtime.formats.base_header import MOST_WIDTH
from edgekit_runtime.formats.onnx_base import LOGITS_FROM, LORA_A, MIXED_FILE, VOCABULARY_FILE

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

PAST = re.compile(r"past_key_values\.\d+\.(key|value)")
KEPT_BINDINGS = 64


class Exactness(NamedTuple):
    """What changes no bit of a request's logits: company, the cuts of a prompt."""

    batches: bool
    cuts: bool


class OnnxEngine:
    """A base as an ONNX graph, and any number of ``.onnx_adapter`` files."""

    splits_at_gaps = False

    def __init__(self, files: BaseFiles, *, context: int, threads: int, sequences: int = 1) -> None:
        """Load the graph and set aside ``sequences`` rows of ``context`` tokens.

        Raises:
            InputError: onnxruntime is missing or refuses a file, or there is not enough memory for the context.
        """
        self.context, self.threads, self.sequences = context, threads, sequences
        self.holder: object = None
        self._adapters: dict[str, Loaded] = {}
        self._stack: Stack = BARE
        self._exact: dict[Shape, Exactness] = {}
        self._lengths = [0] * sequences
        self._vocabulary = LlamaVocabulary.open(files.part(VOCABULARY_FILE))
        graph = files.part(MIXED_FILE) if sequences > 1 else files.model
        self._session: Any = _session(graph, threads)
        self._past = _past(self._session, graph)
        self._layers = {each.name: tuple(each.shape) for each in self._session.get_overridable_initializers()}
        if sequences > 1:
            _require_tiles(graph, self._layers)
        self._sets = AdapterSets(self._layers)
        self._cells = _cells(self._past, sequences, context)
        self._bindings: dict[tuple[Any, ...], Any] = {}
        self._cache_rows: dict[tuple[int, int], list[tuple[str, str, Any]]] = {}
        self._rows: Sequence[NDArray[np.float32]] = ()

    def load_adapter(self, name: str, path: Path) -> int:
        """Read an adapter file into memory under ``name``; a loaded one of that name stays.  Returns its bytes.

        Its matrices are bound to the graph here already, so that switching to it costs nothing later.

        Raises:
            InputError: the file is not sound.
        """
        if name not in self._adapters:
            adapter = Loaded.read(path)
            if self.sequences > 1:
                self._sets.add(name, adapter)
                adapter = replace(adapter, arrays={})
            self._adapters[name] = adapter
            if self.sequences == 1:
                self._binding(0, 1, [((name, 1.0),)])
        held = self._sets.side(frozenset([name])) if self.sequences > 1 else self._adapters[name]
        return held.size

    def unload_adapter(self, name: str) -> None:
        """Free an adapter's memory."""
        if self._adapters.pop(name, None) is None:
            return
        if any(name == each for each, _ in self._stack):
            self._stack = BARE
        self._sets.remove(name)
        self._bindings = {key: each for key, each in self._bindings.items() if name not in names_in(key[2])}

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

    def mixes(self, stacks: Sequence[Stack]) -> bool:
        """Whether parts under these stacks can be decoded together without changing a bit of anybody's logits; tried
        once for adapters of the same ranks.
        """
        if not all(self.batches_exactly(stack) for stack in stacks):
            return False
        known = self._sets.exact(names_in(stacks))
        return self._probe_mixing(stacks) if known is None else known

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool = True) -> list[int]:
        """Text to token ids; ``add_special`` puts BOS first where the model wants it."""
        return self._vocabulary.tokenize(text, add_special=add_special, parse_special=parse_special)

    def piece(self, token: int) -> bytes:
        """The bytes of a token, none for special ones."""
        return self._vocabulary.piece(token)

    def is_end(self, token: int) -> bool:
        """Whether the vocabulary marks this token as the end of a generation."""
        return self._vocabulary.is_end(token)

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

    def sampler(self, sampling: Sampling) -> LogitsSampler:
        """A sampler for one request.

        Raises:
            InputError: llama.cpp doesn't understand the grammar.
        """
        return LogitsSampler(self._vocabulary, sampling, self.row)

    def row(self, number: int) -> NDArray[np.float32]:
        """A row of logits of the last decode, [vocabulary]; valid until the next one."""
        return self._rows[number]

    def forget(self, sequence: int, start: int = 0) -> bool:
        """Drop a sequence's KV cache from a position on."""
        self._lengths[sequence] = min(self._lengths[sequence], start)
        return True

    def save(self, sequence: int) -> bytes:
        """The KV cache of a sequence: its length as u32, then its cells layer by layer, keys and values in turn."""
        length = self._lengths[sequence]
        cells = (cache[sequence, :, :length].tobytes() for cache in self._cells)
        return length.to_bytes(4, "little") + b"".join(cells)

    def restore(self, sequence: int, state: bytes) -> bool:
        """Put a saved KV cache into an empty sequence; False, and empty still, when it doesn't fit."""
        import numpy as np

        length = int.from_bytes(state[:4], "little")
        shapes = [(cache.shape[1], length, cache.shape[3]) for cache in self._cells]
        sizes = [rows * length * width * 4 for rows, _, width in shapes]
        if length > self.context or len(state) != 4 + sum(sizes):
            return False
        for cache, shape, start in zip(self._cells, shapes, itertools.accumulate(sizes, initial=4), strict=False):
            count = shape[0] * shape[1] * shape[2]
            cache[sequence, :, :length] = np.frombuffer(state, np.float32, count, start).reshape(shape)
        self._lengths[sequence] = length
        return True

    def info(self) -> dict[str, Any]:
        """Name and version of the engine."""
        from edgekit_runtime import machine

        version = importlib.metadata.version("onnxruntime")
        return {"name": "onnxruntime", "version": f"onnxruntime {version}", "cpu_features": machine.describe()["flags"]}

    def close(self) -> None:
        """Free everything."""
        self._bindings.clear()
        self._cache_rows.clear()
        self._adapters.clear()
        self._sets = AdapterSets(self._layers)
        self._session = None
        self._cells = []
        self._vocabulary.close()

    def _run_part(self, part: Part) -> list[NDArray[np.float32]]:
        """One sequence's tokens; its logits after each, or after the last."""
        count = len(part.tokens)
        logits = self._run([part], 0 if part.every else count - 1)
        self._lengths[part.sequence] = part.start + count
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
        rows = [by_row.get(row) or Part(row, self._lengths[row], [0], stack=BARE) for row in range(first, last + 1)]
        logits = self._run(rows, 0)
        for part in parts:
            self._lengths[part.sequence] = part.start + 1
        return [logits[part.sequence - first, -1] for part in parts]

    def _run(self, rows: Sequence[Part], logits_from: int) -> NDArray[np.float32]:
        """Logits [rows, positions, vocabulary] of neighbouring rows with equally many tokens, from a position on."""
        import numpy as np
        import onnxruntime

        length = len(rows[0].tokens)
        ends = np.array([part.start + length for part in rows])
        seen = (np.arange(ends.max())[None] < ends[:, None]).astype(np.int64)
        tokens = [list(part.tokens) for part in rows]
        stacks = [self._stack if part.stack is None else part.stack for part in rows]
        binding = self._binding(rows[0].sequence, len(rows), stacks)
        binding.bind_cpu_input("input_ids", np.array(tokens, dtype=np.int64))
        binding.bind_cpu_input("attention_mask", seen)
        begin = onnxruntime.OrtValue.ortvalue_from_numpy(np.array([logits_from], dtype=np.int64))
        binding.bind_ortvalue_input(LOGITS_FROM, begin)
        binding.bind_output("logits", "cpu")
        try:
            self._session.run_with_iobinding(binding)
        except Exception as error:
            raise EdgekitError(f"onnxruntime failed to decode ({str(error).splitlines()[0]})") from None
        found: NDArray[np.float32] = binding.get_outputs()[-1].numpy()
        return found

    def _binding(self, first: int, count: int, stacks: Sequence[Stack]) -> Any:
        """Rows ``first`` and on of the KV cache, and the adapters of these rows, bound to the graph."""
        key = (first, count, tuple(stacks))
        if len(self._bindings) >= KEPT_BINDINGS or self._sets.dropped:  # some may still use a dropped set
            self._bindings.clear()
            self._sets.dropped = False
        binding = self._bindings.get(key)
        if binding is not None:
            return binding
        binding = self._session.io_binding()
        for name, output, value in self._cache_values(first, count):
            binding.bind_ortvalue_input(name, value)
            binding.bind_ortvalue_output(output, value)
        for name, value in self._adapter_inputs(stacks).items():
            if name in self._layers:
                binding.bind_ortvalue_input(name, value)
        self._bindings[key] = binding
        return binding

    def _cache_values(self, first: int, count: int) -> list[tuple[str, str, Any]]:
        """Rows of the KV cache with the names of input and output, which are the same memory."""
        import onnxruntime

        if (first, count) not in self._cache_rows:
            make = onnxruntime.OrtValue.ortvalue_from_numpy
            self._cache_rows[first, count] = [
                (each.name, each.name.replace("past_key_values", "present"), make(cache[first : first + count]))
                for each, cache in zip(self._past, self._cells, strict=True)
            ]
        return self._cache_rows[first, count]

    def _adapter_inputs(self, stacks: Sequence[Stack]) -> Values:
        if self.sequences == 1:
            return added([(self._adapters[name], scale) for name, scale in stacks[0]])
        names = names_in(stacks)
        if not names:
            return {}
        side = self._sets.side(names)
        return {**side.values, **masks(side, stacks)}

    def _tried(self, stack: Stack) -> Exactness:
        if self.sequences == 1:
            return Exactness(batches=False, cuts=False)
        shape = self._sets.shape(names_in([stack]))
        if shape not in self._exact:
            self._exact[shape] = self._probe(stack)
        return self._exact[shape]

    def _probe(self, stack: Stack) -> Exactness:
        with self._scratch():
            self._stack = stack
            probe.fill(self, self.sequences)
            return Exactness(probe.batches_are_exact(self, self.sequences), probe.cuts_are_exact(self))

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
        kept = [cache.copy() for cache in self._probed()]
        lengths, selected = list(self._lengths), self._stack
        try:
            yield
        finally:
            for cache, saved in zip(self._probed(), kept, strict=True):
                cache[:] = saved
            self._lengths, self._stack = lengths, selected

    def _probed(self) -> list[NDArray[np.float32]]:
        return [cache[:, :, : probe.TOKENS + 1] for cache in self._cells]


def _require_tiles(graph: Path, inputs: Mapping[str, tuple[Any, ...]]) -> None:
    if any(len(shape) != 3 for name, shape in inputs.items() if name.endswith(LORA_A)):
        raise InputError(f"{graph} is of an earlier edgekit", "export it again, or serve one request at a time")


def _session(graph: Path, threads: int) -> Any:
    try:
        import onnxruntime
    except ImportError:
        raise InputError(
            "this bundle runs on ONNX Runtime, which is not installed", "pip install 'edgekit-runtime[onnx]'"
        ) from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    try:
        return onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise InputError(
            f"onnxruntime refuses {graph} ({str(error).splitlines()[0]})", "copy or export it again"
        ) from None


def _past(session: Any, graph: Path) -> list[Any]:
    """The graph's inputs for the KV cache, float32 [sequences, heads, tokens, head size].

    Raises:
        InputError: they are something else, or what is asked for besides is not there.
    """
    inputs = {each.name: each for each in session.get_inputs()}
    found = [each for name, each in inputs.items() if PAST.fullmatch(name)]
    sound = (
        inputs.keys() >= {"input_ids", "attention_mask"}
        and LOGITS_FROM in {each.name for each in session.get_overridable_initializers()}
        and "logits" in {each.name for each in session.get_outputs()}
        and all(each.type == "tensor(float)" and len(each.shape) == 4 for each in found)
        and all(isinstance(size, int) and 0 < size <= MOST_WIDTH for each in found for size in each.shape[1::2])
    )
    if not sound:
        raise InputError(f"{graph} is no graph of a language model as edgekit makes it", "copy or export it again")
    return found


def _cells(past: Sequence[Any], sequences: int, context: int) -> list[NDArray[np.float32]]:
    """A buffer [sequences, heads, context + 1, head size] for each key and value input; pages are taken when used."""
    import numpy as np

    try:
        return [np.zeros((sequences, each.shape[1], context + 1, each.shape[3]), np.float32) for each in past]
    except (MemoryError, ValueError):  # more than numpy can count
        raise InputError(
            f"no memory for {sequences} x {context} tokens of context", "ask for a smaller context"
        ) from None
