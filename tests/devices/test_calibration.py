"""The figures of profiles are those that the published measurements give, and predict the ones that were left out."""

from __future__ import annotations

from dataclasses import replace

import pytest

from edgekit_devices import load_profile
from edgekit_devices.calibration import error_table, fit, held_out_errors, published, share_within


def test_profiles_have_the_figures_of_the_fit() -> None:
    for (device, what), value in fit(published()).items():
        speed = load_profile(device).speed
        assert speed is not None
        assert (speed.decode_gbs if what == "decode" else speed.prefill_gflops) == pytest.approx(value, rel=0.01)


def test_a_model_is_predicted_from_the_others_alone() -> None:
    rows = [row for row in published() if row.what == "prefill" and row.device == "raspberry-pi-5"]
    faster = [replace(row, tps=2 * row.tps) if row.name == "llama2-7b" else row for row in rows]
    before, after = ({row.name: error for row, error in held_out_errors(each)} for each in (rows, faster))
    assert after["llama2-7b"] == pytest.approx((1 + before["llama2-7b"]) / 2 - 1)


def test_held_out_models_are_mostly_within_a_quarter() -> None:
    errors = held_out_errors(published())
    assert share_within(errors, "decode", 0.25) >= 0.9
    assert share_within(errors, "prefill", 0.25) >= 0.75


def test_every_figure_has_an_address_and_a_row_in_the_table() -> None:
    table = error_table(held_out_errors(published()))
    for row in published():
        assert row.source.startswith("https://")
        assert row.source in table
