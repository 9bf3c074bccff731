"""Scores beyond k-NN and ridge, against scikit-learn and computation by hand."""

import copy
import json
import warnings
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image as Picture
from sklearn import metrics
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, RidgeClassifierCV
from timm.data import IMAGENET_DEFAULT_MEAN
from torch import nn

from selftaught import evaluate, export
from selftaught.arguments import Group, Parser, Positional, options
from selftaught.augment.image.render import plain_mask, render_plain
from selftaught.backbones import Image, Wrapped, depths, layers
from selftaught.cli import main
from selftaught.data import BadSample, open_data
from selftaught.data.image.masks import class_map
from selftaught.engine.score import evaluate_command, finetune
from selftaught.errors import UserError
from selftaught.evaluate import classifiers, few_labels, finding
from selftaught.evaluate.clusters import agreement
from selftaught.evaluate.depth import by_depth
from selftaught.evaluate.floors import Margin
from selftaught.evaluate.image import changes, places
from selftaught.evaluate.image.adversarial import Attack, Linear
from selftaught.evaluate.mislabeled import mislabeled
from selftaught.evaluate.scores import Task, mean_score
from selftaught.report.scored import _curve
from selftaught.signature import Parameter
from tests.test_evaluate import blobs


@pytest.fixture(autouse=True)
def _short(monkeypatch):
    """As little as still says something."""
    monkeypatch.setattr(classifiers, "STEPS", 60)


@pytest.fixture(scope="module")
def streets(tmp_path_factory):
    """16 pictures, light above and dark below, in two classes by color; masks of what is where."""
    folder = tmp_path_factory.mktemp("streets")
    rng = np.random.default_rng(0)
    for i in range(16):
        kind = ("red", "blue")[i % 2]
        for where in ("images", "masks"):
            (folder / where / kind).mkdir(parents=True, exist_ok=True)
        edge = int(rng.integers(12, 28))
        image = np.full((40, 48, 3), 60.0)
        image[:edge] = 180
        image[..., 0 if kind == "red" else 2] += 50
        image += rng.normal(0, 8, image.shape)
        mask = np.full((40, 48), 7, np.uint8)
        mask[:edge] = 3
        mask[:2] = 255
        name = f"{kind}/{i}.png"
        Picture.fromarray(image.clip(0, 255).astype(np.uint8)).save(folder / "images" / name)
        Picture.fromarray(mask).save(folder / "masks" / name)
    return folder


@pytest.fixture(scope="module")
def vit():
    torch.manual_seed(0)
    return Image("test_vit", 32)


# intervals -----------------------------------------------------------------------------------


def test_the_interval_of_a_mean_is_that_of_the_normal_law():
    each = np.random.default_rng(0).random(400)
    score = mean_score("s", each, "p", 0.0, "m")
    low, high = score.interval
    half = 196 * each.std() / 20
    assert score.value == pytest.approx(100 * each.mean())
    assert (high - low) / 2 == pytest.approx(half, rel=0.15)


def test_differences_are_over_the_same_resampled_samples():
    each = np.random.default_rng(0).random(400)
    ours, floor = (mean_score("s", e, "p", 0.0, "m") for e in (each, each - 0.01))
    low, high = Margin(ours, "untrained", floor).interval
    assert (low, high) == pytest.approx(
        (1, 1)
    )  # each sample gains as much: nothing is left to chance
    assert Margin(ours, "untrained", floor).verdict == "above"


# linear --------------------------------------------------------------------------------------


