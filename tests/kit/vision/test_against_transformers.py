"""The device's engine against transformers, on tiny models of two architectures."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from edgekit_exporters.base import Base
from edgekit_runtime import Runtime
from edgekit_runtime.engines.llama.images import open_images
from edgekit_runtime.formats.images import Picture, read_picture
from tests.kit.vision.mtmd_pixels import idefics3_tiles
from tests.vlm import LONGEST, PUBLISHED, TILE, TINY, Geometry, Model, make_model, picture_file, save_smolvlm

M_PERTURB = -6  # of glibc's malloc.h
QUESTION = [{"role": "user", "content": "What is it?"}]


def _greedy(model: Any, embeddings: torch.Tensor, count: int) -> list[int]:
    tokens: list[int] = []
    with torch.inference_mode():
        for _ in range(count):
            logits = model(inputs_embeds=embeddings).logits[0, -1]
            tokens.append(int(logits.argmax()))
            embeddings = torch.cat([embeddings, model.get_input_embeddings()(torch.tensor([tokens[-1:]]))], 1)
    return tokens


def _distance(found: Any, expected: torch.Tensor) -> float:
    """Of two sets of embeddings, relative: a single step of some pixels stays far below what a shifted tile makes."""
    wanted = expected.numpy()
    return float(np.linalg.norm(found - wanted) / np.linalg.norm(wanted))


def _features(model: Any, tiles: np.ndarray) -> torch.Tensor:
    """Embeddings of each tile, [tiles, cells, width]."""
    with torch.inference_mode():
        found = model.get_image_features(pixel_values=torch.from_numpy(tiles)[None]).pooler_output
    together = torch.cat(list(found))
    return together.view(len(tiles), -1, together.shape[-1]).clone()


def _device_greedy(runtime: Runtime, image: Path, count: int) -> list[int]:
    prompt = runtime.encode(QUESTION, image=image)
    tokens: list[int] = []
    for _ in range(count):
        tokens.append(int(runtime.logits(prompt.followed_by(tokens))[-1].argmax()))
    return tokens


@pytest.mark.parametrize("size", [(32, 32), (64, 64), (60, 30), (25, 90)])
def test_smolvlm_says_what_transformers_says(smolvlm: Model, tmp_path: Path, size: tuple[int, int]) -> None:
    image = picture_file(tmp_path / "image.png", size)
    with Runtime(smolvlm.bundle, context=256) as runtime:
        model, embeddings = _seen_alike(smolvlm, TINY, runtime, image)
        assert _device_greedy(runtime, image, 8) == _greedy(model, embeddings, 8)


@pytest.mark.parametrize("architecture", ["SmolVLM", "Idefics3"])
def test_an_image_is_cut_and_laid_out_as_published_models_want_it(
    architecture: str, demo_base: Base, tmp_path: Path
) -> None:
    """Tiles of 512 pixels, three rows of four, and the whole image."""
    from transformers import AutoTokenizer

    folder = save_smolvlm(demo_base.folder, tmp_path / f"tiny-{architecture.lower()}-512", PUBLISHED, architecture)
    model = make_model(folder, tmp_path)
    image = picture_file(tmp_path / "image.png", (640, 480))
    with Runtime(model.bundle, context=2048) as runtime:
        torch_model, embeddings = _seen_alike(model, PUBLISHED, runtime, image)
        prompt = runtime.encode(QUESTION, image=image)
        logits = runtime.logits(prompt)[-1]
    with torch.inference_mode():  # the device keeps keys and values as F16, and random weights make much of that
        assert _distance(logits, torch_model(inputs_embeds=embeddings).logits[0, -1]) < 0.03
    # As transformers' processor writes it: a line for each row of tiles, and the whole image on the last one.
    fake, cells = "<fake_token_around_image>", 64 * "<image>"
    rows = ["".join(f"{fake}<row_{row}_col_{column}>{cells}" for column in (1, 2, 3, 4)) for row in (1, 2, 3)]
    layout = "\n".join([*rows, "", f"{fake}<global-img>{cells}{fake}"])
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    wanted = tokenizer(layout, add_special_tokens=False).input_ids
    cell = tokenizer.convert_tokens_to_ids("<image>")
    said = [each if each >= 0 else cell for each in prompt.tokens]
    start = said.index(wanted[0])
    assert said[start : start + len(wanted)] == wanted


def _seen_alike(made: Model, geometry: Geometry, runtime: Runtime, image: Path) -> tuple[Any, torch.Tensor]:
    """Check the embeddings of each tile; the torch model, and what it reads: [1, tokens, width]."""
    from transformers import AutoModelForImageTextToText

    model: Any = AutoModelForImageTextToText.from_pretrained(made.folder, dtype=torch.float32).eval()
    tiles = idefics3_tiles(
        read_picture(image), tile=geometry.tile, longest=geometry.longest, mean=[0.5] * 3, std=[0.5] * 3
    )
    prompt = runtime.encode(QUESTION, image=image)
    assert len(prompt.frames) == len(tiles)
    rows = model.get_input_embeddings()(torch.tensor(prompt.tokens).clamp(min=0)).detach()
    for (first, frame), embeddings in zip(prompt.frames, _features(model.model, tiles), strict=True):
        assert _distance(frame.embeddings(), embeddings) < 0.02
        rows[first : first + len(frame.cells)] = embeddings
    return model, rows[None]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(width=st.integers(2, 200), height=st.integers(2, 200), seed=st.integers(0, 100))
def test_pixels_and_tiles_of_training_are_the_devices(smolvlm: Model, width: int, height: int, seed: int) -> None:
    """The encoder's output shows every pixel, so equal embeddings of every tile mean equal pixels."""
    if max(width, height) > 16 * min(width, height):
        return
    ramp = np.random.default_rng(seed).integers(0, 256, (3, 3, 3), dtype=np.uint8)
    image = Image.fromarray(ramp).resize((width, height), Image.Resampling.BICUBIC)
    picture = Picture(width, height, image.tobytes())
    images, encoder = _tools(smolvlm)
    tiles = idefics3_tiles(picture, tile=TILE, longest=LONGEST, mean=[0.5] * 3, std=[0.5] * 3)
    frames = [each for each in images.layout(picture) if not isinstance(each, int)]
    assert len(frames) == len(tiles)
    expected = _features(encoder, tiles)
    for frame, embeddings in zip(frames, expected, strict=True):
        assert _distance(frame.embeddings(), embeddings) < 0.04


