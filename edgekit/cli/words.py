"""The words of a command line, looked at before typer reads them: what is wrong with them is told as all errors are."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from edgekit_runtime.errors import UsageError
from edgekit_runtime.hints import nearest

_NEGATIVE = re.compile(r"-\d+|-\d*\.\d+")


def checked_words(
    words: Sequence[str], params: Iterable[Any], program: str, *, before_command: bool = False
) -> list[str]:
    """The words, with options spelt out that were shortened.

    Args:
        words: what was typed after ``program``.
        params: typer's parameters of the command.
        program: the program and the command, as errors name them.
        before_command: only look at options before the first word that is none; what follows is a command's.

    Raises:
        UsageError: an option that the command hasn't, one without its value, or a flag with one.
    """
    takes_value = {
        spelling: not param.is_flag
        for param in params
        if param.param_type_name == "option"
        for spelling in (*param.opts, *param.secondary_opts)
    }
    return list(_checked(iter(words), takes_value, program, before_command))


def _checked(words: Iterator[str], takes_value: dict[str, bool], program: str, before_command: bool) -> Iterator[str]:
    for word in words:
        if word == "--" or (before_command and not _is_option(word)):
            yield word
            yield from words
            return
        if not _is_option(word):
            yield word
            continue
        given, equals, value = word.partition("=")
        name = _spelt_out(given, takes_value, program, before_command)
        if equals and not takes_value[name]:
            raise UsageError(f"{name} takes no value, but {value!r} is given", f"see `{program} --help`")
        yield name + equals + value
        if takes_value[name] and not equals:
            value = next(words, "--")
            if _is_option(value) and not _NEGATIVE.fullmatch(value):
                raise UsageError(f"argument {name}: expected one argument", f"see `{program} --help`")
            yield value


def _is_option(word: str) -> bool:
    return word.startswith("-") and word != "-" and " " not in word


def _spelt_out(given: str, known: Iterable[str], program: str, before_command: bool) -> str:
    known = list(known)
    if given in known:
        return given
    meant = [name for name in known if given.startswith("--") and name.startswith(given)]
    if len(meant) == 1:
        return meant[0]
    if meant:
        raise UsageError(f"{given} may be {' or '.join(meant)}", "spell it out")
    near = nearest(given, known) if given.startswith("--") else None
    if near is not None:
        raise UsageError(f"{program} has no option {given}", f"did you mean {near}?")
    after = "put options after the command; " if before_command else ""
    raise UsageError(f"{program} has no option {given}", f"{after}see `{program} --help`")
