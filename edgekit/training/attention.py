"""Causal attention of rows that stand in one packed sequence, behind the start that they share."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

MAX_SCORES = 1 << 22  # computed at a time: 16 MB of float32


@dataclass(frozen=True)
class Layout:
    """Where the tokens of a packed sequence belong.

    Attributes:
        shared: tokens at its start that all rows have in common.
        rows, longest: number of rows, and tokens of the longest one behind the shared ones.
        places: of each token behind the shared ones, its place in [rows * longest].
    """

    shared: int
    rows: int
    longest: int
    places: Tensor

    @classmethod
    def of(cls, filled: Tensor, tokens: int) -> Layout:
        """Of a batch's ``filled`` [rows, longest], True where a row has a token, and the sequence's length."""
        places = filled.flatten().nonzero().flatten()
        rows, longest = filled.shape
        return cls(tokens - len(places), rows, longest, places)

    def spread(self, packed: Tensor) -> Tensor:
        """[tokens of rows, …] -> [rows, longest, …], zero where a row is over."""
        flat = packed.new_zeros(self.rows * self.longest, *packed.shape[1:])
        return flat.index_copy(0, self.places, packed).view(self.rows, self.longest, *packed.shape[1:])

    def gather(self, padded: Tensor) -> Tensor:
        """The inverse of :meth:`spread`."""
        return padded.flatten(0, 1).index_select(0, self.places)

    def causal(self) -> Tensor:
        """What a token of a row sees of the row: bool [shared + longest, shared + longest]."""
        length = self.shared + self.longest
        return torch.ones(length, length, dtype=torch.bool, device=self.places.device).tril()


def attend(
    layout: Layout,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor,
    *,
    scale: float,
    cap: float | None = None,
    dropout: float = 0.0,
) -> Tensor:
    """Attention within rows, and to what they share.

    Args:
        layout: of the sequence.
        query: [1, heads, tokens, width]
        key: [1, key heads, tokens, width]
        value: [1, key heads, tokens, width of values]
        mask: bool [shared + longest, shared + longest], the same for all rows: where a row is over, nothing follows.
        scale: of the scores.
        cap: soft cap of the scores, as Gemma 2 has it.
        dropout: share of the weights that is left out.

    Returns:
        [1, tokens, heads, width of values]
    """
    shared = layout.shared
    device = value.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else value.dtype
    query, key, value = (each.to(dtype) for each in (query, key, value))  # rotation leaves float32
    query, key, value = (each[0].transpose(0, 1) for each in (query, key, value))  # [tokens, heads, width]
    padded = [layout.spread(each[shared:]) for each in (query, key, value)]
    keys, values = (
        torch.cat([each[None, :shared].expand(layout.rows, -1, -1, -1), own], dim=1)
        for each, own in zip((key, value), padded[1:], strict=True)
    )
    result = layout.gather(_attention(padded[0], keys, values, mask[shared:], scale, cap, dropout))
    if shared:
        query, key, value = (each[None, :shared] for each in (query, key, value))
        first = _attention(query, key, value, mask[:shared, :shared], scale, cap, dropout)
        result = torch.cat([first[0], result])
    return result[None]


def _attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scale: float, cap: float | None, dropout: float
) -> Tensor:
    """[rows, tokens, heads, width] of queries and keys -> [rows, tokens, heads, width of values]."""
    query, key, value = (each.transpose(1, 2) for each in (query, key, value))
    if query.device.type == "cpu" and cap is None and not dropout:
        dense: Tensor = _Dense.apply(query, key, value, mask, scale)  # type: ignore[no-untyped-call]
        return dense.transpose(1, 2)
    groups = query.shape[1] // key.shape[1]
    key, value = (each.repeat_interleave(groups, dim=1) for each in (key, value))
    if cap is not None:
        return capped(query, key, value, mask, scale, cap, dropout).transpose(1, 2)
    return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=dropout, scale=scale).transpose(
        1, 2
    )


def capped(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scale: float, cap: float, dropout: float = 0.0
) -> Tensor:
    """Attention whose scores have a soft cap; all have the same heads: [rows, heads, tokens, width]."""
    scores = torch.tanh(query @ key.transpose(2, 3) * (scale / cap)) * cap
    weights = torch.softmax(scores.float().masked_fill(~mask, -math.inf), dim=-1).to(value.dtype)
    return F.dropout(weights, dropout) @ value


class _Dense(torch.autograd.Function):
    """Attention as plain products of matrices; backward computes the weights again rather than keeping them.

    For the short rows of a CPU's training that takes a third of the time of torch's blocked kernel.
    """

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scale: float) -> Tensor:
        result = query.new_empty(*query.shape[:-1], value.shape[-1])
        for piece in _pieces(query, key):
            weights = _weights(_grouped(query[piece], key), key[piece], mask, scale)
            result[piece] = (weights @ value[piece]).view_as(result[piece])
        ctx.save_for_backward(query, key, value, mask, result)
        ctx.scale = scale
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        query, key, value, mask, result = ctx.saved_tensors
        of_query, of_key, of_value = (
            query.new_empty(query.shape),
            key.new_empty(key.shape),
            value.new_empty(value.shape),
        )
        for piece in _pieces(query, key):
            k, v = key[piece], value[piece]
            q, g, r = (_grouped(each[piece], key) for each in (query, grad, result))
            weights = _weights(q, k, mask, ctx.scale)
            torch.matmul(weights.transpose(2, 3), g, out=of_value[piece])
            through = (g @ v.transpose(2, 3)).float()
            through -= (g.float() * r.float()).sum(-1, keepdim=True)
            scores = through.mul_(weights).mul_(ctx.scale).to(q.dtype)
            of_query[piece] = (scores @ k).view_as(of_query[piece])
            torch.matmul(scores.transpose(2, 3), q, out=of_key[piece])
        return of_query, of_key, of_value, None, None


def _pieces(query: Tensor, key: Tensor) -> list[slice]:
    """Rows that are computed together."""
    size = max(1, MAX_SCORES // max(1, query.shape[1] * query.shape[2] * key.shape[2]))
    return [slice(start, start + size) for start in range(0, query.shape[0], size)]


def _grouped(heads: Tensor, key: Tensor) -> Tensor:
    """[rows, heads, tokens, width] -> [rows, key heads, heads of each * tokens, width]."""
    grouped: Tensor = heads.unflatten(1, (key.shape[1], -1)).flatten(2, 3)
    return grouped


def _weights(query: Tensor, key: Tensor, mask: Tensor, scale: float) -> Tensor:
    """[rows, key heads, heads of each * queries, keys] of a grouped query."""
    scores = (query @ key.transpose(2, 3)).float().mul_(scale)
    scores.view(*scores.shape[:2], -1, *mask.shape).masked_fill_(~mask, -math.inf)
    weights: Tensor = torch.softmax(scores, dim=-1).to(query.dtype)
    return weights
