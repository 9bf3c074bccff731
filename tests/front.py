"""A place before a server of the loopback, which hands on what it is asked, and may break off."""

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from socketserver import BaseRequestHandler, ThreadingTCPServer
from threading import Lock, Thread
from typing import Any


class Front(ThreadingTCPServer):
    """Hands requests without bodies on.

    Args:
        behind: port of the server.

    Attributes:
        drops: of the number of a request, whether its answer breaks off half way; none does.
        dropped: how many have.
        count: of requests.
    """

    allow_reuse_address = daemon_threads = True

    def __init__(self, behind: int):
        super().__init__(("127.0.0.1", 0), Handler)
        self.behind, self.count, self.dropped = behind, 0, 0
        self.drops: Callable[[int], bool] = lambda _: False
        self.lock = Lock()


class Handler(BaseRequestHandler):
    server: Any

    def handle(self) -> None:
        front, asked = self.server, b""
        while b"\r\n\r\n" not in asked:
            asked += (more := self.request.recv(1 << 16))
            if not more:
                return
        with front.lock:
            front.count += 1
            drops = front.drops(front.count)
            front.dropped += drops
        first, _, rest = asked.partition(b"\r\n")
        answer = b""
        with socket.create_connection(("127.0.0.1", front.behind)) as behind:
            behind.sendall(first + b"\r\nConnection: close\r\n" + rest)
            while more := behind.recv(1 << 16):
                answer += more
        self.request.sendall(answer[: len(answer) // 2] if drops else answer)


@contextmanager
def fronting(port: int) -> Iterator[Front]:
    """Such a place, for the length of a block."""
    with Front(port) as front:
        thread = Thread(target=front.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield front
        finally:
            front.shutdown()
            thread.join()
