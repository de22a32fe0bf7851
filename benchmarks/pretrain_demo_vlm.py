"""How the demo image model's encoder and connector were trained.

    python benchmarks/pretrain_demo_vlm.py --output FILE

An image is nine embeddings, one for each ninth of it, and each says what is there.  Two stages:

1. *Words.*  What does the text model have to read so that it writes the reference caption?  One embedding for each
   part, finding and place is learned through the text model, starting at its own embeddings of those words; of the
   text model only the norms' 35,000 weights learn with them.  This takes no images.
2. *See.*  Encoder and connector learn to make those embeddings of pixels.  Linear heads name what each of them says
   and what each of the encoder's patches shows; they are for training alone.  With the text model's loss instead,
   a fresh encoder learns nothing in this time.  The learning rate falls, and then once more from the start, for what is
   learned last: thin scratches.

The result is FILE (float16 safetensors) and FILE.json with what the model says of images that it has not seen.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from demo_vlm.captioner import Talk, Words
from demo_vlm.images import FINDINGS, NOWHERE, Images, augmented
from edgekit.bases.demo_vlm.build import assemble
from edgekit.bases.demo_vlm.captions import Share, right_shares
from edgekit.bases.demo_vlm.parts import KINDS, PARTS

log = logging.getLogger(__name__)

WORD_BATCH, IMAGE_BATCH = 8, 32
TRAIN_SEED, TEST_SEED = 1, 2
TEST_IMAGES = 400
SOUND = 0.2  # weight of ninths without a defect, which most are, half of it for patches


class Sight(nn.Module):
    """Encoder and connector of the whole model, with the heads that only training needs."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.encoder, self.connector = model.model.vision_model, model.model.connector
        width = model.config.text_config.hidden_size
        self.part, self.finding, self.place = (nn.Linear(width, n) for n in (len(PARTS), len(FINDINGS), NOWHERE + 1))
        self.patch = nn.Linear(model.config.vision_config.hidden_size, len(KINDS))

    def forward(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Embeddings [n, 9, width], and the patches' features [n, patches, encoder's width]."""
        side = values.shape[-1] // self.encoder.patch_size
        mask = torch.ones(len(values), side, side, dtype=torch.bool)
        hidden: Tensor = self.encoder(pixel_values=values, patch_attention_mask=mask).last_hidden_state
        cells = self.connector.pixel_shuffle(hidden, self.connector.scale_factor)
        embeddings: Tensor = self.connector.modality_projection(cells)
        return embeddings, hidden

    def shared(self) -> dict[str, Tensor]:
        """Encoder and connector, under the names of the whole model."""
        parts = {"model.vision_model.": self.encoder, "model.connector.": self.connector}
        return {prefix + name: value for prefix, part in parts.items() for name, value in part.state_dict().items()}


def learn_words(talk: Talk, images: Images, steps: int) -> Words:
    """Stage 1: words, and the text model's norms.  Of the images only what they show is used."""
    words = Words(talk)
    norms = [each.requires_grad_() for each in talk.norms.values()]
    answers = [talk.answer(scene) for scene in images.scenes]

    def loss() -> Tensor:
        which = torch.randint(len(answers), (WORD_BATCH,))
        said = words(images.part[which], images.findings[which], images.places[which])
        blurred = said + 0.2 * words.parts.detach().std() * torch.randn_like(said)  # an encoder is never exact
        with torch.autocast("cpu", torch.bfloat16, enabled=bool(torch.cpu._is_avx512_bf16_supported())):
            said_right: Tensor = talk.loss(blurred, [answers[index] for index in which.tolist()])
        return said_right

    _train([*words.parameters(), *norms], loss, steps, rate=5e-3, every=10)
    for each in norms:
        each.requires_grad_(False)
    return words.requires_grad_(False)


