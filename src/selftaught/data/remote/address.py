"""Addresses of data that lies elsewhere, and what they stand for."""

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from functools import cache
from importlib import import_module
from os.path import commonpath
from typing import TYPE_CHECKING

from selftaught.data.ranges import Facts
from selftaught.data.tar import braces
from selftaught.errors import UserError

if TYPE_CHECKING:
    from selftaught.data.remote.store import Store

_ADDRESS = re.compile(r"([a-z][a-z0-9+.-]*)://.+", re.DOTALL)
_MAGIC = re.compile(r"[*?\[]")
SCHEMES = {
    "s3": "bucket.Bucket",
    "gs": "bucket.Bucket",
    "https": "http.Http",
    "http": "http.Http",
    "hf": "hub.Hub",
}
"""What stands for an address, by how it begins: module and class."""


def is_address(text: str) -> bool:
    """Whether a text is an address, not a path."""
    return _ADDRESS.fullmatch(text) is not None


@cache
def store_of(scheme: str) -> "Store":
    """What addresses that begin so stand for.

    Raises:
        UserError: no such are known.
    """
    if scheme not in SCHEMES:
        raise UserError(
            f"{scheme}:// is no kind of address that can be read: fetch the data first, or name "
            f"it by one of {', '.join(f'{s}://' for s in SCHEMES)}"
        )
    module, _, name = SCHEMES[scheme].partition(".")
    # what speaks with servers is slow to import, and of no use to whoever has files
    return getattr(import_module(f"selftaught.data.remote.{module}"), name)()


def matching(text: str) -> list[str]:
    """The files that an address stands for: one, those of a pattern, or all below a folder.

    Raises:
        UserError: there are none, or nothing can be listed there.
    """
    found = []
    for address in braces(text):
        scheme = address.partition("://")[0]
        store = store_of(scheme)
        if scheme not in ("http", "https") and _MAGIC.search(address):
            folder = address[: address.rindex("/", 0, _MAGIC.search(address).start())]  # type: ignore[union-attr]
            found += [file for file in store.inside(folder) if fnmatchcase(file, address)]
        elif ending(address):
            found.append(address)
        else:
            found += store.inside(address)
    if not found:
        raise UserError(f"{text} stands for no file")
    return found


def ending(address: str) -> str:
    """The extension of a file, in small letters; empty for folders."""
    name = re.split(r"[?#]", address)[0].rpartition("/")[2]
    return f".{name.rpartition('.')[2].lower()}" if "." in name else ""


def parent(paths: Sequence[str]) -> str:
    """The folder that all of these addresses lie in."""
    scheme = paths[0].partition("://")[0]
    folders = [path.partition("://")[2].rpartition("/")[0] for path in paths]
    return f"{scheme}://{commonpath(folders)}"


def inside(address: str) -> Facts | None:
    """Of a file; None where it does not exist, or may not be looked for."""
    try:
        return store_of(address.partition("://")[0]).facts(address)
    except UserError:
        return None
