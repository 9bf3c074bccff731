"""The doctor: its figures, its rules, what methods tell it, and what it does to a run."""

import copy
import itertools
import json
import logging
import math
import re
from pathlib import Path
from types import MethodType, SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from selftaught import methods, report
from selftaught.augment.image.device import normalize
from selftaught.data import open_data
from selftaught.diagnose import doctor as doctors
from selftaught.diagnose import measures
from selftaught.diagnose.before import BEFORE, REFUSED
from selftaught.diagnose.beside import BESIDE, Beside
from selftaught.diagnose.doctor import Doctor
from selftaught.diagnose.during import DURING, Exam
from selftaught.diagnose.hooks import attach
from selftaught.diagnose.intake import Intake, gap, listen, outside
from selftaught.diagnose.rules import Cause, Finding, Rule, Watch
from selftaught.diagnose.unusual import unusual
from selftaught.engine import run as runs
from selftaught.engine.corpus import Blank
from selftaught.engine.pretrain import pretrain
from selftaught.engine.run import Run
from selftaught.errors import TrainingError
from selftaught.feed.views import ViewDataset, collate
from selftaught.method import Batch, Method, terms_of
from tests.cases import CASES, fitting
from tests.test_before import before

RUN = {"epochs": 2, "batch": 8, "workers": 0, "precision": "fp32", "evaluate": False}


def photos(count: int = 24, side: int = 40, channels: int = 3) -> np.ndarray:
    shape = (count, side, side, channels)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def make(name: str, samples: int = 24):
    torch.manual_seed(0)
    method = CASES[name].make(name, samples)
    method.on_start(Blank(samples))
    return method


def batch_of(method, count: int = 8) -> Batch:
    channels = 3 + (method.needs.beside == "masks")
    data = open_data(photos(count, channels=channels), channels=channels)
    views = ViewDataset(data, method.views(method.encoder.size), 0)
    item = collate([views[0, i] for i in range(count)])
    images = normalize(item.views, method.encoder.mean, method.encoder.std)
    return Batch(images, item.index, item.index % 3)


def total(loss) -> torch.Tensor:
    return sum(loss.values()) if isinstance(loss, dict) else loss


# figures -----------------------------------------------------------------------------------------


@given(st.integers(1, 8), st.floats(1e-3, 1e3), st.integers(0, 99))
def test_rank_counts_equal_directions(count, scale, seed):
    torch.manual_seed(seed)
    basis = torch.linalg.qr(torch.randn(16, 16))[0][:count]
    assert measures.rank(scale * basis) == pytest.approx(count, rel=1e-6)
    assert measures.rank(scale * basis.mT) == pytest.approx(count, rel=1e-6)


def test_rank_is_that_of_the_singular_values():
    x = torch.randn(30, 12, generator=torch.Generator().manual_seed(0))
    share = torch.linalg.svdvals(x.double())
    share = share / share.sum()
    assert measures.rank(x) == pytest.approx(math.exp(-(share * share.log()).sum()), rel=1e-9)
    assert measures.rank(torch.zeros(4, 3)) == 0


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0])
def test_slope_of_a_known_spectrum(power):
    generator = torch.Generator().manual_seed(0)
    u = torch.linalg.qr(torch.randn(200, 40, generator=generator).double())[0]
    u = torch.linalg.qr(u - u.mean(0))[0]  # columns without mean
    values = torch.arange(1, 41).double() ** (-power / 2)
    assert measures.slope(u * values) == pytest.approx(power, abs=1e-6)


@pytest.mark.parametrize(("n", "q", "width"), [(12, 3, 4), (6, 2, 9), (30, 5, 7)])
def test_lidar_is_the_papers_formula(n, q, width):
    """Eigenvalues of W^-1/2 B W^-1/2 with its matrices added up image by image, in float64."""
    x = torch.randn(n, q, width, dtype=torch.float64) * torch.arange(1.0, width + 1).double()
    x = x + 3 * torch.randn(n, 1, width, dtype=torch.float64)
    means = [sum(x[i, j] for j in range(q)) / q for i in range(n)]
    mean = sum(means) / n
    b = sum(torch.outer(m - mean, m - mean) for m in means) / (n - 1)
    w = sum(torch.outer(x[i, j] - means[i], x[i, j] - means[i]) for i in range(n) for j in range(q))
    values, vectors = torch.linalg.eigh(w / (n * (q - 1)) + 1e-4 * torch.eye(width))
    root = vectors @ torch.diag(values**-0.5) @ vectors.mT
    share = torch.linalg.eigvalsh(root @ b @ root).clamp(min=0)
    share = share / share.sum()
    wanted = math.exp(-(share * share.clamp(min=1e-300).log()).sum())
    assert measures.lidar(x.float()) == pytest.approx(wanted, rel=1e-5)
    assert 1 <= wanted <= min(n - 1, width)


def test_lidar_of_views_that_hide_which_image_they_are_of():
    assert measures.lidar(torch.zeros(4, 2, 3)) == 0
    basis = torch.eye(8).repeat_interleave(2, 0).view(8, 2, 8)  # images in 8 directions, no noise
    assert measures.lidar(basis) == pytest.approx(7, rel=1e-6)
    one = torch.randn(8, 1, 1) * torch.eye(8)[0] + 1e-3 * torch.randn(8, 2, 8)
    assert measures.lidar(one, delta=0.0) < measures.lidar(basis)


