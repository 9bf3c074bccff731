"""One HTTP exchange over a checked address, bounded in time and in bytes.

The standard library speaks HTTP; what it lacks is a deadline for the whole, which slow servers
would stretch byte by byte, and a bound on what endless headers, chunks and bodies bring.
"""

import errno
import http.client
import io
import socket
import ssl
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from itertools import islice
from typing import Any, final

from selftaught.curate.fetch.address import Target
from selftaught.curate.fetch.guard import IP
from selftaught.curate.fetch.refused import Refused

MAX_HEADER = 256 << 10
"""Bytes of an answer before its body."""


_OURS = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
"""Faults of this machine, by which no image is to be judged."""


class _Endless(http.client.HTTPException):
    """More bytes than were wanted."""


@final
class Wire(io.RawIOBase):
    """What a server sends, up to a deadline and a number of bytes.

    To `http.client` it is a socket.
    """

    def __init__(self, connected: socket.socket, deadline: float):
        self.socket, self.deadline, self.left = connected, deadline, MAX_HEADER

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        self.socket.settimeout(_remaining(self.deadline))
        count = self.socket.recv_into(buffer)
        self.left -= count
        if self.left < 0:
            raise _Endless("more bytes than were wanted")
        return count

    def sendall(self, data: bytes) -> None:
        self.socket.settimeout(_remaining(self.deadline))
        self.socket.sendall(data)

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(self)

    def close(self) -> None:
        """Of the reader alone: the socket is whose it was."""


@final
class Lines:
    """The connections that are open, so that whoever is to stop need not wait for them."""

    def __init__(self) -> None:
        self._open: set[socket.socket] = set()

    @contextmanager
    def __call__(self, connected: socket.socket) -> Iterator[socket.socket]:
        """Have a connection, from before it is made, for as long as the block."""
        self._open.add(connected)
        try:
            yield connected
        finally:
            self._open.discard(connected)
            connected.close()

    def cut(self) -> None:
        """End them all: whoever reads from one gets nothing more."""
        for connected in [*self._open]:
            with suppress(OSError):
                connected.shutdown(socket.SHUT_RDWR)


@contextmanager
def exchange(
    to: Target,
    ips: tuple[IP, ...],
    headers: Mapping[str, str],
    timeout: float,
    most: int,
    lines: Lines,
) -> Iterator[http.client.HTTPResponse]:
    """The answer to a GET request, whose body is read within the block.

    Args:
        to: what is asked for.
        ips: that were checked: nothing else is connected to.
        headers: beside Host.
        timeout: seconds for all of it, the body included.
        most: bytes of the body that may come.
        lines: the connection is one of them.

    Raises:
        Refused: no answer, in time or at all, or one that is no HTTP.
    """
    deadline = time.monotonic() + timeout
    with as_refused(timeout), _connected(to, _tried(ips), deadline, lines) as connected:
        wire = Wire(connected, deadline)
        connection = http.client.HTTPConnection(to.host, to.port)
        connection.sock = wire  # type: ignore[assignment]
        connection.request("GET", to.path, headers={"Host": to.authority, **headers})
        response = connection.getresponse()
        wire.left = most + MAX_HEADER  # what chunks are wrapped in included
        yield response


@contextmanager
def as_refused(timeout: float) -> Iterator[None]:
    """Faults of a connection as Refused, in words that are the same each time."""
    try:
        yield
    except TimeoutError as error:
        raise Refused(f"timeout after {timeout:g} s", transient=True) from error
    except ssl.SSLCertVerificationError as error:
        raise Refused(f"certificate does not hold: {error.verify_message}") from error
    except ssl.SSLError as error:
        raise Refused(f"no secure connection ({error.reason or 'cut'})", transient=True) from error
    except http.client.IncompleteRead as error:
        raise Refused("connection was cut", transient=True) from error
    except http.client.RemoteDisconnected as error:
        raise Refused("connection was closed without an answer", transient=True) from error
    except _Endless as error:
        raise Refused("answer without an end") from error
    except OSError as error:
        if error.errno in _OURS:
            raise
        reason = f"no connection ({error.strerror or type(error).__name__})"
        raise Refused(reason, transient=True) from error
    except (http.client.HTTPException, ValueError) as error:  # lengths and chunks that are none
        raise Refused(f"answer is no HTTP ({type(error).__name__})") from error


def _tried(ips: tuple[IP, ...]) -> tuple[IP, ...]:
    """Two addresses of a host, and one of the other version of IP, if there is one."""
    others = (ip for ip in ips if ip.version != ips[0].version)
    return tuple(dict.fromkeys((*ips[:2], *islice(others, 1))))


@contextmanager
def _connected(
    to: Target, ips: tuple[IP, ...], deadline: float, lines: Lines
) -> Iterator[socket.socket]:
    """A connection to the first address that answers, each having its share of the time."""
    with ExitStack() as stack:
        plain = None
        for n, ip in enumerate(ips):
            family = socket.AF_INET if ip.version == 4 else socket.AF_INET6
            plain = stack.enter_context(lines(socket.socket(family, socket.SOCK_STREAM)))
            plain.settimeout(_remaining(deadline) / (len(ips) - n))
            try:
                plain.connect((str(ip), to.port))
                break
            except OSError:
                if n == len(ips) - 1:
                    raise
        assert plain is not None, "a host has an address"
        if to.scheme == "https":
            plain.settimeout(_remaining(deadline))
            secure = _tls().wrap_socket(plain, server_hostname=to.host)
            yield stack.enter_context(lines(secure))
        else:
            yield plain


def _remaining(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


@cache
def _tls() -> ssl.SSLContext:
    """Reading the system's certificates takes longer than a connection: once."""
    return ssl.create_default_context()
