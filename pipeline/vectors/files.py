"""Readers of word vector files: a file of any size is read once, and only the requested words stay in memory."""

import mmap
import re
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import InputError

BLOCK_BYTES = 4 << 20

_MAGIC = {
    b"\x1f\x8b": "compressed with gzip; rename it to end in .gz",
    b"PK\x03\x04": "a zip archive; unpack it with `unzip`",
    b"version https://git-lfs": "a pointer of Git LFS, not the file; fetch it with `git lfs pull`",
}

Found = dict[str, npt.NDArray[np.float32]]


def read_text_vectors(path: Path, words: Sequence[str]) -> Found:
    """Read vectors from text: a word and its numbers per line, the format of GloVe and fastText (.vec).

    Spaces or tabs separate them. Where a tab follows the word of the first line, one follows each word. fastText's first line, which has two
    numbers, is skipped. A word that is listed twice gets its first vector. Files ending in .gz are decompressed while reading.

    :return: Those of `words` that are in the file, each with its vector.
    :raises InputError: If the file is missing, its first line is no vector, or the line of one of the words has not as many numbers as that.
    """
    wanted = pa.array(words, pa.string()).cast(pa.binary())
    found: Found = {}
    for number, lines, first, width in _lines_of_vectors(path):
        # A Python loop over the few lines that were asked for.
        for i in np.flatnonzero(pc.is_in(first, value_set=wanted).to_numpy(zero_copy_only=False)).tolist():
            word = first[i].as_py().decode()
            if word not in found and (vector := _vector(lines[i].as_py(), width, path, number + i)) is not None:
                found[word] = vector
    return found


def words_of_text(path: Path) -> Iterator[str]:
    """Yield the words of a text file of vectors in its order, which in most files is from frequent to rare.

    :raises InputError: If it is missing, or its first line is no vector.
    """
    for _, _, first, _ in _lines_of_vectors(path):
        yield from (word.decode("utf-8", "replace") for word in first.to_pylist())


def _lines_of_vectors(path: Path) -> Iterator[tuple[int, pa.Array, pa.Array, int]]:
    """Yield the blocks of `_blocks_of_lines` without fastText's first line, the first word of each line, and how many numbers follow each.

    No block is empty.
    """
    width, separator, wanted = 0, b" ", None
    for number, lines in _blocks_of_lines(path):
        head = lines[0].as_py().split()
        if number == 1 and len(head) == 2 and all(part.isdigit() for part in head):
            number, lines, wanted = 2, lines[1:], int(head[1])
        if len(lines):
            if not width:
                width, separator = _layout(lines[0].as_py(), wanted, path, number)
            yield number, lines, pc.list_element(pc.split_pattern(lines, pattern=separator, max_splits=1), 0), width
    if not width:
        raise InputError(f"{path}: the file is empty; it must have a word and its numbers per line")


def _layout(line: bytes, wanted: int | None, path: Path, number: int) -> tuple[int, bytes]:
    """Return how many numbers follow the word of the first line, and what separates them from it; InputError if it is no vector.

    The word may contain spaces, as some words of GloVe do.

    :param wanted: The number in fastText's first line.
    """
    for magic, remedy in _MAGIC.items():
        if line.startswith(magic):
            raise InputError(f"{path}: {remedy}")
    parts = line.split()
    width = next((n for n, part in enumerate(reversed(parts)) if not _is_number(part)), len(parts) - 1)
    if wanted is not None and width >= wanted:
        width = wanted
    if width < 1 or width != (wanted or width) or line[:1].isspace() or (b"," in line and width == 1):
        numbers = f"{wanted} numbers" if wanted else "its numbers"
        binary = "; a file in word2vec's binary format is `word2vec:FILE`" if wanted else ""
        raise InputError(
            f"{path}, line {number}: not a word and {numbers}, separated by spaces or tabs: {line[:60]!r}{binary}"
        )
    word = line.rsplit(None, width)[0]
    return width, b"\t" if line[len(word) : len(word) + 1] == b"\t" else b" "


def _is_number(part: bytes) -> bool:
    try:
        float(part)
    except ValueError:
        return False
    return True


def _vector(line: bytes, width: int, path: Path, number: int) -> npt.NDArray[np.float32] | None:
    """Return a line's numbers; None if its word contains spaces, as some words of GloVe do."""
    parts = line.split()
    if not all(map(_is_number, parts[1:-width])):
        return None
    try:
        with np.errstate(over="ignore"):
            vector = np.array(parts[1:], dtype=np.float32)
    except ValueError:
        vector = np.zeros(0, np.float32)
    if len(vector) != width or not np.isfinite(vector).all():
        raise InputError(f"{path}, line {number}: not a word and {width} numbers: {line[:60]!r}")
    return vector


