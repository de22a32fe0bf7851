"""`edgekit plan` of a caption bundle."""

from __future__ import annotations

from dataclasses import replace

import pytest

from edgekit.targets.devices import device_profile
from edgekit.targets.plan import make_plan, report
from edgekit.targets.subject import subject_of_bundle
from edgekit_runtime.engines.llama.images import DEFAULT_LIMIT
from tests.vlm import Model


def test_what_reads_images_is_counted_once_and_is_no_adapter(quantized: Model) -> None:
    subject = subject_of_bundle(quantized.bundle)
    assert set(subject.adapters) == {"one", "two"}
    planned = make_plan(device_profile("raspberry-pi-4"), subject, context=256, prompt_tokens=64)
    blind = make_plan(device_profile("raspberry-pi-4"), replace(subject, reader=None), context=256, prompt_tokens=64)
    projector = (quantized.bundle / "base/projector.gguf").stat().st_size
    buffers = 4 * 16 * (64 + 4 * 32 + 2 * 16)  # a tile of 4 x 4 patches in an encoder of width 32 and two heads
    memory = planned.plan.memory
    assert memory.images == pytest.approx((projector + buffers + DEFAULT_LIMIT) / 2**20)
    assert memory.needed == pytest.approx(blind.plan.memory.needed + memory.images)
    assert planned.plan.storage_mb == pytest.approx(blind.plan.storage_mb + projector / 2**20)
    assert planned.plan.decode_tps == blind.plan.decode_tps  # no token reads the projector
    assert "images 64 (projector, its buffers, kept embeddings)" in report(planned)
    assert "images" not in report(blind)
