"""The training loop: steps, metrics, checkpoints, stops; it knows methods by their contract."""

import logging
import textwrap
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import reduce
from operator import add
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from selftaught import dist
from selftaught.augment.image.photometric import finish_on_device
from selftaught.diagnose.doctor import Doctor
from selftaught.engine import optim
from selftaught.engine.build import image_of
from selftaught.engine.cache import GradientCache
from selftaught.engine.checkpoint import Checkpoints
from selftaught.engine.estimate import Estimate
from selftaught.engine.folder import Metrics
from selftaught.engine.memory import Remembered, advice, fitting, keep_freed, there
from selftaught.engine.progress import Progress
from selftaught.engine.randomness import random_state, seed_all, set_random_state
from selftaught.engine.shard import Whole, copied, restore, whole
from selftaught.engine.signals import StopSignals
from selftaught.engine.votes import Votes
from selftaught.errors import (
    DataError,
    Interrupted,
    Lost,
    TrainingError,
    Unreachable,
    out_of_memory,
)
from selftaught.feed.order import Order
from selftaught.feed.passes import DatasetPass
from selftaught.feed.readers import Stuck, Unmade
from selftaught.feed.views import Fetched
from selftaught.method import Batch, Epoch, Method, Recipe, prepared, terms_of
from selftaught.objectives import anchors
from selftaught.printable import printable

log = logging.getLogger("selftaught")

LOSS = "the loss itself"


