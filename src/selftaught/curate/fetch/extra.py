"""The packages of the extra `crawl`."""

from importlib import import_module
from typing import Any

from selftaught.errors import UserError


def needed(module: str) -> Any:
    """A module of the extra `crawl`; UserError where it is not installed."""
    try:
        return import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise UserError(
            f'fetching needs {package}, which is not installed; pip install "selftaught[crawl]"'
        ) from error
