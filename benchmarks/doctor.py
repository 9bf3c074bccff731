"""Does the doctor name what is wrong, early, and keep quiet where nothing is?

python benchmarks/doctor.py [--only NAMES ...] [--epochs 7]

Each patient is a method with one thing wrong, trained on the photos that are shipped with the
package, at 32 px with a small network, for some hundred steps on one core. A patient counts as
recognized when the finding that names its disease comes within the first tenth of training. The
healthy ones must have no finding at all. The table is written to results/doctor.md.
"""

import argparse
import json
import logging
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import MethodType
from typing import Any

import machine
import numpy as np
import torch
from learn import ALONE, PRESETS
from torch import nn
from torch.nn import functional as F

from selftaught import methods, pretrain
from selftaught.augment import View, Views
from selftaught.data import open_data
from selftaught.demo import PHOTOS
from selftaught.engine.build import assemble
from selftaught.errors import SelftaughtError
from selftaught.method import Method
from selftaught.parts import ema

BATCH, SIZE, IMAGES, EARLY = 32, 32, 512, 0.1
COMMON = {"optimizer": "adamw", "lr": 2e-3, "weight_decay": 1e-4, "batch": BATCH, "warmup": 0.05}
OWN: dict[str, Any] = {"optimizer": None, "lr": None, "weight_decay": None, "warmup": None}
"""The paper's optimization."""


@dataclass(frozen=True)
class Patient:
    """A training with one thing wrong; healthy where no finding is expected.

    Args:
        method: its name.
        finding: names of findings of which one has to come.
        options: of the method, beside those of `learn.py`.
        train: arguments of `pretrain`.
        change: what is done to the method before it is trained.
        images: what is done to the photos.
    """

    method: str
    finding: tuple[str, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)
    train: dict[str, Any] = field(default_factory=dict)
    change: Callable[[Any], None] = lambda method: None
    images: Callable[[np.ndarray], np.ndarray] = lambda images: images


# what is done to them --------------------------------------------------------------------------


def without_predictor(method: Any) -> None:
    method.predictor = nn.Identity()


def without_stop_gradient(method: Any) -> None:
    def loss(self: Any, batch: Any) -> torch.Tensor:
        z1, z2 = (self.projector(self.backbone(x)) for x in batch.views)
        p1, p2 = self.predictor(z1), self.predictor(z2)
        return -(F.cosine_similarity(p1, z2).mean() + F.cosine_similarity(p2, z1).mean()) / 2

    method.loss = MethodType(loss, method)


def wrong_labels(method: Any) -> None:
    """The positive is the first logit, the labels say the second."""

    def loss(self: Any, batch: Any) -> torch.Tensor:
        x1, x2 = batch.views
        q = F.normalize(self.online(x1), dim=1)
        with torch.no_grad():
            k = F.normalize(self.target(x2), dim=1)
        logits = torch.cat([(q * k).sum(1, keepdim=True), q @ self.negatives.items.clone().mT], 1)
        self.negatives.push(k)
        return F.cross_entropy(logits / self.temperature, torch.ones(len(q), dtype=torch.long))

    method.loss = MethodType(loss, method)


def shuffled_pairs(method: Any) -> None:
    """The second view is of the image before."""

    def loss(self: Any, batch: Any) -> torch.Tensor:
        x1, x2 = batch.views
        return type(self).loss(self, batch._replace(views=[x1, x2.roll(1, 0)]))

    method.loss = MethodType(loss, method)


def unfilled_queue(method: Any) -> None:
    method.negatives.push = lambda keys: None


def wrong_sign(method: Any) -> None:
    def loss(self: Any, batch: Any) -> torch.Tensor:
        return -type(self).loss(self, batch)

    method.loss = MethodType(loss, method)


def stays_in_eval(method: Any) -> None:
    def train(self: Any, mode: bool = True) -> Any:
        return nn.Module.train(self, False)

    method.train = MethodType(train, method)


def nothing_hidden(method: Any) -> None:
    method.ratio = 0.0


def without_normalization(method: Any) -> None:
    method.encoder.mean, method.encoder.std = (0.0,) * 3, (1 / 255,) * 3


def divided_twice(method: Any) -> None:
    method.encoder.mean, method.encoder.std = (0.0,) * 3, (255.0,) * 3


def in_half(method: Any) -> None:
    method.to(torch.bfloat16)
    method.backbone.register_forward_pre_hook(
        lambda net, inputs: (inputs[0].to(next(net.parameters()).dtype),)
    )


def overflowing(method: Any) -> None:
    with torch.no_grad():
        method.projector[0].weight.mul_(1e37)


