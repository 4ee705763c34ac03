"""The `text` block of a task's file: the source of its rows, its columns and its labels."""

import math
import re
import unicodedata
from collections.abc import Collection, Iterable
from typing import Annotated, Any, Self

from pydantic import Field, field_validator, model_validator

from pipeline.errors import InputError
from pipeline.params.base import Float, Fraction, Model, Policy, Positive, RefuseOrDrop, Sha256, Split, form
from pipeline.places.place import Place, matches
from pipeline.places.remote import Remote
from pipeline.tables import SPLITS


def is_pattern(place: Place) -> bool:
    """Return whether a path is a pattern such as `parts/*.csv`, and no file or folder itself. A web server lists no files."""
    if isinstance(place, Remote) and place.is_http:
        return False
    return any(letter in "*?[" for letter in str(place)) and not place.exists()


def parts_of(place: Place) -> list[Place]:
    """Return what a folder of parts holds, or what `matches` returns of a pattern, in the order of the names.

    Names that start with _ or . do not count, as in Spark.

    :raises InputError: If the place is neither a pattern nor a folder.
    """
    if not (pattern := is_pattern(place)) and not place.is_dir():
        raise InputError(f"{place}: neither a file nor a folder, or a broken link; name a file or a folder of files")
    found: Iterable[Place] = matches(place) if pattern else place.iterdir()
    parts = (path for path in found if not path.name.startswith(("_", ".")))
    return sorted(parts, key=lambda path: path.name)  # on Windows, paths are compared without case


def exists(place: Place) -> bool:
    """Return whether there is a file or folder, or something that a pattern matches."""
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


Name = Annotated[str, Field(min_length=1)]
Several = Annotated[list[Name], Field(min_length=1)]


