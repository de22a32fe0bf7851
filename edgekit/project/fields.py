"""What may stand at a key of edgekit.yaml: kinds of values for the models, none of which changes a value's type.

Paths of a file are relative to it: :data:`FOLDER` in the validation context names its folder.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    PlainValidator,
    Strict,
    ValidationError,
    ValidationInfo,
)
from pydantic.types import AllowInfNan
from pydantic_core import InitErrorDetails, PydanticCustomError, PydanticKnownError, core_schema

from edgekit_exporters.hf.known_templates import KNOWN_TEMPLATES
from edgekit_runtime.constraints import check_schema
from edgekit_runtime.errors import InputError
from edgekit_runtime.formats.manifest import AUTO, BASE, NAME_PATTERN
from edgekit_runtime.hints import did_you_mean

FOLDER = "folder"  # of the validation context
REFUSED = "refused"  # type of our own errors: their ctx has problem and hint
UNKNOWN_KEY = "unexpected_keyword_argument"
TARGET_WORDS = ("all-linear", "q/v")

CLOSED = ConfigDict(extra="forbid")  # of each record: a key that nobody knows is a mistake


def refused(problem: str, hint: str) -> PydanticCustomError:
    """An error of ours, as pydantic carries it to whoever reads the file."""
    return PydanticCustomError(REFUSED, "{problem}: {hint}", {"problem": problem, "hint": hint})


def refused_at(place: tuple[int | str, ...], error: PydanticCustomError | str, value: object) -> ValidationError:
    """An error at a key inside the value that a validator looks at; ``error`` is ours or a type of pydantic's."""
    return ValidationError.from_exception_data("edgekit.yaml", [InitErrorDetails(type=error, loc=place, input=value)])


@dataclass(frozen=True)
class OneOf:
    """Text that is one of a few words."""

    words: Collection[str]

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {**handler(schema), "enum": list(self.words)}

    def _check(self, value: str) -> str:
        if value not in self.words:
            raise refused(f"{value!r} is not possible", did_you_mean(value, self.words))
        return value


def matching(pattern: str) -> Any:
    """A rule: the whole text is what ``pattern`` describes."""
    return Field(pattern=f"^(?:{pattern})$")


def empty_is(make: Callable[[], Any], kind: Any) -> BeforeValidator:
    """A rule: a key without a value means ``make()``, as if the key weren't there."""
    return BeforeValidator(lambda value: make() if value is None else value, json_schema_input_type=kind | None)


def with_given(entry: object, place: tuple[str, ...] = (), **given: object) -> object:
    """A record of the file with what the file doesn't say of it itself.

    Raises:
        ValidationError: the file says it.
    """
    if not isinstance(entry, Mapping):
        return entry
    for key in given:
        if key in entry:
            raise refused_at((*place, key), UNKNOWN_KEY, entry[key])
    return {**entry, **given}


RESERVED = (BASE, AUTO)  # names that requests use for something else


def _adapter_name(value: object) -> str:
    if not isinstance(value, str) or not re.fullmatch(NAME_PATTERN, value) or value in RESERVED:
        raise refused(f"{value!r} is no adapter name", f"use a-z, 0-9, . _ - and not {BASE!r} or {AUTO!r}")
    return value


def folder_of(info: ValidationInfo) -> Path:
    """The folder of the file that is read; the current one for values built in code."""
    return Path((info.context or {}).get(FOLDER, "."))


def path_in(folder: Path, text: str) -> Path:
    """A path of a file in ``folder``, resolved.

    Raises:
        PydanticCustomError: it is empty, or can't be a path.
    """
    if not text.strip():  # would be the folder
        raise refused("it is empty", "name a file or folder, or take it out")
    try:
        return (folder / Path(text).expanduser()).resolve()
    except (OSError, RuntimeError, ValueError) as error:  # ~nobody, a NUL, a ring of links
        raise refused(f"{text!r} is not a path ({error})", "write the path of a file or folder") from None


