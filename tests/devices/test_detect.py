from __future__ import annotations

import platform
import subprocess

import pytest

from edgekit_devices import fitting_profile, load_profile, parse_probe, probe_script, shortcomings

PI_5 = """architecture=aarch64
board=Raspberry Pi 5 Model B Rev 1.0
part=0xd0b
features=fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp
cores=4
clock_khz=2400000
governor=ondemand
memory_kib=8255000
available_kib=7700000
disk_kib=50000000
os=Debian GNU/Linux 12 (bookworm)
libc=glibc-2.36
python=3.11.2
init=systemd
"""


def test_a_raspberry_pi_5_is_told_by_its_board_and_lacks_nothing() -> None:
    found = parse_probe(PI_5)
    profile = fitting_profile(found)
    assert profile is not None
    assert (profile.name, found.cpu, found.memory_mb, found.clock_mhz) == ("raspberry-pi-5", "Cortex-A76", 8061, 2400)
    assert shortcomings(found, profile) == []


@pytest.mark.parametrize(
    ("board", "features", "libc", "expected"),
    [
        ("Raspberry Pi 4 Model B Rev 1.5", "fp asimd crc32", "glibc-2.36", "raspberry-pi-4"),
        ("Orange Pi 5 Pro", "fp asimd asimddp asimdhp", "glibc-2.35", "rockchip-rk3588"),
        ("Some board", "fp asimd asimddp asimdhp", "glibc-2.36", "generic-arm64"),
        ("", "fp asimd asimddp asimdhp", "", "android-termux"),
    ],
)
def test_other_boards_get_theirs_or_the_general_one(board: str, features: str, libc: str, expected: str) -> None:
    found = parse_probe(f"architecture=aarch64\nboard={board}\nfeatures={features}\nlibc={libc}\n")
    profile = fitting_profile(found)
    assert profile is not None
    assert profile.name == expected


def test_what_a_machine_lacks_is_told_with_the_way_to_mend_it() -> None:
    old = parse_probe(PI_5.replace("3.11.2", "3.9.2").replace("2.36", "2.31").replace("asimddp", ""))
    told = shortcomings(old, load_profile("raspberry-pi-5"))
    assert any("lacks asimddp" in text for text in told)
    assert any("--python 3.9" in text for text in told)
    assert any("glibc-2.31, older than glibc-2.36" in text for text in told)
    other = parse_probe("architecture=x86_64\nfeatures=sse2\nlibc=musl\n")
    assert any("not aarch64" in text for text in shortcomings(other, load_profile("raspberry-pi-5")))
    assert any("no python3" in text for text in shortcomings(other, load_profile("x86-64-baseline")))


def test_the_probe_tells_this_machine_and_is_plain_sh() -> None:
    done = subprocess.run(["sh", "-eu"], input=probe_script(), capture_output=True, text=True, check=True)
    found = parse_probe(done.stdout)
    assert found.architecture == platform.machine()
    assert found.cores
    assert found.memory_mb
    assert found.disk_mb
    assert not done.stderr


def test_other_output_is_refused() -> None:
    with pytest.raises(ValueError, match="architecture"):
        parse_probe("This account is not available.")
