"""From image rows to a proven bundle, on a tiny model."""

from __future__ import annotations

import json
from pathlib import Path

from ruamel.yaml import YAML

from edgekit import export, train
from edgekit.project import load_project
from edgekit_runtime import Runtime
from tests.vlm import Model, picture_file


def test_an_adapter_is_trained_on_images_exported_and_proven(smolvlm: Model, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for name, count in (("train", 6), ("eval", 2)):
        rows = []
        for number in range(count):
            picture_file(tmp_path / "data" / f"{name}-{number}.png", (50, 30 + number), number)
            rows.append({"image": f"{name}-{number}.png", "prompt": "What is it?", "completion": f"part {number % 2}"})
        (tmp_path / "data" / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    adapter = {"rank": 4, "max_steps": 2, "batch_size": 2, "base_precision": "gguf"}
    document = {
        "project": "camera",
        "task": "caption",
        "base": str(smolvlm.folder),
        "data": {"train": "data/train.jsonl", "eval": "data/eval.jsonl"},
        "adapters": {"words": adapter},
        "export": {"quantize": "Q8_0"},
        "gate": {"max_loss_points": 100},
    }
    with (tmp_path / "edgekit.yaml").open("w") as stream:
        YAML().dump(document, stream)
    project = load_project(tmp_path)
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
