"""Batches made by other processes, in order: no wait without a bound, no failure without its cause.

A batch comes back in memory without a name, which needs no room in /dev/shm (64 MB in a container),
or over the socket where there is none. Each process speaks through a socket of its own and takes
one task at a time, so that whatever happens to it concerns no other.
"""

import errno
import faulthandler
import io
import logging
import multiprocessing
import os
import pickle
import random
import signal
import socket
import struct
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from contextvars import ContextVar
from itertools import islice
from multiprocessing import util
from multiprocessing.connection import wait
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data._utils.pin_memory import pin_memory

from selftaught.errors import Interrupted, SelftaughtError, TrainingError, UserError

log = logging.getLogger("selftaught")

HANG = 600.0
"""Seconds after which a process that hands over nothing counts as hung; training has an option."""

AHEAD = 4
"""Batches a process that are made before they are asked for."""

TICK = 0.2
"""Seconds between two looks at the world while nothing comes."""

SPARE = 16
"""Descriptors that are left for images, tables and checkpoints."""

GRACE = 1.0
"""Seconds that a process has to end by itself."""

_limit: ContextVar[float | None] = ContextVar("limit", default=None)


class Stuck(Interrupted):
    """A process that reads died, or handed over nothing in time."""


class Unmade(TrainingError):
    """A batch could not be made, for another reason than an unreadable sample."""


@contextmanager
def limited(seconds: float | None) -> Iterator[None]:
    """A block in which processes that read may take so many seconds for a batch; None for HANG.

    Raises:
        UserError: it is not above 0.
    """
    if seconds is not None and not seconds > 0:
        raise UserError(f"read_timeout={seconds} must be above 0: seconds that a batch may take")
    token = _limit.set(seconds)
    try:
        yield
    finally:
        _limit.reset(token)


def refuse_imported() -> None:
    """Raise where this process only imports a script, in order to read for the one that runs it.

    Raises:
        UserError: it does; the script lacks the guard that Python asks for.
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise UserError(GUARD)


GUARD = (
    "processes that read import the script that starts them, because the data or the method's "
    'views are defined in it: put what it runs under `if __name__ == "__main__":`, or read in the '
    "process itself with workers=0"
)


def scarce(error: BaseException | None) -> OSError | None:
    """The error, or what caused it, if it is the machine that lacks something, no bad sample."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
            return error
        error = error.__cause__
    return None


class Readers:
    """What `make` gives for each of `keys`, in order, made by other processes.

    They are started by the first iteration and kept for the next ones, until `close`. Where fewer
    can be started than asked for, those read, or this process; a warning says so.

    Args:
        make: called with a key; picklable where Python cannot fork.
        keys: iterated anew each time; read ahead of what is asked for.
        workers: number of processes; 0 makes everything in this one.
        pin: whether tensors are put where a GPU copies from while it computes.

    Attributes:
        waiting: called a few times a second while nothing comes; it may raise.
        limit: seconds that a batch may take.

    Raises:
        Stuck: a process died or handed over nothing for `limit` seconds.
        Unmade: `make` failed, or what it made cannot be handed over.
        SelftaughtError: whatever else `make` raised of these.
    """

    def __init__(
        self, make: Callable[[Any], Any], keys: Iterable[Any], workers: int, pin: bool = False
    ):
        self.make, self.keys, self.workers = make, keys, workers
        self.pin = pin and torch.accelerator.is_available()
        self.limit = _limit.get() or HANG
        self.waiting: Callable[[], None] = lambda: None
        self._crew: _Crew | None = None
        self._end: Callable[[], Any] = lambda: None

    def __iter__(self) -> Iterator[Any]:
        crew = self._crew or self._start()
        keys = iter(self.keys)
        if not crew.workers:
            for key in keys:
                made = _made(self.make, key)
                yield pin_memory(made) if self.pin else made
            return
        due = deque(crew.order(islice(keys, AHEAD * len(crew.workers)), anew=True))
        while due:
            made = self._wait(crew, due.popleft())
            due.extend(crew.order(islice(keys, 1)))
            yield made

    def close(self) -> None:
        """End the processes."""
        self._crew = None
        self._end()

    def _start(self) -> "_Crew":
        self._crew = crew = _Crew(self.pin)
        self._end = util.Finalize(self, crew.close, exitpriority=10)
        try:
            crew.start(self.make, self.workers)
        except BaseException:
            self.close()
            raise
        return crew

    def _wait(self, crew: "_Crew", number: int) -> Any:
        waited, last = 0.0, time.monotonic()
        with crew.news:
            while number not in crew.made:
                if crew.failure:
                    raise crew.failure
                self.waiting()
                if waited > self.limit:
                    raise Stuck(self._hung(crew, number))
                crew.news.wait(TICK)
                now = time.monotonic()  # time that this process itself was stopped does not count
                waited, last = waited + min(now - last, 2 * TICK), now
            made = crew.made.pop(number)
        if isinstance(made, _Failure):
            made.reraise()
        return made

    def _hung(self, crew: "_Crew", number: int) -> str:
        held = next((w for w in crew.workers if w.task == number), None)
        who = f"process {held.process.pid}" if held else "all of them"
        return (
            f"a process that reads images died or hung ({who} has handed over nothing for "
            f"{self.limit:g} s); where a batch may take longer, say so with --read-timeout"
        )