def _blocks_of_lines(path: Path) -> Iterator[tuple[int, pa.Array]]:
    """Yield blocks of some megabytes of whole lines, each with the number of its first line (from 1)."""
    number, rest = 1, b""
    try:
        with pa.input_stream(str(path), compression="detect") as file:
            for block in chain(
                iter(partial(file.read, BLOCK_BYTES), b""), [b""]
            ):  # the empty block is the end of the file
                data = rest + block
                if number == 1:
                    data = data.removeprefix(b"\xef\xbb\xbf")
                end = data.rfind(b"\n") + 1 if block else len(data)
                lines, rest = _lines(data[:end]), data[end:]
                if len(lines):
                    yield number, lines
                number += len(lines)
                if len(rest) > 4 * BLOCK_BYTES:
                    raise InputError(f"{path}, line {number}: more than {len(rest)} bytes: not a file of word vectors")
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error}") from error


def _lines(data: bytes) -> pa.Array:
    """Return the lines of a text as an array over the same memory, with their line ends."""
    ends = np.flatnonzero(np.frombuffer(data, np.uint8) == ord("\n")) + 1
    if len(data) and (not len(ends) or ends[-1] < len(data)):
        ends = np.append(ends, len(data))
    offsets = np.concatenate([[0], ends]).astype(np.int32)
    return pa.Array.from_buffers(pa.binary(), len(ends), [None, pa.py_buffer(offsets), pa.py_buffer(data)])


def read_word2vec(path: Path, words: Sequence[str]) -> Found:
    """Read vectors from word2vec's binary format: a line with two numbers, then each word, a space and its float32 numbers.

    :return: Those of `words` that are in the file, each with its vector.
    :raises InputError: If the file is missing, has another format, or is truncated.
    """
    wanted = {word.encode(): word for word in words}
    found: Found = {}
    for entry, data, start, width in _word2vec_entries(path):
        word = wanted.get(entry)
        if word is not None and word not in found:
            found[word] = np.frombuffer(data, "<f4", width, start).astype(np.float32)
            if not np.isfinite(found[word]).all():
                raise InputError(f"{path}: the vector of {word!r} has a number that is not finite")
    return found


def words_of_word2vec(path: Path) -> Iterator[str]:
    """Yield the words of a word2vec file in its order, which in most files is from frequent to rare.

    :raises InputError: If the file is missing, has another format, or is truncated.
    """
    for entry, *_ in _word2vec_entries(path):
        yield entry.decode("utf-8", "replace")


def _word2vec_entries(path: Path) -> Iterator[tuple[bytes, mmap.mmap, int, int]]:
    """Yield each word, the file's bytes, the offset of its numbers in them, and how many numbers it has."""
    try:
        with path.open("rb") as file:
            head = re.fullmatch(rb"\s*(\d+)\s+([1-9]\d*)\s*\n", line := file.readline(100))
            if head is None:
                raise InputError(
                    f"{path}: not word2vec's binary format, which starts with the numbers of words and of dimensions: {line[:40]!r}"
                )
            count, width = map(int, head.groups())
            size = 4 * width
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                at = file.tell()
                numbers = file.readline(1000 + 40 * width).split()[1:][-width:]
                if len(numbers) == width and all(map(_is_number, numbers)):
                    raise InputError(f"{path}: is text, not word2vec's binary format; write text:{path}")
                # Sequential, since the format stores no offsets: a word starts where the previous one ends.
                for i in range(count):
                    space = data.find(b" ", at, at + 10_000)
                    end = space + 1 + size
                    if space < 0 or end > len(data):
                        raise InputError(f"{path}: truncated or damaged at word {i + 1} of {count}")
                    yield data[at:space].lstrip(b"\n"), data, space + 1, width
                    at = end
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read: {error}") from error


def dimensions_of(kind: str, path: Path) -> int:
    """Return how many numbers follow each word of a file of vectors, from its beginning.

    :param kind: text or word2vec.
    :raises InputError: If it is missing, has another format, or has no words.
    """
    found: int | None = None
    if kind == "text":
        found = next((width for *_, width in _lines_of_vectors(path)), None)
    else:
        found = next((width for *_, width in _word2vec_entries(path)), None)
    if found is None:
        raise InputError(f"{path}: has no word vectors")
    return found
