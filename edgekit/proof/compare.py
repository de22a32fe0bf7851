"""Exported files against the reference, row by row and token by token."""

from __future__ import annotations

import operator
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.evaluation.artifact import Artifact
from edgekit.proof.reference import Reference
from edgekit.scoring import bootstrap_interval, score
from edgekit_runtime.runtime import BASE


@dataclass(frozen=True)
class RowProof:
    """One row: where it stands, what was asked for, both answers, their scores (0-1), and the mean KL of its tokens."""

    where: str
    reference: str
    torch: str
    device: str
    torch_score: float
    device_score: float
    kl: float | None


@dataclass(frozen=True)
class Proof:
    """One adapter's exported files against its trained model.

    Attributes:
        adapter: its name.
        runs_on: precision of the torch base, that of training.
        quantization: of the exported base.
        metric: what the task is scored by.
        torch_score: 0-100.
        device_score: 0-100.
        loss: torch_score - device_score, points.
        loss_interval: 95 % interval of the loss, paired bootstrap over rows.
        torch_exact: share of answers that are exactly right, 0-100.
        device_exact: the same on the device.
        mcnemar_p: two-sided exact McNemar test on exactly right answers.
        other_prompts: rows whose prompt has other token ids on the device than in training.
        tokens: answer tokens compared.
        mean_kl: KL(torch || device), nats per token, teacher-forced on the reference answers.
        p95_kl: the value that 95 % of the tokens do not exceed.
        top1: share of those tokens at which both think the same token likeliest, 0-100.
        torch_perplexity: of the reference answers.
        device_perplexity: the same on the device.
        token_kl: KL of each token.
        rows: row by row.
    """

    adapter: str
    runs_on: str
    quantization: str
    metric: str
    torch_score: float
    device_score: float
    loss: float
    loss_interval: tuple[float, float]
    torch_exact: float
    device_exact: float
    mcnemar_p: float
    other_prompts: int
    tokens: int
    mean_kl: float
    p95_kl: float
    top1: float
    torch_perplexity: float
    device_perplexity: float
    token_kl: tuple[float, ...]
    rows: tuple[RowProof, ...]

    def summary(self) -> dict[str, Any]:
        """The figures without rows and tokens, rounded: what a manifest carries."""
        left_out = ("rows", "token_kl", "adapter")
        figures = {key: value for key, value in vars(self).items() if key not in left_out}
        rounded = {key: round(value, 5) if isinstance(value, float) else value for key, value in figures.items()}
        return rounded | {"rows": len(self.rows), "loss_interval": [round(value, 3) for value in self.loss_interval]}


def prove(artifact: Artifact, reference: Reference) -> Proof:
    """Ask the exported files what the trained model was asked.

    The adapter is the bundle's file of that name, or the base that it was merged into.
    """
    runtime, adapter, name = artifact.runtime, reference.adapter, _name_in(artifact, reference)
    prompts = [runtime.encode(row.messages, name, row.images, row.tools).tokens for row in reference.rows]
    answers = artifact.answers(reference.rows, adapter.system, reference.max_tokens, adapter=name)
    return _proof(reference, runtime.manifest.base.quantization, prompts, answers, compare_tokens(artifact, reference))


@dataclass(frozen=True)
class Tokens:
    """Token by token, teacher-forced on the reference answers of a few rows.

    Attributes:
        kl: per row, KL(torch || device) of each answer token, nats.
        same: per row, whether both think the same token likeliest.
        torch_nll: mean negative log-likelihood of the reference answers, nats per token.
        device_nll: the same on the device.
    """

    kl: Sequence[NDArray[Any]]
    same: Sequence[NDArray[Any]]
    torch_nll: float
    device_nll: float

    @property
    def mean_kl(self) -> float:
        """Over all tokens; rounding can take it a hair below zero."""
        return max(0.0, float(np.concatenate(self.kl).mean()))


def compare_tokens(artifact: Artifact, reference: Reference) -> Tokens:
    """The distributions of the exported files against those of the reference."""
    runtime = artifact.runtime
    name = _name_in(artifact, reference)
    kl: list[NDArray[Any]] = []
    same: list[NDArray[Any]] = []
    torch_nll = device_nll = 0.0
    for row, forced, expected in zip(reference.rows, reference.forced, reference.logprobs, strict=False):
        prompt = runtime.encode(row.messages, name, row.images, row.tools)
        found = _log_softmax(runtime.logits(prompt.followed_by(forced), name)[len(prompt.tokens) - 1 : -1])
        wanted = expected.astype(np.float32)
        kl.append((np.exp(wanted) * (wanted - found)).sum(-1))
        same.append(wanted.argmax(-1) == found.argmax(-1))
        at = (np.arange(len(forced)), forced)
        torch_nll -= float(wanted[at].sum())
        device_nll -= float(found[at].sum())
    count = sum(map(len, kl))
    return Tokens(kl, same, torch_nll / count, device_nll / count)


def _name_in(artifact: Artifact, reference: Reference) -> str:
    """What to ask the runtime for: the adapter, or the base that it was merged into."""
    name = reference.adapter.name
    return BASE if name in artifact.runtime.manifest.base.merged else name


def _proof(
    reference: Reference,
    quantization: str,
    prompts: Sequence[list[int]],
    answers: Sequence[str],
    tokens: Tokens,
) -> Proof:
    wanted = [row.answer for row in reference.rows]
    torch, device = score(wanted, reference.answers), score(wanted, answers)
    losses = [100 * (one - other) for one, other in zip(torch.per_row, device.per_row, strict=True)]
    exact = [
        [score([want], [said]).exact == 1 for want, said in zip(wanted, given, strict=True)]
        for given in (reference.answers, answers)
    ]
    kl = np.concatenate(tokens.kl)
    row_kl = [*(float(each.mean()) for each in tokens.kl), *[None] * (len(wanted) - len(tokens.kl))]
    compared = zip(reference.answers, answers, torch.per_row, device.per_row, row_kl, strict=True)
    rows = tuple(RowProof(row.where, row.answer, *rest) for row, rest in zip(reference.rows, compared, strict=True))
    return Proof(
        adapter=reference.adapter.name,
        runs_on=reference.runs_on,
        quantization=quantization,
        metric=torch.metric,
        torch_score=100 * torch.value,
        device_score=100 * device.value,
        loss=statistics.fmean(losses),
        loss_interval=bootstrap_interval(losses),
        torch_exact=100 * torch.exact,
        device_exact=100 * device.exact,
        mcnemar_p=mcnemar(*exact),
        other_prompts=sum(map(operator.ne, prompts, reference.prompts)),
        tokens=len(kl),
        mean_kl=tokens.mean_kl,
        p95_kl=float(np.quantile(kl, 0.95)),
        top1=100 * float(np.concatenate(tokens.same).mean()),
        torch_perplexity=float(np.exp(tokens.torch_nll)),
        device_perplexity=float(np.exp(tokens.device_nll)),
        token_kl=tuple(float(value) for value in kl),
        rows=rows,
    )


def mcnemar(one: Sequence[bool], other: Sequence[bool]) -> float:
    """Two-sided exact McNemar test (McNemar 1947): how likely such a difference is if both are right equally often."""
    from scipy.stats import binomtest

    pairs = list(zip(one, other, strict=True))
    lost, won = pairs.count((True, False)), pairs.count((False, True))
    return float(binomtest(lost, lost + won).pvalue) if lost + won else 1.0


def _log_softmax(logits: NDArray[Any]) -> NDArray[Any]:
    shifted = logits - logits.max(-1, keepdims=True)
    result: NDArray[Any] = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    return result
