"""The same SimCLR, BYOL and VICReg in lightly and here: images a second, and k-NN.

python benchmarks/vs_lightly.py --train TRAIN --test TEST [--samples 20000] [--rounds 1]

Same network and first weights, data, reader of files, views, batch, steps, AdamW, learning rates,
fp32; one process makes the views and trains, so that its CPU time is all there is. lightly's part
is the plain PyTorch loop of its documentation. The two take turns; which is first changes.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import machine
import torch
from PIL.Image import fromarray
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from selftaught import backbone, evaluate, methods, open_data, pretrain
from selftaught.engine.optim import Rates

HIDDEN, DIM, TEMPERATURE, MOMENTUM, LR, DECAY = 256, 64, 0.2, 0.98, 2e-3, 1e-4

OPTIONS: dict[str, dict[str, Any]] = {
    "simclr": {"temperature": TEMPERATURE, "layers": 2, "strength": 0.5, "blur": 0.0},
    "byol": {"momentum": MOMENTUM, "blur": (0.0, 0.0), "solarize": (0.0, 0.0)},
    "vicreg": {"blur": (0.0, 0.0), "solarize": (0.0, 0.0)},
}


class Stamps:
    """Times at the ends of steps: elapsed, and of CPU time."""

    def __init__(self) -> None:
        self.times: list[tuple[float, float]] = []

    def __call__(self) -> None:
        self.times.append((time.perf_counter(), time.process_time()))

    def images_a_second(self, batch: int) -> tuple[float, float]:
        """Elapsed, and of CPU time; the first two steps do not count."""
        first, last = self.times[1], self.times[-1]
        return tuple(batch * (len(self.times) - 2) / (b - a) for a, b in zip(first, last))


def network(arguments: argparse.Namespace, seed: int) -> Any:
    torch.manual_seed(seed)
    return backbone(arguments.backbone, size=arguments.size)


def ours(name: str, seed: int, precision: Any, arguments: argparse.Namespace) -> tuple[Any, Stamps]:
    stamps = Stamps()
    options = {"hidden": HIDDEN, "dim": DIM} | OPTIONS[name]
    method = methods.find(name)(network(arguments, seed), **options)
    follow = method.after_step

    def after_step() -> None:
        follow()
        stamps()

    method.after_step = after_step
    with tempfile.TemporaryDirectory() as folder:
        pretrain(
            method,
            arguments.train,
            Path(folder) / "run",
            recipe="paper",
            epochs=arguments.epochs,
            batch=arguments.batch,
            optimizer="adamw",
            lr=LR,
            weight_decay=DECAY,
            warmup=0.1,
            seed=seed,
            workers=0,
            accelerator="cpu",
            precision=precision,
            evaluate=False,
        )
    return method.encoder, stamps


class Pictures(Dataset[Any]):
    """Samples as PIL images through a transform of lightly's."""

    def __init__(self, samples: Any, transform: Callable[[Any], list[Tensor]]):
        self.samples, self.transform = samples, transform

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, i: int) -> list[Tensor]:
        return self.transform(fromarray(self.samples.read(i)))


def lightlys(name: str, seed: int, arguments: argparse.Namespace) -> tuple[Any, Stamps]:
    net = network(arguments, seed)
    views, model, loss, follow = {"simclr": simclr, "byol": byol, "vicreg": vicreg}[name](
        net, arguments.size
    )
    data = DataLoader(
        Pictures(open_data(arguments.train), views), arguments.batch, shuffle=True, drop_last=True
    )
    optimizer = torch.optim.AdamW(
        [p for p in model.parameters() if p.requires_grad], LR, weight_decay=DECAY, fused=True
    )
    steps = arguments.epochs * len(data)
    recipe = replace(methods.find(name).recipe, lr=LR, scaling="none", warmup=0.1)
    plan = Rates(recipe, arguments.batch, steps, len(data))
    stamps, step = Stamps(), 0
    for _ in range(arguments.epochs):
        for x1, x2 in data:
            optimizer.param_groups[0]["lr"] = plan.lr(step)
            value = loss(x1, x2)
            value.backward()
            optimizer.step()
            optimizer.zero_grad()
            follow(step / steps)
            step += 1
            stamps()
    return net, stamps


Parts = tuple[Any, nn.Module, Callable[[Tensor, Tensor], Tensor], Callable[[float], None]]


def simclr(net: Any, size: int) -> Parts:
    from lightly.loss import NTXentLoss
    from lightly.models.modules import SimCLRProjectionHead
    from lightly.transforms import SimCLRTransform

    model = nn.Sequential(net, SimCLRProjectionHead(net.dim, HIDDEN, DIM))
    criterion = NTXentLoss(temperature=TEMPERATURE)
    views = SimCLRTransform(input_size=size, cj_strength=0.5, gaussian_blur=0.0)
    return views, model, lambda x1, x2: criterion(model(x1), model(x2)), lambda _: None