class _Worker:
    """A process, as the one that started it sees it."""

    def __init__(self, context: Any, payload: Any):
        self.pipe, theirs = socket.socketpair()
        self.words, loud = socket.socketpair()  # what it writes to standard error
        self.words.setblocking(False)
        self.said = b""
        self.task: int | None = None
        self.ready = False
        util.register_after_fork(self, _Worker.forget)  # or a sibling would keep it alive
        try:
            self.process = context.Process(target=_serve, args=(theirs, loud, payload), daemon=True)
            self.process.start()
        except BaseException:
            self.forget()
            raise
        finally:
            theirs.close()
            loud.close()

    def forget(self) -> None:
        self.pipe.close()
        self.words.close()

    def hear(self) -> bool:
        """Take in what it has written; False at the end."""
        with suppress(OSError):
            while found := self.words.recv(65536):
                self.said = (self.said + found)[-20000:]
            return False
        return True

    def end(self, patience: float) -> str:
        """End it, by force after some seconds; how it ended, in words."""
        self.process.join(patience)
        self.process.kill()
        self.process.join(GRACE)
        self.hear()
        code = self.process.exitcode
        how = f"process {self.process.pid} was ended by "
        how += signal.Signals(-code).name if code is not None and code < 0 else f"exit code {code}"
        lines = [s.strip() for s in self.said.decode(errors="replace").splitlines() if s.strip()]
        last = lines[-3:]
        for i, line in enumerate(lines):
            if line.startswith("Fatal Python error"):
                last = [line, *[s for s in lines[i:] if s.startswith("File ")][:3]]
        if code == -getattr(signal, "SIGKILL", 0):  # from outside: what it said before is no cause
            return how
        return "; ".join([how, *last])


