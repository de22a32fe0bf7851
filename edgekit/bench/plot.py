"""A benchmark result as a picture."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from edgekit_runtime.bench.report import is_emulated
from edgekit_runtime.errors import InputError
from edgekit_runtime.files.atomic import write_whole

# Panel title, key of the figure.
PANELS = (
    ("decode, tokens/s", "decode_tps"),
    ("prefill, tokens/s", "prefill_tps"),
    ("time to first token, ms", "ttft_ms"),
    ("switch to the adapter, ms", "switch_ms"),
)


def plot_bench(document: dict[str, Any], path: Path) -> None:
    """Draw medians with a whisker to the slow end (p95), one bar for the base and for each adapter.

    Raises:
        InputError: a result of an emulator, whose times are nobody's.
    """
    if is_emulated(document):
        raise InputError("the result is of an emulated device: its times mean nothing", "plot a measured one")
    from matplotlib.figure import Figure

    results = document["results"]
    figure = Figure(figsize=(10, 1.6 + 0.9 * len(results)), layout="constrained", dpi=120)
    panels = figure.subplots(1, len(PANELS), squeeze=False)[0]
    for axes, (title, key) in zip(panels, PANELS, strict=True):
        shown = [result for result in results if key in result]
        names = [result["adapter"] for result in shown]
        medians = [result[key]["median"] for result in shown]
        spread = [abs(result[key]["p95"] - result[key]["median"]) for result in shown]
        slower_is_less = key.endswith("_tps")
        whiskers = [spread, [0.0] * len(shown)] if slower_is_less else [[0.0] * len(shown), spread]
        bars = axes.barh(names, medians, xerr=whiskers, color="#3b6ea5", ecolor="#888888", height=0.55)
        axes.bar_label(bars, labels=[f" {value:.3g}" for value in medians], label_type="center", color="white")
        axes.set_title(title, fontsize=10)
        axes.invert_yaxis()
        axes.set_xlim(left=0)
        axes.spines[["top", "right"]].set_visible(False)
        if axes is not panels[0] and len(shown) == len(results):
            axes.set_yticklabels([])
    bundle, machine = document["bundle"], document["machine"]
    threads = document["settings"]["threads"]
    what = f"{bundle['name']} {bundle['quantization']} on {machine['cpu']}, {threads} threads"
    figure.suptitle(f"{what}: medians, lines to p95", fontsize=11)
    picture = io.BytesIO()
    figure.savefig(picture, format=path.suffix.removeprefix(".") or "png")
    write_whole(path, picture.getvalue())
