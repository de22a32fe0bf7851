"""Logits and loss only at the places where something is learnt, in pieces that need little memory.

A row's prompt has no labels.  What a language model's head computes there is thrown away by the loss, and with a large
vocabulary it is most of a step's memory.
"""

from __future__ import annotations

import copy
import functools
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint
from transformers.modeling_outputs import CausalLMOutputWithPast

from edgekit.encoding.encoder import IGNORED

MAX_LOGITS = 1 << 24  # computed at a time: 64 MB of float32

LossOf = Callable[[Tensor, Tensor], Tensor]


def language_model(model: Any) -> Any:
    """The causal language model inside ``model``, which PEFT may have wrapped."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def learn_answers_only(model: Any, *, label_smoothing: float = 0.0) -> bool:
    """Change ``model`` to return the loss alone where it is given labels; without labels it does what it did.

    The loss is that of transformers: the mean over the labels, or their sum over ``num_items_in_batch``.  The model's
    own code computes the logits, so that caps and scales of an architecture stay.

    Args:
        model: a causal language model of transformers, or PEFT's around one.
        label_smoothing: the share of a label's probability that is spread over the vocabulary in training; evaluations
            have the plain loss, so that they compare.

    Returns:
        False where the model doesn't call one backbone with one head behind it; it is unchanged then.
    """
    causal = language_model(model)
    backbone = getattr(causal, causal.base_model_prefix, None)
    if not isinstance(backbone, nn.Module) or causal.get_output_embeddings() is None or not _calls(causal, backbone):
        return False
    whole = causal.forward

    @functools.wraps(whole)
    def forward(_: Any, *args: Any, **kwargs: Any) -> Any:
        labels = kwargs.get("labels")
        if labels is None or args:
            return whole(*args, **kwargs)
        kwargs.pop("labels")
        count = kwargs.pop("num_items_in_batch", None)
        outputs = backbone(**{**kwargs, "use_cache": False})
        smoothing = label_smoothing if causal.training else 0.0
        chosen, targets = _learnt(outputs.last_hidden_state, labels)

        def loss_of(hidden: Tensor, wanted: Tensor) -> Tensor:
            with _instead(backbone, lambda *_, **__: _with_hidden(outputs, hidden[None])):
                logits = whole(**{**kwargs, "use_cache": False}).logits[0]
            loss: Tensor = _CrossEntropy.apply(logits, wanted.to(logits.device), smoothing)  # type: ignore[no-untyped-call]
            return loss

        total = _summed(chosen, targets, loss_of, causal)
        return CausalLMOutputWithPast(loss=total / (targets.numel() if count is None else count))

    causal.forward = types.MethodType(forward, causal)
    return True


class _Reached(Exception):
    """The backbone was called."""


def _calls(causal: Any, backbone: nn.Module) -> bool:
    """Whether the model's forward calls ``backbone`` itself, rather than parts of it (as OPT does)."""

    def reached(*_: Any, **__: Any) -> None:
        raise _Reached

    try:
        with _instead(backbone, reached):
            causal(input_ids=torch.zeros(1, 1, dtype=torch.long, device=next(causal.parameters()).device))
    except _Reached:
        return True
    return False


def _learnt(hidden: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Hidden states [places, width] that say a label, and these labels [places]."""
    following = torch.full_like(labels, IGNORED)
    following[:, :-1] = labels[:, 1:]
    following = following.flatten().to(hidden.device)
    places = (following != IGNORED).nonzero().flatten()
    return hidden.reshape(-1, hidden.shape[-1]).index_select(0, places), following[places]


@contextmanager
def _instead(backbone: Any, answer: Callable[..., Any]) -> Iterator[None]:
    """Let ``backbone`` compute ``answer`` for now."""
    own = backbone.__dict__.get("forward")
    backbone.forward = answer
    try:
        yield
    finally:
        if own is None:
            del backbone.forward
        else:
            backbone.forward = own


def _with_hidden(outputs: Any, hidden: Tensor) -> Any:
    """A backbone's outputs, with other hidden states."""
    answer = copy.copy(outputs)
    answer.last_hidden_state = answer["last_hidden_state"] = hidden
    return answer


def _summed(hidden: Tensor, targets: Tensor, loss_of: LossOf, causal: Any) -> Tensor:
    """The sum of the losses of all places, so many logits at a time as MAX_LOGITS allows."""
    size = max(1, MAX_LOGITS // int(causal.get_output_embeddings().out_features))
    pieces = [slice(start, start + size) for start in range(0, max(1, len(targets)), size)]
    if len(pieces) == 1 or not torch.is_grad_enabled():
        return torch.stack([loss_of(hidden[piece], targets[piece]) for piece in pieces]).sum()
    if any(parameter.requires_grad for parameter in causal.get_output_embeddings().parameters()):
        losses = [checkpoint(loss_of, hidden[piece], targets[piece], use_reentrant=False) for piece in pieces]
        return torch.stack(losses).sum()
    total: Tensor = _InPieces.apply(hidden, targets, loss_of, pieces)  # type: ignore[no-untyped-call]
    return total


class _InPieces(torch.autograd.Function):
    """The sum of ``loss_of`` over pieces.  A frozen head's gradient is known at once, so no logits are kept."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, targets: Tensor, loss_of: LossOf, pieces: list[slice]) -> Tensor:
        gradient = torch.empty_like(hidden)
        total = torch.zeros((), device=hidden.device)
        for piece in pieces:
            with torch.enable_grad():
                part = hidden[piece].detach().requires_grad_()
                loss = loss_of(part, targets[piece])
                (gradient[piece],) = torch.autograd.grad(loss, part)
            total += loss.detach()
        ctx.save_for_backward(gradient)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        (gradient,) = ctx.saved_tensors
        return (gradient * grad).to(gradient.dtype), None, None, None


class _CrossEntropy(torch.autograd.Function):
    """torch's, summed over places: in float32, and with one copy of the logits instead of three."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor, smoothing: float) -> Tensor:
        scores = torch.log_softmax(logits, dim=-1, dtype=torch.float32)
        loss = -(1 - smoothing) * scores.gather(1, targets[:, None]).sum()
        if smoothing:
            loss -= smoothing * scores.mean(dim=-1).sum()
        if ctx.needs_input_grad[0]:
            gradient = scores.exp_()
            if smoothing:
                gradient -= smoothing / logits.shape[-1]
            gradient.scatter_add_(1, targets[:, None], gradient.new_full((len(targets), 1), smoothing - 1))
            ctx.save_for_backward(gradient.to(logits.dtype))
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient.mul_(grad), None, None
