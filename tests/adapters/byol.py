"""BYOL: its loss, steps of training on one and on two devices, and its schedules."""

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from selftaught import dist
from selftaught.engine.optim import Rates, build
from selftaught.method import Batch, Recipe
from selftaught.methods.distillation.byol import BYOL, regression
from selftaught.parts import ema, frozen_copy, synchronize
from selftaught.schedule import cosine
from tests.adapters import Golden, close, momenta
from tests.adapters.moco_v2 import Encoder


class Trained(nn.Module):
    """What the reference trains: the method, and an online probe of the first view's features.

    Its target network has a predictor and a probe as well, which the loss does not use.
    """

    def __init__(self, golden: Golden):
        super().__init__()
        inputs, dim = golden["online0/enc/linear/w"].shape
        _, hidden = golden["online0/projector/linear/w"].shape
        _, out = golden["online0/projector/linear_1/w"].shape
        self.method = BYOL(
            Encoder(inputs, dim),  # type: ignore[arg-type]
            golden.hyper["base_target_ema"],
            hidden,
            out,
        )
        self.classifier = nn.Linear(*golden["online0/classifier/w"].shape)
        self.unused = frozen_copy(nn.ModuleList([self.method.predictor, self.classifier]))
        self.double()
        load(self.online(), golden.starting("online0/"))
        load(self.target(), golden.starting("target0/"))
        for module in self.modules():
            if isinstance(module, nn.BatchNorm1d):  # haiku's start from zero
                module.running_var.zero_()

    def online(self) -> dict[str, nn.Module]:
        """The reference's names of the trained networks."""
        return {
            "enc": self.method.backbone,
            "projector": self.method.projector,
            "predictor": self.method.predictor,
            "classifier": self.classifier,
        }

    def target(self) -> dict[str, nn.Module]:
        """The same of the slow ones."""
        backbone, projector = self.method.target
        predictor, classifier = self.unused
        return {
            "enc": backbone,
            "projector": projector,
            "predictor": predictor,
            "classifier": classifier,
        }

    def loss(self, views: list[Tensor], labels: Tensor) -> tuple[Tensor, Tensor]:
        """The method's loss, and the probe's."""
        features: list[Tensor] = []
        targets: list[Tensor] = []
        hooks = [
            module.register_forward_hook(lambda _m, _x, out, seen=seen: seen.append(out))
            for module, seen in ((self.method.backbone, features), (self.method.target, targets))
        ]
        loss = self.method.loss(Batch(views, torch.arange(len(labels))))
        for hook in hooks:
            hook.remove()
        for z in targets:
            self.unused[0](z)
        return loss, F.cross_entropy(self.classifier(features[0].detach()), labels)

    def after_step(self) -> None:
        self.method.after_step()
        momentum = cosine(self.method.momentum, 1.0, self.method.progress)
        ema(self.unused, nn.ModuleList([self.method.predictor, self.classifier]), momentum)


def matched(
    networks: dict[str, nn.Module], values: dict[str, Tensor]
) -> Iterator[tuple[Tensor, Tensor]]:
    """(ours, the reference's) for each of the reference's parameters."""
    for name, value in values.items():
        network, *path = name.split("/")
        module = networks[network]
        if network == "enc":
            module = module.l1 if path[0] == "linear" else module.bn
        elif network != "classifier":
            module = module[{"linear": 0, "batch_norm": 1, "linear_1": 3}[path[0]]]
        ours = module.weight if path[-1] in ("w", "scale") else module.bias
        yield ours, value.T if path[-1] == "w" else value.reshape(ours.shape)


def load(networks: dict[str, nn.Module], values: dict[str, Tensor]) -> None:
    for ours, value in matched(networks, values):
        ours.data.copy_(value)


def check(golden: Golden) -> None:
    p1, p2 = golden.leaf("p1"), golden.leaf("p2")
    loss = regression(p1, golden["z2"]) + regression(p2, golden["z1"])
    close(loss, golden["loss"])
    loss.backward()
    close(p1.grad, golden["grad_p1"])
    close(p2.grad, golden["grad_p2"])
    _check_training(golden, "")
    _check_training(golden, "d2_")  # the same in one process, with the whole batch
    _check_schedules(golden)


