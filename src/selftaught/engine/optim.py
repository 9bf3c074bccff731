"""The optimizer that a recipe asks for, and what its rates and weight decays are at each step."""

import torch

from selftaught.method import Recipe
from selftaught.schedule import cosine, linear, steps


class Plan:
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
        if recipe.by_epoch:
            step -= step % self.steps_per_epoch
        step += recipe.first
        length = int(recipe.stretch * self.steps)
        warmup = round(recipe.warmup * self.steps)
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
        length = int(self.recipe.stretch * self.steps)
        return cosine(*decay, (step + self.recipe.first) / length)

    def apply(self, optimizer: torch.optim.Optimizer, step: int) -> None:
        """Give each group of an optimizer from `build` its values for step `step`."""
        lr, decay = self.lr(step), self.weight_decay(step)
        for group in optimizer.param_groups:
            group["lr"] = (self.peak if group["constant"] else lr) * group["scale"]
            group["weight_decay"] = decay if group["decayed"] else 0.0
