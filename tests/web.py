"""A web server of a folder, on this machine, that counts what it sends and fails as it is told to."""

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class Web(ThreadingHTTPServer):
    """Serves the files below `folder`."""

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder = folder
        self.sent: dict[str, int] = {}  # bytes of each path
        self.status: int | None = None  # what every request is answered with
        self.ranges = self.marks = True  # whether parts are sent, and whether an ETag is stated
        self.cut_at: int | None = None  # the position in a file at which the connection is closed

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # a response is two writes
    server: Web

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(only_head=True)

    def do_GET(self) -> None:
        self._answer()

    def _answer(self, only_head: bool = False) -> None:
        web, path = self.server, self.path.partition("?")[0].lstrip("/")
        file = web.folder / path
        status = web.status or (200 if file.is_file() else 404)
        content = file.read_bytes() if status == 200 else b""
        start, end = 0, len(content)
        if web.ranges and (asked := re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))):
            start, end, status = int(asked[1]), min(int(asked[2]) + 1, end), 206
        self.send_response(status)
        self.send_header("Content-Length", str(end - start))
        if status == 206:
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(content)}")
        if web.marks:
            self.send_header("ETag", f'"{sha256(content).hexdigest()[:16]}"')
        self.end_headers()
        if only_head:
            return
        if web.cut_at is not None and end > web.cut_at:
            self.wfile.write(content[start : web.cut_at])
            self.close_connection = True
            return
        try:
            for at in range(start, end, 1 << 16):
                part = content[at : min(at + (1 << 16), end)]
                self.wfile.write(part)
                web.sent[path] = web.sent.get(path, 0) + len(part)
        except OSError:  # the client has enough
            self.close_connection = True


@contextmanager
def serving(folder: Path) -> Iterator[Web]:
    """Serve a folder until the end of the block."""
    with Web(folder) as web:
        threading.Thread(target=web.serve_forever, args=(0.01,), daemon=True).start()
        try:
            yield web
        finally:
            web.shutdown()
