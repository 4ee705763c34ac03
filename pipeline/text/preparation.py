"""Checks the rows of a source and makes the table of examples.

White space at both ends of a text is removed. In a pretokenised task, white space between words becomes one space, so that texts
with the same words are the same text. Raw text is otherwise kept byte for byte. A row is dropped for one reason only, so the rows
read are the rows kept plus the rows dropped of every kind.
"""

import logging
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import PurePath

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline import tables
from pipeline.errors import InputError, counted
from pipeline.params.text import Text
from pipeline.tables import SPLITS, TextMode
from pipeline.text import repeats
from pipeline.text.cleaning import cleaned
from pipeline.text.labels import Labels
from pipeline.text.row_report import KINDS, Locations, Problem, Report, refuse
from pipeline.text.rows import SourceRows
from pipeline.text.sources import ALL

logger = logging.getLogger(__name__)
Numbers = NDArray[np.int64]
_DROPPED = {kind: number for number, kind in enumerate(KINDS, start=1)}
"""The number of the kind of problem for which a row is dropped; 0 for a row that is kept."""
LONG = 1_000_000
"""Bytes of a text from which on there is a warning: labelling one of 20 MB took 3.3 GB."""


def prepare(
    rows: Mapping[str, SourceRows], text: Text, mode: TextMode, gold: bool = True
) -> tuple[pa.RecordBatchReader, Report]:
    """Check every row and make the examples.

    :param rows: The rows of each split, or of `sources.ALL` alone, as `sources.read` returns them.
    :param gold: Whether validation rows need gold labels.
    :return: The examples (`tables.examples_schema(C)`, in the order of SPLITS and then of the file), which are made in batches while they are
        read, and the report.
    :raises InputError: If there are rows that the task refuses (all kinds in one message), or a split is missing or ends up empty.
    """
    if problem := text.split_problem([split for split in SPLITS if split in rows]):
        raise InputError(problem)
    check = Check([rows[split] for split in (ALL, *SPLITS) if split in rows], text, mode)
    check.rows([split for split in (ALL, *SPLITS) if split in rows])
    check.warn_of_length()
    check.repeats()
    problems = check.problems()
    read = sum(map(len, rows.values()))
    if np.count_nonzero(check.dropped == 0) + sum(problem.dropped for problem in problems.values()) != read:
        raise AssertionError("a row is neither kept nor counted as dropped")
    advice = check.advice()
    refuse(problems, advice)
    left_out = sum(part.left_out for part in rows.values())
    report = Report.of(read, left_out, check.kept_labels(), check.kept_words(), problems, text)
    report.log()
    for line in advice:
        logger.warning("bad_rows.unknown_label: %s", line)
    if empty := [split for split in _wanted(rows, text) if not report.kept[split]]:
        raise InputError(
            f"the split {empty[0]!r} ends up empty: of {counted(report.read, 'row')} read, {report.rows_per_split} are left"
        )
    if gold:
        report.refuse_unlabelled(text)
    return pa.RecordBatchReader.from_batches(tables.examples_schema(len(text.labels)), check.examples()), report


def _wanted(rows: Mapping[str, SourceRows], text: Text) -> list[str]:
    return [split for split in SPLITS if split in rows or split in text.shares()]


def _type(text: Text) -> type[np.signedinteger]:
    """Return the smallest type of the class numbers."""
    return np.int8 if len(text.labels) <= np.iinfo(np.int8).max else np.int32


def _shorten(text: str, limit: int = 60) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _quoted(text: str) -> str:
    return repr(_shorten(text))


def _number(label: str) -> float | None:
    """Return a label as the nearest float32, or None if it is not a finite number."""
    try:
        with np.errstate(over="ignore"):
            found = float(np.float32(label)) if "_" not in label else math.nan  # Python accepts 1_000
    except ValueError:
        return None
    return found if math.isfinite(found) else None


