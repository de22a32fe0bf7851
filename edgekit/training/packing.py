"""The rows of a batch in one sequence, without padding, and what they share at their start only once.

Rows begin with the same template and system prompt.  A packed batch reads these tokens once, the rows behind them, and
attention keeps the rows apart.  Gradients flow through the shared part as they would through each copy of it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from edgekit.encoding.encoder import IGNORED, Encoded
from edgekit.training.answer_loss import language_model
from edgekit.training.attention import Layout, attend, capped

log = logging.getLogger(__name__)

NAME = "edgekit_rows"  # of the attention in transformers' table
FILLED, LAYOUT = "filled", "row_layout"
TOLERANCE = 2e-3  # of hidden states, relative to their size, in float32; tokens of another row change them by much more
HALF_TOLERANCE = 0.1  # the same where the base computes in half precision

Collator = Callable[[Sequence[Encoded]], dict[str, Tensor]]

# While a model makes its masks; layers get the layout as an argument, as checkpointing calls them again later.
_layout: ContextVar[Layout | None] = ContextVar("layout", default=None)


def pack(examples: Sequence[Encoded]) -> dict[str, Tensor]:
    """A batch of one sequence: what all rows have in common up to their first label, then the rest of each.

    Returns:
        ``filled`` [rows, longest rest]: True where a row has a token, and ``input_ids``, ``position_ids``, ``labels``,
        ``attention_mask`` [1, tokens].
    """
    rows = [each["input_ids"] for each in examples]
    shared = _shared(examples)
    rests = [len(row) - shared for row in rows]
    ids = rows[0][:shared] + [token for row in rows for token in row[shared:]]
    positions = [*range(shared), *(place for row in rows for place in range(shared, len(row)))]
    labels = [IGNORED] * shared + [label for each in examples for label in each["labels"][shared:]]
    filled = torch.arange(max(rests)) < torch.tensor(rests)[:, None]  # first: the Trainer counts rows by it
    whole = {"input_ids": ids, "position_ids": positions, "labels": labels, "attention_mask": [1] * len(ids)}
    return {FILLED: filled, **{name: torch.tensor([values]) for name, values in whole.items()}}


def _shared(examples: Sequence[Encoded]) -> int:
    """Tokens that all rows begin with; a place that says a label belongs to its row alone."""
    if len(examples) == 1:
        return 0
    first_labels = (
        next((at for at, each in enumerate(e["labels"]) if each != IGNORED), len(e["labels"])) for e in examples
    )
    limit = max(0, min(first_labels) - 1)
    columns = zip(*(each["input_ids"][:limit] for each in examples), strict=True)
    return next((at for at, column in enumerate(columns) if len(set(column)) > 1), limit)


def collator_for(model: Any, padded: Collator, examples: Sequence[Encoded]) -> Collator:
    """:func:`pack` where ``model`` computes the same of packed rows, else ``padded``.

    That is asked of the model itself, with the two longest of ``examples``: convolutions and states see the row
    before, and not all architectures take attention from outside.
    """
    longest = sorted(examples, key=lambda each: len(each["labels"]))[-2:]
    causal = language_model(model)
    before = causal.config._attn_implementation
    try:
        take_packed(causal)
        if longest and _computes_the_same(model, causal, padded, longest):
            return pack
        reason = "it computes other values"
    except (ValueError, TypeError, RuntimeError, NotImplementedError, KeyError, AttributeError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
    leave_packed(causal, before)
    log.info("rows aren't packed with this base (%s); they are padded", reason)
    return padded


def take_packed(causal: Any) -> None:
    """Let ``causal`` take batches of :func:`pack`, besides all others."""
    AttentionInterface.register(NAME, _attention)
    AttentionMaskInterface.register(NAME, _mask)
    causal.set_attn_implementation(NAME)
    backbone = getattr(causal, causal.base_model_prefix)
    whole = backbone.forward

    def forward(*args: Any, **kwargs: Any) -> Any:
        filled = kwargs.pop(FILLED, None)
        if filled is None:
            return whole(*args, **kwargs)
        layout = Layout.of(filled, kwargs["input_ids"].shape[1])
        with _arranged(layout):
            return whole(*args, **kwargs, **{LAYOUT: layout})

    backbone.forward = forward


def leave_packed(causal: Any, attention: str) -> None:
    """Undo :func:`take_packed`."""
    getattr(causal, causal.base_model_prefix).__dict__.pop("forward", None)
    causal.set_attn_implementation(attention)


@contextmanager
def _arranged(layout: Layout) -> Iterator[None]:
    token = _layout.set(layout)
    try:
        yield
    finally:
        _layout.reset(token)


def _mask(**arguments: Any) -> Tensor | None:
    """As transformers' for sdpa; of packed rows, what any row sees of itself, windows included."""
    layout = _layout.get()
    if layout is None:
        return sdpa_mask(**arguments)
    length = layout.shared + layout.longest
    return sdpa_mask(
        **arguments
        | {"batch_size": 1, "q_length": length, "kv_length": length, "q_offset": 0, "kv_offset": 0}
        | {"attention_mask": None, "allow_is_causal_skip": False}
    )


