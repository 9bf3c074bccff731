"""Anchors around the loss of any method: what they are, and what they keep."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from selftaught import pretrain
from selftaught.backbones import Wrapped
from selftaught.cli import main
from selftaught.engine import anchor, run
from selftaught.engine.anchor import first_images, weights
from selftaught.engine.estimate import needed
from selftaught.errors import UserError
from selftaught.methods import BYOL, MAE, SimCLR
from selftaught.objectives import anchors
from tests.test_continued import FAST, SMALL, encoder, going_on, planned
from tests.test_ddp import SAME, SIMCLR, TWO, losses
from tests.test_engine import curve, photos, train
from tests.test_faults import ended, start, words


def test_gram_is_the_paper_s_norm_over_pairs_of_places():
    """|| X X^T - S S^T ||_F^2 (arXiv 2508.10104), by a loop over images and pairs of places."""
    random = torch.Generator().manual_seed(0)
    x, s = (torch.randn(3, 5, d, generator=random, dtype=torch.float64) for d in (4, 7))
    total = 0.0
    for image, before in zip(x, s):
        for i in range(5):
            for j in range(5):
                ours = float(image[i] @ image[j] / (image[i].norm() * image[j].norm()))
                theirs = float(before[i] @ before[j] / (before[i].norm() * before[j].norm()))
                total += (ours - theirs) ** 2
    value = anchors.gram(x, s)
    assert value.dtype == torch.float64
    assert float(value) == pytest.approx(total / 3 / 25, rel=1e-12)
    norms = [
        torch.linalg.matrix_norm(
            F.normalize(a) @ F.normalize(a).T - F.normalize(b) @ F.normalize(b).T
        )
        for a, b in zip(x, s)
    ]
    assert float(value) == pytest.approx(float(torch.stack(norms).square().mean() / 25), rel=1e-12)
    # places may turn together: only how alike they are counts
    turn = torch.linalg.qr(torch.randn(4, 4, generator=random, dtype=torch.float64)).Q
    assert float(anchors.gram(x @ turn * 3, x)) < 1e-28


def test_cosine_and_l2sp_by_hand():
    x = torch.tensor([[3.0, 4.0], [1.0, 0.0]], dtype=torch.float64)
    s = torch.tensor([[4.0, 3.0], [0.0, 2.0]], dtype=torch.float64)
    assert float(anchors.cosine(x, s)) == pytest.approx((1 - 24 / 25 + 1) / 2, rel=1e-12)
    pairs = [(x, s), (torch.tensor([2.0]), torch.tensor([5.0]))]
    assert float(anchors.l2sp(pairs)) == pytest.approx(0.5 * (1 + 1 + 1 + 4 + 9), rel=1e-12)


def test_losses_keep_full_precision_under_autocast():
    x, s = torch.randn(2, 4, 6, generator=torch.Generator().manual_seed(1)).unbind()
    plain = anchors.gram(x[None], s[None])
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(anchors.gram(x[None], s[None]), plain)


def test_what_an_anchor_is_asked_for_by():
    assert weights(("cosine:1", "l2sp:0.01")) == {"cosine": (1.0, 0.0), "l2sp": (0.01, 0.0)}
    assert weights(("gram", " cosine:2.5")) == {"gram": (1.0, 0.0), "cosine": (2.5, 0.0)}
    late = weights(("gram:2@0.25", "cosine@.3", "l2sp:1@1"))
    assert late == {"gram": (2.0, 0.75), "cosine": (1.0, 0.7), "l2sp": (1.0, 0.0)}
    for wrong in ("cos:1", "gram:0", "gram:-1", "l2sp:", "l2sp:nan", "cosine:inf", ""):
        with pytest.raises(UserError, match="an anchor is one of cosine, gram, l2sp"):
            weights((wrong,))
    for wrong in ("gram@", "gram@0", "gram:1@1.5", "gram:1@-1", "gram:1@nan", "gram@0.5:1"):
        with pytest.raises(UserError, match="@ and the share of training, its last part"):
            weights((wrong,))
    with pytest.raises(UserError, match="each kind once"):
        weights(("gram:1", "gram:2"))


@pytest.mark.usefixtures("unfinished")
def test_an_anchor_may_begin_late(tmp_path):
    """In the last third of six steps; what counts from the first step on does all the time."""
    train(
        tmp_path / "run", method=going_on("simclr"), epochs=2, anchor="gram:1@0.34,cosine:1",
        lr=1e-3, head_warmup=0.0,
    )  # fmt: skip
    rows = curve(tmp_path / "run")
    late = [float(row["anchor_gram"]) for row in rows]
    assert late[:4] == [0.0] * 4
    assert min(late[4:]) > 0
    assert min(float(row["anchor_cosine"]) for row in rows[1:]) > 0


@pytest.mark.usefixtures("unfinished")
def test_with_mixtures_the_loss_is_wrapped_once(tmp_path, monkeypatch):
    """The start is copied once, and the estimate before the first step is of the whole loss."""
    copies, estimated = [], []
    monkeypatch.setattr(
        run, "anchored", lambda *given: copies.append(given) or anchor.anchored(*given)
    )
    monkeypatch.setattr(
        run,
        "needed",
        lambda method, *g, **k: estimated.append(method.loss) or needed(method, *g, **k),
    )
    method = going_on("simclr")
    train(tmp_path / "run", method=method, epochs=1, anchor="cosine:1,gram:1", unmix=0.5)
    assert len(copies) == len(estimated) == 1
    assert "anchored" in estimated[0].__qualname__
    (row, *_) = curve(tmp_path / "run")
    parts = [float(row[name]) for name in row if name.startswith(("anchor_", "mixed"))]
    assert len(parts) == 3


class Pooled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3 * 32 * 32, 8)

    def forward(self, x):
        return self.layer(x.flatten(1))


def test_anchors_that_have_nothing_to_hold_to_are_refused(tmp_path):
    fresh = SimCLR(encoder(trained=False), **SMALL)
    with pytest.raises(UserError, match=r"an anchor \(l2sp\) keeps .* begins with random ones"):
        planned(fresh, tmp_path, anchor="l2sp:1")
    pooled = SimCLR(Wrapped(Pooled(), size=32, channels=3, trained=True), **SMALL)
    with pytest.raises(UserError, match="the anchor gram compares features of places, and Pooled"):
        planned(pooled, tmp_path, anchor="gram:1")
    assert planned(pooled, tmp_path, anchor="cosine:1").chosen
    with pytest.raises(UserError, match="all of the backbone is frozen"):
        planned(SimCLR(encoder(), **SMALL), tmp_path, anchor="l2sp:1", freeze="all")
    with pytest.raises(UserError, match="--effective-batch runs the backbone in parts"):
        planned(SimCLR(encoder(), **SMALL), tmp_path, anchor="gram", effective_batch=16)


@pytest.mark.parametrize("kind", ["cosine", "gram", "l2sp"])
def test_an_anchor_keeps_what_it_names(kind, tmp_path):
    """By its own figure, at the end of a training with and without it."""

    def distance(image, began) -> float:
        x = torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            ours, theirs = image.eval().features(x), began.features(x)
        pairs = zip(image.parameters(), began.parameters())
        return {
            "cosine": anchors.cosine(ours.pooled, theirs.pooled),
            "gram": anchors.gram(ours.local, theirs.local),
            "l2sp": anchors.l2sp(pairs),
        }[kind].item()

    found = []
    for asked in (None, f"{kind}:100"):
        method = MAE(encoder("test_vit"), dim=16, depth=1, heads=2)
        out = tmp_path / str(asked is None)
        run = pretrain(method, photos(), out, epochs=8, lr=1e-3, anchor=asked, **FAST)
        found.append(distance(run.encoder, run.began))
    assert found[1] < 0.5 * found[0]
    row = curve(out)[-1]
    assert float(row["loss"]) > float(row[f"anchor_{kind}"]) > 0


@pytest.mark.usefixtures("unfinished")
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("jigsaw", {}),
        ("densecl", {}),
        ("swav", {}),
        ("selfie", {}),
        ("simclr", {"unmix": 0.5}),
        ("simclr", {"effective_batch": 16, "anchor": "cosine,l2sp"}),
    ],
)
def test_anchors_are_named_terms_of_any_method(name, options, tmp_path):
    options = {"anchor": "cosine:1,gram:0.5,l2sp:0.01"} | options
    method = going_on(name)
    train(tmp_path / "run", name, method=method, epochs=1, **options)
    (row, *_) = curve(tmp_path / "run")
    asked = {f"anchor_{kind}" for kind in weights(tuple(options["anchor"].split(",")))}
    assert {name for name in row if name.startswith("anchor_")} == asked
    assert ("mixed" in row) == ("unmix" in options)
    assert "loss" not in vars(method)


def test_the_doctor_is_not_told_of_anchors(tmp_path):
    """At the start they are 0, which would be a silent term, and they are no part of a guess."""
    method = BYOL(encoder("test_vit"), **SMALL)
    run = pretrain(
        method, photos(), tmp_path / "run", anchor="l2sp:1,cosine:500", head_warmup=0.0,
        epochs=4, **FAST,
    )  # fmt: skip
    assert run.diagnosis is not None
    assert not {"silent term", "worse than guessing"} & {f.name for f in run.diagnosis.findings}


def test_the_first_images_of_any_views():
    images = torch.zeros(2, 3, 8, 8)
    assert first_images([images, images], 3) is not None
    assert first_images((torch.zeros(2, 64), {"x": images}), 3).shape == (2, 3, 8, 8)
    assert first_images([torch.zeros(2, 9, 3, 4, 4)], 3).shape == (18, 3, 4, 4)
    with pytest.raises(UserError, match="the views of this method have none"):
        first_images([torch.zeros(2, 64), torch.zeros(2, 1, 8, 8)], 3)


def test_two_processes_have_one_s_anchors(tmp_path):
    folder = tmp_path / "all.npy"
    np.save(folder, photos(40))
    assert main(words(SIMCLR, folder, tmp_path / "start", *SAME, "--epochs", "1")) == 0
    more = [*SAME, "--epochs", "2", "--start", str(tmp_path / "start")]
    more += ["--anchor", "cosine:1,gram:1,l2sp:1000"]
    assert main(words(SIMCLR, folder, tmp_path / "one", *more)) == 0
    code, errors = ended(start(words(SIMCLR, folder, tmp_path / "two", *more, *TWO)))
    assert code == 0, errors
    np.testing.assert_allclose(losses(tmp_path / "two"), losses(tmp_path / "one"), rtol=1e-4)
    for term in ("anchor_cosine", "anchor_gram", "anchor_l2sp"):
        one, two = ([float(r[term]) for r in curve(tmp_path / n)] for n in ("one", "two"))
        np.testing.assert_allclose(two, one, rtol=1e-4)
        assert max(one) > 0
