"""Objects in buckets of S3 and Google Cloud Storage, through pyarrow's file systems.

Their clients have threads, which a forked process lacks: it would wait for them for ever. So only
processes that fork no others use one, such as those that read for a training; all others have it
done by a process aside.
"""

import multiprocessing
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import cache
from typing import Any, final

from pyarrow import fs

from selftaught.data.ranges import Facts
from selftaught.data.remote import aside
from selftaught.data.remote.store import CONNECT, READ, Fault, Keep, Store, changed, patiently
from selftaught.errors import UserError

_OPEN = 64  # objects that a process keeps open
_YES = ("1", "true", "yes", "on")


@final
class Bucket(Store):
    """`s3://` and `gs://`, with the credentials that their libraries find by themselves."""

    def facts(self, address: str) -> Facts:
        return _facts(address) if _here() else aside.run(_facts, address)

    def fetch(self, address: str, offset: int, size: int, facts: Facts, keep: Keep) -> bytes:
        given = address, offset, size, facts
        return _fetch(*given) if _here() else aside.run(_fetch, *given)

    def inside(self, address: str) -> list[str]:
        return _inside(address) if _here() else aside.run(_inside, address)


def _here() -> bool:
    return aside.IS or multiprocessing.parent_process() is not None


def _facts(address: str) -> Facts:
    def attempt() -> Facts:
        with _told(address):
            found = _looked(address)
        if found.type != fs.FileType.File:
            raise UserError(f"{address} does not exist")
        return Facts(found.size, str(found.mtime_ns))

    return patiently(address, attempt)


def _looked(address: str) -> Any:
    """What is told of an object.

    An answer that broke off among its headers lacks a size, which the client takes for 0, or a
    time: where one does, another is to say the same.
    """
    system, path = _system(address), _path(address)
    found = system.get_file_info(path)
    if found.type == fs.FileType.File and not (found.size and (found.mtime_ns or 0) > 0):
        again = system.get_file_info(path)
        if (again.size, again.mtime_ns) != (found.size, found.mtime_ns):
            raise Fault("two answers tell unlike sizes or times")
    return found


def _fetch(address: str, offset: int, size: int, facts: Facts) -> bytes:
    files = _files(os.getpid())

    def attempt() -> bytes:
        try:
            return part()
        except Fault:
            files.pop(address, None)  # opened anew by the next attempt
            raise

    def part() -> bytes:
        with _told(address):
            if address not in files:
                while len(files) >= _OPEN:
                    files.pop(next(iter(files))).close()
                files[address] = _system(address).open_input_file(_path(address))
            file = files[address]
            if file.size() != facts.size:
                now = _looked(address)
                if now.size == facts.size:
                    raise Fault(f"{file.size():,} of {facts.size:,} bytes were told")
                raise changed(address, f"{facts.size:,} bytes then, {now.size or 0:,} now")
            data = file.read_at(size, offset)
        if len(data) != size:
            raise Fault(f"{len(data):,} of {size:,} bytes came")
        return data

    return patiently(address, attempt)


def _inside(address: str) -> list[str]:
    system, scheme = _system(address), address.partition("://")[0]
    chosen = fs.FileSelector(_path(address).rstrip("/"), recursive=True, allow_not_found=True)

    def attempt() -> list[str]:
        with _told(address):
            found = system.get_file_info(chosen)
        return sorted(f"{scheme}://{i.path}" for i in found if i.type == fs.FileType.File)

    return patiently(address, attempt)


@contextmanager
def _told(address: str) -> Iterator[None]:
    """A block whose errors are told apart: what is refused, and what another try may not meet."""
    try:
        yield
    except FileNotFoundError as error:
        raise UserError(f"{address} does not exist") from error
    except OSError as error:
        text = " ".join(str(error).split())
        if any(word in text for word in ("ACCESS_DENIED", "PERMISSION_DENIED", "HTTP status 403")):
            raise UserError(
                f"{address} may not be read: give credentials as for the provider's own tools, or "
                "AWS_NO_SIGN_REQUEST=1 for what is public"
            ) from error
        if "NO_SUCH_BUCKET" in text or "NO_SUCH_KEY" in text:
            raise UserError(f"{address} does not exist") from error
        raise Fault(text[:300]) from error


def _path(address: str) -> str:
    return address.partition("://")[2]


def _system(address: str) -> Any:
    scheme, _, path = address.partition("://")
    return _made(os.getpid(), scheme, path.partition("/")[0])


@cache
def _files(process: int) -> dict[str, Any]:
    """What this process has open."""
    return {}


@cache
def _made(process: int, scheme: str, bucket: str) -> Any:
    """The file system of a bucket, of this process."""
    if scheme == "gs":
        return fs.GcsFileSystem(retry_time_limit=timedelta(seconds=READ))
    environment = os.environ
    given: dict[str, Any] = {
        "connect_timeout": CONNECT,
        "request_timeout": READ,
        "retry_strategy": fs.AwsStandardS3RetryStrategy(max_attempts=1),  # we are patient ourselves
    }
    if environment.get("AWS_NO_SIGN_REQUEST", "").lower() in _YES:
        given["anonymous"] = True
    endpoint = environment.get("AWS_ENDPOINT_URL_S3") or environment.get("AWS_ENDPOINT_URL")
    region = environment.get("AWS_REGION") or environment.get("AWS_DEFAULT_REGION")
    if endpoint:
        protocol, _, host = endpoint.rstrip("/").rpartition("://")
        given |= {"endpoint_override": host, "scheme": protocol or "https"}
    elif region is None:
        with _told(f"s3://{bucket}"):
            region = patiently(f"s3://{bucket}", lambda: fs.resolve_s3_region(bucket))
    return fs.S3FileSystem(**given, **({"region": region} if region else {}))
