"""Runs that go on where a job is started again, with the command that began them."""

import logging
import os
from dataclasses import replace
from typing import TYPE_CHECKING

from selftaught.errors import UserError
from selftaught.export.facts import SETTINGS

if TYPE_CHECKING:
    from selftaught.engine.settings import Settings

log = logging.getLogger("selftaught")

COUNTS = ("TORCHELASTIC_RESTART_COUNT", "SLURM_RESTART_COUNT")
"""Variables of the environment in which torchrun and SLURM count restarts of a job."""


def settled(settings: "Settings") -> "Settings":
    """With `resume` as it is to be: where a run in `out` is to go on if there is one, it does.

    That is asked for (`auto_resume`), or a launcher has started a job again: its command, which
    began the run, would be refused, because its folder is not empty any more.

    Raises:
        UserError: nothing says which run.
    """
    again = any(os.environ.get(name, "0") not in ("", "0") for name in COUNTS)
    if settings.resume or not (again or settings.auto_resume):
        return settings
    if settings.out is None:
        why = "--auto-resume" if settings.auto_resume else "a job that was started again"
        raise UserError(f"{why} needs to know which run is to go on: name its folder with --out")
    if settings.auto_resume and settings.overwrite:
        raise UserError(
            "--auto-resume goes on with the run in --out, --overwrite moves it aside: drop one"
        )
    goes_on = (settings.out / SETTINGS).exists()
    if goes_on:
        log.info("going on with the run in %s", settings.out)
    return replace(settings, resume=goes_on, overwrite=settings.overwrite and not goes_on)