def test_all_rates_at_once_are_each_what_torch_does(monkeypatch):
    monkeypatch.setattr(classifiers, "BATCH", 16)
    x, y = (torch.from_numpy(v) for v in blobs(64))
    weight, bias = classifiers.descend(x, y, (0.01, 0.3), 3, seed=4)
    for h, rate in enumerate((0.01, 0.3)):
        generator = torch.Generator().manual_seed(4)
        head = nn.Linear(8, 3)
        with torch.no_grad():
            head.weight.copy_((0.01 * torch.randn(8, 1, 3, generator=generator))[:, 0].T)
            head.bias.zero_()
        sgd = torch.optim.SGD(head.parameters(), rate, momentum=0.9)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(sgd, 60)
        order = torch.empty(0, dtype=torch.long)
        for _ in range(60):
            if not len(order):
                order = torch.randperm(64, generator=generator)
            rows, order = order[:16], order[16:]
            sgd.zero_grad()
            nn.functional.cross_entropy(head(x[rows]), y[rows]).backward()
            sgd.step()
            schedule.step()
        torch.testing.assert_close(weight[:, h], head.weight.T, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(bias[h], head.bias, rtol=1e-4, atol=1e-5)


def test_linear_chooses_the_layer_that_tells_the_classes():
    (x, y), (test_x, test_y) = blobs(150), blobs(90, seed=1)
    noise = np.random.default_rng(3).normal(size=(240, 5)).astype(np.float32)
    train = evaluate.Embeddings(noise[:150], y, extra={"last 4 layers": x})
    test = evaluate.Embeddings(noise[150:], test_y, extra={"last 4 layers": test_x})
    score = evaluate.linear(train, test)
    assert "of the last 4 layers" in score.protocol
    assert "best of 13 rates and 2 kinds of features on 30 held-out" in score.protocol
    assert score.value > 80 > evaluate.linear((noise[:150], y), (noise[150:], test_y)).value
    swapped = evaluate.Embeddings(noise[150:], (test_y + 1) % 3, extra={"last 4 layers": test_x})
    assert evaluate.linear(train, swapped).protocol == score.protocol, "it looked at test labels"


def test_logistic_is_scikit_learns_best_on_held_out_samples():
    (x, y), (test_x, test_y) = blobs(150, spread=3), blobs(300, spread=3, seed=1)
    score = evaluate.logistic((x, y), (test_x, test_y))
    c = float(score.protocol.split("C=")[1].split(",")[0])
    mean, scale = x.astype(float).mean(0), x.astype(float).std(0)
    model = LogisticRegression(C=c, max_iter=1000).fit((x - mean) / scale, y)
    right = model.predict((test_x - mean) / scale) == test_y
    assert (score.correct == right).mean() > 0.99
    assert "best of 7 on 30 held-out training samples" in score.protocol
    wrong = evaluate.logistic((x, y), (test_x, (test_y + 1) % 3))
    assert wrong.protocol == score.protocol, "it looked at test labels"


@pytest.mark.parametrize("score", [evaluate.linear, evaluate.logistic])
def test_one_sample_a_class_is_enough_to_fit(score):
    (x, y), test = blobs(60, spread=0.2), blobs(60, spread=0.2, seed=1)
    few = [int(np.flatnonzero(y == c)[0]) for c in range(3)]
    found = score((x[few], y[few]), test)
    assert "too few training samples to choose" in found.protocol
    assert found.value > 60


def test_a_vit_gives_its_last_four_layers(vit):
    x = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        found = layers(vit.eval(), x)
        assert list(found) == ["patches", "last", "layer -2", "layer -3", "layer -4"][: len(found)]
        torch.testing.assert_close(found["last"], vit(x))
        theirs = vit.net.forward_intermediates(
            x, indices=2, return_prefix_tokens=True, intermediates_only=True, norm=True
        )
        torch.testing.assert_close(found["layer -2"], theirs[0][1][:, 0])
        torch.testing.assert_close(found["patches"], vit.features(x).local.mean(1))
    assert list(layers(Image("test_resnet", 32).eval(), x)) == ["last"]


# few labels ----------------------------------------------------------------------------------


def test_lowshot_by_hand():
    (x, y), (test_x, test_y) = blobs(300, spread=1.5), blobs(200, spread=1.5, seed=1)
    found = {s.name: s for s in evaluate.lowshot((x, y), (test_x, test_y))}
    assert [s.labels for s in found.values()] == sorted(s.labels for s in found.values())
    assert found["100 % of labels"].labels == 300
    assert found["5 a class"].labels == 15
    rights = []
    for seed in range(5):
        rows = few_labels.choose(y, np.full(3, 5), seed)
        assert list(np.bincount(y[rows])) == [5, 5, 5]
        mean, scale = x[rows].astype(float).mean(0), x[rows].astype(float).std(0)
        model = RidgeClassifierCV([15 * 10.0**e for e in range(-4, 3)])
        model.fit((x[rows] - mean) / scale, y[rows])
        rights.append(model.predict((test_x - mean) / scale) == test_y)
    assert found["5 a class"].value == pytest.approx(100 * np.mean(rights), abs=0.3)
    assert "mean of 5 draws" in found["5 a class"].protocol
    assert "draws" not in found["100 % of labels"].protocol
    assert found["1 a class"].value < found["100 % of labels"].value


def test_budgets_leave_out_what_the_data_cannot_give():
    names = dict(few_labels.budgets(np.repeat([0, 1, 2], [30, 12, 7])))
    assert list(names) == [
        "1 a class",
        "10 % of labels",
        "2 a class",
        "5 a class",
        "100 % of labels",
    ]
    assert list(names["10 % of labels"]) == [3, 1, 1]


def curve(*points):
    return [evaluate.Score(f"{n}", v, 10, "p", 0.0, labels=n) for n, v in points]


def test_savings_by_hand():
    ours = curve((10, 55.0), (100, 80.0), (1000, 90.0), (2000, 30.0))
    theirs = [curve((10, 30.0), (100, 50.0), (1000, 60.0)), curve((10, 40.0), (1000, 58.0))]
    a, b, _, d = evaluate.savings(ours, theirs)
    assert (a.needed, a.bounded) == (pytest.approx(10**2.5), False)  # half way on the log scale
    assert a.utility == pytest.approx(10**1.5 - 1)
    assert (b.needed, b.bounded, b.saved) == (1000, True, 900)
    assert "at least 900 saved" in str(b)
    assert d.needed == 10, "a worse encoder is worth no more than the fewest labels"
    assert evaluate.savings(ours, []) == ()


# retrieval -----------------------------------------------------------------------------------


def test_retrieval_is_what_scikit_learn_says():
    (x, y), (test_x, test_y) = blobs(120), blobs(50, seed=1)
    ap, *recalls = evaluate.retrieval((x, y), (test_x, test_y))
    keys, queries = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (x, test_x))
    similar = queries @ keys.T
    each = [metrics.average_precision_score(y == c, s) for c, s in zip(test_y, similar)]
    assert ap.value == pytest.approx(100 * np.mean(each), rel=1e-5)
    order = np.argsort(-similar, 1)
    for score, k in zip(recalls, (1, 5, 10)):
        hits = (y[order[:, :k]] == test_y[:, None]).any(1)
        assert list(score.correct) == list(hits)
        assert score.name == f"recall@{k}"
    none = evaluate.retrieval((x, y), (test_x, np.where(test_y == 0, 9, test_y)))
    assert none[0].value < ap.value, "a class that is not there is not found"


