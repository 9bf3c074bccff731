"""A web server of the loopback that answers ranges, counts what it sends, and fails as asked."""

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


class RangesServer:
    """Files of a folder.

    Attributes:
        sent: bytes of bodies.
        requests: how many, by status.
        faults: a function of (number of the request, path), whose word says what goes wrong:
            `drop` (the connection, within the body), `short` (a length that is less than asked
            for), `long` (one that is more than comes), `other` (another range), `busy` (503),
            `whole` (ranges are not known), `gone` (404), `refused` (403), `compressed`, `silent`
            (nothing comes); empty for nothing.
        tag: of all files.
        seen: headers of the last request.
    """

    def __init__(self, root: Path):
        self.root, self.sent, self.requests = root, 0, Counter[int]()
        self.faults: Any = lambda number, path: ""
        self.tag, self.count = '"1"', 0
        self.moved: dict[str, str] = {}
        self.pages: dict[str, bytes] = {}
        self.seen: dict[str, str] = {}
        self.lock, self.quiet = threading.Lock(), threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, format: str, *args: Any) -> None:
                pass

            def do_GET(self) -> None:
                outer.answer(self)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        path = handler.path.partition("?")[0]
        with self.lock:
            self.count += 1
            fault = self.faults(self.count, path)
            self.seen = dict(handler.headers)
        if path in self.moved:
            self.head(handler, 302, {"Location": self.moved[path], "Content-Length": "0"})
            return
        file = self.root / path.lstrip("/")
        if path not in self.pages and (fault == "gone" or not file.is_file()):
            self.head(handler, 404, {"Content-Length": "0"})
            return
        total = len(self.pages[path]) if path in self.pages else file.stat().st_size

        def content(first: int, end: int) -> bytes:
            if path in self.pages:
                return self.pages[path][first:end]
            with file.open("rb") as opened:
                opened.seek(first)
                return opened.read(end - first)

        if fault in ("busy", "refused"):
            status = 503 if fault == "busy" else 403
            self.head(handler, status, {"Content-Length": "0", "Retry-After": "0"})
            return
        if fault == "silent":
            self.quiet.wait(30)
            handler.close_connection = True
            return
        asked = handler.headers.get("Range")
        headers = {"ETag": self.tag}
        if fault == "compressed":
            headers["Content-Encoding"] = "gzip"
        if asked is None or fault == "whole":
            status, body = 200, content(0, total)
        else:
            first, last = (int(n) for n in asked.removeprefix("bytes=").split("-"))
            last = min(last, total - 1)
            if first > last:
                headers |= {"Content-Range": f"bytes */{total}", "Content-Length": "0"}
                self.head(handler, 416, headers)
                return
            status, body = 206, content(first, last + 1)
            shift = 1 if fault == "other" else 0
            headers["Content-Range"] = f"bytes {first + shift}-{last + shift}/{total}"
        if fault == "short":
            body = body[: len(body) // 2]
        headers["Content-Length"] = str(len(body) + (7 if fault == "long" else 0))
        self.head(handler, status, headers)
        body = body[: len(body) // 2] if fault == "drop" else body
        handler.wfile.write(body)
        with self.lock:
            self.sent += len(body)
        if fault in ("drop", "long"):
            handler.close_connection = True

    def head(self, handler: BaseHTTPRequestHandler, status: int, headers: dict[str, str]) -> None:
        with self.lock:
            self.requests[status] += 1
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.end_headers()


@contextmanager
def serving(root: Path) -> Iterator[RangesServer]:
    """A server of the files in a folder, for the length of a block."""
    made = RangesServer(root)
    made.thread.start()
    try:
        yield made
    finally:
        made.quiet.set()
        made.server.shutdown()
        made.server.server_close()
        made.thread.join()