class _Crew:
    """The processes, and the thread that hands them tasks and takes what they have made.

    made: number of a task -> its result. failure: what ended it all. news: told of both. imports:
    whether the processes import the script that runs, for what is defined in it.
    """

    def __init__(self, pin: bool):
        self.pin = pin
        self.workers: list[_Worker] = []
        self.imports = False
        self.news = threading.Condition()
        self.made: dict[int, Any] = {}
        self.failure: BaseException | None = None
        self._tasks: deque[tuple[int, Any]] = deque()
        self._first = self._next = 0
        self._closed = self._measured = False
        self._thread: threading.Thread | None = None

    def start(self, make: Callable[[Any], Any], count: int) -> None:
        if not count:
            return
        if multiprocessing.current_process().daemon:
            log.warning("a daemonic process may start no others: images are read in it")
            return
        refuse_imported()
        context = multiprocessing.get_context()
        how, payload = context.get_start_method(), make
        if how != "fork":
            try:
                payload = pickle.dumps(make)
            except Exception as error:
                log.warning(
                    "images are read in this process, because the data or the views cannot be sent "
                    "to others (%s)",
                    _line(error),
                )
                return
            self.imports = b"__main__" in payload
        try:
            with _importing(self.imports, how):
                for _ in range(count):
                    _room(SPARE)
                    self.workers.append(_Worker(context, payload))
        except (OSError, RuntimeError, EOFError, MemoryError) as error:
            _fewer(len(self.workers), count, error)
        if not self.workers:
            return
        self._alarm, self._bell = socket.socketpair()
        self._bell.setblocking(False)
        device = torch.accelerator.current_device_index() if self.pin else None
        thread = threading.Thread(target=self._run, args=(device,), daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            _fewer(0, count, error)
            self.close()
            self.workers = []
        else:
            self._thread = thread

    def order(self, keys: Iterable[Any], anew: bool = False) -> range:
        """Ask for these; their numbers. `anew` drops what was asked for before."""
        with self.news:
            if anew:
                self._tasks.clear()
                self.made.clear()
                self._first = self._next
            begin = self._next
            for key in keys:
                self._tasks.append((self._next, key))
                self._next += 1
        self._ring()
        return range(begin, self._next)

    def close(self) -> None:
        """End the processes together; those that do not listen, by force."""
        self._closed = True
        for worker in self.workers:
            with suppress(OSError):
                worker.pipe.shutdown(socket.SHUT_RDWR)  # it leaves, and the thread wakes up
        until = time.monotonic() + GRACE
        for worker in self.workers:
            worker.end(max(0.0, until - time.monotonic()))
        if self._thread:
            self._ring()
            self._thread.join(GRACE)
        for worker in self.workers:
            worker.forget()
        if self.workers:
            self._alarm.close()
            self._bell.close()

    def _ring(self) -> None:
        with suppress(OSError):  # when it is full, it rings already
            self._bell.send(b"!")

    # in the thread --------------------------------------------------------------------------

    def _run(self, device: int | None) -> None:
        try:
            if device is not None:
                torch.accelerator.set_device_index(device)
            while not self._closed:
                self._hand_out()
                self._listen()
        except Exception as error:
            ours = isinstance(error, SelftaughtError)
            with self.news:
                self.failure = error if ours else Unmade(_told(error))
                self.failure.__cause__ = error.__cause__ if ours else error
                self.news.notify()

    def _hand_out(self) -> None:
        for worker in self.workers:
            if worker.ready and worker.task is None:
                with self.news:
                    if not self._tasks:
                        return
                    worker.task, key = self._tasks.popleft()
                task = pickle.dumps((worker.task, key))
                try:
                    worker.pipe.sendall(_LENGTH.pack(len(task)) + task)
                except ConnectionError:
                    self._lost(worker)

    def _listen(self) -> None:
        pipes: dict[Any, _Worker] = {w.pipe: w for w in self.workers}
        words: dict[Any, _Worker] = {w.words: w for w in self.workers if w.words.fileno() >= 0}
        for ready in wait([self._alarm, *pipes, *words]):
            if ready is self._alarm:
                self._alarm.recv(4096)
            elif ready in words:
                if not words[ready].hear():
                    words[ready].words.close()
            else:
                worker = pipes[ready]
                try:
                    number, result, size = _receive(worker.pipe, self.pin)
                except (EOFError, ConnectionError):
                    self._lost(worker)
                else:
                    self._take(worker, number, result)
                    self._measure(size)

    def _take(self, worker: _Worker, number: int, result: Any) -> None:
        worker.task = None
        if not worker.ready:
            worker.ready = True
            if isinstance(result, _Failure):
                raise UserError(f"a process that reads cannot begin: {result.text}") from result
            return
        with self.news:
            if number >= self._first:
                self.made[number] = result
                self.news.notify()

    def _measure(self, size: int) -> None:
        """Say, once, that what usually passes batches on has no room for them."""
        if self._measured or not size:
            return
        self._measured = True
        need = size * AHEAD * len(self.workers)
        with suppress(OSError, AttributeError):  # there is none
            found = os.statvfs("/dev/shm")
            if (room := found.f_bavail * found.f_frsize) < need:
                log.info(
                    "/dev/shm has room for %s, less than the %s of batches that are read ahead: "
                    "they are passed on without it",
                    *(f"{n / 2**20:.1f} MiB" for n in (room, need)),
                )

    def _lost(self, worker: _Worker) -> None:
        if self._closed:
            return
        how = worker.end(GRACE)
        if self.imports and not worker.ready:
            raise UserError(GUARD)
        hint = "often memory ran out: lower --workers"
        if any(s in how for s in ("SIGSEGV", "SIGABRT", "SIGILL", "SIGFPE")):
            hint = "run `selftaught check` on the data: it finds images that kill their reader"
        raise Stuck(f"a process that reads images died or hung ({how}); {hint}")


def _room(count: int) -> None:
    """OSError where fewer than `count` descriptors are left."""
    free: list[int] = []
    try:
        while len(free) < count:
            free.append(os.open(os.devnull, os.O_RDONLY))
    finally:
        for file in free:
            os.close(file)


def _fewer(have: int, count: int, error: BaseException) -> None:
    who = f"{have} processes read images" if have > 1 else "one process reads images"
    log.warning(
        "%s instead of %d: no more can be started (%s); more are possible with higher limits "
        "(ulimit -n, ulimit -u) or more memory",
        who if have else "this process reads images itself",
        count,
        error.strerror if isinstance(error, OSError) and error.strerror else _line(error),
    )


@contextmanager
def _importing(script: bool, how: str) -> Iterator[None]:
    """A block that starts processes; whether they import the script that runs, for its classes.

    Python has them import it always, and runs all of it again where it has no guard.
    """
    if how == "forkserver":  # imports it too, before any process asks
        from multiprocessing import forkserver

        with _without_script():
            forkserver.ensure_running()
    with nullcontext() if script or how == "fork" else _without_script():
        yield


@contextmanager
def _without_script() -> Iterator[None]:
    before = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = before


# between processes ---------------------------------------------------------------------------


_LENGTH = struct.Struct("!q")
_HEAD = struct.Struct("!qqq?")
"""Number of the task, bytes of the pickle, bytes of its tensors, whether those are in a file."""


class _Failure(Exception):
    """What went wrong over there: an error, or what can be said of one that is not picklable."""

    def __init__(self, text: str, trace: str, error: SelftaughtError | None = None):
        super().__init__(text, trace, error)
        self.text, self.trace, self.error = text, trace, error

    def __str__(self) -> str:
        return f"\n{self.trace}"

    def reraise(self) -> None:
        if self.error is not None:
            raise self.error from self
        raise Unmade(self.text) from self


def _made(make: Callable[[Any], Any], key: Any) -> Any:
    try:
        return make(key)
    except SelftaughtError:
        raise
    except Exception as error:
        raise Unmade(_told(error)) from error


def _told(error: BaseException) -> str:
    place = traceback.extract_tb(error.__traceback__)[-1]
    hint = ""
    if scarce(error):
        hint = "; raise the limits of the process (ulimit -n), or lower --workers"
    return (
        f"a batch could not be made: {_line(error)} ({place.filename}, line {place.lineno}, in "
        f"{place.name}){hint}"
    )


def _line(error: BaseException) -> str:
    text = str(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


class _Packer(pickle.Pickler):
    """Leaves the data of tensors out of the pickle: parts, as bytes."""

    def __init__(self, file: io.BytesIO):
        super().__init__(file, pickle.HIGHEST_PROTOCOL)
        self.parts: list[memoryview] = []
        self.size = 0

    def persistent_id(self, x: Any) -> Any:
        if type(x) is not Tensor or x.layout != torch.strided or x.device.type != "cpu":
            return None
        if x.requires_grad or x.is_conj() or x.is_neg() or x.is_quantized:
            return None
        data = x.contiguous().reshape(-1).view(torch.uint8).numpy().data
        start, self.size = self.size, self.size + -(-data.nbytes // 64) * 64
        self.parts += [data, memoryview(bytes(self.size - start - data.nbytes))]
        return start, data.nbytes, x.dtype, x.shape


class _Unpacker(pickle.Unpickler):
    """Makes tensors of pieces of `whole`, uint8."""

    def __init__(self, file: io.BytesIO, whole: Tensor):
        super().__init__(file)
        self.whole = whole

    def persistent_load(self, about: Any) -> Tensor:
        start, size, dtype, shape = about
        return self.whole[start : start + size].view(dtype).view(shape)


def _packed(result: Any) -> tuple[io.BytesIO, list[memoryview], int]:
    """The pickle, the data of its tensors, and how many bytes of it."""
    head = io.BytesIO()
    packer = _Packer(head)
    packer.dump(result)
    return head, packer.parts, packer.size


def _send(
    pipe: socket.socket, number: int, head: io.BytesIO, parts: list[memoryview], size: int
) -> None:
    """To the other side; memory that there is none of is no reason to fail."""
    file = _file(parts) if size else None
    try:
        if file is None:
            pipe.sendall(_HEAD.pack(number, head.tell(), size, False) + head.getbuffer())
            for part in parts:
                pipe.sendall(part)
        else:
            socket.send_fds(pipe, [_HEAD.pack(number, head.tell(), size, True)], [file])
            pipe.sendall(head.getbuffer())
    finally:
        if file is not None:
            os.close(file)


def _file(parts: list[memoryview]) -> int | None:
    """The parts in memory without a name; None where there is no such thing, or none left."""
    try:
        file = os.memfd_create("batch")
    except (AttributeError, OSError):
        return None
    try:
        for part in parts:
            while part:
                part = part[os.write(file, part) :]
    except OSError:
        os.close(file)
        return None
    return file


def _receive(pipe: socket.socket, pin: bool) -> tuple[int, Any, int]:
    """A number, what belongs to it, and bytes of its tensors; EOFError at the end."""
    buffer = bytearray(_HEAD.size)
    files: list[int] = []
    if hasattr(socket, "recv_fds"):
        first, files, _, _ = socket.recv_fds(pipe, _HEAD.size, 1)
        if not first:
            raise EOFError
        buffer[: len(first)] = first
        _fill(pipe, memoryview(buffer)[len(first) :])
    else:
        _fill(pipe, memoryview(buffer))
    number, length, size, in_file = _HEAD.unpack(buffer)
    try:
        if in_file and not files:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        head = bytearray(length)
        _fill(pipe, memoryview(head))
        whole = torch.empty(size, dtype=torch.uint8, pin_memory=pin)
        into = whole.numpy().data
        if in_file:
            done = 0
            while done < size:
                done += os.preadv(files[0], [into[done:]], done)
        else:
            _fill(pipe, into)
    finally:
        for file in files:
            os.close(file)
    return number, _Unpacker(io.BytesIO(head), whole).load(), size


def _fill(pipe: socket.socket, into: memoryview) -> None:
    while into:
        count = pipe.recv_into(into, 0, getattr(socket, "MSG_WAITALL", 0))
        if not count:
            raise EOFError
        into = into[count:]


# in the other process ------------------------------------------------------------------------


def _serve(pipe: socket.socket, loud: socket.socket, payload: Any) -> None:
    """Make what is asked for, until nobody is there to ask.

    Signals that ask a run to stop are its first process's business, which saves first. What C
    libraries write about damaged files is not shown, unless it is the last that they write.
    """
    signal.set_wakeup_fd(-1)
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    if os.name == "posix":
        os.dup2(loud.fileno(), 2)
        faulthandler.enable(2)
    loud.close()
    torch.set_num_threads(1)
    with suppress(OSError, EOFError):
        try:
            make = pickle.loads(payload) if isinstance(payload, bytes) else payload
        except Exception as error:
            _send(pipe, -1, *_packed(_Failure(_line(error), traceback.format_exc())))
            return
        _send(pipe, -1, *_packed(None))
        while True:
            length = bytearray(_LENGTH.size)
            _fill(pipe, memoryview(length))
            task = bytearray(_LENGTH.unpack(length)[0])
            _fill(pipe, memoryview(task))
            number, key = pickle.loads(task)
            # what draws from the common generators gets the same, whichever process it falls to
            torch.manual_seed(number)
            random.seed(number)
            np.random.seed(number % 2**32)
            _send(pipe, number, *_packed_made(make, key))


def _packed_made(make: Callable[[Any], Any], key: Any) -> tuple[io.BytesIO, list[memoryview], int]:
    """What is made, or what went wrong."""
    try:
        return _packed(_made(make, key))
    except Exception as error:
        trace = traceback.format_exc()
        if isinstance(error, SelftaughtError):
            with suppress(Exception):
                pickle.loads(pickle.dumps(error))
                return _packed(_Failure(str(error), trace, error))
        return _packed(_Failure(_told(error), trace))
