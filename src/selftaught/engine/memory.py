"""Memory: what one step frees is there for the next, and what to do where there is too little."""

import ctypes
import os
import platform
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from selftaught.engine.randomness import Generators

if TYPE_CHECKING:
    from selftaught.engine.estimate import Estimate

try:
    import resource
except ImportError:  # Windows
    resource = None

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
"""Parameters of glibc's mallopt."""


def keep_freed() -> None:
    """Let this process keep what it frees; nothing happens where the C library is not glibc.

    By default glibc returns large blocks to the system at once, which hands them back page by page
    in the next step: a tenth to a quarter of the time of a small network's step.
    """
    if platform.libc_ver()[0] == "glibc":
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(TRIM_THRESHOLD, 2**31 - 1)
        mallopt(MMAP_THRESHOLD, 2**25)  # the largest that it takes


def there(device: torch.device) -> int | None:
    """Bytes that this process may have in all, on a GPU or of the machine; None where unknown."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device)
    if device.type != "cpu" or not Path("/proc/self/statm").exists():
        return None
    page = os.sysconf("SC_PAGE_SIZE")
    total, resident = (int(n) * page for n in Path("/proc/self/statm").read_text().split()[:2])
    free = next(
        int(line.split()[1]) * 1024
        for line in Path("/proc/meminfo").read_text().splitlines()
        if line.startswith("MemAvailable")
    )
    limits = [free + resident]
    for file in ("memory.max", "memory/memory.limit_in_bytes"):  # of a container
        with suppress(OSError, ValueError):
            limits.append(int((Path("/sys/fs/cgroup") / file).read_text()))
    bound = resource.getrlimit(resource.RLIMIT_AS)[0] if resource else -1
    if bound != -1:
        limits.append(bound - (total - resident))  # of which libraries take much and use little
    return min(limits)


def fitting(part: int, need: "Estimate | None", room: int | None, least: int = 1) -> int:
    """How many images of a part would fit: half of them or fewer, by what was measured.

    Args:
        part: images that did not fit.
        need: of memory, with all of them.
        room: bytes that there are.
        least: images that the method needs.
    """
    images = max(least, part // 2)
    if need is not None and room is not None and need.each:
        fixed = need.memory - need.each * part
        while images // 2 >= least and fixed + need.each * images > room:
            images //= 2
    return images


def advice(
    batch: int, accumulate: int, part: int, fits: int, compares: bool, whole: bool, saved: bool
) -> str:
    """What to do about a step that did not fit.

    Args:
        batch, accumulate: images of a step, and the parts that they are computed in.
        part, fits: images of a part on a device, and how many would fit.
        compares: whether the loss compares images of a part.
        whole: whether the loss is of all parts at once already.
        saved: whether there is a checkpoint to go on from.
    """
    go = "--resume --force" if saved else "--overwrite"
    if fits >= part:
        smaller = "--recompute (of transformers), a smaller backbone or --size"
        return f"no smaller part works for this method: use {smaller}"
    parts = accumulate * -(-part // fits)
    fewer = batch // parts
    if whole or compares:
        same = f"{go} --batch {fewer} --effective-batch {batch}"
        how = f"computes one loss of the same {batch} images, {fewer} at a time"
    else:
        same = f"{go} --accumulate {parts}"
        how = f"computes the same batch of {batch} in {parts} parts"
    other = batch // -(-part // fits)
    return f"{same} {how}; --batch {other} would fit too, but is another run (--overwrite)"


def ran_out(error: BaseException, begun: bool) -> str:
    """Words for memory that ran out between two steps."""
    reason = (str(error) or type(error).__name__).partition("\n")[0].partition(". ")[0]
    if begun:
        return (
            f"memory ran out ({reason}): free some, use fewer --workers, or leave the scores out "
            "with --no-evaluate"
        )
    return (
        f"memory ran out before the first step ({reason}): use a smaller backbone or --size, fewer "
        "--workers, or no --cache"
    )


class Remembered:
    """What a step changes before its optimizer does: buffers and generators, to be put back.

    Weights and their optimizer's state are untouched by then, so that this is all there is to undo.

    Args:
        method: that is trained.
        device: whose generator is kept.
    """

    MOST = 2**26
    """Bytes of buffers that are copied at each step; of more, nothing is remembered."""

    def __init__(self, method: nn.Module, device: torch.device):
        self.device = device
        size = sum(b.numel() * b.element_size() for b in method.buffers())
        self.able = size <= self.MOST
        # walked through at each step, so only those that have any
        self.owners = [m for m in method.modules() if m._buffers]
        self.kept: list[Tensor] = []
        self.generators = Generators.now(device)

    def _buffers(self) -> list[tuple[dict[str, Tensor | None], str, Tensor]]:
        """Where each buffer stands, and what it is; a step may have put another in its place."""
        return [
            (m._buffers, name, b)
            for m in self.owners
            for name, b in m._buffers.items()
            if b is not None
        ]

    @torch.no_grad()
    def keep(self) -> None:
        """Before a step."""
        if not self.able:
            return
        now = [buffer for _, _, buffer in self._buffers()]
        if [b.shape for b in now] != [b.shape for b in self.kept]:
            self.kept = [buffer.clone() for buffer in now]
        elif now:
            torch._foreach_copy_(self.kept, now)
        self.generators = Generators.now(self.device)

    @torch.no_grad()
    def put_back(self) -> None:
        """After a step that failed before its optimizer's turn."""
        for (place, name, _), buffer in zip(self._buffers(), self.kept, strict=True):
            place[name] = buffer
        self.generators.put_back(self.device)
