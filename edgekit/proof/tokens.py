"""Token by token: the distributions of exported files against those of torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax

from edgekit.data import Row
from edgekit.evaluation.artifact import DEVICE, Artifact
from edgekit.evaluation.finite import not_finite
from edgekit.proof.alive import Change, Logprobs, Reach, likeliest_kl, mean_kl, reach, token_kl
from edgekit.proof.reference import Reference
from edgekit_runtime.engines import Prompt
from edgekit_runtime.formats.manifest import BASE


@dataclass(frozen=True)
class Tokens:
    """Token by token, teacher-forced on the reference answers of a few rows.

    Attributes:
        kl: per row, KL(torch || device) of each answer token, nats.
        same: per row, whether both think the same token likeliest.
        torch_nll: mean negative log-likelihood of the reference answers, nats per token.
        device_nll: the same on the device.
        change: how far the adapter moves its base on the device; None when that was not asked for.
        reach: how much of its change of torch's base arrives there; likewise.
    """

    kl: Sequence[NDArray[Any]]
    same: Sequence[NDArray[Any]]
    torch_nll: float
    device_nll: float
    change: Change | None = None
    reach: Reach | None = None

    @property
    def mean_kl(self) -> float:
        """Over all tokens; NaN when one of them is, or there are none."""
        return mean_kl(self.kl)


def compare_tokens(artifact: Artifact, reference: Reference, *, with_base: bool = False) -> Tokens:
    """The distributions of the exported files against those of the reference.

    Args:
        artifact: the exported files.
        reference: what torch says.
        with_base: ask for the adapter's change too.  That of a merged one is the change of torch's base, on the
            likeliest tokens: its own base is gone.

    Raises:
        InputError: the engine computes what are no numbers.
    """
    runtime = artifact.runtime
    name = name_in(artifact, reference)
    kl: list[NDArray[Any]] = []
    same: list[NDArray[Any]] = []
    changes: list[_RowChange] = []
    torch_nll = device_nll = 0.0
    kept = zip(reference.forced, reference.logprobs, reference.likeliest, strict=True)
    for row, (forced, expected, likeliest) in zip(reference.rows, kept, strict=False):
        prompt = runtime.encode(row.messages, name, row.images, row.tools)
        found = _device_logprobs(artifact, row, prompt, forced, name)
        wanted = expected.astype(np.float32)
        kl.append(token_kl(wanted, found))
        same.append(wanted.argmax(-1) == found.argmax(-1))
        at = (np.arange(len(forced)), forced)
        torch_nll -= float(wanted[at].sum())
        device_nll -= float(found[at].sum())
        if with_base and name == BASE:
            seen = likeliest.at(found)
            changes.append(_RowChange(likeliest_kl(seen, likeliest.bare), seen, likeliest.bare))
        elif with_base:
            bare = _device_logprobs(artifact, row, prompt, forced, BASE)
            largest = float(np.abs(found - bare).max())
            changes.append(_RowChange(token_kl(found, bare), likeliest.at(found), likeliest.at(bare), largest))
    count = sum(map(len, kl))
    tokens = Tokens(kl, same, torch_nll / count, device_nll / count)
    return replace(tokens, **_change(reference, changes)) if with_base else tokens


@dataclass(frozen=True)
class _RowChange:
    """KL of each token, what is known with and without the adapter, and the largest difference where all are known."""

    kl: NDArray[Any]
    adapted: Logprobs
    bare: Logprobs
    largest: float | None = None


def _change(reference: Reference, rows: Sequence[_RowChange]) -> dict[str, Any]:
    largest = [float(np.abs(row.adapted - row.bare).max()) if row.largest is None else row.largest for row in rows]
    return {
        "change": Change.of([row.kl for row in rows], largest),
        "reach": reach(reference.likeliest, [row.adapted for row in rows], [row.bare for row in rows]),
    }


def _device_logprobs(artifact: Artifact, row: Row, prompt: Prompt, forced: Sequence[int], name: str) -> Logprobs:
    """Of the reference answer's tokens; all logits, those of the prompt too, have to be numbers."""
    logits = artifact.runtime.logits(prompt.followed_by(forced), name)
    if not np.isfinite(logits).all():
        raise not_finite(DEVICE, artifact.owner(name), row)
    result: Logprobs = log_softmax(logits[len(prompt.tokens) - 1 : -1], axis=-1)
    return result


def name_in(artifact: Artifact, reference: Reference) -> str:
    """What to ask the runtime for: the adapter, or the base that it was merged into."""
    name = reference.adapter.name
    return BASE if name in artifact.runtime.manifest.base.merged else name
