"""What is kept of a run that began with weights: by construction the end, the start, or between."""

import json
import shutil
from types import MethodType

import numpy as np
import pytest
import torch
from PIL import Image as Picture
from torch import nn

from selftaught import evaluate, export, load, open_data, pretrain, report
from selftaught.backbones import Image, Wrapped
from selftaught.engine import kept, restore, score
from selftaught.engine.checkpoint import Checkpoints
from selftaught.engine.kept import (
    BLENDS,
    END,
    KEPT_START,
    STATISTICS,
    Judges,
    best,
    blend,
    candidates,
    folds_of,
    misfit,
    rightness,
    with_statistics,
)
from selftaught.errors import UserError
from selftaught.evaluate.features import Embeddings
from selftaught.evaluate.scores import Task
from selftaught.methods import Finetune, SimCLR

MOST = "75 % of the way from start to end"
RUN = {"batch": 16, "workers": 0, "accelerator": "cpu", "epochs": 1, "precision": "fp32"}


class Channels(nn.Module):
    """The mean of each channel after a batch norm, times a weight of its own."""

    def __init__(self, *weights: float):
        super().__init__()
        self.norm = nn.BatchNorm2d(3)
        self.weight = nn.Parameter(torch.tensor(weights))

    def forward(self, x):
        return self.norm(x).mean((2, 3)) * self.weight


