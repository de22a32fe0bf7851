"""How the demo image model's encoder and connector were trained: ``python -m edgekit.demo_vlm.pretrain --output FILE``.

The text model stays as it is.  Three stages, about half an hour on two quiet cores:

1. *See.*  Encoder and connector learn what a scene is made of, without the text model: five of the nine embeddings of
   an image each have to name one thing (part, kind, row, column, size), read by linear heads; and each cell says
   whether there is a defect in its ninth of the image.  Without this stage the text model's loss teaches a fresh
   encoder nothing.
2. *Speak.*  The same five embeddings are pulled to the text model's own embeddings of those words.
3. *Caption.*  Loss of the reference caption through the frozen text model, in the layout of tokens that devices use.

The result is FILE (float16 safetensors) and FILE.json with what it scores on images it has not seen.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import random
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgekit.demo_vlm.build import ADDED_TOKENS, assemble
from edgekit.demo_vlm.captions import QUESTION, caption, read_caption
from edgekit.demo_vlm.parts import KINDS, PARTS, PLACES, SIZES, Scene, draw_scene, render

log = logging.getLogger(__name__)

BATCH, CAPTION_BATCH = 64, 16
ROWS, COLUMNS = ("top", "middle", "bottom", "none"), ("left", "centre", "right", "none")
SLOTS = (PARTS, KINDS, ROWS, COLUMNS, (*SIZES, "none"))
TRAIN_SEED, TEST_SEED = 1, 2
TEST_IMAGES = 400


class Images:
    """Rendered scenes with their labels: pixels uint8 [n, height, width, 3]."""

    def __init__(self, count: int, seed: int) -> None:
        chosen = random.Random(seed)
        self.scenes = [draw_scene(chosen) for _ in range(count)]
        self.pixels = torch.from_numpy(np.stack([np.asarray(render(scene, chosen)) for scene in self.scenes]))
        self.slots = torch.tensor([_slots(scene) for scene in self.scenes])
        self.cells = torch.tensor([_cells(scene) for scene in self.scenes])

    def values(self, which: Any = slice(None)) -> Tensor:
        """Normalised pixels [n, 3, height, width], -1 to 1."""
        return (self.pixels[which].permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.5


def _slots(scene: Scene) -> list[int]:
    row, column = (3, 3) if scene.place is None else divmod(PLACES.index(scene.place), 3)
    size = len(SIZES) if scene.size is None else SIZES.index(scene.size)
    return [PARTS.index(scene.part), KINDS.index(scene.kind), row, column, size]


def _cells(scene: Scene) -> list[int]:
    return [KINDS.index(scene.kind) if place == scene.place else 0 for place in PLACES]


def augmented(values: Tensor) -> Tensor:
    """Other light, colours, noise and position."""
    light = 0.8 + 0.4 * torch.rand(len(values), 1, 1, 1)
    tint = 0.1 * torch.randn(len(values), 3, 1, 1)
    shift = (random.randint(-3, 3), random.randint(-3, 3))
    return torch.roll(values * light + tint + 0.06 * torch.randn_like(values), shift, (2, 3)).clamp(-1, 1)


class Sight(nn.Module):
    """Encoder and connector of the whole model, with what only training needs."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.encoder, self.connector = model.model.vision_model, model.model.connector
        width = model.config.text_config.hidden_size
        self.heads = nn.ModuleList(nn.Linear(width, len(words)) for words in SLOTS)
        self.finder = nn.Linear(self.connector.modality_projection.proj.in_features, len(KINDS))

    def forward(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Embeddings [n, 9, width], and the nine cells' features that they are made of."""
        side = values.shape[-1] // self.encoder.patch_size
        mask = torch.ones(len(values), side, side, dtype=torch.bool)
        hidden = self.encoder(pixel_values=values, patch_attention_mask=mask).last_hidden_state
        cells = self.connector.pixel_shuffle(hidden, self.connector.scale_factor)
        embeddings: Tensor = self.connector.modality_projection(cells)
        return embeddings, cells

    def shared(self) -> dict[str, Tensor]:
        """The weights that are shipped, under the names of the whole model."""
        parts = {"model.vision_model.": self.encoder, "model.connector.": self.connector}
        return {prefix + name: value for prefix, part in parts.items() for name, value in part.state_dict().items()}


def see(sight: Sight, images: Images, steps: int, test: Images) -> None:
    """Stage 1: see."""
    rare = torch.ones(len(KINDS))
    rare[0] = 0.2  # most cells are clean

    def loss(which: Tensor) -> Tensor:
        embeddings, cells = sight(augmented(images.values(which)))
        named = sum(
            F.cross_entropy(head(embeddings[:, at]), images.slots[which, at]) for at, head in enumerate(sight.heads)
        )
        return named + 2 * F.cross_entropy(sight.finder(cells).flatten(0, 1), images.cells[which].flatten(), rare)

    def report() -> dict[str, float]:
        with torch.no_grad():
            embeddings = torch.cat(list(_embeddings(sight, test)))
            right = [head(embeddings[:, at]).argmax(-1) == test.slots[:, at] for at, head in enumerate(sight.heads)]
        return {name: 100 * float(each.float().mean()) for name, each in zip(_NAMES, right, strict=True)}

    _train([{"params": list(sight.parameters()), "lr": 6e-4}], loss, len(images.scenes), BATCH, steps, report)


_NAMES = ("part", "kind", "row", "column", "size")


def speak(sight: Sight, images: Images, steps: int, model: Any, tokenizer: Any) -> None:
    """Stage 2: speak."""
    table = model.get_input_embeddings().weight.detach()
    words = [torch.stack([table[tokenizer(f" {word.split()[0]}").input_ids[0]] for word in words]) for words in SLOTS]
    unit = table.std()

    def loss(which: Tensor) -> Tensor:
        embeddings, _ = sight(augmented(images.values(which)))
        total: Tensor = (embeddings[:, len(SLOTS) :] / unit).square().mean() * 0.01
        for at, known in enumerate(words):
            labels, said = images.slots[which, at], embeddings[:, at]
            distances = torch.cdist(said / unit, known / unit).square() / said.shape[-1]
            total = total + F.cross_entropy(-10 * distances, labels) + distances.gather(1, labels[:, None]).mean()
        return total

    _train([{"params": list(sight.parameters()), "lr": 5e-4}], loss, len(images.scenes), BATCH, steps, None)


def speak_through(sight: Sight, images: Images, steps: int, model: Any, tokenizer: Any) -> None:
    """Stage 3: caption."""
    talk = Talk(model, tokenizer)
    answers = [talk.answer(scene) for scene in images.scenes]

    def loss(which: Tensor) -> Tensor:
        embeddings, _ = sight(augmented(images.values(which)))
        return talk.loss(embeddings, [answers[index] for index in which.tolist()])

    groups = [
        {"params": list(sight.connector.parameters()), "lr": 1e-3},
        {"params": list(sight.encoder.parameters()), "lr": 2e-4},
    ]
    _train(groups, loss, len(images.scenes), CAPTION_BATCH, steps, None)


class Talk:
    """The frozen text model around the embeddings of an image."""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self._model, self._tokenizer = model, tokenizer
        self.end = int(model.generation_config.eos_token_id)
        model.model.text_model.requires_grad_(False)
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
        for _ in range(24):
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

    def _embed(self, ids: Tensor) -> Tensor:
        embeddings: Tensor = self._model.get_input_embeddings()(ids)
        return embeddings


def _train(groups: list[dict[str, Any]], loss: Any, count: int, batch: int, steps: int, report: Any) -> None:
    parameters = [each for group in groups for each in group["params"]]
    optimiser = torch.optim.AdamW(groups, weight_decay=0.02, betas=(0.9, 0.98))
    warm = max(1, min(100, steps // 10))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: min((step + 1) / warm, 0.5 * (1 + math.cos(math.pi * step / steps)) + 1e-3)
    )
    began, fast = time.process_time(), bool(torch.cpu._is_avx512_bf16_supported())
    for step in range(1, steps + 1):
        with torch.autocast("cpu", torch.bfloat16, enabled=fast):
            value = loss(torch.randint(count, (batch,)))
        optimiser.zero_grad()
        value.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        schedule.step()
        if step % 100 == 0 or step == steps:
            seen = {} if report is None else {name: round(share, 1) for name, share in report().items()}
            log.info("step %d: loss %.3f %s, %.0f CPU s", step, float(value), seen, time.process_time() - began)


@torch.no_grad()
def _embeddings(sight: Sight, images: Images) -> Iterator[Tensor]:
    for start in range(0, len(images.scenes), 100):
        yield sight(images.values(slice(start, start + 100)))[0]


def measure(sight: Sight, model: Any, tokenizer: Any, images: Images) -> dict[str, Any]:
    """Shares of right parts, kinds and places in greedy captions, beside chance: always the commonest answer."""
    talk = Talk(model, tokenizer)
    said = [read_caption(text) for part in _embeddings(sight, images) for text in talk.captions(part)]
    figures: dict[str, Any] = {"images": len(said)}
    for name in ("part", "kind", "place"):
        pairs = [(getattr(scene, name), each[name]) for scene, each in zip(images.scenes, said, strict=True)]
        pairs = [pair for pair in pairs if pair[0] is not None]  # a clean part has no place
        commonest = Counter(want for want, _ in pairs).most_common(1)[0][1]
        right = sum(want == found for want, found in pairs)
        figures[name] = {
            "right": round(100 * right / len(pairs), 1),
            "chance": round(100 * commonest / len(pairs), 1),
        }
    return figures


def main() -> None:
    """Train, measure, write."""
    from safetensors.torch import load_file, save_file

    from edgekit.bases import DEMO_TEXT, resolve_base

    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--output", type=Path, required=True, help="safetensors file to write")
    parser.add_argument("--images", type=int, default=6000)
    parser.add_argument("--steps", type=int, nargs=3, default=(2000, 300, 250), metavar=("SEE", "SPEAK", "CAPTION"))
    parser.add_argument("--start", type=Path, help="weights of an earlier run to go on from")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    random.seed(0)
    model, tokenizer = assemble(resolve_base(DEMO_TEXT).folder)
    if arguments.start:
        model.load_state_dict({name: value.float() for name, value in load_file(arguments.start).items()}, strict=False)
    sight = Sight(model)
    images, test = Images(arguments.images, TRAIN_SEED), Images(TEST_IMAGES, TEST_SEED)
    model.eval()
    seeing, speaking, captioning = arguments.steps
    log.info("see")
    see(sight, images, seeing, test)
    log.info("speak")
    speak(sight, images, speaking, model, tokenizer)
    log.info("caption")
    speak_through(sight, images, captioning, model, tokenizer)
    save_file({name: value.half().contiguous() for name, value in sight.shared().items()}, arguments.output)
    figures = measure(sight, model, tokenizer, test) | {"cpu_seconds": round(time.process_time())}
    arguments.output.with_suffix(".json").write_text(json.dumps(figures, indent=1) + "\n")
    log.info("%s", figures)


if __name__ == "__main__":
    main()
