"""Watches a training in a few of its steps and says what is wrong with it."""

import json
import logging
import math
import os
import time
from collections import deque
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from selftaught import dist, kinds
from selftaught.diagnose import measures
from selftaught.diagnose.before import BEFORE, Before
from selftaught.diagnose.beside import BESIDE, Beside
from selftaught.diagnose.during import DURING, Exam
from selftaught.diagnose.hooks import Heard, Pair, attach
from selftaught.diagnose.intake import Intake, gap, listen, outside
from selftaught.diagnose.rules import Finding, Watch
from selftaught.diagnose.unusual import unusual
from selftaught.kinds import Kind
from selftaught.method import Batch, Method, encoders
from selftaught.parts import lora

log = logging.getLogger("selftaught")

FILE = "diagnosis.json"
"""In the run folder, beside run.yaml."""

EXAMS, SPACING = 50, 10
"""Most looks in a training, evenly over its steps, and the steps between two of them that make it
cheap: shorter trainings have fewer looks, and 20 at least. Which they are depends on no clock, so
that the same seed gives the same diagnosis."""

IMAGES, SIGHTS = 128, 4
"""Images of a batch that are looked at; looks, of which one runs the encoder on them."""

MANY = 16
"""Images among which one is told from the others."""

MET = 0.01
"""Distance from their goals at which embeddings are pulled nowhere."""

KEPT = 2000
"""Losses that are kept for the course of the training."""

SLICE = 2**16
"""Numbers of a weight that are compared before and after a step."""

ENOUGH = 20
"""Steps below which nothing can be said about a training."""

LATEST = 5
"""Steps in a row whose losses are compared with that of guessing."""

HEAVY = 0.99
"""Share of all terms from which one is the loss nearly alone."""

STOPPED = "stopped"
"""Name of the finding that an error ended the training."""

Verdict = Literal["healthy", "doubtful", "failed"]


@dataclass(frozen=True)
class Diagnosis:
    """How a training went.

    Args:
        verdict: healthy, doubtful or failed.
        evidence: sentences with figures.
        findings: what was wrong.
        standing: names of those that were still so at the end.
        course: figures of each look.
        seconds, share: time that looking took, also as a fraction of the training.
        label_free: RankMe of held-out images at first and at the end, where no labels were there.
    """

    verdict: Verdict
    evidence: tuple[str, ...]
    findings: tuple[Finding, ...]
    standing: tuple[str, ...]
    course: tuple[Exam, ...]
    seconds: float
    share: float
    label_free: tuple[float, float] | None = None

    def sentence(self) -> str:
        """Verdict and evidence, for the terminal."""
        return f"{self.verdict}: " + "; ".join(self.evidence)


