from __future__ import annotations

from pathlib import Path

import pytest

from edgekit_devices import BadProfileError, UnknownDeviceError, load_profile, profile_names


@pytest.mark.parametrize("name", profile_names())
def test_every_profile_that_ships_loads_and_names_its_source(name: str) -> None:
    profile = load_profile(name)
    assert profile.name == name
    assert profile.cores > 0
    assert profile.source.startswith("https://")


def test_a_mistyped_name_is_answered_with_the_likely_one() -> None:
    with pytest.raises(UnknownDeviceError, match="did you mean raspberry-pi-5"):
        load_profile("rasberry-pi-5")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cores = ", "is not TOML"),
        ("cores = 4", "has no architecture"),
        ("colour = 'red'", "has unknown colour"),
    ],
)
def test_a_users_own_profile_is_checked(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(BadProfileError, match=message):
        load_profile(str(path))
