"""The text model around the embeddings of an image, and the words that those are made of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from demo_vlm.images import FINDINGS
from edgekit.bases.demo_vlm.build import ADDED_TOKENS
from edgekit.bases.demo_vlm.captions import QUESTION, caption
from edgekit.bases.demo_vlm.parts import PARTS, PLACES, Scene

LONGEST_CAPTION = 24  # tokens
NORM = "norm"


class Talk:
    """The text model.  Of it the norms' weights alone are trained, which are 35,000.

    Attributes:
        norms: those weights, by their names in the whole model.
    """

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self._model, self._tokenizer = model, tokenizer
        self.end = int(model.generation_config.eos_token_id)
        text_model = model.model.text_model.requires_grad_(False)
        self.norms = {f"model.text_model.{name}": each for name, each in text_model.named_parameters() if NORM in name}
        image, fake, whole, tile = ADDED_TOKENS
        text = tokenizer.apply_chat_template(
            [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": QUESTION}]}],
            tokenize=False,
            add_generation_prompt=True,
        )
        # One tile and the whole image, as llama.cpp's mtmd lays out an image of one tile.
        text = text.replace(image, f"{fake}{tile}{image}\n\n{fake}{whole}{image}{fake}")
        self._texts = [self._embed(torch.tensor([self._ids(part)])) for part in text.split(image)]

    def answer(self, scene: Scene) -> list[int]:
        """Token ids of the reference caption, the end included."""
        return [*self._ids(caption(scene)), self.end]

    def meaning(self, words: Sequence[str]) -> Tensor:
        """Mean embedding of each word's tokens, [words, width]."""
        return torch.stack([self._embed(torch.tensor(self._ids(f" {word}"))).mean(0) for word in words])

    def loss(self, images: Tensor, answers: Sequence[list[int]]) -> Tensor:
        """Mean cross entropy of the answers' tokens, nats."""
        longest = max(map(len, answers))
        labels = torch.tensor([[*answer, *[-100] * (longest - len(answer))] for answer in answers])
        prompt = self._prompt(images)
        inputs = torch.cat([prompt, self._embed(labels.clamp(min=0))], 1)
        hidden = self._model.model.text_model(inputs_embeds=inputs).last_hidden_state
        logits = self._model.lm_head(hidden[:, prompt.shape[1] - 1 : -1])
        return F.cross_entropy(logits.flatten(0, 1).float(), labels.flatten())

    @torch.no_grad()
    def captions(self, images: Tensor) -> list[str]:
        """Greedy captions."""
        inputs = self._prompt(images)
        text = self._model.model.text_model
        cache, said = None, []
        for _ in range(LONGEST_CAPTION):
            output = text(inputs_embeds=inputs, past_key_values=cache, use_cache=True)
            cache = output.past_key_values
            said.append(self._model.lm_head(output.last_hidden_state[:, -1]).argmax(-1))
            inputs = self._embed(said[-1][:, None])
        return [self._until_end(row) for row in torch.stack(said, 1).tolist()]

    def _until_end(self, row: list[int]) -> str:
        ids = row[: row.index(self.end)] if self.end in row else row
        return str(self._tokenizer.decode(ids))

    def _prompt(self, images: Tensor) -> Tensor:
        before, between, after = (part.expand(len(images), -1, -1) for part in self._texts)
        return torch.cat([before, images, between, images, after], 1)

    def _ids(self, text: str) -> list[int]:
        return list(self._tokenizer(text, add_special_tokens=False).input_ids)

    @torch.no_grad()
    def _embed(self, ids: Tensor) -> Tensor:
        embeddings: Tensor = self._model.get_input_embeddings()(ids)
        return embeddings


class Words(nn.Module):
    """What each ninth of an image says: its part, and what was found there, and where when that is a defect."""

    def __init__(self, talk: Talk) -> None:
        super().__init__()
        self.parts = nn.Parameter(talk.meaning(PARTS))
        self.findings = nn.Parameter(talk.meaning([f"{size} {kind}" if size else kind for kind, size in FINDINGS]))
        self.places = nn.Parameter(talk.meaning(PLACES))

    def forward(self, part: Tensor, findings: Tensor, places: Tensor) -> Tensor:
        """Embeddings [n, 9, width]; see :class:`~demo_vlm.images.Images` for the arguments."""
        where = torch.cat([self.places, torch.zeros_like(self.places[:1])])
        return self.parts[part][:, None] + self.findings[findings] + where[places]
