"""A student where it is served: text in, classes out, with NumPy and ONNX Runtime and nothing else.

No torch, transformers or pyarrow is imported here, nor by what this module imports. The words of a text are those of
`pipeline.students.vocabulary`, split here in plain Python; a test holds the two to the same ids.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.errors import InputError
from pipeline.storage import read_json
from pipeline.students.files import FORMAT, check_files, read_student_json

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]
SinglesOrPairs = Sequence[str] | Sequence[tuple[str, str]]

MODEL, MODEL_INT8, VOCABULARY, LETTERS = "model.onnx", "model.int8.onnx", "vocabulary.json", "letters.json"
BATCH = 256
"""Texts that go through the network together at most, of like length."""
BATCH_WORDS = 256
"""Their words at most, padding included, if there are several: what a processor's cache holds, and few for `pipeline.serving.graphs.tabled`."""

_MASK = "[MASK]"
_UNKNOWN, _MASKED, _FIRST_WORD = 1, 2, 3  # as in vocabulary.py; 0 is padding
_KEYS = {"labels", "pairs", "text", "max_words"}


def splitter(text: str, letters: Sequence[tuple[int, int]] = ()) -> Callable[[str], list[str]]:
    """Return the function that splits a text into words, as `vocabulary.split_words` does for a column of texts.

    :param text: pretokenised or raw, as there.
    :param letters: raw alone: ranges of code points, both ends included, that stand together in a word: letters, marks, digits, _. Given
        rather than asked of Python, whose Unicode may be older or newer than that of the library which split the training text.
    """
    if text != "raw":
        return str.split
    inside = "".join(f"\\U{first:08x}-\\U{last:08x}" for first, last in letters)
    # \b of ASCII alone, as RE2 has it; white space drops out, since Python's is the same as Arrow's.
    clitic = r"(?i:n['\u2019]t|['\u2019](?:s|m|d|ll|re|ve))(?a:\b)"
    part_not = re.compile(r"((?i:n['\u2019]t))(?a:\b)").sub
    find = re.compile(rf"\[MASK\]|{clitic}|[{inside}]+|[^{inside}\s]").findall

    def split(given: str) -> list[str]:
        found: list[str] = find(part_not(r" \1", given))
        return found

    return split