def text_of(value: object) -> str:
    """``value``, which has to be text already.

    Raises:
        PydanticKnownError: it is something else.
    """
    if not isinstance(value, str):
        raise PydanticKnownError("string_type")
    return value


def _path(value: object, info: ValidationInfo) -> Path:
    return value if isinstance(value, Path) else path_in(folder_of(info), text_of(value))


def _template(value: object, info: ValidationInfo) -> Path | str:
    """A known template keeps its name; ``./chatml`` is a file of that name."""
    return value if isinstance(value, str) and value in KNOWN_TEMPLATES else _path(value, info)


def _names(value: object) -> tuple[str, ...]:
    several = value if isinstance(value, list | tuple) else [value]
    if not all(isinstance(item, str) for item in several):
        raise refused(f"{value!r} is no list of names", "ignore: [id, source]")
    return tuple(several)


def _targets(value: object) -> str | tuple[str, ...]:
    if isinstance(value, str) and value:
        return value
    if isinstance(value, list | tuple) and value and all(isinstance(item, str) for item in value):
        return tuple(value)
    words = ", ".join(TARGET_WORDS)
    raise refused(f"{value!r} names no layers", f"use {words}, auto, a regular expression or a list")


def _argument(value: object) -> int | float | str:
    if isinstance(value, str) or (isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)):
        return value
    raise refused(f"{value!r} is no number and no text", "write one, 0.5 say")


def _json_schema(value: object, info: ValidationInfo) -> dict[str, Any] | None:
    if isinstance(value, str):
        path = path_in(folder_of(info), value)
        try:
            value = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise refused(f"{path} can't be read ({error.strerror})", "check its name and permissions") from None
        except (ValueError, RecursionError) as error:
            raise refused(f"{path} is no readable JSON ({error})", "correct the file") from None
    if value is None:
        return None
    if not isinstance(value, dict):
        raise refused("it has to be a JSON schema", "give the schema, or a path to one")
    try:
        plain: dict[str, Any] = json.loads(json.dumps(value))
    except (TypeError, ValueError, RecursionError) as error:  # a date, say
        raise refused(f"it is no JSON ({error})", "put dates and the like in quotes") from None
    try:
        check_schema(plain)
    except InputError as error:
        raise refused(error.problem, error.hint or "change it") from None
    return plain


Text = Annotated[str, Strict()]
NotBlank = Annotated[str, Field(pattern=r"\S")]  # in the JSON Schema: what can be a path
Whole = Annotated[int, Strict()]
Number = Annotated[float, Strict(), AllowInfNan(False)]
Switch = Annotated[bool, Strict()]
Key = Annotated[str, BeforeValidator(str)]  # YAML reads 0 and yes as something else than text; as a key it is text
AdapterName = Annotated[
    str,
    BeforeValidator(_adapter_name),
    # allOf: for a pattern beside it, pydantic would write patternProperties, which refuse no other names
    Field(json_schema_extra={"allOf": [{"pattern": f"^(?:{NAME_PATTERN})$"}, {"not": {"enum": list(RESERVED)}}]}),
]
Template = Annotated[Path | str, PlainValidator(_template, json_schema_input_type=NotBlank)]
InProject = Annotated[Path, PlainValidator(_path, json_schema_input_type=NotBlank)]
Names = Annotated[tuple[str, ...], PlainValidator(_names, json_schema_input_type=str | list[str])]
_Some = Field(min_length=1)
Targets = Annotated[
    str | tuple[str, ...],
    PlainValidator(_targets, json_schema_input_type=Annotated[str, _Some] | Annotated[list[str], _Some]),
]
Argument = Annotated[int | float | str, PlainValidator(_argument, json_schema_input_type=float | str)]
JsonSchema = Annotated[
    dict[str, Any] | None,
    PlainValidator(_json_schema, json_schema_input_type=dict[str, Any] | NotBlank | None),
]
