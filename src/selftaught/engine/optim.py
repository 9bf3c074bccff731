"""The optimizer that a recipe asks for, and what its rates and weight decays are at each step."""

import math
import re
from collections.abc import Callable, Iterable
from typing import Any, Literal

import timm.optim
import torch
from torch import Tensor, nn

from selftaught import dist
from selftaught.errors import UserError
from selftaught.method import Recipe
from selftaught.schedule import cosine, linear, steps


class Rates:
    """Learning rate and weight decay of each step of a training.

    Args:
        recipe: what is planned.
        batch: samples in one step, over all processes and accumulation.
        steps: optimizer steps of the whole training.
        steps_per_epoch: for recipes whose rate changes at epochs only.
    """

    def __init__(self, recipe: Recipe, batch: int, steps: int, steps_per_epoch: int):
        self.recipe, self.steps, self.steps_per_epoch = recipe, steps, steps_per_epoch
        ratio = batch / recipe.batch
        factor = {"linear": ratio, "sqrt": ratio**0.5, "none": 1.0}[recipe.scaling]
        self.peak = recipe.lr * factor

    def lr(self, step: int) -> float:
        """Of step `step`, counted from 0."""
        recipe = self.recipe
        length = int(recipe.horizon * self.steps)
        warmup = round(recipe.warmup * self.steps)
        # a rise from 0 would keep the whole first epoch there
        if recipe.by_epoch and (step >= warmup or recipe.warmup_from):
            step -= step % self.steps_per_epoch
        step += recipe.step_offset
        if step < warmup:
            # SwAV and DINO make the warm-up with linspace, whose last value is the peak itself
            rise = max(warmup - 1, 1) if recipe.warmup_full else warmup
            return self.peak * linear(recipe.warmup_from, 1.0, step / rise)
        match recipe.schedule:
            case "cosine":
                shape = cosine(1.0, recipe.end, (step - warmup) / max(length - warmup, 1))
            case "step":
                at = [round(m * self.steps) for m in recipe.milestones]
                shape = steps(1.0, recipe.drop, at, step)
            case "linear":
                shape = linear(1.0, recipe.end, step / length)
            case "constant":
                fall = round(recipe.cooldown * self.steps)
                late = step - (length - fall)
                shape = linear(1.0, recipe.end, late / fall) if fall and late > 0 else 1.0
        return self.peak * shape

    def weight_decay(self, step: int) -> float:
        """Of step `step`, counted from 0."""
        decay = self.recipe.weight_decay
        if isinstance(decay, float | int):
            return float(decay)
        length = int(self.recipe.horizon * self.steps)
        return cosine(*decay, (step + self.recipe.step_offset) / length)

    def apply(self, optimizer: torch.optim.Optimizer, step: int) -> None:
        """Give each group of an optimizer from `build` its values for step `step`."""
        lr, decay = self.lr(step), self.weight_decay(step)
        for group in optimizer.param_groups:
            group["lr"] = (self.peak if group["constant"] else lr) * group["scale"]
            group["weight_decay"] = decay if group["decayed"] else 0.0


class _ByGroup(torch.optim.Optimizer):
    """An optimizer that updates the weights of a group together."""

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            weights = [p for p in group["params"] if p.grad is not None]
            if weights:
                self._update(group, weights, [p.grad for p in weights])
        return loss

    def _update(self, group: dict[str, Any], weights: list[Tensor], grads: list[Tensor]) -> None:
        raise NotImplementedError


