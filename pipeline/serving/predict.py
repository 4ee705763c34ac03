"""Lines of text in, JSON lines out: the command `offline-distill predict`, in memory bounded by the batch."""

import json
import sys
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import IO, Any

from pipeline.console import writing
from pipeline.errors import InputError
from pipeline.serving.runtime import MODEL, Runtime
from pipeline.students.files import CONFIG, FORMAT, read_student_json
from pipeline.students.predictor import Predictor

Text = str | tuple[str, str]

_PANDAS = """python -c "import pandas; print(*pandas.read_{1}('{0}')['text'], sep='\\n')" > texts.txt"""
_COLUMN_OF = {
    ".csv": _PANDAS,
    ".json": "jq -r '.[].text' {0} > texts.txt",
    ".jsonl": "jq -r .text {0} > texts.txt",
    ".ndjson": "jq -r .text {0} > texts.txt",
    ".parquet": _PANDAS,
    ".xlsx": _PANDAS,
    ".gz": "gunzip -c {0} > texts.txt",
    ".zip": "unzip -p {0} > texts.txt",
}
"""A command that writes the texts of a file that is no plain text, by its suffix."""


def open_student(folder: Path, int8: bool) -> Predictor:
    """Load a student in ONNX Runtime if its folder has an ONNX network (with int8 the quantised one), in torch otherwise.

    :raises InputError: If the folder is not a complete student, or lacks the quantised network that was asked for; if torch or pyarrow is not
        installed and the student needs it.
    """
    if int8 or (folder / MODEL).is_file():
        return Runtime.from_pretrained(folder, int8)
    read_student_json(folder / CONFIG, FORMAT, set())
    try:
        from pipeline.students.trained import TrainedStudent
    except ImportError as error:
        raise InputError(
            f"{folder}: has no {MODEL}, so it needs torch and pyarrow, and {error.name} is not installed: pip install 'offline-distill[train]'"
        ) from error
    return TrainedStudent.from_pretrained(folder)


def texts_of(lines: Iterable[bytes], name: str, pairs: bool) -> Iterator[Text]:
    """Yield the text of each line, or its two texts, separated by a tab.

    :param lines: Lines of UTF-8, with their line ends; `name` is the name of their source, for errors.
    :raises InputError: If a line is not UTF-8 text, or has another number of fields.
    """
    for number, line in enumerate(_with_newlines(iter(lines), name), 1):
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8").removesuffix("\n").removesuffix("\r")
        except UnicodeDecodeError as error:
            byte = f"byte {error.start + 1} (0x{line[error.start]:02x})"
            raise InputError(f"{name}: line {number}: {byte} is not valid UTF-8; convert the file to UTF-8") from error
        if "\0" in text:
            raise InputError(f"{name}: line {number}: has a NUL character, as UTF-16 does; convert the file to UTF-8")
        fields = text.split("\t")
        if len(fields) != 1 + pairs:
            single, pair = "single sentences, with no tab in them", "pairs, two sentences with one tab between them"
            wanted = pair if pairs else single
            raise InputError(f"{name}: line {number}: {len(fields)} fields between tabs; this student reads {wanted}")
        yield (fields[0], fields[1]) if pairs else text


def _with_newlines(lines: Iterator[bytes], name: str) -> Iterator[bytes]:
    """Yield the lines, unless they all end with a carriage return alone, so that there is one line."""
    first = list(islice(lines, 1))
    if first and b"\r" in first[0].removesuffix(b"\n").removesuffix(b"\r"):
        first += islice(lines, 1)
        if len(first) == 1:
            raise InputError(
                f"{name}: lines end with a carriage return alone; convert them to newlines: tr '\\r' '\\n'"
            )
    yield from chain(first, lines)


def predict_lines(student: Predictor, lines: Iterable[bytes], name: str, batch: int, out: IO[str]) -> int:
    """Write a JSON line for each line: `label`, the class, and `probabilities`, by class name.

    In regression the JSON has the number alone, under its name: `{"score": 1.23}`.
    Lines before an invalid one are answered before the error is raised.

    :param lines: Lines of UTF-8; `name` is the name of their source, for errors.
    :param batch: Lines per batch; `out` gets their answers and is flushed after each batch.
    :return: The number of lines.
    :raises InputError: If a line is not what the student reads.
    """
    count = 0
    for texts in _batches(texts_of(lines, name, student.pairs), batch):
        out.writelines(json.dumps(answer) + "\n" for answer in _answers(student, texts))
        out.flush()
        count += len(texts)
    return count


def _answers(student: Predictor, texts: list[Text]) -> Iterator[dict[str, Any]]:
    given: Any = texts  # all strings, or all pairs: texts_of checks it
    labels = student.labels
    if len(labels) == 1:  # regression: no probabilities
        for (value,) in student.predict_logits(given).tolist():
            yield {labels[0]: round(value, 6)}
        return
    probabilities = student.predict_proba(given)
    for best, row in zip(probabilities.argmax(-1).tolist(), probabilities.tolist(), strict=True):
        scores = {label: round(value, 6) for label, value in zip(labels, row, strict=True)}
        yield {"label": labels[best], "probabilities": scores}


def _batches(texts: Iterator[Text], size: int) -> Iterator[list[Text]]:
    """Yield batches of texts. The last one, which can be empty, ends before an invalid line."""
    chunk: list[Text] = []
    try:
        for text in texts:
            chunk.append(text)
            if len(chunk) == size:
                yield chunk
                chunk = []
    except InputError:
        yield chunk
        raise
    yield chunk


def predict(folder: Path, file: Path | None, int8: bool, batch: int) -> None:
    """Write a prediction for each line of a file, or of standard input (None or `-`), to standard output.

    :param int8: Use the quantised network.
    :raises InputError: If the folder is not a complete student, the file cannot be read, or a line is not what the student reads.
    """
    if batch < 1:
        raise InputError(f"--batch {batch}: must be at least 1")
    student = open_student(folder, int8)
    with writing():
        if file is None or str(file) == "-":
            if sys.stdin is None:
                raise InputError("standard input is closed; pass a file with one text per line")
            predict_lines(student, sys.stdin.buffer, "standard input", batch, sys.stdout)
            return
        try:
            with file.open("rb") as lines:
                if command := _COLUMN_OF.get(suffix := file.suffix.lower()):
                    command = command.format(file, {".xlsx": "excel"}.get(suffix, suffix[1:]))
                    raise InputError(
                        f"{file}: predict reads plain text, one text per line; get it out first: {command}"
                    )
                predict_lines(student, lines, str(file), batch, sys.stdout)
        except OSError as error:
            if error.filename is None:  # an error of the output, not of the file
                raise
            if file.is_dir():
                raise InputError(f"{file}: Is a directory; pass a text file with one text per line") from error
            raise InputError(f"{file}: {error.strerror}") from error