def check_device(golden: Golden, rank: int) -> None:
    """One of two devices, each with its half of the batch and one batch norm between them."""
    _check_training(golden, "d2_", rank)


def _check_training(golden: Golden, prefix: str, rank: int | None = None) -> None:
    hyper = golden.hyper
    model = Trained(golden)
    if rank is not None:
        synchronize(model)
    length = hyper["max_steps"]
    recipe = Recipe(
        "lars",
        hyper["base_lr"],
        weight_decay=hyper["weight_decay"],
        momentum=hyper["lars_momentum"],
        eta=hyper["eta"],
        warmup=hyper["warmup_steps"] / length,
    )
    plan = Rates(recipe, hyper["batch"], length, length)
    optimizer = build(model, recipe)
    steps = len(golden.starting(f"{prefix}view1_"))
    for i in range(steps):
        views, labels = [golden[f"{prefix}view{v}_{i}"] for v in (1, 2)], golden["labels"]
        if rank is not None:
            views = [x.chunk(dist.world())[rank] for x in views]
            labels = labels.chunk(dist.world())[rank]
        model.method.progress = i / length
        losses = model.loss(views, labels)
        optimizer.zero_grad()
        torch.stack(losses).sum().backward()
        if rank is not None:
            losses = tuple(dist.mean(loss.detach()) for loss in losses)
            for p in model.parameters():
                p.grad = None if p.grad is None else dist.mean(p.grad)
        close(losses[0], golden[f"{prefix}repr_loss{i}"])
        close(losses[1], golden[f"{prefix}classif_loss{i}"])
        close(cosine(model.method.momentum, 1.0, model.method.progress), golden[f"{prefix}tau{i}"])
        close(plan.lr(i), golden[f"{prefix}lr{i}"])
        plan.apply(optimizer, i)
        optimizer.step()
        model.after_step()
    for networks, name in ((model.online(), "online"), (model.target(), "target")):
        for ours, value in matched(networks, golden.starting(f"{prefix}{name}{steps}/")):
            close(ours, value)
        state = golden.starting(f"{prefix}{name[0]}state{steps}/")
        _check_statistics(networks, state, golden.hyper["batch"])


def _check_statistics(networks: dict[str, nn.Module], state: dict[str, Tensor], batch: int) -> None:
    """haiku's moving averages: of the biased variance, from zero, and corrected for that."""
    for name, value in state.items():
        network, _, _, moment, kind = name.split("/")
        norm = networks[network].bn if network == "enc" else networks[network][1]
        count = norm.num_batches_tracked
        ours = norm.running_mean if moment == "mean_ema" else norm.running_var * (batch - 1) / batch
        match kind:
            case "counter":
                close(count, value)
            case "hidden":
                close(ours, value)
            case "average":  # its correction is computed in float32
                close(ours / (1 - (1 - norm.momentum) ** count), value, rtol=1e-6)


def _check_schedules(golden: Golden) -> None:
    base = golden.setting("tau_schedule", "base", r"base (\d*\.?\d+)")
    length = int(golden.setting("tau_schedule", "max_steps", r"S=(\d+)"))
    at = golden["sched_step"].tolist()
    method = BYOL(Encoder(1, 1), base, 2, 2).double()  # type: ignore[arg-type]
    close(momenta(method, [s / length for s in at]), golden["tau_schedule"])
    lr = golden.setting("lr_schedule", "base_lr", r"base (\d*\.?\d+)")
    batch = golden.setting("lr_schedule", "batch", r"B=(\d+)")
    warmup = golden.setting("lr_schedule", "warmup_steps", r"warmup (\d+)")
    recipe = replace(BYOL.recipe, lr=lr, warmup=warmup / length)
    plan = Rates(recipe, int(batch), length, length)
    close([plan.lr(s) for s in at], golden["lr_schedule"])
