"""What the runtime asks of an engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from edgekit_runtime.errors import UsageError
from edgekit_runtime.formats.sampling_defaults import HOTTEST, LEAST_REPETITION, MOST_PENALTY, MOST_REPETITION

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from edgekit_runtime.formats.gguf import GgufFile
    from edgekit_runtime.formats.images import Picture

# Tokens of KV cache that are set aside unless told otherwise: a device's memory is small, contexts are large.
DEFAULT_CONTEXT = 4096
SHARED_CONTEXT = 2048  # for each of several requests at once
SCORED_CHUNK = 128  # of them whose attention scores are written out at once, where flash attention is off
PREFILL_CHUNK = 512  # tokens that are decoded at once at most

MOST_BIAS = 100

# Loaded adapters and their scales, applied together; empty for the bare base.
Stack = tuple[tuple[str, float], ...]
BARE: Stack = ()


@dataclass(frozen=True)
class ThinkingBudget:
    """How many ``tokens`` an answer's reasoning may have between the tags ``start`` and ``end``; ``open`` where the
    prompt ends within it.
    """

    tokens: int
    start: str
    end: str
    open: bool


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen: greedily at temperature 0, else from the seeded, truncated distribution.

    Steps come in this order: ``logit_bias``, the penalties, ``top_k``, ``top_p``, ``min_p``, ``temperature``, the draw.
    They are llama.cpp's own samplers on every engine.

    Attributes:
        temperature: divides the logits.
        top_k: only the k most likely tokens; 0 for all.
        top_p: only the most likely tokens that together have this probability.
        min_p: only tokens that have this share of the likeliest token's probability; 0 for all.
        seed: of the random draw.
        repetition_penalty: divides positive logits of tokens that prompt or answer have, and multiplies negative ones,
            as in CTRL (arXiv 1909.05858); 1 for none.
        repeat_last_n: only of so many last tokens of prompt and answer; -1 for all.
        frequency_penalty: is taken from a token's logit for each time that the answer has it, as at OpenAI.
        presence_penalty: is taken from it once.
        logit_bias: (token, what is added to its logit).
        ignore_eos: no token ends the answer.
        min_tokens: none does before the answer has so many.
        grammar: what the answer has to follow, as :func:`~edgekit_runtime.constraints.compiled` makes it, or None.
            Where it lets the answer only end, the answer ends.
        thinking: reasoning that has so many tokens ends with its end tag, whatever would be likelier.

    Raises:
        UsageError: a value that means nothing.
    """

    temperature: float = 0.0
    top_k: int = 40
    top_p: float = 0.95
    seed: int = 0
    grammar: str | None = None
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    repeat_last_n: int = -1
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    ignore_eos: bool = False
    min_tokens: int = 0
    thinking: ThinkingBudget | None = None

    def __post_init__(self) -> None:
        for name, value, least, most in (
            ("temperature", self.temperature, 0, HOTTEST),
            ("top_k", self.top_k, 0, 2**31 - 1),
            ("top_p", self.top_p, 0, 1),
            ("seed", self.seed, 0, 2**32 - 1),
            ("min_p", self.min_p, 0, 1),
            ("repetition_penalty", self.repetition_penalty, LEAST_REPETITION, MOST_REPETITION),
            ("repeat_last_n", self.repeat_last_n, -1, 2**31 - 1),
            ("frequency_penalty", self.frequency_penalty, -MOST_PENALTY, MOST_PENALTY),
            ("presence_penalty", self.presence_penalty, -MOST_PENALTY, MOST_PENALTY),
            ("min_tokens", self.min_tokens, 0, 2**31 - 1),
            *(("a logit_bias of", bias, -MOST_BIAS, MOST_BIAS) for _, bias in self.logit_bias),
        ):
            if not least <= value <= most:  # NaN is nowhere
                raise UsageError(f"{name} {value} is not possible", f"use {least} to {most}")

    @property
    def adjusts(self) -> bool:
        """Whether logits are changed before the choice, so that the greedy one is another than the model's."""
        return bool(self.logit_bias or self.repeats or self.frequency_penalty or self.presence_penalty)

    @property
    def repeats(self) -> bool:
        """Whether the repetition penalty does anything."""
        return self.repetition_penalty != 1 and self.repeat_last_n != 0

    @property
    def looks_at_each(self) -> bool:
        """Whether each token is looked at before and after its choice: some may not come, or have to."""
        return self.grammar is not None or self.holds_end or self.thinking is not None

    @property
    def holds_end(self) -> bool:
        """Whether tokens that end the answer may be held back."""
        return self.ignore_eos or self.min_tokens > 0


