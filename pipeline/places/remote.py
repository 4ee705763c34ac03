"""Files behind a URL, read through fsspec, with the part of the interface of `pathlib.Path` that this library uses.

Only the file systems of PROTOCOLS are opened. Nothing is written to them, and no file of them is executed or unpickled.
"""

import io
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from pipeline.errors import InputError

PROTOCOLS = {
    "s3": "fsspec[s3]",
    "gs": "fsspec[gcs]",
    "gcs": "fsspec[gcs]",
    "az": "fsspec[abfs]",
    "abfs": "fsspec[abfs]",
    "hf": "huggingface_hub",
    "http": "fsspec[http]",
    "https": "fsspec[http]",
}
"""The protocols that are read, and what to install for each."""

LOGINS = {
    "s3": "set AWS_PROFILE, or FSSPEC_S3_ANON=true for a public bucket",
    "gs": "run `gcloud auth application-default login`, or set FSSPEC_GS_TOKEN=anon for a public bucket",
    "hf": "run `hf auth login`",
    "http": "write the login into ~/.netrc",
}
"""How to get access, where there is one usual way."""

BLOCK = 8 << 20
"""Bytes of a request where a file is read from its beginning to its end."""
CONNECT_S, SILENT_S = 20, 120
"""The seconds after which an HTTP server that does not accept a connection, or sends nothing more, counts as lost."""

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.+)", re.DOTALL)
_CONTENT = ("ETag", "etag", "e_tag", "md5Hash", "content_md5", "Content-MD5", "blob_id")
_DATE = ("LastModified", "Last-Modified", "last_modified", "updated", "mtime", "modified", "created")
"""What file systems call a mark of a file's content, and the date of its last change."""


class RemoteError(InputError):
    """A file behind a URL cannot be read: it is not there, access is denied, or the connection failed."""


class Stat(NamedTuple):
    """The size of a file, as `os.stat` names it."""

    st_size: int


def is_url(name: str) -> bool:
    """Return whether a name is a URL and not a path of this machine."""
    return _URL.fullmatch(name) is not None


