"""Options that several commands have, and how values are read."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from edgekit.cli.completion import bases, device_names
from edgekit_runtime.cli.arguments import whole
from edgekit_runtime.errors import UsageError
from edgekit_runtime.hints import did_you_mean

if TYPE_CHECKING:
    from edgekit.project import Project

Value = TypeVar("Value")

Bundle = Annotated[Path, typer.Argument(parser=Path, metavar="BUNDLE", help="bundle folder or .tar")]
ProjectFolder = Annotated[str, typer.Option("--project", metavar="DIR", help="project folder (default: this one)")]
OtherBase = Annotated[
    str | None,
    typer.Option(
        "--base",
        metavar="BASE",
        help="a base model other than the project's: the GGUF file that your devices have, for example",
        autocompletion=bases,
    ),
]
Device = Annotated[
    str,
    typer.Option(metavar="D", help="device profile, or a TOML file of your own", autocompletion=device_names),
]
Python = Annotated[str | None, typer.Option(metavar="3.N", help="the device's Python, when it isn't the profile's")]
Ssh = Annotated[str, typer.Option(metavar="COMMAND", help="your own ssh command: 'ssh -i key', for example")]


def read(value: Callable[[str], Value]) -> Callable[[str], Value]:
    """One of :mod:`edgekit_runtime.cli.arguments` as typer's ``parser``."""

    def parse(text: str) -> Value:
        try:
            return value(text)
        except argparse.ArgumentTypeError as error:
            raise typer.BadParameter(str(error)) from None

    return parse


RefitRank = Annotated[
    int | None,
    typer.Option(
        parser=read(whole()),
        metavar="N",
        help="approximate adapters that aren't additive (DoRA) by a LoRA of rank N",
    ),
]


def one_of(what: str, names: Callable[[], list[str]]) -> dict[str, Any]:
    """Settings of an option or argument ``what`` whose value is one of a few names."""

    def parse(text: str) -> str:
        known = names()
        if text not in known:
            raise UsageError(f"there is no {what} {text!r}", did_you_mean(text, known))
        return text

    return {"parser": parse, "autocompletion": names}


def load(folder: str, base: str | None = None) -> Project:
    """The project in ``folder``, on another base where one is given."""
    from edgekit.project import load_project

    project = load_project(folder)
    if base is None:
        return project
    from edgekit.bases.resolve import on_base

    return on_base(project, base)