def test_many_queries_are_thinned_and_it_is_said(monkeypatch):
    monkeypatch.setattr(finding, "QUERIES", 20)
    score = evaluate.retrieval(blobs(120), blobs(50, seed=1))[0]
    assert score.n == 20
    assert "20 test samples search" in score.protocol


def test_copies_by_hand():
    rng = np.random.default_rng(0)
    originals = rng.normal(size=(30, 6))
    copied = originals[:, None] + np.array([0.1, 1.5])[:, None] * rng.normal(size=(30, 2, 6))
    first, micro = evaluate.copies(originals, copied, ("near", "far"))
    unit = [v / np.linalg.norm(v, axis=-1, keepdims=True) for v in (originals, copied)]
    similar = unit[1] @ unit[0].T
    right = similar.argmax(-1) == np.arange(30)[:, None]
    assert first.value == pytest.approx(100 * right.mean())
    assert first.parts == pytest.approx(
        {"near": 100 * right[:, 0].mean(), "far": 100 * right[:, 1].mean()}
    )
    flat = similar.reshape(60, 30)
    truth = np.eye(30, dtype=bool).repeat(2, 0)
    top = np.argsort(-flat, 1)[:, :10]
    kept = np.take_along_axis(truth, top, 1), np.take_along_axis(flat, top, 1)
    theirs = metrics.average_precision_score(kept[0].ravel(), kept[1].ravel())
    assert micro.value == pytest.approx(100 * theirs * kept[0].sum() / 60, rel=1e-6)
    with pytest.raises(UserError, match=r"copies need features \[N, D\]"):
        evaluate.copies(originals, copied[:, :, :5])


# clusters ------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_agreement_is_what_scikit_learn_says(seed):
    rng = np.random.default_rng(seed)
    y, found = rng.integers(0, 4, 200), rng.integers(0, 5, 200)
    found = np.where(rng.random(200) < 0.5, y, found)
    nmi, ari, accuracy = agreement(metrics.cluster.contingency_matrix(found, y))
    assert nmi == pytest.approx(metrics.normalized_mutual_info_score(y, found))
    assert ari == pytest.approx(metrics.adjusted_rand_score(y, found))
    assert accuracy >= (found == y).mean()
    assert agreement(np.diag([3, 4, 5])) == (pytest.approx(1), pytest.approx(1), 1)


def test_clusters_of_blobs_are_their_classes():
    found = evaluate.cluster(blobs(150, spread=0.05), blobs(60, spread=0.05, seed=1))
    assert [s.name for s in found] == ["cluster NMI", "cluster ARI", "cluster accuracy"]
    assert [s.value for s in found] == pytest.approx([100, 100, 100])
    with pytest.raises(UserError, match="k=500 must be"):
        evaluate.cluster(blobs(150), k=500)


# corruptions ---------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3, 5])
def test_changes_are_of_the_image_and_the_seed_alone(channels):
    view = np.random.default_rng(0).integers(0, 256, (channels, 32, 32), np.uint8)
    every = changes.CORRUPTIONS | changes.COPIES
    one, same, other = (changes.changed(view, i, every, s) for i, s in ((3, 0), (3, 0), (4, 0)))
    assert one.dtype == np.uint8
    assert one.shape == (len(every), channels, 32, 32)
    assert np.array_equal(one, same)
    noisy = [n for n, name in enumerate(every) if "noise" in name]
    assert all(not np.array_equal(one[n], other[n]) for n in noisy)
    plain = {n for n, name in enumerate(every) if np.array_equal(one[n], view)}
    assert not plain - {list(every).index("gray")} or channels == 1


def test_strong_is_further_from_the_image_than_mild():
    x, y = np.mgrid[:64, :64] / 64
    view = (255 * np.stack([x, y, 0.5 + 0.4 * np.sin(20 * x * y)])).astype(np.uint8)
    found = changes.changed(view, 0, changes.CORRUPTIONS).astype(float)
    far = np.abs(found - view).mean((1, 2, 3))
    assert (far[1::2] > far[::2]).all()
    assert (far > 0).all()


def test_robustness_is_the_clean_classifier_on_each_corruption():
    train, (x, y) = blobs(150), blobs(60, seed=1)
    noise = np.random.default_rng(0).normal(size=x.shape)
    changed = np.stack([x, x + 5 * noise], 1).astype(np.float32)
    for score, clean in zip(
        evaluate.robustness(train, (x, y), changed, ("none", "much")),
        (evaluate.knn(train, (x, y)), evaluate.probe(train, (x, y))),
    ):
        assert score.parts["none"] == pytest.approx(clean.value)
        much = (evaluate.knn if "k-NN" in score.name else evaluate.probe)(train, (changed[:, 1], y))
        assert score.parts["much"] == pytest.approx(much.value)
        assert score.value == pytest.approx((clean.value + much.value) / 2)
    with pytest.raises(UserError, match=r"must be \[M, 2, 8\]"):
        evaluate.robustness(train, (x, y), changed[:, :, :4], ("none", "much"))


