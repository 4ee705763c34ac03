"""The `text` block of a task's file: the source of its rows, its columns and its labels."""

import math
import unicodedata
from pathlib import Path
from typing import Any, Self

from pydantic import Field, field_validator, model_validator

from pipeline.params.base import Fraction, Model, Policy, RefuseOrDrop, Split
from pipeline.tables import SPLITS


def parts_of(folder: Path) -> list[Path]:
    """Return what a folder of parts holds, in the order of the names; names that start with _ or . do not count, as in Spark."""
    return sorted(path for path in folder.iterdir() if not path.name.startswith(("_", ".")))


class Columns(Model):
    """The source's names for the columns."""

    sentence1: str
    sentence2: str | None = None
    label: str | None = None

    @field_validator("*", mode="before")
    @classmethod
    def _named(cls, value: Any) -> Any:
        if isinstance(value, int):
            raise ValueError(
                f'a column is given by its name in the first line of the file; if that is {value}, write "{value}"'
            )
        return value


class Source(Model):
    """The source of the rows: exactly one of `files`, `package`, `hub`, `logits`."""

    files: str | dict[str, str] | None = (
        None  # a csv, tsv, jsonl or parquet file or a folder of them, or one for each split
    )
    package: str | None = None  # an installed Python package that contains the file `path`; it is not imported
    path: str | dict[str, str] | None = None  # with `package`: the file inside it, or one for each split
    hub: str | None = None  # a Hugging Face data set, owner/name
    # A logit data set, folder:PATH or hub:OWNER/NAME@REVISION: students train on its rows, and no teacher is loaded.
    logits: str | None = Field(None, pattern=r"^(folder:.+|hub:[^/]+/[^@]+@\w+)$")
    config: str | None = None  # with `hub`: the configuration
    revision: str | None = None  # with `hub`: the commit; a branch name can move
    # With `hub`: our split -> its split, if they differ; other splits are not read.
    hub_splits: dict[Split, str] = Field({})
    # The SHA-256 of the file, or of each split's, which is checked; of a folder, that of what `sha256sum *` prints there.
    sha256: str | dict[str, str] | None = None
    # With tsv files: true reads quotes as in csv, false keeps them as text; absent: kept, unless they look like those of a csv writer.
    quotes: bool | None = None
    where: dict[str, str | int | float | bool] = Field({})  # keep only the rows with these values in these columns
    columns: Columns | None = None  # the names of this source's columns, if they are not those of text.columns
    licence: str = "unknown"  # the text's licence, for the cards of data sets and students
    otherwise: "Source | None" = None  # with `files`: the source to read if none of the files exists

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        kinds = [name for name in ("files", "package", "hub", "logits") if getattr(self, name) is not None]
        if len(kinds) != 1:
            raise ValueError(f"exactly one of files, package, hub, logits is needed, not {len(kinds)}")
        if (self.package is not None) != (self.path is not None):
            raise ValueError("path goes with package: the file inside it")
        if self.hub is not None and self.revision is None:
            raise ValueError("hub needs a revision (a commit), so that every run reads the same rows")
        if self.hub is None and (self.config is not None or self.revision is not None or self.hub_splits):
            raise ValueError("config, revision and hub_splits go with hub")
        if self.quotes is not None and self.files is None and self.package is None:
            raise ValueError("quotes goes with files and package: whether a tsv is read with quotes, as csv is")
        if self.files is None and self.otherwise is not None:
            raise ValueError("otherwise goes with files: it is read if none of them exists")
        if self.otherwise is not None and self.otherwise.logits is not None:
            raise ValueError("otherwise: a logit data set cannot replace text; write it as the source")
        return self

    @model_validator(mode="after")
    def _splits_match(self) -> Self:
        file = self.files if self.package is None else self.path
        if isinstance(file, dict) and (unknown := set(file) - set(SPLITS)):
            raise ValueError(f"the files' splits are {', '.join(SPLITS)}, not {', '.join(sorted(unknown))}")
        if self.sha256 is None:
            return self
        if file is None:
            raise ValueError("sha256 goes with files and package; revision pins a hub data set")
        if isinstance(file, str) != isinstance(self.sha256, str):
            raise ValueError("sha256 must be one for one file, a mapping of splits for a mapping of splits")
        if isinstance(self.sha256, dict) and (unknown := set(self.sha256) - set(file)):
            raise ValueError(f"sha256 names {', '.join(sorted(unknown))}, for which there is no file")
        return self


class BadRows(Model):
    """What to do with each kind of invalid row. Every kind is always counted and reported with line numbers."""

    fields: RefuseOrDrop = "refuse"  # a row with too few or too many fields
    encoding: RefuseOrDrop = "refuse"  # bytes that are not UTF-8
    unknown_label: RefuseOrDrop = "refuse"  # not one of the task's labels; in a regression, not a finite number
    mask: RefuseOrDrop = "refuse"  # text that contains [MASK], which augmented rows use
    blank: RefuseOrDrop = "drop"  # null or blank text
    repeat: RefuseOrDrop = "drop"  # the same text with the same label again: the first is kept
    # The same text with two labels. keep: one row with the most frequent label, the first on a tie; in a regression, with the mean of
    # its numbers.
    conflict: Policy = "keep"
    leak: RefuseOrDrop = "drop"  # a training or validation text that a later split also has: the later split keeps it


class Text(Model):
    """A task's text and labels. A change runs all stages again, from prepare on."""

    source: Source
    columns: Columns
    # Class names, in the order of the integer labels. A single name is a regression, whose label column has numbers.
    labels: list[str] = Field(min_length=1)
    # The source's value -> class name (null: no label); absent: the values are the names.
    label_values: dict[str, str | None] = Field({})
    # Shares for a source of one file, which is split by content hash; absent: one file per split.
    splits: dict[Split, Fraction] = Field({})
    bad_rows: BadRows = BadRows()

    @property
    def is_regression(self) -> bool:
        """Whether labels are numbers: `labels` then has one entry, the name of the number."""
        return len(self.labels) == 1

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        names = {unicodedata.normalize("NFC", name) for name in self.labels}
        if len(names) != len(self.labels):
            raise ValueError("labels: a name is listed twice")
        if self.label_values and self.is_regression:
            raise ValueError("label_values: goes with class names; one label is a regression, whose column has numbers")
        for value, name in self.label_values.items():
            if name is not None and unicodedata.normalize("NFC", name) not in names:
                raise ValueError(f"label_values.{value}: {name!r} is not one of labels {self.labels}")
        if self.splits and not math.isclose(sum(self.splits.values()), 1.0):
            raise ValueError(f"splits: the shares add up to {sum(self.splits.values())}, not to 1")
        return self