class LARS(_ByGroup):
    """Layer-wise adaptive rates (You et al., 2017), in the four forms that papers' code has.

    With w a weight, g its gradient, m its momentum:

    - `lars` (Barlow Twins, VICReg, BYOL, MoCo v3): g += decay w; g *= eta |w| / |g|;
      m = momentum m + g; w -= lr m
    - `lars_tf` (SimCLR): the same g; m = momentum m + lr g; w -= m. Differs when lr changes.
    - `lars_late` (SimCLR without its "classic momentum"): g += decay w; m = momentum m + g;
      w -= lr eta |w| / |m| m. No recipe has it: it is for loops of one's own.
    - `larc` (SwAV, by apex without clipping): g = (g + decay w) eta |w| / (|g| + decay |w|);
      m and w as in `lars`; neither decayed nor adapted where |w| or |g| is 0.

    Other libraries' differ: timm's and lightly's divide by |g| + decay |w| like `larc`, and do not
    adapt at all what is not decayed.

    Args:
        params: parameters or groups; a group's `adapt` of False leaves the factor with eta out.
        lr: learning rate.
        momentum: weight of the old momentum.
        weight_decay: of all groups that do not say otherwise.
        eta: trust coefficient.
        form: one of the above.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        eta: float = 0.001,
        form: Literal["lars", "lars_tf", "lars_late", "larc"] = "lars",
    ):
        self.form = form
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "eta": eta}
        super().__init__(params, {**defaults, "adapt": True})

    def _update(self, group: dict[str, Any], weights: list[Tensor], grads: list[Tensor]) -> None:
        lr, decay, eta = group["lr"], group["weight_decay"], group["eta"]
        adapt = group["adapt"]
        for w in weights:
            if not self.state[w]:
                self.state[w]["momentum"] = torch.zeros_like(w)
        moments = [self.state[w]["momentum"] for w in weights]
        if self.form == "larc" and adapt:
            of_weights, of_grads = _norms(weights), _norms(grads)
            some = (of_weights > 0) & (of_grads > 0)
            if decay:
                grads = _plus(grads, _times(weights, decay * some))
            ratio = eta * of_weights / (of_grads + decay * of_weights + 1e-8)
            grads = _times(grads, ratio.where(some, 1.0))
        else:
            if decay:
                grads = _plus(grads, weights, decay)
            if adapt and self.form != "lars_late":
                grads = _times(grads, _trust(weights, grads, eta))
        torch._foreach_mul_(moments, group["momentum"])
        torch._foreach_add_(moments, grads, alpha=lr if self.form == "lars_tf" else 1.0)
        if self.form == "lars_tf":
            lr = 1.0
        if self.form == "lars_late" and adapt:
            moments = _times(moments, _trust(weights, moments, eta))
        torch._foreach_add_(weights, moments, alpha=-lr)


class BertAdamW(_ByGroup):
    """AdamW as BERT's code has it (Devlin et al., 2019): without bias correction.

    m = b1 m + (1 - b1) g; v = b2 v + (1 - b2) g^2; w -= lr (m / (sqrt(v) + eps) + decay w)

    The first updates are larger than Adam's, up to (1 - b1) / sqrt(1 - b2) = 3.2 times lr for each
    weight, so that it needs a warm-up.

    Args:
        params: parameters or groups.
        lr: learning rate.
        betas: b1 and b2.
        eps: see above.
        weight_decay: of all groups that do not say otherwise.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.0,
    ):
        super().__init__(
            params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        )

    def _update(self, group: dict[str, Any], weights: list[Tensor], grads: list[Tensor]) -> None:
        for w in weights:
            if not self.state[w]:
                self.state[w].update(mean=torch.zeros_like(w), square=torch.zeros_like(w))
        means = [self.state[w]["mean"] for w in weights]
        squares = [self.state[w]["square"] for w in weights]
        first, second = group["betas"]
        torch._foreach_lerp_(means, grads, 1 - first)
        torch._foreach_mul_(squares, second)
        torch._foreach_addcmul_(squares, grads, grads, 1 - second)
        deviations = list(torch._foreach_sqrt(squares))
        torch._foreach_add_(deviations, group["eps"])
        torch._foreach_mul_(weights, 1 - group["lr"] * group["weight_decay"])
        torch._foreach_addcdiv_(weights, means, deviations, -group["lr"])


def _norms(tensors: list[Tensor]) -> Tensor:
    return torch.stack(torch._foreach_norm(tensors))


def _times(tensors: list[Tensor], factors: Tensor) -> list[Tensor]:
    return list(torch._foreach_mul(tensors, list(factors.unbind())))


def _plus(tensors: list[Tensor], others: list[Tensor], alpha: float = 1.0) -> list[Tensor]:
    return list(torch._foreach_add(tensors, others, alpha=alpha))


def _trust(weights: list[Tensor], updates: list[Tensor], eta: float) -> Tensor:
    """eta |w| / |update| of each weight, 1 where either is 0 (a layer that starts from zero)."""
    of_weights, of_updates = _norms(weights), _norms(updates)
    return (eta * of_weights / of_updates).where((of_weights > 0) & (of_updates > 0), 1.0)