def _attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
) -> tuple[Tensor, None]:
    """Attention as transformers calls it; other batches than packed ones go to torch's."""
    layout, cap, scale = options.pop(LAYOUT, None), options.pop("softcap", None), options.get("scaling")
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    if options.get("s_aux") is not None or options.get("position_bias") is not None:
        raise NotImplementedError("its attention has sinks or biases")
    if layout is not None:
        mask = layout.causal() if attention_mask is None else attention_mask[0, 0]
        dropout = options.get("dropout", 0.0)
        return attend(layout, query, key, value, mask, scale=scale, cap=cap, dropout=dropout), None
    if cap is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    groups = query.shape[1] // key.shape[1]
    mask = attention_mask
    if mask is None:
        mask = torch.ones(query.shape[2], key.shape[2], dtype=torch.bool, device=query.device).tril()
    heads = query, repeat_kv(key, groups), repeat_kv(value, groups)
    result = capped(*heads, mask, scale, cap, options.get("dropout", 0.0))
    return result.transpose(1, 2).contiguous(), None


def _computes_the_same(model: Any, causal: Any, padded: Collator, examples: Sequence[Encoded]) -> bool:
    """Whether each token of ``examples`` gets the same hidden state packed as padded."""
    backbone = getattr(causal, causal.base_model_prefix)
    device = next(model.parameters()).device
    with torch.no_grad(), _without_dropout(model):
        batch = {name: each.to(device) for name, each in pack(examples).items() if name != "labels"}
        packed = backbone(**batch, use_cache=False).last_hidden_state
        rows = {name: each.to(device) for name, each in padded(examples).items() if name != "labels"}
        alone = backbone(**rows, use_cache=False).last_hidden_state
    layout = Layout.of(batch[FILLED], packed.shape[1])
    lengths = [len(each["input_ids"]) for each in examples]
    ours = packed[0].float()
    theirs = torch.cat(
        [alone[0, : layout.shared], *(row[layout.shared : length] for row, length in zip(alone, lengths, strict=True))]
    ).float()
    allowed = TOLERANCE if packed.dtype == torch.float32 else HALF_TOLERANCE
    # NaN is never small enough, and what is all zero shows nothing.
    return bool(theirs.abs().max() > 0 and (ours - theirs).norm(dim=-1).div(theirs.norm(dim=-1)).max() < allowed)


@contextmanager
def _without_dropout(model: nn.Module) -> Iterator[None]:
    """Switch dropout off alone: in evaluation, layers of bitsandbytes change to a form that can't be trained."""
    switched = [each for each in model.modules() if isinstance(each, nn.Dropout) and each.training]
    for each in switched:
        each.eval()
    try:
        yield
    finally:
        for each in switched:
            each.train()
