"""Time and memory of losses, forward and backward, beside lightly's, where it is installed.

    python benchmarks/losses.py [--rounds 7] [--out RESULTS.md]

Both get the same embeddings, on one thread, and must agree on the loss where they mean the same
(VICReg's terms are weighted alike; NT-Xent is twice lightly's, as in SimCLR's code). Contestants
take turns within a round; time is the CPU's, of the median round, and memory is what the most
tensors take at once beyond the embeddings, by the profiler's account.
"""

import argparse
import contextlib
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import machine
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from selftaught.methods.correlation.barlow_twins import decorrelation
from selftaught.methods.correlation.vicreg import covariance, variance_hinge
from selftaught.objectives.contrastive import nt_xent

Loss = Callable[[Tensor, Tensor], Tensor]


def vicreg(z1: Tensor, z2: Tensor) -> Tensor:
    """As VICReg.compare, in one process."""
    spread = (variance_hinge(z1) + variance_hinge(z2)) / 2
    return 25 * (z1 - z2).square().mean() + 25 * spread + covariance(z1) + covariance(z2)


def barlow(z1: Tensor, z2: Tensor) -> Tensor:
    """As BarlowTwins.compare, in one process."""
    a, b = ((z - z.mean(0)) / (z.var(0, correction=0) + 1e-5).sqrt() for z in (z1, z2))
    return decorrelation(a, b, 0.0051)


def cases() -> list[tuple[str, int, int, dict[str, Loss]]]:
    """Name, batch, dimensions, contestants."""
    ours: dict[str, Loss] = {
        "NT-Xent": lambda a, b: nt_xent(a, b, 0.1) / 2,
        "VICReg": vicreg,
        "Barlow Twins": barlow,
    }
    theirs: dict[str, Loss] = {}
    with contextlib.suppress(ImportError):
        from lightly.loss import BarlowTwinsLoss, NTXentLoss, VICRegLoss

        theirs = {
            "NT-Xent": NTXentLoss(temperature=0.1),
            "VICReg": VICRegLoss(),
            "Barlow Twins": BarlowTwinsLoss(lambda_param=0.0051),
        }
    sizes = {
        "NT-Xent": [(256, 128), (4096, 128)],
        "VICReg": [(256, 2048)],
        "Barlow Twins": [(256, 2048)],
    }
    return [
        (name, *size, {"ours": ours[name]} | ({"lightly": theirs[name]} if theirs else {}))
        for name in ours
        for size in sizes[name]
    ]


def step(loss: Loss, z1: Tensor, z2: Tensor) -> float:
    """Value of a loss, after its gradients were made."""
    z1.grad = z2.grad = None
    value = loss(z1, z2)
    value.backward()
    return value.item()


def megabytes(loss: Loss, z1: Tensor, z2: Tensor) -> float:
    """The most that tensors take at once while a step runs."""
    z1.grad = z2.grad = None
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as watched:
        step(loss, z1, z2)
    results = watched.profiler.kineto_results
    changes = [e for e in results.events() if e.name() == "[memory]"]
    now = most = 0
    for event in sorted(changes, key=lambda e: e.start_ns()):
        now += event.nbytes()
        most = max(most, now)
    return most / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, help="Markdown file to write")
    args = parser.parse_args()
    torch.set_num_threads(1)
    compared = cases()
    names = list(compared[0][3])
    packages = ["lightly"] if "lightly" in names else []
    lines = [
        f"Command: `python benchmarks/losses.py --rounds {args.rounds}`",
        "",
        machine.sentence(machine.describe(*packages)) + " One thread.",
        "",
        "| loss | batch x dimensions | contestant | ms a step | MB | times slower than ours |",
        "|---|---|---|---:|---:|---:|",
    ]
    print("\n".join(lines))
    for name, batch, dim, contestants in compared:
        torch.manual_seed(0)
        z1 = torch.randn(batch, dim)
        z2 = (z1 + torch.randn(batch, dim)).requires_grad_()
        z1.requires_grad_()
        values = [step(loss, z1, z2) for loss in contestants.values()]
        torch.testing.assert_close(values, values[:1] * len(values), rtol=1e-3, atol=0)
        spent: dict[str, list[float]] = {who: [] for who in contestants}
        for _ in range(args.rounds):
            for who, loss in contestants.items():
                begun = time.process_time()
                step(loss, z1, z2)
                spent[who].append(time.process_time() - begun)
        for who, loss in contestants.items():
            seconds = statistics.median(spent[who])
            ratio = seconds / statistics.median(spent["ours"])
            line = (
                f"| {name} | {batch}x{dim} | {who} | {1000 * seconds:.3g} | "
                f"{megabytes(loss, z1, z2):,.0f} | {ratio:.1f} |"
            )
            print(line, flush=True)
            lines.append(line)
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text("# Losses\n\n" + "\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