def test_spread_and_uniformity_from_one_point_to_the_sphere():
    same = torch.ones(50, 8)
    sphere = torch.randn(500, 64, generator=torch.Generator().manual_seed(0))
    assert measures.spread(same) == pytest.approx(0, abs=1e-6)
    assert measures.uniformity(same) == pytest.approx(0, abs=1e-6)
    assert measures.spread(sphere) > 0.99
    assert measures.uniformity(sphere) == pytest.approx(-4 + 8 / 64, abs=0.02)  # to first order


def test_alignment_is_the_squared_distance_of_directions():
    a, b = torch.eye(4), torch.eye(4).roll(1, 0)
    assert measures.alignment(a, 3 * a) == pytest.approx(0)
    assert measures.alignment(a, b) == pytest.approx(2)
    assert measures.alignment(a, -a) == pytest.approx(4)


def test_distributions():
    uniform, one = torch.full((6, 5), 0.2), torch.eye(5)[[2] * 6]
    assert measures.entropy(uniform) == pytest.approx(1)
    assert measures.entropy(one) == 0
    assert measures.largest(one) == 1
    assert measures.largest(torch.eye(5)) == pytest.approx(0.2)


def test_pairs_that_belong_together_and_pairs_that_do_not():
    a = torch.randn(40, 32, generator=torch.Generator().manual_seed(0))
    b = torch.randn(40, 32, generator=torch.Generator().manual_seed(1))
    assert measures.related(a, a) == 1
    assert measures.matched(a, a) == 1
    assert measures.related(a, a.roll(1, 0)) < 0.7
    assert measures.related(a, b) == pytest.approx(0.5, abs=0.1)
    assert measures.related(torch.ones(4, 3), torch.ones(4, 3)) == pytest.approx(0.5)


@pytest.mark.parametrize("count", [32, 128])
def test_how_far_chance_brings_unrelated_pairs(count):
    torch.manual_seed(0)
    found = [measures.related(*torch.randn(2, count, 64)) for _ in range(100)]
    assert np.std(found) == pytest.approx(measures.related_error(count), rel=0.25)


def test_pull_has_the_sign_of_the_loss():
    x = torch.randn(20, 8, generator=torch.Generator().manual_seed(0)).requires_grad_()
    goal = torch.randn(20, 8, generator=torch.Generator().manual_seed(1))
    (towards,) = torch.autograd.grad(-F.cosine_similarity(x, goal).sum(), x)
    assert measures.pulled(towards, goal) > 0.95
    assert measures.pulled(-towards, goal) < 0.05
    assert math.isnan(measures.pulled(0 * towards, goal))


def test_last_improvement():
    falling = [1 - i / 1000 for i in range(1000)]
    assert measures.last_improvement(falling) == 1
    assert measures.last_improvement(falling[:500] + [0.5] * 500) == pytest.approx(0.55, abs=0.06)
    assert measures.last_improvement([1.0]) == 1


# what methods tell -------------------------------------------------------------------------------


def silence(layer: nn.Module, value: float = 0.0) -> None:
    for parameter in layer.parameters():
        nn.init.constant_(parameter, value)


def same_everywhere(method) -> None:
    """All embeddings, and all that is remembered of them, are one vector."""
    for net in (method.projector, method.target[1]):
        silence(net[-1])
        net[-1].bias.data.fill_(1.0)
    method.negatives.items.fill_(len(method.negatives.items[0]) ** -0.5)


def dense_too(method) -> None:
    same_everywhere(method)
    for net in (method.dense_projector, method.target[2]):
        silence(net[-1])
        net[-1].bias.data.fill_(1.0)
    method.dense_negatives.items.copy_(method.negatives.items)


def flat_heads(method) -> None:
    for head in (method.head, method.teacher_head):
        silence(head[-1], 1.0)


GUESS = {
    "simclr": lambda m: silence(m.projector[-1]),
    "moco_v2": same_everywhere,
    "densecl": dense_too,
    "simsiam": lambda m: silence(m.predictor[-1]),
    "dino": flat_heads,
    "swav": lambda m: silence(m.scores),
    "deepcluster": lambda m: silence(m.classifier),
    "rotation": lambda m: silence(m.classifier),
    "jigsaw": lambda m: silence(m.classifier[-1]),
    "mae": lambda m: silence(m.decoder_pred),
    "barlow_twins": lambda m: silence(m.projector[-1]),
}


@pytest.mark.parametrize("name", GUESS)
def test_a_method_that_guesses_has_the_loss_that_it_names(name):
    method = make(name, 8).train()
    GUESS[name](method)
    (guess, *_) = [t for t in method.reference_losses(8) if not t.collapsed]
    assert total(method.loss(batch_of(method))).item() == pytest.approx(guess.value, rel=2e-3)


def test_a_collapse_has_the_loss_that_is_named():
    vicreg = make("vicreg").train()
    silence(vicreg.projector[-1])
    (known,) = vicreg.reference_losses(8)
    terms = vicreg.loss(batch_of(vicreg))
    assert terms[known.term].item() == pytest.approx(known.value, rel=1e-6)
    simsiam = make("simsiam").train()
    for net in (simsiam.predictor[-1], simsiam.projector[-2]):
        silence(net)
        net.bias.data.fill_(1.0)
    simsiam.projector[-1] = nn.Identity()
    known = next(t for t in simsiam.reference_losses(8) if t.collapsed)
    assert simsiam.loss(batch_of(simsiam)).item() == pytest.approx(known.value, rel=1e-6)