def test_noisy_labels_are_another_class_and_as_many_as_asked_for():
    y = torch.arange(300) % 3
    before = torch.zeros(300, dtype=torch.bool)
    for share in (0.0, 0.2, 0.4, 0.6, 1.0):
        changed = mislabeled(y, 3, share, 0)
        wrong = changed != y
        assert int(wrong.sum()) == round(300 * share)
        assert bool((before <= wrong).all()), "what is wrong stays wrong"
        assert set(changed.tolist()) == {0, 1, 2}
        assert torch.equal(changed, mislabeled(y, 3, share, 0))
        before = wrong
    to = mislabeled(torch.zeros(3000, dtype=torch.long), 3, 1.0, 0)
    assert abs(float((to == 1).double().mean()) - 0.5) < 0.05, "each other class is as likely"


def test_the_probe_of_noisy_labels_is_the_probe_trained_on_them():
    (x, y), test = blobs(150), blobs(60, seed=1)
    score = evaluate.noisy_labels((x, y), test)
    assert list(score.parts) == ["20 % wrong", "40 % wrong", "60 % wrong"]
    for share, value in zip((0.2, 0.4, 0.6), score.parts.values()):
        wrong = mislabeled(torch.as_tensor(y), int(max(y)) + 1, share, 0).numpy()
        assert value == pytest.approx(evaluate.probe((x, wrong), test).value)
    assert score.value == pytest.approx(np.mean(list(score.parts.values())))
    low, high = score.interval
    assert low <= score.value <= high
    clean = evaluate.noisy_labels((x, y), test, shares=(0.0,))
    assert clean.value == pytest.approx(evaluate.probe((x, y), test).value)
    with pytest.raises(UserError, match="must be from 0 to 1"):
        evaluate.noisy_labels((x, y), test, shares=(1.5,))


def test_the_worst_group_is_the_lowest_accuracy_and_the_gap_from_the_best():
    train, (x, y) = blobs(150), blobs(90, seed=1)
    groups = np.arange(90) % 3
    x[groups == 1] += 3 * np.random.default_rng(0).normal(size=(30, 8))  # a bad camera
    groups[:4], groups[4] = 3, -1
    names = {0: "good", 1: "bad", 2: "fair", 3: "rare"}
    score = evaluate.worst_group(train, (x, y), groups, names)
    right = evaluate.probe(train, (x, y)).correct
    shares = {n: 100 * right[groups == c].mean() for c, n in names.items() if n != "rare"}
    assert score.value == pytest.approx(min(shares.values())) == pytest.approx(shares["bad"])
    assert score.parts == pytest.approx(shares | {"gap": max(shares.values()) - shares["bad"]})
    assert "bad, the worst of 3 groups, 1 of fewer than 10 test samples left out" in score.protocol
    assert score.n == 90 - 5
    low, high = score.interval
    assert low <= score.value <= high
    with pytest.raises(UserError, match="needs two groups of 10 test samples"):
        evaluate.worst_group(train, (x, y), np.zeros(90, int), {0: "all"})


def test_groups_are_read_from_a_list_beside_the_labels(vit, streets, tmp_path):
    run, images = export.save(vit, tmp_path / "run"), sorted((streets / "images").rglob("*.png"))
    rows = [f"{i.relative_to(streets / 'images')},camera {n % 2}" for n, i in enumerate(images)]
    listed = tmp_path / "groups.csv"
    listed.write_text("\n".join(["path,group", *rows]) + "\n")
    data = str(streets / "images")
    given: Any = {"probes": ("groups",), "workers": 0, "test": data}
    with pytest.raises(UserError, match="name a column or a CSV of path,group with --groups"):
        evaluate.compare(str(run), data, **given)
    with pytest.raises(UserError, match="8 of camera 0, 8 of camera 1"):
        evaluate.compare(str(run), data, groups=str(listed), **given)
    doubled = tmp_path / "images"
    for copy_of in ("a", "b"):
        for image in images:
            to = doubled / image.parent.name / f"{copy_of}{image.name}"
            to.parent.mkdir(parents=True, exist_ok=True)
            to.write_bytes(image.read_bytes())
    rows = [
        f"{i.relative_to(doubled)},{'first' if i.name[0] == 'a' else 'second'}"
        for i in sorted(doubled.rglob("*.png"))
    ]
    listed.write_text("\n".join(["path,group", *rows]) + "\n")
    given["test"] = str(doubled)
    found = evaluate.compare(str(run), data, groups=str(listed), **given)
    for (score,) in found.scores.values():
        assert score.name == "worst group"
        assert score.parts["first"] == score.parts["second"] == score.value, "they are copies"
        assert score.parts["gap"] == 0


class Means(nn.Module):
    """Features of images that are linear in them: the mean of each channel, denormalized."""

    mean, std = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)

    def forward(self, x):
        return x.mean((2, 3)) * torch.tensor(self.std) + torch.tensor(self.mean)


def test_the_linear_probe_says_what_the_ridge_classifier_says():
    train, test = blobs(150), blobs(60, seed=1)
    task = Task.of(train, test)
    probe, _ = Linear.of(task, 0)
    said = probe(task.test_x.double()).argmax(1)
    assert np.array_equal((said == task.test_y).numpy(), evaluate.probe(train, test).correct)


