"""Showing and comparing measurements."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgekit_runtime.bench.measure import BENCH_SCHEMA
from edgekit_runtime.errors import InputError

MIB = 1024 * 1024
EMULATED = "EMULATED: shows that it works there; the times below are the emulator's and say nothing about the device"
# Column heading, key, digits; bigger is better where the heading ends in /s.
COLUMNS = (
    ("TTFT ms", "ttft_ms", 1),
    ("prefill tok/s", "prefill_tps", 1),
    ("decode tok/s", "decode_tps", 1),
    ("switch ms", "switch_ms", 3),
    ("cold load ms", "cold_load_ms", 2),
)
# The same for caption bundles, of a question about one image.
IMAGE_COLUMNS = (
    ("new image: TTFT ms", "image_ttft_ms", 1),
    ("encode ms", "image_encode_ms", 1),
    ("prefill ms", "image_prefill_ms", 1),
    ("seen image: TTFT ms", "seen_image_ttft_ms", 1),
)


def read_bench(path: Path) -> dict[str, Any]:
    """Read a result file.

    Raises:
        InputError: missing, or not one of ours.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path} can't be read ({error.strerror})", "check the path") from None
    except ValueError as error:
        raise InputError(f"{path} is not JSON ({error})", "give a file that `bench --output` wrote") from None
    if not isinstance(document, dict) or document.get("schema") != BENCH_SCHEMA:
        raise InputError(f"{path} is no benchmark result", "give a file that `bench --output` wrote")
    return document


def table(document: dict[str, Any]) -> str:
    """A result as text: a head, and a row for the base and for each adapter (median, p95)."""
    bundle, settings, machine = document["bundle"], document["settings"], document["machine"]
    head = [EMULATED, ""] if is_emulated(document) else []
    head += [
        f"{bundle['name']} {bundle['quantization']}, base {bundle['base_bytes'] / MIB:.1f} MiB"
        f" on {machine['cpu']}, {settings['threads']} threads, {document['engine']['version']}",
        f"prefill of {settings['prompt_tokens']} tokens, decode of {settings['decode_tokens']},"
        f" {settings['repeats']} repeats: median (p95)",
        "",
    ]
    rows = [["", "file MiB", *(heading for heading, _, _ in COLUMNS), "of roofline"]]
    for result in document["results"]:
        cells = [_cell(result.get(key), digits) for _, key, digits in COLUMNS]
        share = f"{100 * result['decode_roofline_share']:.0f} %" if "decode_roofline_share" in result else ""
        rows.append([result["adapter"], f"{result['file_bytes'] / MIB:.1f}", *cells, share])
    return "\n".join([*head, *aligned(rows), "", *_images(document), *_foot(document)])


def _images(document: dict[str, Any]) -> list[str]:
    """What images cost: nothing of a text bundle."""
    results = [result for result in document["results"] if "image_ttft_ms" in result]
    if not results:
        return []
    rows = [["", *(heading for heading, _, _ in IMAGE_COLUMNS), "encoded again"]]
    for result in results:
        cells = [_cell(result.get(key), digits) for _, key, digits in IMAGE_COLUMNS]
        rows.append([result["adapter"], *cells, str(result.get("seen_image_encoded", ""))])
    size = document["settings"]["image_size"]
    return [f"a question about an image of {size}; seen: another adapter was asked about it before", *aligned(rows), ""]


def _foot(document: dict[str, Any]) -> list[str]:
    """What was measured besides; a target may lack some of it."""
    parts = [
        f"load {document['load_ms']['median']:.0f} ms, verified open {document['open_verified_ms']:.0f} ms",
        f"peak RSS {document['peak_rss_mb']:.0f} MiB" if document.get("peak_rss_mb") else "",
        f"memory bandwidth {document['memory_bandwidth_gbs']:.1f} GB/s" if "memory_bandwidth_gbs" in document else "",
    ]
    lines = [", ".join(filter(None, parts))]
    if "decode_vs_bare" in document:
        ratio = document["decode_vs_bare"]["ratio"]["median"]
        bare = "ONNX Runtime" if document.get("engine", {}).get("name") == "onnxruntime" else "llama_decode"
        lines.append(f"decode against a bare {bare} loop, in pairs: {ratio:.3f}")
    return [*lines, *_conditions(document.get("conditions"))]


def is_emulated(document: dict[str, Any]) -> bool:
    """Whether the times are of an emulator, and so of nobody's interest."""
    return bool(document.get("target", {}).get("emulated"))


def _conditions(conditions: dict[str, Any] | None) -> list[str]:
    """Clock and heat before and after, where the machine tells."""
    if conditions is None:
        return []
    units = {"frequency_mhz": "MHz", "temperature_c": "°C", "throttled": "throttled"}
    before, after = conditions["before"], conditions["after"]
    told = [f"{before[key]} to {after[key]} {unit}" for key, unit in units.items() if before[key] is not None]
    return [f"before to after: {', '.join(told)}, governor {after['governor']}"] if told else []


def compare(a: dict[str, Any], b: dict[str, Any]) -> str:
    """Two results side by side as ratios B/A, after naming what differs between the machines and settings."""
    if is_emulated(a) or is_emulated(b):
        raise InputError("one of the results is of an emulated device: its times mean nothing", "compare measured ones")
    lines = [
        f"{section} {key}: {a[section].get(key)} | {b.get(section, {}).get(key)}"
        for section in ("target", "bundle", "machine", "engine", "settings")
        for key in a.get(section, {})
        if a[section].get(key) != b.get(section, {}).get(key)
    ]
    with_images = all(any("image_ttft_ms" in result for result in each["results"]) for each in (a, b))
    columns = (*COLUMNS, *IMAGE_COLUMNS) if with_images else COLUMNS
    rows = [["", *(heading for heading, _, _ in columns)]]
    others = {result["adapter"]: result for result in b["results"]}
    for result in a["results"]:
        other = others.get(result["adapter"])
        if other is not None:
            rows.append([result["adapter"], *(_ratio(result.get(key), other.get(key)) for _, key, _ in columns)])
    if len(rows) == 1:
        raise InputError("the two results have no adapter in common", "compare results of the same bundle")
    differences = ["differences, A | B:", *(f"  {line}" for line in lines), ""] if lines else []
    return "\n".join([*differences, "medians, B / A:", *aligned(rows)])


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of cells as lines: the first column to the left, figures to the right, a rule under the heading."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(
            cell.ljust(width) if not column else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    return [lines[0], "  ".join("-" * width for width in widths), *lines[1:]]


def _cell(figures: dict[str, Any] | None, digits: int) -> str:
    return "" if figures is None else f"{figures['median']:.{digits}f} ({figures['p95']:.{digits}f})"


def _ratio(a: dict[str, Any] | None, b: dict[str, Any] | None) -> str:
    return "" if not a or not b or not a["median"] else f"{b['median'] / a['median']:.2f}"