def build(method: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """The recipe's optimizer over what a method trains; `Rates.apply` sets its rates.

    Raises:
        UserError: as of `groups`.
    """
    params = groups(method, recipe)
    lr, momentum, betas = recipe.lr, recipe.momentum, recipe.betas
    match recipe.optimizer:
        case "sgd":
            fused = not dist.sharded(method.parameters())  # for which torch has none
            made = torch.optim.SGD(params, lr, momentum, nesterov=recipe.nesterov, fused=fused)
            for group in made.param_groups if momentum else ():
                for p in group["params"]:  # torch fails where one gets its first gradient later
                    made.state[p]["momentum_buffer"] = torch.zeros_like(p)
            return made
        case "adam":
            return torch.optim.Adam(params, lr, betas, fused=True)
        case "adamw":
            return torch.optim.AdamW(params, lr, betas, fused=True)
        case "adamw_bert":
            return BertAdamW(params, lr, betas)
        case "lamb":
            return timm.optim.Lamb(params, lr, betas=betas, max_grad_norm=None)
        case "lars" | "lars_tf" | "larc":
            return LARS(params, lr, momentum, eta=recipe.eta, form=recipe.optimizer)
        case make:
            return make(params)


def groups(method: nn.Module, recipe: Recipe) -> list[dict[str, Any]]:
    """What a method trains, as optimizers take it.

    Parameters alike in decay, rate and adaptation share a group, in the order of the method.

    Raises:
        UserError: the recipe names a submodule that the method lacks, or decays rates by layer and
            the backbone is not a ViT.
    """
    trained = [(name, p) for name, p in method.named_parameters() if p.requires_grad]
    own = [name for name, _ in recipe.rates]
    for part in (*recipe.constant, *recipe.no_decay, *recipe.no_clip, *own):
        if not any(_inside(name, (part,)) for name, _ in trained):
            raise UserError(
                f"the recipe names {part!r}, which {type(method).__name__} does not train; it "
                f"trains {', '.join(dict.fromkeys(name.split('.')[0] for name, _ in trained))}"
            )
    shared: dict[tuple[Any, ...], list[nn.Parameter]] = {}
    for (name, p), rate in zip(trained, _layer_rates([n for n, _ in trained], recipe)):
        flat = p.ndim <= 1 or name.endswith((".bias", "_bias_table"))
        decayed = not _inside(name, recipe.no_decay) and (recipe.decay_bias or not flat)
        decayed &= recipe.decay_tokens or not name.endswith(("cls_token", "pos_embed"))
        adapt = not flat or recipe.optimizer not in ("lars", "lars_tf")
        scale = rate * (1.0 if adapt else recipe.bias_lr)
        scale *= math.prod(x for part, x in recipe.rates if _inside(name, (part,)))
        key = (decayed, adapt, scale, _inside(name, recipe.constant))
        shared.setdefault(key, []).append(p)
    names = ("decayed", "adapt", "scale", "constant")
    return [{"params": members, **dict(zip(names, key))} for key, members in shared.items()]


def _inside(name: str, parts: tuple[str, ...]) -> bool:
    return any(name == part or name.startswith(part + ".") for part in parts)


_EMBEDDING = re.compile(
    r"backbone\.(net\.)?(patch_embed|pos_embed|cls_token|reg_token)\b|mask_token$"
)
_BLOCK = re.compile(r"backbone\.(?:net\.)?blocks\.(\d+)\.")


def _layer_rates(names: list[str], recipe: Recipe) -> list[float]:
    """Factor on the rate of each parameter: decay^(layers above it), as BEiT and DINOv2 have it.

    Embeddings are layer 0, block i is i + 1, everything after the last block keeps its full rate.
    """
    trained = any(name.startswith("backbone.") for name in names)
    if (recipe.layer_decay == 1.0 and recipe.patch_lr == 1.0) or not trained:
        return [1.0] * len(names)
    blocks = {name: int(found[1]) for name in names if (found := _BLOCK.match(name))}
    if not blocks:
        raise UserError(
            "rates that decay by layer need a plain ViT backbone such as vit_small_patch16_224; "
            "set layer_decay to 1, and patch_lr in the recipe, for others"
        )
    top = max(blocks.values()) + 2
    layers = [
        0 if _EMBEDDING.match(name) else blocks[name] + 1 if name in blocks else top
        for name in names
    ]
    return [
        recipe.layer_decay ** (top - layer) * (recipe.patch_lr if ".patch_embed." in name else 1.0)
        for name, layer in zip(names, layers)
    ]


@torch.no_grad()
def clip(method: nn.Module, recipe: Recipe) -> Tensor:
    """Scale the gradients down to norms of at most `recipe.clip`; the total norm that they had.

    A norm of nan or infinity, which the caller is to look for, makes the gradients it covers nan.
    """
    parts: dict[str, list[Tensor]] = {}
    for name, p in method.named_parameters():
        if p.grad is not None:
            # mask tokens, parameters of the method itself, are the backbone's in the papers' code
            module = name.split(".")[0] if "." in name else "backbone"
            by = {"all": "", "module": module, "parameter": name}[recipe.clip_by]
            free = _inside(name, recipe.no_clip)
            parts.setdefault("free" if free else f"by {by}", []).append(p.grad)
    if not parts:
        return torch.zeros(())
    norms = {part: _norms(grads).norm() for part, grads in parts.items()}
    if recipe.clip is not None:
        for part, grads in parts.items():
            if part != "free":
                torch._foreach_mul_(grads, (recipe.clip / (norms[part] + 1e-6)).clamp(max=1.0))
    return dist.whole(torch.stack(list(norms.values())).norm())