class _StopNow(Exception):
    """A signal came while a batch was waited for, or while the method looked at all of them."""


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
        cache: gives the losses of all parts together, where they compare images.
        steps, per_epoch: of the training and of an epoch.
        corpus: the dataset as a whole.
        checkpoints, metrics, progress, signals: where the run goes.
        facts: stored in each checkpoint beside the state: the dataset's fingerprint.
        log_every: steps between two rows of metrics.
        save_every: seconds between two checkpoints.
        channels_last: memory layout of images.
        max_bad: number of unreadable samples above which the data is too broken.
        names: of samples, for messages.
        labels: [N] of all samples, for supervised methods alone.
        doctor: watches, in the first process.
        look: called after each step, with their number, in the first process.
        late: from which step on other batches take the place of `batches`, and these.
        need: memory that a step was measured to need, for advice where it is not there.
        resting: steps at the beginning in which the backbone is not trained.
        shards: knows the whole of a method that is in shards.
    """

    fabric: Fabric
    method: Method
    recipe: Recipe
    plan: optim.Rates
    order: Order
    batches: Any
    accumulate: int
    steps: int
    per_epoch: int
    corpus: DatasetPass
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
    labels: Tensor | None = None
    doctor: Doctor | None = None
    look: Callable[[int], None] | None = None
    late: tuple[int, Any] | None = None
    cache: GradientCache | None = None
    need: Estimate | None = None
    resting: int = 0
    shards: Whole | None = None
    step: int = 0
    bad: dict[int, tuple[str, int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        with warnings.catch_warnings():  # newer torch has another name for it, older ones do not
            warnings.filterwarnings("ignore", ".*broadcast_buffers")
            self.module: Any = self.fabric.setup_module(self.method)
        self.module.mark_forward_method("loss")
        self.optimizer = optim.build(self.method, self.recipe)
        self.stepper: Any = self.fabric.setup_optimizers(self.optimizer)
        self.image = image_of(self.method)
        self.each_epoch = type(self.method).on_epoch is not Method.on_epoch
        self.broken_before: Tensor | None = None
        self.begun = False  # whether on_epoch has been called for the step to come
        self.untold: list[tuple[int, str, int]] = []
        self.remembered = Remembered(self.method, self.fabric.device)
        self.whole = True

    def run(self) -> None:
        """Train to the end.

        Raises:
            Interrupted: a signal, a process that died or hung, or a batch that could not be made
                ended it; it is saved.
            TrainingError: the loss is not finite; the last good checkpoint stays.
            DataError: too many samples cannot be read.
        """
        if self.step == self.steps:
            return
        saved = time.monotonic()
        self.votes = Votes(self.step)
        self.corpus.watch = self._watch
        for batches in (self.batches, self.late and self.late[1], self.corpus):
            if batches:
                batches.waiting = self._waiting
        if self.fabric.device.type == "cpu":
            keep_freed()
        self.method.train()
        with self.signals.deferred(), self.progress, self._children():
            stream: Iterator[Fetched] | None = None
            while self.step < self.steps:
                epoch, within = divmod(self.step, self.per_epoch)
                turn = self.late is not None and self.step == self.late[0]
                if turn:
                    self.batches.close()
                if stream is None or turn or (self.each_epoch and within == 0):
                    stream = self._open(epoch, within)
                try:
                    with self._enough_memory():
                        self._step(stream, epoch)
                    with self._whole(bool(self.shards and self.step in self.shards.looked)):
                        self._look()
                except _StopNow:
                    self._interrupt(self.state())
                stop, due = self._agree(time.monotonic() - saved >= self.save_every)
                if stop:
                    self._interrupt(self.state())
                if due and self.step < self.steps:
                    self.save(self.state())
                    saved = time.monotonic()
            self.save(self.state())

    def _whole(self, due: bool) -> AbstractContextManager[None]:
        """A block that looks at the encoder; where it is in shards, it is whole if that is due."""
        return self.shards.shown() if self.shards and due else nullcontext()

    def _look(self) -> None:
        if not self.look:
            return
        begun = time.perf_counter()
        try:
            # of several processes none stops alone: the others are in the next step already
            with self.signals.at_once() if dist.world() == 1 else nullcontext():
                self.look(self.step)
        except KeyboardInterrupt:
            raise _StopNow from None
        self.progress.leave_out(time.perf_counter() - begun)

    # one step -------------------------------------------------------------------------------

    def _step(self, stream: Iterator[Fetched], epoch: int) -> None:
        begun = time.perf_counter()
        self.remembered.keep()
        items = [self._next(stream) for _ in range(self.accumulate)]
        waited = time.perf_counter() - begun
        method = self.method
        method.progress = self.step / self.steps
        self.plan.apply(self.optimizer, self.step)
        terms = self._together(items) if self.cache else self._parts(items)
        if self.doctor:
            self.doctor.after_backward()
        method.before_step()
        if self.step < self.resting:
            for p in method.backbone.parameters():
                p.grad = None
        norm = self._clip()
        if self.doctor:
            self.doctor.before_step()
        self.whole = False
        self.stepper.step()
        self.stepper.zero_grad(set_to_none=True)
        method.after_step()
        with self._whole(bool(self.shards and self.step + 1 in self.shards.examined)):
            if self.doctor:
                own = {n: x for n, x in terms.items() if not n.startswith(anchors.TERM)}
                self.doctor.after_step(own, self.plan.lr(self.step))
        self.step += 1
        self.begun = False
        self.whole = True
        shown = self.progress.advance(waited) and not dist.rank()
        logged = self.step % self.log_every == 0 or self.step in (1, self.steps)
        if logged:  # each process has the loss of its part of the batch
            terms = {name: dist.mean(value) for name, value in terms.items()}
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

    def _parts(self, items: list[Fetched]) -> dict[str, Tensor]:
        """Add up gradients of the mean loss of parts; -> its terms."""
        terms: dict[str, Tensor] = {}
        for part, item in enumerate(items):
            batch = self._on_device(item)
            with self.fabric.no_backward_sync(self.module, enabled=part < self.accumulate - 1):
                if self.doctor and part == self.accumulate - 1:
                    self.doctor.before_forward(batch)
                with self.fabric.autocast():  # which on one device Fabric leaves to us
                    parts = terms_of(self.module.loss(batch))
                loss = reduce(add, parts.values()) / self.accumulate
                self._check(loss, batch)
                self.fabric.backward(loss)
            for name, value in parts.items():
                value = value.detach() / self.accumulate
                terms[name] = terms[name] + value if name in terms else value
        return terms

    def _together(self, items: list[Fetched]) -> dict[str, Tensor]:
        """Make the gradient of one loss over all parts; -> its terms."""
        assert self.cache is not None
        batch = _joined([self._on_device(item) for item in items])
        if self.doctor:
            self.doctor.before_forward(batch)
        with self.fabric.no_backward_sync(self.module):
            with self.cache.recording(), self.fabric.autocast():
                terms = terms_of(self.module.loss(batch))
            loss = torch.stack(list(terms.values())).sum()
            self._check(loss, batch)
            self.fabric.backward(loss)
        self.cache.backward()
        if dist.world() > 1 and not self.shards:  # what DDP does where a gradient comes at once
            for p in self.method.parameters():
                p.grad = None if p.grad is None else dist.mean(p.grad)
        return {name: value.detach() for name, value in terms.items()}

    def _on_device(self, item: Fetched) -> Batch:
        label = None if self.labels is None else self.labels[item.index]
        views = finish_on_device(item.views, self.fabric.device)
        views, index, label = self.fabric.to_device((views, item.index, label))
        return Batch(prepared(self.method, views, self.channels_last), index, label)

    def _clip(self) -> Tensor | None:
        if self.recipe.clip is None:
            return None
        self.fabric.strategy.precision.unscale_gradients(self.optimizer)
        return optim.clip(self.method, self.recipe)

    def _check(self, loss: Tensor, batch: Batch) -> None:
        """Stop before the backward pass when the loss is not finite.

        All processes stop where one has to. On a GPU the loss of the step before is looked at, so
        that nobody waits for the device.
        """
        broken: Tensor | None = dist.maximum((~loss.detach().isfinite()).int())
        if loss.device.type != "cpu":
            broken, self.broken_before = self.broken_before, broken
        if broken is not None and bool(broken):
            raise TrainingError(
                f"the loss is not finite at step {self.step + 1} of {self.steps} (learning rate "
                f"{self.plan.lr(self.step):.3g}): the first module with a value that is not is "
                f"{self._culprit(batch)}; {self._last_good()}"
            )

    def _last_good(self) -> str:
        good = "there is no checkpoint before it"
        if saved := self.checkpoints.steps():
            good = f"the checkpoint of step {saved[0]} is the last good one"
        return (
            f"{good}, nothing was exported; lower the learning rate (--lr), clip gradients "
            "(--clip), or use --precision fp32"
        )

    def _culprit(self, batch: Batch) -> str:
        """The module where the first value that is not finite came up, in whichever process."""
        names = dist.everywhere(first_not_finite(self.method, batch))
        return next((n for n in names if n != LOSS), LOSS)

    # memory ---------------------------------------------------------------------------------

    @contextmanager
    def _enough_memory(self) -> Iterator[None]:
        """A block in which memory that runs out ends the run, saved as the last step left it."""
        step = self.step
        try:
            yield
        except (MemoryError, RuntimeError, OSError) as error:
            if not out_of_memory(error):
                raise
            traceback.clear_frames(error.__traceback__)  # which hold what was being computed
            self.stepper.zero_grad(set_to_none=True)
            where = self.fabric.device
            room, part = there(where), self.order.batch // dist.world()
            least = -(-self.method.needs.batch // dist.world())
            fits = fitting(part, self.need, room, max(1, least))
            reason = (str(error) or type(error).__name__).partition("\n")[0].partition(". ")[0]
            words = f"memory ran out at step {step + 1} of {self.steps} ({reason})"
            if self.need is not None and room is not None:
                words += (
                    f": {part} images at a time need about {self.need.memory / 2**30:.1f} GiB, "
                    f"{room / 2**30:.1f} GiB are there"
                )
            if dist.world() > 1:  # the others wait in a step: they cannot be asked for their part
                saved = bool(self.checkpoints.steps())
            else:
                saved = self._rescue()
            todo = advice(
                self.order.batch * self.accumulate,
                self.accumulate,
                part,
                fits,
                self.method.needs.batch > 1,
                self.cache is not None,
                saved,
            )
            ended = Lost if dist.world() > 1 else Interrupted
            raise ended(f"{words}. {self._saved(then='')}: {todo}") from error

    def _rescue(self) -> bool:
        """Save the last whole step, where nothing has touched it; whether anything is saved."""
        if self.whole and self.remembered.able and self.step:
            self.remembered.put_back()
            try:
                self.save(self.state())
            except (MemoryError, RuntimeError, OSError) as error:
                log.warning("the run could not be saved either (%s)", error)
        return bool(self.checkpoints.steps())

    # data -----------------------------------------------------------------------------------

    def _open(self, epoch: int, within: int) -> Iterator[Fetched]:
        """The stream of batches from a step on; on_epoch comes first where the method has one."""
        if self.each_epoch and within == 0 and not self.begun:
            boundary = self.state()
            self.remembered.keep()
            self.method.progress = self.step / self.steps
            made = Epoch()
            try:
                with self._reading(boundary), self._enough_memory():
                    made = self.method.on_epoch(self.corpus) or Epoch()
            except _StopNow:
                self._interrupt(boundary)
            self.order.given = made.order
            for name in made.reset:
                for parameter in self.method.get_submodule(name).parameters():
                    for value in self.optimizer.state.get(parameter, {}).values():
                        if isinstance(value, Tensor):  # of one's own may count in plain numbers
                            value.zero_()  # fused ones want state for all parameters or none
            self.begun = True
        last = epoch + 1 if self.each_epoch else -(-self.steps // self.per_epoch)
        self.order.epochs = range(epoch, last)
        self.order.start = within * self.accumulate
        late = self.late is not None and self.step >= self.late[0]
        return iter(self.late[1] if self.late and late else self.batches)

    @contextmanager
    def _children(self) -> Iterator[None]:
        """A block with processes that read; after it there are none."""
        try:
            yield
        finally:
            self.batches.close()
            if self.late:
                self.late[1].close()

    def _next(self, stream: Iterator[Fetched]) -> Fetched:
        with self._reading():
            item = next(stream)
        self._record(item)
        return item

    @contextmanager
    def _reading(self, state: dict[str, Any] | None = None) -> Iterator[None]:
        """A block in which a process that reads and fails ends the run, saved.

        Args:
            state: to save; that of the last whole step unless given.
        """
        try:
            yield
        except (Stuck, Unmade, Unreachable) as error:
            if dist.world() > 1:  # the others wait in a step: they cannot be asked for their part
                raise Lost(f"{error}. {self._saved()}", error.exit_code) from error
            state = state or self.state()
            if self.signals.received is not None:  # the signal hit the workers too
                self._interrupt(state)
            self.save(state)
            raise Interrupted(f"{error}. {self._saved()}", error.exit_code) from error

    def _record(self, item: Fetched) -> None:
        """Remember what could not be read, and stop where it is too much."""
        for index, reason in item.bad:
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
            self.untold.append((index, reason, self.step + 1))
        if item.views is None:
            kind = DataError if dist.world() == 1 else Lost
            raise kind(self._unreadable("and nothing else is found to take their place"))
        if dist.world() == 1:
            self._bear()

    def _share(self) -> None:
        """Make what each process could not read known to all, alike."""
        news = sorted((s, i, r) for part in dist.everywhere(self.untold) for i, r, s in part)
        for index, _, _ in self.untold:
            del self.bad[index]
        self.untold = []
        for step, index, reason in news:
            self.bad.setdefault(index, (reason, step))
        self._bear()

    def _bear(self) -> None:
        if len(self.bad) > self.max_bad:
            raise DataError(self._unreadable("more than --max-bad allows") + ", or raise --max-bad")

    def _unreadable(self, why: str) -> str:
        some = list(self.bad.items())[:10]
        first = "\n".join(printable(f"  {self.names(i)}: {r}") for i, (r, _) in some)
        return (
            f"{len(self.bad)} of {len(self.corpus)} images cannot be read, {why}; the first:\n"
            f"{first}\nrun `selftaught check` on the data"
        )

    def _watch(self, item: Fetched) -> None:
        """Between two batches of a pass over the whole dataset, in all processes at once."""
        self._record(item)
        if self._vote(False)[0]:
            raise _StopNow

    def _waiting(self) -> None:
        """A few times a second while a batch is waited for; several processes stop together."""
        if self.signals.received is not None and dist.world() == 1:
            raise _StopNow

    # stopping and going on --------------------------------------------------------------------

    def _agree(self, due: bool) -> tuple[bool, bool]:
        """Whether to stop and whether to save; asked now and then, because asking costs."""
        if dist.world() > 1 and not self.votes.due(self.step) and self.step < self.steps:
            return False, False
        return self._vote(due)

    def _vote(self, due: bool) -> tuple[bool, bool]:
        """What any process wants, all do, and what any could not read, all know."""
        stop = self.signals.received is not None
        if dist.world() == 1:
            return stop, due
        pace = self.votes.milliseconds(self.step)
        wishes = torch.tensor([stop, due, bool(self.untold), pace], dtype=torch.int)
        votes = dist.maximum(wishes.to(self.fabric.device)).tolist()
        self.votes.held(self.step, votes[3])
        if votes[2]:
            self._share()
        return bool(votes[0]), bool(votes[1])

    def _interrupt(self, state: dict[str, Any]) -> None:
        self.save(state)
        raise Interrupted(
            f"stopped at step {self.step} of {self.steps} and saved; repeat the command with "
            "--resume to go on",
            self.signals.exit_code,
        )

    def _saved(self, then: str = ": repeat the command with --resume") -> str:
        steps = self.checkpoints.steps()
        return f"The run is saved at step {steps[0]}{then}" if steps else "Nothing was saved yet"

    def save(self, state: dict[str, Any]) -> None:
        """Write a checkpoint, unless weights are no longer finite."""
        if broken := not_finite(self.method):
            raise TrainingError(
                f"{broken} is not finite at step {self.step} of {self.steps}; {self._last_good()}"
            )
        failure: TrainingError | None = None
        if dist.rank() == 0:
            if self.metrics:
                self.metrics.flush()  # a resumed run starts after the rows of this step
            if self.doctor:
                self.doctor.save()
            try:
                self.checkpoints.save(self.step, state)
            except TrainingError as error:
                failure = error
        (failure, *_) = dist.everywhere(failure)
        if failure:
            raise failure

    def state(self) -> dict[str, Any]:
        """All that the rest of the run depends on; tensors and plain values alone."""
        return {
            "step": self.step,
            "steps": self.steps,
            "method": self._of(self.method),
            "optimizer": self._of(self.optimizer),
            "precision": self.fabric.strategy.precision.state_dict(),
            "random": dist.everywhere(random_state(self.fabric.device)),
            "given": self.order.given,
            "begun": self.begun,
            "bad": [[i, r, s] for i, (r, s) in self.bad.items()],
            **self.facts,
        }

    def _of(self, part: nn.Module | torch.optim.Optimizer) -> Any:
        """Its state; of what is in shards that of one process, which the first one has."""
        state = part.state_dict()
        return whole(state, keep=not dist.rank()) if self.shards else state

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` returned.

        Raises:
            TrainingError: it is that of another method, backbone or optimizer.
        """
        self.step = state["step"]
        try:
            if self.shards:
                restore(self.method, self.optimizer, state)
                self.shards.load(state["method"])
            else:
                self.method.load_state_dict(state["method"])
                # what is loaded is mapped from a file, and CPUs would change it in its place
                self.optimizer.load_state_dict(copied(state["optimizer"]))
            if state["precision"]:
                self.fabric.strategy.precision.load_state_dict(state["precision"])
        except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
            why = textwrap.shorten(str(error), 200, placeholder=" ...")  # of thousands of names
            raise TrainingError(
                f"the checkpoint of step {self.step} in {self.checkpoints.folder} is of another "
                f"training than this one ({why}); give the settings that it was made with, or "
                "train anew with --overwrite"
            ) from error
        self.order.given = state["given"]
        self.begun = state.get("begun", False)  # older checkpoints do not say
        self.bad = {i: (r, s) for i, r, s in state["bad"]}
        states = state["random"]
        if dist.rank() < len(states):
            set_random_state(states[dist.rank()], self.fabric.device)
        else:  # more processes than before: the new ones get a stream of their own
            seed_all(states[0]["python"][1][0] + dist.rank())


def _joined(batches: list[Batch]) -> Batch:
    """Several batches as one."""
    labels = [b.label for b in batches if b.label is not None]
    return Batch(
        _cat([b.views for b in batches]),
        torch.cat([b.index for b in batches]),
        torch.cat(labels) if labels else None,
    )


def _cat(nodes: list[Any]) -> Any:
    first = nodes[0]
    if isinstance(first, dict):
        return {key: _cat([n[key] for n in nodes]) for key in first}
    if isinstance(first, list | tuple):
        return [_cat(list(column)) for column in zip(*nodes, strict=True)]
    return torch.cat(nodes)


def not_finite(method: Method) -> str | None:
    """Name of the first weight that is not finite, or whose part in some process is not."""
    named = method.named_parameters()
    own = next((n for n, p in named if not bool(dist.local(p).isfinite().all())), None)
    return next((n for n in dist.everywhere(own) if n), None)


@torch.no_grad()
def first_not_finite(method: Method, batch: Batch) -> str:
    """Name of the first module, in the order of the forward pass, whose value is not finite."""
    if broken := not_finite(method):
        return f"{broken} (a weight)"
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
    return found[0] if found else LOSS
