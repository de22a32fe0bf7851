"""`edgekit data split`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgekit.cli.data_options import IgnoreNumbers, Near
from edgekit.cli.frame import Json, command
from edgekit.cli.options import read
from edgekit_runtime.cli.arguments import number, whole
from edgekit_runtime.cli.parser import print_json


@command("edgekit data split rows.jsonl --eval 0.1", "edgekit data split rows.csv --eval 40 --by verdict --group order")
def split(
    rows: Annotated[Path, typer.Argument(parser=Path, metavar="ROWS", help="a file of rows")],
    evaluation: Annotated[
        float,
        typer.Option(
            "--eval",
            parser=read(number(above=0)),
            metavar="SHARE",
            help="share of rows for evaluation, or their number from 1 on (default: 0.1)",
        ),
    ] = 0.1,
    output: Annotated[
        Path | None,
        typer.Option(parser=Path, metavar="DIR", help="folder of the two files (default: that of ROWS)"),
    ] = None,
    by: Annotated[
        str | None,
        typer.Option(metavar="FIELD", help="stratify by this field of answers or column (default: found)"),
    ] = None,
    group: Annotated[
        str | None,
        typer.Option(metavar="COLUMN", help="rows with the same value here stay on one side"),
    ] = None,
    ignore: Annotated[
        list[str] | None,
        typer.Option(metavar="COLUMN", help="a column that is no part of rows; it is kept (repeatable, * for all)"),
    ] = None,
    near: Near = None,
    ignore_numbers: IgnoreNumbers = False,
    seed: Annotated[
        int, typer.Option(parser=read(whole(0)), metavar="N", help="the same seed, the same split (default: 0)")
    ] = 0,
    force: Annotated[bool, typer.Option("--force", help="replace files that are there")] = False,
    as_json: Json = False,
) -> None:
    """Set rows aside for evaluation: stratified, seeded, near-duplicates on one side."""
    from edgekit.curation.similar import LIKENESS
    from edgekit.curation.split import split_file
    from edgekit.curation.table import split_table

    done = split_file(
        rows,
        evaluation,
        folder=output,
        by=by,
        group=group,
        seed=seed,
        likeness=LIKENESS if near is None else near,
        ignore_numbers=ignore_numbers,
        ignore=ignore or (),
        force=force,
    )
    print_json(done.as_dict()) if as_json else print(split_table(done))