def same_views(method: Any) -> None:
    view = View(SIZE, scale=(1.0, 1.0), flip=0.0)
    method.views = MethodType(lambda self, size: Views((view, view)), method)


def detached(method: Any) -> None:
    method.backbone.requires_grad_(False)


def copy_stays(method: Any) -> None:
    method.after_step = lambda: None


def copy_shared(method: Any) -> None:
    """What is to be a copy is the network itself."""

    def after_step(self: Any) -> None:
        ema(self.target, self.online, 0.0)

    method.after_step = MethodType(after_step, method)


# patients and healthy ones ---------------------------------------------------------------------

PATIENTS = {
    "BYOL without its predictor": Patient("byol", ("no predictor",), change=without_predictor),
    "SimSiam without stop-gradient": Patient(
        "simsiam", ("no stop-gradient",), change=without_stop_gradient
    ),
    "DINO without centering": Patient(
        "dino", ("memory stands still",), {"center_momentum": 1.0}, {"epochs": 4}
    ),
    "temperature 1e-3": Patient("simclr", ("temperature",), {"temperature": 1e-3}),
    "learning rate x1000, SimCLR": Patient(
        "simclr", ("high learning rate",), train=OWN | {"lr": 0.3 / 8 * 1000}
    ),
    "learning rate x1000, AdamW": Patient(
        "vicreg", ("rate for optimizer", "steps too long"), train={"lr": 1.0}
    ),
    "labels of the queue wrong": Patient("moco_v2", ("pushed apart",), change=wrong_labels),
    "pairs of different images": Patient(
        "simclr", ("views in another order", "pairs unrelated"), change=shuffled_pairs
    ),
    "queue that is never filled": Patient(
        "moco_v2", ("memory stands still",), change=unfilled_queue
    ),
    "momentum 1.0": Patient("moco_v2", ("fixed target",), {"momentum": 1.0}),
    "momentum 0": Patient("moco_v2", ("fast target",), {"momentum": 0.0}),
    "copy that is the network": Patient("byol", ("target is the network",), change=copy_shared),
    "EMA teacher is never updated": Patient("byol", ("target stands still",), change=copy_stays),
    "momentum of a long training": Patient("moco_v2", ("slow target",), {"momentum": 0.9999}),
    "white images": Patient(
        "simclr", ("constant images",), images=lambda x: np.full_like(x, 255)
    ),
    "one image repeated": Patient(
        "simclr", ("repeated images",), images=lambda x: np.repeat(x[:1], len(x), 0)
    ),
    "a third are duplicates": Patient(
        "byol", ("duplicates",), images=lambda x: np.concatenate([x[:350], x[:150]])
    ),
    "batch norm in eval mode": Patient("simclr", ("batch norm off",), change=stays_in_eval),
    "VICReg without variance": Patient("vicreg", ("silent term",), {"variance": 0.0}),
    "MAE with mask ratio 0": Patient("mae", ("nothing hidden",), change=nothing_hidden),
    "batch of 2": Patient(
        "simclr", ("small batch",), train={"batch": 2, "epochs": 1},
        images=lambda x: x[:400],
    ),
    "warm-up as long as training": Patient("mae", ("long warm-up",), train={"warmup": 1.0}),
    "not normalized, 0 to 255": Patient(
        "barlow_twins", ("normalization: mean",), change=without_normalization
    ),
    "divided by 255 twice": Patient(
        "deepcluster", ("normalization: deviation",), change=divided_twice
    ),
    "weights in bf16": Patient(
        "simclr", ("half-precision weights", "weights do not move"), change=in_half
    ),
    "overflow": Patient("simclr", ("stopped",), change=overflowing),
    "the same view twice": Patient("simclr", ("views too alike",), change=same_views),
    "backbone without gradient": Patient("jigsaw", ("no gradient",), change=detached),
    "loss with the wrong sign": Patient("byol", ("pushed apart",), change=wrong_sign),
    "crops of a few pixels": Patient(
        "swav", ("empty views", "views unrelated"),
        {"global_scale": (0.001, 0.001), "local_scale": (0.001, 0.001)},
    ),
}  # fmt: skip

HEALTHY = {name: Patient(name) for name in ALONE}


def photos() -> np.ndarray:
    samples = open_data(PHOTOS / "train.parquet")
    chosen = np.random.default_rng(0).permutation(len(samples))[:IMAGES]
    return np.stack([F.interpolate(
        torch.from_numpy(samples.read(i)).permute(2, 0, 1)[None].float(), 40, mode="area"
    )[0].permute(1, 2, 0).round().byte().numpy() for i in chosen])  # fmt: skip