@dataclass(frozen=True)
class Part:
    """Tokens to decode for one sequence.

    Attributes:
        sequence: which of the engine's KV sequences.
        start: position of the first token; what the sequence held from there on has been forgotten.
        tokens: at least one.
        logits_from: the first token after which logits are wanted; None for the last alone.
        embeddings: [len(tokens), width] of an image's or a prompt adapter's cells, which take the place of token
            embeddings; such a part is decoded alone.
        stack: adapters for this part, where the engine mixes them; None for the selected ones.
    """

    sequence: int
    start: int
    tokens: Sequence[int]
    logits_from: int | None = None
    embeddings: NDArray[np.float32] | None = None
    stack: Stack | None = None


class Frame(Protocol):
    """An image as the model sees it, or a tile of one; or the virtual tokens of a prompt adapter."""

    @property
    def cells(self) -> Sequence[int]:
        """Negative ids, one for each embedding; the same for the same pixels or rows, and for no others."""

    @property
    def encoded(self) -> bool:
        """Whether the embeddings are there."""

    def embeddings(self) -> NDArray[np.float32]:
        """[len(cells), width]; computed the first time."""


# An image in a prompt: the token ids that the model wants around it, and its frames.
Layout = Sequence[int | Frame]


class Images(Protocol):
    """Images for an engine, laid out and encoded; what was encoded is kept, whatever adapters see it."""

    def layout(self, picture: Picture) -> Layout:
        """How the model sees an image; raises InputError for one that it can't see."""

    def close(self) -> None:
        """Free everything."""


@dataclass(frozen=True)
class Prompt:
    """Token ids, with the cells of images among them, and where each frame begins."""

    tokens: list[int]
    frames: tuple[tuple[int, Frame], ...] = ()

    @classmethod
    def of(cls, layout: Layout) -> Prompt:
        """Flatten what may hold frames."""
        tokens: list[int] = []
        frames: list[tuple[int, Frame]] = []
        for each in layout:
            if isinstance(each, int):
                tokens.append(each)
            else:
                frames.append((len(tokens), each))
                tokens += each.cells
        return cls(tokens, tuple(frames))

    def after(self, frame: Frame) -> Prompt:
        """The prompt with a frame before it."""
        shift = len(frame.cells)
        frames = ((first + shift, each) for first, each in self.frames)
        return Prompt([*frame.cells, *self.tokens], ((0, frame), *frames))

    def followed_by(self, tokens: Sequence[int]) -> Prompt:
        """The prompt with more tokens after it."""
        return Prompt([*self.tokens, *tokens], self.frames)

    def part(self, sequence: int, start: int, stop: int, *, every: bool = False) -> Part:
        """Tokens ``start`` to ``stop``, which must not cross an edge of a frame."""
        first, frame = self.frame_at(start)
        rows = None if frame is None else frame.embeddings()[start - first : stop - first]
        tokens = self.tokens[start:stop]
        return Part(sequence, start, tokens, logits_from=0 if every else None, embeddings=rows)

    def frame_at(self, position: int) -> tuple[int, Frame | None]:
        """Where the frame around a position begins, and the frame; None where there is text."""
        found = (each for each in self.frames if each[0] <= position < each[0] + len(each[1].cells))
        return next(found, (position, None))

    def edges(self) -> list[int]:
        """Where frames begin and end."""
        return [edge for first, frame in self.frames for edge in (first, first + len(frame.cells))]


class Sampler(Protocol):
    """The choice of one request's tokens, with what it remembers of them."""

    def sample(self, row: int) -> int:
        """The next token, from the logits ``row`` of the last decode; raises InputError where no token may follow."""

    def forced(self) -> list[int]:
        """The tokens that have to come next, whatever the logits are; they are taken.  Raises InputError likewise."""

    def close(self) -> None:
        """Free it."""


