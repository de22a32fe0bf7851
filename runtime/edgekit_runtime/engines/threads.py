"""How many threads compute, while others need the cores too.

Threads of an engine wait for each other after each matrix.  Where another process has one of the cores, all of them
wait for the thread that it holds up: two threads on two cores can be ten times as slow as one.  So the number follows
what steps take.  Bits don't depend on it: a thread computes whole rows.
"""

from __future__ import annotations

from dataclasses import dataclass, field

SHORT = 4  # tokens; such steps are compared, and another number is tried in them, as they are soon over
AT_FIRST, FIRST_PAUSE, LONGEST_PAUSE = 2, 16, 512  # steps before another number is tried
SLOW = 2.0  # seconds, of a longer step: only where one took longer is another number tried there
MUCH_SLOWER = 3
BY_TOKEN = 0.15  # what a token more adds to a short step


@dataclass
class _Kind:
    """Steps that can be compared: short ones, or longer ones.

    ``seconds`` are the last two figures of each number of threads; the lower one counts, as one may be an accident.
    """

    threads: int
    seconds: dict[int, tuple[float, float]] = field(default_factory=dict)
    since: int = 0
    pause: int = AT_FIRST
    up: bool = False

    def figure(self, threads: int) -> float | None:
        known = self.seconds.get(threads)
        return None if known is None else min(known)


class Threads:
    """Chooses the number of each step among 1 to ``most``; all contexts of an engine share what is learnt."""

    def __init__(self, most: int) -> None:
        """Begin with ``most``."""
        self.most = most
        self._short, self._long = _Kind(most), _Kind(most, pause=0)
        self._was_slow = False  # the last longer step
        self._used: int = most
        self._is_try = False

    def next(self, tokens: int) -> int:
        """The number for a step of so many tokens."""
        kind = self._kind(tokens)
        tried = self._other(kind) if kind.since >= kind.pause and (kind is self._short or self._was_slow) else None
        self._is_try = tried is not None
        self._used = self._usual(kind) if tried is None else tried
        return self._used

    def note(self, tokens: int, seconds: float) -> None:
        """What the step took, with the number that :meth:`next` gave for it."""
        kind, used = self._kind(tokens), self._used
        per = seconds / (1 + BY_TOKEN * (tokens - 1) if kind is self._short else tokens)
        if kind is self._long:
            self._was_slow = seconds > SLOW
        before = kind.figure(used)
        last = kind.seconds[used][1] if used in kind.seconds else per
        kind.seconds[used] = (per, per) if self._is_try else (last, per)
        if not self._is_try:
            kind.since += 1
            if before is not None and min(last, per) > 2 * before:  # something else has begun
                kind.since = kind.pause = FIRST_PAUSE
            return
        kind.since = 0
        now = kind.figure(kind.threads)
        if now is None or per < now:
            kind.threads, kind.pause = used, FIRST_PAUSE
        else:
            longer = 8 if per > MUCH_SLOWER * now else 2
            kind.pause = min(max(longer * kind.pause, FIRST_PAUSE), LONGEST_PAUSE)

    def _kind(self, tokens: int) -> _Kind:
        return self._short if tokens <= SHORT else self._long

    def _usual(self, kind: _Kind) -> int:
        """The number that was best; where short steps show that others have the cores, longer ones take theirs."""
        most, best = self._short.figure(self.most), self._short.figure(self._short.threads)
        if kind is self._long and most is not None and best is not None and most > MUCH_SLOWER * best:
            return min(self._short.threads, kind.threads)
        return kind.threads

    def _other(self, kind: _Kind) -> int | None:
        """The neighbour whose turn it is."""
        kind.up = not kind.up
        wanted = kind.threads + (1 if kind.up else -1)
        if not 1 <= wanted <= self.most:
            wanted = kind.threads - (1 if kind.up else -1)
        return wanted if 1 <= wanted <= self.most else None
