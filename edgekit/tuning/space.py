"""Which settings are searched, and among which values.

The learning rate comes first, alone, as most depends on it.  Then the others are searched together with rates near the
best one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import optuna

from edgekit.project import P_TUNING, PROMPT_TUNING, TARGET_WORDS, VIRTUAL, Adapter
from edgekit_runtime.errors import UsageError
from edgekit_runtime.hints import did_you_mean

RATE = "learning_rate"
ALPHA = "alpha / rank"  # what is drawn; a rank keeps its scale when another one is tried
SEARCHABLE = (RATE, "rank", "targets", "alpha", "dropout", "epochs")
DEFAULT_SEARCH = SEARCHABLE[:-1]

RATES = (2e-5, 5e-3)
RATES_OF = {PROMPT_TUNING: (5e-3, 1.0), P_TUNING: (1e-3, 0.1)}  # of virtual tokens
OF_LAYERS = ("rank", "targets", "alpha", "dropout")
FIRST_RATES = (1, 3, 9, 1 / 3, 27)  # times the adapter's own
NEAR = 3.0  # the factor around the best rate within which it is searched together with the others
RANKS = (4, 8, 16, 32, 64)
SCALES = (0.5, 1.0, 2.0, 4.0)
DROPOUTS = (0.0, 0.05, 0.1)
PASSES = (0.5, 1.0, 2.0)  # times the adapter's own epochs, or steps


@dataclass(frozen=True)
class Space:
    """The settings to search, for one adapter."""

    adapter: Adapter
    searched: tuple[str, ...]

    @property
    def rates(self) -> tuple[float, float]:
        """The lowest and the highest learning rate."""
        return RATES_OF.get(self.adapter.method, RATES)

    @property
    def first_rates(self) -> list[float]:
        """Learning rates to try before anything else is changed, the adapter's own first."""
        if RATE not in self.searched:
            return []
        own = self.adapter.highest_rate
        rates = [own, *(min(max(own * factor, self.rates[0]), self.rates[1]) for factor in FIRST_RATES[1:])]
        return list(dict.fromkeys(float(f"{rate:.3g}") for rate in rates))

    def own(self) -> dict[str, Any]:
        """What a trial draws that has the adapter's own settings."""
        values: dict[str, Any] = {
            RATE: self.adapter.highest_rate,
            "rank": self.adapter.rank,
            "targets": self.adapter.targets,
            ALPHA: self.adapter.lora_alpha / self.adapter.rank,
            "dropout": self.adapter.dropout,
            "epochs": 1.0,
        }
        return {name: values[name] for name in self._drawn()}

    def draw(self, trial: optuna.Trial, best_rate: float | None) -> dict[str, Any]:
        """Settings for a trial, as ``edgekit train --set`` takes them.

        Args:
            trial: draws them.
            best_rate: the best learning rate that is known, near which is searched; None while it alone is.
        """
        drawn: dict[str, Any] = {}
        if RATE in self.searched:
            low, high = self.rates if best_rate is None else (best_rate / NEAR, best_rate * NEAR)
            low, high = min(low, self.adapter.highest_rate), max(high, self.adapter.highest_rate)
            drawn[RATE] = float(f"{trial.suggest_float(RATE, low, min(high, 1.0), log=True):.3g}")
            if best_rate is None:
                return drawn
        own = self.own()
        for name, choices in self._choices().items():
            drawn[name] = trial.suggest_categorical(name, sorted({*choices, own[name]}))
        return self._settings(drawn)

    def _drawn(self) -> list[str]:
        named = {"alpha": ALPHA}
        wanted = [named.get(name, name) for name in self.searched]
        known_targets = self.adapter.targets in TARGET_WORDS  # a list or pattern of one's own is kept
        return [name for name in wanted if name != "targets" or known_targets]

    def _choices(self) -> dict[str, Sequence[Any]]:
        every: dict[str, Sequence[Any]] = {
            "rank": RANKS,
            "targets": TARGET_WORDS,
            ALPHA: SCALES,
            "dropout": DROPOUTS,
            "epochs": PASSES,
        }
        return {name: every[name] for name in self._drawn() if name != RATE}

    def _settings(self, drawn: Mapping[str, Any]) -> dict[str, Any]:
        settings = {name: value for name, value in drawn.items() if name not in (ALPHA, "epochs")}
        rank = int(settings.get("rank", self.adapter.rank))
        scale = drawn.get(ALPHA, self.adapter.lora_alpha / self.adapter.rank)
        if "rank" in settings or ALPHA in drawn:
            settings["alpha"] = max(1, round(scale * rank))
        if "epochs" in drawn:
            if self.adapter.max_steps is not None:
                settings["max_steps"] = max(1, round(drawn["epochs"] * self.adapter.max_steps))
            else:
                settings["epochs"] = drawn["epochs"] * self.adapter.epochs
        return settings


def space_of(adapter: Adapter, searched: Sequence[str] | None) -> Space:
    """The space of an adapter; ``searched`` are names of :data:`SEARCHABLE`, the usual ones when None.

    Raises:
        UsageError: an unknown name, one twice, or none.
    """
    names = tuple(DEFAULT_SEARCH if searched is None else searched)
    for name in names:
        if name not in SEARCHABLE:
            raise UsageError(f"{name!r} is not searched", did_you_mean(name, SEARCHABLE))
        if names.count(name) > 1:
            raise UsageError(f"{name} is named twice", "name it once")
    if adapter.method in VIRTUAL:
        kept = tuple(name for name in names if name not in OF_LAYERS)
        if searched is not None and kept != names:
            other = next(name for name in names if name in OF_LAYERS)
            raise UsageError(
                f"method: {adapter.method} trains no layer, and has no {other}", f"search {RATE} or epochs"
            )
        names = kept
    if not names:
        raise UsageError("nothing is to be searched", f"name some of {', '.join(SEARCHABLE)}")
    if adapter.rank_pattern or adapter.alpha_pattern:
        kept = tuple(name for name in names if name not in ("rank", "alpha"))
        if searched is not None and kept != names:
            raise UsageError(
                "rank and alpha can't be searched beside rank_pattern or alpha_pattern", "search other settings"
            )
        names = kept
    return Space(adapter, names)
