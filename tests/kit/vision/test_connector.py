"""Training the connector with an adapter: what it reads is the device's, and what was trained is what runs."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edgekit import export, merge, train
from edgekit.bases.resolve import resolve_base
from edgekit.encoding.images import RowImages, row_images
from edgekit.evaluation.artifact import Artifact
from edgekit.evaluation.evaluate import evaluate
from edgekit.project import Project
from edgekit.project.folders import trained_folder
from edgekit.training import run
from edgekit.training.finished import shipped_base
from edgekit.training.interrupt import StopOnInterrupt
from edgekit_exporters.bundle import PROJECTOR_FILE
from edgekit_exporters.gguf.base import base_gguf
from edgekit_exporters.gguf.connector import base_connector, encoder_gguf, trained_connector
from edgekit_exporters.gguf.projector import projector_gguf
from edgekit_runtime import InputError, Runtime, UsageError
from tests.kit.vision.test_train_and_prove import write_project
from tests.vlm import Model, picture_file


def _changed(project: Project, **settings: Any) -> Project:
    words = dataclasses.replace(project.adapter("words"), **settings)
    return dataclasses.replace(project, adapters={**project.adapters, "words": words})


@pytest.fixture(scope="module")
def trained(smolvlm: Model, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """An adapter with a connector of its own, and one without."""
    project = write_project(tmp_path_factory.mktemp("connector"), smolvlm.folder)
    project = _changed(project, connector=True, learning_rate=0.05)
    plain = dataclasses.replace(project.adapter("words"), name="plain", connector=False)
    project = dataclasses.replace(project, adapters={**project.adapters, "plain": plain})
    train(project, "words")
    train(project, "plain")
    return project


def test_the_encoder_alone_gives_what_the_connector_reads(smolvlm: Model, tmp_path: Path) -> None:
    base = resolve_base(str(smolvlm.folder))
    text, image = base_gguf(base, "F16"), picture_file(tmp_path / "image.png", (50, 70))
    whole, features = RowImages(text, projector_gguf(base, "F32")), RowImages(text, encoder_gguf(base, "F32"))
    assert features.layout(image) == whole.layout(image)
    assert torch.allclose(features.table @ base_connector(base).T, whole.table, atol=1e-4)


def test_what_was_trained_is_what_runs(trained: Project, tmp_path: Path) -> None:
    base = resolve_base(trained.base)
    weight = trained_connector(trained_folder(trained, trained.adapter("words")), base)
    assert weight is not None
    assert (weight - base_connector(base)).abs().max() > 1e-3
    bundle, manifest = export(trained, ["words"], output=tmp_path / "bundle")
    quality = manifest.adapter("words").quality
    assert quality is not None
    assert quality["other_prompts"] == 0
    assert quality["mean_kl"] < 0.01
    image = next((trained.folder / "data").glob("eval-*.png"))
    features = row_images(trained, base, connector=True)
    assert features is not None
    features.layout(image)
    with Runtime(bundle, context=256) as runtime:
        prompt = runtime.encode([{"role": "user", "content": "What is it?"}], image=image)
        seen = np.concatenate([frame.embeddings() for _, frame in prompt.frames])
    wanted = (features.table @ weight.T).numpy()
    assert np.linalg.norm(seen - wanted) < 0.01 * np.linalg.norm(wanted)


def test_it_is_evaluated_with_its_connector(trained: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """On another file of its base too: what reads images for it there is what export ships."""
    base = resolve_base(trained.base)
    opened = []

    class Watched(Artifact):
        def __init__(self, bundle: Path) -> None:
            opened.append((bundle / PROJECTOR_FILE).read_bytes())
            super().__init__(bundle)

    monkeypatch.setattr(sys.modules[evaluate.__module__], "Artifact", Watched)
    for name, shipped in (("words", shipped_base(trained, [trained.adapter("words")], base)), ("plain", base)):
        evaluate(trained, name, artifact=base_gguf(base, "F16"), limit=1, with_base=False)
        assert opened.pop() == projector_gguf(shipped).read_bytes()
    assert evaluate(trained, "words", limit=1).base_score is not None


def test_an_interrupted_training_goes_on_with_its_connector(
    smolvlm: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = _changed(write_project(tmp_path, smolvlm.folder), connector=True, learning_rate=0.05, max_steps=4)
    whole = trained_connector(train(project), resolve_base(project.base))

    class Stopping(StopOnInterrupt):
        def on_step_end(self, args: Any, state: Any, control: Any, **others: Any) -> Any:
            self.requested = state.global_step == 2
            return super().on_step_end(args, state, control, **others)

    monkeypatch.setattr(run, "StopOnInterrupt", Stopping)
    with pytest.raises(KeyboardInterrupt):
        train(project)
    monkeypatch.undo()
    again = trained_connector(train(project, resume=True), resolve_base(project.base))
    assert whole is not None
    assert again is not None
    assert torch.allclose(whole, again, atol=1e-4)


def test_such_an_adapter_fits_no_base_with_another_connector(trained: Project, tmp_path: Path) -> None:
    _, own = export(trained, ["words"], output=tmp_path / "own")
    bundle, shared = export(trained, ["plain"], output=tmp_path / "shared")
    assert own.base.family != shared.base.family
    with Runtime(bundle, context=256) as runtime, pytest.raises(InputError, match=own.base.family):
        runtime.add_adapter(tmp_path / "own" / own.adapter("words").file)


def test_adapters_of_two_connectors_share_no_bundle(trained: Project) -> None:
    with pytest.raises(InputError, match=r"words has trained the connector.*export it alone, `edgekit export words`"):
        export(trained)


def test_it_is_not_merged(trained: Project, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="leave out --mode merged"):
        export(trained, ["words"], mode="merged", output=tmp_path / "merged")
    with pytest.raises(InputError, match="which isn't merged"):
        merge(trained, ["words"], output=tmp_path / "folder")


def test_other_connectors_methods_and_tasks_are_refused(smolvlm: Model, pixtral: Model, tmp_path: Path) -> None:
    project = _changed(write_project(tmp_path, smolvlm.folder), connector=True)
    with pytest.raises(InputError, match="no single linear layer"):
        train(dataclasses.replace(project, base=str(pixtral.folder)))
    with pytest.raises(InputError, match="dora doesn't go with connector: true"):
        train(_changed(project, method="dora"))
    with pytest.raises(InputError, match="no connector to train in a text project"):
        train(dataclasses.replace(project, task="text"))