@pytest.mark.parametrize("name", CASES)
def test_the_anatomy_names_what_is_there(name):
    method = make(name)
    insight = method.insight
    parts = [insight.embedding, insight.predictor, insight.logits]
    for part in filter(None, [*parts, *(n for pair in insight.copies for n in pair)]):
        assert isinstance(method.get_submodule(part), nn.Module)
    for buffer in insight.memory:
        assert isinstance(method.get_buffer(buffer), torch.Tensor)
    for target, online in insight.copies:
        assert not any(p.requires_grad for p in method.get_submodule(target).parameters())
        assert any(p.requires_grad for p in method.get_submodule(online).parameters())
    for trivial in method.reference_losses(8):
        assert math.isfinite(trivial.value)
        assert trivial.formula


def test_terms_that_may_rest_are_those_of_the_loss():
    seen = 0
    for name in CASES:
        if idle := methods.find(name).insight.idle:
            method, seen = make(name).train(), seen + 1
            assert set(idle) < set(terms_of(method.loss(batch_of(method))))
    assert seen > 2


# listening ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CASES)
def test_listening_changes_nothing(name):
    gradients = []
    for heard in (False, True):
        method = make(name).train()
        batch = batch_of(method)
        torch.manual_seed(1)
        hooks = attach(method) if heard else None
        intake = listen(method, batch.views) if heard else None
        total(method.loss(batch)).backward()
        if hooks and intake:
            hooks.close()
            intake.close()
            facts = intake.facts(100)  # and hears nothing that is wrong
            assert not [
                facts[k] for k in ("shifted", "swapped", "rescaled", "twice") if facts.get(k)
            ]
            assert facts.get("left", 0) < 0.01
        gradients.append([p.grad for p in method.parameters() if p.grad is not None])
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in method.modules())
    assert all(a.equal(b) for a, b in zip(*gradients, strict=True))


@pytest.mark.parametrize("name", ["simclr", "moco_v2", "densecl", "byol", "simsiam"])
def test_embeddings_are_pulled_to_their_goals(name):
    method = make(name).train()
    hooks = attach(method)
    total(method.loss(batch_of(method))).backward()
    pairs = hooks.pairs()
    assert pairs
    assert all(measures.pulled(p.gradient, p.goal) > 0.6 for p in pairs)


@pytest.mark.parametrize("stopped", [True, False])
def test_a_gradient_past_the_predictor_is_seen(stopped):
    method = make("simsiam").train()

    def loss(self, batch):
        z1, z2 = (self.projector(self.backbone(x)) for x in batch.views)
        goal = z2.detach() if stopped else z2
        return -F.cosine_similarity(self.predictor(z1), goal).mean() - 0 * z2.sum()

    method.loss = MethodType(loss, method)
    hooks = attach(method)
    method.loss(batch_of(method)).backward()
    assert hooks.total[0].equal(hooks.through[0])  # the first view is no goal
    assert hooks.total[1].any() != stopped


# what a network receives -------------------------------------------------------------------------


class Told(Method):
    """A method of one's own, which tells nothing."""

    def __init__(self, backbone):
        super().__init__()
        self.backbone = backbone

    def views(self, size):
        return CASES["simsiam"].make("simsiam").views(size)

    def loss(self, batch):
        a, b = (self.backbone(x) for x in batch.views)
        return (a - b).square().mean()


@pytest.fixture(scope="module")
def received():
    """(name or None, change of views) -> what `listen` found in a step that was changed so."""
    made = {}

    def step(name, change, prepare=lambda method: None):
        if name not in made:
            made[name] = make(name) if name else Told(CASES["simsiam"].make("simsiam").backbone)
            made[name] = made[name], batch_of(made[name])
        method, batch = copy.deepcopy(made[name][0]).train(), made[name][1]
        prepare(method)
        intake = listen(method, batch.views)
        method.loss(batch._replace(views=change(batch.views)))
        intake.close()
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in method.modules())
        return intake.facts(100)

    return step


def rolled(views):
    return [views[0], views[1].roll(1, 0), *views[2:]]


@pytest.mark.parametrize("name", ["simclr", "vicreg", "barlow_twins", "moco_v2", "swav", None])
def test_views_that_are_paired_wrongly_after_they_were_handed_over(received, name):
    assert received(name, lambda views: views)["shifted"] == 0
    assert received(name, rolled)["shifted"] == 1
    half = received(name, lambda v: [v[0], torch.cat([v[1][:4], v[1][4:].flip(0)]), *v[2:]])
    assert half["shifted"] == 0.5


def test_views_that_change_places_together_are_no_wrong_pairs(received):
    assert received("vicreg", lambda views: views[::-1])["shifted"] == 0
    assert received("simclr", lambda views: [x.flip(0) for x in views])["shifted"] == 0


