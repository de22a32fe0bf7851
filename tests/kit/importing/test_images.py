"""A model of Ollama that reads images: a second FROM, or a layer of its store, is the projector."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from edgekit.importing.ollama.make import import_bundle
from edgekit.importing.ollama.model import read_model
from edgekit_runtime import Runtime
from tests.vlm import Model


def test_a_second_from_reads_images(smolvlm: Model, tmp_path: Path) -> None:
    base = smolvlm.bundle / "base"
    modelfile = tmp_path / "Modelfile"
    modelfile.write_text(f"FROM {base / 'projector.gguf'}\nFROM {base / 'model.gguf'}\nSYSTEM You see.\n")
    made = import_bundle(read_model(str(modelfile)), tmp_path / "out", name="eyes")
    assert made.manifest is not None
    assert (made.manifest.task, made.manifest.base.projector) == ("caption", "base/projector.gguf")
    image = tmp_path / "image.png"
    Image.effect_noise((48, 40), 90).convert("RGB").save(image)
    answers = []
    for bundle in (tmp_path / "out", smolvlm.bundle):
        with Runtime(bundle, threads=1, context=512) as runtime:
            messages = [{"role": "system", "content": "You see."}, {"role": "user", "content": "What?"}]
            answers.append(runtime.generate(messages=messages, adapter="base", image=image, max_tokens=8).text)
    assert answers[0] == answers[1] != ""