@dataclass(frozen=True)
class Runtime:
    """A student's ONNX network and all that it takes to predict from text. Safe to share among threads."""

    session: Any
    """onnxruntime.InferenceSession: ids1 (and ids2) int64 [B, L], padded with 0 on the right, to logits float32 [B, C]."""
    ids: Mapping[str, int]
    """The id of each known word."""
    split: Callable[[str], list[str]] = field(repr=False)
    labels: tuple[str, ...]
    """Class names, in the order of the logits."""
    pairs: bool
    max_words: int
    """Words of a sentence that are read; the rest is cut."""

    @classmethod
    def from_pretrained(cls, folder: Path | str, int8: bool = False, threads: int = 0) -> "Runtime":
        """Load a student that the export stage wrote.

        :param folder: Its folder.
        :param int8: Load the quantised network, a quarter of the size and faster, at a loss of some accuracy.
        :param threads: Threads for one prediction; 0: as many as there are cores. One is best for one text at a time.
        :raises InputError: If a file is missing, altered, of a later format, or is no ONNX network; if onnxruntime is not installed.
        """
        folder = Path(folder)
        config = read_student_json(folder / "config.json", FORMAT, _KEYS)
        name = MODEL_INT8 if int8 else MODEL
        if not (folder / name).is_file():
            raise InputError(f"{folder / name}: no such file; the export stage writes one (`dvc repro export`)")
        raw = config["text"] == "raw"
        check_files(folder, config, [name, VOCABULARY, *([LETTERS] if raw else [])])
        words = read_student_json(folder / VOCABULARY, 1, {"words"})["words"]
        ids = {word: i for i, word in enumerate(words, _FIRST_WORD)} | {_MASK: _MASKED}
        return cls(
            session=_open(folder / name, threads),
            ids=ids,
            split=splitter(config["text"], [tuple(ends) for ends in read_json(folder / LETTERS)] if raw else ()),
            labels=tuple(config["labels"]),
            pairs=config["pairs"],
            max_words=config["max_words"],
        )

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the word ids of each text; a word that is not known counts as its lower case."""
        get, split, most = self.ids.get, self.split, self.max_words
        return [[get(word) or get(word.lower(), _UNKNOWN) for word in split(text)[:most]] for text in texts]

    def predict_logits(self, texts: SinglesOrPairs) -> Floats:
        """Return raw logits.

        :param texts: n strings, or n pairs of strings where the student reads pairs.
        :return: float32 [n, C], in the order of `labels`.
        :raises InputError: If the texts are not what the student reads.
        """
        sides = [self.encode(side) for side in self._sides(texts)]
        found = np.empty((len(texts), len(self.labels)), np.float32)
        lengths = [max(map(len, row)) for row in zip(*sides, strict=True)]
        order = sorted(range(len(texts)), key=lengths.__getitem__)  # texts of like length together: less padding
        for rows in batches([lengths[row] for row in order], order):
            feed = {f"ids{i}": padded([side[row] for row in rows]) for i, side in enumerate(sides, 1)}
            found[rows] = self.session.run(None, feed)[0]
        return found

    def _sides(self, texts: SinglesOrPairs) -> list[Sequence[str]]:
        width = 2 if self.pairs else 1
        rows = [tuple(text) if isinstance(text, tuple | list) else (text,) for text in texts]
        for i, row in enumerate(rows):
            if len(row) != width or not all(isinstance(part, str) for part in row):
                wanted = "a pair of strings (sentence1, sentence2)" if self.pairs else "a string"
                raise InputError(f"text {i}: {texts[i]!r} is not {wanted}")
        return [[row[side] for row in rows] for side in range(width)]

    def predict_proba(self, texts: SinglesOrPairs) -> Floats:
        """Return class probabilities, the softmax of the logits: float32 [n, C].

        :raises InputError: If it is a regression (one class), or as `predict_logits`.
        """
        if len(self.labels) == 1:
            raise InputError(f"{self.labels[0]!r} is a number, which has no probabilities; predict returns it")
        logits = self.predict_logits(texts)
        scores = np.exp(logits - logits.max(axis=-1, keepdims=True))
        probabilities: Floats = scores / scores.sum(axis=-1, keepdims=True)
        return probabilities

    def predict(self, texts: SinglesOrPairs) -> list[Any]:
        """Return the name of each text's class; in a regression (one class), its number."""
        if len(self.labels) == 1:
            return list(self.predict_logits(texts)[:, 0].tolist())
        return [self.labels[i] for i in self.predict_logits(texts).argmax(-1)]


def batches(lengths: Sequence[int], rows: Sequence[int]) -> Iterator[list[int]]:
    """Part rows into runs of up to BATCH of them and BATCH_WORDS words, by their longest; a longer row is a run of its own.

    :param lengths: Words of each row, from the fewest to the most.
    :param rows: What stands for each row.
    """
    start = 0
    for end, length in enumerate(lengths):
        if end > start and ((end + 1 - start) * length > BATCH_WORDS or end - start == BATCH):
            yield list(rows[start:end])
            start = end
    if rows:
        yield list(rows[start:])


def padded(rows: Sequence[Sequence[int]]) -> Integers:
    """Return rows of ids as an array, padded with 0 on the right to the longest, at least one column: int64 [B, L]."""
    found = np.zeros((len(rows), max(1, *map(len, rows))), np.int64)
    for i, row in enumerate(rows):
        found[i, : len(row)] = row
    return found


def _open(path: Path, threads: int) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise InputError("onnxruntime is not installed: pip install onnxruntime") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3  # errors alone; each is raised as well
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own exceptions have no common base but this
        raise InputError(f"{path}: is no network that onnxruntime reads: {' '.join(str(error).split())}") from error
