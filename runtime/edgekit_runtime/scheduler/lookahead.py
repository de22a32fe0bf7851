"""Guesses of what an answer goes on with, from what followed the same tokens before.

A step that decodes a few tokens costs little more than one that decodes one.  So the loop decodes guesses behind the
last token, and keeps those that the sampler would have chosen: the answer is the same, it comes sooner.  No second
model is needed: answers copy from their prompts, and those of an adapter are much alike.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

from edgekit_runtime.engines import Stack

MOST_GUESSES = 15
ORDERS = (6, 4, 3, 2, 1)  # so many tokens are compared, the longest first
MOST_CONTEXTS = 16_384  # that answers under one stack of adapters leave behind; about 3 MB
MOST_STACKS = 8
PRIOR_SLOPE = 0.15  # of a token more in a step, beside a step of none, where nothing is known yet
SURE = 3  # times in a row that a token came, from where no more is learned
DECAY = 0.98  # of what is known of costs and hits, with each new figure


class Followers:
    """What followed runs of tokens: the last token that did, and how often in a row it was that one."""

    def __init__(self) -> None:
        """Know nothing."""
        # A plain dict looks through all it has dropped before it finds its oldest key.
        self._next: OrderedDict[tuple[int, ...], tuple[int, int]] = OrderedDict()

    def learn(self, tokens: Sequence[int], start: int = 0) -> None:
        """Note what follows what, for the tokens from ``start`` on; cells of images are no tokens."""
        for at in range(max(start, 1), len(tokens)):
            token = tokens[at]
            if token < 0:
                continue
            for order in ORDERS:
                if order > at:
                    continue
                context = tuple(tokens[at - order : at])
                known, times = self._next.get(context, (token, -1))
                if known == token:
                    self._next[context] = token, min(times + 1, SURE)
                else:
                    self._next[context] = (known, times - 1) if times > 0 else (token, 0)
        while len(self._next) > MOST_CONTEXTS:
            self._next.popitem(last=False)

    def after(self, tokens: Sequence[int]) -> tuple[int, int, int] | None:
        """The token that followed the longest known end of ``tokens``, that end's length, and how sure it is."""
        for order in ORDERS:
            if order <= len(tokens) and (found := self._next.get(tuple(tokens[len(tokens) - order :]))) is not None:
                return found[0], order, found[1]
        return None


@dataclass
class _Hits:
    """How often guesses of one kind were right."""

    right: float
    tried: float

    def note(self, *, right: bool) -> None:
        self.right, self.tried = DECAY * self.right + right, DECAY * self.tried + 1

    @property
    def share(self) -> float:
        return self.right / self.tried


@dataclass
class Costs:
    """Seconds of a step by its number of tokens: a line through what steps took, older ones counting less."""

    weight: float = 0.0
    tokens: float = 0.0
    squares: float = 0.0
    seconds: float = 0.0
    products: float = 0.0

    def note(self, tokens: int, seconds: float) -> None:
        """A step of so many tokens took so long."""
        self.weight = DECAY * self.weight + 1
        self.tokens = DECAY * self.tokens + tokens
        self.squares = DECAY * self.squares + tokens * tokens
        self.seconds = DECAY * self.seconds + seconds
        self.products = DECAY * self.products + tokens * seconds

    def of(self, tokens: int) -> float:
        """What a step of so many costs beside one of none; a guess before enough is known."""
        slope, spread = PRIOR_SLOPE, self.weight * self.squares - self.tokens**2
        if self.weight >= 2 and spread >= self.weight**2 / 4:
            rise = (self.weight * self.products - self.tokens * self.seconds) / spread
            start = (self.seconds - rise * self.tokens) / self.weight
            slope = max(rise, 0.0) / start if start > 0 else PRIOR_SLOPE
        return 1 + slope * tokens


Kind = tuple[int, int, bool]  # tokens that were the same, how sure, from the conversation itself


@dataclass
class Guess:
    """A token that may come next, and what kind of guess it is."""

    token: int
    kind: Kind


@dataclass
class Lookahead:
    """What a loop knows for its guesses, across requests."""

    costs: Costs = field(default_factory=Costs)
    _answers: OrderedDict[Stack, Followers] = field(default_factory=OrderedDict)
    _hits: dict[Kind, _Hits] = field(default_factory=dict)

    def answers(self, stack: Stack) -> Followers:
        """What answers under a stack of adapters went on with."""
        found = self._answers.setdefault(stack, Followers())
        self._answers.move_to_end(stack)
        while len(self._answers) > MOST_STACKS:
            self._answers.popitem(last=False)
        return found

    def share(self, kind: Kind) -> float:
        """How often such guesses are right."""
        hits = self._hits.get(kind)
        return 0.5 if hits is None else hits.share

    def note(self, kind: Kind, *, right: bool) -> None:
        """Whether one was."""
        self._hits.setdefault(kind, _Hits(1.0, 2.0)).note(right=right)


class Guesser:
    """Guesses for one request."""

    def __init__(self, known: Lookahead, stack: Stack, prompt: Sequence[int]) -> None:
        """Read the prompt."""
        self._known, self._answers = known, known.answers(stack)
        self._own = Followers()
        self._tokens = list(prompt)
        self._own.learn(self._tokens)
        self._begun = len(self._tokens)
        self._pending = 0

    def follow(self, answer: Sequence[int]) -> None:
        """Go on after what is there of the answer."""
        start = len(self._tokens)
        self._tokens += answer[start - self._begun :]
        self._own.learn(self._tokens, start)

    def guesses(self, pending: int, most: int) -> list[Guess]:
        """What may come next: as much as pays behind ``pending`` tokens that have to be decoded, and one at least.

        Where nothing is known, that one is a token of no use.
        """
        self._pending = pending
        tokens, found = self._tokens[-ORDERS[0] :], list[Guess]()
        costs = self._known.costs
        chance, gained, best, paying = 1.0, 1.0, 1.0 / costs.of(pending), 0
        while len(found) < min(most, MOST_GUESSES):
            guess = self._next(tokens)
            if guess is None:
                break
            found.append(guess)
            tokens = [*tokens[-ORDERS[0] + 1 :], guess.token]
            chance *= self._known.share(guess.kind)
            gained += chance
            rate = gained / costs.of(pending + len(found))
            if rate > best:
                best, paying = rate, len(found)
            elif rate < 0.8 * best:
                break
        return found[: max(paying, 1)] or [Guess(self._tokens[-1], (0, 0, True))]

    def _next(self, tokens: Sequence[int]) -> Guess | None:
        """The likelier one of what the conversation and what earlier answers say."""
        found = [
            Guess(told[0], (told[1], told[2], own))
            for own, followers in ((True, self._own), (False, self._answers))
            if (told := followers.after(tokens)) is not None
        ]
        return max(found, key=lambda guess: self._known.share(guess.kind), default=None)

    def learn(self, guesses: Sequence[Guess], right: int, seconds: float) -> None:
        """How a step went: the first ``right`` guesses were, and the next one, if any, was not."""
        for number, guess in enumerate(guesses[: right + 1]):
            self._known.note(guess.kind, right=number < right)
        self._known.costs.note(len(guesses) + self._pending, seconds)

    def close(self, answer: Sequence[int]) -> None:
        """The answer is over: later ones may be like it."""
        self.follow(answer)
        start = max(self._begun - ORDERS[0], 0)
        self._answers.learn(self._tokens[start:], self._begun - start)
