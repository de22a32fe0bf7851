"""What a search draws are settings that a project file may have, near the adapter's own."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit.project import Adapter, Project, with_settings
from edgekit.tuning.space import RANKS, RATE, SEARCHABLE, space_of
from edgekit_runtime.errors import UsageError

ADAPTERS = st.builds(
    Adapter,
    name=st.just("one"),
    rank=st.integers(1, 256),
    alpha=st.none() | st.integers(1, 512),
    dropout=st.floats(0, 0.9),
    learning_rate=st.floats(1e-6, 1),
    epochs=st.floats(0.1, 50),
    max_steps=st.none() | st.integers(1, 10_000),
    targets=st.sampled_from(["all-linear", "q/v", ("q_proj",), ".*k_proj"]),
)


def study() -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))


@settings(max_examples=60, deadline=None)
@given(ADAPTERS, st.sets(st.sampled_from(SEARCHABLE), min_size=1), st.none() | st.floats(1e-6, 1))
def test_what_is_drawn_is_taken_by_train(adapter: Adapter, searched: set[str], best: float | None) -> None:
    project = Project(folder=Path(), project="p", base="smollm2-135m", adapters={"one": adapter})
    space = space_of(adapter, sorted(searched))
    for _ in range(3):
        drawn = space.draw(study().ask(), best)
        with_settings(project, ["one"], drawn)
        assert set(drawn) <= {*searched, "alpha", "max_steps"}


@settings(max_examples=30, deadline=None)
@given(ADAPTERS)
def test_the_first_trial_has_the_adapters_own_settings(adapter: Adapter) -> None:
    space = space_of(adapter, [name for name in SEARCHABLE if name != RATE])
    begun = study()
    begun.enqueue_trial(space.own())
    drawn = space.draw(begun.ask(), None)
    project = Project(folder=Path(), project="p", base="smollm2-135m", adapters={"one": adapter})
    assert with_settings(project, ["one"], drawn).adapter("one") == dataclasses.replace(
        adapter, alpha=adapter.lora_alpha
    )


def test_the_learning_rate_comes_first_the_adapters_own_before_all_others() -> None:
    adapter = Adapter(name="one", learning_rate=2e-4)
    assert space_of(adapter, None).first_rates == [2e-4, 6e-4, 1.8e-3, 6.67e-5, 5e-3]
    assert space_of(adapter, ["rank"]).first_rates == []
    alone = space_of(adapter, None).draw(study().ask(), None)
    assert set(alone) == {RATE}
    later = [space_of(adapter, None).draw(study().ask(), 1e-3) for _ in range(20)]
    assert all(2e-4 <= each[RATE] <= 3e-3 and each["rank"] in {*RANKS, 16} for each in later)


@pytest.mark.parametrize(
    ("searched", "message"),
    [(["rang"], "'rang' is not searched"), (["rank", "rank"], "named twice"), ([], "nothing is to be searched")],
)
def test_what_cannot_be_searched_is_told(searched: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        space_of(Adapter(name="one"), searched)


def test_ranks_of_single_layers_are_kept() -> None:
    adapter = Adapter(name="one", rank_pattern={"down_proj": 2})
    assert "rank" not in space_of(adapter, None).searched
    with pytest.raises(UsageError, match="rank_pattern"):
        space_of(adapter, ["rank"])


def test_virtual_tokens_have_a_rate_to_search_and_nothing_of_layers() -> None:
    adapter = Adapter(name="one", method="prompt-tuning")
    space = space_of(adapter, None)
    assert space.searched == (RATE,)
    assert space.first_rates[0] == adapter.highest_rate == 0.1
    assert max(space.first_rates) > 0.2
    assert space_of(adapter, ["epochs", RATE]).searched == ("epochs", RATE)
    with pytest.raises(UsageError, match="trains no layer, and has no rank"):
        space_of(adapter, [RATE, "rank"])
