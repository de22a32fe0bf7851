"""Exported files against the reference, row by row."""

from __future__ import annotations

import json
import operator
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from edgekit.data import Row
from edgekit.evaluation.answers import FieldPath
from edgekit.evaluation.artifact import Artifact
from edgekit.evaluation.scoring import Score, bootstrap_interval, points_between, score_rows
from edgekit.proof.pairs import mcnemar
from edgekit.proof.reference import Reference
from edgekit.proof.tokens import Tokens, compare_tokens, name_in
from edgekit_runtime.files.strict_json import without_nan
from edgekit_runtime.formats.manifest import BASE
from edgekit_runtime.prompts.chat import Message, text_of


@dataclass(frozen=True)
class RowProof:
    """One row: where it stands, what was expected, all answers, their scores (0-1), and the mean KL of its tokens.

    ``prompt`` is what was asked, without the adapter's system prompt.
    """

    where: str
    reference: str
    torch: str
    device: str
    torch_score: float
    device_score: float
    kl: float | None
    base: str = ""
    base_score: float = 0.0
    prompt: str = ""


@dataclass(frozen=True)
class Proof:
    """One adapter's exported files against its trained model.

    Attributes:
        adapter: its name.
        runs_on: precision of the torch base, that of training.
        quantization: of the exported base.
        merged: whether the adapter is folded into it.
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
        base_score: of the bare base in torch, on the same rows, 0-100.
        base_exact: its share of exactly right answers, 0-100.
        gain: device_score - base_score, points.
        gain_interval: 95 % interval of the gain, paired bootstrap over rows.
        torch_change: KL(adapter || base) in torch, nats per token of the reference answers.
        torch_largest: the largest difference that the adapter makes to a token's log-probability there.
        device_change: as ``torch_change``, on the device; merged: KL of the device's and torch's base, at least.
        device_largest: as ``torch_largest``, likewise.
        reach: share of the adapter's change of torch's base that arrives on the device; 1 is all.
        reach_interval: its 95 % interval, bootstrap over tokens.
        token_kl: KL of each token.
        rows: row by row.
        free_text: fields of JSON answers that are scored as text.
        calls: where rows call tools, what of it is right: of "base", "torch" and "device" the fields of
            :class:`~edgekit.evaluation.calls.CallShares`, 0-100; empty where none does.
    """

    adapter: str
    runs_on: str
    quantization: str
    merged: bool
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
    base_score: float
    base_exact: float
    gain: float
    gain_interval: tuple[float, float]
    torch_change: float
    torch_largest: float
    device_change: float
    device_largest: float
    reach: float
    reach_interval: tuple[float, float]
    token_kl: tuple[float, ...]
    rows: tuple[RowProof, ...]
    free_text: tuple[FieldPath, ...] = ()
    calls: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)

    def summary(self) -> dict[str, Any]:
        """The figures without rows and tokens, rounded: what a manifest carries; null where there is no number."""
        left_out = ("rows", "token_kl", "adapter", "free_text", *(() if self.calls else ("calls",)))
        figures = without_nan({key: value for key, value in vars(self).items() if key not in left_out})
        return {key: _rounded(value) for key, value in figures.items()} | {"rows": len(self.rows)}

    @property
    def gains(self) -> list[float]:
        """Of each row, device over base, points."""
        return [100 * (row.device_score - row.base_score) for row in self.rows]

    @property
    def losses(self) -> list[float]:
        """Of each row, torch over device, points."""
        return [100 * (row.torch_score - row.device_score) for row in self.rows]


def _rounded(value: Any) -> Any:
    if isinstance(value, list):
        return [_rounded(each) for each in value]
    if isinstance(value, dict):
        return {key: _rounded(each) for key, each in value.items()}
    return round(value, 5) if isinstance(value, float) else value


def prove(artifact: Artifact, reference: Reference) -> Proof:
    """Ask the exported files what the trained model was asked.

    The adapter is the bundle's file of that name, or the base that it was merged into.

    Raises:
        InputError: the device's engine computes what are no numbers.
    """
    runtime, adapter, name = artifact.runtime, reference.adapter, name_in(artifact, reference)
    prompts = [runtime.encode(row.messages, name, row.images, row.tools).tokens for row in reference.rows]
    tokens = compare_tokens(artifact, reference, with_base=True)  # first: it finds what are no numbers
    answers = artifact.answers(reference.rows, adapter.system, reference.max_tokens, adapter=name)
    return _proof(reference, runtime.manifest.base.quantization, name == BASE, prompts, answers, tokens)


def _proof(
    reference: Reference,
    quantization: str,
    merged: bool,
    prompts: Sequence[list[int]],
    answers: Sequence[str],
    tokens: Tokens,
) -> Proof:
    wanted = [row.answer for row in reference.rows]
    said = (reference.answers, answers, reference.base_answers)
    torch, device, base = (score_rows(reference.rows, given, reference.yardstick) for given in said)
    losses, gains = points_between(torch, device), points_between(device, base)
    exact = [
        [
            score_rows([row], [each], reference.yardstick).exact == 1
            for row, each in zip(reference.rows, given, strict=True)
        ]
        for given in (reference.answers, answers)
    ]
    kl = np.concatenate(tokens.kl)
    row_kl = [*(float(each.mean()) for each in tokens.kl), *[None] * (len(wanted) - len(tokens.kl))]
    compared = zip(
        *(reference.answers, answers, torch.per_row, device.per_row, row_kl),
        *(reference.base_answers, base.per_row, map(prompt_text, reference.rows)),
        strict=True,
    )
    asked = zip(reference.places, wanted, compared, strict=True)
    rows = tuple(RowProof(where, want, *rest) for where, want, rest in asked)
    assert tokens.change is not None  # asked for by whoever proves
    assert tokens.reach is not None
    return Proof(
        adapter=reference.adapter.name,
        runs_on=reference.runs_on,
        quantization=quantization,
        merged=merged,
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
        base_score=100 * base.value,
        base_exact=100 * base.exact,
        gain=statistics.fmean(gains),
        gain_interval=bootstrap_interval(gains),
        torch_change=reference.change.kl,
        torch_largest=reference.change.largest,
        device_change=tokens.change.kl,
        device_largest=tokens.change.largest,
        reach=tokens.reach.value,
        reach_interval=tokens.reach.interval,
        token_kl=tuple(float(value) for value in kl),
        rows=rows,
        free_text=tuple(sorted(reference.yardstick.free_text)),
        calls=_call_figures({"base": base, "torch": torch, "device": device}),
    )


def _call_figures(scores: Mapping[str, Score]) -> dict[str, dict[str, float | None]]:
    """The shares of right calls in percent, of each side."""
    return {
        side: {name: None if share is None else 100 * share for name, share in asdict(each.calls).items()}
        for side, each in scores.items()
        if each.calls is not None
    }


def prompt_text(row: Row) -> str:
    """What a row asks, for a reader: one question as it stands, a conversation turn by turn."""
    said = [(message["role"], text_of(message) or _calls(message)) for message in row.messages]
    texts = [said[0][1]] if len(said) == 1 else [f"{role}: {text}" for role, text in said]
    texts += [f"[image: {image.name}]" for image in row.images]
    names = [str((tool.get("function") or tool).get("name", "")) for tool in row.tools]
    return "\n\n".join([*texts, *([f"[tools: {', '.join(names)}]"] if names else [])])


def _calls(message: Message) -> str:
    """What a message calls instead of saying anything."""
    return json.dumps(message["tool_calls"], ensure_ascii=False) if message.get("tool_calls") else ""
