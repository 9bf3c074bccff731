"""Classifiers: labels in words, choice, calibration, scores, files, predictions, graph."""

import csv
import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image as Picture
from sklearn.metrics import average_precision_score
from torch.nn import functional as F

import selftaught
from selftaught import augment, classifier
from selftaught.backbones import backbone
from selftaught.classifier import choosing, graph, heads, judging, targets
from selftaught.classifier.targets import Target
from selftaught.cli import main
from selftaught.data import open_data
from selftaught.data.labels import warn_once
from selftaught.engine.build import count_classes
from selftaught.errors import DataError, UserError
from selftaught.evaluate import comparing
from selftaught.evaluate.scores import fit_ridge
from selftaught.sides import both
from tests.photos import two_classes

SIZE = 32


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    """A folder with a tiny encoder."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("encoder")
    selftaught.export.save(backbone("test_resnet", size=SIZE).eval(), folder, quick=True)
    return folder


@pytest.fixture(scope="module")
def labeled(tmp_path_factory):
    """Sixteen images of two classes, which their brightness tells."""
    folder = tmp_path_factory.mktemp("data") / "labeled"
    two_classes(folder)
    return folder


@pytest.fixture(scope="module")
def made(encoder, labeled, tmp_path_factory):
    """A classifier of them, and its folder."""
    folder = tmp_path_factory.mktemp("made") / "model"
    return selftaught.classify(encoder, labeled, out=folder), folder


def listed(folder: Path, labels: list[str], images: Path, head: str = "path,label") -> Path:
    """A CSV that gives these labels to images, in their order."""
    names = sorted(images.rglob("*.png"))
    lines = [head, *(f'{n},"{label}"' for n, label in zip(names, labels, strict=True))]
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    return folder / "labels.csv"


# labels ------------------------------------------------------------------------------------------


def told(tmp_path, labels, images, kind=None):
    return targets.told(open_data(listed(tmp_path, labels, images)), kind)


@pytest.mark.parametrize(
    ("labels", "kind", "names"),
    [
        (["cat", "dog"] * 8, "classes", ("cat", "dog")),
        (["1", "0"] * 8, "classes", ("0", "1")),
        ([str(i) for i in range(16)], "classes", tuple(map(str, range(16)))),
        (["cat;dog", "dog", "cat", ""] * 4, "multilabel", ("cat", "dog")),
        (["cat | dog", "dog|bird"] * 8, "multilabel", ("bird", "cat", "dog")),
        (["a;b"] * 8 + ["c;d"] * 8, "classes", ("a;b", "c;d")),  # names with a semicolon
        (["0.5", "1.5"] * 8, "classes", ("0.5", "1.5")),  # two sizes, say
        ([str(i / 3) for i in range(16)], "regression", ("value",)),
        ([f"-{i}.25e1" for i in range(16)], "regression", ("value",)),
    ],
)
def test_what_labels_are_is_told_from_how_they_are_written(tmp_path, labeled, labels, kind, names):
    found = told(tmp_path, labels, labeled)
    assert (found.kind, found.names) == (kind, names)


def test_slips_among_amounts_are_classes_where_that_is_said(tmp_path, labeled):
    sizes = ["big", *(str(i / 3) for i in range(15))]
    assert len(told(tmp_path, sizes, labeled, "classes").names) == 16
    few = ["big", "1.5", "2.5"] + ["big"] * 13
    assert told(tmp_path, few, labeled).names == ("1.5", "2.5", "big")
    thousands = [f"{i},000" for i in range(16)]
    assert told(tmp_path, thousands, labeled).kind == "classes"


def test_whole_numbers_are_amounts_only_where_that_is_said(tmp_path, labeled):
    ages = [str(20 + 3 * i) for i in range(16)]
    assert told(tmp_path, ages, labeled).kind == "classes"
    assert "where they are amounts, say so with --target" in told(tmp_path, ages, labeled).why
    assert "amounts" not in told(tmp_path, ["0", "1"] * 8, labeled).why
    found = told(tmp_path, ages, labeled, "regression")
    samples = open_data(listed(tmp_path, ages, labeled))
    assert targets.values(samples, found).tolist() == list(range(20, 68, 3))


@pytest.mark.parametrize(
    ("labels", "kind", "message"),
    [
        (["cat"] * 16, None, "all 16 labeled images are of one class (cat)"),
        ([""] * 16, None, "this data has none"),
        (["cat", "1.5"] * 8, "regression", "cat: no number that a regression can learn"),
        ([f"{i},5" for i in range(16)], None, "0,5, 1,5, 10,5, 11,5, 12,5, ... cannot be read"),
        (["inf", *(str(i / 3) for i in range(15))], None, "and inf cannot be read as one"),
        (["unknown", *(f"{i}.25" for i in range(15))], None, "and unknown cannot be read as one"),
        (["1.5"] * 16, "regression", "nothing to predict"),
    ],
)
def test_labels_that_nothing_can_be_learned_from_are_refused(
    tmp_path, labeled, labels, kind, message
):
    with pytest.raises(UserError) as error:
        told(tmp_path, labels, labeled, kind)
    assert message in str(error.value)


def test_a_folder_of_one_class_is_called_so(tmp_path, labeled):
    one, every = tmp_path / "one", sorted(labeled.rglob("*.png"))
    (one / "cats" / "young").mkdir(parents=True)
    for i, file in enumerate(every):
        shutil.copy(file, one / "cats" / ("young" if i % 2 else "") / f"{i}.png")
    with pytest.raises(UserError, match=f"all {len(every)} images are in one folder, cats, and a"):
        targets.told(open_data(str(one)))
    with pytest.raises(UserError, match="two classes at least, and this data has one folder, cats"):
        count_classes(open_data(str(one)), "supcon")
    for flat in (str(one / "cats"), str(listed(tmp_path, [""] * len(every), labeled))):
        with pytest.raises(UserError, match="this data has none"):
            targets.told(open_data(flat))


def test_several_names_are_columns_of_zero_and_one(tmp_path, labeled):
    labels = ["a;b", "b", ";", "a"] * 4  # a lone semicolon: none of the names
    samples = open_data(listed(tmp_path, labels, labeled))
    found = targets.values(samples, targets.told(samples))
    assert found[:4].tolist() == [[1, 1], [0, 1], [0, 0], [1, 0]]


def test_lists_in_a_table_are_several_names(tmp_path, labeled):
    files = [p.read_bytes() for p in sorted(labeled.rglob("*.png"))][:4]
    labels = [["a", "b"], ["b"], [], None]
    pq.write_table(pa.table({"image": files, "label": labels}), tmp_path / "t.parquet")
    samples = open_data(str(tmp_path / "t.parquet"))
    assert targets.texts(samples) == ["a;b", "b", ";", None]
    assert targets.told(samples).names == ("a", "b")


# choice ------------------------------------------------------------------------------------------


def test_folds_hold_each_sample_once_and_never_the_only_one_of_its_class():
    groups = np.array([0] * 7 + [1] * 2 + [2] + [3] * 4)
    parts = choosing.folds(groups)
    every = np.sort(np.concatenate(parts))
    assert every.tolist() == [i for i in range(14) if i != 9]
    for held in parts:
        rest = np.setdiff1d(np.arange(14), held)
        assert set(groups[held]) <= set(groups[rest])
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_the_ridge_is_that_of_the_probe():
    x = torch.randn(40, 12)
    x[:, 3] = 5.0  # a feature that is always the same
    y = torch.randint(0, 3, (40,))
    classify, strength, _ = fit_ridge(x, y)
    found = dict(heads.ridge(x, F.one_hot(y).float()))[f"ridge, strength {strength:g}"]
    test = torch.randn(100, 12)
    assert torch.equal(found(test).argmax(1), classify(test))


@pytest.mark.parametrize("width", [5, 60])  # fewer features than samples, and more
@pytest.mark.parametrize("kind", ["classes", "multilabel"])
def test_the_logistic_regression_is_at_its_minimum(width, kind):
    x = torch.randn(30, width) * 3 + 2
    y = F.one_hot(torch.randint(0, 3, (30,)), 3).float()
    found = dict(heads.logistic(x, y, kind))["logistic, penalty 0.1"]
    z = (x - x.mean(0)) / x.std(0, correction=0)
    weight = (found.weight * x.std(0, correction=0)[:, None]).requires_grad_()
    bias = found(x).mean(0) - (z @ weight).mean(0)
    bias = bias.detach().requires_grad_()
    logits = z @ weight + bias
    loss = F.cross_entropy(logits, y)
    if kind == "multilabel":
        loss = F.binary_cross_entropy_with_logits(logits, y) * 3
    (loss + 0.05 * weight.square().sum()).backward()
    assert weight.grad.abs().max() < 2e-3
    assert bias.grad.abs().max() < 2e-3


def test_neighbors_vote_as_for_the_score():
    x, y = torch.randn(30, 8), torch.randint(0, 3, (30,))
    test = torch.randn(50, 8)
    found = heads.Neighbors(F.normalize(x, dim=1), F.one_hot(y).float(), 5, "classes")
    wanted = selftaught.evaluate.scores.vote(x, y, test, 5, heads.VOTES)
    assert torch.equal(found(test).argmax(1), wanted)


def test_the_best_on_held_out_parts_is_chosen():
    """Classes on two rings, which no line divides; then on two sides of a line."""
    turn = torch.rand(200) * 6.28
    y = torch.arange(200) % 2
    rings = torch.stack([turn.cos(), turn.sin()], 1)
    x = torch.cat([rings * y[:, None], rings * (1 - y[:, None])], 1) + 0.01
    every = ("ridge", "logistic", "knn")
    target = Target("classes", ("a", "b"))
    square = (turn * 4).sin() > 0  # neighbors in angle are alike, and no line knows it
    found = choosing.learn(rings, square.long().numpy(), target, every)
    assert found.name.startswith("k-NN")
    line = choosing.learn(x @ torch.randn(4, 20), y.numpy(), target, ("ridge",))
    assert "best of 7 by 5-fold cross-validation" in line.how


@pytest.mark.parametrize("sure", [0.3, 1.0, 5.0])
def test_a_temperature_makes_probabilities_as_sure_as_they_are_right(sure):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(4000, 3, generator=generator) * 2
    y = torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0]
    _, scale, shift = choosing.calibrate(logits * sure, F.one_hot(y).float(), "classes")
    assert scale * sure == pytest.approx(1, rel=0.06)
    assert shift == 0


def test_who_was_always_right_is_surer_the_more_often_that_was():
    sure = []
    for count in (10, 1000):
        y = F.one_hot(torch.arange(count) % 2).float()
        _, scale, _ = choosing.calibrate(y * 2 - 1, y, "classes")
        sure.append(float((torch.tensor([1.0, -1.0]) * scale).softmax(0)[0]))
    assert sure == pytest.approx([10.5 / 11, 1000.5 / 1001], abs=1e-3)


def test_names_that_are_told_one_by_one_get_a_line_of_platt():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(4000, 2, generator=generator) * 2 - 1
    y = (torch.rand(4000, 2, generator=generator) < logits.sigmoid()).float()
    _, scale, shift = choosing.calibrate((logits + 1) * 3, y, "multilabel")
    assert scale == pytest.approx(1 / 3, rel=0.06)
    assert shift == pytest.approx(-1, abs=0.1)


def test_average_precision_is_that_of_scikit_learn():
    rng = np.random.default_rng(0)
    scores = np.round(rng.normal(size=(50, 4)), 1)  # with ties
    truth = (rng.random((50, 4)) < 0.3).astype(float)
    wanted = [average_precision_score(truth[:, c], scores[:, c]) for c in range(4)]
    assert choosing.average_precisions(scores, truth) == pytest.approx(wanted)
    truth[:, 1] = 0
    assert np.isnan(choosing.average_precisions(scores, truth)[1])


# judgment ----------------------------------------------------------------------------------------


def exam(x, y, names, test=None):
    target = Target("classes", names)
    return judging.Exam.of(target, np.asarray(y), test, ("ridge",), 0)


def test_few_labels_are_each_told_by_a_classifier_of_the_others():
    y = np.arange(40) % 2
    x = torch.randn(40, 4) + 4 * torch.from_numpy(y)[:, None]
    judged = exam(x, y, ("a", "b")).take(x, None)
    assert np.sort(judged.index).tolist() == list(range(40))
    (score,) = judging.scores(judged, 0.0)
    assert (score.name, score.n) == ("accuracy", 40)
    assert score.value > 90
    assert judged.confusion.sum() == 40
    noise = exam(x, np.random.default_rng(0).permutation(y), ("a", "b")).take(x, None)
    assert 20 < judging.scores(noise, 0.0)[0].value < 80  # nothing is learned of its own label


def test_unlike_classes_are_scored_alike():
    y = np.array([0] * 90 + [1] * 10)
    target = Target("classes", ("good", "bad"))
    always = np.tile([0.9, 0.1], (100, 1))
    found = judging.scores(judging.Judged(np.arange(100), always, y, target, ""), 0.0)
    assert [(s.name, s.value) for s in found] == [("accuracy", 90.0), ("balanced accuracy", 50.0)]
    lines = " ".join(judging.told(y, target, 3))
    assert "from 10 (bad) to 90 (good)" in lines
    assert "3 images have no label" in lines


def test_how_sure_it_is_stands_beside_how_often_it_is_right():
    target = Target("classes", ("a", "b"))
    outputs = np.array([[0.85, 0.15]] * 10)
    judged = judging.Judged(np.arange(10), outputs, np.array([0] * 6 + [1] * 4), target, "")
    assert judged.sureness == [{"predictions": 10, "said": 85.0, "right": 60.0}]
    assert judged.off == pytest.approx(25)
    assert judged.mistakes.tolist() == [6, 7, 8, 9]


def test_unlike_names_are_no_trouble_of_accuracy():
    several = Target("multilabel", ("a", "b"))
    given = np.array([[1.0, 0.0]] * 8 + [[0.0, 1.0]] * 2)
    (line,) = [x for x in judging.told(given, several, 0) if "unlike size" in x]
    assert line.endswith("from 2 (b) to 8 (a): mAP counts each of them alike")
    one = Target("classes", ("a", "b"))
    (line,) = [x for x in judging.told(given.argmax(1), one, 0) if "unlike size" in x]
    assert line.endswith("accuracy is mostly that of the large ones")


@pytest.mark.parametrize(("fresh", "said"), [(40, ""), (37, "3 of 40 test"), (0, "40 of 40 test")])
def test_test_images_that_were_learned_from_are_counted(fresh, said, caplog):
    warn_once.cache_clear()
    rng = np.random.default_rng(0)
    train = rng.random((60, 8), np.float32)
    test = np.concatenate([rng.random((fresh, 8), np.float32), train[: 40 - fresh]])
    comparing.tell_shared(train, test)
    assert said in caplog.text if said else not caplog.text
    comparing.tell_shared(np.zeros((3, 8)), np.zeros((2, 8)))  # black ones are no copies
    assert "of 2 test" not in caplog.text


def test_a_classifier_is_no_run_whose_page_could_be_made_anew(made, labeled, capsys):
    _, folder = made
    page = (folder / "report.html").read_bytes()
    assert main(["report", str(folder)]) == 2
    assert "is a classifier and no run of pretrain" in capsys.readouterr().err
    assert main(["evaluate", str(folder), str(labeled), "--test", str(labeled)]) == 0
    told = capsys.readouterr().err
    assert "16 of 16 test images are among the training images as well" in told
    assert "puts them on the page" not in told
    assert main(["compare", str(folder), str(labeled)]) == 2
    assert (folder / "report.html").read_bytes() == page


def test_a_class_of_one_image_is_learned_from_and_told_so():
    y = np.array([0] * 6 + [1] * 6 + [2])
    x = torch.randn(13, 4) + 5 * F.one_hot(torch.from_numpy(y), 4)
    target = Target("classes", ("a", "b", "c"))
    judged = exam(x, y, target.names).take(x, None)
    assert 12 not in judged.index
    assert "c: one image alone" in " ".join(judging.told(y, target, 0))
    found = choosing.learn(x, y, target, ("ridge",))
    assert found.head(x).argmax(1)[12] == 2


def test_two_images_a_class_are_enough_and_one_is_not():
    x = torch.eye(4).repeat_interleave(2, 0) + 0.01 * torch.randn(8, 4)
    judged = exam(x, np.arange(4).repeat(2), tuple("abcd")).take(x, None)
    assert len(judged.index) == 8
    with pytest.raises(UserError, match="two images of each class"):
        exam(x[::2], np.arange(4), tuple("abcd"))


# the whole ---------------------------------------------------------------------------------------


def test_a_classifier_is_scored_beside_its_floors(made):
    found, folder = made
    (score,) = found.scores.values()
    assert found.scores.keys() == {"accuracy"}
    assert score["n"] == 16
    assert score["floors"].keys() == {"untrained", "pixels 8x8", "pixels 16x16"}
    low, high = score["interval"]
    assert low < score["value"] <= high
    assert repr(found).startswith("<Classifier test_resnet, 2 names: accuracy ")
    assert len(repr(found)) < 80
    page = (folder / "report.html").read_text()
    for title in ("Beside floors", "What was taken for what", "How sure it is"):
        assert f"<h2>{title}</h2>" in page


def test_what_is_saved_says_the_same(made, labeled):
    found, folder = made
    again = classifier.load(folder)
    assert again.scores == found.scores
    assert again.target.names == ("0", "1")
    one, two = found.predict(labeled), again.predict(labeled)
    assert np.array_equal(one.outputs, two.outputs)
    assert one.names == [f"{c}/{i}.png" for c in range(2) for i in range(8)]
    assert one.labels == two.labels
    assert np.allclose(one.outputs.sum(1), 1, atol=1e-5)
    assert selftaught.load(folder).dim == found.network.dim  # which is an encoder, too
    about = json.loads((folder / "model.json").read_text())
    assert (about["size"], about["resize_short_side"]) == (SIZE, SIZE)
    assert about["classes"] == ["0", "1"]


def test_who_is_not_sure_gives_no_label(made, labeled):
    found, _ = made
    outputs = np.array([[0.9, 0.1], [0.55, 0.45], [0.2, 0.8]])
    assert found.labels(outputs) == ["0", "0", "1"]
    assert found.labels(outputs, 0.6) == ["0", "", "1"]
    assert found.labels(outputs, 0.85) == ["0", "", ""]
    assert set(found.predict(labeled, min=1.0).labels) == {""}


def test_a_damaged_or_foreign_folder_is_refused_in_words(made, tmp_path):
    _, folder = made
    with pytest.raises(UserError, match="does not exist"):
        classifier.load(tmp_path / "nothing")
    with pytest.raises(UserError, match="holds no classifier"):
        classifier.load(tmp_path)
    for name in ("head.safetensors", "model.json", "encoder.safetensors", "encoder.json"):
        copied = tmp_path / name.replace(".", "-")
        copied.mkdir()
        for file in folder.iterdir():
            if file.is_file():
                (copied / file.name).write_bytes(file.read_bytes())
        (copied / name).write_bytes((folder / name).read_bytes()[:-9])
        with pytest.raises(UserError, match=name):
            classifier.load(copied)
        (copied / name).unlink()
        with pytest.raises(UserError):
            classifier.load(copied)


def test_unlabeled_and_unreadable_images_are_left_out(encoder, labeled, tmp_path, caplog):
    for path in labeled.rglob("*.png"):
        (tmp_path / "d" / path.parent.name).mkdir(parents=True, exist_ok=True)
        (tmp_path / "d" / path.parent.name / path.name).write_bytes(path.read_bytes())
    (tmp_path / "d" / "0" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n no picture")
    labels = [""] + ["dark"] * 8 + ["bright"] * 7 + [""]
    file = listed(tmp_path, labels, tmp_path / "d")
    with caplog.at_level(logging.INFO, "selftaught"):
        found = selftaught.classify(encoder, file, heads=["ridge"])
    assert found.scores["accuracy"]["n"] == 17 - 3
    assert "2 images have no label and are left out" in caplog.text


def test_amounts_are_predicted(encoder, labeled, tmp_path):
    bright = [float(np.asarray(Picture.open(p)).mean()) for p in sorted(labeled.rglob("*.png"))]
    labels = [f"{v:.3f}" for v in bright]
    found = selftaught.classify(encoder, listed(tmp_path, labels, labeled), out=tmp_path / "m")
    assert found.target.kind == "regression"
    assert found.scores["R²"]["value"] > 80
    again = classifier.load(tmp_path / "m").predict(labeled)
    assert again.outputs.shape == (16, 1)
    assert np.corrcoef(again.outputs[:, 0], bright)[0, 1] > 0.9
    assert float(again.labels[0]) == pytest.approx(again.outputs[0, 0], rel=1e-4)
    with pytest.raises(UserError, match=r"min=0\.5 is a probability, and this classifier predicts"):
        found.predict(labeled, min=0.5)


def test_several_names_are_predicted(encoder, labeled, tmp_path):
    labels = ["dark;photo", "dark"] * 4 + ["bright", "bright;photo"] * 4
    file = listed(tmp_path, labels, labeled)
    found = selftaught.classify(encoder, file, out=tmp_path / "m", heads=["ridge", "knn"])
    assert found.scores.keys() == {"mAP"}
    again = classifier.load(tmp_path / "m").predict(labeled)
    assert again.classes == ("bright", "dark", "photo")
    assert {"dark" in label for label in again.labels[:8]} == {True}
    assert {"bright" in label for label in again.labels[8:]} == {True}
    assert "Each name" in (tmp_path / "m" / "report.html").read_text()


def test_test_images_may_be_given(encoder, labeled, made):
    found = selftaught.classify(encoder, labeled, str(labeled), heads=["ridge"])
    assert found.scores["accuracy"]["n"] == 16
    assert "tested on the 16 given" in found.about["held_out"]["how"]


def test_the_whole_network_may_be_trained(encoder, labeled):
    found = selftaught.classify(encoder, labeled, finetune=True, epochs=1, heads=["ridge"])
    assert "Fine-tuned " in found.about["finetuned"]
    assert "Kept is the f" in found.about["finetuned"]
    names = {"untrained", "pixels 8x8", "pixels 16x16"}
    tuned = "Kept is the fine-tuned" in found.about["finetuned"]
    wanted = names | {"frozen"} if tuned else names
    assert found.scores["accuracy"]["floors"].keys() == wanted
    assert found.predict(labeled).outputs.shape == (16, 2)


# commands ----------------------------------------------------------------------------------------


def test_classify_then_predict(encoder, labeled, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["classify", str(encoder), str(labeled), "--heads", "ridge"]) == 0
    said = capsys.readouterr().out
    assert "accuracy" in said
    assert f"selftaught predict {encoder}/model photos/" in said
    assert main(["classify", str(encoder), str(labeled)]) == 2
    assert "holds a classifier already" in capsys.readouterr().err
    again = ["classify", str(encoder), str(labeled), "--heads", "knn", "--overwrite", "--json"]
    assert main(again) == 0
    about = json.loads(capsys.readouterr().out)
    assert about["scores"]["accuracy"]["n"] == 16
    assert (Path(f"{encoder}/model.old-1") / "model.json").is_file()

    (tmp_path / "photos").mkdir()
    for i, path in enumerate(sorted(labeled.rglob("*.png"))):
        (tmp_path / "photos" / f"{i:02d}.png").write_bytes(path.read_bytes())
    (tmp_path / "photos" / "03b.png").write_bytes(b"\x89PNG\r\n\x1a\n no picture")
    assert main(["predict", str(encoder), "photos", "--batch", "5"]) == 0  # the run's own model
    assert "1 cannot be read and are listed in predictions.bad.csv" in capsys.readouterr().out
    rows = list(csv.DictReader(Path("predictions.csv").read_text().splitlines()))
    assert [r["path"] for r in rows] == [f"{i:02d}.png" for i in range(16)]
    assert list(rows[0]) == ["path", "label", "probability", "0", "1"]
    for row in rows:
        assert float(row["probability"]) == max(float(row["0"]), float(row["1"]))
        assert row["label"] == max("01", key=lambda c: float(row[c]))
    assert Path("predictions.bad.csv").read_text().splitlines()[1].startswith("03b.png,")
    assert main(["predict", str(encoder), "photos"]) == 2
    assert "exists already" in capsys.readouterr().err
    out = ["--out", "p.parquet", "--min", "1"]
    assert main(["predict", f"{encoder}/model", "photos", *out]) == 0
    table = pq.read_table("p.parquet").to_pydict()
    assert table["path"] == [r["path"] for r in rows]
    assert all(a is None or p == 1 for a, p in zip(table["label"], table["probability"]))
    assert Path("p.bad.csv").exists()
    (tmp_path / "photos" / "03b.png").unlink()
    assert main(["predict", f"{encoder}/model", "photos", *out, "--overwrite"]) == 0
    assert not Path("p.bad.csv").exists()  # it was of the predictions that are gone


def test_predictions_are_whole_or_absent(made, tmp_path, capsys):
    _, folder = made
    (tmp_path / "photos").mkdir()
    for i in range(2):
        (tmp_path / "photos" / f"{i}.png").write_bytes(b"\x89PNG\r\n\x1a\n no picture")
    out = tmp_path / "p.csv"
    assert main(["predict", str(folder), str(tmp_path / "photos"), "--out", str(out)]) == 3
    assert "none of the 2 images can be read" in capsys.readouterr().err
    assert not out.exists()
    with pytest.raises(DataError):
        classifier.load(folder).predict(tmp_path / "photos")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["predict", "{encoder}", "{data}", "--out", "p.xls"], "p.xls must end in .csv or"),
        (["predict", "{data}", "{data}"], "holds no classifier"),
        (["predict", "{model}", "{data}", "--min", "2"], "min must be from 0 to 1"),
        (["classify", "{encoder}", "{data}", "--size", "64", "--finetune"], "own 32 px"),
        (["classify", "{encoder}", "{data}/0", "--out", "new"], "this data has none"),
        (["classify", "{encoder}", "{data}", "--weights", "{data}/0/0.png"], ""),
        (["export", "{model}", "--to", "timm"], "is a classifier"),
        (["classify", "{encoder}", "{data}", "--out", "{data}/0/0.png/new"], "(Not a directory)"),
        (["export", "{model}", "--to", "onnx", "--out", "{data}/0/0.png/new"], "(Not a directory)"),
    ],
)
def test_what_cannot_be_is_told(
    made, encoder, labeled, tmp_path, monkeypatch, capsys, words, message
):
    monkeypatch.chdir(tmp_path)
    _, folder = made
    places = {"encoder": encoder, "data": labeled, "model": folder}
    more = ["--out", "new"] if words[0] == "classify" and "--out" not in words else []
    assert main([w.format(**places) for w in words] + more) == 2
    told = capsys.readouterr().err
    assert message in told
    assert "choosing a classifier" not in told, "before the work, not after it"
    assert not (tmp_path / "new").exists()


# graph -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sides", [(32, 32), (40, 40), (19, 300), (333, 50), (97, 128)])
def test_the_graph_resizes_to_the_last_level(made, sides):
    found, _ = made
    for size in (32, 64):  # below 64 px nothing is cut off
        whole = graph.Whole(found)
        view = augment.plain(size)
        whole.size, whole.resize = both(view.size), both(view.resize)
        image = np.random.default_rng(0).integers(0, 256, (*sides, 3), np.uint8)
        assert np.array_equal(whole.view(torch.from_numpy(image)[None])[0].numpy(), view(image))


def test_a_graph_says_names_of_bytes(made, labeled, tmp_path, capsys):
    import onnxruntime

    found, folder = made
    assert main(["export", str(folder), "--to", "onnx", "--out", str(tmp_path / "g")]) == 0
    assert "on 16 images that it was made of it says" in capsys.readouterr().out
    assert (tmp_path / "g" / "classes.txt").read_text().split() == ["0", "1"]
    session = onnxruntime.InferenceSession(tmp_path / "g" / "classifier.onnx")
    assert json.loads(session.get_modelmeta().custom_metadata_map["classes"]) == ["0", "1"]
    samples = open_data(labeled)
    batch = np.stack([samples.read(i) for i in range(16)])
    probabilities, labels = session.run(None, {"image": batch})
    wanted = found.predict(labeled)
    assert np.abs(probabilities - wanted.outputs).max() < 1e-4
    assert labels.tolist() == wanted.labels
    strip = batch[0, :10]  # of another size and shape
    outputs = found.predict([strip]).outputs
    assert np.abs(session.run(None, {"image": strip[None]})[0] - outputs).max() < 1e-4


@pytest.mark.parametrize("test", [True, False])
def test_a_fine_tuning_ends_with_its_classifier(encoder, labeled, tmp_path, caplog, test):
    with caplog.at_level(logging.INFO, "selftaught"):
        run = selftaught.pretrain(
            "finetune",
            labeled,
            tmp_path / "run",
            start=encoder,
            test=str(labeled) if test else None,
            epochs=1,
            batch=8,
            size=SIZE,
            backbone="test_resnet",
            curve=False,
        )
    found = classifier.load(run.folder)
    assert found.target.names == ("0", "1")
    told = found.predict(labeled)
    if test:
        right = np.mean([n[0] == label for n, label in zip(told.names, told.labels)])
        assert found.scores["accuracy"]["value"] == pytest.approx(100 * right, abs=0.01)
        assert (
            f"the classifier is in {run.folder}/model: accuracy {100 * right:.1f} %" in caplog.text
        )
    else:
        assert found.scores == {}
        assert "name labeled images with --test to know how often it is right" in caplog.text


def test_weights_of_a_file_are_those_of_the_name(encoder, labeled, tmp_path, capsys):
    weights = str(encoder / "encoder.safetensors")
    words = ["embed", "test_resnet", str(labeled), "--size", str(SIZE), "--weights", weights]
    assert main([*words, "--out", str(tmp_path / "a.npy")]) == 0
    assert main(["embed", str(encoder), str(labeled), "--out", str(tmp_path / "b.npy")]) == 0
    one, other = (np.load(tmp_path / name) for name in ("a.npy", "b.npy"))
    assert np.allclose(one, other, atol=1e-5)
    assert main([*words[:1], str(encoder), *words[2:]]) == 2
    assert "a place that has its own" in capsys.readouterr().err
