"""Images on the device: many requests, adapters that change, the service, the store."""

from __future__ import annotations

import base64
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from llama_cpp import mtmd_cpp as mtmd

from edgekit_runtime import Runtime
from edgekit_runtime.engines import BARE
from edgekit_runtime.engines.llama.images import ENCODINGS, with_breaks
from edgekit_runtime.errors import EdgekitError, InputError, UsageError
from edgekit_runtime.runtime.generation import Generation
from edgekit_runtime.store import Store
from tests.service import serving
from tests.vlm import Model, picture_file

QUESTION = "What is it?"


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    return [picture_file(tmp_path / f"{seed}.png", (60, 40), seed) for seed in (1, 2)]


def ask(runtime: Runtime, image: Any, adapter: str = "base", **options: Any) -> Generation:
    return runtime.generate(QUESTION, image=image, adapter=adapter, max_tokens=6, **options)


def test_another_adapter_on_the_same_image_encodes_nothing(seeing: Runtime, images: list[Path]) -> None:
    first = ask(seeing, images[0], "one")
    encoded = seeing.loop.counts.images
    assert encoded > 0
    assert first.timings.encode_ms > 0
    second = ask(seeing, images[0], "two")
    assert seeing.loop.counts.images == encoded
    assert second.timings.encode_ms == 0
    assert first.text != second.text


@pytest.mark.parametrize("spoilt", [1, ENCODINGS])
def test_embeddings_that_are_no_numbers_are_computed_again_and_never_used(
    smolvlm: Model, images: list[Path], monkeypatch: pytest.MonkeyPatch, spoilt: int
) -> None:
    """As llama.cpp leaves them where memory that it didn't write held NaN."""
    with Runtime(smolvlm.bundle, context=256) as runtime:
        honest, left = mtmd.mtmd_get_output_embd, [spoilt]
        sound = runtime.encode([{"role": "user", "content": QUESTION}], image=images[1]).frames[0][1].embeddings()
        (_, frame), *_ = runtime.encode([{"role": "user", "content": QUESTION}], image=images[0]).frames

        def output(context: Any) -> Any:
            pointer = honest(context)
            if left[0]:
                left[0] -= 1
                pointer[3] = math.nan
            return pointer

        monkeypatch.setattr(mtmd, "mtmd_get_output_embd", output)
        if spoilt == ENCODINGS:
            with pytest.raises(EdgekitError, match="no number"):
                frame.embeddings()
        assert np.isfinite(frame.embeddings()).all()
        assert frame.embeddings().shape == sound.shape


def test_only_breaks_between_rows_are_put_in_place() -> None:
    row_break = np.float32([1, 2])
    spoilt = np.float32([[5, 6], [math.nan, 2], [math.nan, 6], [1, 2], [math.nan, math.nan]])
    with_breaks(spoilt, row_break)
    assert np.array_equal(spoilt, np.float32([[5, 6], [1, 2], [math.nan, 6], [1, 2], [1, 2]]), equal_nan=True)
    dead = np.full((3, 2), math.nan, np.float32)
    with_breaks(dead, row_break)
    assert np.isnan(dead).all()


def test_cache_is_reused_for_the_same_image_and_no_other(quantized: Model, images: list[Path]) -> None:
    with Runtime(quantized.bundle, context=256) as fresh:
        alone = ask(fresh, images[1])
    with Runtime(quantized.bundle, parallel=2, context=256) as runtime:
        first = ask(runtime, images[0])
        again = ask(runtime, images[0])
        assert again.text == first.text
        if runtime.engine.batches_exactly(BARE):  # else the question is prefilled as a whole
            assert again.usage.cached_tokens > again.usage.prompt_tokens - 12  # the question alone is left
        other = ask(runtime, images[1])
        assert other.usage.cached_tokens < 15  # what comes before the first tile
        assert other.text == alone.text


def test_requests_with_different_images_do_not_disturb_each_other(seeing: Runtime, images: list[Path]) -> None:
    alone = [ask(seeing, image, name).text for image, name in zip(images, ("one", "two"), strict=True)]
    streams = [
        seeing.stream(QUESTION, image=image, adapter=name, max_tokens=6)
        for image, name in zip(images, ("one", "two"), strict=True)
    ]
    together = ["".join(stream) for stream in streams]
    assert together == alone


def test_several_images_and_none(seeing: Runtime, images: list[Path]) -> None:
    parts = [{"type": "image"}, {"type": "text", "text": "and"}, {"type": "image"}]
    in_places = seeing.encode([{"role": "user", "content": parts}], image=images)
    assert [frame.cells[0] for _, frame in in_places.frames] != []
    assert len(seeing.encode([{"role": "user", "content": QUESTION}], image=images).frames) == len(in_places.frames)
    assert ask(seeing, None).usage.prompt_tokens < ask(seeing, images).usage.prompt_tokens


@pytest.mark.parametrize("content", ["an <image>", [{"type": "image"}, {"type": "image"}]])
def test_places_that_match_no_image_are_refused(seeing: Runtime, images: list[Path], content: Any) -> None:
    with pytest.raises(InputError, match="images"):
        seeing.generate(messages=[{"role": "user", "content": content}], image=images[0])


def test_a_raw_prompt_takes_no_image(seeing: Runtime, images: list[Path]) -> None:
    with pytest.raises(UsageError, match="raw prompt"):
        seeing.generate(raw="It is", image=images[0])


def test_a_store_keeps_the_projector(quantized: Model, tmp_path: Path, images: list[Path]) -> None:
    store = Store(tmp_path / "store", create=True)
    store.install(quantized.bundle)
    store.gc()
    with Runtime(tmp_path / "store", context=256) as stored, Runtime(quantized.bundle, context=256) as runtime:
        assert ask(stored, images[0], "one").text == ask(runtime, images[0], "one").text


def test_the_service_takes_images_as_data_urls(quantized: Model, images: list[Path], tmp_path: Path) -> None:
    def body(url: str) -> dict[str, Any]:
        parts = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": QUESTION}]
        return {"model": "one", "max_tokens": 6, "messages": [{"role": "user", "content": parts}]}

    def data_url(data: bytes) -> str:
        return f"data:image/png;base64,{base64.b64encode(data).decode()}"

    png = images[0].read_bytes()
    outside = picture_file(tmp_path / "outside.png", (40, 40))
    folder = tmp_path / "allowed"
    folder.mkdir()
    inside = picture_file(folder / "inside.png", (60, 40), 1)
    with serving(quantized.bundle, "--context", "256", "--image-files", str(folder)) as service:
        good = service.http.post("/v1/chat/completions", json=body(data_url(png)))
        assert good.status_code == 200, good.text
        with Runtime(quantized.bundle, threads=1, context=256, parallel=4) as runtime:
            assert good.json()["choices"][0]["message"]["content"] == ask(runtime, images[0], "one").text
        file = service.http.post("/v1/chat/completions", json=body(inside.as_uri()))
        assert file.json()["choices"] == good.json()["choices"]
        for url, problem in (
            (data_url(png[:100]), "image 1 is damaged"),
            (data_url(b"hello"), "image 1 is no image"),
            (outside.as_uri(), "outside of the folder"),
            (f"file://{folder}/../outside.png", "outside of the folder"),
            ("http://127.0.0.1/a.png", "no base64 data: URL"),
        ):
            answer = service.http.post("/v1/chat/completions", json=body(url))
            assert (answer.status_code, problem in answer.text) == (400, True), answer.text
        assert service.http.get("/health").json()["status"] == "ok"