class Embedder(Protocol):
    """Reads hidden states beside an engine's KV sequences, one text after another.

    ``tokens`` is how long a text may be, ``chunk`` how many tokens of it are read at once at most.
    """

    tokens: int
    chunk: int

    def read(self, part: Part, stack: Stack) -> NDArray[np.float32]:
        """The last hidden state of each token of a part under adapters, [len(part.tokens), width]."""

    def forget(self) -> None:
        """Make room for another text; adapters may be unloaded from here on."""

    def close(self) -> None:
        """Free it."""


def _nothing() -> None:
    """Does nothing."""


@dataclass(frozen=True)
class ReadyAdapter:
    """An adapter as an engine loads it.

    Attributes:
        source: its file.
        file: what the engine reads: that file, or a copy of it that suits this engine better.
        header: of its file, where that is a GGUF.
        close: frees the copy; to be called once.
    """

    source: Path
    file: Path
    header: GgufFile | None = None
    close: Callable[[], None] = _nothing


class Engine(Protocol):
    """One loaded base; adapters are loaded once and chosen per decode.  Not thread-safe.

    ``context`` is what one sequence can hold, in tokens; ``sequences`` how many there are.  ``holder`` is whoever
    filled the KV cache last, so that a loop notices when its cells are gone.  ``splits_at_gaps`` tells that only
    sequences with neighbouring numbers are decoded in one go.  ``exact`` tells that an answer must not depend on who
    else is asking or has asked, to the bit.
    """

    context: int
    sequences: int
    threads: int
    holder: object
    splits_at_gaps: bool
    exact: bool

    def ready(self, path: Path, header: GgufFile | None = None) -> ReadyAdapter:
        """What can be done for an adapter beside the engine's work, in any thread: all but its last step.

        ``header`` is the file's, where somebody has read it.  Raises InputError when the file is not sound.
        """

    def load_adapter(self, name: str, adapter: Path | ReadyAdapter) -> int:
        """Load an adapter under ``name``; returns the bytes it takes, raises InputError when it is refused."""

    def unload_adapter(self, name: str) -> None:
        """Free a loaded adapter."""

    def invocation(self, name: str) -> list[int]:
        """The tokens that switch an activated LoRA on; none for any other adapter."""

    def virtual_tokens(self, name: str) -> Frame | None:
        """What a loaded prompt adapter puts before each prompt; None for any other adapter."""

    def select(self, stack: Stack) -> None:
        """Use these loaded adapters for what is decoded next; a prompt adapter has nothing to use there."""

    def batches_exactly(self, stack: Stack) -> bool:
        """Whether, under ``stack``, logits are the same to the bit however many sequences are decoded at once."""

    def cuts_exactly(self, stack: Stack) -> bool:
        """Whether, under ``stack``, they are however a prompt is cut into parts of two tokens and more."""

    def looks_ahead(self, stack: Stack) -> bool:
        """Whether decoding guesses behind a token pays under ``stack``, and changes no bit: a step of two tokens costs
        little more than one of one, parts of two and more give the same logits however they are cut, and cells can be
        dropped again.
        """

    def mixes(self, stacks: Sequence[Stack]) -> bool:
        """Whether parts with these stacks of their own can be decoded at once, to the same bits as alone."""

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool = True) -> list[int]:
        """Text to token ids."""

    def piece(self, token: int) -> bytes:
        """The bytes that a token stands for; special tokens stand for none."""

    def is_end(self, token: int) -> bool:
        """Whether a token ends the generation."""

    def decode(self, parts: Sequence[Part]) -> None:
        """Decode all parts at once.  Rows of logits follow the order of the parts."""

    def sampler(self, sampling: Sampling, prompt: Sequence[int] = ()) -> Sampler:
        """A sampler for one request with this prompt; raises InputError when the grammar can't be used."""

    def row(self, number: int) -> NDArray[np.float32]:
        """A row of logits of the last decode, [vocabulary]; valid until the next one."""

    def embedder(self, tokens: int) -> Embedder:
        """What reads hidden states of texts of so many tokens at most; raises InputError where there are none."""

    def forget(self, sequence: int, start: int = 0) -> bool:
        """Drop a sequence's KV cache from a position on; False when only all of it could be dropped, and was."""

    def save(self, sequence: int) -> bytes:
        """The KV cache of a sequence."""

    def restore(self, sequence: int, state: bytes) -> bool:
        """Put a saved KV cache into an empty sequence; False, and empty still, when it doesn't fit."""

    def info(self) -> dict[str, Any]:
        """Name, version and build of the engine."""

    def close(self) -> None:
        """Free everything."""