class Unlabelled(Model):
    """Unlabelled text of the task's domain: exactly one of `files`, `package`, `hub`. Its rows join the training split without a label."""

    files: Name | Several | None = None
    """A file, a folder or a pattern, as in `text.source`, or a list of these. (since 0.2.0)"""
    package: str | None = None
    """An installed Python package that contains the file `path`. (since 0.2.0)"""
    path: Name | Several | None = None
    """With `package`: the file inside it, or a list of files. (since 0.2.0)"""
    hub: str | None = None
    """A data set of the Hugging Face Hub, `OWNER/NAME`. (since 0.2.0)"""
    config: str | None = None
    """With `hub`: the configuration. (since 0.2.0)"""
    revision: str | None = None
    """With `hub`: the commit. (since 0.2.0)"""
    hub_splits: list[str] = Field([])
    """With `hub`: the splits of the data set to read, such as `[unsupervised]`. (since 0.2.0)"""
    sha256: Sha256 | list[Sha256] | None = None
    """The SHA-256 of the file, or of each file of a list, which is checked. (since 0.2.0)"""
    quotes: bool | None = None
    """With tsv files: as in `text.source`. (since 0.2.0)"""
    where: dict[str, str | int | float | bool] = Field({})
    """Keep only the rows with these values in these columns. (since 0.2.0)"""
    licence: str = "unknown"
    """Its licence, for the cards of data sets and students. (since 0.2.0)"""
    column: str
    """The column of the text, or of the first sentence of a pair. (since 0.2.0)"""
    column2: str | None = None
    """The column of the second sentence, in a task of pairs. (since 0.2.0)"""
    split_sentences: bool = False
    """`true`: cut documents of ordinary text into sentences with spaCy's sentencizer. In a pretokenised task, sentences are also tokenised
    like its training text; rows that are not cut must be tokenised already. (since 0.2.0)"""
    language: str = "en"
    """With `split_sentences`: spaCy's code of the language. (since 0.2.0)"""
    min_words: Positive = 1
    """Leave out texts with fewer words; of a pair, the words of both sentences count. (since 0.2.0)"""
    max_words: Positive | None = None
    """Leave out texts with more words; absent: no limit. (since 0.2.0)"""
    similar: Float = Field(1.0, gt=0, le=1)
    """Keep this share of the texts, those whose words are most typical of the training text. (since 0.2.0)"""
    limit: Positive | None = None
    """Keep at most this many texts, chosen by content hash, so that a smaller limit keeps a part of what a larger one keeps; absent: all. (since 0.2.0)"""
    augment: bool = False
    """`true`: draw augmented copies of these rows too. (since 0.2.0)"""

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        kinds = [name for name in ("files", "package", "hub") if getattr(self, name) is not None]
        if len(kinds) != 1:
            raise ValueError(f"exactly one of files, package, hub is needed, not {len(kinds)}")
        if bool(self.hub_splits) != (self.hub is not None):
            raise ValueError("hub_splits goes with hub: the splits of the data set to read, such as [unsupervised]")
        if self.path is not None and self.package is None:
            raise ValueError("path goes with package: the file inside it")
        files = self._files()
        if self.sha256 is not None and isinstance(self.sha256, str) != isinstance(files, str):
            raise ValueError("sha256 must be one for one file, a list for a list of files")
        if isinstance(self.sha256, list) and len(self.sha256) != len(files):
            raise ValueError(f"sha256 has {len(self.sha256)} hashes for {len(files)} files")
        self.sources()  # checks the rest
        return self

    @model_validator(mode="after")
    def _texts(self) -> Self:
        if self.max_words is not None and self.max_words < self.min_words:
            raise ValueError(f"max_words: {self.max_words} is less than min_words, {self.min_words}")
        if self.split_sentences and self.column2 is not None:
            raise ValueError("split_sentences: a pair cannot be cut into sentences; remove the key")
        if not re.fullmatch("[a-z]{2,3}", self.language):
            raise ValueError(
                f"language: {self.language!r} is no code of a language; write en, de, fr ..., or xx for any"
            )
        if "language" in self.model_fields_set and not self.split_sentences:
            raise ValueError("language goes with split_sentences: true")
        if self.column2 == self.column:
            raise ValueError(f"column2: {self.column!r} is the column of the first sentence, too")
        return self

    def _files(self) -> str | list[str]:
        return (self.files if self.package is None else self.path) or []

    def sources(self) -> list[Source]:
        """Return a source for each file, or for each split of the Hub's data set."""
        common = {"where": self.where, "licence": self.licence, "quotes": self.quotes}
        if self.hub is not None:
            hub = {**common, "hub": self.hub, "config": self.config, "revision": self.revision}
            if self.sha256 is not None:
                raise ValueError("sha256 goes with files and package; revision pins a hub data set")
            return [Source.model_validate({**hub, "hub_splits": {"train": split}}) for split in self.hub_splits]
        files = self._files()
        listed = [files] if isinstance(files, str) else files
        hashes = self.sha256 if isinstance(self.sha256, list) else [self.sha256] * len(listed)
        key = "files" if self.package is None else "path"
        more = {"package": self.package, "config": self.config, "revision": self.revision, **common}
        if self.package is not None and not listed:
            raise ValueError("path goes with package: the file inside it")
        return [
            Source.model_validate({**more, key: file, "sha256": sha256})
            for file, sha256 in zip(listed, hashes, strict=True)
        ]

    def columns(self) -> Columns:
        """Return the source's names of the columns."""
        return Columns(sentence1=self.column, sentence2=self.column2)


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
    unlabelled: Unlabelled | None = None
    """More text of the domain, without labels, for students to learn the teacher's logits of; absent: none. (since 0.2.0)"""

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
        if self.unlabelled is not None and self.source.logits is not None:
            raise ValueError("unlabelled: a logit data set has its own unlabelled rows; remove the key")
        if self.unlabelled is not None and (self.unlabelled.column2 is None) != (self.columns.sentence2 is None):
            wanted = (
                "is missing, the column of the second sentence"
                if self.columns.sentence2
                else "goes with a task of pairs"
            )
            raise ValueError(f"unlabelled: column2 {wanted}")
        if self.splits and self.source.logits is not None:
            raise ValueError("splits: a logit data set has its own splits; remove the key")
        if self.splits and not math.isclose(sum(self.splits.values()), 1.0):
            raise ValueError(f"splits: the shares add up to {sum(self.splits.values())}, not to 1")
        return self
