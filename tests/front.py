"""A place before a server of the loopback, which hands on what it is asked, or fails as told."""

import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from socketserver import BaseRequestHandler, ThreadingTCPServer
from typing import Any

BUSY = (
    b"HTTP/1.1 503 Slow Down\r\nContent-Type: application/xml\r\nConnection: close\r\n"
    b"Content-Length: %d\r\n\r\n%s"
)
SLOW_DOWN = (
    b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
)


class Front:
    """Hands requests without bodies on.

    Args:
        port: of the server behind.

    Attributes:
        fault: a function of the number of a request, whose word says what goes wrong: `busy` (503),
            `drop` (the connection, within the answer); empty for nothing.
        met: how often, by fault.
        port: of this place, the same whenever it is opened again.
    """

    def __init__(self, port: int):
        self.behind, self.port, self.count = port, 0, 0
        self.fault: Callable[[int], str] = lambda _: ""
        self.met = Counter[str]()
        self.lock = threading.Lock()

    def open(self) -> None:
        outer = self

        class Handler(BaseRequestHandler):
            def handle(self) -> None:
                outer.answer(self.request)

        class Server(ThreadingTCPServer):
            allow_reuse_address = daemon_threads = True

        self.server = Server(("127.0.0.1", self.port), Handler)
        self.port = self.server.server_address[1]
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True)
        self.thread.start()

    def close(self) -> None:
        """Nobody is here any more."""
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def answer(self, client: Any) -> None:
        asked = b""
        while b"\r\n\r\n" not in asked:
            asked += (more := client.recv(1 << 16))
            if not more:
                return
        with self.lock:
            self.count += 1
            fault = self.fault(self.count)
            self.met[fault] += 1
        if fault == "busy":
            client.sendall(BUSY % (len(SLOW_DOWN), SLOW_DOWN))
            return
        first, _, rest = asked.partition(b"\r\n")
        answer = b""
        with socket.create_connection(("127.0.0.1", self.behind)) as behind:
            behind.sendall(first + b"\r\nConnection: close\r\n" + rest)
            while more := behind.recv(1 << 16):
                answer += more
        client.sendall(answer[: len(answer) // 2] if fault == "drop" else answer)


@contextmanager
def fronting(port: int) -> Iterator[Front]:
    """Such a place, for the length of a block."""
    made = Front(port)
    made.open()
    try:
        yield made
    finally:
        made.close()
