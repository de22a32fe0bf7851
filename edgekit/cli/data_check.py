"""`edgekit data check`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgekit.cli.completion import adapter_names
from edgekit.cli.data_options import IgnoreNumbers, Near
from edgekit.cli.frame import Json, command
from edgekit_runtime.cli.parser import print_json
from edgekit_runtime.errors import InputError, UsageError


@command("edgekit data check", "edgekit data check train.jsonl --eval eval.jsonl --page check.html")
def check(
    what: Annotated[
        list[Path] | None,
        typer.Argument(parser=Path, metavar="WHAT", help="a project's folder, or files (default: this project)"),
    ] = None,
    evaluation: Annotated[
        Path | None,
        typer.Option("--eval", parser=Path, metavar="FILE", help="evaluation rows of the files, for leaks"),
    ] = None,
    schema: Annotated[
        Path | None,
        typer.Option("--schema", parser=Path, metavar="FILE", help="JSON schema of answers (default: the adapter's)"),
    ] = None,
    adapter: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="only this adapter's rows", autocompletion=adapter_names),
    ] = None,
    near: Near = None,
    ignore_numbers: IgnoreNumbers = False,
    region: Annotated[
        str | None,
        typer.Option(metavar="CC", help="country of telephone numbers without +: DE, US …"),
    ] = None,
    page: Annotated[
        Path | None, typer.Option(parser=Path, metavar="FILE", help="also write a page, with all findings")
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="exit code 3 if something is to mend")] = False,
    as_json: Json = False,
) -> None:
    """Find duplicates, leaks, contradictions, wrong answers and personal data in rows."""
    from edgekit.curation.check import check as check_rows
    from edgekit.curation.personal import check_region
    from edgekit.curation.similar import LIKENESS
    from edgekit.curation.subjects import file_subject, project_in, project_subjects
    from edgekit_runtime.files.atomic import check_writable, write_whole

    check_region(region)
    if page is not None:
        check_writable(page)
    words = what or []
    project = project_in(words)
    if project is not None:
        for given, name in ((evaluation, "--eval"), (schema, "--schema")):
            if given is not None:
                raise UsageError(f"{name} belongs to files, and this is a project", "name files, or leave it out")
        subjects = project_subjects(project, adapter)
    elif adapter is not None:
        raise UsageError("--adapter names one of a project, and these are files", "leave it out")
    else:
        subjects = [file_subject(words, [] if evaluation is None else [evaluation], schema)]
    likeness = LIKENESS if near is None else near
    checks = [check_rows(each, likeness=likeness, ignore_numbers=ignore_numbers, region=region) for each in subjects]
    to_mend = sum(each.to_mend for each in checks)
    if as_json:
        print_json({"sets": [each.as_dict() for each in checks], "to_mend": to_mend})
    else:
        from edgekit.curation.table import checks_table

        print(checks_table(checks))
    if page is not None:
        from edgekit.curation.page import page as page_of

        write_whole(page, page_of(checks).encode())
    if strict and to_mend:
        many = f"{to_mend} things are" if to_mend > 1 else "1 thing is"
        raise InputError(f"{many} to mend", "see what was found; without --strict this is no error")
