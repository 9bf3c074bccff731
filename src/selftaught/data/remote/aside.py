"""A process aside that does what this one must not, as it may have to fork: one for each process,
started when it is first needed, ended with it."""

import os
import pickle
import signal
import struct
import subprocess
import sys
import threading
from collections.abc import Callable
from functools import cache
from typing import IO, Any, final

from selftaught.errors import Unreachable

IS = False
"""Whether this is such a process."""
_LENGTH = struct.Struct("!q")
_CODE = "from selftaught.data.remote import aside; aside.serve()"


def run(function: Callable[..., Any], *given: Any) -> Any:
    """What a function of a module gives, called aside; or what it raises."""
    return _other(os.getpid()).run(function, given)


@cache
def _other(process: int) -> "_Other":
    return _Other()


def end() -> None:
    """End the process aside, where there is one: the next one sees the environment of then."""
    if _other.cache_info().currsize:
        _other(os.getpid()).close()
        _other.cache_clear()


@final
class _Other:
    """The other process, as this one sees it."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.process = subprocess.Popen(
            [sys.executable, "-c", _CODE], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def close(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait()

    def run(self, function: Callable[..., Any], given: tuple[Any, ...]) -> Any:
        with self.lock:
            assert self.process.stdin is not None
            assert self.process.stdout is not None
            try:
                _send(self.process.stdin, (function, given))
                failed, result = _receive(self.process.stdout)
            except (EOFError, OSError) as error:
                _other.cache_clear()
                raise Unreachable(
                    f"the process that reads buckets has ended (exit code {self.process.wait()})"
                ) from error
        if failed:
            raise result
        return result


def serve() -> None:
    """Do what is asked for, until nobody is there to ask; signals are the other one's business."""
    global IS
    IS = True
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    into, out = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what is printed is no answer
    while True:
        try:
            function, given = _receive(into)
        except EOFError:
            return
        try:
            answer = False, function(*given)
        except Exception as error:
            answer = True, error
        _send(out, answer)


def _send(stream: IO[bytes], what: Any) -> None:
    data = pickle.dumps(what)
    stream.write(_LENGTH.pack(len(data)))
    stream.write(data)
    stream.flush()


def _receive(stream: IO[bytes]) -> Any:
    head = stream.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        raise EOFError
    return pickle.loads(stream.read(_LENGTH.unpack(head)[0]))
