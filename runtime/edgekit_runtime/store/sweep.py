"""Dropping what no generation that is kept needs."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Collection
from pathlib import Path

from edgekit_runtime.errors import InputError
from edgekit_runtime.files.private_folder import is_in_use
from edgekit_runtime.store.generations import Generations
from edgekit_runtime.store.objects import Objects

log = logging.getLogger(__name__)

KEPT_GENERATIONS = 10


def kept_generations(generations: Generations, pinned: Collection[int]) -> tuple[set[str], set[str]]:
    """Drop old and damaged generations.

    Args:
        generations: of the store.
        pinned: numbers of those that somebody answers from.

    Returns:
        Digests of the objects that the kept ones need, and those of their bases.

    Raises:
        InputError: the current generation is damaged; nothing is dropped.
    """
    current = generations.current()
    kept = {} if current is None else {current.number: current}
    numbers = generations.numbers()
    for number in {*numbers[-KEPT_GENERATIONS:], *(set(pinned) & set(numbers))}:
        try:
            kept[number] = generations.read(number)
        except InputError as error:  # nothing can be rolled back to it
            log.warning("%s; it is dropped", error.problem)
    for number in set(numbers) - set(kept):
        generations.drop(number)
    needed = set[str]().union(*(generation.digests() for generation in kept.values()))
    return needed, {generation.manifest.base.digest for generation in kept.values()}


def sweep(objects: Objects, needed: Collection[str]) -> tuple[int, int]:
    """Remove every object that is not needed, and what killed processes left; files removed, and bytes freed."""
    left = (path for path in objects.scratch.iterdir() if not is_in_use(path))
    freed = [size for path in [*objects.all(), *left] if path.name not in needed for size in _remove(path)]
    return len(freed), sum(freed)


def _remove(path: Path) -> list[int]:
    """Remove a file, or a folder that a process left when it was killed; the sizes of the files that went."""
    if not path.is_dir() or path.is_symlink():
        size = path.lstat().st_size
        path.unlink()
        return [size]
    sizes = [each.lstat().st_size for each in path.rglob("*") if not each.is_dir()]
    shutil.rmtree(path, ignore_errors=True)
    return sizes