def generate(engine: Engine, prompt: Sequence[int], sampling: Sampling, before: Frame | None = None) -> Iterator[int]:
    """The plain loop, on sequence 0: prefill, then one token after another, the ending token included, without end.

    ``before`` are the virtual tokens of a prompt adapter.
    """
    sampler = engine.sampler(sampling, prompt)
    engine.holder = None
    whole = Prompt(list(prompt)) if before is None else Prompt(list(prompt)).after(before)
    try:
        engine.forget(0)
        position = 0
        while position < len(whole.tokens):
            end = min(edge for edge in (*whole.edges(), len(whole.tokens)) if edge > position)
            stop = min(position + PREFILL_CHUNK, end)
            engine.decode([whole.part(0, position, stop)])
            position = stop
        while True:
            token = sampler.sample(0)
            yield token
            engine.decode([Part(0, position, [token])])
            position += 1
    finally:
        sampler.close()


def working_from(engine: Engine, stack: Stack, tokens: Sequence[int]) -> int | None:
    """The position from which loaded adapters work: 0, or where an activated LoRA's invocation is seen last; None for
    never.
    """
    call = [token for name, _ in stack for token in engine.invocation(name)]
    return last_place(tokens, call) if call else 0


def with_virtual_tokens(engine: Engine, stack: Stack, prompt: Prompt) -> tuple[Prompt, Stack]:
    """What the engine reads of a prompt under loaded adapters, and those of them that work in its layers.

    A prompt adapter's virtual tokens stand before everything else, the token that begins a text included, as in PEFT.
    Layers have nothing of it.

    Raises:
        UsageError: a prompt adapter that is not alone, or scaled.
    """
    frames = [frame for name, _ in stack if (frame := engine.virtual_tokens(name)) is not None]
    if not frames:
        return prompt, stack
    if len(stack) > 1 or stack[0][1] != 1:
        raise UsageError("a prompt adapter works alone, at a scale of 1", "ask for it by its name")
    return prompt.after(frames[0]), BARE


def last_place(tokens: Sequence[int], call: Sequence[int]) -> int | None:
    """Where ``call`` stands last in ``tokens``; None when it doesn't."""
    starts = range(len(tokens) - len(call), -1, -1)
    return next((at for at in starts if list(tokens[at : at + len(call)]) == list(call)), None)


def forced_logits(engine: Engine, tokens: Sequence[int] | Prompt, stack: Stack = BARE) -> NDArray[np.float32]:
    """Teacher-forced logits under loaded adapters, [len(tokens), vocabulary], float32, on sequence 0.

    Those after virtual tokens are left out.
    """
    import numpy as np

    prompt = tokens if isinstance(tokens, Prompt) else Prompt(list(tokens))
    count = len(prompt.tokens)
    prompt, stack = with_virtual_tokens(engine, stack, prompt)
    works = working_from(engine, stack, prompt.tokens)
    works = len(prompt.tokens) if works is None else works
    edges = [works, *prompt.edges(), len(prompt.tokens)]
    engine.holder = None
    engine.forget(0)
    rows: list[NDArray[np.float32]] = []
    while (start := len(rows)) < len(prompt.tokens):
        stop = min(start + PREFILL_CHUNK, *(edge for edge in edges if edge > start))
        engine.select(stack if start >= works else BARE)
        engine.decode([prompt.part(0, start, stop, every=True)])
        rows += [engine.row(number).copy() for number in range(stop - start)]
    return np.stack(rows[-count:])
