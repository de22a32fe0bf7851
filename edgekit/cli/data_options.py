"""Options that several of `edgekit data`'s commands have."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgekit.cli.completion import adapter_names
from edgekit.cli.options import one_of, read
from edgekit_runtime.cli.arguments import number, whole

if TYPE_CHECKING:
    from edgekit.curation.asking import Budget
    from edgekit.curation.run import Written
    from edgekit.project import Adapter as ProjectAdapter
    from edgekit.project import Project

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
Endpoint = Annotated[
    str,
    typer.Option(metavar="URL", help="the teacher: an OpenAI-compatible address, up to /v1"),
]
Model = Annotated[str, typer.Option(metavar="NAME", help="the teacher's name there")]
Output = Annotated[
    Path,
    typer.Option(parser=Path, metavar="FILE", help="JSONL file that rows are appended to; a second run goes on"),
]
KeyVariable = Annotated[
    str | None,
    typer.Option("--key-env", metavar="NAME", help="environment variable with the API key (default: OPENAI_API_KEY)"),
]
About = Annotated[
    str | None,
    typer.Option(metavar="TEXT", help="what the teacher is told of the task; @FILE for the text in a file"),
]
AnswerSchema = Annotated[
    Path | None,
    typer.Option("--schema", parser=Path, metavar="FILE", help="JSON schema of answers (default: the adapter's)"),
]
ResponseFormat = Annotated[
    str,
    typer.Option(
        metavar="FORM",
        help="how the teacher is held to the form: json_schema (default), json_object or none",
        **one_of("--response-format", lambda: ["json_schema", "json_object", "none"]),
    ),
]
Count = Annotated[
    int | None,
    typer.Option("--rows", parser=read(whole()), metavar="N", help="end when FILE has so many rows"),
]
Tokens = Annotated[
    int | None,
    typer.Option(parser=read(whole()), metavar="N", help="end after so many tokens, of all runs on FILE"),
]
Minutes = Annotated[float | None, typer.Option(parser=read(number(above=0)), metavar="N", help="end after so long")]
Concurrency = Annotated[
    int, typer.Option(parser=read(whole(1, 256)), metavar="N", help="questions at a time (default: 4)")
]
Temperature = Annotated[
    float | None,
    typer.Option(parser=read(number(0)), metavar="T", help="of the teacher (default: as it does by itself)"),
]
MaxTokens = Annotated[
    int, typer.Option(parser=read(whole()), metavar="N", help="longest answer of the teacher (default: 1024)")
]
Adapter = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="take system prompt, schema and rows of this adapter (default: the only one)",
        autocompletion=adapter_names,
    ),
]


def adapter_of(folder: str, name: str | None) -> tuple[Project, ProjectAdapter] | None:
    """The project's adapter that rows are for; None where there is no project, and none is asked for."""
    from edgekit.project import PROJECT_FILE, load_project

    if name is None and not (Path(folder) / PROJECT_FILE).exists():
        return None
    project = load_project(folder)
    return project, project.adapter(name)


def schema_of(file: Path | None, adapter: ProjectAdapter | None) -> Mapping[str, Any] | None:
    """The JSON schema that answers have to fit: a file's, else an adapter's, if either is given."""
    from edgekit.curation.subjects import read_schema

    if file is not None:
        return read_schema(file)
    return None if adapter is None else adapter.schema


def budget_of(rows: int | None, tokens: int | None, minutes: float | None) -> Budget:
    """What ends a teacher's work; whatever is reached first."""
    from edgekit.curation.asking import Budget

    return Budget(rows, tokens, None if minutes is None else 60 * minutes)


def written_lines(done: Written) -> str:
    """What a run has left, for a terminal."""
    why = {"rows": "all rows are there", "tokens": "the tokens are spent", "time": "the time is over"}
    why |= {"done": "nothing is left to ask", "refused": "one answer after the other was refused"}
    lines = [f"{done.file}: {done.rows} rows, {done.new} of them new; {why[done.stopped]}"]
    lines += [f"refused {count}: {reason}" for reason, count in done.refused.items()]
    return "\n".join([*lines, f"tokens used so far: {done.tokens}"])
