from __future__ import annotations

from pathlib import Path

import pytest

from edgekit_devices import BadProfileError, UnknownDeviceError, load_profile, profile_names


@pytest.mark.parametrize("name", profile_names())
def test_every_profile_that_ships_loads_and_names_its_source(name: str) -> None:
    profile = load_profile(name)
    assert profile.name == name
    assert profile.cores > 0
    assert profile.os_memory_mb < profile.memory_mb
    assert profile.source.startswith("https://")


def test_a_mistyped_name_is_answered_with_the_likely_one() -> None:
    with pytest.raises(UnknownDeviceError, match="did you mean raspberry-pi-5"):
        load_profile("rasberry-pi-5")


def test_a_users_own_profile_says_only_what_is_different(tmp_path: Path) -> None:
    path = tmp_path / "our-pi.toml"
    path.write_text('extends = "raspberry-pi-5"\nmemory_mb = 8192\n')
    profile = load_profile(str(path))
    assert (profile.name, profile.memory_mb, profile.cpu) == ("our-pi", 8192, "Cortex-A76")
    assert profile.speed == load_profile("raspberry-pi-5").speed


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cores = ", r"mine.toml is not TOML"),
        ("cores = 4", r"mine.toml: title, architecture.* missing: add it"),
        ("# mine\ncolour = 'red'", r"mine.toml, line 2: unknown key colour"),
        ('extends = "raspberry-pi-5"\ncors = 4', r"line 2: unknown key cors: did you mean cores\?"),
        ('extends = "raspberry-pi-5"\n\ncores = "four"', r"line 3: cores has to be a whole number"),
        ('extends = "raspberry-pi-5"\nfeatures = [1]', r"line 2: features has to be a list of texts"),
        ('extends = "raspberry-pi-5"\ncores = -1', r"line 2: cores is below 0"),
        ('extends = "raspberry-pi-5"\nengine = "vllm"', r"line 2: engine is 'vllm': use one of llama.cpp, browser"),
        ('extends = "pi"', r"line 1: there is no profile 'pi': use one of"),
        ('extends = "raspberry-pi-5"\n[speed]\nbasis = "hope"', r"line 2: decode_gbs, .*missing"),
        (
            'extends = "raspberry-pi-5"\n[speed]\ndecode_gbs = 1\nprefill_gflops = 1\nsource = ""\nbasis = "hope"',
            r"line 6: basis is 'hope'",
        ),
    ],
)
def test_errors_in_a_users_own_profile_name_file_line_and_key(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(BadProfileError, match=message):
        load_profile(str(path))
