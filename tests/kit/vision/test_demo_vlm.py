"""The demo image model: what is rendered, and the script that trains its encoder."""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file

import pretrain_demo_vlm as pretrain
from edgekit.bases.demo_vlm.build import WEIGHTS
from edgekit.bases.demo_vlm.captions import caption, read_caption
from edgekit.bases.demo_vlm.parts import CLEAN, PLACES, SIZE, draw_scene, render, render_with_mask
from edgekit_exporters.base import Base


def test_a_defect_is_where_the_scene_says() -> None:
    chosen = random.Random(3)
    for _ in range(60):
        scene = draw_scene(chosen)
        _, mask = render_with_mask(scene, chosen)
        rows, columns = np.nonzero(np.asarray(mask))
        if scene.kind == CLEAN:
            assert not rows.size
            continue
        assert scene.place is not None
        row, column = divmod(PLACES.index(scene.place), 3)
        assert abs(rows.mean() / SIZE - (0.2 + 0.3 * row)) < 0.15, scene
        assert abs(columns.mean() / SIZE - (0.2 + 0.3 * column)) < 0.15, scene


def test_a_seed_draws_the_same_image_again_and_another_seed_another() -> None:
    scene = draw_scene(random.Random(1))
    one, again, other = (render(scene, random.Random(seed)).tobytes() for seed in (5, 5, 6))
    assert one == again
    assert one != other


def test_captions_are_read_back() -> None:
    chosen = random.Random(2)
    for _ in range(100):
        scene = draw_scene(chosen)
        assert read_caption(caption(scene)) == {"part": scene.part, "kind": scene.kind, "place": scene.place}


def test_a_short_run_writes_the_tensors_that_ship(
    demo_base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "vision.safetensors"
    monkeypatch.setattr(pretrain, "TEST_IMAGES", 6)
    monkeypatch.setattr(sys, "argv", ["pretrain", "--output", str(file), "--images", "12", "--steps", "1", "1", "1"])
    pretrain.main()
    made, shipped = load_file(file), load_file(WEIGHTS)
    assert {name: value.shape for name, value in made.items()} == {name: value.shape for name, value in shipped.items()}
    figures = json.loads(file.with_suffix(".json").read_text())
    assert figures["images"] == 6
    assert set(figures["kind"]) == {"right", "chance"}
