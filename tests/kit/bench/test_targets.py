from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgekit.bench.plot import plot_bench
from edgekit.cli import main
from edgekit_runtime import machine
from edgekit_runtime.bench import compare, run_bench, table
from edgekit_runtime.errors import InputError


def test_a_quick_run_has_every_figure_and_the_conditions(demo_bundle: Path) -> None:
    document = run_bench(demo_bundle, quick=True)
    assert document["settings"] | {"repeats": 1, "quick": True} == document["settings"]
    assert document["target"]["emulated"] is False
    assert document["conditions"]["before"].keys() == document["conditions"]["after"].keys()
    assert [result["adapter"] for result in document["results"]] == ["base", "one", "two"]
    assert all(result["decode_tps"]["median"] > 0 for result in document["results"])
    _emulated_times_are_shown_as_such(
        document | {"target": {"kind": "qemu", "name": "qemu:x", "emulated": True}}, document
    )


def _emulated_times_are_shown_as_such(emulated: dict[str, object], measured: dict[str, object]) -> None:
    assert table(emulated).startswith("EMULATED: shows that it works there")
    with pytest.raises(InputError, match="emulated device"):
        compare(measured, emulated)
    with pytest.raises(InputError, match="emulated device"):
        plot_bench(emulated, Path("never.png"))
    assert "medians, B / A" in compare(measured, measured)


def test_conditions_are_read_from_the_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, content in (
        ("cpu/cpu0/cpufreq/scaling_cur_freq", "1500000"),
        ("cpu/cpu1/cpufreq/scaling_cur_freq", "600000"),
        ("cpu/cpu0/cpufreq/cpuinfo_max_freq", "1800000"),
        ("cpu/cpu0/cpufreq/scaling_governor", "ondemand\n"),
        ("thermal/thermal_zone0/temp", "61500"),
        ("thermal/thermal_zone1/temp", "broken"),
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    monkeypatch.setattr(machine, "CPU_FOLDER", tmp_path / "cpu")
    monkeypatch.setattr(machine, "THERMAL_FOLDER", tmp_path / "thermal")
    monkeypatch.setattr(machine, "GOVERNOR", tmp_path / "cpu/cpu0/cpufreq/scaling_governor")
    found = machine.conditions()
    assert (found["frequency_mhz"], found["highest_mhz"], found["temperature_c"]) == (600, 1800, 61.5)
    assert found["governor"] == "ondemand"


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["x", "--target", "mars"], 2, "there is no target 'mars': use one of local, ssh, qemu"),
        (["x", "--target", "ssh://pi@line-3"], 2, "what is deployed is measured"),
        (["--target", "qemu:raspberry-pi-5"], 2, "takes one bundle"),
        (["x", "--target", "qemu:nothing"], 2, "no device is called 'nothing'"),
        ([], 2, "bench takes one bundle"),
    ],
)
def test_wrong_targets_are_told(words: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", *words]) == code
    assert message in capsys.readouterr().err


def test_results_of_before_targets_and_conditions_are_still_compared(demo_bundle: Path, tmp_path: Path) -> None:
    document = run_bench(demo_bundle, quick=True)
    old = {key: value for key, value in document.items() if key not in ("target", "conditions")}
    file = tmp_path / "old.json"
    file.write_text(json.dumps(old))
    assert "medians" in compare(old, document)
    assert table(old)
