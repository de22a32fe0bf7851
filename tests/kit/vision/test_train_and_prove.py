"""From image rows to a proven bundle, on a tiny model."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ruamel.yaml import YAML

from edgekit import export, train
from edgekit.bases.imatrix import project_imatrix
from edgekit.bases.resolve import resolve_base
from edgekit.project import Project, load_project
from edgekit_exporters.base import Base
from edgekit_exporters.gguf.base import base_gguf
from edgekit_exporters.gguf.imatrix import read_imatrix
from edgekit_runtime import InputError, Runtime, UsageError
from edgekit_runtime.formats.gguf import read_gguf
from tests.vlm import Model, picture_file, save_smolvlm

TEMPLATE_KEY = "tokenizer.chat_template"


def write_project(folder: Path, base: Path, **export_settings: object) -> Project:
    """Six rows with images, one adapter."""
    (folder / "data").mkdir()
    for name, count in (("train", 6), ("eval", 2)):
        rows = []
        for number in range(count):
            picture_file(folder / "data" / f"{name}-{number}.png", (50, 30 + number), number)
            rows.append({"image": f"{name}-{number}.png", "prompt": "What is it?", "completion": f"part {number % 2}"})
        (folder / "data" / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    adapter = {"rank": 4, "max_steps": 2, "batch_size": 2, "base_precision": "gguf"}
    document = {
        "project": "camera",
        "task": "caption",
        "base": str(base),
        "data": {"train": "data/train.jsonl", "eval": "data/eval.jsonl"},
        "adapters": {"words": adapter},
        "export": {"quantize": "Q8_0"} | export_settings,
        "gate": {"max_loss_points": 100, "min_gain": -100},  # two steps teach nothing
    }
    with (folder / "edgekit.yaml").open("w") as stream:
        YAML().dump(document, stream)
    return load_project(folder)


def test_an_adapter_is_trained_on_images_exported_and_proven(smolvlm: Model, tmp_path: Path) -> None:
    project = write_project(tmp_path, smolvlm.folder)
    train(project)
    bundle, manifest = export(project)
    assert manifest.task == "caption"
    assert manifest.base.projector == "base/projector.gguf"
    quality = manifest.adapter("words").quality
    assert quality is not None
    assert quality["other_prompts"] == 0  # the device sees the very tokens and cells of training
    assert quality["mean_kl"] < 0.01
    with Runtime(bundle, context=256) as runtime:
        answer = runtime.generate("What is it?", image=tmp_path / "data/eval-0.png", adapter="words", max_tokens=4)
    assert answer.usage.completion_tokens > 0


def test_importance_is_measured_on_what_images_bring(smolvlm: Model, tmp_path: Path) -> None:
    project = write_project(tmp_path, smolvlm.folder, imatrix=True)
    base = resolve_base(project.base)
    seen = read_imatrix(project_imatrix(project, base))
    rows = (tmp_path / "data/train.jsonl").read_text().splitlines()
    bare = [json.dumps({key: value for key, value in json.loads(row).items() if key != "image"}) for row in rows]
    (tmp_path / "data/train.jsonl").write_text("\n".join(bare))
    unseen = read_imatrix(project_imatrix(project, base))
    assert seen.keys() == unseen.keys()
    assert all(np.isfinite(values).all() for values in seen.values())
    first = "blk.0.attn_q.weight"  # what it reads are the embeddings themselves
    assert not np.allclose(seen[first], unseen[first], rtol=0.05)


def test_an_image_that_is_none_is_told_with_its_row(smolvlm: Model, tmp_path: Path) -> None:
    project = write_project(tmp_path, smolvlm.folder)
    (tmp_path / "data/train-3.png").write_bytes(b"%PDF-1.7")
    with pytest.raises(InputError, match=r"train.jsonl:4: .*train-3.png is no image"):
        train(project)


def test_another_chat_template_under_the_same_weights_is_no_old_one_from_the_cache(
    demo_base: Base, tmp_path: Path
) -> None:
    folder = save_smolvlm(demo_base.folder, tmp_path / "tiny-retold")
    before = resolve_base(str(folder))
    old = read_gguf(base_gguf(before, "F16")).metadata[TEMPLATE_KEY]
    template = folder / "chat_template.jinja"
    template.write_text(template.read_text().replace("assistant", "helper"))
    after = resolve_base(str(folder))
    assert after.family == before.family  # adapters fit as they did
    assert read_gguf(base_gguf(after, "F16")).metadata[TEMPLATE_KEY] == old.replace("assistant", "helper")


def test_the_connector_is_no_target(smolvlm: Model, tmp_path: Path) -> None:
    project = write_project(tmp_path, smolvlm.folder)
    words = replace(project.adapter("words"), targets=("q_proj", "modality_projection.proj"))
    with pytest.raises(
        InputError, match=r"modality_projection.proj fits no layer of the text model: .*connector: true"
    ):
        train(replace(project, adapters={"words": words}))


def test_captions_are_not_exported_as_onnx(smolvlm: Model, tmp_path: Path) -> None:
    project = write_project(tmp_path, smolvlm.folder)
    with pytest.raises(UsageError, match=r"no ONNX for captions.*--format gguf"):
        export(project, format="onnx")
