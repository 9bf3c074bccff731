"""A `Run` carries out a `Plan`: it starts, trains and finishes, and is what comes of it."""

import copy
import io
import json
import logging
import os
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import fields, replace
from functools import partial
from html import escape
from pathlib import Path
from typing import Any

import torch
from rich.console import Group
from rich.table import Table

from selftaught import chosen, config, dist, export, kinds, report, voice
from selftaught import evaluate as evaluation
from selftaught.backbones import Encoder, Wrapped
from selftaught.backbones.blocks import compile_blocks, plain, recompute
from selftaught.data import Samples
from selftaught.data import quarantine as quarantined
from selftaught.data.cached import cached
from selftaught.data.paired import Paired
from selftaught.data.remote.cache import cache_of
from selftaught.data.shards import BLOCK
from selftaught.data.skipped import tell
from selftaught.diagnose.doctor import FILE, Diagnosis, Doctor
from selftaught.diagnose.preflight import preflight
from selftaught.engine import (
    beginning,
    classes,
    continued,
    elsewhere,
    kept,
    session,
    together,
    trackers,
    trained,
)
from selftaught.engine.anchor import anchored
from selftaught.engine.build import method_name, options_of
from selftaught.engine.cache import GradientCache
from selftaught.engine.checkpoint import Checkpoints
from selftaught.engine.colors import choose, fed
from selftaught.engine.convolution import fix_bf16_stride, lay_channels_last
from selftaught.engine.corpus import Blank, RunCorpus
from selftaught.engine.curve import observed
from selftaught.engine.elsewhere import Machines
from selftaught.engine.ending import Course, as_run_errors, end_with_parent
from selftaught.engine.estimate import (
    Estimate,
    amount,
    needed,
    peak_flops,
    readable,
    small_batch,
)
from selftaught.engine.folder import Metrics, prepare, write_text
from selftaught.engine.loop import Loop
from selftaught.engine.machine import device_name, precision_of, room_to_read, without_denormals
from selftaught.engine.pairs import towers
from selftaught.engine.pictures import SHOWN, keep_pictures, keep_views
from selftaught.engine.plan import Plan
from selftaught.engine.progress import Progress, duration
from selftaught.engine.randomness import seed_all
from selftaught.engine.restore import begin_with
from selftaught.engine.shard import Whole, encoded, layout, shard
from selftaught.engine.signals import StopSignals
from selftaught.engine.unmix import with_mixed
from selftaught.engine.views import views_of
from selftaught.errors import SelftaughtError, TrainingError, UserError
from selftaught.evaluate import Comparison
from selftaught.evaluate.curve import Curve
from selftaught.evaluate.pairing import compare_pairs
from selftaught.export.facts import SECOND, SETTINGS, TRIED, of_folder
from selftaught.feed.lanes import Lanes
from selftaught.feed.order import Order
from selftaught.feed.readers import Readers, limited
from selftaught.feed.views import ViewDataset
from selftaught.method import Method, encoders
from selftaught.parts import synchronize
from selftaught.report.html import table
from selftaught.sides import told_size
from selftaught.terminal import Terminal
from selftaught.verdict import Verdict

log = logging.getLogger("selftaught")