@dataclass(frozen=True)
class Remote:
    """A file or folder behind a URL. Making one connects to nothing.

    :raises InputError: If the protocol is none of PROTOCOLS, or the URL holds a password.
    """

    url: str

    def __post_init__(self) -> None:
        found = _URL.fullmatch(self.url)
        protocol = found[1].lower() if found else ""
        if protocol not in PROTOCOLS or found is None:
            raise InputError(f"{self.url}: the protocol must be one of {', '.join(PROTOCOLS)}")
        object.__setattr__(self, "url", f"{protocol}://{found[2].rstrip('/')}")
        try:
            password = urlsplit(self.url).password if self.is_http else None
        except ValueError as error:
            raise InputError(f"{self.url}: not a valid URL: {error}") from error
        if password is not None:
            shown = self.url.replace(f":{password}@", ":...@")
            raise InputError(
                f"{shown}: holds a password, and URLs are copied into stamps and cards; {LOGINS['http']} instead"
            )

    @property
    def protocol(self) -> str:
        """The protocol, a key of PROTOCOLS."""
        return self.url.partition("://")[0]

    @property
    def is_http(self) -> bool:
        """Whether a web server has the file. It has no folders and lists no files."""
        return self.url.startswith(("http://", "https://"))

    @property
    def _path(self) -> PurePosixPath:
        return PurePosixPath(urlsplit(self.url).path if self.is_http else self.url.partition("://")[2])

    @property
    def name(self) -> str:
        """The last part of the path, without a query."""
        return self._path.name

    @property
    def stem(self) -> str:
        """The name without its last suffix."""
        return self._path.stem

    @property
    def suffix(self) -> str:
        """The last suffix of the name."""
        return self._path.suffix

    @property
    def suffixes(self) -> list[str]:
        """All suffixes of the name."""
        return self._path.suffixes

    def as_posix(self) -> str:
        """Return the URL."""
        return self.url

    def __str__(self) -> str:
        """Return the URL."""
        return self.url

    def __truediv__(self, name: str) -> "Remote":
        """Return a place below this one."""
        return Remote(f"{self.url}/{name}")

    # --- what is there ----------------------------------------------------------------------------------------------------

    def _info(self) -> dict[str, Any] | None:
        """Return what the file system states of the file or folder; None if there is none."""
        with _asking(self):
            files = self.system()
            try:
                return dict(files.info(self.url))
            except FileNotFoundError as error:
                if _is_missing(true := _true(self, error)):
                    return None
                raise true from None

    def _known(self) -> dict[str, Any]:
        found = self._info()
        if found is None:
            raise RemoteError(f"{self}: {self.missing}")
        return found

    @property
    def missing(self) -> str:
        """What to say where `exists` is false."""
        return f"no such file{f', or a private one; {LOGINS[self.protocol]}' if self.protocol == 'hf' else ''}"

    def exists(self) -> bool:
        """Return whether there is a file or folder; RemoteError if that cannot be asked."""
        return self._info() is not None

    def is_file(self) -> bool:
        """Return whether there is a file."""
        found = self._info()
        return found is not None and found.get("type") == "file"

    def is_dir(self) -> bool:
        """Return whether there is a folder; never behind HTTP."""
        found = None if self.is_http else self._info()
        return found is not None and found.get("type") == "directory"

    def size(self) -> int | None:
        """Return the size in bytes; None if the server does not state it; RemoteError if there is no file."""
        size = self._known().get("size")
        return None if size is None else int(size)

    def stat(self) -> Stat:
        """Return the size; RemoteError if there is no file, or the server does not state it."""
        size = self.size()
        if size is None:
            raise RemoteError(f"{self}: the server does not state the size of the file; download it and name the copy")
        return Stat(size)

    def version(self) -> str | None:
        """Return what changes with the content: the size, and the file system's mark of the content or else the date.

        :return: None if the file system states neither a mark nor a date.
        :raises RemoteError: If there is no file.
        """
        with _asking(self):
            self.system().invalidate_cache()
        found = self._known()
        for keys in (_CONTENT, _DATE):
            if key := next((key for key in keys if found.get(key)), None):
                return f"{found.get('size')} bytes, {key} {found[key]}"
        return None

    def iterdir(self) -> Iterator["Remote"]:
        """Yield what a folder holds."""
        with _asking(self):
            files = self.system()
            found = [str(item) for item in files.ls(self.url, detail=False)]
            return iter([Remote(files.unstrip_protocol(name)) for name in found])

    def glob(self) -> dict["Remote", bool]:
        """Return what matches this URL, read as a pattern, and whether each is a file."""
        with _asking(self):
            files = self.system()
            found = files.glob(self.url, detail=True)
            return {Remote(files.unstrip_protocol(name)): info.get("type") == "file" for name, info in found.items()}

    # --- reading ----------------------------------------------------------------------------------------------------------

    def open(self, mode: str = "rb", buffering: int = -1) -> io.RawIOBase | io.BufferedReader:
        """Open the file for reading bytes.

        :param buffering: 0 sends a request for each read, or none where reads follow one another; otherwise blocks of BLOCK are read.
        """
        if mode != "rb":
            raise ValueError(mode)
        raw = RemoteFile(self)
        return raw if buffering == 0 else io.BufferedReader(raw, BLOCK)

    def read_text(self, encoding: str) -> str:
        """Return the text of the file."""
        with self.open("rb") as file:
            return str(file.read(), encoding)

    def system(self) -> Any:
        """Return fsspec's file system of the protocol, which fsspec caches; RemoteError if a package is missing."""
        try:
            import fsspec

            return fsspec.filesystem(self.protocol, **(_of_http() if self.is_http else {}))
        except ImportError as error:
            package = PROTOCOLS[self.protocol]
            raise RemoteError(f"{self}: reading {self.protocol}:// needs {package}: pip install '{package}'") from error


def _of_http() -> dict[str, Any]:
    from aiohttp import ClientTimeout

    timeout = ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=SILENT_S)  # a large file takes any time
    return {"client_kwargs": {"timeout": timeout, "trust_env": True}}  # ~/.netrc, HTTPS_PROXY