def byol(net: Any, size: int) -> Parts:
    from lightly.loss import NegativeCosineSimilarity
    from lightly.models.modules import BYOLPredictionHead, BYOLProjectionHead
    from lightly.models.utils import deactivate_requires_grad, update_momentum
    from lightly.transforms import BYOLTransform
    from lightly.transforms.byol_transform import BYOLView1Transform, BYOLView2Transform
    from lightly.utils.scheduler import cosine_schedule

    online = nn.Sequential(net, BYOLProjectionHead(net.dim, HIDDEN, DIM))
    predictor = BYOLPredictionHead(DIM, HIDDEN, DIM)
    target = deepcopy(online)
    deactivate_requires_grad(target)
    criterion = NegativeCosineSimilarity()

    def loss(x1: Tensor, x2: Tensor) -> Tensor:
        p1, p2 = predictor(online(x1)), predictor(online(x2))
        with torch.no_grad():
            z1, z2 = target(x1), target(x2)
        return 0.5 * (criterion(p1, z2) + criterion(p2, z1))

    def follow(progress: float) -> None:
        momentum = cosine_schedule(round(1e6 * progress), 10**6, MOMENTUM, 1.0)
        update_momentum(online, target, m=momentum)

    views = BYOLTransform(
        BYOLView1Transform(input_size=size, gaussian_blur=0.0),
        BYOLView2Transform(input_size=size, gaussian_blur=0.0, solarization_prob=0.0),
    )
    return views, nn.ModuleList([online, predictor]), loss, follow


def vicreg(net: Any, size: int) -> Parts:
    from lightly.loss import VICRegLoss
    from lightly.models.modules.heads import VICRegProjectionHead
    from lightly.transforms import VICRegTransform

    model = nn.Sequential(net, VICRegProjectionHead(net.dim, HIDDEN, DIM))
    criterion = VICRegLoss()
    views = VICRegTransform(
        input_size=size,
        cj_strength=1.0,  # the paper's colors, which are BYOL's; lightly's own are stronger
        cj_bright=0.4,
        cj_contrast=0.4,
        cj_sat=0.2,
        cj_hue=0.1,
        solarize_prob=0.0,
        gaussian_blur=0.0,
    )
    return views, model, lambda x1, x2: criterion(model(x1), model(x2)), lambda _: None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--train", required=True, help="labeled images to train on")
    parser.add_argument("--test", required=True, help="labeled images to score on")
    parser.add_argument("--samples", type=int, default=20_000, help="images seen in a training")
    parser.add_argument("--rounds", type=int, default=1, help="trainings of each, of other seeds")
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--backbone", default="test_resnet")
    parser.add_argument("--methods", nargs="+", default=list(OPTIONS), choices=list(OPTIONS))
    arguments = parser.parse_args()
    try:
        import lightly as _  # noqa: F401
    except ImportError:
        sys.exit("lightly is not installed, and nothing to compare with: pip install 'lightly<1.7'")
    torch.set_num_threads(1)
    samples, held = open_data(arguments.train), open_data(arguments.test)
    arguments.epochs = max(1, round(arguments.samples / len(samples)))
    runners: dict[str, Callable[[str, int], tuple[Any, Stamps]]] = {
        "lightly": lambda name, seed: lightlys(name, seed, arguments),
        "selftaught, fp32": lambda name, seed: ours(name, seed, "fp32", arguments),
        "selftaught as it chooses": lambda name, seed: ours(name, seed, "auto", arguments),
    }
    rows: dict[str, dict[str, list[tuple[float, float, float]]]] = {}
    for name in arguments.methods:
        rows[name] = {runner: [] for runner in runners}
        for seed in range(arguments.rounds):
            order = list(runners.items())
            for runner, run in order if seed % 2 == 0 else order[::-1]:
                encoder, stamps = run(name, seed)
                encoder.eval()
                pair = (evaluate.embed(encoder, data, workers=0) for data in (samples, held))
                score = evaluate.knn(*pair).value
                speed = stamps.images_a_second(arguments.batch)
                rows[name][runner].append((*speed, score))
                print(name, runner, *(f"{v:.1f}" for v in rows[name][runner][-1]), flush=True)
    write(rows, arguments)


def write(rows: Any, arguments: argparse.Namespace) -> None:
    about = machine.describe("lightly", "torchvision")
    command = (
        "python benchmarks/vs_lightly.py "
        f"--train $DATA/{Path(arguments.train).parent.name}/{Path(arguments.train).name} "
        f"--test $DATA/{Path(arguments.test).parent.name}/{Path(arguments.test).name} "
        f"--samples {arguments.samples} --rounds {arguments.rounds} --size {arguments.size} "
        f"--batch {arguments.batch} --backbone {arguments.backbone}"
    )
    path = Path(__file__).parent / "results" / "vs_lightly.json"
    result = {"command": command, "machine": about, "rows": rows}
    path.write_text(json.dumps(result, indent=1) + "\n")
    lines = [
        "# The same methods in lightly and here",
        "",
        f"`{command}`  ",
        machine.sentence(about),
        "",
        "One process, one thread, which makes the views and trains. Images a second of CPU time "
        "are what counts: the machine had other work. k-NN: k = 20, T = 0.07, in per cent; medians "
        f"over {arguments.rounds} round(s), after {arguments.samples} images seen: few, so that it "
        "says only whether both go the same way.",
        "",
        "| method | with | images / CPU second | ratio | images / second | k-NN |",
        "| --- | --- | ---: | ---: | ---: | ---: |",
    ]
    for name, runners in rows.items():
        base = statistics.median(cpu for _, cpu, _ in runners["lightly"])
        for runner, found in runners.items():
            wall, cpu, score = (statistics.median(v) for v in zip(*found))
            cells = (name, runner, f"{cpu:.0f}", f"{cpu / base:.2f}", f"{wall:.0f}", f"{score:.1f}")
            lines.append(f"| {' | '.join(cells)} |")
    path.with_suffix(".md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