def test_attacks_stay_within_their_budget_and_do_what_can_be_computed_by_hand(monkeypatch):
    """Of features that are linear in pixels the best attack is known: each pixel by the budget."""
    network, seen = Means(), []
    weight = torch.tensor([[1.0, -1.0], [0.0, 0.0], [0.0, 0.0]], dtype=torch.float64)
    zero = torch.zeros(3, dtype=torch.float64)
    middle = torch.tensor([0.5, 0.0, 0.0], dtype=torch.float64)
    probe = Linear(middle, zero + 1, weight, zero[:2])
    levels = torch.tensor([0.5 + d / 255 for d in (0.5, 2.0, 6.0, -0.5, -2.0, -6.0)])
    images = levels[:, None, None, None].expand(6, 3, 8, 8).contiguous()
    mean, std = (torch.tensor(v)[:, None, None] for v in (network.mean, network.std))
    attack = Attack(probe, 0)
    say = attack.say
    monkeypatch.setattr(attack, "say", lambda n, x: seen.append(x) or say(n, x))
    told = attack(network, (images - mean) / std)
    clean = [0, 0, 0, 1, 1, 1]
    flipped = {1: [1, 0, 0, 0, 1, 1], 4: [1, 1, 0, 0, 0, 1]}
    expected = [clean, flipped[1], flipped[4], flipped[1], flipped[4]]
    assert told.T.tolist() == expected
    for changed, budget in zip(seen, (1, 4, 1, 4), strict=True):
        far = (changed * std + mean - images).abs().max()
        assert float(far) <= budget / 255 + 1e-6
        assert float(far) > 0.9 * budget / 255


def test_attacks_are_scored_beside_the_untrained_network(vit, streets, tmp_path):
    run = export.save(vit, tmp_path / "run")
    given: Any = {"probes": ("adversarial", "ridge"), "workers": 0}
    found = evaluate.compare(str(run), str(streets / "images"), **given)
    own = {s.name: s for s in found.scores["this encoder"]}
    score = own["attacked probe"]
    assert list(score.parts) == ["clean", "FGSM 1/255", "FGSM 4/255", "PGD 1/255", "PGD 4/255"]
    assert score.parts["clean"] == pytest.approx(own["probe"].value)
    assert all(value <= score.parts["clean"] for value in score.parts.values())
    assert score.value == pytest.approx(np.mean(list(score.parts.values())[1:]))
    assert "attacked probe" in {s.name for s in found.scores["untrained"]}
    again = evaluate.compare(str(run), str(streets / "images"), **given)
    assert again.scores["this encoder"][-1].parts == score.parts
    assert not any(p.grad is not None for p in vit.parameters())


# depth ---------------------------------------------------------------------------------------

DEEP = {
    "test_vit": "blocks.",
    "test_vit4": "blocks.",
    "test_resnet": "layer",
    "test_convnext": "stages.",
    "swin_tiny_patch4_window7_224": "layers.",
    "test_efficientnet": "blocks.",
}


@pytest.mark.parametrize("name", DEEP)
@torch.no_grad()
def test_depths_are_all_blocks_and_stages_and_end_with_what_the_encoder_gives(name):
    encoder = Image(name, 64).eval()
    x = torch.randn(2, 3, 64, 64)
    found = depths(encoder, x)
    torch.testing.assert_close(found["last"], encoder(x))
    inner = [n for n in found if n.startswith(DEEP[name])]
    assert len(inner) >= 4
    assert list(found)[-1] == "last"
    assert all(value.dim() == 2 and value.shape[0] == 2 for value in found.values())
    assert len({float(value[0].sum()) for value in found.values()}) >= len(found) - 1
    assert not any(module._forward_hooks for module in encoder.modules())


@torch.no_grad()
def test_depths_of_a_vit_end_with_its_class_token_and_of_a_resnet_with_its_mean():
    x = torch.randn(2, 3, 32, 32)
    vit = Image("test_vit", 32).eval()
    vit.arrange("class")
    found = depths(vit, x)
    torch.testing.assert_close(list(found.values())[-2], found["last"])
    resnet = Image("test_resnet", 32).eval()
    torch.testing.assert_close(depths(resnet, x)["layer4"], resnet(x))


def test_no_depths_are_made_up():
    encoder = Wrapped(nn.Sequential(nn.Flatten(), nn.Linear(3072, 4)), 32)
    with pytest.raises(UserError, match=r"no network of timm's"):
        depths(encoder, torch.randn(2, 3, 32, 32))


def test_the_probe_by_depth_finds_where_classes_are_told_apart():
    (x, y), (test_x, test_y) = blobs(150), blobs(60, seed=1)
    noise = np.random.default_rng(0).normal(size=(210, 5))
    wide = [np.concatenate([n, f, n], 1) for n, f in ((noise[:150], x), (noise[150:], test_x))]
    score = by_depth((wide[0], y), (wide[1], test_y), {"stem": 5, "block": x.shape[1], "last": 5})
    own = evaluate.probe((x, y), (test_x, test_y))
    assert score.value == pytest.approx(own.value)
    assert score.parts["block"] == pytest.approx(own.value)
    assert score.parts["stem"] == score.parts["last"] < own.value
    assert "after block, of 3 depths" in score.protocol


