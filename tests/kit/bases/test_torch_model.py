from __future__ import annotations

from pathlib import Path

import torch

from edgekit.bases.resolve import resolve_base
from edgekit.bases.torch_model import load_base, load_dense
from edgekit.bases.weights import Weights
from edgekit_exporters.gguf.base import base_gguf


def test_the_unpacked_base_answers_as_the_packed_one_that_was_trained_on(tiny_chat_base: Path) -> None:
    """Its output matrix is tied to the embeddings, which a GGUF file stores once."""
    base = resolve_base(str(tiny_chat_base))
    file = base_gguf(base, "Q8_0")
    packed, dense = load_base(base, Weights("gguf", "Q8_0", blocks=file)), load_dense(base, file, torch.float32)
    ids = torch.arange(100, 120)[None]
    with torch.no_grad():
        torch.testing.assert_close(dense(ids).logits, packed(ids).logits)


def test_an_nf4_base_passes_the_same_gradients_on_after_an_evaluation(tiny_chat_base: Path) -> None:
    model = load_base(resolve_base(str(tiny_chat_base)), Weights("nf4", None)).train()
    ids = torch.arange(100, 120)[None]
    inputs = model.get_input_embeddings()(ids).detach().requires_grad_()
    (before,) = torch.autograd.grad(model(inputs_embeds=inputs, labels=ids).loss, inputs)
    with torch.no_grad():
        model.eval()(ids)
    (after,) = torch.autograd.grad(model.train()(inputs_embeds=inputs, labels=ids).loss, inputs)
    assert before.abs().max() > 0
    torch.testing.assert_close(after, before)