def run(patient: Patient, images: np.ndarray, epochs: int) -> dict[str, Any]:
    preset = PRESETS[patient.method]
    images = patient.images(images)
    few = {"queue": 256} if "queue" in methods.signature(patient.method) else {}
    train = {"epochs": epochs} | COMMON | preset.train | patient.train
    torch.manual_seed(0)
    image = {"name": preset.net, "size": SIZE, "drop_path": 0.0}
    method: Method = assemble(
        patient.method, image, preset.method | few | patient.options, images, 0
    )
    patient.change(method)
    begun, error = time.process_time(), ""
    with tempfile.TemporaryDirectory() as folder:
        try:
            pretrain(
                method, images, Path(folder) / "run", workers=0, evaluate=False,
                precision="fp32", **train,
            )  # fmt: skip
        except SelftaughtError as raised:
            error = str(raised)
        file = Path(folder) / "run" / "diagnosis.json"
        found = json.loads(file.read_text()) if file.exists() else {}
    seconds = time.process_time() - begun
    return {"error": error, "cpu": seconds, **found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", default=[], help="names, or parts of them")
    parser.add_argument("--epochs", type=int, default=5)
    arguments = parser.parse_args()
    logging.getLogger("selftaught").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    images = photos()
    chosen = [
        (name, patient)
        for name, patient in (PATIENTS | HEALTHY).items()
        if not arguments.only or any(part in name for part in arguments.only)
    ]
    rows = []
    for name, patient in chosen:
        found = run(patient, images, arguments.epochs)
        rows.append((name, patient, found))
        print(line(*rows[-1]), flush=True)
        if arguments.only:
            explain(found)
    if not arguments.only:
        path = Path(__file__).parent / "results" / "doctor.md"
        path.write_text(markdown(rows))


def explain(found: dict[str, Any]) -> None:
    """Everything about one training: findings in words, range of each figure."""
    for finding in found.get("findings", []):
        print(f"  {finding['step']}: {finding['says']}")
    print("  ", "; ".join(found.get("evidence", [])), found["error"])
    course = found.get("course", [])
    for name in dict.fromkeys(k for e in course for k in e):
        values = [e[name] for e in course if isinstance(e.get(name), int | float)]
        early = [f"{v:.4g}" for v in values[:4]]
        if values:
            print(f"    {name}: {min(values):.4g} to {max(values):.4g}, first {' '.join(early)}")


def recognized(patient: Patient, found: dict[str, Any]) -> dict[str, Any] | None:
    """The finding that names the disease early enough."""
    for finding in found.get("findings", []):
        if finding["name"] in patient.finding and finding["progress"] <= EARLY:
            return finding
    return None


def line(name: str, patient: Patient, found: dict[str, Any]) -> str:
    hit = recognized(patient, found)
    others = [f"{f['name']} ({f['progress']:.0%})" for f in found.get("findings", []) if f != hit]
    figure = hit["figure"] if hit else None
    cells = [
        name,
        patient.method,
        hit["name"] if hit else "**missed**" if patient.finding else "none",
        f"{hit['progress']:.0%}" if hit else "",
        "" if figure is None else f"{figure:.3g} ({hit['limit']:.3g})" if hit else "",
        ", ".join(others),
        str(found.get("verdict")),
        f"{found['cpu']:.1f}",
        f"{found.get('seconds', 0):.2f}",
    ]
    return "| " + " | ".join(cells) + " |"


def markdown(rows: list[tuple[str, Patient, dict[str, Any]]]) -> str:
    ill = [r for r in rows if r[1].finding]
    well = [r for r in rows if not r[1].finding]
    hits = sum(recognized(p, f) is not None for _, p, f in ill)
    quiet = sum(not f.get("findings") and f.get("verdict") == "healthy" for _, _, f in well)
    head = (
        "| training | method | finding | at | figure (limit) | other findings | verdict | CPU s |"
        " of these, doctor |\n| --- | --- | --- | --- | --- | --- | --- | --- | --- |\n"
    )
    return (
        "# The doctor on staged patients and on healthy runs\n\n"
        "Made by `OMP_NUM_THREADS=1 python benchmarks/doctor.py`, which says what each patient "
        f"has. {machine.sentence(machine.describe())}\n\n"
        f"{hits} of {len(ill)} patients recognized within {EARLY:.0%} of training; {quiet} of "
        f"{len(well)} healthy runs, each of another method, without any finding.\n\n"
        + head
        + "\n".join(line(*r) for r in ill)
        + "\n\n## Healthy runs\n\n"
        + head
        + "\n".join(line(*r) for r in well)
        + "\n"
    )


if __name__ == "__main__":
    main()