def test_depths_are_scored_beside_floors_and_drawn(vit, streets, tmp_path):
    run = export.save(vit, tmp_path / "run")
    found = evaluate.compare(str(run), str(streets / "images"), probes=("layers",), workers=0)
    assert {name for name, scores in found.scores.items() if len(scores[0].parts) > 4} == {
        "this encoder",
        "untrained",
    }
    assert {scores[0].name for scores in found.scores.values()} == {"probe by depth"}
    drawn = _curve([{"features": n, "parts": dict(s[0].parts)} for n, s in found.scores.items()])
    assert drawn.count('<path class="line') == 2
    assert "untrained" in drawn


# segmentation --------------------------------------------------------------------------------


def test_mean_iou_is_scikit_learns_jaccard():
    rng = np.random.default_rng(0)
    truth, found = rng.integers(0, 4, 500), rng.integers(0, 4, 500)
    theirs = metrics.jaccard_score(truth, found, average=None)
    assert places.mean_iou(metrics.confusion_matrix(truth, found)) == pytest.approx(theirs)
    assert np.isnan(places.mean_iou(np.array([[2, 1], [0, 0]]))[1])


def test_clusters_that_others_found_are_matched_like_those_of_kmeans():
    rng = np.random.default_rng(0)
    masks = rng.integers(0, 3, (6, 8, 8))
    found = np.array([2, 0, 1])[masks]
    assert evaluate.segments(found, masks).value == pytest.approx(100)
    found[masks == 2] = rng.integers(3, 9, (masks == 2).sum())  # a class in six pieces: one is it
    pieces = evaluate.segments(found, masks)
    largest = np.bincount(found[masks == 2])[3:].max() / (masks == 2).sum()
    assert pieces.value == pytest.approx(100 * (2 + largest) / 3)
    assert set(evaluate.segments(found, masks, ignore=(2,)).parts) == {"class 0", "class 1"}
    with pytest.raises(UserError, match=r"must both be \[n, H, W\]"):
        evaluate.segments(found[0], masks)


def test_segmentation_of_features_that_are_the_answer():
    rng = np.random.default_rng(0)
    cells = rng.integers(0, 3, (20, 16))
    masks = np.array([10, 20, 30])[cells.reshape(20, 4, 4)].repeat(8, 1).repeat(8, 2)
    local = np.eye(3)[cells] + 0.01 * rng.normal(size=(20, 16, 3))
    linear, clusters = evaluate.segment((local[:14], masks[:14]), (local[14:], masks[14:]))
    assert clusters.value == pytest.approx(100)
    assert linear.value > 60  # bilinear outputs round the corners of cells
    assert set(linear.parts) == {"class 10", "class 20", "class 30"}
    masks[14:, :16] = 255
    ignored = evaluate.segment((local[:14], masks[:14]), (local[14:], masks[14:]))[1]
    assert ignored.value == pytest.approx(100)
    nothing = evaluate.segment((0 * local[:14], masks[:14]), (0 * local[14:], masks[14:]))[0]
    assert nothing.value < 30


def test_masks_are_cut_as_their_images():
    mask = np.random.default_rng(0).integers(0, 2, (6, 9), np.uint8).repeat(20, 0).repeat(20, 1)
    image = (255 * mask)[..., None].repeat(3, 2)
    for resize, size in ((64, 56), (48, 48), (128, 112)):
        view = render_plain(image, resize, size)[0]
        shown = plain_mask(mask, resize, size)
        assert ((view > 127) == shown).mean() > 0.97


@pytest.mark.parametrize(
    ("masks", "words"),
    [
        (np.zeros((6, 8, 8), int), "hold 1 classes"),
        (np.arange(384).reshape(6, 8, 8), "hold 383 classes"),
        (np.zeros((5, 8, 8), int), r"masks \[n, H, W\], got \[6, 16, 3\] and \[5, 8, 8\]"),
    ],
)
def test_masks_that_cannot_be(masks, words):
    local = np.random.default_rng(0).normal(size=(6, 16, 3))
    with pytest.raises(UserError, match=words):
        evaluate.segment((local, masks), (local, masks))


def test_class_maps_keep_the_values_that_are_stored(tmp_path):
    values = np.random.default_rng(0).integers(0, 20, (5, 7), np.uint8)
    picture = Picture.fromarray(values)
    palette = picture.copy()
    palette.putpalette(list(range(255, -1, -1)) * 3)
    for n, mask in enumerate((picture, palette)):
        mask.save(tmp_path / f"{n}.png")
        assert np.array_equal(class_map((tmp_path / f"{n}.png").read_bytes()), values)
    colors = np.zeros((5, 7, 3), np.uint8)
    with pytest.raises(BadSample, match="one whole number a pixel"):
        class_map(colors)


# any encoder ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
def test_a_timm_module_gives_what_our_backbone_of_that_name_gives(name, streets):
    torch.manual_seed(0)
    net = (
        timm.create_model(name, num_classes=10, img_size=32)
        if "vit" in name
        else timm.create_model(name)
    )
    wrapped = Wrapped(net.eval(), 32)
    x = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        expected = net.forward_head(net.forward_features(x), pre_logits=True)
        torch.testing.assert_close(wrapped(x), expected)
        found = wrapped.features(x)
    assert found.local.shape[1] == found.grid[0] * found.grid[1]
    assert wrapped.mean == IMAGENET_DEFAULT_MEAN  # it was drawn here: timm's entry says nothing
    embedded = evaluate.embed(net, streets / "images", size=32)
    assert embedded.features.shape == (16, expected.shape[1])


