"""The `text` block of a task's file: the source of its rows, its columns and its labels."""

import math
import unicodedata
from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, field_validator, model_validator

from pipeline.params.base import Fraction, Model, Policy, RefuseOrDrop, Sha256, Split, form
from pipeline.tables import SPLITS


def is_pattern(place: Path) -> bool:
    """Return whether a path is a pattern such as `parts/*.csv`, and no file or folder itself."""
    return any(letter in "*?[" for letter in str(place)) and not place.exists()


def parts_of(place: Path) -> list[Path]:
    """Return what a folder of parts holds, or the files that a pattern matches, in the order of the names.

    Names that start with _ or . do not count, as in Spark.
    """
    if is_pattern(place):
        root = Path(place.anchor)
        found = [path for path in root.glob(str(place.relative_to(root))) if path.is_file()]
    else:
        found = list(place.iterdir())
    return sorted(path for path in found if not path.name.startswith(("_", ".")))


def exists(place: Path) -> bool:
    """Return whether there is a file or folder, or a file that a pattern matches."""
    return bool(parts_of(place)) if is_pattern(place) else place.exists()


class Columns(Model):
    """The source's names for the columns."""

    sentence1: str
    sentence2: str | None = None
    label: str | None = None

    @model_validator(mode="after")
    def _differ(self) -> Self:
        names = [(key, name) for key, name in self if name is not None]
        for n, (key, name) in enumerate(names):
            if same := next((other for other, of_other in names[:n] if of_other == name), None):
                raise ValueError(f"{same} and {key} are the same column {name!r}; name the column of each")
        return self

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
        None  # a csv, tsv, jsonl or parquet file, a folder of them or a pattern (parts/*.csv.gz), or one for each split
    )
    package: str | None = None  # an installed Python package that contains the file `path`; it is not imported
    path: str | dict[str, str] | None = None  # with `package`: the file inside it, or one for each split
    hub: str | None = None  # a Hugging Face data set, owner/name
    # A logit data set, folder:PATH or hub:OWNER/NAME@REVISION: students train on its rows, and no teacher is loaded.
    logits: Annotated[str, form(r"folder:.+|hub:[^/]+/[^@]+@\w+", "folder:PATH", "hub:OWNER/NAME@REVISION")] | None = (
        None
    )
    config: str | None = None  # with `hub`: the configuration
    revision: str | None = None  # with `hub`: the commit; a branch name can move
    # With `hub`: our split -> its split, if they differ; other splits are not read.
    hub_splits: dict[Split, str] = Field({})
    # The SHA-256 of the file, or of each split's, which is checked; of a folder, that of what `sha256sum *` prints there; of a pattern, that
    # of what `sha256sum PATTERN` prints.
    sha256: Sha256 | dict[str, Sha256] | None = None
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

    @field_validator("files", "path")
    @classmethod
    def _names_files(cls, value: str | dict[str, str] | None) -> str | dict[str, str] | None:
        if value is not None and (not value or (isinstance(value, dict) and not all(value.values()))):
            raise ValueError("names no file; write a file, or one for each split: {train: FILE, validation: FILE}")
        return value

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

    fields: RefuseOrDrop = "refuse"  # a row with too few or too many fields, or a csv field that holds rows
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
    # Shares by which a source of one file, or the file of train, is split by content hash; absent: one file per split.
    splits: dict[Split, Fraction] = Field({})
    bad_rows: BadRows = BadRows()

    @property
    def is_regression(self) -> bool:
        """Whether labels are numbers: `labels` then has one entry, the name of the number."""
        return len(self.labels) == 1

    def shares(self) -> dict[str, float]:
        """Return the shares of `splits` that are not 0, in the order of SPLITS."""
        return {
            split: share for split in SPLITS for given, share in self.splits.items() if given == split and share > 0
        }

    def split_problem(self, given: Collection[str]) -> str | None:
        """Return what is wrong with the splits, and what to write; None if there will be one for training and one for validation.

        :param given: The splits that the source has itself; empty for a source of one file.
        """
        shares = self.shares()
        if twice := [split for split in shares if split in given and split != "train"]:
            return (
                "text.splits: shares are for a source of one file, or for splits that are cut from train; "
                f"this source has its own {twice[0]} split"
            )
        if given and "train" not in given:
            return "text: there is no train split; add a file for it"
        missing = [split for split in ("train", "validation") if split not in {*shares, *given}]
        if not missing:
            return None
        if given:
            remedy = "add a file for it, or cut it from train with text.splits: {train: 0.9, validation: 0.1}"
        else:
            remedy = "write text.splits: {train: 0.8, validation: 0.1, test: 0.1}, or a file for each split"
        return f"text: there is no {missing[0]} split; {remedy}"

    def source_problem(self) -> str | None:
        """Return the `split_problem` of the source or the one in its place, as far as the settings tell its splits."""
        source: Source | None = self.source
        while source is not None:
            given = source.files if source.package is None else source.path
            if given is not None and (problem := self.split_problem([] if isinstance(given, str) else list(given))):
                return problem
            source = source.otherwise
        return None

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
        if self.splits and self.source.logits is not None:
            raise ValueError("splits: a logit data set has its own splits; remove the key")
        if self.splits and not math.isclose(sum(self.splits.values()), 1.0):
            raise ValueError(f"splits: the shares add up to {sum(self.splits.values())}, not to 1")
        return self