class Doctor:
    """Looks at one training, in its first process.

    The loop calls `before_forward` before the forward pass, `after_backward` after the backward
    pass, `before_step`, where the method has made of the gradients what it wants, between that and
    the optimizer's step, `after_step` after it. They return at once except in the few steps
    that are looked at; nothing that training depends on is changed, nor any random number drawn.

    Args:
        method: that is trained.
        path: of the file that is written.
        steps: of the training.
        batch: samples that are compared at once.
        done: steps that are done; of an earlier file what came later is dropped.
        accepted: names of rules that have nothing to say, as what they look for was asked for.
        resting: steps at the beginning in which the backbone rests: they are not looked at.
        encoder: that is looked at as it is evaluated, where that of `method` is in shards.
    """

    def __init__(
        self,
        method: Method,
        path: Path,
        steps: int,
        batch: int,
        done: int = 0,
        accepted: Collection[str] = (),
        resting: int = 0,
        encoder: nn.Module | None = None,
    ):
        self.encoder: Any = method.encoder if encoder is None else encoder
        self.method, self.path, self.steps, self.done = method, path, steps, done
        self.kind, *others = map(kinds.of, encoders(method))
        self.unlike = any(kind.word != self.kind.word for kind in others)
        self.references = method.reference_losses(batch)
        self.watch = Watch(tuple(rule for rule in DURING if rule.name not in accepted))
        self.beside, self.resting = Watch(BESIDE), resting
        self.findings: list[Finding] = []
        self.course: list[Exam] = []
        self.losses: list[tuple[int, float]] = []
        self.recent: list[tuple[int, Tensor]] = []
        self.stood: set[str] = set()
        self.images: list[Tensor] = []
        self.memory: dict[str, Tensor] = {}
        self.noisy: dict[str, deque[float]] = {}
        self.before: list[tuple[Tensor, Tensor, Tensor]] = []
        self.before_copy: list[Tensor] = []
        self.gradient = torch.zeros(())
        self.heard: Heard | None = None
        self.intake: Intake | None = None
        self.batch: Batch | None = None
        self.guess = next((t for t in self.references if not t.collapsed and t.value > 0), None)
        self.latest: deque[Mapping[str, Tensor]] = deque(maxlen=LATEST)
        self.first_loss, self.longest = math.nan, 0.0
        self.unusual = unusual(method)
        self.weights = _weights(method)
        self.copies = _copies(method)
        self.begun = time.perf_counter()
        self.spent, self.cost = 0.0, 0.0
        every = max(1, -(-steps // EXAMS), min(SPACING, steps // 20))
        self.due, self.blind = frozenset({1, *range(every, steps + 1, every), steps}), False
        self.first = done
        if done:
            self._read()

    # before ---------------------------------------------------------------------------------

    def begin(self, facts: Before, seconds: float) -> None:
        """Say what is wrong before the first step; `seconds` were spent on finding it out."""
        self.spent += seconds
        if not self.done:
            self._tell(Watch(BEFORE).look(facts))
        self.begun = time.perf_counter()

    # during ---------------------------------------------------------------------------------

    def before_forward(self, batch: Batch) -> None:
        """Before the forward pass of a step's last part, which is handed `batch`."""
        if self.done + 1 in self.due and not self.blind and self.done >= self.resting:
            begun = time.perf_counter()
            self.heard, self.batch = attach(self.method), batch
            # views of two kinds are nothing that could be compared
            views = batch.views[:1] if self.unlike else batch.views
            self.images = _images(views, self.kind)
            if self.method.needs.views != "alike":  # a second one is no other view of it
                self.images = self.images[:1]
            self.intake = listen(self.method, views if self.kind.native else ())
            self.memory = {n: self.method.get_buffer(n).clone() for n in self.method.insight.memory}
            self.cost = time.perf_counter() - begun

    def after_backward(self) -> None:
        """After the backward pass, before a method holds gradients of what rests back."""
        if self.heard is not None:
            begun = time.perf_counter()
            self.heard.close()
            if self.intake is not None:
                self.intake.close()
            trained = self.method if self.method.needs.learned else self.method.backbone
            self.gradient = _norm(p.grad for p in trained.parameters())
            self.cost += time.perf_counter() - begun

    def before_step(self) -> None:
        """Before the optimizer's step, with the gradients that it takes."""
        if self.heard is not None:
            begun = time.perf_counter()
            self.before = [
                (w, _slice(w), _slice(w.grad)) for w in self.weights if w.grad is not None
            ]
            self.before_copy = [_slice(target) for target, _ in self.copies]
            self.cost += time.perf_counter() - begun

    def after_step(self, terms: Mapping[str, Tensor], lr: float) -> None:
        """After the optimizer's step and the method's own, of this loss and learning rate."""
        step = self.done
        self.done += 1
        if step % max(1, self.steps // KEPT) == 0:
            self.recent.append((self.done, torch.as_tensor(sum(terms.values()))))
        if self.guess:
            self.latest.append(terms)
        if self.heard is None:
            return
        begun = time.perf_counter()
        try:
            self._settle()
            exam = self._examine(terms, lr)
        except Exception as error:  # a watcher must not end what it watches
            log.warning("the doctor cannot look at this training (%s) and leaves it alone", error)
            self.heard, self.blind = None, True
            return
        self.heard, self.before, self.images, self.memory = None, [], [], {}
        self.intake = self.batch = None
        self.course.append(exam)
        self._tell(self.watch.look(exam))
        self.spent += self.cost + time.perf_counter() - begun

    def compare(self, facts: Beside) -> None:
        """Hear how the encoder is beside what training began with, in the order of steps; of a run
        that goes on once more from the first on, which tells nothing twice."""
        self._tell(self.beside.look(facts))

    @torch.no_grad()
    def _examine(self, terms: Mapping[str, Tensor], lr: float) -> Exam:
        values = {name: float(value) for name, value in terms.items()}
        exam = Exam(self.done, self.done / self.steps, sum(values.values()))
        assert self.intake is not None
        found = self._of_loss(exam.loss, values) | self._of_weights(lr) | self._of_heard()
        found |= self._of_samples()
        found |= self.intake.facts(self.steps) | self.unusual
        if self.images:
            if self.kind.native:
                found |= _of_images(self.images)
                encoder = cast(Any, self.method.encoder)
                found["outside"] = outside(self.images[0], encoder.mean, encoder.std)
            # the last is shown
            if len(self.course) % SIGHTS == SIGHTS - 1 or self.done == self.steps:
                found |= self._of_features(self.images[0])
            if "related" in found:
                found["related"] = self._smooth("related", found["related"], self.steps)
                pairs = len(self.noisy["related"]) * len(self.images[0])
                found["doubt"] = 2 * measures.related_error(pairs)
        return replace(exam, frozen_norms=_frozen_norms(self.method), **found)

    def _of_loss(self, loss: float, terms: dict[str, float]) -> dict[str, Any]:
        idle = self.method.insight.idle
        silent = tuple(name for name, value in terms.items() if value == 0 and name not in idle)
        found: dict[str, Any] = {"silent": silent}
        guess = {t.term: t.value for t in self.references if not t.collapsed}
        values = {"loss": loss} | terms
        multiples = [values[term] / value for term, value in guess.items() if value > 0]
        found["least"] = min(multiples, default=math.nan)
        if guess.get("loss", 0) > 0:
            found["chance"] = loss / guess["loss"]
            late = self.done >= 1000 and self.done > self.steps / 2
            last = [loss for step, loss in self.losses if step > 0.8 * self.done]
            if late and last:
                found["stuck"] = abs(sum(last) / len(last) / guess["loss"] - 1)
            self.first_loss = loss if math.isnan(self.first_loss) else self.first_loss
            found["began"] = self.first_loss / guess["loss"]
        if self.guess and len(self.latest) == LATEST:
            term = self.guess.term
            last = [torch.as_tensor(t.get(term, sum(t.values()))) for t in self.latest]
            found["near"] = (torch.stack(last) / self.guess.value - 1).abs().amax().item()
        if loss and values:
            term, most = max(terms.items(), key=lambda t: abs(t[1]))
            if len(terms) > 1 and abs(most) > HEAVY * sum(map(abs, terms.values())):
                found["heavy"] = term
        for t in self.references:
            if t.collapsed and t.term not in silent:
                scale = abs(guess.get(t.term, 0.0) - t.value) or 1.0
                found["floor"] = abs(values[t.term] - t.value) / scale
        return found

    def _of_weights(self, lr: float) -> dict[str, Any]:
        weights = self.method.backbone.parameters()
        found: dict[str, Any] = {"gradient": self.gradient.item()}
        found["frozen"] = not any(w.requires_grad for w in weights)
        if not math.isfinite(found["gradient"]):
            return {}
        pairs = [(old, grad, _slice(w)) for w, old, grad in self.before]
        if lr > 0 and pairs:
            strides = torch.stack([(new - old).norm() / old.norm() for old, _, new in pairs])
            found["stride"] = strides.nanmedian().item()
            self.longest = max(self.longest, found["stride"])
            found["longest"] = self.longest
            live = torch.cat([grad != 0 for _, grad, _ in pairs])
            same = torch.cat([old == new for old, _, new in pairs])
            found["unmoved"] = same[live].double().mean().item()
        if self.copies and lr > 0:
            now = [_slice(target) for target, _ in self.copies]
            online = [_slice(follows) for _, follows in self.copies]
            size = _norm(now)
            moved = [a - b for a, b in zip(now, self.before_copy)]
            found["moved"] = (_norm(moved) / size).item()
            found["copied"] = (_norm([a - b for a, b in zip(now, online)]) / size).item()
        return found

    def _of_heard(self) -> dict[str, Any]:
        heard, intake = self.heard, self.intake
        assert heard is not None
        assert intake is not None
        still = [n for n, old in self.memory.items() if old.equal(self.method.get_buffer(n))]
        found: dict[str, Any] = {"still": tuple(still)}
        if not all(bool(z.isfinite().all()) for z in heard.embeddings + heard.goals):
            return found
        both = heard.views() or intake.two(heard.embeddings or intake.features)
        both = (intake.each(both[0]), intake.each(both[1])) if both else None
        if both and len(both[0]) >= MANY:
            found["agreeing"] = self._smooth("agreeing", measures.related(*map(_few, both)))
        if heard.embeddings:
            z = _few(heard.embeddings[0])
            found["embedding_spread"] = measures.spread(z)
            found["embedding_rank"] = _rank(z)
            if len(z) > 1:
                found["uniformity"] = measures.uniformity(z)
        pairs = heard.pairs()
        slopes = [heard.total[i] for i in range(len(heard.embeddings)) if i in heard.total]
        if both and not pairs and (pull := intake.two(slopes)):
            pairs = [Pair(both[0], pull[0], both[1])]
            found["told"] = False
        for pair in pairs[:1]:
            halves = 2 if self.method.insight.pairs == "half" else 1
            subject, gradient, goal = (_few(intake.each(x, halves)) for x in pair)
            found["alignment"] = measures.alignment(subject, goal)
            # with labels, others of the class are as good as one's own
            if found["alignment"] > MET and not self.method.needs.labels:
                pulled = measures.pulled(gradient, goal)
                if not math.isnan(pulled):
                    found["pulled"] = self._smooth("pulled", pulled)
                    rows = len(self.noisy["pulled"]) * len(subject)
                    found["pull_doubt"] = measures.related_error(rows)
        if heard.total and heard.through:
            total, through = heard.total[0].float(), heard.through[0].float()
            found["bypass"] = _ratio(total - through, total)
        if heard.predictions:
            z, p = heard.entered[0].float(), heard.predictions[0].float()
            if z.shape == p.shape:
                found["predicted"] = _ratio(p - z, z)
        if heard.logits:
            logits = heard.logits[0].flatten(0, -2)[:IMAGES].float()
            shares = self.method.insight.shares
            p = (getattr(self.method, shares)(logits) if shares else logits.softmax(-1)).cpu()
            found["entropy"], found["largest"] = measures.entropy(p), measures.largest(p)
        return found

    def _of_samples(self) -> dict[str, Any]:
        """Whether labels and indices are those of the samples that they come with."""
        batch, intake, heard = self.batch, self.intake, self.heard
        assert batch is not None
        assert intake is not None
        assert heard is not None
        found: dict[str, float] = {}
        size = len(batch.index)
        slope = next(iter(intake.slopes.values()), batch.index)
        if batch.label is not None and len(slope) >= size:
            found["classmates"] = measures.classmates(slope[:size], batch.label)
        z = heard.embeddings[0] if heard.embeddings else batch.index
        for name, old in self.memory.items():
            new, width = self.method.get_buffer(name), z.shape[1:]
            if new.ndim < 2 or new.shape[-1:] != width or len(z) < size:
                continue
            new, old = (x.flatten(0, -3)[0] if x.ndim > 2 else x for x in (new, old))
            written = (new != old).any(1).nonzero()[:, 0]
            if written.equal(batch.index.unique()):  # it has a row for each sample
                found["remembered"] = measures.related(new[batch.index].float(), z[:size].float())
        return {k: self._smooth(k, v) for k, v in found.items() if not math.isnan(v)}

    def _smooth(self, name: str, value: float, last: int = 8) -> float:
        """Mean of a noisy figure over the last looks."""
        kept = self.noisy.setdefault(name, deque(maxlen=last))
        kept.append(value)
        return sum(kept) / len(kept)

    def _of_features(self, images: Tensor) -> dict[str, Any]:
        """Of the encoder as it is evaluated. Its `forward` is called, as hooks and compiled code
        belong to training."""
        encoder = self.encoder
        modes = [(m, m.training) for m in encoder.modules()]
        for m, _ in modes:
            m.training = False
        try:
            x = encoder.forward(_as(images, next(encoder.parameters()).dtype)).float().cpu()
        finally:
            for m, training in modes:
                m.training = training
        if not bool(x.isfinite().all()):
            return {}
        assert self.intake is not None
        trained = next((f for f in self.intake.features if f.shape[1:] == x.shape[1:]), x[:0])
        found = {"gap": gap(trained[: len(x)].float().cpu(), x)} if len(trained) >= len(x) else {}
        return found | {"spread": measures.spread(x), "rank": _rank(x), "slope": measures.slope(x)}

    # after ----------------------------------------------------------------------------------

    def conclude(self, error: str = "") -> Diagnosis:
        """The verdict; `error` ended the training."""
        self._settle()
        if error:
            progress = self.done / self.steps
            nothing = math.nan, math.nan, (), ""
            self.findings.append(Finding(STOPPED, "failure", self.done, progress, error, *nothing))
        standing = {f.name for f in self.findings if not f.step} | self.watch.standing()
        standing |= self.beside.standing()
        standing |= {STOPPED} if error else set()
        if self.first == self.done:  # nothing was trained since the file was read
            standing |= self.stood
        now = [f for f in self.findings if f.name in standing]
        verdict: Verdict = "healthy"
        if any(f.severity != "note" for f in now) or self.done < ENOUGH:
            verdict = "doubtful"
        if any(f.severity == "failure" for f in now):
            verdict = "failed"
        return Diagnosis(
            verdict,
            tuple(self._evidence(now)),
            tuple(self.findings),
            tuple(sorted(standing)),
            tuple(self.course),
            self.spent,
            self.spent / max(time.perf_counter() - self.begun, 1e-9),
        )

    def _evidence(self, now: list[Finding]) -> Iterable[str]:
        yield from (f.says for f in now)
        if self.done < ENOUGH:
            yield f"{self.done} steps are too few to say more (at least {ENOUGH})"
        if len(self.losses) > 1:
            yield self._progress()
        course = [e for e in self.course if math.isfinite(e.rank)]
        if course:  # at first they are those of norms that have seen nothing
            last = course[-1]
            yield (
                f"features spread by {last.spread:.2g} at the end, with {last.rank:.0%} of the "
                "rank that a batch can have"
            )

    def _progress(self) -> str:
        values = [loss for _, loss in self.losses]
        size = max(1, len(values) // 20)
        first, last = sum(values[:size]) / size, sum(values[-size:]) / size
        guess = [t for t in self.references if t.term == "loss" and not t.collapsed]
        words = f"the loss went from {first:.4g} to {last:.4g}"
        if guess:
            words += f" ({guess[0].value:.4g} = {guess[0].formula})"
        at = measures.last_improvement(values)
        if self.done < ENOUGH:
            return words
        if at > 0.9:
            return words + ", still falling: longer training may help"
        return words + f", and has not fallen since step {self.losses[0][0] + at * self.done:.0f}"

    def _settle(self) -> None:
        """Fetch losses from the device."""
        if self.recent:
            steps, losses = zip(*self.recent)
            self.losses += zip(steps, torch.stack(losses).tolist())
            self.recent = []

    def _tell(self, findings: list[Finding]) -> None:
        for finding in findings:
            self.findings.append(finding)
            level = logging.INFO if finding.severity == "note" else logging.WARNING
            log.log(level, "doctor: %s", finding.sentence())

    # file -----------------------------------------------------------------------------------

    def save(self, diagnosis: Diagnosis | None = None) -> None:
        """Write what is known, so that a resumed run goes on from it."""
        found = diagnosis or self.conclude()
        content = {
            "verdict": found.verdict if diagnosis else None,
            "evidence": found.evidence,
            "standing": found.standing,
            "findings": [asdict(f) for f in found.findings],
            "seconds": round(found.seconds, 3),
            "share": round(found.share, 5),
            "step": self.done,
            "steps": self.steps,
            "course": [_rounded(asdict(e)) for e in found.course],
            "losses": self.losses,
            "label_free": found.label_free,
        }
        temporary = self.path.with_name(self.path.name + ".tmp")
        temporary.write_text(json.dumps(_finite(content), indent=1) + "\n", encoding="utf-8")
        os.replace(temporary, self.path)

    def _read(self) -> None:
        """Go on from the file of an earlier part of this run, where there is one."""
        try:
            content = json.loads(self.path.read_text("utf-8"))
            findings = [Finding(**f) for f in content["findings"]]
            course = [Exam(**_given(e)) for e in content["course"]]
            self.losses = [(s, v) for s, v in content["losses"] if s <= self.done and v is not None]
            self.stood = set(content["standing"])
        except (
            OSError,
            ValueError,
            TypeError,
            LookupError,
            AttributeError,
            RecursionError,
        ) as error:
            if self.path.exists():
                log.warning("%s cannot be used (%s); the diagnosis starts anew", self.path, error)
            return
        self.findings = [f for f in findings if f.step <= self.done and f.name != STOPPED]
        self.course = [e for e in course if e.step <= self.done]
        self.watch.said = {f.name for f in self.findings}
        self.beside.said = set(self.watch.said)


def _rounded(exam: dict[str, Any]) -> dict[str, Any]:
    """To five digits; what was not looked at is left out."""
    return {
        k: float(f"{v:.5g}") if isinstance(v, float) else v
        for k, v in exam.items()
        if v != "" and not (isinstance(v, float) and math.isnan(v))
    }


def _given(exam: dict[str, Any]) -> dict[str, Any]:
    return exam | {"silent": tuple(exam["silent"]), "still": tuple(exam["still"])}


def _finite(node: Any) -> Any:
    """Plain values with None for what JSON has no number for."""
    if isinstance(node, float) and not math.isfinite(node):
        return None
    if isinstance(node, dict):
        return {k: _finite(v) for k, v in node.items()}
    if isinstance(node, list | tuple):
        return [_finite(v) for v in node]
    return node


def _weights(method: Method) -> list[Tensor]:
    """Some of the trained matrices, from the first to the last."""
    every: list[Tensor] = [
        p
        for name, p in method.named_parameters()
        if p.requires_grad and p.ndim > 1 and not name.endswith(lora.BEGINS_AT_ZERO)
    ]
    return every[:: max(1, len(every) // 8)]


def _copies(method: Method) -> list[tuple[Tensor, Tensor]]:
    """Some of the matrices of EMA copies, each with what it follows."""
    every: list[tuple[Tensor, Tensor]] = [
        (target, online)
        for a, b in method.insight.copies
        for target, online in zip(
            method.get_submodule(a).parameters(), method.get_submodule(b).parameters()
        )
        if online.requires_grad and online.ndim > 1
    ]
    return every[:: max(1, len(every) // 8)]


@torch.no_grad()
def _slice(x: Tensor) -> Tensor:
    """A copy of the first numbers of a tensor, in memory's order."""
    x = dist.local(x)
    return torch.as_strided(x, (min(x.numel(), SLICE),), (1,)).clone()


def _few(x: Tensor) -> Tensor:
    """[..., D] -> at most IMAGES rows of it, on the CPU, where all devices' figures are alike."""
    return x.flatten(0, -2)[:IMAGES].float().cpu()


def _norm(tensors: Iterable[Tensor | None]) -> Tensor:
    present = [dist.local(x) for x in tensors if x is not None]
    if not present:
        return torch.zeros(())
    return torch.stack(torch._foreach_norm(present)).float().norm()


def _ratio(a: Tensor, b: Tensor) -> float:
    return (a.norm() / b.norm()).item()


def _rank(x: Tensor) -> float:
    """Of what varies in [N, D], as a fraction of what N images can have."""
    return measures.rank(x - x.mean(0)) / max(1, min(len(x) - 1, x.shape[1]))


def _frozen_norms(method: Method) -> int:
    """Batch norms that are trained and do not use the batch."""
    return sum(
        isinstance(m, nn.modules.batchnorm._BatchNorm)
        and not m.training
        and any(p.requires_grad for p in m.parameters())
        for m in method.modules()
    )


def _images(views: Any, kind: Kind) -> list[Tensor]:
    """Up to two batches [N, C, H, W], or of another kind, of the same size: of the first views."""
    found = [x[:IMAGES] for x in kind.inputs(views)[:2]]
    return [x for x in found if x.shape == found[0].shape]


def _as(images: Tensor, dtype: torch.dtype) -> Tensor:
    """Floats of another precision; whole numbers, as tokens are, stay as they are."""
    return images.to(dtype) if images.is_floating_point() else images


def _of_images(images: list[Tensor]) -> dict[str, Any]:
    """Of normalized views, and of the pairs that they make."""
    std, mean = torch.std_mean(images[0].float(), (0, 2, 3))
    found: dict[str, Any] = {
        "offset": mean[mean.abs().argmax()].item(),
        "contrast": std.log10().abs().amax().item(),
        "detail": images[0].float().std((2, 3)).amax(1).median().item(),
    }
    if len(images) == 2 and len(images[0]) >= MANY:
        small = [measures.thumbnails(x).cpu() for x in images]
        found["pixels"] = measures.matched(*small)
        found["related"] = measures.related(*small)
        found["hues"] = measures.matched(*(measures.colors(x).cpu() for x in images))
    return found
