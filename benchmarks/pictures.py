"""Draw the pictures of README.md and docs/ again, from a run of `edgekit demo` on this machine.

python benchmarks/pictures.py            # runs demo and benchmark (8 minutes on an idle machine), draws all
python benchmarks/pictures.py --redraw   # draws what the last run recorded

docs/demo.svg shows what the demo printed, line by line, with its waits cut short.  docs/bench.png
and the table in docs/benchmarks.md come from one benchmark of the demo's bundle.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from edgekit.bench.plot import plot_bench
from edgekit_runtime.bench import table

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
FOLDER = ROOT / "build" / "line-3"  # the demo's project; its bundle gets this name
RECORDING = "recording.json"
BENCH = "bench.json"
TABLE_STARTS, TABLE_ENDS = "<!-- make pictures writes from here -->\n", "<!-- to here -->\n"

COLUMNS, ROWS = 126, 30
SHORTEST_WAIT, LONGEST_WAIT = 0.15, 1.2  # seconds in the picture: to read a line, and instead of a training's minutes
LAST_LOOK = 8.0  # seconds that the end stays, before the recording begins again
CELL, LINE, MARGIN, BAR = 7.25, 17, 16, 30  # pixels
BELOW = 5  # pixels of a line below its letters' feet
BACKGROUND = "#0d1117"
COLORS = {"command": "#7ee787", "stage": "#79c0ff", "text": "#d0d7de"}


@dataclass(frozen=True)
class Line:
    """A printed line, and when it came, in seconds from the start."""

    at: float
    text: str


def main() -> None:
    """Run the demo where asked, and draw."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--redraw", action="store_true", help="draw the last recording, without running anything")
    if not parser.parse_args().redraw:
        _run()
    lines = [Line(*line) for line in json.loads((FOLDER / RECORDING).read_text())]
    (DOCS / "demo.svg").write_text(draw("make demo", lines))
    document = json.loads((FOLDER / BENCH).read_text())
    plot_bench(document, DOCS / "bench.png")
    page = DOCS / "benchmarks.md"
    page.write_text(with_table(page.read_text(), document))


def _run() -> None:
    """The demo, recorded, and then a longer benchmark of its bundle in a process of its own."""
    FOLDER.parent.mkdir(exist_ok=True)
    lines = record([sys.executable, "-m", "edgekit", "demo", FOLDER.name], FOLDER.parent)
    (FOLDER / RECORDING).write_text(json.dumps([[line.at, line.text] for line in lines]))
    command = [sys.executable, "-m", "edgekit_runtime", "bench", str(FOLDER / "dist" / FOLDER.name)]
    bench = [*command, "--repeats", "5", "--output", str(FOLDER / BENCH)]
    subprocess.run(bench, check=True)


def record(command: list[str], folder: Path) -> list[Line]:
    """Run a command in a folder, show what it prints on stdout, and keep that with its times.

    Places in the folder are written from there on, so that a picture shows nobody's home.

    Raises:
        SystemExit: the command failed.
    """
    lines = []
    start = time.monotonic()
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True, env=environment) as run:
        assert run.stdout is not None
        for text in run.stdout:
            shown = text.rstrip("\n").replace(f"{folder.resolve()}/", "").replace(f"{Path(sys.executable).parent}/", "")
            lines.append(Line(time.monotonic() - start, shown))
            print(shown, flush=True)
    if run.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {run.returncode}: no picture was drawn")
    return lines


def draw(command: str, lines: list[Line]) -> str:
    """A recording as an SVG that scrolls like a terminal, and stands at the end where animation is off."""
    shown = [(0.0, f"$ {command}"), *((line.at, part) for line in lines for part in _wrapped(line.text))]
    times, now = [], 0.0
    for (before, _), (after, _) in pairwise([(0.0, ""), *shown]):
        now += min(max(after - before, SHORTEST_WAIT), LONGEST_WAIT)
        times.append(now)
    length = now + LAST_LOOK
    width, height = round(COLUMNS * CELL + 2 * MARGIN), BAR + ROWS * LINE + MARGIN
    # The text moves up once the window is full; a cover hides what hasn't been printed yet.
    scrolled = [-max(count - ROWS, 0) * LINE for count in range(len(times) + 1)]
    covered = [min(count, ROWS) * LINE for count in range(len(times) + 1)]
    rows = "\n".join(
        f'<text x="{MARGIN}" y="{BAR + (index + 1) * LINE}" fill="{_color(text)}">{escape(text)}</text>'
        for index, (_, text) in enumerate(shown)
        if text
    )
    dots = "".join(
        f'<circle cx="{MARGIN + 6 + 18 * index}" cy="{BAR // 2}" r="5.5" fill="{color}"/>'
        for index, color in enumerate(("#ff5f57", "#febc2e", "#28c840"))
    )
    return f"""\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img">
<title>A recording of {escape(command)}; waits are cut short</title>
<style>
text {{ font: 12px ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; white-space: pre }}
{_moves("text", scrolled, times, length)}
{_moves("cover", covered, times, length)}
@media (prefers-reduced-motion: reduce) {{ .text, .cover {{ animation: none }} }}
</style>
<clipPath id="window"><rect y="{BAR + BELOW}" width="{width}" height="{ROWS * LINE}"/></clipPath>
<rect width="{width}" height="{height}" rx="8" fill="{BACKGROUND}"/>
{dots}
<g clip-path="url(#window)">
<g class="text">
{rows}
</g>
<rect class="cover" y="{BAR + BELOW}" width="{width}" height="{ROWS * LINE}" fill="{BACKGROUND}"/>
</g>
</svg>
"""


def _moves(name: str, places: list[int], times: list[float], length: float) -> str:
    """CSS that puts something into each place at its time; without animation it stands in the last one."""
    steps = zip([0.0, *times], places, strict=True)
    frames = "\n".join(f"{100 * at / length:.3f}% {{ transform: translateY({place}px) }}" for at, place in steps)
    return f"""\
.{name} {{ transform: translateY({places[-1]}px); animation: {name} {length:.1f}s step-end infinite }}
@keyframes {name} {{
{frames}
}}"""


def with_table(page: str, document: dict[str, Any]) -> str:
    """The page with this result in the place of the one between the marks.

    Raises:
        ValueError: the page has no such place.
    """
    before, marked, rest = page.partition(TABLE_STARTS)
    _, ended, after = rest.partition(TABLE_ENDS)
    if not marked or not ended:
        raise ValueError(f"the page has no place for the table: {TABLE_STARTS.strip()} … {TABLE_ENDS.strip()}")
    return f"{before}{TABLE_STARTS}\n```\n{table(document).strip()}\n```\n\n{TABLE_ENDS}{after}"


def _wrapped(text: str) -> list[str]:
    """As a terminal breaks lines that are too long."""
    return [text[start : start + COLUMNS] for start in range(0, max(len(text), 1), COLUMNS)]


def _color(text: str) -> str:
    kind = "command" if text.startswith("$ ") else "stage" if text.startswith("== ") else "text"
    return COLORS[kind]


if __name__ == "__main__":
    main()