class Run:
    """A training and what came of it.

    Only the first of several processes finishes a run: the others have its method alone.

    Args:
        plan: what to do.

    Attributes:
        method: what was trained.
        folder: of the run.
        diagnosis: what the doctor says of the training.
        scores: of the encoder, beside their floors; None where there was nothing to score it on.
        report: the page about all of it.
        began: the encoder as training began, on the CPU, where that was no fresh draw.
        exported: of such a run: the encoder that was kept, the end or a better one.
        curve: how the encoder did on held-out images while it trained; None where nobody looked.
    """

    def __init__(self, plan: Plan):
        self.plan = plan
        self.method: Method = plan.method
        self.folder: Path = plan.out
        self.diagnosis: Diagnosis | None = None
        self.scores: Comparison | None = None
        self.report: Path | None = None
        self.samples: Samples = plan.samples
        self.views: list[ViewDataset] = []
        self.began: Encoder | None = None
        self.exported: Encoder | None = None
        self.curve: Curve | None = None
        self.prepared = continued.NOTHING

    @property
    def encoder(self) -> Encoder:
        """The network to use: what was kept, of a run that began with weights."""
        return self.plan.image if self.exported is None else self.exported

    @property
    def verdict(self) -> Verdict | None:
        """Whether it learned, by its scores and by what the doctor found; None before the end."""
        return None if self.diagnosis is None else of_folder(self.folder)

    def complete(self) -> "Run":
        """Start, train and finish.

        Raises:
            DataError: more than `max_bad` of the images cannot be read.
            TrainingError: a loss that is not finite, or a training that failed by the doctor's
                verdict; nothing is exported.
            Interrupted: a signal came; the run is saved and can be resumed.
        """
        with StopSignals() as signals, self.guarded(signals) as course:
            loop = self.start(signals)
            first = loop.step
            # until a step is done all is told at once; nothing later is the arguments' alone
            course.begun = lambda: loop.step > first or loop.step == loop.steps
            self.train(loop)
            # the others need not wait: that could take longer than they may wait
            if dist.rank() == 0:
                self.finish(loop)
        return self

    @contextmanager
    def guarded(self, signals: StopSignals) -> Iterator[Course]:
        """A block that may train: whatever ends it is an error in words."""
        with (
            as_run_errors(self.folder, signals) as course,
            limited(self.plan.settings.read_timeout),
            without_denormals(),
            room_to_read(self.plan.fabric),
        ):
            yield course

    # start ------------------------------------------------------------------------------------

    def start(self, signals: StopSignals) -> Loop:
        """From a plan to a loop that stands before its first step."""
        plan, settings, fabric = self.plan, self.plan.settings, self.plan.fabric
        if fabric.global_rank == 0:  # whatever is wrong is told before there are other processes
            self._prepare_folder()
        if fabric.world_size > 1:
            end_with_parent(fabric.global_rank)
        together.meet(fabric)
        fabric.launch()
        # only the first process knows the folder and, of a run that goes on, who makes colors
        training = plan.content.get("training", {})
        # absolute, as processes of other machines may stand elsewhere
        told = str(self.folder.absolute()), training.get("colors", "auto")
        out, colors = fabric.broadcast(told)
        if dist.rank():
            self.folder = Path(out)
        checkpoints = Checkpoints.of(self.folder)
        state = checkpoints.training() if settings.resume and dist.rank() else plan.state
        self._alike(-1 if state is None else state["step"])

        self._prepare_method(in_shards := settings.shard and dist.world() > 1)
        shards = Whole(plan.method, fabric.device) if in_shards else None
        if state:
            self.began = beginning.kept(plan.image, self.folder)
        elif plan.continued:
            self.began = beginning.keep(plan.image, None if dist.rank() else self.folder)
        self.prepared = continued.prepare(plan.method, settings)
        if settings.unmix is not None:
            plan.method.loss = with_mixed(plan.method, settings.unmix)  # type: ignore[method-assign]
        if settings.anchor is not None:
            plan.method.loss = self._anchored()  # type: ignore[method-assign]
        # decoded once, in processes: before any view is made
        if settings.cache:
            self.samples = cached(plan.samples, max(1, plan.workers))
        samples = self.samples
        self.views = self._views()
        part = plan.batch // plan.parts
        corpus = RunCorpus(samples, plan.image, part, plan.workers, fabric.device)
        corpus.folder = self.folder
        plan.method.on_start(corpus)
        if shards:
            shard(plan.method, fabric, layout(settings, dist.world()))
        if dist.rank() == 0 and (plan.step is None or self._changed()):
            log.info("measuring memory and time on a few %s", kinds.of(plan.image).many)
        need = self.estimate()
        first = plan.phase.first if plan.phase else plan.steps
        labels = torch.from_numpy(samples.labels) if plan.method.needs.labels else None
        if colors == "auto":
            colors = choose(
                plan.method,
                self.views[0],
                batch=part // dist.world(),
                makers=plan.workers,
                device=fabric.device,
                context=fabric.autocast,
                channels_last=settings.channels_last,
                labels=labels,
            )
            if dist.rank() == 0:
                plan.content["training"]["colors"] = colors
                write_text(self.folder / SETTINGS, config.dump(plan.content))
        if dist.rank() == 0:
            keep_views(self.views[0], self.folder)
            self._announce(need)
        order = Order(len(samples), part, *self._shuffled(part))
        batches, *late = (
            Readers(made.__getitems__, order, plan.workers, pin=fabric.device.type == "cuda")
            for made in (fed(views, colors) for views in self.views)
        )
        done = state["step"] if state else 0
        if shards and shards.copy is not None:  # which looks, exports and scores
            self.plan, self.method = replace(plan, method=shards.copy), shards.copy
        loop = Loop(
            fabric=fabric,
            method=plan.method,
            recipe=plan.recipe,
            plan=plan.rates,
            order=order,
            batches=batches,
            late=(first, late[0]) if late else None,
            accumulate=plan.parts,
            cache=None
            if settings.effective_batch is None
            else GradientCache(
                plan.method, part // dist.world(), fabric.autocast, encoded(plan.method)
            ),
            steps=plan.steps,
            per_epoch=plan.per_epoch,
            corpus=corpus,
            checkpoints=checkpoints,
            metrics=self._metrics(done) if dist.rank() == 0 else None,
            progress=Progress(
                plan.steps, plan.per_epoch, plan.batch, (need.flops, peak_flops(fabric.device))
            ),
            signals=signals,
            facts={"data": plan.fingerprint},
            need=need,
            resting=plan.rest,
            shards=shards,
            log_every=settings.log_every,
            save_every=60 * settings.save_every,
            channels_last=settings.channels_last and not in_shards,
            max_bad=int(settings.max_bad * len(samples)),
            names=samples.name,
            labels=labels,
            doctor=Doctor(
                plan.method,
                self.folder / FILE,
                plan.steps,
                plan.compared,
                done,
                self.prepared.accepted,
                plan.rest,
                self.plan.method.encoder,
            )
            if dist.rank() == 0
            else None,
        )
        # the last thing before the steps: what was drawn until here, measuring say, counts for
        # nothing, and each process has a stream of its own
        seed_all(settings.seed + dist.rank())
        if state:
            loop.restore(state)
            log.info("resuming at step %d of %d", loop.step, plan.steps)
        elif loop.doctor:
            self._intake(loop)
        with shards.there() if shards else nullcontext():
            self._observe(loop, need)
        if shards:
            looked = () if self.curve is None else self.curve.at
            examined = () if loop.doctor is None else loop.doctor.due
            shards.looked, shards.examined = fabric.broadcast((looked, examined))
        return loop

    def _observe(self, loop: Loop, need: Estimate) -> None:
        """Let the encoder be looked at while it is trained, by the first process."""
        if loop.metrics and loop.doctor:
            observer = loop.look = observed(
                self.plan,
                self.samples,
                self.folder,
                began=self.began is not None,
                done=loop.step,
                seconds=need.seconds,
                tell=loop.metrics.note,
                compare=loop.doctor.compare,
            )
            self.curve = None if observer is None else observer.curve

    def _alike(self, step: int) -> None:
        """Refuse processes that were not started alike: what they would train is silently wrong."""
        plan = self.plan
        facts = {
            together.DATA: plan.fingerprint,
            together.STEP: step,
            "steps": plan.steps,
            "the batch": plan.batch,
            "the recipe": {f.name: str(getattr(plan.recipe, f.name)) for f in fields(plan.recipe)},
            "the method": method_name(plan.method),
            "its options": options_of(plan.method),
            "the seed": plan.settings.seed,
        }
        together.alike(facts)

    def _shuffled(self, part: int) -> tuple[int, int, Lanes | None]:
        """Batches of an epoch, the seed of their order, and its lanes where it goes by blocks."""
        plan, settings = self.plan, self.plan.settings
        batches = plan.per_epoch * plan.parts
        source = plan.samples.source
        room = cache_of(os.getpid()).limit if source.fetched else 0
        if settings.shuffle == "full":
            if source.fetched > room and dist.rank() == 0:
                log.warning(
                    "%.0f GB come from afar, and this machine keeps %.0f GB of them "
                    "(SELFTAUGHT_CACHE_SIZE): shuffled in full, each image brings a block of "
                    "%d MiB; --shuffle blocks reads each block once an epoch",
                    source.fetched / 1e9,
                    room / 1e9,
                    BLOCK >> 20,
                )
            return batches, settings.seed, None
        lanes = Lanes(source.blocks(), part, batches, settings.seed, source.held)
        needed = lanes.lanes * lanes.mixed * BLOCK * 3 // 2
        if source.fetched > room and needed > room and dist.rank() == 0:
            log.warning(
                "%d lanes of %d blocks are in use at once, and this machine keeps %.1f GB of what "
                "it fetches: SELFTAUGHT_CACHE_SIZE=%.1fGB is enough to fetch each block once",
                lanes.lanes,
                lanes.mixed,
                room / 1e9,
                needed / 1e9 + 0.1,
            )
        return batches, settings.seed, lanes

    def _metrics(self, done: int) -> Metrics:
        """Rows of numbers, for the run folder and for whoever follows the run."""
        settings, device = self.plan.settings, self.plan.fabric.device
        others = trackers.followers(settings.track, self.folder, done, self.plan.content, device)
        if settings.on_record is None:
            return Metrics(self.folder, done, others)
        apart = trackers.Apart("on_record", device)
        return Metrics(self.folder, done, others, partial(apart, settings.on_record))

    def _prepare_folder(self) -> None:
        """Make the run folder and write down what repeats the run, before anything is computed."""
        settings = self.plan.settings
        prepare(self.folder, settings.resume, settings.overwrite)
        kind = type(self.plan.method)
        # what was written in a session is gone with it
        source = session.source_of(kind) if kind.__module__ == "__main__" else None
        try:
            if source is not None:
                write_text(self.folder / session.FILE, source)
            kinds.of(self.plan.image).keep(self.folder)
            for encoder in encoders(self.plan.method)[1:]:
                (self.folder / SECOND).mkdir(exist_ok=True)
                kinds.of(encoder).keep(self.folder / SECOND)
            write_text(self.folder / SETTINGS, config.dump(self.plan.content))
            if self.plan.tried is not None:
                write_text(self.folder / TRIED, json.dumps(self.plan.tried, indent=2) + "\n")
            if self.plan.method.needs.labels:
                classes.keep(self.folder, self.plan.samples)
        except OSError as error:
            raise UserError(
                f"{self.folder} cannot be written ({error.strerror}); free some space, or name "
                "another folder with --out"
            ) from error

    def _prepare_method(self, in_shards: bool = False) -> None:
        """Put the method where it is trained, in the order that its parts depend on each other.

        Args:
            in_shards: whether it stays where it is until it is sharded: it may not fit the device,
                and shards have no other layout than torch's own.
        """
        plan, method, settings = self.plan, self.plan.method, self.plan.settings
        if plan.weights is not None:
            begin_with(method, str(settings.start), plan.weights)
        torch.backends.cudnn.deterministic = True
        # synchronized batch norms are new modules, which layout and device are to reach too
        if dist.world() > 1 and method.needs.batchnorm == "all":
            synchronize(method)
        if settings.channels_last and not in_shards:
            lay_channels_last(method)
        if not in_shards:
            method.to(plan.fabric.device)
        if plan.fabric.device.type == "cpu":  # looks at the layout that weights now have
            fix_bf16_stride(method)
        # of what is final: compiled code holds the modules that it was made of
        if settings.compile and not compile_blocks(method):
            method.backbone.compile()
        if settings.recompute:
            recompute(method)

    def _views(self) -> list[ViewDataset]:
        """The samples through the pipeline, and through that of the last steps where it differs."""
        plan, settings = self.plan, self.plan.settings
        pipelines = [plan.pipeline]
        if plan.phase:
            pipelines.append(views_of(plan.method, plan.phase.size, settings))
        seen = plan.seen(self.samples)
        return [
            ViewDataset(seen, pipeline, settings.seed, settings.reduced) for pipeline in pipelines
        ]

    def _anchored(self) -> Any:
        """The method's loss with the anchors that were asked for."""
        plan, asked = self.plan, self.plan.settings.anchor
        if self.began is None:
            raise UserError(
                f"{self.folder} does not hold the weights that the run began with, which --anchor "
                "keeps to; begin anew with --overwrite, or drop --anchor"
            )
        return anchored(plan.method, self.began, asked or (), plan.fabric.device)

    def estimate(self) -> Estimate:
        """Memory and time of the training; the method is on its device."""
        plan = self.plan
        if plan.step is not None and not self._changed():
            return plan.step._replace(seconds=plan.steps * plan.step.seconds)
        first = plan.phase.first if plan.phase else plan.steps
        parts = [
            needed(
                plan.method,
                views,
                plan.fabric,
                batch=plan.batch,
                accumulate=plan.parts,
                steps=steps,
                makers=plan.workers,
                optimizer=str(plan.recipe.optimizer),
                shards=layout(plan.settings, plan.fabric.world_size).shards,
            )
            for views, steps in zip(self.views, (first, plan.steps - first))
        ]
        return Estimate(
            max(part.memory for part in parts),
            sum(part.seconds for part in parts),
            parts[0].flops,
            max(part.each for part in parts),
        )

    def _changed(self) -> bool:
        """Whether a step is another one than that of the plan's method on the plan's data."""
        asked = self.plan.settings
        other = asked.unmix is not None or asked.anchor is not None or asked.recompute
        other |= asked.shard
        return other or asked.compile or asked.cache or bool(self.plan.phase or self.prepared.told)

    def preview(self, on: Machines | None = None) -> Group:
        """What would be done, and what it would need; nothing is written.

        Args:
            on: machines that it would be done on; this one by default.
        """
        plan, fabric = self.plan, self.plan.fabric
        with without_denormals(), room_to_read(fabric):
            self._prepare_method()
            self.prepared = continued.prepare(plan.method, plan.settings)
            self.views = self._views()
            plan.method.on_start(Blank(len(plan.samples)))
            needs = self._needs() if on is None else self._needs_on(on)
            self.prepared.undo.close()
        rates = plan.rates
        kind = kinds.of(plan.image)
        size, trained = plan.image.size, sum(p.numel() for p in plan.method.parameters())
        parts = f" in {plan.parts} parts" if plan.parts > 1 else ""
        parts += f" on {fabric.world_size} devices" if fabric.world_size > 1 else ""
        epochs = f"{plan.steps / plan.per_epoch:,.2f}".removesuffix(".00")
        rows = {
            "method": method_name(plan.method),
            "data": f"{len(plan.samples):,} {kind.many} of {plan.content['data']}",
            "backbone": f"{plan.image.name} at {kind.at(size)}; {trained / 1e6:.1f} million "
            "weights with what the method adds",
            "steps": f"{plan.steps:,} of {plan.batch} {kind.many}{parts}: {epochs} epochs of "
            f"{plan.per_epoch:,}",
            "optimizer": f"{plan.recipe.optimizer}, learning rate {rates.peak:.3g} at its peak, "
            f"weight decay {plan.recipe.weight_decay}",
            **needs,
            "folder": str(self.folder),
        }
        if plan.phase:
            last = plan.steps - plan.phase.first
            rows["steps"] += f", the last {last:,} at {told_size(plan.phase.size)} px"
        if self.prepared.told:
            rows["kept"] = "; ".join(self.prepared.told)
        if plan.state:
            rows["steps"] += f"; goes on from step {plan.state['step']:,}"
        grid = Table.grid(padding=(0, 2))
        for name, value in rows.items():
            grid.add_row(name, value)
        tell(plan.samples)
        picked = ["", self._chosen_for(), chosen.table(plan.chosen)] if plan.chosen else []
        return Group(grid, *picked)

    def _needs(self) -> dict[str, str]:
        """What this machine would have to give, in words."""
        plan, need = self.plan, self.estimate()
        return {
            "device": f"{device_name(plan.fabric)} in {precision_of(plan.fabric)}, {plan.workers} "
            "processes that make views",
            "memory": f"about {amount(need.memory)}",
            "time": f"about {duration(need.seconds)}",
        }

    def _needs_on(self, on: Machines) -> dict[str, str]:
        """What other machines would."""
        plan, method, views = self.plan, self.plan.method, self.views[0]
        count = max(2, method.needs.batch)
        readable(views, 0)  # the first one loads libraries and opens files
        begun = time.perf_counter()
        items = [readable(views, i % len(views.samples)) for i in range(2 * count)]
        making = (time.perf_counter() - begun) / len(items)
        few, more = (
            small_batch(method, views, some, plan.fabric) for some in (items[:count], items)
        )
        return elsewhere.told(
            elsewhere.ways(method, few, more, on, str(plan.recipe.optimizer)),
            on,
            batch=plan.batch,
            steps=plan.steps,
            making=making,
            many=kinds.of(plan.image).many,
        )

    def _chosen_for(self) -> str:
        about = "going on from weights" if self.plan.continued else "this data and machine"
        return f"chosen for {about}; {chosen.PAPERS}:"

    def _announce(self, need: Estimate) -> None:
        plan, fabric = self.plan, self.plan.fabric
        kind = kinds.of(plan.image)
        log.info(
            "%s with %s at %s on %s %s, %d steps of %d, %s in %s",
            type(plan.method).__name__,
            plan.image.name,
            kind.at(plan.image.size),
            f"{len(plan.samples):,}",
            kind.many,
            plan.steps,
            plan.batch,
            device_name(fabric),
            precision_of(fabric),
        )
        tell(plan.samples)
        if plan.chosen:
            lines = _rendered([chosen.table(plan.chosen)], usual=80, indent=2).split("\n")
            log.info("\n  ".join([self._chosen_for(), *map(str.rstrip, lines)]))
        for line in self.prepared.told:
            log.info(line)
        if plan.settings.shard and fabric.world_size == 1:
            log.info("one process keeps all weights: there is nobody to divide them with")
        if plan.phase:
            last = plan.steps - plan.phase.first
            log.info("the last %d steps see images of %s px", last, told_size(plan.phase.size))
        log.info(
            "about %s of memory and %s of time; the run is kept in %s",
            amount(need.memory),
            duration(need.seconds),
            self.folder,
        )
        if fabric.device.type == "cuda":
            total = torch.cuda.get_device_properties(fabric.device).total_memory
            if need.memory > total:
                log.warning(
                    "that is more than the %.0f GiB of the GPU: use a smaller --batch, or "
                    "--accumulate",
                    total / 2**30,
                )

    def _intake(self, loop: Loop) -> None:
        """Let the doctor see what is known before the first step."""
        begun = time.perf_counter()
        log.info("looking at the data and the settings before the first step")
        facts = preflight(self.samples, self.plan.intake)
        if loop.doctor:
            loop.doctor.begin(facts, time.perf_counter() - begun)

    # train ------------------------------------------------------------------------------------

    def train(self, loop: Loop) -> None:
        """All steps; whatever ends them, metrics and unreadable files are written down."""
        try:
            loop.run()
            if loop.shards:
                loop.shards.finished()
        except TrainingError as error:
            if loop.doctor:
                loop.doctor.save(loop.doctor.conclude(str(error)))
            raise
        finally:
            if "loss" in vars(self.method):  # Un-Mix or anchors around it
                del self.method.loss
            plain(self.method)
            self.prepared.undo.close()
            if dist.rank() == 0 and loop.bad:
                listed = {loop.names(i): quarantined.Bad(*why) for i, why in loop.bad.items()}
                quarantined.append(self.folder / quarantined.FILE, listed)
            if loop.metrics:
                loop.metrics.close()

    # finish -----------------------------------------------------------------------------------

    def finish(self, loop: Loop) -> None:
        """Give the verdict, export, score, report, in the first process."""
        plan, settings, samples = self.plan, self.plan.settings, self.samples
        if loop.bad:
            log.warning(
                "%d images could not be read: %s", len(loop.bad), self.folder / quarantined.FILE
            )
        shown = [readable(self.views[0], i) for i in range(min(SHOWN, len(samples)))]
        keep_pictures(plan.method, plan.image, shown, samples, self.folder)
        assert loop.doctor is not None
        seen = None if self.curve is None else self.curve.label_free
        self.diagnosis = replace(loop.doctor.conclude(), label_free=seen)
        loop.doctor.save(self.diagnosis)
        if self.diagnosis.verdict == "failed" and not settings.force:
            report.write(self.folder)
            raise TrainingError(
                f"the training failed: {self.diagnosis.evidence[0]}; nothing was exported. The "
                f"report in {self.folder} says more; repeat the command with --resume --force to "
                "export the encoder all the same"
            )
        image = plan.image.float()
        image.trained = True
        if self.began is not None:
            image = self.exported = self._best(image, self.began, loop)
        export.save(image, self.folder)
        for encoder in encoders(plan.method)[1:]:
            encoder.float().trained = True
            export.save(encoder, self.folder / SECOND)
        if settings.evaluate:
            with voice.told_if_slow("scoring the encoder beside its floors"):
                self._score(image)
            trained.keep(plan.method, plan.image, samples, plan.held, self.folder)
        said = of_folder(self.folder)
        log.info("\n  - ".join([str(said), *said.reasons]))
        if self.curve is not None and self.curve.advice:
            log.info("%s", self.curve.advice)
        module = copy.deepcopy(image.net) if isinstance(image, Wrapped) else None
        self.report = report.write(self.folder, samples, module=module)
        loop.checkpoints.finish(plan.steps)

    def _best(self, end: Encoder, began: Encoder, loop: Loop) -> Encoder:
        """The encoder to export, of a run that began with weights."""
        return kept.keep(
            end,
            began,
            self.samples,
            settings=self.plan.settings,
            supervised=self.plan.method.needs.labels,
            held=self.plan.held,
            bad=loop.bad,
            folder=self.folder,
        )

    def _score(self, image: Encoder) -> None:
        plan, samples = self.plan, self.samples
        if plan.method.needs.labels and plan.held is None:
            log.info(
                "the encoder is not scored: it has learned these labels; name others with --test"
            )
            return
        if samples.labels is None and plan.pairs is None:
            return
        try:
            if plan.pairs is None:
                self.scores = evaluation.compare(
                    image,
                    samples,
                    plan.held,
                    seed=plan.settings.seed,
                    read_timeout=plan.settings.read_timeout,
                    start=self.began,
                )
            else:
                assert isinstance(plan.partners, Paired)
                self.scores = compare_pairs(
                    towers(plan.method), plan.partners, plan.pairs, seed=plan.settings.seed
                )
        except SelftaughtError as error:  # too few labels, say: no reason to go without a report
            log.warning("the encoder is not scored: %s", error)
            return
        kept.apart(self.folder, self.scores.skipped)
        self.scores.save(self.folder / "scores.json")
        log.info(_rendered(self.scores.table))

    # in a notebook ------------------------------------------------------------------------------

    def __repr__(self) -> str:
        return f"<Run {self.folder}: {method_name(self.method)}, {self.verdict or 'not finished'}>"

    def _repr_html_(self) -> str:
        parts = [f"<p>{escape(repr(self))}</p>"]
        if self.verdict is not None:
            reasons = "".join(f"<li>{escape(reason)}</li>" for reason in self.verdict.reasons)
            parts.append(f"<ul>{reasons}</ul>")
        if self.curve is not None:
            parts.append(f"<p>{escape(self.curve.advice)}</p>")
        if self.scores is not None:
            parts.append(self.scores.html)
        if self.plan.chosen:
            rows = table(chosen.HEAD, [c.row for c in self.plan.chosen])
            parts.append(
                f"<details><summary>{escape(self._chosen_for())}</summary>{rows}</details>"
            )
        if self.report is not None:
            page = escape(str(self.report))
            parts.append(f'<p>All of it: <a href="{page}">{page}</a></p>')
        return "".join(parts)


def _rendered(parts: Iterable[Any], usual: int = 100, indent: int = 0) -> str:
    """What rich would print, as text without colors; `usual` columns where there is no terminal."""
    width = min(100, shutil.get_terminal_size((usual, 24)).columns) - indent
    console = Terminal(file=io.StringIO(), width=width, color_system=None)
    with console.capture() as capture:
        for part in parts:
            console.print(part)
    return capture.get().rstrip()
