"""Weights by name, from a hub: from its cache, or from the network where that answers at once."""

import threading
import urllib.error
import urllib.request
from pathlib import Path

from selftaught.errors import UserError

PATIENCE = 5.0
"""Seconds that a hub has to answer; its own client would try for minutes."""
FILES = ("model.safetensors", "pytorch_model.bin", "model.safetensors.index.json")
"""What holds weights in a repository, the first that is there."""
BESIDE = ("config.json", "preprocessor_config.json")
"""What says of which network they are, and how images are normalized."""


def fetch(repo: str) -> Path:
    """The folder with the files of `org/name`, or `org/name@revision`.

    Raises:
        UserError: they are not cached, and cannot be had; with what to download, and where to.
    """
    import huggingface_hub
    from huggingface_hub.errors import EntryNotFoundError

    name, _, revision = repo.partition("@")
    if cached := _cached(name, revision or None):
        return cached
    if not reachable():
        raise absent(name, "the hub does not answer")
    found: Path | None = None
    try:
        for file in (*FILES, *BESIDE):
            if found and file in FILES:
                continue
            try:
                path = Path(huggingface_hub.hf_hub_download(name, file, revision=revision or None))
            except EntryNotFoundError:
                continue
            found = path.parent
            if file.endswith(".index.json"):
                from selftaught.backbones.weights.places import shards

                for shard in shards(path):
                    huggingface_hub.hf_hub_download(name, shard.name, revision=revision or None)
    except Exception as error:  # each layer below has its own exceptions
        raise absent(name, _reason(error)) from error
    if found is None:
        raise UserError(f"{name} has no weights on the hub ({', '.join(FILES)})")
    return found


def cached_file(name: str, files: tuple[str, ...] = FILES[:2]) -> Path | None:
    """A file with the weights of `org/name`, where an earlier download has left one."""
    from huggingface_hub import try_to_load_from_cache

    for file in files:
        path = try_to_load_from_cache(name, file)
        if isinstance(path, str):
            return Path(path)
    return None


def _cached(name: str, revision: str | None) -> Path | None:
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        for file in FILES:
            path = try_to_load_from_cache(name, file, revision=revision)
            if isinstance(path, str):
                return Path(path).parent
    except HFValidationError as error:
        raise UserError(
            f"hf-hub:{name} names no repository; it is hf-hub:ORGANIZATION/NAME"
        ) from error
    return None


def absent(name: str, reason: str) -> UserError:
    """The error for weights that cannot be had, with the way to bring them by hand."""
    import huggingface_hub.constants as hub

    return UserError(
        f"the weights {name} could not be had ({reason}): download {FILES[0]} (or {FILES[1]}) and "
        f"{BESIDE[0]} from {hub.ENDPOINT}/{name} with a browser, logged in where it asks for that, "
        "into a folder of their own, and give it with --weights local-dir:FOLDER"
    )


def _reason(error: Exception) -> str:
    kind = type(error).__name__
    status = getattr(getattr(error, "response", None), "status_code", None)
    if kind == "GatedRepoError" or status in (401, 403):
        return "they are behind a login, or there is no such repository"
    return f"{kind}: {next(iter(str(error).strip().splitlines()), '')}"


def reachable() -> bool:
    """Whether the hub answers at all, within `PATIENCE`."""
    import huggingface_hub.constants as hub

    if hub.HF_HUB_OFFLINE:
        return False
    answers: list[bool] = []

    def ask() -> None:
        try:
            asked = urllib.request.Request(hub.ENDPOINT, method="HEAD")
            urllib.request.urlopen(asked, timeout=PATIENCE).close()
        except urllib.error.HTTPError:
            answers.append(True)
        except (OSError, ValueError):
            return
        else:
            answers.append(True)

    asking = threading.Thread(target=ask, daemon=True)  # names are looked up without a limit
    asking.start()
    asking.join(PATIENCE)
    return bool(answers)
