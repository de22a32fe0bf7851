"""`edgekit data generate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgekit.cli.data_options import (
    About,
    Adapter,
    AnswerSchema,
    Concurrency,
    Count,
    Endpoint,
    IgnoreNumbers,
    KeyVariable,
    MaxTokens,
    Minutes,
    Model,
    Near,
    Output,
    ResponseFormat,
    Temperature,
    Tokens,
    adapter_of,
    budget_of,
    schema_of,
    written_lines,
)
from edgekit.cli.frame import Json, command
from edgekit.cli.options import ProjectFolder, read
from edgekit_runtime.cli.arguments import whole
from edgekit_runtime.cli.parser import print_json
from edgekit_runtime.errors import UsageError


@command(
    "edgekit data generate --adapter inspection --output more.jsonl --rows 300 --endpoint http://127.0.0.1:8000/v1"
    " --model big --vary 'tone: terse, wordy' --vary 'language: English, Chinese'"
)
def generate(
    output: Output,
    endpoint: Endpoint,
    model: Model,
    rows: Annotated[
        Path | None,
        typer.Argument(parser=Path, metavar="SEEDS", help="rows that show what to write (default: the adapter's)"),
    ] = None,
    count: Count = None,
    tokens: Tokens = None,
    minutes: Minutes = None,
    vary: Annotated[
        list[str] | None,
        typer.Option(metavar="AXIS", help="'tone: polite, angry'; all combinations get as many rows (repeatable)"),
    ] = None,
    plan: Annotated[
        Path | None,
        typer.Option(parser=Path, metavar="FILE", help="YAML with about: text, and vary: {axis: [values]}"),
    ] = None,
    about: About = None,
    schema: AnswerSchema = None,
    avoid: Annotated[
        Path | None,
        typer.Option(
            parser=Path, metavar="FILE", help="rows that no new one comes near to (default: the adapter's eval)"
        ),
    ] = None,
    shots: Annotated[
        int, typer.Option(parser=read(whole(0, 64)), metavar="N", help="seeds shown with each question (default: 4)")
    ] = 4,
    near: Near = None,
    ignore_numbers: IgnoreNumbers = False,
    seed: Annotated[
        int, typer.Option(parser=read(whole(0)), metavar="N", help="of the choice of seeds (default: 0)")
    ] = 0,
    response_format: ResponseFormat = "json_schema",
    temperature: Temperature = None,
    max_tokens: MaxTokens = 1024,
    concurrency: Concurrency = 4,
    key_variable: KeyVariable = None,
    adapter: Adapter = None,
    folder: ProjectFolder = ".",
    as_json: Json = False,
) -> None:
    """Let a teacher write rows like yours, over any OpenAI-compatible endpoint.

    Rows that break the schema, or are near one that is there, are refused.
    """
    from edgekit.curation.generate import Request
    from edgekit.curation.generate import generate as generate_rows
    from edgekit.curation.similar import LIKENESS
    from edgekit.curation.subjects import read_about
    from edgekit.curation.teacher import KEY_VARIABLE, TeacherOptions
    from edgekit.curation.variation import read_axes, read_plan
    from edgekit.data import load_rows

    if count is None and tokens is None and minutes is None:
        raise UsageError("it would never end", "give --rows, --tokens or --minutes")
    told, axes = (None, {}) if plan is None else read_plan(plan)
    axes |= read_axes(vary or [])
    known = None if rows is not None and adapter is None else adapter_of(folder, adapter)
    if known is None and rows is None:
        raise UsageError("there are no seeds", "name a file of rows, or run it in a project")
    ours = None if known is None else known[1]
    data = None if known is None or (rows is not None and avoid is not None) else known[0].data_for(known[1].name)
    seeds = load_rows(rows if rows is not None else data.train)  # type: ignore[union-attr]
    held_out = avoid if avoid is not None else None if data is None else data.eval
    request = Request(
        seeds=seeds,
        about=read_about(about) or told,
        system=None if ours is None else ours.system,
        schema=schema_of(schema, ours),
        axes=axes,
        avoid=[] if held_out is None else load_rows(held_out),
        shots=shots,
        seed=seed,
        likeness=LIKENESS if near is None else near,
        ignore_numbers=ignore_numbers,
    )
    options = TeacherOptions(
        endpoint=endpoint,
        model=model,
        key_variable=key_variable or KEY_VARIABLE,
        response_format=response_format,
        max_tokens=max_tokens,
        temperature=temperature,
    )
    done = generate_rows(request, options, output, budget_of(count, tokens, minutes), concurrency=concurrency)
    print_json(done.as_dict()) if as_json else print(written_lines(done))
