"""Published models that went the whole way, init to bench: docs/bases.md has them after the table of kinds.

    python benchmarks/real_bases.py NAME LICENSE PROJECT BUNDLE BENCH.json

notes one of them in real_bases.json: what its bundle's proof found, what `edgekit plan` says of it on each device, and
what `edgekit bench` measured here.  `make bases` renders the file; nobody writes a figure by hand.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgekit.project import load_project
from edgekit.targets.devices import device_profiles
from edgekit.targets.plan import make_plan
from edgekit.targets.subject import subject_of_bundle
from edgekit_runtime.formats.bundle import read_manifest

KEPT = Path(__file__).with_suffix(".json")
NO_BOARD = ("phone-browser", "android-termux")  # planned only
MIB = 1024**2


def note(name: str, license_name: str, project: Path, bundle: Path, bench: Path) -> None:
    """Note one model; an earlier note of the same name and type goes."""
    manifest = read_manifest(bundle)
    (adapter,) = manifest.adapters
    assert adapter.quality is not None, "the bundle isn't proven"
    measured = json.loads(bench.read_text(encoding="utf-8"))
    result = next(each for each in measured["results"] if each["adapter"] == adapter.name)
    subject = subject_of_bundle(bundle)
    plans = {profile.name: make_plan(profile, subject) for profile in device_profiles()}
    least = next(iter(plans.values())).plan
    settings = load_project(project)
    steps = settings.adapter(adapter.name).max_steps
    entry = {
        "name": name,
        "license": license_name,
        "parameters": manifest.base.parameters,
        "quantization": manifest.base.quantization,
        "requantized_from": manifest.base.requantized_from,
        "chat_template": str(settings.chat_template) if settings.chat_template else None,
        "base_mib": round((bundle / manifest.base.file).stat().st_size / MIB, 1),
        "planned_base_mib": round(subject.model.file_bytes / MIB, 1),
        "planned_mib": round(least.memory.needed),
        "droppable_mib": round(least.memory.droppable),
        "peak_mib": round(measured["peak_rss_mb"]),
        "fits": [name for name, each in plans.items() if each.plan.memory.fits and name not in NO_BOARD],
        "too_small": [name for name, each in plans.items() if not each.plan.memory.fits and name not in NO_BOARD],
        "adapter": adapter.name,
        "steps": steps,
        **{key: adapter.quality[key] for key in ("rows", "torch_score", "device_score", "base_score", "mean_kl")},
        # Of a quick benchmark the memory counts, the speed doesn't.
        "decode_tps": None if measured["settings"]["quick"] else round(result["decode_tps"]["median"], 1),
        "machine": measured["machine"]["cpu"],
        "threads": measured["settings"]["threads"],
    }
    others = [each for each in noted() if (each["name"], each["quantization"]) != (name, entry["quantization"])]
    KEPT.write_text(json.dumps([*others, entry], indent=1) + "\n", encoding="utf-8")


def noted() -> list[dict[str, Any]]:
    """What was noted."""
    found: list[dict[str, Any]] = json.loads(KEPT.read_text(encoding="utf-8")) if KEPT.is_file() else []
    return found


def section() -> list[str]:
    """Lines of docs/bases.md."""
    head = ("Model", "Parameters", "License", "Type", "File, MiB", "Memory, MiB", "Fits", "Score", "Tokens/s")
    return [
        "## Published models",
        "",
        "These went the whole way with the inspection example: init, train, export, run, bench, plan.",
        "No other published weights were tried.",
        "",
        "* **File** and **Memory**: what `edgekit plan` says (and what the system may show besides, and drop), then",
        "  what was made, and the peak that `edgekit bench` saw.",
        "* **Fits**: device profiles, in their smallest variant, by `edgekit plan`.  Boards were not tried.",
        "* **Score**: on rows that training has not seen: of the bare base, of the adapter in torch, and of the",
        "  adapter on the device's engine.  Trainings were short.",
        "",
        f"| {' | '.join(head)} |",
        f"|{'---|' * len(head)}",
        *(f"| {' | '.join(_cells(entry))} |" for entry in sorted(noted(), key=lambda each: each["parameters"])),
        "",
    ]


def _cells(entry: dict[str, Any]) -> Sequence[str]:
    kind, source = entry["quantization"], entry["requantized_from"]
    template = f", `chat_template: {entry['chat_template']}`" if entry["chat_template"] else ""
    missing = f"; not {', '.join(entry['too_small'])}" if entry["too_small"] else ""
    return (
        entry["name"] + template,
        f"{entry['parameters'] / 1e6:.0f} M",
        entry["license"],
        f"{kind} made from {source}" if source else kind,
        f"{entry['planned_base_mib']:.1f}; {entry['base_mib']:.1f}",
        f"{entry['planned_mib']} (+{entry['droppable_mib']}); {entry['peak_mib']}",
        f"{', '.join(entry['fits']) or 'none'}{missing}",
        f"{entry['base_score']:.1f} → {entry['torch_score']:.1f} torch, {entry['device_score']:.1f} device "
        f"({entry['rows']} rows, {entry['steps'] or 'all'} steps)",
        f"{entry['decode_tps']:.1f} ({entry['machine']}, {entry['threads']} threads)"
        if entry["decode_tps"] is not None
        else "not measured",
    )


if __name__ == "__main__":
    name, license_name, *places = sys.argv[1:]
    note(name, license_name, *map(Path, places))