class RemoteFile(io.RawIOBase):
    """A file behind a URL: an HTTP server streams what is read in order, everything else is requested as a range of bytes."""

    def __init__(self, place: Remote) -> None:
        super().__init__()
        self._place, self._at = place, 0
        self._file: Any = None
        self._ranges = not place.is_http
        self._size: int | None = None

    def readable(self) -> bool:
        """Return true."""
        return True

    def seekable(self) -> bool:
        """Return true; an HTTP server may refuse at the first read."""
        return True

    def tell(self) -> int:
        """Return the position."""
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Set the position, and return it."""
        if whence == os.SEEK_END:
            offset += self._length()
        elif whence == os.SEEK_CUR:
            offset += self._at
        if offset != self._at and not self._ranges:
            self._ranges = True
            self._close()
        self._at = offset
        return offset

    def _length(self) -> int:
        if self._size is None:
            self._size = self._place.stat().st_size
        return self._size

    def _opened(self) -> Any:
        if self._file is None:
            how = {"cache_type": "none"} if self._ranges else {"block_size": 0}
            self._file = self._place.system().open(path=self._place.url, mode="rb", **how)
        if self._ranges:
            self._file.seek(self._at)
        return self._file

    def readinto(self, buffer: Any, /) -> int:
        """Read up to the size of a buffer, and return how many bytes; 0 at the end."""
        with _asking(self._place, self._at):
            found = self._opened().read(len(buffer))
        if not found and len(buffer) and self._at < (self._place.size() or 0):
            raise RemoteError(f"{self._place}: {_lost(self._at)}; run the command again")
        buffer[: len(found)] = found
        self._at += len(found)
        return len(found)

    def readall(self) -> bytes:
        """Return the bytes from the position to the end."""
        return b"".join(iter(lambda: self.read(BLOCK) or b"", b""))

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def close(self) -> None:
        """Close the connection."""
        if not self.closed:
            self._close()
        super().close()


# --- errors ---------------------------------------------------------------------------------------------------------------


@contextmanager
def _asking(place: Remote, at: int = 0) -> Iterator[None]:
    """Raise what the packages of a file system raise as a RemoteError of one line.

    :param at: How many bytes of the file have been read.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # each package has exceptions of its own
        raise RemoteError(f"{place}: {_reason(place, error, at)}") from error


def _true(place: Remote, error: BaseException) -> BaseException:
    """Return what was raised, or what it hides: for fsspec, a file is missing whatever an HTTP server answers."""
    hides = place.is_http and isinstance(error, FileNotFoundError) and error.__cause__ is not None
    return error.__cause__ or error if hides else error


def _is_missing(error: BaseException) -> bool:
    return isinstance(error, FileNotFoundError) or _status(error) in (404, 410)


def _reason(place: Remote, error: BaseException, at: int) -> str:
    error = _true(place, error)
    status, text = _status(error), " ".join(str(error).split())[:300]
    if _is_missing(error):
        return place.missing
    if isinstance(error, PermissionError) or status in (401, 403) or "Credentials" in type(error).__name__:
        login = LOGINS.get({"https": "http", "gcs": "gs"}.get(place.protocol, place.protocol))
        return f"no access ({status or text or type(error).__name__})" + (f"; {login}" if login else "")
    if "range requests" in text:
        return "the server sends whole files only, not ranges of bytes; download the file and name the copy"
    why = f"{type(error).__name__}{': ' if text else ''}{text}"
    return f"{f'{_lost(at)} ({why})' if at else f'cannot be read: {why}'}; run the command again"


def _lost(at: int) -> str:
    return f"the connection was lost after {at:,} bytes"


def _status(error: BaseException) -> int | None:
    """Return the status code of HTTP in an exception of aiohttp, gcsfs, azure or huggingface_hub."""
    response = getattr(error, "response", None)
    places = ((error, "status"), (error, "status_code"), (response, "status_code"), (error, "code"))
    found = (getattr(of, name, None) for of, name in places)
    return next((status for status in found if isinstance(status, int)), None)