_made: dict[Path, Any] = {}


def _tools(model: Model) -> Any:
    from transformers import AutoModelForImageTextToText

    if model.folder not in _made:
        base = model.bundle / "base"
        whole: Any = AutoModelForImageTextToText.from_pretrained(model.folder, dtype=torch.float32).eval()
        _made[model.folder] = open_images(base / "projector.gguf", base / "model.gguf", threads=2), whole.model
    return _made[model.folder]


@pytest.fixture(params=["as it is", "NaN"])
def new_memory(request: pytest.FixtureRequest) -> Iterator[None]:
    """What memory holds that nobody has written yet: glibc fills it with ones, which are NaN, or doesn't."""
    libc = ctypes.CDLL(None)
    if request.param == "NaN" and not hasattr(libc, "mallopt"):
        pytest.skip("this C library fills no memory")
    if request.param == "NaN":
        libc.mallopt(M_PERTURB, 0x100)
    yield
    if request.param == "NaN":
        libc.mallopt(M_PERTURB, 0)


@pytest.mark.usefixtures("new_memory")
def test_pixtral_says_what_transformers_says(pixtral: Model, tmp_path: Path) -> None:
    """LLaVA's form with Pixtral's encoder; 96 x 64 pixels need no scaling."""
    from transformers import AutoModelForImageTextToText

    image = picture_file(tmp_path / "image.png", (96, 64))
    model: Any = AutoModelForImageTextToText.from_pretrained(pixtral.folder, dtype=torch.float32).eval()
    pixels = (torch.from_numpy(np.asarray(Image.open(image)).copy()).permute(2, 0, 1).float() / 255 - 0.5) / 0.5
    with torch.inference_mode():
        seen = model.model.get_image_features(
            pixel_values=pixels[None], image_sizes=torch.tensor([[64, 96]]), vision_feature_layer=-1
        ).pooler_output[0]
    with Runtime(pixtral.bundle, context=256) as runtime:
        prompt = runtime.encode(QUESTION, image=image)
        rows = model.get_input_embeddings()(torch.tensor(prompt.tokens).clamp(min=0)).detach()
        ((first, frame),) = prompt.frames
        # Six patches and a break in each of four rows, but for the last break.
        ends = model.get_input_embeddings().weight[_id(pixtral, "[IMG_BREAK]")].detach()
        expected = torch.cat([torch.cat([row, ends[None]]) for row in seen.view(4, 6, -1)])[:-1]
        assert _distance(frame.embeddings(), expected) < 0.02
        rows[first : first + len(frame.cells)] = expected
        assert _device_greedy(runtime, image, 8) == _greedy(model, rows[None], 8)


def _id(model: Model, token: str) -> int:
    from transformers import AutoTokenizer

    return int(AutoTokenizer.from_pretrained(model.folder).convert_tokens_to_ids(token))