@pytest.mark.parametrize("name", ["simclr", "vicreg", "moco_v2", None])
def test_images_that_are_in_a_batch_twice(received, name):
    def repeated(views):
        return [torch.cat([x[: len(x) // 2]] * 2) for x in views]

    assert received(name, lambda views: views)["twice"] == 0
    assert received(name, repeated)["twice"] == 0.5
    one = received(name, lambda v: [torch.cat([x[:1], x[:-1]]) for x in v])["twice"]
    assert one == pytest.approx(1 / 8)
    # one color looks alike everywhere, and the same view again is another matter
    assert received(name, lambda v: [torch.zeros_like(x) for x in v])["twice"] == 0
    assert received(name, lambda v: [v[0], v[0], *v[2:]])["twice"] == 0


@pytest.mark.parametrize("color", [(1.0, 1.0, 1.0), (0.0, 0.0, 0.0), (1.0, 0.0, 1.0)])
@pytest.mark.parametrize("again", [0, 8])
def test_saturated_images_are_not_there_twice(color, again):
    """Views of cells before a white ground: all pixels that are taken of some are white."""
    torch.manual_seed(0)
    x = torch.rand(32, 3, 32, 32)
    x[:12] = torch.tensor(color)[:, None, None]
    x[:12, :, 0, 0] = torch.rand(12, 3)
    x = torch.cat([x[:12], x[12 : 32 - again], x[12 : 12 + again]])
    intake = Intake([x, x], received=[x])
    assert intake.facts(100)["twice"] == again / 32


@pytest.mark.parametrize("own", [True, False])
def test_labels_that_the_loss_uses_are_those_of_the_images(own, tmp_path):
    shift = 0 if own else 5
    found = looked_at("finetune", tmp_path, lambda b: b._replace(label=b.label.roll(shift)))
    assert (found.classmates > 0.55) == own


@pytest.mark.parametrize("name", ["instdisc", "pirl", "deepcluster_v2"])
@pytest.mark.parametrize("own", [True, False])
def test_rows_of_a_memory_are_those_of_the_images(name, own, tmp_path):
    shift = 0 if own else 5
    found = looked_at(name, tmp_path, lambda b: b._replace(index=b.index.roll(shift)))
    assert (found.remembered > 0.6) == own


def looked_at(name, folder, change, labels=True):
    """What the doctor sees in a step whose loss is not handed what it heard of."""
    torch.manual_seed(0)
    method = CASES[name].make(name, 64).train()
    label = torch.randperm(24) % 3 if labels else None
    batch = batch_of(method, count=24)._replace(label=label)
    doctor = Doctor(method, folder / "d.json", steps=8, batch=24)
    doctor.before_forward(batch)
    loss = method.loss(change(batch))
    total(loss).backward()
    doctor.after_backward()
    doctor.before_step()
    doctor.after_step(terms_of(loss), 0.1)
    return doctor.course[0]


def test_an_image_and_what_became_of_it_are_no_two_views(tmp_path):
    found = looked_at("denoising", tmp_path, lambda b: b, labels=False)
    assert found.pixels != found.pixels, "nothing is said of how alike they are"
    assert looked_at("simclr", tmp_path, lambda b: b).pixels >= 0


def test_a_loss_of_the_wrong_sign():
    rule = next(r for r in DURING if r.name == "wrong sign")
    assert rule.broken(Exam(9, 0.1, -2.0, least=-0.5))
    assert not rule.broken(Exam(9, 0.1, 0.01, least=0.002))


def test_channels_and_scales_that_the_network_is_handed(received):
    same = received("vicreg", lambda views: views)
    assert "swapped" not in same
    assert "rescaled" not in same
    assert received("vicreg", lambda v: [x.flip(1) for x in v])["swapped"] == 2
    twice = received("vicreg", lambda v: [(x - 0.45) / 0.225 for x in v])
    assert twice["swapped"] == 0
    assert twice["rescaled"] == pytest.approx(-math.log10(0.225), rel=1e-4)
    assert received(None, lambda v: [0.2 * x for x in v])["rescaled"] == pytest.approx(
        -math.log10(0.2), rel=1e-4
    )


def test_norms_in_half_precision_are_followed(received):
    kept = received("vicreg", lambda views: views)["left"]
    half = received("vicreg", lambda v: [x.bfloat16() for x in v], lambda m: m.to(torch.bfloat16))[
        "left"
    ]
    assert half == pytest.approx(kept, abs=0.01)


def test_pixels_that_no_image_has():
    images = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    mean, std = (0.5, 0.4, 0.5), (0.25, 0.2, 0.2)
    center, scale = (torch.tensor(v).view(3, 1, 1) for v in (mean, std))
    once = (images - center) / scale
    assert outside(once, mean, std) == 0
    assert outside((once - center) / scale, mean, std) > 0.5
    assert outside(255 * images, mean, std) > 0.5
    assert outside(images, mean, std) == 1  # never normalized
    assert outside(images, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)) == 0  # nor meant to be
    dull = 0.3 + 0.1 * images
    assert outside((dull - center) / scale, mean, std) == 0


@pytest.mark.parametrize(
    ("momentum", "left"),
    [(0.1, 0.9**200), (0.0, 1.0), (0.001, 0.999**200), (None, None)],  # two views, two calls
)
def test_norm_statistics_that_do_not_follow(received, momentum, left):
    def prepare(method):
        for module in method.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = momentum

    found = received("vicreg", lambda views: views, prepare).get("left")
    assert found == (left if left is None else pytest.approx(left, rel=0.01, abs=1e-6))


def test_features_in_training_and_in_evaluation():
    x = torch.randn(20, 8, generator=torch.Generator().manual_seed(0))
    assert gap(x, x) == 0
    assert gap(x, x + 3 * (x - x.mean(0))) == pytest.approx(3, rel=1e-6)
    assert math.isnan(gap(torch.ones(4, 3), torch.ones(4, 3)))


def test_boxes_and_cells_of_an_image_are_not_those_of_others():
    for name in ("pixpro", "pixcontrast"):
        assert attach(make(name)).pairs() == []
    assert not make("pixpro").insight.predictor
    method, intake = make("scrl"), None
    batch = batch_of(method)
    intake = listen(method, batch.views)
    rows = torch.arange(2 * 8 * 3)[:, None]
    assert intake.each(rows, 2).flatten().tolist() == list(range(0, 48, 3))
    intake.close()


def test_settings_far_from_their_defaults_are_told_by_what_they_are_for():
    assert unusual(make("simclr")) == {}
    sharp = CASES["simclr"].make("simclr")
    sharp.temperature = 0.001
    assert unusual(sharp) == {"sharp": "temperature is 0.001, by default 0.1"}
    heavy = CASES["vicreg"].make("vicreg")
    heavy.covariance = 1000.0
    assert unusual(heavy) == {"weight": "covariance is 1000, by default 1"}


# rules -------------------------------------------------------------------------------------------


def named(name: str, **seen) -> list[str]:
    """What DURING's rule of that name gives as causes, the first first."""
    rule = next(r for r in DURING if r.name == name)
    return list(rule.finding(Exam(5, 0.1, 9.0, **seen)).causes)


def test_a_cause_is_tested_before_it_is_named():
    rule: Rule[Exam] = Rule(
        "r", lambda e: e.spread, 0.5, "s",
        ("untested", Cause("no: {facts.spread}", lambda e: e.spread > 1),
         Cause("yes: {facts.spread}", lambda e: e.spread < 1)), "b", below=True,
    )  # fmt: skip
    assert rule.finding(Exam(1, 0.0, 0.0, spread=0.2)).causes == ("yes: 0.2", "untested")


def test_worse_than_guessing_for_its_own_reason():
    name = "worse than guessing"
    assert "temperature is 1e-3" in named(name, chance=9.0, sharp="temperature is 1e-3")[0]
    assert "different images" in named(name, chance=9.0, shifted=1.0, began=2.0)[0]
    assert "not normalized" in named(name, chance=9.0, began=9.0, longest=0.01)[0]
    assert not any("rate" in c for c in named(name, chance=9.0, began=9.0, longest=0.01))
    assert "learning rate" in named(name, chance=9.0, began=1.0, longest=0.4)[0]
    assert "variance" in named(name, chance=9.0, began=1.0, heavy="variance")[0]


def test_a_loss_that_began_high_and_falls_is_no_alarm():
    high = next(r for r in DURING if r.name == "worse than guessing")
    assert high.broken(Exam(9, 0.1, 1.0, chance=4.0, began=8.0)) is None
    assert high.broken(Exam(9, 0.4, 1.0, chance=7.9, began=8.0))
    assert high.broken(Exam(9, 0.1, 1.0, chance=4.0, began=1.0))
    assert high.broken(Exam(9, 0.1, 1.0, chance=4.0))


def test_a_loss_that_began_high_has_the_time_of_a_warm_up():
    """Course of a fresh network whose loss is four times that of guessing, and rises at first."""
    high = next(r for r in DURING if r.name == "worse than guessing")
    for course in ((4.2, 5.1, 5.6, 2.0), (2.8, 3.4, 3.6, 3.3), (30.0, 31.0, 33.0, 9.0)):
        watch = Watch((high,))
        for i, chance in enumerate(course):
            watch.look(Exam(i, i / 30, 1.0, chance=chance, began=course[0]))
        assert not watch.said
    assert high.broken(Exam(9, 0.1, 1.0, chance=30.0, began=4.0))  # no nature: it was driven there


def test_a_gradient_that_a_hook_removes_is_not_blamed_on_frozen_weights():
    assert "frozen" in named("no gradient", gradient=0.0, frozen=True)[0]
    assert not any("frozen" in cause for cause in named("no gradient", gradient=0.0))


def test_pairs_that_are_known_to_be_right_are_not_blamed():
    pairs = next(r for r in DURING if r.name == "pairs unrelated")
    assert pairs.broken(Exam(9, 0.1, 1.0, agreeing=0.5))
    assert pairs.broken(Exam(9, 0.1, 1.0, agreeing=0.5, related=0.5, shifted=0.0))
    assert pairs.broken(Exam(9, 0.1, 1.0, agreeing=0.5, related=0.57, shifted=0.0)) is None


@pytest.mark.parametrize(
    ("unmoved", "stride", "broken"),
    [
        (0.52, 2e-8, None),
        (0.64, 0.0, True),
        (0.99, 1e-4, True),
        (0.3, 0.0, False),
        (0.52, math.nan, True),
    ],
)
def test_weights_of_which_half_move_come_forward(unmoved, stride, broken):
    rule = next(r for r in DURING if r.name == "weights do not move")
    assert rule.broken(Exam(9, 0.1, 1.0, unmoved=unmoved, stride=stride)) is broken


def test_pairs_that_are_not_told_are_pushed_apart_where_that_is_plain():
    rule = next(r for r in DURING if r.name == "pushed apart")
    assert rule.broken(Exam(9, 0.1, 1.0, pulled=0.5))
    assert rule.broken(Exam(9, 0.1, 1.0, pulled=0.5, told=False)) is None  # canonical correlation
    assert rule.broken(Exam(9, 0.1, 1.0, pulled=0.05, told=False))
    assert not rule.broken(Exam(9, 0.1, 1.0, pulled=0.9))
    # boxes of a fresh network: few of them are near chance whatever they are pulled to
    assert not rule.broken(Exam(9, 0.1, 1.0, pulled=0.52, pull_doubt=0.06))
    assert rule.broken(Exam(9, 0.1, 1.0, pulled=0.1, pull_doubt=0.1))


def test_what_passes_in_a_fresh_network_is_no_collapse():
    """Courses of healthy runs: teachers before their center has come, and images of one texture."""
    teacher = [0.53, 0.8, 0.98, 1.0, 1.0, 0.98, 0.7, 0.4, 0.3]
    spread = [0.21, 0.23, 0.15, 0.05, 0.018, 0.014, 0.013, 0.014, 0.03]
    floor = [0.9, 0.3, 0.02, 0.004, 0.0025, 0.0028, 0.004, 0.006, 0.02]
    flat = [0.8, 0.94, 0.975, 0.988, 0.9982, 0.9985, 0.9984, 0.997, 0.99]
    watch = Watch(DURING)
    for i in range(9):
        seen = {"largest": teacher[i], "embedding_spread": spread[i], "entropy": flat[i]}
        seen |= {"floor": floor[i]}
        watch.look(Exam(20 + i, 0.1, 1.0, longest=0.01, **seen))
    assert not watch.said
    for seen in (
        {"largest": 1.0},
        {"embedding_spread": 1e-3, "longest": 0.01},
        {"entropy": 0.9999},
    ):
        watch = Watch(DURING)
        for i in range(6):
            watch.look(Exam(20 + i, 0.1, 1.0, **seen))
        assert watch.said


def test_views_that_embeddings_know_are_related_whatever_their_pixels_say():
    views = next(r for r in DURING if r.name == "views unrelated")
    assert views.broken(Exam(9, 0.1, 1.0, related=0.52))
    assert views.broken(Exam(9, 0.1, 1.0, related=0.52, agreeing=0.5))
    assert views.broken(Exam(9, 0.1, 1.0, related=0.52, agreeing=0.7)) is None


@pytest.mark.parametrize(
    ("truth", "pairs", "looks", "least", "most"),
    [
        (0.57, 32, 20, 0, 4),
        (0.57, 128, 50, 0, 4),
        (0.5, 128, 10, 180, 200),
        (0.5, 32, 50, 170, 200),
    ],
)
def test_few_pairs_are_not_called_unrelated_by_chance(truth, pairs, looks, least, most):
    """Views of one texture are at 0.57, those of different images at 0.5: of 200 trainings."""
    rule = next(r for r in DURING if r.name == "views unrelated")
    rng, spoke = np.random.default_rng(0), 0
    for _ in range(200):
        seen = rng.normal(truth, measures.related_error(pairs), looks)
        means, watch = seen.cumsum() / np.arange(1, looks + 1), Watch((rule,))
        for i, mean in enumerate(means, 1):
            doubt = 2 * measures.related_error(i * pairs)
            watch.look(Exam(i, i / looks, 1.0, related=float(mean), doubt=doubt))
        spoke += len(watch.said)
    assert least <= spoke <= most


@pytest.mark.parametrize(("name", "figure"), [("labels", "classmates"), ("memory", "remembered")])
def test_two_looks_do_not_tell_whose_labels_they_are(name, figure):
    """A fresh network's gradients tell classes hardly apart; by the third look they begin to."""
    rule = next(r for r in DURING if r.name == f"{name} of others")
    for seen, said in (((0.52, 0.54, 0.63), False), ((0.52, 0.49, 0.51), True)):
        watch = Watch((rule,))
        for i, value in enumerate(seen):
            watch.look(Exam(i, i / 30, 1.0, **{figure: value}))
        assert bool(watch.said) == said


def test_exactly_guessing_needs_weights_that_moved():
    exact = next(r for r in DURING if r.name == "exactly guessing")
    assert exact.broken(Exam(5, 0.1, 1.0, near=1e-4, longest=0.01))
    assert not exact.broken(Exam(5, 0.1, 1.0, near=0.02, longest=0.01))
    assert exact.broken(Exam(5, 0.1, 1.0, near=1e-4, longest=0.0)) is None


def test_a_loss_that_passes_guessing_is_not_exactly_guessing():
    """The mean over thousands of patches or pixels has hardly any noise: by its course a fresh head
    begins near guessing, and falls."""
    exact = next(r for r in DURING if r.name == "exactly guessing")
    for course in ((4e-3, 1e-3, 4e-4, 2e-4, 2e-4, 5e-4, 2e-3), (1e-4, 2e-4, 6e-4, 2e-3)):
        watch = Watch((exact,))
        for i, near in enumerate(course):
            watch.look(Exam(5 + i, 0.1, 1.0, near=near, longest=0.001))
        assert not watch.said


def test_names_are_unique_and_every_rule_can_be_said():
    every = (*REFUSED, *BEFORE, *DURING, *BESIDE)
    assert len({r.name for r in every}) == len(every)
    values = {"momentum": [0.99], "prototypes": [10], "hidden share": [0.1], "temperature": [1.0]}
    facts = before(values=values, copy=True, shares=(0.9, 0.1))
    exam = Exam(5, 0.1, 1.0, silent=("variance",), still=("center",))
    beside = Beside(5, 0.1, 40.0, 60.0, 500, 11.0, 20.0, 90.0)
    for rules, known in ((REFUSED, facts), (BEFORE, facts), (DURING, exam), (BESIDE, beside)):
        for rule in rules:
            sentence = rule.finding(known).sentence()
            assert "{" not in sentence
            assert "What to do: " in sentence


@pytest.mark.parametrize(
    ("facts", "names"),
    [
        ({"now": 40.0, "start": 60.0, "images": 500, "lost": 11.0}, ["worse than where it began"]),
        ({"now": 59.0, "start": 60.0, "images": 500, "lost": 0.0}, []),  # noise
        ({"now": 70.0, "start": 60.0, "images": 500, "lost": -5.0}, []),
        ({"dimensions": 20.0, "began": 90.0}, ["perhaps worse than where it began"]),
        ({"dimensions": 60.0, "began": 90.0}, []),
        ({"dimensions": 60.0, "began": 0.0}, []),
        ({}, []),
    ],
)
def test_beside_where_it_began(facts, names):
    assert [f.name for f in Watch(BESIDE).look(Beside(5, 0.1, **facts))] == names


RULE: Rule[Exam] = Rule(
    "low", lambda e: e.spread, 0.5, "it is {figure}", ("a",), "b", below=True, patience=2, until=0.5
)


def looks(*spreads: float, step: int = 0) -> list[list[str]]:
    watch = Watch((RULE,))
    exams = [Exam(i, i / 10, 0.0, spread=s) for i, s in enumerate(spreads, step)]
    return [[f.name for f in watch.look(e)] for e in exams]


def test_a_rule_is_patient_speaks_once_and_minds_what_was_not_looked_at():
    assert looks(0.1, 0.1, 0.1) == [[], ["low"], []]
    assert looks(0.1, 0.9, 0.1) == [[], [], []]
    assert looks(0.1, math.nan, 0.1) == [[], [], ["low"]]
    assert looks(0.1, 0.1, step=7) == [[], []]  # too late for something new


def test_what_has_passed_is_not_standing():
    watch = Watch((RULE,))
    for i, spread in enumerate((0.1, 0.1)):
        watch.look(Exam(i, 0.0, 0.0, spread=spread))
    assert watch.standing() == {"low"}
    watch.look(Exam(3, 0.9, 0.0, spread=0.9))
    assert watch.standing() == set()


def test_embeddings_of_weights_that_hardly_moved_are_no_collapse():
    rule = next(r for r in DURING if r.name == "collapse")
    assert rule.broken(Exam(100, 0.5, 1.0, embedding_spread=0.01, longest=1e-3))
    assert rule.broken(Exam(100, 0.5, 1.0, embedding_spread=0.01, longest=6e-6)) is None


def test_the_page_lists_every_rule():
    page = (Path(__file__).parent.parent / "docs" / "doctor.md").read_text("utf-8")
    rows = re.findall(
        r"^\| (.+) \| (note|warning|failure) \| at (least|most) (\S+) \|$", page, re.M
    )
    known = [
        (r.name, r.severity, "least" if r.below else "most", f"{r.limit:g}")
        for r in (*BEFORE, *DURING, *BESIDE)
    ]
    assert rows == known


# runs --------------------------------------------------------------------------------------------


def diagnosis(out: Path) -> dict:
    return json.loads((out / "diagnosis.json").read_text())


def weights(run: Run) -> list[torch.Tensor]:
    return list(run.method.state_dict().values())


@pytest.mark.parametrize("name", CASES)
def test_a_run_is_the_same_with_and_without_the_doctor(name, tmp_path, monkeypatch, caplog):
    data = fitting(name, photos(), tmp_path)
    seen = pretrain(make(name), data, tmp_path / "seen", **RUN)
    found = diagnosis(tmp_path / "seen")
    assert len(found["course"]) >= 2
    assert "cannot look" not in caplog.text
    monkeypatch.setattr(Doctor, "before_forward", lambda self, batch: None)
    # its weights are compared: one export and one report of a method are enough
    monkeypatch.setattr(Run, "finish", lambda self, loop: loop.doctor.save(loop.doctor.conclude()))
    alone = pretrain(make(name), data, tmp_path / "alone", **RUN)
    assert diagnosis(tmp_path / "alone")["course"] == []
    assert all(a.equal(b) for a, b in zip(weights(seen), weights(alone), strict=True))


def test_a_failed_run_exports_nothing_unless_forced(tmp_path, caplog):
    out, white = tmp_path / "run", np.full((24, 40, 40, 3), 255, np.uint8)
    with (
        caplog.at_level(logging.WARNING, "selftaught"),
        pytest.raises(TrainingError, match=r"100% of the images .* --resume --force"),
    ):
        pretrain(make("simclr"), white, out, **RUN)
    assert caplog.text.count("images looked at have a single color") == 1
    assert "What to do: look at the images" in caplog.text
    assert diagnosis(out)["verdict"] == "failed"
    assert not list(out.glob("encoder*"))
    assert "Failed: 100% of the images" in (out / "report.html").read_text("utf-8")
    pretrain(make("simclr"), white, out, resume=True, force=True, **RUN)
    assert list(out.glob("encoder*"))
    assert diagnosis(out)["verdict"] == "failed"


def test_a_loss_that_is_not_finite_is_in_the_diagnosis(tmp_path):
    method = make("simclr")
    method.projector[0].weight.data.fill_(math.inf)
    with pytest.raises(TrainingError, match="not finite"):
        pretrain(method, photos(), tmp_path / "run", **RUN)
    found = diagnosis(tmp_path / "run")
    assert found["verdict"] == "failed"
    assert "projector.0.weight" in found["findings"][-1]["says"]
    assert found["findings"][-1]["figure"] is None


def test_a_resumed_run_goes_on_with_its_diagnosis(tmp_path):
    out, method = tmp_path / "run", make("byol")
    method.predictor = nn.Identity()
    pretrain(method, photos(), out, **RUN)
    first = diagnosis(out)
    assert [f["name"] for f in first["findings"] if f["step"]] == ["no predictor"]
    method = make("byol")
    method.predictor = nn.Identity()
    pretrain(method, photos(), out, resume=True, **RUN | {"epochs": 3})
    second = diagnosis(out)
    assert [e["step"] for e in second["course"]][: len(first["course"])] == [
        e["step"] for e in first["course"]
    ]
    assert second["course"][-1]["step"] == 9
    assert [f["name"] for f in second["findings"] if f["step"]] == ["no predictor"]
    assert len(second["losses"]) == 9


def test_a_damaged_diagnosis_starts_anew(tmp_path, caplog):
    (tmp_path / "d.json").write_text("{")
    doctor = Doctor(make("simclr"), tmp_path / "d.json", 10, 8, done=5)
    assert doctor.course == []
    assert "cannot be used" in caplog.text


def test_a_doctor_that_errs_ends_nothing(tmp_path, monkeypatch, caplog):
    def fail(*_):
        raise RuntimeError("unexpected")

    monkeypatch.setattr(measures, "spread", fail)
    pretrain(make("simclr"), photos(), tmp_path / "run", **RUN)
    assert caplog.text.count("cannot look") == 1
    assert diagnosis(tmp_path / "run")["course"] == []


def test_the_same_seed_gives_the_same_diagnosis_on_a_slower_machine(tmp_path, monkeypatch):
    def run(name: str) -> str:
        pretrain(make("simclr"), photos(), tmp_path / name, **RUN | {"epochs": 20})
        return json.dumps(diagnosis(tmp_path / name) | {"seconds": 0, "share": 0})

    first = run("fast")
    clock = iter(range(0, 10**9, 100))
    for module in (doctors, runs):
        slow = SimpleNamespace(**vars(module.time) | {"perf_counter": lambda: float(next(clock))})
        monkeypatch.setattr(module, "time", slow)
    assert run("slow") == first
    assert json.loads((tmp_path / "slow" / "diagnosis.json").read_text())["seconds"] > 1000


@pytest.mark.parametrize(
    ("steps", "looks"), [(1, 1), (6, 6), (50, 26), (120, 21), (300, 31), (5000, 51)]
)
def test_looks_are_spread_evenly_over_the_steps(steps, looks, tmp_path, monkeypatch):
    doctor = Doctor(make("simclr"), tmp_path / "d.json", steps=steps, batch=8)
    seen = []
    monkeypatch.setattr(doctors, "attach", lambda _: seen.append(doctor.done))
    for step in range(steps):
        doctor.done = step
        doctor.before_forward(Batch([], torch.arange(0)))
    assert len(seen) == looks
    assert (seen[0], seen[-1]) == (0, steps - 1)
    gaps = {b - a for a, b in itertools.pairwise(seen[1:-1])}
    assert len(gaps) <= 1
    assert steps < 100 or steps // 10 - 1 in seen  # in time


def test_the_verdict_follows_from_what_stands(tmp_path):
    def verdict(severity: str, step: int, stands: bool) -> str:
        doctor = Doctor(copy.deepcopy(method), tmp_path / "d.json", 100, 8)
        doctor.done = 100
        doctor.findings = [Finding("x", severity, step, 0.0, "says", 1.0, 2.0, ("a",), "b")]
        if stands:
            doctor.watch.said, doctor.watch.streaks = {"x"}, {"x": 3}
        return doctor.conclude().verdict

    method = make("simclr")
    assert verdict("failure", 5, True) == "failed"
    assert verdict("failure", 0, False) == "failed"
    assert verdict("warning", 5, True) == "doubtful"
    assert verdict("failure", 5, False) == "healthy"
    assert verdict("note", 0, False) == "healthy"


def test_the_page_shows_the_diagnosis_escaped_and_bears_nonsense(tmp_path):
    (tmp_path / "run.yaml").write_text("method: simclr\n")
    assert "Unclear: there are no scores." in report.write(tmp_path).read_text("utf-8")
    for content in (
        {"verdict": "doubtful", "evidence": ["<b>low</b>"], "standing": ["x"],
         "findings": [{"name": "x<", "step": 3, "says": "s", "causes": ["c&"], "remedy": "r"}]},
        {"verdict": "doubtful", "evidence": "<b>low</b>", "standing": 3, "findings": [1, {}]},
    ):  # fmt: skip
        (tmp_path / "diagnosis.json").write_text(json.dumps(content))
        page = report.write(tmp_path).read_text("utf-8")
        assert "Unclear: there are no scores, and the doctor has doubts." in page
        assert "<b>low" not in page
    (tmp_path / "diagnosis.json").write_text('{"verdict": "<i>"}')
    assert "<i>" not in report.write(tmp_path).read_text("utf-8")