def ending(net, state):
    """A method that ends with the weights `state`, whatever it learned."""

    def after_step(self):
        self.backbone.net.load_state_dict(state)

    method = SimCLR(Wrapped(net, 8, trained=True), hidden=8, dim=4)
    method.after_step = MethodType(after_step, method)
    return method


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Four classes: green tells two pairs apart, blue the two of a pair, and red nothing."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for kind in range(4):
        (folder / str(kind)).mkdir()
        for i in range(30):
            color = [rng.integers(40, 200), 60 + 120 * (kind // 2), 60 + 120 * (kind % 2)]
            pixels = np.clip(rng.normal(color, 8, (8, 8, 3)), 0, 255).astype(np.uint8)
            Picture.fromarray(pixels).save(folder / str(kind) / f"{i}.png")
    return folder


def run(photos, out, start, end, statistics=None, **options):
    """A run from and to weights of the three channels."""
    method = ending(Channels(*start), Channels(*end).state_dict() | (statistics or {}))
    return pretrain(method, photos, out, **RUN | options)


def kept_of(made):
    return json.loads((made.folder / "kept.json").read_text())


NOWHERE = {"norm.running_mean": torch.full((3,), 1e8)}
GREEN, BLUE, RED, ALL = (0.0, 1.0, 0.0), (0.0, 0.0, 1.0), (1.0, 0.0, 0.0), (0.0, 1.0, 1.0)


@pytest.mark.parametrize(
    ("start", "end", "statistics", "wanted"),
    [
        (ALL, RED, {}, KEPT_START),
        (GREEN, ALL, {}, END),
        (GREEN, ALL, NOWHERE, STATISTICS),
        (GREEN, BLUE, {}, MOST),
        (ALL, ALL, {}, END),
    ],
)
def test_what_is_better_by_construction_is_kept(photos, tmp_path, start, end, statistics, wanted):
    made = run(photos, tmp_path / "a", start, end, statistics)
    said = kept_of(made)
    assert said["kept"] == wanted
    net = {
        KEPT_START: start,
        END: end,
        STATISTICS: end,
        MOST: tuple(0.25 * a + 0.75 * b for a, b in zip(start, end)),
    }[wanted]
    exported = load(tmp_path / "a", Channels(0.0, 0.0, 0.0))
    for found in (exported, made.encoder):
        state = found.state_dict()
        assert state["net.weight"].tolist() == pytest.approx(net)
        assert state["net.norm.running_mean"].abs().max() < 1
    # checkpoints are those of the end, and so is the method
    state = Checkpoints.of(tmp_path / "a").training()["method"]
    assert state["backbone.net.weight"].tolist() == pytest.approx(end)
    assert made.method.backbone.net.weight.tolist() == pytest.approx(end)
    if "candidates" not in said:
        assert wanted == END
        return
    assert said["candidates"][0]["name"] == END
    assert said["images"] == {"choice": 96, "scores": 24}
    assert {s.n for s in made.scores.scores["as it began"]} == {24}


def test_the_verdict_says_what_was_kept_and_why(photos, tmp_path):
    ruined = run(photos, tmp_path / "a", ALL, RED)
    assert ruined.verdict.word == "did not learn"
    assert "nothing that training made is better than the weights it began with" in str(
        ruined.verdict
    )
    assert any("lower learning rate" in r for r in ruined.verdict.reasons)
    mended = run(photos, tmp_path / "b", GREEN, ALL, NOWHERE)
    assert str(mended.verdict).startswith("unclear: better than its start by 50.0 points of k-NN")
    assert str(mended.verdict).endswith("but no score clears its floor.")  # pixels do as well
    assert mended.verdict.start == "better"
    assert any("96 labeled images of the training data" in r for r in mended.verdict.reasons)
    found = report.compare([tmp_path / "a", tmp_path / "b"], tmp_path / "c.html").overview
    rows = {row[0]: row[1:] for row in found}
    assert rows["kept"] == [KEPT_START, STATISTICS]
    assert rows["beside its start"] == ["within the noise", "better"]
    assert float(rows["k-NN as it began %"][0]) == mended.scores.scores["this encoder"][0].value
    page = (tmp_path / "b" / "report.html").read_text()
    for words in ("What was kept", "as it began", STATISTICS.replace("'", "&#x27;"), "Better"):
        assert words in page or words.lower() in page, words


@pytest.fixture(scope="module")
def continued(photos, tmp_path_factory):
    """A run of a network of timm's, from weights that somebody made."""
    encoder = Image("test_resnet", 32)
    encoder.trained = True
    return pretrain(SimCLR(encoder), photos, tmp_path_factory.mktemp("run") / "a", **RUN)


def test_the_card_tells_of_start_and_choice(continued, tmp_path):
    export.convert(continued.folder, to="safetensors", out=tmp_path / "e")
    card = (tmp_path / "e" / "README.md").read_text()
    for words in ("## What was kept", f"| {STATISTICS} |", "| as it began | k-NN |", "its start"):
        assert words in card, words


@pytest.mark.parametrize("name", [END, KEPT_START])
def test_a_run_that_begins_with_another_is_told_what_that_kept(continued, tmp_path, caplog, name):
    run = shutil.copytree(continued.folder, tmp_path / "a")
    (run / "kept.json").write_text(json.dumps({"kept": name}))
    with caplog.at_level("INFO", "selftaught"):
        restore.began(run)
    assert ("encoder.safetensors begins with that" in caplog.text) == (name != END)
    begun = restore.began(run / "encoder.safetensors")
    for key, x in continued.encoder.state_dict().items():
        assert torch.equal(begun[f"backbone.{key}"], x)


def test_evaluate_finds_the_start_of_a_run_by_itself(continued, photos, caplog, monkeypatch):
    monkeypatch.setattr(score, "LEAST_STEPS", 1)
    probes = ("knn", "ridge", "finetune")
    found = score.evaluate_command(
        str(continued.folder), str(photos), probes=probes, epochs=1, shares=(1.0,)
    )
    begun = evaluate.knn(evaluate.embed(continued.began, photos))
    row = {s.name: s for s in found.scores["as it began"]}
    assert row["k-NN"].value == begun.value
    assert list(row) == ["k-NN", "probe", "fine-tuned, 100 % of labels"]
    assert [g.floor for g in found.gains] == ["as it began"] * 3
    kept_there = json.loads((continued.folder / "evaluated.json").read_text())["evaluations"]
    assert "as it began" in {r["features"] for r in kept_there[-1]["scores"]}
    assert all(not p.requires_grad for p in continued.began.parameters())
    html = continued._repr_html_()
    assert "<th>as it began</th>" in html
    file = continued.folder / "encoder.safetensors"
    assert "as it began" in score.evaluate_command(str(file), str(photos)).scores
    (continued.folder / "start.safetensors").rename(continued.folder / "away")
    assert "as it began" not in score.evaluate_command(str(file), str(photos)).scores
    (continued.folder / "start.safetensors").write_bytes(b"no")
    assert "as it began" not in score.evaluate_command(str(file), str(photos)).scores
    assert "there are no scores of it" in caplog.text
    (continued.folder / "away").rename(continued.folder / "start.safetensors")


def test_what_is_asked_for_is_kept(photos, tmp_path):
    made = run(photos, tmp_path / "a", ALL, RED, keep="end")
    assert kept_of(made)["kept"] == END
    assert made.verdict.start == "worse"
    assert str(made.verdict).startswith("did not learn: worse than the weights it began with by")
    made = run(photos, tmp_path / "b", ALL, GREEN, NOWHERE, keep="start-statistics")
    assert kept_of(made)["kept"] == STATISTICS
    assert made.encoder.state_dict()["net.norm.running_mean"].tolist() == [0, 0, 0]
    with pytest.raises(UserError, match="has no start"):
        pretrain(
            "simclr",
            photos,
            tmp_path / "c",
            backbone="test_resnet",
            size=32,
            keep="start-statistics",
            **RUN,
        )
    vit = Image("test_vit2", 32)
    vit.trained = True
    with pytest.raises(UserError, match="has no batch norms"):
        pretrain(SimCLR(vit), photos, tmp_path / "d", keep="start-statistics", **RUN)


def test_a_run_goes_on_from_its_end_whatever_was_kept(photos, tmp_path):
    made = run(photos, tmp_path / "a", ALL, RED)
    assert made.encoder.state_dict()["net.weight"].tolist() == pytest.approx(ALL)
    seen = []

    def before_step(self):
        seen.append(self.backbone.net.weight.tolist())

    method = SimCLR(Wrapped(Channels(*ALL), 8, trained=True), hidden=8, dim=4)
    method.before_step = MethodType(before_step, method)
    again = pretrain(method, photos, tmp_path / "a", **RUN | {"epochs": 2}, resume=True, force=True)
    assert seen[0] == pytest.approx(RED)
    assert again.began.state_dict()["net.weight"].tolist() == pytest.approx(ALL)


# without labels ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("end", "wanted"), [((0.0, 1.1, 1.0), STATISTICS), ((0.0, 900.0, 800.0), END)]
)
def test_without_labels_statistics_stay_where_they_fit(tmp_path, end, wanted):
    images = np.random.default_rng(0).integers(0, 255, (32, 8, 8, 3), np.uint8)

    class Deep(nn.Module):
        def __init__(self, *weights):
            super().__init__()
            self.first, self.second = Channels(*weights), nn.BatchNorm1d(3)

        def forward(self, x):
            return self.second(self.first(x))

    shaken = {"second.running_mean": torch.full((3,), 5.0)}
    method = ending(Deep(0.0, 1.0, 1.0), Deep(*end).state_dict() | shaken)
    made = pretrain(method, images, tmp_path / "a", **RUN)
    said = kept_of(made)
    assert said["kept"] == wanted
    assert "without labels nobody can tell" in said["why"]
    assert made.verdict.word == "unclear"


@pytest.mark.parametrize(("each", "wanted"), [(9, "statistics"), (10, "labels")])
def test_few_labels_choose_nothing(tmp_path, each, wanted):
    """Four of five images of each class may choose: 28 are too few, 32 are not."""
    rng = np.random.default_rng(0)
    for kind in range(4):
        (tmp_path / "data" / str(kind)).mkdir(parents=True)
        for i in range(each):
            pixels = rng.integers(0, 255, (8, 8, 3), np.uint8)
            Picture.fromarray(pixels).save(tmp_path / "data" / str(kind) / f"{i}.png")
    said = kept_of(run(tmp_path / "data", tmp_path / "a", ALL, GREEN))
    assert said.get("by", "statistics") == wanted
    if wanted == "statistics":
        assert "28 labeled images besides those of the scores are too few" in said["why"]


def test_where_training_learned_from_the_labels_the_end_is_kept(photos, tmp_path):
    method = Finetune(Wrapped(Channels(*ALL), 8, trained=True), classes=4)
    said = kept_of(pretrain(method, photos, tmp_path / "a", **RUN))
    assert said == {
        "kept": END,
        "why": "Kept: end; what training learned of the labels goes with it.",
    }


def test_fresh_weights_have_nothing_to_choose_from(photos, tmp_path):
    made = pretrain("simclr", photos, tmp_path / "a", backbone="test_resnet", size=32, **RUN)
    assert not (tmp_path / "a" / "kept.json").exists()
    assert "as it began" not in made.scores.scores
    assert made.verdict.start is None


# values ------------------------------------------------------------------------------------------


def states():
    start, end = (
        {
            "conv.weight": torch.full((2, 2), w),
            "bn.running_mean": torch.full((2,), m),
            "bn.running_var": torch.full((2,), v),
            "bn.num_batches_tracked": torch.tensor(n),
            "index": torch.tensor([n]),
        }
        for w, m, v, n in ((1.0, 2.0, 3.0, 4), (5.0, 6.0, 7.0, 8))
    )
    return start, end


def test_blends_are_of_weights_alone_and_keep_the_first_statistics():
    start, end = states()
    mixed = blend(start, end, 0.25)
    assert mixed["conv.weight"].tolist() == [[2.0, 2.0], [2.0, 2.0]]
    assert mixed["bn.running_mean"].tolist() == [2.0, 2.0]
    assert mixed["bn.running_var"].tolist() == [3.0, 3.0]
    assert int(mixed["bn.num_batches_tracked"]) == 4
    assert mixed["index"].tolist() == [8]
    put_back = with_statistics(end, start)
    assert put_back["conv.weight"].tolist() == [[5.0, 5.0], [5.0, 5.0]]
    assert put_back["bn.running_var"].tolist() == [3.0, 3.0]
    assert end["bn.running_var"].tolist() == [7.0, 7.0]  # as it was


def test_candidates_are_what_differs():
    start, end = states()
    assert list(candidates(start, end)) == [END, STATISTICS, *BLENDS, KEPT_START]
    for state in (start, end):  # a ViT has no statistics
        for name in [n for n in state if n.startswith("bn")]:
            del state[name]
    assert list(candidates(start, end)) == [END, *BLENDS, KEPT_START]
    assert list(candidates(end, dict(end))) == [END]
    assert list(candidates(start, end | {"lora": torch.zeros(2)})) == [END, KEPT_START]
    grown = end | {"conv.weight": torch.zeros(3, 2)}
    assert list(candidates(start, grown)) == [END, KEPT_START]


def shares(*rights: int, n: int = 100) -> np.ndarray:
    """[n], with a row of images that are right from the first to the number given, and so on."""
    found = np.zeros(n)
    for first, last in zip(rights[::2], rights[1::2]):
        found[first:last] = 1
    return found


@pytest.mark.parametrize(
    ("end", "between", "start", "wanted"),
    [
        (shares(0, 80), shares(0, 80), shares(0, 80), END),  # all are as good
        (shares(0, 80), shares(0, 81), shares(0, 70), END),  # one image is noise
        (shares(0, 80), shares(0, 82), shares(0, 70), MOST),  # two, and none lost
        (shares(0, 80), shares(10, 94), shares(0, 70), END),  # 14 won, 10 lost
        (shares(0, 80), shares(4, 92), shares(0, 70), MOST),  # 12 won, 4 lost
        (shares(0, 70), shares(0, 75), shares(0, 80), KEPT_START),
        (shares(0, 70), shares(0, 81), shares(0, 80), KEPT_START),  # above the end is not enough
        (shares(0, 70), shares(0, 90), shares(0, 80), MOST),
    ],
)
def test_what_lies_between_must_be_better_by_more_than_noise(end, between, start, wanted):
    assert best({END: end, MOST: between, KEPT_START: start}) == wanted


def test_noise_is_not_chosen_from():
    """Five candidates as good as the end: their highest is not taken for better."""
    rng = np.random.default_rng(0)
    picked = []
    for _ in range(200):
        right = {name: rng.random(400) < 0.8 for name in (END, STATISTICS, *BLENDS)}
        right = {name: x.astype(float) for name, x in right.items()}
        picked.append(best(right))
        ranked = max(right, key=lambda name: right[name].sum())
        assert picked[-1] in (END, ranked)
    assert picked.count(END) / len(picked) > 0.4


def test_images_are_classified_by_others():
    rng = np.random.default_rng(0)
    y = torch.arange(3).repeat(20)
    x = torch.eye(3)[y] + 0.01 * torch.from_numpy(rng.normal(size=(60, 3))).float()
    folds = folds_of(y.numpy())
    assert np.bincount(folds).tolist() == [12] * 5
    assert rightness(x, y, folds).all()
    noise = torch.from_numpy(rng.normal(size=(60, 3))).float()
    assert 0.1 < rightness(noise, y, folds).mean() < 0.6


@pytest.mark.parametrize("bad", [(), (0, 7, 51)])
def test_images_that_choose_are_none_of_the_scores(photos, bad):
    samples = open_data(photos)
    judges = Judges.of(samples, bad, None)
    labels = np.asarray(samples.labels)
    index = np.setdiff1d(np.arange(len(samples)), bad)
    features = np.random.default_rng(0).normal(size=(len(index), 2)).astype(np.float32)
    task = Task.of(Embeddings(features, labels[index], index))
    scored = index[task.tested]
    assert not set(judges.rows) & set(scored)
    assert set(judges.rows) | set(scored) == set(index)
    assert judges.scored == len(scored)
    held = Judges.of(samples, bad, samples)
    assert held.rows.tolist() == index.tolist()
    assert held.scored == len(samples)


def test_misfit_is_the_divergence_of_normal_distributions():
    net = Channels(1.0, 1.0, 1.0)
    x = torch.randn(50, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    x = (x - x.mean((0, 2, 3), keepdim=True)) / x.std((0, 2, 3), correction=0, keepdim=True)
    encoder = Wrapped(net, 8).eval()
    assert misfit(encoder, x) == pytest.approx(0, abs=1e-5)
    assert misfit(encoder, 2 * x + 1) == pytest.approx((4 - 1 - np.log(4) + 1) / 2, rel=1e-3)
    assert misfit(Wrapped(nn.Flatten(), 8), x) == 0


def test_images_that_nobody_knew_of_are_told(tmp_path, caplog):
    (tmp_path / "kept.json").write_text(json.dumps({"unreadable": 1}))
    kept.apart(tmp_path, 1)
    assert not caplog.records
    kept.apart(tmp_path, 3)
    assert "2 images that training never drew" in caplog.text
