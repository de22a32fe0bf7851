"""How many threads compute, while others need the cores too.

Threads of an engine wait for each other after each matrix.  Where another process has one of the cores, all of them
wait for the thread that it holds up: two threads on two cores can be ten times as slow as one.  So the number follows
what steps take.  Bits don't depend on it: a thread computes whole rows.
"""

from __future__ import annotations

from dataclasses import dataclass, field

SHORT = 32  # tokens; a longer step is prefill, which pays for threads otherwise
AT_FIRST, FIRST_PAUSE, LONGEST_PAUSE = 2, 16, 512  # steps before another number is tried
MUCH_SLOWER = 3
BY_TOKEN = 0.15  # what a token more adds to a short step


@dataclass
class _Kind:
    """Steps that can be compared: those of decode, or those of prefill.

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
    """Chooses the number of each step among 1 to ``most``."""

    def __init__(self, most: int) -> None:
        """Begin with ``most``."""
        self.most = most
        self._kinds = {short: _Kind(most) for short in (True, False)}
        self._trying: int | None = None

    def next(self, tokens: int) -> int:
        """The number for a step of so many tokens."""
        kind, decode = self._kinds[tokens <= SHORT], self._kinds[True]
        self._trying = None
        # A chunk of prefill is long: none is spent on a try while decode goes well.
        if kind.since >= kind.pause and (kind is decode or min(kind.threads, decode.threads) < self.most):
            self._trying = self._other(kind)
        return kind.threads if self._trying is None else self._trying

    def note(self, tokens: int, seconds: float) -> None:
        """What the step took, with the number that :meth:`next` gave for it."""
        short = tokens <= SHORT
        kind, per = self._kinds[short], seconds / (1 + BY_TOKEN * (tokens - 1) if short else tokens)
        used = kind.threads if self._trying is None else self._trying
        before = kind.figure(used)
        last = kind.seconds[used][1] if used in kind.seconds else per
        kind.seconds[used] = (last, per) if self._trying is None else (per, per)
        if self._trying is None:
            kind.since += 1
            if before is not None and min(last, per) > 2 * before:  # something else has begun
                kind.since, kind.pause = FIRST_PAUSE, FIRST_PAUSE
            return
        kind.since = 0
        now = kind.figure(kind.threads)
        if now is None or per < now:
            kind.threads, kind.pause = used, FIRST_PAUSE
        else:
            longer = 8 if per > MUCH_SLOWER * now else 2
            kind.pause = min(max(longer * kind.pause, FIRST_PAUSE), LONGEST_PAUSE)

    def _other(self, kind: _Kind) -> int | None:
        """The neighbour whose turn it is."""
        kind.up = not kind.up
        wanted = kind.threads + (1 if kind.up else -1)
        if not 1 <= wanted <= self.most:
            wanted = kind.threads - (1 if kind.up else -1)
        return wanted if 1 <= wanted <= self.most else None
