"""Adapters in memory: thousands may be installed, and a few are loaded at a time."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

from edgekit_runtime.engines import Engine, ReadyAdapter, Stack
from edgekit_runtime.errors import InputError

Watch = Callable[[Sequence[Stack]], object]


def nobody(_: Sequence[Stack]) -> None:
    """Watches nothing."""


def _close(future: Future[ReadyAdapter]) -> None:
    if not future.cancelled() and future.exception() is None:
        future.result().close()


@contextmanager
def watched(watch: Watch, stacks: Sequence[Stack]) -> Iterator[None]:
    """Tell ``watch`` which adapters the engine works with in the block, and that it has done after it."""
    watch(stacks)
    try:
        yield
    finally:
        watch(())


class AdapterPool:
    """Loads adapters when they are asked for, and drops the one that was not used for longest when memory runs short.

    What a running request uses stays.  The limit may be passed for a moment, by the adapter that is being loaded.
    An adapter that is expected is read and checked by a thread of the pool, beside the engine's work.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        limit: int | None = None,
        ready: Callable[[str, Path], ReadyAdapter],
        check: Callable[[Path, str], None],
    ) -> None:
        """Start empty.

        Args:
            engine: loads and frees.
            limit: bytes that loaded adapters may take together; None for no limit.
            ready: does for a digest and its file what comes before the engine's part, in any thread; raises InputError
                for a file that must not reach the engine.
            check: raises InputError for a file that has not, or no more, this digest.
        """
        self._engine, self._limit, self._ready, self._check = engine, limit, ready, check
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="adapters")
        self._coming: dict[str, Future[ReadyAdapter]] = {}
        self._loaded: OrderedDict[str, int] = OrderedDict()  # bytes; the longest unused first
        self._sizes: dict[str, int] = {}  # of everything that was ever loaded
        self._users: Counter[str] = Counter()
        self.loads = self.evictions = 0
        self.watch: Watch = nobody  # as the loop's

    @property
    def size(self) -> int:
        """What is loaded."""
        return sum(self._loaded.values())

    def __len__(self) -> int:
        return len(self._loaded)

    def expect(self, files: Mapping[str, Path]) -> None:
        """Begin to make ready what isn't loaded of these; leave off with all others, which take memory."""
        for digest in [each for each in self._coming if each not in files]:
            self._leave_off(digest)
        for digest, path in files.items():
            if digest not in self._loaded and digest not in self._coming:
                self._coming[digest] = self._thread.submit(self._ready, digest, path)

    def close(self) -> None:
        """Leave off with everything that is expected."""
        self.expect({})
        self._thread.shutdown()

    def _leave_off(self, digest: str) -> None:
        future = self._coming.pop(digest)
        if not future.cancel():
            future.add_done_callback(_close)

    def hold(self, files: Mapping[str, Path], *, wait: bool = True) -> bool:
        """Load what isn't, and keep all of it until :meth:`release`.

        Args:
            files: by digest.
            wait: for what is not ready; without, nothing is held before :meth:`expect` has made it ready.

        Returns:
            False when there is no room until somebody else lets go; nothing is held then.

        Raises:
            InputError: a file is refused, or would not fit even alone.
        """
        if not self._may_fit(files):
            return False
        if not wait and not all(digest in self._loaded or self._is_ready(digest) for digest in files):
            return False
        for digest, path in files.items():
            if digest not in self._loaded:
                self._load(digest, path)
            self._loaded.move_to_end(digest)
        self._users.update(files.keys())
        if self._evict():
            return True
        self.release(files)
        self._evict()
        return self._may_fit(files)  # raises when waiting would not help

    def _is_ready(self, digest: str) -> bool:
        return digest in self._coming and self._coming[digest].done()

    def _load(self, digest: str, path: Path) -> None:
        future = self._coming.pop(digest, None)
        with closing(self._ready(digest, path) if future is None else future.result()) as ready:
            self._check(ready.source, digest)  # it may have changed while it was read, and since then
            with watched(self.watch, [((digest, 1.0),)]):
                self._loaded[digest] = self._sizes[digest] = self._engine.load_adapter(digest, ready)
        self.loads += 1

    def _may_fit(self, files: Mapping[str, Path]) -> bool:
        """Whether there is room beside what is in use, as far as sizes are known."""
        needed = sum(self._sizes.get(digest, 0) for digest in files)
        if self._limit is None or needed <= self._limit - self._pinned(files):
            return True
        if needed > self._limit:
            raise InputError(
                f"the adapters asked for take {needed / 1e6:.1f} MB, and {self._limit / 1e6:.1f} MB are allowed",
                "raise the limit for adapters",
            )
        return False

    def _pinned(self, files: Mapping[str, Path]) -> int:
        return sum(self._loaded[digest] for digest in self._users if digest not in files)

    def release(self, files: Mapping[str, Path]) -> None:
        """Let go; the adapters stay loaded while there is room."""
        self._users.subtract(files.keys())
        self._users += Counter()  # forget zeros

    def drop(self, digest: str) -> None:
        """Free an adapter that nobody uses; one in use goes when room is needed."""
        if digest in self._loaded and not self._users[digest]:
            del self._loaded[digest]
            self._engine.unload_adapter(digest)

    def _evict(self) -> bool:
        """Drop unused adapters until the rest fits; whether it does."""
        excess = 0 if self._limit is None else self.size - self._limit
        for digest in [digest for digest in self._loaded if not self._users[digest]]:
            if excess <= 0:
                break
            excess -= self._loaded[digest]
            self.drop(digest)
            self.evictions += 1
        return excess <= 0
