"""The serving runtime of a student: text in, classes out, with NumPy and ONNX Runtime and nothing else.

Neither this module nor its imports load torch, transformers or pyarrow. Text is split into the same words as in
`pipeline.students.vocabulary`, here in plain Python; a test checks that both give the same ids.
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
from pipeline.students.files import (
    CONFIG,
    FIRST_WORD,
    FORMAT,
    MASKED,
    UNKNOWN,
    VOCABULARY,
    VOCABULARY_FORMAT,
    check_files,
    read_student_json,
)
from pipeline.students.predictor import Floats, Predictor
from pipeline.students.scripts import CHARACTER
from pipeline.students.texts import as_path, shown

Integers = npt.NDArray[np.int64]

MODEL, MODEL_INT8, LETTERS = "model.onnx", "model.int8.onnx", "letters.json"
BATCH = 256
"""Most texts in one batch; a batch has texts of similar length."""
BATCH_WORDS = 256
"""Most words in a batch of several texts, padding included: they fit a processor's cache, and are few for `pipeline.serving.graphs.tabled`."""

_MASK = "[MASK]"  # tables.MASK, in a module that needs pyarrow
_KEYS = {"labels", "pairs", "text", "max_words"}


def splitter(text: str, letters: Sequence[tuple[int, int]] = ()) -> Callable[[str], list[str]]:
    """Return the function that splits a text into words, as `vocabulary.split_words` does for a column of texts.

    :param text: pretokenised, raw or characters, as there.
    :param letters: Not for pretokenised: ranges of code points, both ends included, that form words: letters, marks, digits, _. They are stored with
        the student, since Python's version of Unicode can differ from that of the library which split the training text.
    """
    if text == "pretokenised":
        return str.split
    inside = "".join(f"\\U{first:08x}-\\U{last:08x}" for first, last in letters)
    # \b is of ASCII, as in RE2. White space is dropped: Python's is the same as Arrow's.
    clitic = r"(?i:n['\u2019]t|['\u2019](?:s|m|d|ll|re|ve))(?a:\b)"
    split_not = re.compile(r"((?i:n['\u2019]t))(?a:\b)").sub
    find = re.compile(rf"\[MASK\]|{clitic}|[{inside}]+|[^{inside}\s]").findall

    split_characters = re.compile(f"({CHARACTER})").sub

    def split(given: str) -> list[str]:
        if text == "characters":
            given = split_characters(r" \1 ", given)
        found: list[str] = find(split_not(r" \1", given))
        return found

    return split


@dataclass(frozen=True)
class Runtime(Predictor):
    """A student's ONNX network and all that it needs to predict from text. Threads can share it."""

    session: Any
    """onnxruntime.InferenceSession: from ids1 (and ids2), int64 [B, L], padded with 0 on the right, to logits, float32 [B, C]."""
    ids: Mapping[str, int]
    """The id of each word in the vocabulary."""
    split: Callable[[str], list[str]] = field(repr=False)
    labels: tuple[str, ...]
    """Class names, in the order of the logits."""
    pairs: bool
    max_words: int
    """Words of a sentence that are read; the rest is cut."""

    @classmethod
    def from_pretrained(cls, folder: Path | str, int8: bool = False, threads: int = 1) -> "Runtime":
        """Load a student that the export stage wrote.

        :param int8: Load the quantised network: a quarter of the size, faster, a little less accurate.
        :param threads: Threads for one prediction; 0: one per core. Several pay for large batches on cores without other work.
        :raises InputError: If an argument is wrong; if a file is missing, altered, of a later format, or not an ONNX network; if onnxruntime
            is not installed.
        """
        folder = as_path(folder)
        if isinstance(threads, bool) or not isinstance(threads, int) or threads < 0:
            raise InputError(f"threads: {shown(threads)}: must be a whole number above 0, or 0 for one per core")
        if read_student_json(folder / CONFIG, FORMAT, set()).get("kind") == "fitted":
            raise InputError(
                f"{folder}: this student is not a torch module and has no ONNX network; load it with TrainedStudent"
            )
        config = read_student_json(folder / CONFIG, FORMAT, _KEYS)
        name = MODEL_INT8 if int8 else MODEL
        if not (folder / name).is_file():
            exported = folder.parent.parent / "artefacts" / folder.name
            advice = (
                f"pass {exported}"
                if (exported / name).is_file()
                else "the export stage writes one (`dvc repro export`), or in Python `pipeline.api.export(student, folder)`"
            )
            raise InputError(f"{folder / name}: no such file; {advice}")
        raw = config["text"] != "pretokenised"
        check_files(folder, config, [name, VOCABULARY, *([LETTERS] if raw else [])])
        words = read_student_json(folder / VOCABULARY, VOCABULARY_FORMAT, {"words"})["words"]
        ids = {word: i for i, word in enumerate(words, FIRST_WORD)} | {_MASK: MASKED}
        session, labels = _open(folder / name, threads), config["labels"]
        classes = session.get_outputs()[0].shape[-1]
        if isinstance(classes, int) and classes != len(labels):
            raise InputError(
                f"{folder / CONFIG}: labels: {len(labels)} names, but {name} has {classes} classes; copy the whole folder again"
            )
        return cls(
            session=session,
            ids=ids,
            split=splitter(config["text"], [tuple(ends) for ends in read_json(folder / LETTERS)] if raw else ()),
            labels=tuple(labels),
            pairs=config["pairs"],
            max_words=config["max_words"],
        )

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the word ids of each text; a word outside the vocabulary gets the id of its lower case."""
        get, split, most = self.ids.get, self.split, self.max_words
        return [[get(word) or get(word.lower(), UNKNOWN) for word in split(text)[:most]] for text in texts]

    def _logits(self, *sides: Sequence[str]) -> Floats:
        encoded = [self.encode(side) for side in sides]
        found = np.empty((len(sides[0]), len(self.labels)), np.float32)
        lengths = [max(map(len, row)) for row in zip(*encoded, strict=True)]
        order = sorted(range(len(lengths)), key=lengths.__getitem__)  # similar lengths together: less padding
        for rows in batches([lengths[row] for row in order], order):
            feed = {f"ids{i}": padded([side[row] for row in rows]) for i, side in enumerate(encoded, 1)}
            found[rows] = self.session.run(None, feed)[0]
        return found


def batches(lengths: Sequence[int], rows: Sequence[int]) -> Iterator[list[int]]:
    """Yield batches of up to BATCH rows and BATCH_WORDS words, padding included; a longer row is a batch of its own.

    The rows have `lengths` words, in ascending order.
    """
    start = 0
    for end, length in enumerate(lengths):
        if end > start and ((end + 1 - start) * length > BATCH_WORDS or end - start == BATCH):
            yield list(rows[start:end])
            start = end
    if rows:
        yield list(rows[start:])


def padded(rows: Sequence[Sequence[int]]) -> Integers:
    """Return rows of ids, padded with 0 on the right to the longest and to at least one column: int64 [B, L]."""
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
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # waiting threads sleep
    options.log_severity_level = 3  # errors only; each is also raised
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions have no closer common base
        raise InputError(f"{path}: not a network that onnxruntime reads: {' '.join(str(error).split())}") from error
