"""Facts of the machine that measurements depend on."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

CPU_INFO = Path("/proc/cpuinfo")
CPU_FOLDER, THERMAL_FOLDER = Path("/sys/devices/system/cpu"), Path("/sys/class/thermal")
GOVERNOR = CPU_FOLDER / "cpu0/cpufreq/scaling_governor"
# Instruction sets that llama.cpp has kernels for, as Linux names them in /proc/cpuinfo.
RELEVANT_FLAGS = (
    *("avx", "avx2", "fma", "f16c", "avx512f", "avx512_vnni", "avx512_bf16", "avx_vnni", "amx_int8"),
    *("asimd", "asimddp", "asimdhp", "i8mm", "bf16", "sve", "sve2"),
)
MOST_PARALLEL = 64  # requests at once
MOST_THREADS = 512  # of llama.cpp: GGML_MAX_N_THREADS
BANDWIDTH_BYTES = 256 * 1024 * 1024  # far beyond any last-level cache of the machines meant here
BANDWIDTH_REPEATS = 5


def decode_threads() -> int:
    """Threads that decode fastest as a rule: the physical cores that this process may use."""
    import psutil

    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(psutil.cpu_count(logical=False) or allowed, allowed))


def describe() -> dict[str, Any]:
    """CPU, cores, memory and system, for the head of a report."""
    import psutil

    return {
        "cpu": _cpu_name(),
        "architecture": platform.machine(),
        "flags": _flags(),
        "cores": psutil.cpu_count(logical=False),
        "threads": os.cpu_count(),
        "memory_mb": psutil.virtual_memory().total // (1024 * 1024),
        "system": platform.platform(),
        "python": platform.python_version(),
        "governor": GOVERNOR.read_text().strip() if GOVERNOR.exists() else None,
    }


def conditions() -> dict[str, Any]:
    """What speed depends on and what changes under load: None where the system doesn't tell.

    Returns:
        ``frequency_mhz`` (the slowest core now), ``highest_mhz``, ``governor``, ``temperature_c`` (the hottest zone),
        and on a Raspberry Pi ``throttled``, the flags of ``vcgencmd get_throttled``.
    """
    now = _numbers(CPU_FOLDER.glob("cpu[0-9]*/cpufreq/scaling_cur_freq"))
    highest = _numbers(CPU_FOLDER.glob("cpu[0-9]*/cpufreq/cpuinfo_max_freq"))
    zones = _numbers(THERMAL_FOLDER.glob("thermal_zone*/temp"))
    return {
        "frequency_mhz": min(now) / 1000 if now else None,
        "highest_mhz": max(highest) / 1000 if highest else None,
        "governor": GOVERNOR.read_text().strip() if GOVERNOR.exists() else None,
        "temperature_c": max(zones) / 1000 if zones else None,
        "throttled": _throttled(),
    }


def _numbers(paths: Iterable[Path]) -> list[int]:
    values = []
    for path in paths:
        with contextlib.suppress(OSError, ValueError):  # some sensors answer only at times
            values.append(int(path.read_text()))
    return values


def _throttled() -> str | None:
    if shutil.which("vcgencmd") is None:
        return None
    done = subprocess.run(["vcgencmd", "get_throttled"], capture_output=True, text=True, check=False)
    return done.stdout.strip().partition("=")[2] or None


def peak_rss_mb(process: int | str = "self") -> float:
    """The largest resident memory that this process has had, MiB; on Linux also of another one."""
    import resource
    import sys

    # On Linux getrusage also counts what the parent had before it started us.
    with contextlib.suppress(OSError, StopIteration):
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM:")).split()[1]) / 1024
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB on Linux
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / (1024 * 1024)


def rss_mb() -> float:
    """Memory that this process has in RAM now, MiB."""
    import psutil

    return float(psutil.Process().memory_info().rss) / 1024**2


def memory_bandwidth(threads: int) -> float:
    """Bytes per second that ``threads`` threads read from memory together: the best of a few passes.

    Each thread sums its own share of a buffer much larger than the caches.  Decoding reads all weights once per
    token in the same way, so this is the roof of decode speed.
    """
    from concurrent.futures import ThreadPoolExecutor

    import numpy as np

    shares = [np.ones(BANDWIDTH_BYTES // threads // 8, dtype=np.int64) for _ in range(threads)]
    best = float("inf")
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(BANDWIDTH_REPEATS):
            start = time.perf_counter()
            list(pool.map(np.sum, shares))
            best = min(best, time.perf_counter() - start)
    return sum(share.nbytes for share in shares) / best


def _cpu_fields() -> dict[str, str]:
    try:
        lines = CPU_INFO.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return {}
    pairs = (line.partition(":") for line in lines if ":" in line)
    return {key.strip(): value.strip() for key, _, value in pairs}


def _cpu_name() -> str:
    fields = _cpu_fields()
    board = Path("/proc/device-tree/model")
    if board.exists():
        return board.read_text(errors="replace").strip("\0 \n")
    return fields.get("model name") or platform.processor() or platform.machine()


def _flags() -> list[str]:
    fields = _cpu_fields()
    present = set((fields.get("flags") or fields.get("Features") or "").split())
    return [flag for flag in RELEVANT_FLAGS if flag in present]
