"""Files of repositories on the Hugging Face hub: `hf://datasets/OWNER/NAME@REVISION/FOLDER/FILE`."""

import os
from typing import Any, NamedTuple, final

from selftaught.data.ranges import Facts
from selftaught.data.remote.http import facts_of, fetched
from selftaught.data.remote.store import Fault, Keep, Store, patiently
from selftaught.errors import UserError

_TYPES = {"datasets": "dataset", "spaces": "space"}


class Place(NamedTuple):
    """A file or folder of a repository."""

    kind: str
    repository: str
    revision: str
    path: str


def place_of(address: str) -> Place:
    """What an address says.

    Raises:
        UserError: it names no repository.
    """
    first, *rest = address.removeprefix("hf://").split("/")
    kind = _TYPES.get(first, "model")
    if kind == "model":
        rest = [first, *rest]
    if len(rest) < 2 or not all(rest[:2]):
        raise UserError(
            f"{address} names no repository: needed is hf://datasets/OWNER/NAME/shard-000.tar"
        )
    name, _, revision = rest[1].partition("@")
    return Place(kind, f"{rest[0]}/{name}", revision or "main", "/".join(rest[2:]))


@final
class Hub(Store):
    """`hf://`, as whoever is logged in on this machine (`hf auth login`, `HF_TOKEN`)."""

    def facts(self, address: str) -> Facts:
        return facts_of(address, _url(address), _headers())

    def fetch(self, address: str, offset: int, size: int, facts: Facts, keep: Keep) -> bytes:
        return fetched(address, _url(address), _headers(), (offset, size), facts, keep)

    def inside(self, address: str) -> list[str]:
        place = place_of(address.rstrip("/"))
        hub = _library()

        def attempt() -> list[str]:
            try:
                found = hub.HfApi(endpoint=_endpoint()).list_repo_tree(
                    place.repository,
                    place.path or None,
                    recursive=True,
                    revision=place.revision,
                    repo_type=place.kind,
                )
                return [item.path for item in found if hasattr(item, "size")]
            except hub.errors.EntryNotFoundError as error:
                raise UserError(f"{address} does not exist") from error
            except hub.errors.RepositoryNotFoundError as error:
                raise UserError(
                    f"{address} does not exist, or may not be read: log in with `hf auth login`"
                ) from error
            except (hub.errors.HfHubHTTPError, OSError) as error:
                raise Fault(f"{type(error).__name__}: {error}") from error

        root = address.rstrip("/").removesuffix(place.path).rstrip("/")
        return sorted(f"{root}/{path}" for path in patiently(address, attempt))


def _url(address: str) -> str:
    place = place_of(address)
    return _library().hf_hub_url(
        place.repository,
        place.path,
        repo_type=place.kind,
        revision=place.revision,
        endpoint=_endpoint(),
    )


def _headers() -> dict[str, str]:
    token = _library().get_token()
    return {"Authorization": f"Bearer {token}"} if token else {}


def _endpoint() -> str | None:
    return os.environ.get("HF_ENDPOINT")


def _library() -> Any:
    try:
        import huggingface_hub
    except ImportError as error:
        raise UserError(
            "addresses of the Hugging Face hub are read with an extra: pip install "
            "'selftaught[remote]'"
        ) from error
    return huggingface_hub
