"""`edgekit data label`."""

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
    KeyVariable,
    MaxTokens,
    Minutes,
    Model,
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
from edgekit.cli.options import ProjectFolder
from edgekit_runtime.cli.parser import print_json


@command(
    "edgekit data label prompts.jsonl --output rows.jsonl --endpoint http://127.0.0.1:8000/v1 --model big"
    " --about @guide.txt"
)
def label(
    prompts: Annotated[
        Path, typer.Argument(parser=Path, metavar="PROMPTS", help="rows without answers, of any kind and container")
    ],
    output: Output,
    endpoint: Endpoint,
    model: Model,
    about: About = None,
    schema: AnswerSchema = None,
    ignore: Annotated[
        list[str] | None,
        typer.Option(metavar="COLUMN", help="a column that is no part of prompts (repeatable, * for all)"),
    ] = None,
    count: Count = None,
    tokens: Tokens = None,
    minutes: Minutes = None,
    response_format: ResponseFormat = "json_schema",
    temperature: Temperature = None,
    max_tokens: MaxTokens = 1024,
    concurrency: Concurrency = 4,
    key_variable: KeyVariable = None,
    adapter: Adapter = None,
    folder: ProjectFolder = ".",
    as_json: Json = False,
) -> None:
    """Let a teacher answer prompts, over any OpenAI-compatible endpoint.

    In a project the teacher gets the adapter's system prompt, and its answers are held to the adapter's schema.
    """
    from edgekit.curation.label import Request
    from edgekit.curation.label import label as label_rows
    from edgekit.curation.subjects import read_about
    from edgekit.curation.teacher import KEY_VARIABLE, TeacherOptions
    from edgekit.data import load_prompts

    known = adapter_of(folder, adapter)
    ours = None if known is None else known[1]
    request = Request(
        prompts=load_prompts(prompts, ignore or ()),
        about=read_about(about),
        system=None if ours is None else ours.system,
        schema=schema_of(schema, ours),
    )
    options = TeacherOptions(
        endpoint=endpoint,
        model=model,
        key_variable=key_variable or KEY_VARIABLE,
        response_format=response_format,
        max_tokens=max_tokens,
        temperature=temperature,
    )
    done = label_rows(request, options, output, budget_of(count, tokens, minutes), concurrency=concurrency)
    print_json(done.as_dict()) if as_json else print(written_lines(done))
