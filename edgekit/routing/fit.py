"""Heads from training rows: for each adapter a logistic regression, its rows against all others and everyday texts.

Thresholds and temperatures come from folds: a head judges rows, and whole kinds of everyday texts, that it was not
fitted on.  Then it is fitted on all of them.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize, minimize_scalar
from scipy.special import expit

from edgekit.routing.everyday import EVERYDAY, texts_of
from edgekit_runtime.formats.route import Head

Matrix = NDArray[np.float32]
MOST_ROWS = 1000  # of an adapter
FOLDS = 3
PENALTY = 1e-6  # on squares of weights, beside a mean loss
EVERYDAY_SHARE = 0.6  # of the weight of all rows; each kind and each adapter weighs as much as the next
STRICTEST = 0.5  # log-odds that are asked for at most
OWN_LOSS = 0.01  # share of an adapter's rows that may fall below its threshold
COOLEST, HOTTEST = 1.0, 10.0  # temperatures: rows on devices are never easier than those that were held out
STEPS = 200


def fit_heads(texts: Mapping[str, Sequence[str]], features: Callable[[str], Matrix], seed: int = 0) -> dict[str, Head]:
    """The head of each adapter.

    Args:
        texts: what users say in the training rows of each.
        features: of a text, as devices compute them.
        seed: same seed, same heads.
    """
    drawn = random.Random(seed)
    rows = {}
    for name, given in texts.items():
        once = list(dict.fromkeys(given))
        rows[name] = np.stack([features(text) for text in drawn.sample(once, min(len(once), MOST_ROWS))])
    kinds = [np.stack([features(text) for text in each]) for each in texts_of(EVERYDAY).values()]
    groups = [*rows.values(), *kinds]
    own = len(rows)
    chances = np.random.default_rng(seed)
    folds = [chances.permutation(len(group)) % FOLDS for group in rows.values()]
    folds += [np.full(len(group), number % FOLDS) for number, group in enumerate(kinds)]
    odds = [np.zeros((len(group), own)) for group in groups]
    for fold in range(FOLDS):
        kept = [group[places != fold] for group, places in zip(groups, folds, strict=True)]
        weights, biases = _fit(kept, own)
        for found, group, places in zip(odds, groups, folds, strict=True):
            held = places == fold
            found[held] = group[held] @ weights + biases
    weights, biases = _fit(groups, own)
    heads = {}
    for number, name in enumerate(rows):
        mine = odds[number][:, number]
        others = np.concatenate([each[:, number] for place, each in enumerate(odds) if place != number])
        threshold = min(STRICTEST, float(np.quantile(mine, OWN_LOSS)))
        temperature = _temperature(mine - threshold, others - threshold)
        scaled = (weights[:, number] / temperature).astype(np.float16).astype(np.float32)  # as devices read it
        heads[name] = Head(scaled, float((biases[number] - threshold) / temperature))
    return heads


def _fit(groups: Sequence[Matrix], own: int) -> tuple[Matrix, Matrix]:
    """Weights [width, own] and biases [own]; the first ``own`` groups are adapters, the others everyday kinds."""
    there = [(number, group) for number, group in enumerate(groups) if len(group)]
    matrix = np.concatenate([group for _, group in there])
    truth = np.concatenate([np.full(len(group), number) for number, group in there])
    kinds = max(sum(number >= own for number, _ in there), 1)
    shares = [(1 - EVERYDAY_SHARE) / own if number < own else EVERYDAY_SHARE / kinds for number, _ in there]
    weight = np.concatenate(
        [np.full(len(group), share / len(group)) for share, (_, group) in zip(shares, there, strict=True)]
    )
    positive = (truth[:, None] == np.arange(own)).astype(np.float32)
    balanced = weight[:, None] * np.where(
        positive, 0.5 / np.maximum(weight @ positive, 1e-9), 0.5 / np.maximum(weight @ (1 - positive), 1e-9)
    )
    balanced = balanced.astype(np.float32)
    width = matrix.shape[1]

    def loss(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        values = flat.reshape(width + 1, own).astype(np.float32)
        odds = matrix @ values[:-1] + values[-1]
        slope = balanced * (expit(odds) - positive)
        total = float((balanced * (np.logaddexp(0, odds) - positive * odds)).sum() + PENALTY * (values[:-1] ** 2).sum())
        gradient = np.concatenate([matrix.T @ slope + 2 * PENALTY * values[:-1], slope.sum(axis=0)[None]])
        return total, gradient.ravel().astype(np.float64)

    found = minimize(loss, np.zeros((width + 1) * own), jac=True, method="L-BFGS-B", options={"maxiter": STEPS})
    values = found.x.reshape(width + 1, own).astype(np.float32)
    return values[:-1], values[-1]


def _temperature(mine: NDArray[np.float64], others: NDArray[np.float64]) -> float:
    """The one under which what was held out is likeliest (Guo et al., arXiv:1706.04599); both sides weigh alike."""

    def loss(log_temperature: float) -> float:
        scale = np.exp(log_temperature)
        return float(np.logaddexp(0, -mine / scale).mean() + np.logaddexp(0, others / scale).mean())

    bounds = (np.log(COOLEST), np.log(HOTTEST))
    return float(np.exp(minimize_scalar(loss, bounds=bounds, method="bounded").x))