def test_a_torch_module_is_pooled_and_reset():
    maps = nn.Sequential(nn.Conv2d(3, 5, 3, 4), nn.BatchNorm2d(5))
    x = torch.rand(2, 3, 32, 32)
    wrapped = Wrapped(maps.eval(), 32)
    torch.testing.assert_close(wrapped(x), maps(x).mean((2, 3)))
    assert wrapped.features(x).grid == (8, 8)
    fresh, same = (evaluate.untrained(wrapped, 3) for _ in range(2))
    assert fresh(x).equal(same(x))
    assert not fresh(x).allclose(wrapped(x))
    with pytest.raises(UserError, match="no features of places"):
        Wrapped(nn.Flatten(), 32).features(x)
    with pytest.raises(UserError, match="gives a tuple of"):
        Wrapped(nn.LSTM(32, 4), 32)(x[:, 0])
    with pytest.raises(UserError, match=r"gives \[2\] for images"):
        Wrapped(nn.Sequential(nn.Flatten(), nn.Linear(3072, 1), nn.Flatten(0)), 32)(x)


# all of it -----------------------------------------------------------------------------------


def test_everything_from_the_command_line(vit, streets, tmp_path, capsys, monkeypatch):
    run, out = export.save(vit, tmp_path / "run"), tmp_path / "scores.json"
    words = ["evaluate", str(run), str(streets / "images"), "--out", str(out), "--probes", "knn"]
    words += ["ridge", "linear", "lowshot", "retrieval", "cluster", "robustness", "segment"]
    words += ["--masks", str(streets / "masks"), "--altered", "4", "--workers", "0", "--k", "3"]
    assert main(words) == 0
    shown, saved = capsys.readouterr().out, json.loads(out.read_text())
    (kept,) = json.loads((tmp_path / "run" / "evaluated.json").read_text())["evaluations"]
    assert {**kept, **saved} == kept
    assert kept["data"] == words[2]
    for score in saved["scores"]:
        assert set(score) == {
            *("features", "score", "value", "interval", "n", "protocol", "seconds"),
            *("measure", "parts", "labels"),
        }
        low, high = score["interval"]
        assert low <= score["value"] <= high
        assert len(score["protocol"]) > 40
        assert score["score"] in shown
    names = {s["score"] for s in saved["scores"]}
    assert {
        *("k-NN", "probe", "linear", "logistic", "1 a class", "100 % of labels", "retrieval mAP"),
        *("recall@1", "copy rank-1", "copy muAP", "cluster NMI", "corrupted k-NN"),
        *("corrupted probe", "segment linear", "segment k-means"),
    } <= names
    features = {s["features"] for s in saved["scores"] if s["score"] == "segment linear"}
    assert features == {"this encoder", "untrained", "color and place"}
    assert len(saved["margins"]) == len(names)
    assert saved["savings"][0]["score"] == "1 a class"
    assert len(next(s for s in saved["scores"] if s["score"] == "corrupted probe")["parts"]) == 18
    assert "labels are worth" in shown


def test_masks_have_the_start_beside_them(streets):
    encoder = Image("test_resnet", 32)
    start = evaluate.untrained(encoder, 7)
    given = {"probes": ("segment",), "masks": str(streets / "masks"), "workers": 0}
    found = evaluate.compare(encoder, streets / "images", start=start, **given)
    assert list(found.scores) == ["this encoder", "as it began", "untrained", "color and place"]
    alone = evaluate.compare(start, streets / "images", **given).scores["this encoder"]
    assert [s.value for s in found.scores["as it began"]] == [s.value for s in alone]
    assert len(found.gains) == 2


def test_a_start_of_another_kind_is_probed_layer_by_layer(streets, vit):
    given = {"probes": ("linear",), "workers": 0}
    start = Image("test_resnet", 32)
    found = evaluate.compare(vit, streets / "images", start=start, **given)
    alone = evaluate.compare(start, streets / "images", **given).scores["this encoder"]
    assert [s.value for s in found.scores["as it began"]] == [s.value for s in alone]


def test_fine_tuning_trains_the_start_as_the_others(streets, monkeypatch):
    from selftaught.engine import score as scoring

    monkeypatch.setattr(scoring, "LEAST_STEPS", 20)
    encoder = Image("test_resnet", 32)
    samples = open_data(streets / "images")
    start = copy.deepcopy(encoder).requires_grad_(False)
    found = finetune(encoder, samples, samples, shares=(1.0,), epochs=1, workers=0, start=start)
    ours, its = (found[name][0] for name in ("this encoder", "as it began"))
    assert list(ours.correct) == list(its.correct)  # the same weights, trained alike
    assert not any(p.requires_grad for p in start.parameters())


