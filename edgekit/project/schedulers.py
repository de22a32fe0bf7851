"""Learning rate schedulers of transformers, and the arguments that each takes."""

from __future__ import annotations

from collections.abc import Mapping

from edgekit.project.fields import refused, refused_at
from edgekit_runtime.hints import did_you_mean

# scheduler -> the arguments that it takes besides steps, as transformers names them
SCHEDULERS: Mapping[str, tuple[str, ...]] = {
    "linear": (),
    "cosine": ("num_cycles",),
    "constant": (),
    "constant_with_warmup": (),
    "polynomial": ("lr_end", "power"),
    "cosine_with_restarts": ("num_cycles",),
    "cosine_with_min_lr": ("num_cycles", "min_lr", "min_lr_rate"),
    "inverse_sqrt": ("timescale",),
    "warmup_stable_decay": (
        "num_decay_steps",
        "num_stable_steps",
        "warmup_type",
        "decay_type",
        "min_lr_ratio",
        "num_cycles",
    ),
}
NEEDED_ARGUMENTS = {  # one of these
    "cosine_with_min_lr": ("min_lr", "min_lr_rate"),
    "warmup_stable_decay": ("num_decay_steps",),
}
_KEY = "lr_scheduler_kwargs"


def check_arguments(scheduler: str, arguments: Mapping[str, object]) -> None:
    """Look whether a scheduler can have these arguments.

    Raises:
        ValidationError: it has no such argument, or needs one that isn't there.
    """
    known = SCHEDULERS[scheduler]
    for key, value in arguments.items():
        if key not in known:
            hint = did_you_mean(key, known) if known else "leave it out"
            raise refused_at((_KEY, key), refused(f"scheduler: {scheduler} has no such argument", hint), value)
    needed = NEEDED_ARGUMENTS.get(scheduler, ())
    if needed and not any(key in arguments for key in needed):
        error = refused(f"{scheduler} needs {' or '.join(needed)}", f"{_KEY}: {{{needed[-1]}: …}}")
        raise refused_at(("scheduler",), error, scheduler)
