"""What a process that tries an engine on an unknown file may use; it limits itself, before it reads the file."""

from __future__ import annotations

import contextlib
import math
import signal
import sys
from pathlib import Path

SPARE_MEMORY = 2 << 30  # bytes of address space beyond the file: libraries, stacks, what the engine computes in
TIMES_THE_FILE = 3  # it is mapped, copied into the order that kernels want, and laid out once more
KILLED_FIRST = "1000"  # when memory runs out; the highest that Linux knows
_PR_SET_PDEATHSIG = 1  # prctl(2)
OUT_OF_TIME = tuple(getattr(signal, name, None) for name in ("SIGALRM", "SIGXCPU"))


def end_with_parent() -> None:
    """Have Linux end this process when the one that started it has ended, however that was, or this one hangs."""
    if sys.platform.startswith("linux"):
        import ctypes

        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)


def limit_time(seconds: float) -> None:
    """End this process after so many seconds of the clock, or of one core."""
    if hasattr(signal, "alarm"):  # whoever waits for it may be killed
        signal.alarm(math.ceil(seconds) + 1)
    if sys.platform != "win32":
        import resource

        with contextlib.suppress(ValueError, OSError):  # less is allowed already
            resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(seconds) + 1, resource.RLIM_INFINITY))


def limit_memory(size: int) -> None:
    """Let this process have memory for files of ``size`` bytes, leave no core dump, and be the one that is killed."""
    if sys.platform == "win32":
        return
    import resource

    import psutil

    most = psutil.Process().memory_info().vms + TIMES_THE_FILE * size + SPARE_MEMORY
    for what, limit in ((resource.RLIMIT_AS, most), (resource.RLIMIT_CORE, 0)):
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(what, (limit, resource.getrlimit(what)[1]))
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(KILLED_FIRST)
