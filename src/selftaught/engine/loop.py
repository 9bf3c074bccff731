"""The training loop: steps, metrics, checkpoints, stops; it knows methods by their contract."""

import logging
import random
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.distributed as torch_dist
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch._C import _error_if_any_worker_fails

from selftaught import dist
from selftaught.augment.device import normalize
from selftaught.engine import optim
from selftaught.engine.checkpoint import Checkpoints
from selftaught.engine.feed import Bad, Item, Order, Whole
from selftaught.engine.folder import Metrics
from selftaught.engine.progress import Progress
from selftaught.engine.signals import StopSignals
from selftaught.errors import DataError, Interrupted, TrainingError
from selftaught.method import Batch, Method, Recipe

log = logging.getLogger("selftaught")

AGREE_EVERY = 10
"""Steps between two votes of several processes on whether to stop or save."""


class _StopNow(Exception):
    """A signal came while the method looked at the whole dataset."""


@dataclass
class Loop:
    """One training, from any of its steps on.

    Args:
        fabric: the engine's device, precision and processes.
        method: what is trained.
        recipe: its optimization, with the user's changes.
        plan: rate and weight decay of each step.
        order, batches: which samples come when, and the loader that reads them.
        accumulate: parts of a step's batch.
        steps, per_epoch: of the training and of an epoch.
        corpus: the dataset as a whole.
        checkpoints, metrics, progress, signals: where the run goes.
        facts: stored in each checkpoint beside the state: the dataset's fingerprint.
        log_every: steps between two rows of metrics.
        save_every: seconds between two checkpoints.
        channels_last: memory layout of images.
        max_bad: number of unreadable samples above which the data is too broken.
        names: of samples, for messages.
    """

    fabric: Fabric
    method: Method
    recipe: Recipe
    plan: optim.Plan
    order: Order
    batches: Any
    accumulate: int
    steps: int
    per_epoch: int
    corpus: Whole
    checkpoints: Checkpoints
    metrics: Metrics | None
    progress: Progress
    signals: StopSignals
    facts: dict[str, Any]
    log_every: int
    save_every: float
    channels_last: bool
    max_bad: int
    names: Any
    step: int = 0
    bad: dict[int, tuple[str, int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.optimizer = optim.build(self.method, self.recipe)
        module, wrapped = self.fabric.setup(self.method, self.optimizer)
        module.mark_forward_method("loss")
        self.module, self.stepper = module, wrapped
        self.mean, self.std = self.method.encoder.mean, self.method.encoder.std
        self.each_epoch = type(self.method).on_epoch is not Method.on_epoch
        self.loss_before: Tensor | None = None
        self.waiting = False

    def run(self) -> None:
        """Train to the end.

        Raises:
            Interrupted: a signal or a dead worker ended it; it is saved.
            TrainingError: the loss is not finite; the last good checkpoint stays.
            DataError: too many samples cannot be read.
        """
        saved = time.monotonic()
        self.corpus.poll = self._poll
        self.method.train()
        with self.progress:
            stream: Iterator[Item] | None = None
            while self.step < self.steps:
                epoch, within = divmod(self.step, self.per_epoch)
                if stream is None or (self.each_epoch and within == 0):
                    stream = self._open(epoch, within)
                self._step(stream, epoch)
                due = time.monotonic() - saved >= self.save_every
                stop, due = self._agree(self.signals.received is not None, due)
                if stop:
                    self._interrupt(self.state())
                if due and self.step < self.steps:
                    self.save(self.state())
                    saved = time.monotonic()
        self.save(self.state())

    # one step -------------------------------------------------------------------------------

    def _step(self, stream: Iterator[Item], epoch: int) -> None:
        begun = time.perf_counter()
        items = [self._next(stream) for _ in range(self.accumulate)]
        waited = time.perf_counter() - begun
        method = self.method
        method.progress = self.step / self.steps
        self.plan.apply(self.optimizer, self.step)
        terms: dict[str, Tensor] = {}
        for part, item in enumerate(items):
            batch = self._on_device(item)
            with self.fabric.no_backward_sync(self.module, enabled=part < self.accumulate - 1):
                parts = self.module.loss(batch)
                if isinstance(parts, Tensor):
                    parts = {"loss": parts}
                loss = sum(parts.values()) / self.accumulate
                self._check(loss, batch)
                self.fabric.backward(loss)
            for name, value in parts.items():
                value = value.detach() / self.accumulate
                terms[name] = terms[name] + value if name in terms else value
        method.before_step()
        norm = self._clip()
        self.stepper.step()
        self.stepper.zero_grad(set_to_none=True)
        method.after_step()
        self.step += 1
        shown = self.progress.advance(waited)
        logged = self.step % self.log_every == 0 or self.step in (1, self.steps)
        if not (shown or logged) or dist.rank():
            return
        values = {name: float(value) for name, value in terms.items()}
        total = values["loss"] = sum(values.values())
        if shown or self.step == self.steps:
            self.progress.show(self.step, total)
        if logged and self.metrics:
            row = {"step": self.step, "epoch": epoch, "progress": self.step / self.steps}
            row |= {"loss": total} | values
            row["lr"] = self.plan.lr(self.step - 1)
            row["weight_decay"] = self.plan.weight_decay(self.step - 1)
            if norm is not None:
                row["gradient_norm"] = float(norm)
            row["images_per_second"] = self.progress.images_per_second
            row["data_wait"] = self.progress.data_wait
            self.metrics.add(row)

    def _on_device(self, item: Item) -> Batch:
        views, index = self.fabric.to_device((item.views, item.index))
        return Batch(normalize(views, self.mean, self.std, self.channels_last), index)

    def _clip(self) -> Tensor | None:
        if self.recipe.clip is None:
            return None
        self.fabric.strategy.precision.unscale_gradients(self.optimizer)
        return optim.clip(self.method, self.recipe)

    def _check(self, loss: Tensor, batch: Batch) -> None:
        """Stop before the backward pass when the loss is not finite.

        On a GPU the loss of the step before is looked at, so that nobody waits for the device.
        """
        if loss.device.type == "cpu":
            finite = bool(loss.isfinite())
        else:
            before, self.loss_before = self.loss_before, loss.detach()
            finite = before is None or bool(before.isfinite())
        if not finite:
            raise TrainingError(
                f"the loss is not finite at step {self.step + 1} of {self.steps} (learning rate "
                f"{self.plan.lr(self.step):.3g}): the first module with a value that is not is "
                f"{first_not_finite(self.method, batch)}; the checkpoint of step "
                f"{(self.checkpoints.steps() or ['none'])[0]} is the last good one, nothing was "
                "exported; lower the learning rate (--lr), clip gradients (--clip), or use "
                "--precision fp32"
            )

    # data -----------------------------------------------------------------------------------

    def _open(self, epoch: int, within: int) -> Iterator[Item]:
        """The stream of batches from a step on; on_epoch comes first where the method has one."""
        if self.each_epoch and within == 0:
            boundary = self.state()
            try:
                self.order.given = self.method.on_epoch(self.corpus)
            except _StopNow:
                self._interrupt(boundary)
            for name in self.method.reset:
                for parameter in self.method.get_submodule(name).parameters():
                    for value in self.optimizer.state.get(parameter, {}).values():
                        value.zero_()  # fused optimizers want state for all parameters or none
        last = epoch + 1 if self.each_epoch else self.steps // self.per_epoch
        self.order.epochs = range(epoch, last)
        self.order.start = within * self.accumulate
        stream = iter(self.batches)
        if threading.current_thread() is threading.main_thread() and hasattr(signal, "SIGCHLD"):
            signal.signal(signal.SIGCHLD, self._on_child)
        return stream

    def _on_child(self, *_: Any) -> None:
        """A worker may have died: torch would raise wherever we are, we only between two steps."""
        if self.waiting:
            _error_if_any_worker_fails()

    def _next(self, stream: Iterator[Item]) -> Item:
        self.waiting = True
        try:
            _error_if_any_worker_fails()
            item = next(stream)
        except (RuntimeError, ConnectionError, EOFError) as error:
            state = self.state()  # of the last whole step
            if self.signals.received is not None:  # the signal hit the workers too
                self._interrupt(state)
            if "DataLoader" not in str(error) and not isinstance(error, ConnectionError | EOFError):
                raise
            self.save(state)
            raise Interrupted(
                f"a process that reads images died or hung ({error}); often memory ran out: lower "
                f"--workers. The run is saved at step {self.step}: repeat the command with --resume"
            ) from error
        finally:
            self.waiting = False
        if item.bad:
            self._record(item.bad)
        return item

    def _record(self, bad: list[Bad]) -> None:
        for index, reason in bad:
            if index in self.bad:
                continue
            if not self.bad:
                log.warning(
                    "%s cannot be read (%s); others take its place, and all such files are listed "
                    "at the end",
                    self.names(index),
                    reason,
                )
            self.bad[index] = (reason, self.step + 1)
        if len(self.bad) > self.max_bad:
            shown = "\n".join(
                f"  {self.names(i)}: {r}" for i, (r, _) in list(self.bad.items())[:10]
            )
            raise DataError(
                f"{len(self.bad)} of {len(self.corpus)} images cannot be read, more than "
                f"--max-bad allows; the first:\n{shown}\nrun `selftaught check` on the data, or "
                "raise --max-bad"
            )

    def _poll(self) -> None:
        if self.signals.received is not None:
            raise _StopNow

    # stopping and going on --------------------------------------------------------------------

    def _agree(self, stop: bool, save: bool) -> tuple[bool, bool]:
        """What any process wants, all do; asked now and then, because asking costs."""
        if dist.world() == 1:
            return stop, save
        if self.step % AGREE_EVERY and self.step < self.steps:
            return False, False
        votes = dist.maximum(torch.tensor([stop, save], device=self.fabric.device, dtype=torch.int))
        return bool(votes[0]), bool(votes[1])

    def _interrupt(self, state: dict[str, Any]) -> None:
        self.save(state)
        code = self.signals.exit_code if self.signals.received is not None else 75
        raise Interrupted(
            f"stopped at step {self.step} of {self.steps} and saved; repeat the command with "
            "--resume to go on",
            code,
        )

    def save(self, state: dict[str, Any]) -> None:
        """Write a checkpoint, unless weights are no longer finite."""
        if not all(bool(p.isfinite().all()) for p in self.method.parameters()):
            raise TrainingError(
                f"weights are not finite at step {self.step}; the checkpoint before is kept"
            )
        if dist.rank() == 0:
            self.checkpoints.save(self.step, state)
        self.fabric.barrier()

    def state(self) -> dict[str, Any]:
        """All that the rest of the run depends on; tensors and plain values alone."""
        return {
            "step": self.step,
            "steps": self.steps,
            "method": self.method.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "precision": self.fabric.strategy.precision.state_dict(),
            "random": _all_random_states(self.fabric.device),
            "given": self.order.given,
            "bad": [[i, r, s] for i, (r, s) in self.bad.items()],
            **self.facts,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` returned."""
        self.step = state["step"]
        self.method.load_state_dict(state["method"])
        self.optimizer.load_state_dict(state["optimizer"])
        if state["precision"]:
            self.fabric.strategy.precision.load_state_dict(state["precision"])
        self.order.given = state["given"]
        self.bad = {i: (r, s) for i, r, s in state["bad"]}
        states = state["random"]
        if dist.rank() < len(states):
            set_random_state(states[dist.rank()], self.fabric.device)
        else:  # more processes than before: the new ones get a stream of their own
            torch.manual_seed(states[0]["python"][1][0] + dist.rank())


def random_state(device: torch.device) -> dict[str, Any]:
    """Of every generator that a method may draw from, as tensors and plain values."""
    version, keys, gauss = random.getstate()
    name, words, *rest = np.random.get_state()
    return {
        "torch": torch.get_rng_state(),
        "device": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
        "python": [version, list(keys), gauss],
        "numpy": [name, torch.from_numpy(np.asarray(words).astype(np.int64)), *rest],
    }


def set_random_state(state: dict[str, Any], device: torch.device) -> None:
    """Put every generator where `random_state` found it."""
    torch.set_rng_state(state["torch"])
    if state["device"] is not None and device.type == "cuda":
        torch.cuda.set_rng_state(state["device"], device)
    version, keys, gauss = state["python"]
    random.setstate((version, tuple(keys), gauss))
    name, words, *rest = state["numpy"]
    np.random.set_state((name, words.numpy().astype(np.uint32), *rest))


def _all_random_states(device: torch.device) -> list[dict[str, Any]]:
    own = random_state(device)
    if dist.world() == 1:
        return [own]
    every: list[Any] = [None] * dist.world()
    torch_dist.all_gather_object(every, own)
    return every


@torch.no_grad()
def first_not_finite(method: Method, batch: Batch) -> str:
    """Name of the first module, in the order of the forward pass, whose value is not finite."""
    for name, parameter in method.named_parameters():
        if not bool(parameter.isfinite().all()):
            return f"{name} (a weight)"
    found: list[str] = []

    def watch(name: str) -> Any:
        def hook(_: nn.Module, __: Any, output: Any) -> None:
            if isinstance(output, Tensor) and not bool(output.isfinite().all()) and not found:
                found.append(f"{name} (its output)")

        return hook

    hooks = [m.register_forward_hook(watch(n)) for n, m in method.named_modules() if n]
    try:
        method.loss(batch)
    finally:
        for hook in hooks:
            hook.remove()
    return found[0] if found else "the loss itself"
