"""The `text` block of a task's file: the source of its rows, its columns and its labels."""

import math
import unicodedata
from collections.abc import Collection, Iterable
from typing import Annotated, Any, Self

from pydantic import Field, field_validator, model_validator

from pipeline.params.base import Fraction, Model, Policy, RefuseOrDrop, Sha256, Split, form
from pipeline.places.place import Place, matches
from pipeline.places.remote import Remote
from pipeline.tables import SPLITS


def is_pattern(place: Place) -> bool:
    """Return whether a path is a pattern such as `parts/*.csv`, and no file or folder itself. A web server lists no files."""
    if isinstance(place, Remote) and place.is_http:
        return False
    return any(letter in "*?[" for letter in str(place)) and not place.exists()


def parts_of(place: Place) -> list[Place]:
    """Return what a folder of parts holds, or the files that a pattern matches, in the order of the names.

    Names that start with _ or . do not count, as in Spark.
    """
    found: Iterable[Place] = matches(place) if is_pattern(place) else place.iterdir()
    parts = (path for path in found if not path.name.startswith(("_", ".")))
    return sorted(parts, key=lambda path: path.name)  # on Windows, paths are compared without case


def exists(place: Place) -> bool:
    """Return whether there is a file or folder, or a file that a pattern matches."""
    return bool(parts_of(place)) if is_pattern(place) else place.exists()


class Columns(Model):
    """The source's names for the columns."""

    sentence1: str
    """The column of the text, or of the first sentence of a pair."""
    sentence2: str | None = None
    """The column of the second sentence of a pair; absent: single sentences."""
    label: str | None = None
    """The column of the label."""

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

    files: str | dict[str, str] | None = None
    """A csv, tsv, jsonl or parquet file, a folder of them or a pattern (`parts/*.csv.gz`), or one for each split. Each may be a URL:
    `s3://`, `gs://`, `az://`, `hf://`, `https://`."""
    package: str | None = None
    """An installed Python package that contains the file `path`; it is not imported."""
    path: str | dict[str, str] | None = None
    """With `package`: the file inside it, or one for each split."""
    hub: str | None = None
    """A data set of the Hugging Face Hub, `OWNER/NAME`."""
    logits: Annotated[str, form(r"folder:.+|hub:[^/]+/[^@]+@\w+", "folder:PATH", "hub:OWNER/NAME@REVISION")] | None = (
        None
    )
    """A logit data set, `folder:PATH` or `hub:OWNER/NAME@REVISION`: students train on its rows, and no teacher is loaded."""
    config: str | None = None
    """With `hub`: the configuration."""
    revision: str | None = None
    """With `hub`: the commit; a branch name can move."""
    hub_splits: dict[Split, str] = Field({})
    """With `hub`: from the splits here to those of the data set, if they differ; other splits are not read."""
    sha256: Sha256 | dict[str, Sha256] | None = None
    """The SHA-256 of the file, or of the file of each split, which is checked; of a folder, that of what `sha256sum *` prints there.
    Needed for a URL whose server states neither an ETag nor a date."""
    quotes: bool | None = None
    """With tsv files: `true` reads quotes as in csv, `false` keeps them as text. Absent: quotes are kept, and a file that looks as if a
    csv writer wrote it is refused."""
    where: dict[str, str | int | float | bool] = Field({})
    """Keep only the rows with these values in these columns."""
    columns: Columns | None = None
    """The names of this source's columns, if they are not those of `text.columns`."""
    licence: str = "unknown"
    """The text's licence, for the cards of data sets and students."""
    otherwise: "Source | None" = None
    """With `files`: the source to read if none of the files exists."""

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

    fields: RefuseOrDrop = "refuse"
    """A row with too few or too many fields, or a csv field that holds rows."""
    encoding: RefuseOrDrop = "refuse"
    """Bytes that are not UTF-8."""
    unknown_label: RefuseOrDrop = "refuse"
    """A label that is not one of the task's; in a regression, not a finite number."""
    mask: RefuseOrDrop = "refuse"
    """Text that contains `[MASK]`, which augmented rows use."""
    blank: RefuseOrDrop = "drop"
    """Null or blank text."""
    repeat: RefuseOrDrop = "drop"
    """The same text with the same label again: the first is kept."""
    conflict: Policy = "keep"
    """The same text with two labels. `keep`: one row with the most frequent label, the first on a tie; in a regression, with the mean of its
    numbers."""
    leak: RefuseOrDrop = "drop"
    """A training or validation text that is also in a later split: the later split keeps it."""


class Text(Model):
    """A task's text and labels. A change runs all stages again, from prepare on."""

    source: Source
    """Where the rows come from."""
    columns: Columns
    """The names of the columns in the source."""
    labels: list[str] = Field(min_length=1)
    """Class names, in the order of the integer labels. A single name is a regression, whose label column has numbers."""
    label_values: dict[str, str | None] = Field({})
    """From the values in the label column to class names (`null`: no label); absent: the values are the names."""
    splits: dict[Split, Fraction] = Field({})
    """Shares by which a source of one file, or the file of train, is split by content hash; absent: one file per split."""
    bad_rows: BadRows = BadRows()
    """What to do with invalid rows."""

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
