"""Reads a file of text, compressed or not, from one position on: a block of bytes or line by line."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import pyarrow as pa

from pipeline.errors import InputError
from pipeline.places.place import Place, for_arrow, unchanged
from pipeline.text import formats

_READ = 1 << 20
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class Readable(Protocol):
    """An open file of bytes."""

    def read(self, size: int, /) -> bytes:
        """Return up to `size` bytes; none at the end."""


class Stream:
    """The bytes of a file from a position on. Lines end at LF only and are numbered from 1."""

    def __init__(self, file: Readable) -> None:
        self._file = file
        self._held, self._at, self._ended = b"", 0, False
        self.position, self.line = 0, 1

    def _fill(self, size: int) -> None:
        """Read until there are `size` bytes from the position on, or the file ends."""
        parts = [self._held[self._at :]]
        missing = size - len(parts[0])
        while missing > 0 and not self._ended:
            parts.append(self._file.read(max(missing, _READ)))
            self._ended = not parts[-1]
            missing -= len(parts[-1])
        self._held, self._at = b"".join(parts), 0

    def peek(self, size: int) -> bytes:
        """Return the next bytes: `size` of them, or fewer where the file ends. The position stays."""
        if len(self._held) - self._at < size and not self._ended:
            self._fill(size)
        return self._held[self._at : self._at + size]

    def ends_after(self, size: int) -> bool:
        """Return whether the file has no more than `size` bytes after the position."""
        if len(self._held) - self._at <= size and not self._ended:
            self._fill(size + 1)
        return len(self._held) - self._at <= size

    def skip(self, size: int, lines: int) -> None:
        """Move the position past bytes of `peek`, which have this number of line ends."""
        self._at += size
        self.position += size
        self.line += lines

    def lines(self) -> Iterator[str]:
        """Yield the lines from the position on, which moves with them. A byte that is not UTF-8 becomes a lone surrogate."""
        while True:
            end = self._held.find(b"\n", self._at) + 1
            if not end and not self._ended:
                self._fill(2 * (len(self._held) - self._at) + _READ)
                continue
            line = self._held[self._at : end or None]
            if not line:
                return
            self.skip(len(line), 1)
            yield line.decode("utf-8", "surrogateescape")


class _Unpacked:
    """A compressed file of which damage is an InputError."""

    def __init__(self, file: Any, name: str) -> None:
        self._file, self._name = file, name

    def read(self, size: int, /) -> bytes:
        try:
            found: bytes = self._file.read(size)
        except OSError as error:
            raise InputError(
                f"{self._name}: cannot be decompressed: {error}; the file is damaged, incomplete or in another format"
            ) from None
        return found


@contextmanager
def open_bytes(path: Place, name: str) -> Iterator[Readable]:
    """Open a file, decompressed as its suffix tells.

    :param name: The file's name in messages.
    :raises InputError: While it is read, if it is damaged; at the end, if it has changed.
    """
    packing = formats.packing(path)
    with unchanged(path, name), path.open("rb", buffering=0) as file:
        if packing is None:
            yield file
            return
        formats.check_pointer(file.read(formats.HEAD_BYTES), name)
        with pa.input_stream(for_arrow(path), compression=packing) as packed:
            yield _Unpacked(packed, name)


@contextmanager
def open_stream(path: Place, name: str) -> Iterator[Stream]:
    """Open a file of text as `open_bytes` does, after its byte order mark; InputError if its first bytes are of another format."""
    with open_bytes(path, name) as file:
        stream = Stream(file)
        formats.check_head(stream.peek(formats.HEAD_BYTES), name)
        if stream.peek(len(BYTE_ORDER_MARK)) == BYTE_ORDER_MARK:
            stream.skip(len(BYTE_ORDER_MARK), 0)
        yield stream


def line_blocks(file: Readable, size: int) -> Iterator[bytes]:
    """Yield the bytes of a file in blocks of about `size`, each cut after a line end."""
    rest = b""
    while read := file.read(size):
        rest += read
        cut = rest.rfind(b"\n") + 1
        if cut:
            yield rest[:cut]
            rest = rest[cut:]
    if rest:
        yield rest
