"""Fitting the speed model to published figures, and telling how far off it is on models that the fit didn't use.

``python -m edgekit_devices.calibration`` prints the fit and the table of errors that docs/devices.md shows.  Profiles
have the fit of all models; each error is that of a fit without the model that is predicted.
"""

from __future__ import annotations

import csv
import statistics
import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.resources import files

from edgekit_devices.profiles import Speed
from edgekit_devices.speed import Model, decode_tps, prefill_tps


@dataclass(frozen=True)
class Published:
    """One published figure: ``what`` is "decode" or "prefill" of ``tokens``, at ``tps`` tokens per second."""

    device: str
    name: str
    model: Model
    what: str
    tokens: int
    tps: float
    source: str

    def predicted(self, rate: float) -> float:
        """Tokens per second at ``rate`` GB/s or GFLOP/s; n decoded tokens have n / 2 in the cache on average."""
        speed = Speed("calibrated", rate, rate, "")
        if self.what == "decode":
            return decode_tps(speed, self.model, self.tokens // 2).value
        return prefill_tps(speed, self.model, self.tokens).value


def published() -> list[Published]:
    """All figures of published.csv, each with the address that it is from."""
    text = files(__package__).joinpath("published.csv").read_text(encoding="utf-8")
    return [
        Published(
            row["device"],
            row["model"],
            _model(row),
            row["what"],
            int(row["tokens"]),
            float(row["tps"]),
            row["source"],
        )
        for row in csv.DictReader(text.splitlines())
    ]


def fit(rows: Iterable[Published]) -> dict[tuple[str, str], float]:
    """GB/s and GFLOP/s per (device, what): each model counts once, with the median of its figures."""
    ratios: dict[tuple[str, str], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        ratios[row.device, row.what][row.name].append(row.tps / row.predicted(1.0))
    return {
        key: statistics.median(statistics.median(values) for values in models.values())
        for key, models in ratios.items()
    }


def held_out_errors(rows: Sequence[Published]) -> list[tuple[Published, float]]:
    """Each figure with the error of a fit to all other models on that device; 0.1 is predicted 10 % too fast."""
    errors = []
    for row in rows:
        same = (each for each in rows if (each.device, each.what) == (row.device, row.what))
        (rate,) = fit(each for each in same if each.name != row.name).values()
        errors.append((row, row.predicted(rate) / row.tps - 1))
    return errors


def share_within(errors: Iterable[tuple[Published, float]], what: str, bound: float) -> float:
    """Share of the decode or prefill figures that are at most ``bound`` off."""
    sizes = [abs(error) for row, error in errors if row.what == what]
    return sum(size <= bound for size in sizes) / len(sizes)


def error_table(errors: Iterable[tuple[Published, float]]) -> str:
    """Markdown: per device, figure and source, how far off models are predicted that the fit didn't use."""
    groups: dict[tuple[str, ...], list[tuple[Published, float]]] = defaultdict(list)
    for row, error in errors:
        groups[row.device, row.what, row.source].append((row, error))
    lines = [
        "| Device | Figure | Models | Cases | Median error | 9 of 10 within | Largest | Source |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for (device, what, source), members in sorted(groups.items()):
        sizes = sorted((error for _, error in members), key=abs)
        most = abs(sizes[-(-9 * len(sizes) // 10) - 1])
        names = ", ".join(dict.fromkeys(row.name for row, _ in members))
        lines.append(
            f"| {device} | {what} | {names} | {len(sizes)} | {statistics.median(sizes):+.0%} | {most:.0%} "
            f"| {sizes[-1]:+.0%} | [{_short(source)}]({source}) |"
        )
    return "\n".join(lines)


def _short(source: str) -> str:
    """Owner and repository."""
    return "/".join(source.removeprefix("https://github.com/").split("/")[:2])


def _model(row: dict[str, str]) -> Model:
    read = round(float(row["read_mb"]) * 1e6)
    width = int(row["query_width"])
    parameters = float(row["matmul_mparams"]) * 1e6
    # 64 tokens of cache are below one percent of the weights' bytes: a grouped-query width is close enough.
    return Model(row["quantization"], read, read, parameters, int(row["layers"]), width, width // 2, 0)


def _main() -> None:
    rows = published()
    errors = held_out_errors(rows)
    write = sys.stdout.write
    for (device, what), value in sorted(fit(rows).items()):
        write(f"{device}: {what} {value:.2f} {'GB/s' if what == 'decode' else 'GFLOP/s'}\n")
    write(f"\n{error_table(errors)}\n\n")
    for what in ("decode", "prefill"):
        write(f"{what}: {share_within(errors, what, 0.25):.0%} of the held-out figures within 25 %\n")


if __name__ == "__main__":
    _main()
