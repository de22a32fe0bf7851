"""Modelfiles, by which Ollama makes models: read into instructions, each with its line.

The format is Ollama's (docs/modelfile.mdx there): one instruction a line, whatever its case, ``#`` before comments.  A
value that begins with a quote, or with three, goes on over lines until it ends with as many.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edgekit_runtime.errors import InputError, shown
from edgekit_runtime.hints import did_you_mean

LARGEST = 4 * 1024 * 1024  # bytes
FROM, ADAPTER, PARAMETER, TEMPLATE = "FROM", "ADAPTER", "PARAMETER", "TEMPLATE"
SYSTEM, MESSAGE, LICENSE = "SYSTEM", "MESSAGE", "LICENSE"
DRAFT, RENDERER, PARSER, REQUIRES = "DRAFT", "RENDERER", "PARSER", "REQUIRES"
INSTRUCTIONS = (FROM, ADAPTER, PARAMETER, TEMPLATE, SYSTEM, MESSAGE, LICENSE, DRAFT, RENDERER, PARSER, REQUIRES)
ROLES = ("system", "user", "assistant")
_NAMED = {PARAMETER: re.compile(r"(\w+)[ \t]+"), MESSAGE: re.compile(r"([A-Za-z]+)[ \t]+")}
_INSTRUCTION = re.compile(r"([A-Za-z]+)[ \t]")
_LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n|$)")
_QUOTES = ('"""', '"')
_MARKS = ((b"\xef\xbb\xbf", "utf-8"), (b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be"))


@dataclass(frozen=True)
class Instruction:
    """One instruction.

    Attributes:
        line: where it begins, from 1.
        name: one of :data:`INSTRUCTIONS`.
        value: without the quotes around it.
        key: the parameter of a PARAMETER, the role of a MESSAGE; else empty.
    """

    line: int
    name: str
    value: str
    key: str = ""


def read_modelfile(path: Path) -> list[Instruction]:
    """Read a Modelfile: UTF-8, or UTF-16 with a mark at its beginning.

    Raises:
        InputError: it can't be read, is no Modelfile, or has no FROM; the message names the line.
    """
    try:
        with path.open("rb") as stream:
            data = stream.read(LARGEST + 1)
    except OSError as error:
        raise InputError(f"{path} can't be read ({error.strerror})", "give a Modelfile, or the folder of one") from None
    if len(data) > LARGEST:
        raise InputError(f"{path} has more than {LARGEST // 2**20} MiB", "give a Modelfile, not a model's file")
    mark, encoding = next((each for each in _MARKS if data.startswith(each[0])), (b"", "utf-8"))
    try:
        text = data[len(mark) :].decode(encoding)
    except UnicodeDecodeError:
        raise InputError(f"{path} is no text", "give a Modelfile, not a model's file") from None
    return parse(text, str(path))


def parse(text: str, where: str) -> list[Instruction]:
    """The instructions of a Modelfile's text; ``where`` names it in errors.

    Raises:
        InputError: as :func:`read_modelfile`.
    """
    found = list(_instructions(text, where))
    if not any(each.name == FROM for each in found):
        raise InputError(f"{where} has no FROM", "name the base model: FROM ./model.gguf")
    return found


def _instructions(text: str, where: str) -> Iterator[Instruction]:
    lines = enumerate((found[0] for found in _LINE.finditer(text) if found[0]), 1)
    for number, line in lines:
        stripped = line.lstrip(" \t")
        if not stripped.strip() or stripped.startswith("#"):
            continue
        match = _INSTRUCTION.match(stripped)
        name = match[1].upper() if match else ""
        if match is None or name not in INSTRUCTIONS:
            word = stripped.split()[0]
            if word.upper() in INSTRUCTIONS:
                raise InputError(f"{where}:{number}: {word} has no value", "write it behind, on the same line")
            raise InputError(f"{where}:{number}: {shown(word)} is no instruction", did_you_mean(word, INSTRUCTIONS))
        rest, key = stripped[match.end() :].lstrip(" \t"), ""
        if name in _NAMED:
            named = _NAMED[name].match(rest)
            if named is None:
                needs = "a name and a value" if name == PARAMETER else "a role and a text"
                raise InputError(f"{where}:{number}: {name} needs {needs}", f"see {name} in Ollama's reference")
            rest, key = rest[named.end() :], named[1]
        if name == MESSAGE and key not in ROLES:
            raise InputError(f"{where}:{number}: {shown(key)} is no role", f"use one of {', '.join(ROLES)}")
        yield Instruction(number, name, _value(rest, lines, f"{where}:{number}"), key)


def _value(begun: str, lines: Iterator[tuple[int, str]], where: str) -> str:
    """A value that has begun; further lines of it are taken from ``lines``."""
    quote = next((each for each in _QUOTES if begun.startswith(each)), "")
    parts = [begun]
    size = len(begun.strip())
    while not (size >= 2 * len(quote) and parts[-1].rstrip().endswith(quote)):
        _, line = next(lines, (0, None))
        if line is None:
            raise InputError(f"{where}: its quotes are not closed", f"end the value with {quote}")
        size += len(line.rstrip())
        parts.append(line)
    text = "".join(parts).strip()
    return text[len(quote) : len(text) - len(quote)]
