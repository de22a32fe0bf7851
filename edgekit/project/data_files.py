"""``data:`` of a project file: where rows come from, and how their columns are read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated

from pydantic import AfterValidator, Field, PlainValidator, TypeAdapter, ValidationInfo, model_validator
from pydantic.dataclasses import dataclass

from edgekit.data.shapes import ROW_KEYS
from edgekit.data.source import HUB_PREFIX, DataSource, is_hub_name, means_hub
from edgekit.project.fields import (
    CLOSED,
    InProject,
    Key,
    Names,
    NotBlank,
    Text,
    empty_is,
    folder_of,
    path_in,
    refused,
    refused_at,
    text_of,
)
from edgekit_runtime.hints import did_you_mean


@dataclass(frozen=True, config=CLOSED)
class SourceKeys:
    """Data that is named by a mapping: either ``path`` or ``hub``, and which part of it."""

    path: InProject | None = Field(default=None, description="A file, or a folder laid out as a data set of the hub")
    hub: Text | None = Field(default=None, description="owner/name of a data set of the hub")
    config: Text | None = Field(default=None, description="Which configuration of a data set")
    split: Text | None = Field(default=None, description="Which split; without it the usual one of train or eval")
    revision: Text | None = Field(default=None, description="Branch, tag or commit of a data set of the hub")
    files: Text | None = Field(default=None, description="Which files of a data set: a pattern such as data/*.parquet")


_SOURCE_KEYS = TypeAdapter(SourceKeys)
_HELD_OUT = DataSource(held_out=True)  # a part of the training rows
NO_ROWS = DataSource()  # in the place of training rows, of adapters that are not trained


def _source(value: object, info: ValidationInfo) -> DataSource:
    """A path, ``hub:owner/name``, ``owner/name`` that is no path, or a mapping with more of them."""
    if isinstance(value, DataSource):
        return value
    if isinstance(value, Mapping):
        source = DataSource(**vars(_SOURCE_KEYS.validate_python(value, context=info.context)))
    else:
        text, folder = text_of(value), folder_of(info)
        if text.startswith(HUB_PREFIX) or means_hub(text, folder):
            source = DataSource(hub=text)
        else:
            source = DataSource(path=path_in(folder, text))
    if source.hub is not None:
        source = replace(source, hub=source.hub.removeprefix(HUB_PREFIX))
        if not is_hub_name(source.hub or ""):
            raise refused(f"{source.hub!r} is no data set of the hub", "write hub:owner/name")
    if (source.path is None) == (source.hub is None):
        raise refused("it names no data, or two", "give either path or hub")
    if source.path is not None and source.revision is not None:
        raise refused("only a data set of the hub has a revision", "remove revision")
    return source


def _eval_source(value: object, info: ValidationInfo) -> DataSource:
    return _HELD_OUT if value is None else _source(value, info)


def _row_key(key: str) -> str:
    if key not in ROW_KEYS:
        raise refused("no row has this key", did_you_mean(key, ROW_KEYS))
    return key


_Source = Annotated[DataSource, PlainValidator(_source, json_schema_input_type=NotBlank | SourceKeys)]
_EvalSource = Annotated[DataSource, PlainValidator(_eval_source, json_schema_input_type=NotBlank | SourceKeys | None)]
_RowKey = Annotated[Key, AfterValidator(_row_key), Field(json_schema_extra={"enum": list(ROW_KEYS)})]
_Columns = Mapping[_RowKey, Text]


@dataclass(frozen=True, config=CLOSED)
class DataFiles:
    """Training and evaluation rows; ``ignore`` and ``columns`` are part of both sources."""

    train: _Source = Field(
        default_factory=lambda: NO_ROWS,
        description="Rows to train on: a file, a folder, or hub:owner/name; only what isn't trained here needs none",
    )
    eval: _EvalSource = Field(
        default_factory=lambda: _HELD_OUT,
        description="Rows to evaluate on: a file, a folder, or hub:owner/name; else a tenth of train is held out",
    )
    ignore: Names = Field(default=(), description="Columns to leave out; * for all that no row has")
    columns: Annotated[_Columns, empty_is(dict, _Columns)] = Field(
        default_factory=dict, description="Key of rows -> the column of the files that stands for it"
    )

    @model_validator(mode="after")
    def _read_alike(self) -> DataFiles:
        for name, column in self.columns.items():
            place = ("columns", name)
            if column in self.ignore:
                raise refused_at(place, refused(f"the column {column!r} is ignored too", "drop it from ignore"), column)
            if list(self.columns.values()).count(column) > 1:
                raise refused_at(place, refused(f"{column!r} would stand for two keys", "keep one"), column)
        none = self.eval.held_out is not None
        if self.train == NO_ROWS:
            if none:
                raise refused_at(("train",), "missing", self)
            object.__setattr__(self, "eval", replace(self.eval, part="eval", ignore=self.ignore, columns=self.columns))
            return self
        sources = {
            "train": replace(self.train, part="train", held_out=False if none else None),
            "eval": replace(self.train, part="train", held_out=True) if none else replace(self.eval, part="eval"),
        }
        for part, source in sources.items():
            read = replace(source, ignore=self.ignore, columns=self.columns)
            object.__setattr__(self, part, read)  # frozen for everybody else
        return self