def see(sight: Sight, words: Words, images: Images, test: Images, steps: int) -> None:
    """Stage 2: see."""
    rare_patch, rare_finding, rare_place = (torch.ones(n) for n in (len(KINDS), len(FINDINGS), NOWHERE + 1))
    rare_patch[0], rare_finding[0], rare_place[NOWHERE] = SOUND / 2, SOUND, SOUND
    unit = words.findings.std()

    def loss() -> Tensor:
        which = torch.randint(len(images.scenes), (IMAGE_BATCH,))
        part, findings, places = images.part[which], images.findings[which], images.places[which]
        embeddings, patches = sight(augmented(images.values(which)))
        distance = ((embeddings - words(part, findings, places)) / unit).square().mean(-1)
        weight = torch.where(findings > 0, 1.0, SOUND)
        total: Tensor = (
            F.cross_entropy(sight.patch(patches).flatten(0, 1), images.patches[which].flatten(), rare_patch)
            + F.cross_entropy(sight.finding(embeddings).flatten(0, 1), findings.flatten(), rare_finding)
            + F.cross_entropy(sight.place(embeddings).flatten(0, 1), places.flatten(), rare_place)
            + F.cross_entropy(sight.part(embeddings).flatten(0, 1), part.repeat_interleave(NOWHERE))
            + (distance * weight).sum() / weight.sum()
        )
        return total

    _train(list(sight.parameters()), loss, steps, rate=1e-3, every=250, report=lambda: _heads(sight, test))


@torch.no_grad()
def _heads(sight: Sight, images: Images) -> dict[str, float]:
    """Shares, in %, that the heads name right: the ninth with the clearest defect speaks for the image."""
    embeddings = torch.cat(list(_embeddings(sight, images)))
    scores = sight.finding(embeddings).log_softmax(-1)
    place = scores[..., 0].argmin(1)
    found, wanted = scores[torch.arange(len(place)), place].argmax(-1), images.findings.max(1).values
    kinds = torch.tensor([KINDS.index(kind) for kind, _ in FINDINGS])
    defects = wanted > 0
    right = {
        "part": sight.part(embeddings[:, 0]).argmax(-1) == images.part,
        "kind": kinds[found] == kinds[wanted],
        "finding": found == wanted,
        "place": (place == images.places.min(1).values)[defects],
    }
    return {name: round(100 * float(each.float().mean()), 1) for name, each in right.items()}


def _train(
    parameters: list[nn.Parameter],
    loss: Callable[[], Tensor],
    steps: int,
    *,
    rate: float,
    every: int,
    report: Callable[[], dict[str, float]] = dict,
) -> None:
    optimizer = torch.optim.AdamW(parameters, rate, weight_decay=0.0, betas=(0.9, 0.98))
    warm = max(1, min(100, steps // 10))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warm, 0.5 * (1 + math.cos(math.pi * step / steps)) + 1e-3)
    )
    began, total = time.process_time(), 0.0
    for step in range(1, steps + 1):
        value = loss()
        optimizer.zero_grad()
        value.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        total += value.item()
        if step % every == 0 or step == steps:
            mean, total = total / (step % every or every), 0.0
            log.info("step %d: loss %.3f %s, %.0f CPU s", step, mean, report() or "", time.process_time() - began)


@torch.no_grad()
def _embeddings(sight: Sight, images: Images) -> Iterator[Tensor]:
    for start in range(0, len(images.scenes), 100):
        yield sight(images.values(slice(start, start + 100)))[0]


def measure(sight: Sight, talk: Talk, images: Images) -> dict[str, Share]:
    """What greedy captions name right, in torch."""
    return right_shares(images.scenes, [text for part in _embeddings(sight, images) for text in talk.captions(part)])


def main() -> None:
    """Train, measure, write."""
    from safetensors.torch import save_file

    from edgekit.bases.resolve import DEMO_TEXT, resolve_base

    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--output", type=Path, required=True, help="safetensors file to write")
    parser.add_argument("--images", type=int, default=8000)
    parser.add_argument("--steps", type=int, nargs=3, default=(80, 1600, 500), metavar=("WORDS", "SEE", "AGAIN"))
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(arguments.threads)
    model, tokenizer = assemble(resolve_base(DEMO_TEXT).folder)
    model.eval()
    images, test = Images(arguments.images, TRAIN_SEED), Images(TEST_IMAGES, TEST_SEED)
    talk = Talk(model, tokenizer)
    log.info("words")
    torch.manual_seed(0)
    words = learn_words(talk, images, arguments.steps[0])
    torch.manual_seed(0)
    sight = Sight(model)
    for steps in arguments.steps[1:]:
        log.info("see")
        see(sight, words, images, test, steps)
        torch.manual_seed(0)
    shipped = sight.shared() | talk.norms
    save_file({name: value.half().contiguous() for name, value in shipped.items()}, arguments.output)
    shares = {name: asdict(share) for name, share in measure(sight, talk, test).items()}
    figures = {"images": len(test.scenes), "cpu_seconds": round(time.process_time()), **shares}
    arguments.output.with_suffix(".json").write_text(json.dumps(figures, indent=1) + "\n")
    log.info("%s", figures)


if __name__ == "__main__":
    main()
