"""The number of threads follows what steps take."""

from __future__ import annotations

from collections.abc import Callable

from edgekit_runtime.engines.threads import LONGEST_PAUSE, Threads


def ran(threads: Threads, steps: int, seconds: Callable[[int], float], tokens: int = 1) -> list[int]:
    """The numbers that so many steps were computed with."""
    used = []
    for _ in range(steps):
        used.append(threads.next(tokens))
        threads.note(tokens, tokens * seconds(used[-1]))
    return used


def alone(count: int) -> float:
    return 1 / count


def crowded(count: int) -> float:
    return 1.0 if count == 1 else 20.0


def test_alone_it_keeps_to_all_and_hardly_tries_others() -> None:
    used = ran(Threads(4), 1000, alone)
    assert used.count(4) > 980
    assert set(used) == {3, 4}


def test_where_threads_wait_for_each_other_there_is_soon_one() -> None:
    threads = Threads(2)
    used = ran(threads, 400, crowded)
    assert used[6:].count(2) <= 5
    assert threads.next(1) == 1


def test_a_neighbour_that_comes_later_is_noticed_and_one_that_goes_too() -> None:
    threads = Threads(2)
    ran(threads, 100, alone)
    used = ran(threads, 20, crowded)
    assert used[4:].count(1) >= 15
    used = ran(threads, 2 * LONGEST_PAUSE, alone)
    assert used[-1] == 2


def test_a_single_slow_step_changes_nothing() -> None:
    threads = Threads(2)
    ran(threads, 10, alone)
    threads.next(1)
    threads.note(1, 50)
    assert ran(threads, 5, alone) == [2] * 5


def test_prefill_takes_the_number_of_decode_where_that_finds_others_on_the_cores() -> None:
    threads = Threads(2)
    assert set(ran(threads, 50, lambda count: alone(count) / 1000, tokens=64)) == {2}
    ran(threads, 20, crowded)
    assert threads.next(64) == 1


def test_prefill_tries_fewer_threads_by_itself_only_where_it_is_slow() -> None:
    threads = Threads(2)
    used = ran(threads, 20, crowded, tokens=64)
    assert used[2:].count(1) >= 15


def test_one_thread_is_all_there_is() -> None:
    assert set(ran(Threads(1), 100, alone)) == {1}
