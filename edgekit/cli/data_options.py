"""Options that several of `edgekit data`'s commands have."""

from __future__ import annotations

from typing import Annotated

import typer

from edgekit.cli.options import read
from edgekit_runtime.cli.arguments import number

Near = Annotated[
    float | None,
    typer.Option(
        parser=read(number(0.7, most=1)),
        metavar="S",
        help="how alike near-duplicates are, 0.7 to 1 (default: 0.9)",
    ),
]
IgnoreNumbers = Annotated[
    bool,
    typer.Option("--ignore-numbers", help="questions that differ in numbers only are near-duplicates too"),
]
