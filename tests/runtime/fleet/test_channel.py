"""What a channel says, and to whom."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit_runtime.errors import InputError, UsageError
from edgekit_runtime.fleet.channel import STATES, Channel, Release, channel_file, read_waves
from edgekit_runtime.registry.reference import Reference

DEVICES = [f"box-{number}" for number in range(4000)]


def _release(digit: str = "a") -> Release:
    return Release(Reference("registry.example", "team/fleet", digest=digit * 64), "line 3", f"1.{digit}")


def _channel(**changed: Any) -> Channel:
    whole: dict[str, Any] = {
        "name": "line-3",
        "rollout": 1,
        "created": "2026-11-28T12:00:00+00:00",
        "bundle": _release("a"),
        "before": _release("b"),
        "waves": (5.0, 25.0, 100.0),
        "opened": 1,
        "state": "running",
        "advanced": "2026-11-28T12:30:00+00:00",
        "soak": 60.0,
        "halt_after": 2,
    }
    return Channel(**whole | changed)


@given(
    waves=st.sets(st.floats(0.001, 99.9), max_size=8),
    state=st.sampled_from(STATES),
    first=st.booleans(),
    data=st.data(),
)
@settings(max_examples=50, deadline=None)
def test_a_channel_comes_back_as_it_was_written(
    waves: set[float], state: str, first: bool, data: st.DataObject
) -> None:
    shares = (*sorted(waves), 100.0)
    opened = data.draw(st.integers(1, len(shares)))
    channel = _channel(waves=shares, opened=opened, state=state, before=None if first else _release("b"))
    assert Channel.parse(channel.dump(), "line-3") == channel


def test_waves_have_their_shares_and_are_others_in_each_rollout() -> None:
    def members(channel: Channel, wave: int) -> set[str]:
        return {device for device in DEVICES if channel.wave_of(device) == wave}

    first, second = _channel(), _channel(rollout=2)
    for wave, share in enumerate((0.05, 0.20, 0.75)):
        expected = share * len(DEVICES)
        assert abs(len(members(first, wave)) - expected) < 5 * math.sqrt(expected)
    assert members(first, 0) == members(_channel(opened=3), 0)
    both = members(first, 0) & members(second, 0)
    assert len(both) < 0.2 * len(members(first, 0))


@pytest.mark.parametrize(
    ("state", "opened", "runs_new"), [("running", 1, 0.05), ("running", 2, 0.25), ("running", 3, 1), ("aborted", 3, 0)]
)
def test_devices_of_open_waves_run_the_bundle_and_the_others_what_was_before(
    state: str, opened: int, runs_new: float
) -> None:
    channel = _channel(state=state, opened=opened)
    wanted = [channel.wanted(device) for device in DEVICES]
    assert set(wanted) <= {channel.bundle, channel.before}
    assert abs(wanted.count(channel.bundle) / len(wanted) - runs_new) < 0.03


def test_a_paused_channel_asks_for_nothing() -> None:
    channel = _channel(state="paused", opened=3)
    assert {channel.wanted(device) for device in DEVICES[:50]} == {None}


def test_what_is_no_channel_is_refused() -> None:
    whole = json.loads(_channel().dump())
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"schema": "edgekit.channel/2"}, "schema"),
        ({"channel": "line-4"}, "damaged"),
        ({"rollout": True}, "damaged"),
        ({"rollout": 0}, "damaged"),
        ({"created": None}, "damaged"),
        ({"state": "lost"}, "damaged"),
        ({"advanced": "yesterday"}, "damaged"),
        ({"advanced": "2026-11-28T12:30:00"}, "damaged"),
        ({"soak": -1}, "damaged"),
        ({"soak": True}, "damaged"),
        ({"halt_after": 0}, "damaged"),
        ({"waves": []}, "damaged"),
        ({"waves": [25, 5, 100]}, "damaged"),
        ({"waves": [5, 5, 100]}, "damaged"),
        ({"waves": [5, "25", 100]}, "damaged"),
        ({"waves": [5, 25]}, "damaged"),
        ({"waves": [0, 100]}, "damaged"),
        ({"opened": 4}, "3 waves, '4' of them open"),
        ({"opened": None}, "3 waves"),
        ({"bundle": None}, "names no bundle"),
        ({"before": {}}, "names no bundle"),
        ({"bundle": whole["bundle"] | {"version": "../1"}}, "names no bundle"),
        ({"bundle": whole["bundle"] | {"reference": "oci://registry.example/team/fleet:1"}}, "names no digest"),
        ({"bundle": whole["bundle"] | {"reference": 7}}, "names no bundle in a registry"),
    ]
    for changed, problem in wrong:
        with pytest.raises(InputError, match=problem):
            Channel.parse(json.dumps(whole | changed).encode(), "line-3")
    for content in (b"", b"[]", b"\xff", json.dumps(whole).encode()[:-10]):
        with pytest.raises(InputError):
            Channel.parse(content, "line-3")


def test_waves_and_names_that_are_not_possible_are_refused() -> None:
    assert read_waves("5%, 25,100%") == (5.0, 25.0, 100.0)
    for wrong in ("5%", "x", "", "100%,5%", "nan,100", "0%,100%", "inf"):
        with pytest.raises(UsageError, match="rise to 100%"):
            read_waves(wrong)
    assert channel_file("line-3") == "line-3.json"
    for name in ("", "Line", "a/b", "..", "a" * 59):
        with pytest.raises(UsageError, match="can't be a channel"):
            channel_file(name)