def test_fine_tuning_from_the_encoder_and_from_nothing(streets, tmp_path, monkeypatch, caplog):
    from selftaught.engine import score as scoring

    monkeypatch.setattr(scoring, "LEAST_STEPS", 2)
    torch.manual_seed(0)
    run = export.save(Image("test_resnet", 32), tmp_path / "run")
    with caplog.at_level("INFO", "selftaught"):
        found = evaluate_command(
            str(run),
            str(streets / "images"),
            probes=("knn", "finetune"),
            epochs=2,
            shares=(0.5, 1.0),
            workers=0,
            k=3,
        )
    assert "fine-tuning from fresh weights on 12 labels, 4 of 4" in caplog.text
    assert "selftaught report" in caplog.text
    assert [s.name for s in found.scores["untrained"]] == [
        *("k-NN", "fine-tuned, 50 % of labels", "fine-tuned, 100 % of labels")
    ]
    assert [s.labels for s in found.scores["this encoder"][1:]] == [6, 12]
    assert found.scores["this encoder"][1].n == 4
    assert [s.name for s in found.savings] == [s.name for s in found.scores["untrained"][1:]]
    assert len(found.margins) == 3


def test_fine_tuning_learns_and_leaves_the_encoder_alone(streets, monkeypatch):
    from selftaught.engine import score as scoring

    monkeypatch.setattr(scoring, "LEAST_STEPS", 40)
    torch.manual_seed(0)
    encoder = Image("test_resnet", 32)
    before = {n: v.clone() for n, v in encoder.state_dict().items()}
    samples = open_data(streets / "images")
    ours = finetune(encoder, samples, samples, shares=(1.0,), epochs=1, workers=0)["this encoder"]
    assert ours[0].value > 80
    assert all(v.equal(before[n]) for n, v in encoder.state_dict().items())


# what cannot be ------------------------------------------------------------------------------


def refuse(words, capsys):
    assert main(words) == 2
    return capsys.readouterr().err


def test_bad_input_is_told_in_words_before_anything_is_read(
    vit, streets, tmp_path, capsys, monkeypatch
):
    run = str(export.save(vit, tmp_path / "run"))
    images = streets / "images"
    monkeypatch.setattr(evaluate.features, "one_pass", None)  # nothing may be embedded
    one, alone, other = (tmp_path / n for n in ("one.npz", "alone", "other"))
    np.savez(one, images=np.zeros((3, 32, 32, 3), np.uint8), labels=np.array([4, 4, 4]))
    for folder, counts in (
        (alone, {"a": 3, "b": 3, "c": 1}),
        (other, {"x": 2, "y": 2}),
    ):
        for name, count in counts.items():
            (folder / name).mkdir(parents=True)
            for i in range(count):
                Picture.new("RGB", (32, 32)).save(folder / name / f"{i}.png")
    assert "all 3 labeled images are of one class (4)" in refuse(
        ["evaluate", run, str(one)], capsys
    )
    words = refuse(["evaluate", run, str(alone)], capsys)
    assert "1 of 3 classes have one image alone (c)" in words
    words = refuse(["evaluate", run, str(images), "--test", str(other)], capsys)
    assert "none of the classes of the test images (x, y)" in words
    segment = ["evaluate", run, str(images), "--probes", "segment"]
    assert "masks are needed" in refuse(segment, capsys)
    (tmp_path / "none").mkdir()
    Picture.new("L", (48, 40)).save(tmp_path / "none" / "x.png")
    words = refuse([*segment, "--masks", str(tmp_path / "none")], capsys)
    assert "has no mask for 16 of 16 images" in words
    for file in (streets / "masks").rglob("*.png"):
        to = tmp_path / "small" / file.relative_to(streets / "masks")
        to.parent.mkdir(parents=True, exist_ok=True)
        Picture.open(file).resize((24, 20), Picture.Resampling.NEAREST).save(to)
    words = refuse([*segment, "--masks", str(tmp_path / "small")], capsys)
    assert "has 24 x 20 pixels and its image 48 x 40: both must be of one size" in words
    words = refuse(["evaluate", run, str(images), "--probes", "liner"], capsys)
    assert "must be a comma-separated list" in words
    words = refuse(["evaluate", run, str(images), "--probes", "knn", "liner"], capsys)
    assert "got 'liner' besides: did you mean linear?" in words
    words = ["evaluate", run, str(images), "--probes", "finetune", "--shares", "1", "2"]
    words = refuse(words, capsys)
    assert "--shares must be above 0 and at most 1, got 1,2" in words
    words = ["evaluate", run, str(images), "--probes", "knn", "finetune", "--size", "48"]
    assert "--size 48: finetune trains" in refuse(words, capsys)


def test_lists_of_words_may_be_written_with_spaces_or_commas():
    from typing import Literal

    kind = Parameter("probes", tuple[Literal["knn", "ridge"], ...], False, ("knn",), "which")
    numbers = Parameter("hidden", tuple[int, ...], False, (1,), "widths")
    parser = Parser("x", "y", [Positional("data", "d")], [Group("g", options([kind, numbers]))])
    for words in (
        ["--probes", "knn", "ridge", "photos"],
        ["photos", "--probes", "knn,ridge"],
        ["--probes=knn", "ridge", "photos"],
    ):
        if words[0] == "--probes=knn":
            continue  # with a sign of equality it is one value
        (data,), given = parser.read(words)
        assert (data, given[""]["probes"]) == ("photos", ("knn", "ridge"))
    (data,), given = parser.read(["--hidden", "3", "photos"])
    assert (data, given[""]["hidden"]) == ("photos", (3,))


def test_nothing_warns_about_iterations(monkeypatch):
    monkeypatch.setattr(classifiers, "ITERATIONS", 2)
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        score = evaluate.logistic(blobs(150, spread=3), blobs(50, seed=1))
    assert "stopped after 2 iterations" in score.protocol
