"""What every result names: the processor, the versions, the day, the load."""

import datetime
import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any


def describe(*packages: str) -> dict[str, Any]:
    """Processor, cores, load, versions of Python, torch, timm, selftaught and `packages`; date."""
    names = ("torch", "timm", "selftaught", *packages)
    return {
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
        "versions": {"python": platform.python_version()} | {n: version(n) for n in names},
        "commit": _commit(),
        "date": datetime.date.today().isoformat(),
    }


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    model = next((n.split(":")[1].strip() for n in lines if n.startswith("model name")), "")
    return model or platform.processor() or platform.machine()


def _commit() -> str:
    here = Path(__file__).parent
    found = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=here, capture_output=True, text=True
    )
    return found.stdout.strip()


def sentence(found: dict[str, Any]) -> str:
    """What `describe` found, in one line."""
    versions = ", ".join(f"{name} {number}" for name, number in found["versions"].items())
    return (
        f"{found['cpu']}, {found['cores']} cores, shared with other work (load "
        f"{found['load']}); {versions}; commit {found['commit']}, {found['date']}."
    )