class Check:
    """Finds problems and marks rows as dropped. Rows are numbered through all sources; what is kept of each is a few numbers.

    `ids`, uint64 [2, rows], and `words`, by column int32 [rows], are 0 for a row that was dropped first.
    """

    def __init__(self, sources: Sequence[SourceRows], text: Text, mode: TextMode) -> None:
        self._sources, self._text, self._mode = sources, text, mode
        self._starts = np.cumsum([0, *map(len, sources)])
        self._pairs = text.columns.sentence2 is not None
        self._columns = ("sentence1", "sentence2")[: 1 + self._pairs]
        self._labels = None if text.is_regression else Labels(text)
        self._unknown: dict[str, None] = {}
        self._classes: list[Mapping[str, str | None]] = []  # of each source: the names of its class numbers
        self._parts = {part for rows in sources for part in rows.names if part != rows.name}
        count = int(self._starts[-1])
        self.dropped = np.zeros(count, np.int8)
        self._splits = np.zeros(count, np.int8)
        self._label = np.full(count, np.nan, np.float32) if text.is_regression else np.full(count, -1, _type(text))
        self.ids = np.zeros((2, count), np.uint64)
        self.words = {column: np.zeros(count, np.int32) for column in self._columns}
        self._conflicts = np.zeros(0, np.int64)
        self._longest = (0, 0)  # the bytes of the longest text, and its row
        self._before: dict[int, float] = {}  # the own labels of rows that got the mean of a conflict
        self._same: dict[str, tuple[Numbers, Numbers]] = {}  # by kind: rows, and for each the row that is kept

    # --- each row by itself ----------------------------------------------------------------------------------------------

    def rows(self, splits: Sequence[str]) -> None:
        """Check each row by itself, and find its id and split.

        :param splits: The split of each source, or ALL.
        """
        shares = self._text.shares()
        for start, split, rows in zip(self._starts.tolist(), splits, self._sources, strict=False):
            names = rows.class_names
            classes = self._labels.of_classes(names, rows.name) if self._labels is not None and names else {}
            self._classes.append(classes)
            self._check_faults(start, rows)
            for first, batch in rows.batches():
                place = slice(start + first, start + first + len(batch))
                texts = self.cleaned(batch)
                self._check_texts(place, texts)
                self._read_labels(place, self._mapped(batch, classes))
                self._identify(place, texts)
                if split != ALL:
                    self._splits[place] = SPLITS.index(split)
                if shares and split in (ALL, "train"):
                    self._assign_splits(place, shares)

    def cleaned(self, batch: pa.RecordBatch) -> list[pa.Array]:
        """Return the texts of some rows of a source, by column."""
        return [cleaned(batch[column], self._mode) for column in self._columns]

    def _drop(self, place: slice, mask: NDArray[np.bool_], kind: str) -> None:
        """Drop the rows of a mask, except those that are dropped already."""
        dropped = self.dropped[place]
        dropped[mask & (dropped == 0)] = _DROPPED[kind]

    def _check_faults(self, start: int, rows: SourceRows) -> None:
        for position, fault in rows.faults.items():
            self.dropped[start + position] = _DROPPED[fault.kind]
        for position, (_, inside) in rows.spanning.items():
            if position not in rows.faults and all(map(self._is_row, inside)):
                self.dropped[start + position] = _DROPPED["fields"]

    def _is_row(self, values: tuple[str, str]) -> bool:
        """Return whether a line inside a field is a row, by its text and label: a stray quote made it part of the field."""
        text, label = values
        if not label or not re.search(r"[^\W\d]", text):
            return False
        return self._label_of(label) is not None

    def _label_of(self, value: str) -> int | float | None:
        """Return the class number of a label, -1 where it means no label, or the number in a regression; None if it is unknown."""
        if self._labels is None:
            return _number(value)
        try:
            number = self._labels.number(value)
        except KeyError:
            return None
        return -1 if number is None else number

    def _check_texts(self, place: slice, texts: Sequence[pa.Array]) -> None:
        sizes = [np.asarray(pc.binary_length(text)) for text in texts]
        self._drop(place, np.minimum.reduce(sizes) == 0, "blank")
        largest = np.maximum.reduce(sizes)
        self._longest = max(self._longest, (int(largest.max()), place.start + int(largest.argmax())))
        masked = [np.asarray(pc.match_substring(text, tables.MASK)) for text in texts]
        self._drop(place, np.logical_or.reduce(masked), "mask")
        for column, text in zip(self._columns, texts, strict=True):
            self.words[column][place] = np.asarray(pc.list_value_length(pc.utf8_split_whitespace(text)))

    @staticmethod
    def _mapped(batch: pa.RecordBatch, classes: Mapping[str, str | None]) -> pa.DictionaryArray:
        """Return the labels of rows, with those of a file that names its classes under their names; null and "" are no label."""
        found = batch["label"].dictionary_encode()
        values = found.dictionary.to_pylist()
        mapped = [classes.get(value, value) or None for value in values]
        return pa.DictionaryArray.from_arrays(found.indices, pa.array(mapped, pa.string()))

    def _read_labels(self, place: slice, labels: pa.DictionaryArray) -> None:
        values = labels.dictionary.to_pylist()
        none = -1 if self._labels is not None else math.nan
        numbers = [none if value is None else self._label_of(value) for value in values]
        unknown = np.array([number is None for number in numbers] + [False])
        at = np.asarray(labels.indices.fill_null(len(values)))
        free = self.dropped[place] == 0
        if (found := unknown[at] & free).any():
            self._unknown |= dict.fromkeys(values[n] for n in at[found].tolist())
            self._drop(place, found, "unknown_label")
        known = np.array([none if number is None else number for number in numbers] + [none], self._label.dtype)
        self._label[place] = np.where(free & ~found, known[at], none)

    def _identify(self, place: slice, texts: Sequence[pa.Array]) -> None:
        kept = self.dropped[place] == 0
        mask = pa.array(kept)
        self.ids[:, place][:, kept] = tables.content_digests(*(text.filter(mask) for text in texts)).T

    def _assign_splits(self, place: slice, shares: Mapping[str, float]) -> None:
        """Assign each row to a split by its id alone, so that it stays there when other rows come or go.

        The first 64 bits of the id, as a fraction of 2**64, are looked up in the cumulative shares.
        """
        numbers = np.array([SPLITS.index(split) for split in shares], np.int8)
        bounds = np.cumsum(list(shares.values()))[:-1]
        self._splits[place] = numbers[np.searchsorted(bounds, self.ids[0, place] / 2.0**64, side="right")]

    def advice(self) -> list[str]:
        """Return lines on the labels of rows that were dropped for them."""
        if not self._unknown:
            return []
        if self._labels is None:
            return ["A task with one label is a regression: its labels are finite numbers, such as 3.8, or empty."]
        return self._labels.advice(self._unknown)

    def warn_of_length(self) -> None:
        """Log a warning if the longest text has more than LONG bytes: often it is many rows, read as one."""
        size, row = self._longest
        if size > LONG:
            found = self._locations("blank", np.array([row]))[0]
            logger.warning(
                "%s, line %s: a text of %.1f MB: labelling needs over 100 times that in memory; look for a stray quote, or shorten it: %s",
                *(found.file, found.line, size / 1e6, found.value),
            )

    # --- rows with the same text -----------------------------------------------------------------------------------------

    def repeats(self) -> None:
        """Keep each text once in a split, and only in the last split that has it."""
        rows = repeats.repeated(self.ids, self.dropped == 0)
        found = repeats.in_splits(self.ids, self._splits, self._label, rows)
        self.dropped[found.repeats[0]] = _DROPPED["repeat"]
        self._conflicts = found.conflicts
        if self._text.is_regression and len(found.conflicts):
            groups = np.split(found.conflicts, np.cumsum(found.sizes)[:-1])
            for group, chosen in zip(groups, found.chosen.tolist(), strict=True):
                numbers = self._label[group]
                self._before[chosen] = float(self._label[chosen])
                self._label[chosen] = numbers[~np.isnan(numbers)].astype(np.float64).mean()
        dropped = found.conflicts
        if self._text.bad_rows.conflict == "keep":
            dropped = np.setdiff1d(dropped, found.chosen)
        self.dropped[dropped] = _DROPPED["conflict"]
        leaks = repeats.between_splits(self.ids, self._splits, rows[self.dropped[rows] == 0])
        self.dropped[leaks[0]] = _DROPPED["leak"]
        self._same = {"repeat": found.repeats, "leak": leaks}

    # --- what was found --------------------------------------------------------------------------------------------------

    def problems(self) -> dict[str, Problem]:
        """Return the problems found, by kind."""
        problems = {}
        for kind, number in _DROPPED.items():
            rows = np.flatnonzero(self.dropped == number)
            found = np.sort(self._conflicts) if kind == "conflict" else rows
            action = getattr(self._text.bad_rows, kind)
            problems[kind] = Problem(len(found), action, len(rows), self._locations(kind, found))
        return problems

    def _by_source(self, rows: Numbers) -> Iterator[tuple[SourceRows, NDArray[np.bool_], Numbers]]:
        """Yield each source that has some of the rows, which of them these are, and their positions in it."""
        for start, source in zip(self._starts.tolist(), self._sources, strict=False):
            inside = (rows >= start) & (rows < start + len(source))
            if inside.any():
                yield source, inside, rows[inside] - start

    def _locations(self, kind: str, rows: Numbers) -> Locations:
        names = sorted({name for source in self._sources for name in source.names})
        files, lines = np.zeros(len(rows), np.int64), np.zeros(len(rows), np.int64)
        for source, inside, positions in self._by_source(rows):
            files[inside] = np.array(list(map(names.index, source.names)))[source.parts_of(positions)]
            lines[inside] = source.take(positions, ["line"])["line"]
        # Of a file that is that of two splits, the rows leak in the order of the later split.
        order = np.lexsort((-self._splits[rows], lines, files) if kind == "leak" else (lines, files))
        rows = rows[order]
        return Locations(
            names, files[order], lines[order], lambda at: self._values(kind, rows[at]), self._sources[0].unit
        )

    def _values(self, kind: str, rows: Numbers) -> list[str]:
        """Return what is wrong with each row, for messages."""
        if kind in ("fields", "encoding"):
            return self._fault_values(rows)
        if kind == "unknown_label":
            return [_quoted(label or "") for label in self._labels_of(rows)]
        texts = self._quoted_texts(rows)
        if kind == "conflict":
            return [f"{self._named(row)}: {text}" for row, text in zip(rows.tolist(), texts, strict=True)]
        if kind not in self._same:
            return texts
        found, kept = self._same[kind]
        kept = kept[np.searchsorted(found, rows)]
        places = self._places(kept)
        if kind == "leak":
            splits = self._splits[kept].tolist()
            places = [f"{SPLITS[split]}, {place}" for split, place in zip(splits, places, strict=True)]
        words = {"repeat": "as in", "leak": "also in"}[kind]
        return [f"{words} {place}: {text}" for place, text in zip(places, texts, strict=True)]

    def _fault_values(self, rows: Numbers) -> list[str]:
        values = []
        for source, _, positions in self._by_source(np.sort(rows)):
            for position in positions.tolist():
                if fault := source.faults.get(position):
                    values.append(_shorten(" ".join(fault.value.split())))
                else:
                    end = source.spanning[position][0]
                    values.append(f"a quote opens here and closes in line {end}; double quotes inside a field")
        return [values[n] for n in np.argsort(np.argsort(rows)).tolist()]

    def _take(
        self, rows: Numbers, make: Callable[[int, pa.RecordBatch], list[str]], columns: Sequence[str]
    ) -> list[str]:
        """Return what `make` returns for some rows of a source and its number."""
        found: list[str] = [""] * len(rows)
        for source, inside, positions in self._by_source(rows):
            made = make(self._sources.index(source), source.take(positions, columns))
            for at, value in zip(np.flatnonzero(inside).tolist(), made, strict=True):
                found[at] = value
        return found

    def _quoted_texts(self, rows: Numbers) -> list[str]:
        def texts(_: int, batch: pa.RecordBatch) -> list[str]:
            columns = [map(_quoted, text.to_pylist()) for text in self.cleaned(batch)]
            return list(map(" | ".join, zip(*columns, strict=True)))

        return self._take(rows, texts, self._columns)

    def _labels_of(self, rows: Numbers) -> list[str]:
        return self._take(rows, lambda n, batch: self._mapped(batch, self._classes[n]).to_pylist(), ["label"])

    def _places(self, rows: Numbers) -> list[str]:
        def places(number: int, batch: pa.RecordBatch) -> list[str]:
            return [f"{self._sources[number].unit} {line}" for line in batch["line"].to_pylist()]

        lines = self._take(rows, places, ["line"])
        names = [""] * len(rows)
        for source, inside, positions in self._by_source(rows):
            for at, part in zip(np.flatnonzero(inside).tolist(), source.parts_of(positions).tolist(), strict=True):
                name = source.names[part]
                names[at] = f"{PurePath(name).name}, " if name in self._parts else ""
        return [name + line for name, line in zip(names, lines, strict=True)]

    def _named(self, row: int) -> str:
        label = self._before.get(row, self._label[row].item())
        if label == -1 if self._labels is not None else math.isnan(label):
            return "no label"
        return f"{label:.7g}" if self._labels is None else self._text.labels[int(label)]

    # --- the rows that are kept ------------------------------------------------------------------------------------------

    def _kept(self, split: str, place: slice = slice(None)) -> NDArray[np.bool_]:
        found: NDArray[np.bool_] = (self.dropped[place] == 0) & (self._splits[place] == SPLITS.index(split))
        return found

    def kept_labels(self) -> dict[str, NDArray[np.number]]:
        """Return the labels of the rows of each split: class numbers, -1 for no label; in a regression numbers, NaN for no label."""
        return {split: self._label[self._kept(split)] for split in SPLITS}

    def kept_words(self) -> dict[str, NDArray[np.int32]]:
        """Return the number of words of each row that is kept, by column, and forget those of all rows."""
        kept = self.dropped == 0
        return {column: self.words.pop(column)[kept] for column in self._columns}

    def examples(self) -> Iterator[pa.RecordBatch]:
        """Yield the rows that are kept, in batches of `tables.examples_schema`."""
        schema = tables.examples_schema(len(self._text.labels))
        splits = [split for split in SPLITS if self._kept(split).any()]
        for number, split in enumerate(splits):
            for start, source in zip(self._starts.tolist(), self._sources, strict=False):
                if not self._kept(split, slice(start, start + len(source))).any():
                    continue
                for first, batch in source.batches():
                    place = slice(start + first, start + first + len(batch))
                    kept = self._kept(split, place)
                    if not kept.any():
                        continue
                    rows, labels = batch.filter(pa.array(kept)), self._label[place][kept]
                    texts = self.cleaned(rows)
                    names = pa.DictionaryArray.from_arrays(np.full(len(rows), number, np.int32), pa.array(splits))
                    unlabelled = np.isnan(labels) if self._labels is None else labels < 0
                    columns = {
                        "id": tables.hex_ids(self.ids[:, place][:, kept].T),
                        "split": names,
                        "sentence1": texts[0],
                        "sentence2": texts[1] if self._pairs else pa.nulls(len(rows), pa.string()),
                        "label": pa.array(labels, schema.field("label").type, mask=unlabelled),
                        "line": rows["line"],
                    }
                    yield pa.record_batch([columns[name] for name in schema.names], schema=schema)
