"""Features, scores and floors, against the plainest code that could be right."""

import csv
import inspect
import io
import json
import math
import pickle
import re
from pathlib import Path

import numpy as np
import pyarrow
import pytest
import torch
from PIL import Image as Picture
from pyarrow import parquet
from rich.console import Console

from selftaught import augment, evaluate, export
from selftaught.backbones import Image
from selftaught.data import open_data
from selftaught.engine import score
from selftaught.errors import DataError, TrainingError, UserError
from selftaught.evaluate import classifiers, commands, features, scores
from selftaught.evaluate.image import changes
from selftaught.signature import read_function


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Two easily told classes of 12 images of 20 x 24 px; one file of each is broken."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for name in ("dark", "light"):
        (folder / name).mkdir()
        for i in range(12):
            gray = 60 if name == "dark" else 190
            ramp = np.linspace(-40, 40, 24) * (1 if name == "dark" else -1)
            image = gray + ramp[None, :, None] + rng.normal(0, 10, (20, 24, 3))
            Picture.fromarray(image.clip(0, 255).astype(np.uint8)).save(folder / name / f"{i}.png")
        (folder / name / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nno image")
    return folder


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(0)
    return Image("test_resnet", 32)


@pytest.fixture(scope="module")
def found(encoder, photos):
    return evaluate.embed(encoder, photos)


def blobs(n, classes=3, width=8, spread=1.0, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, classes, n)
    centers = np.random.default_rng(9).normal(size=(classes, width))
    x = centers[y] + spread * rng.normal(size=(n, width))
    return x.astype(np.float32), y


# embed ---------------------------------------------------------------------------------------


def test_features_are_those_of_plain_views_one_by_one(encoder, photos, found):
    samples = open_data(photos)
    assert len(found) == 24
    assert list(found.index) == [i for i in range(26) if "broken" not in samples.name(i)]
    encoder.eval()
    for row, i in zip(found.features, found.index):
        view = torch.from_numpy(augment.plain(32)(samples.read(i)))[None]
        with torch.no_grad():
            one = encoder(augment.normalize(view, encoder.mean, encoder.std))[0]
        np.testing.assert_allclose(row, one.numpy(), rtol=1e-4, atol=1e-5)


def test_unreadable_samples_are_named_with_the_reason(photos, found):
    assert len(found.skipped) == 2
    assert all("broken.png" in name and reason for name, reason in found.skipped.items())
    assert found.classes == ("dark", "light")
    assert list(found.labels) == [0] * 12 + [1] * 12


def test_workers_and_batches_change_nothing(encoder, photos, found):
    for options in ({"workers": 2, "batch": 5}, {"workers": 0, "batch": 1}):
        again = evaluate.embed(encoder, photos, **options)
        np.testing.assert_allclose(again.features, found.features, rtol=1e-4, atol=1e-5)
        assert list(again.index) == list(found.index)
        assert again.skipped == found.skipped


def test_the_dataset_travels_to_spawned_workers(photos):
    views = features._Views(open_data(photos), 32, {"flipped": changes.flip}, seed=0)
    item = pickle.loads(pickle.dumps(views))[0, 3]
    assert item.index == 3
    assert item.views.shape == (1, 3, 32, 32)


def test_modes_and_place_are_restored(photos):
    encoder = Image("test_resnet", 32)
    encoder.train()
    encoder.net.bn1.eval()
    before = {name: m.training for name, m in encoder.named_modules()}
    statistics = encoder.net.layer1[0].bn1.running_mean.clone()
    evaluate.embed(encoder, photos)
    assert {name: m.training for name, m in encoder.named_modules()} == before
    assert encoder.net.layer1[0].bn1.running_mean.equal(statistics)


def test_modes_are_restored_after_a_failure(tmp_path):
    encoder = Image("test_resnet", 32).train()
    (tmp_path / "no.png").write_bytes(b"no")
    with pytest.raises(DataError, match=r"none of the 1 samples .*no\.png"):
        evaluate.embed(encoder, tmp_path)
    assert encoder.net.bn1.training


def test_encoders_from_files_are_the_same(encoder, photos, found, tmp_path):
    export.save(encoder, tmp_path / "run")
    for path in (tmp_path / "run", str(tmp_path / "run" / "encoder.safetensors")):
        assert np.array_equal(evaluate.embed(path, photos).features, found.features)


def test_half_precision_is_close_and_falls_back_where_it_is_slow(
    encoder, photos, found, caplog, monkeypatch
):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
    half = evaluate.embed(encoder, photos, precision="bf16").features
    assert half.dtype == np.float32
    assert not np.array_equal(half, found.features)
    np.testing.assert_allclose(half, found.features, atol=0.05 * np.abs(found.features).max())
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    full = evaluate.embed(encoder, photos, precision="bf16").features
    assert np.array_equal(full, found.features)
    assert "no bf16 of its own" in caplog.text


def test_features_that_are_not_finite_stop(photos):
    encoder = Image("test_resnet", 32)
    encoder.net.bn1.weight.data.fill_(float("nan"))
    with pytest.raises(TrainingError, match=r"not finite, first for .*0\.png"):
        evaluate.embed(encoder, photos)


def test_any_channels(tmp_path):
    data = np.random.default_rng(0).integers(0, 255, (6, 30, 40, 5), np.uint8)
    found = evaluate.embed(Image("test_resnet", 32, channels=5), data)
    assert found.features.shape == (6, 96)
    assert found.labels is None
    with pytest.raises(UserError, match="takes images of 3 channels, the samples have 5"):
        evaluate.embed(Image("test_resnet", 32), open_data(data, channels=5))


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ({"encoder": "runs/nowhere"}, "does not exist"),
        ({"encoder": "resnet18x"}, "no backbone is called 'resnet18x'"),
        ({"encoder": 7}, "not a int"),
        ({"device": "cuda:99"}, "device='cuda:99' cannot be used"),
        ({"batch": 0}, "batch=0"),
        ({"size": 0}, "size=0 is a side of images"),
        ({"out": Path("features.txt")}, "must end in one of .npz, .npy, .parquet, .csv"),
    ],
)
def test_arguments_that_cannot_work(encoder, photos, wrong, match):
    with pytest.raises(UserError, match=match):
        evaluate.embed(**{"encoder": encoder, "data": photos, **wrong})


def test_files(encoder, photos, found, tmp_path):
    for name in ("f.npz", "f.npy", "f.parquet"):
        evaluate.embed(encoder, photos, out=tmp_path / name)
    names = [open_data(photos).name(i) for i in found.index]
    saved = np.load(tmp_path / "f.npz")
    assert np.array_equal(saved["features"], found.features)
    assert list(saved["names"]) == names
    assert [saved["classes"][i] for i in saved["labels"]] == ["dark"] * 12 + ["light"] * 12
    assert np.array_equal(np.load(tmp_path / "f.npy"), found.features)
    table = parquet.read_table(tmp_path / "f.parquet").to_pydict()
    assert table["name"] == names
    assert table["class"] == ["dark"] * 12 + ["light"] * 12
    assert np.array_equal(np.array(table["embedding"], np.float32), found.features)


def test_a_table_has_a_column_for_each_dimension_where_wanted(encoder, photos, found, tmp_path):
    export.save(encoder, tmp_path / "run")
    for name, columns in (("f.csv", "auto"), ("w.parquet", "wide")):
        commands.embed_command(str(tmp_path / "run"), photos, out=tmp_path / name, columns=columns)
    wide = parquet.read_table(tmp_path / "w.parquet")
    names = [f"f{n}" for n in range(found.features.shape[1])]
    assert wide.column_names == ["name", "index", "label", "class", *names]
    written = np.stack([wide[n].to_numpy() for n in names], 1)
    assert np.array_equal(written, found.features)
    with (tmp_path / "f.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == wide.column_names
    read = np.array([[row[n] for n in names] for row in rows]).astype(np.float32)
    assert np.array_equal(read, found.features)  # to the last bit
    assert [row["name"] for row in rows] == wide["name"].to_pylist()
    for name, columns, told in (
        ("x.csv", "list", "a column for each dimension"),
        ("x.npy", "wide", "have no columns"),
    ):
        with pytest.raises(UserError, match=told):
            commands.embed_command("run", photos, out=tmp_path / name, columns=columns)


def test_parts_are_the_whole(encoder, photos, found, tmp_path):
    run, out = str(export.save(encoder, tmp_path / "run")), tmp_path / "f.parquet"
    parts = [commands.embed_command(run, photos, out=out, part=f"{i}/5").out for i in range(5)]
    assert [p.name for p in parts] == [f"f-{i:05}-of-00005.parquet" for i in range(5)]
    commands.embed_command(run, photos, out=out)
    assert pyarrow.concat_tables(map(parquet.read_table, parts)).equals(parquet.read_table(out))
    before = parts[2].stat().st_mtime_ns
    assert commands.embed_command(run, photos, out=out, part="2/5") == (parts[2], None)
    assert parts[2].stat().st_mtime_ns == before
    for part, told in (("5/5", "the i-th of n counted from 0"), ("60/70", "use fewer parts")):
        with pytest.raises(UserError, match=told):
            commands.embed_command(run, photos, out=out, part=part)


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_convnext"])
def test_features_of_places_are_those_of_the_network(name, photos, tmp_path):
    network = Image(name, 32).eval()
    local = evaluate.embed(network, photos, local=True, out=tmp_path / "f.npy").features
    assert np.array_equal(np.load(tmp_path / "f.npy"), local)
    samples = open_data(photos)
    view = torch.from_numpy(augment.plain(32)(samples.read(1)))[None]
    with torch.no_grad():
        true = network.features(augment.normalize(view, network.mean, network.std))
    assert local.shape == (24, *true.grid, network.local_dim)
    np.testing.assert_allclose(local[1].reshape(-1, local.shape[-1]), true.local[0], atol=1e-4)


def test_a_table_of_places_has_a_row_for_each(encoder, photos, tmp_path):
    for name in ("f.parquet", "f.csv"):
        local = evaluate.embed(encoder, photos, local=True, out=tmp_path / name).features
    count, height, width, _ = local.shape
    table = parquet.read_table(tmp_path / "f.parquet")
    assert table.num_rows == count * height * width
    row = table.slice(5 * height * width + 1 * width + 0, 1).to_pylist()[0]
    assert (row["row"], row["column"], row["index"]) == (1, 0, 5)
    assert row["class"] == "dark"
    assert np.array_equal(np.array(row["embedding"], np.float32), local[5, 1, 0])
    lines = (tmp_path / "f.csv").read_text().splitlines()
    assert len(lines) == 1 + table.num_rows
    assert lines[0].split(",")[4:7] == ["row", "column", "f0"]


def test_a_network_without_places_has_none(photos):
    flat = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 32 * 32, 4))
    with pytest.raises(UserError, match="no features of places"):
        evaluate.embed(flat, photos, size=32, local=True)


def test_pixels(photos):
    found = evaluate.pixels(photos, 4, size=32)
    assert found.features.shape == (24, 48)
    np.testing.assert_allclose(found.features.mean(1), 0, atol=1e-6)


def test_untrained_is_seeded_and_leaves_the_generator_alone(encoder):
    state = torch.get_rng_state()
    one, same, other = (evaluate.untrained(encoder, s) for s in (0, 0, 1))
    assert torch.get_rng_state().equal(state)
    x = torch.rand(2, 3, 32, 32)
    assert one.eval()(x).equal(same.eval()(x))
    assert not one(x).equal(other.eval()(x))
    assert one.config == encoder.config


# scores --------------------------------------------------------------------------------------


def naive_knn(x, y, test_x, k, temperature):
    x, test_x = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (x, test_x))
    predicted = []
    for query in test_x:
        similarity = x @ query
        near = np.argsort(-similarity)[:k]
        votes = {
            c: sum(math.exp(similarity[i] / temperature) for i in near if y[i] == c)
            for c in np.unique(y)
        }
        predicted.append(max(votes, key=votes.get))
    return np.array(predicted)


@pytest.mark.parametrize("k", [1, 5, 20])
@pytest.mark.parametrize("block", [2**24, 256])
def test_knn_is_what_the_paper_says(monkeypatch, k, block):
    monkeypatch.setattr(scores, "_BLOCK", block)
    (x, y), (test_x, test_y) = blobs(200), blobs(90, seed=1)
    score = evaluate.knn((x, y), (test_x, test_y), k=k, temperature=0.1)
    right = naive_knn(x, y, test_x, k, 0.1) == test_y
    assert list(score.correct) == list(right)
    assert score.value == pytest.approx(100 * right.mean())
    assert score.n == 90
    assert f"200 train, 90 test, 3 classes, given test set; cosine, k={k}, T=0.1" in score.protocol


def test_knn_takes_tensors_any_numbers_of_classes_and_tiny_temperatures():
    (x, y), (test_x, test_y) = blobs(60), blobs(30, seed=1)
    expected = evaluate.knn((x, y), (test_x, test_y))
    renamed = torch.tensor([1000, 3, 77])
    tensors = (torch.from_numpy(x), renamed[y]), (torch.from_numpy(test_x), renamed[test_y])
    assert list(evaluate.knn(*tensors).correct) == list(expected.correct)
    one = evaluate.knn((x, y), (test_x, test_y), k=1)
    assert list(evaluate.knn((x, y), (test_x, test_y), temperature=1e-5).correct) == list(
        one.correct
    )


def test_more_neighbors_than_samples_are_all_samples():
    (x, y), test = blobs(10), blobs(30, seed=1)
    assert "k=10," in evaluate.knn((x, y), test, k=50).protocol


def naive_ridge(x, y, test_x, strength):
    mean, scale = x.mean(0), x.std(0)
    x, test_x = ((v - mean) / scale for v in (x.astype(np.float64), test_x.astype(np.float64)))
    targets = np.eye(y.max() + 1)[y]
    bias = targets.mean(0)
    penalty = strength * np.trace(x.T @ x) / x.shape[1] * np.eye(x.shape[1])
    return (test_x @ np.linalg.solve(x.T @ x + penalty, x.T @ (targets - bias)) + bias).argmax(1)


@pytest.mark.parametrize("width", [8, 300])
def test_probe_is_the_best_ridge_classifier_of_the_held_out_samples(width):
    (x, y), (test_x, test_y) = blobs(150, width=width, spread=3), blobs(400, 3, width, 3, seed=1)
    score = evaluate.probe((x, y), (test_x, test_y))
    strength = float(score.protocol.split("strength ")[1].split(",")[0])
    assert strength in scores.STRENGTHS
    assert list(score.correct) == list(naive_ridge(x, y, test_x, strength) == test_y)
    assert "of 7 the best on 30 held-out training samples" in score.protocol


def test_probe_never_chooses_on_test_samples():
    (x, y), (test_x, test_y) = blobs(100, spread=3), blobs(100, spread=3, seed=1)
    a = evaluate.probe((x, y), (test_x, test_y)).protocol
    b = evaluate.probe((x, y), (test_x, (test_y + 1) % 3)).protocol
    assert a == b


def test_probe_survives_constant_features_and_one_sample_a_class():
    (x, y), (test_x, test_y) = blobs(100, spread=0.3), blobs(100, spread=0.3, seed=1)
    x[:, 2] = test_x[:, 2] = 4.0
    assert evaluate.probe((x, y), (test_x, test_y)).value > 90
    few = [int(np.flatnonzero(y == c)[0]) for c in range(3)]
    score = evaluate.probe((x[few], y[few]), (test_x, test_y))
    assert "too few training samples to choose" in score.protocol


def test_split_is_stratified_seeded_and_complete():
    y = np.repeat([0, 1, 2, 3], [100, 10, 2, 1])
    fit, held = scores.split(y)
    assert sorted([*fit, *held]) == list(range(113))
    assert list(np.bincount(y[held], minlength=4)) == [20, 2, 1, 0]
    assert list(scores.split(y)[1]) == list(held)
    assert list(scores.split(y, seed=1)[1]) != list(held)


def test_arrays_that_may_not_be_written_are_scored_in_silence():
    x, y = np.eye(12, dtype=np.float32), np.arange(12) % 2
    x.flags.writeable = y.flags.writeable = False
    assert evaluate.knn((x, y), (x, y), k=1).value == 100
    assert evaluate.knn((torch.eye(12), torch.from_numpy(y.copy())), (x, y), k=1).value == 100


def test_without_a_test_set_a_fifth_is_held_out_and_unlabeled_samples_left_out():
    x, y = blobs(100)
    y[:10] = -1
    x[:10] = 1e6
    score = evaluate.knn((x, y))
    assert "a fifth of each class held out" in score.protocol
    assert score.n + int(score.protocol.split(" train")[0]) == 90


def test_classes_are_matched_by_name():
    x, y = blobs(90, 2, spread=0.2)
    a = evaluate.Embeddings(x, y, classes=("ant", "bee"))
    b = evaluate.Embeddings(x, 2 - y, classes=("aaa", "bee", "ant"))
    assert evaluate.knn(a, b).value == 100
    b.labels[:9] = 0
    assert evaluate.knn(a, b).value == pytest.approx(90)
    assert (
        "9 test samples of classes without training count as wrong" in evaluate.knn(a, b).protocol
    )


def test_scores_of_a_dataset(encoder, photos, found):
    direct, by_hand = evaluate.knn(photos, encoder=encoder, k=3), evaluate.knn(found, k=3)
    assert list(direct.correct) == list(by_hand.correct)
    assert direct.protocol == by_hand.protocol


@pytest.mark.parametrize(
    ("data", "options", "match"),
    [
        ((np.ones((4, 2)), np.zeros(4)), {}, "there are 1 classes"),
        ((np.ones((4, 2)), np.zeros(3)), {}, r"got \[4, 2\] and \[3\]"),
        (evaluate.Embeddings(np.ones((4, 2))), {}, "scores need labels"),
        ("photos/", {}, "pass encoder as well"),
        ((np.eye(4), np.array([0, 0, 1, 1])), {"k": 0}, "k=0 must be at least 1"),
        ((np.eye(4), np.array([0, 0, 1, 1])), {"temperature": 0}, "temperature=0 above 0"),
    ],
)
def test_scores_that_cannot_be_had(data, options, match):
    with pytest.raises(UserError, match=match):
        evaluate.knn(data, **options)


def test_train_and_test_must_fit():
    with pytest.raises(UserError, match="width 8, test features 5"):
        evaluate.knn(blobs(20), blobs(20, width=5))
    x, y = blobs(20)
    x[3, 2] = np.nan
    with pytest.raises(TrainingError, match="1 of 20 feature vectors are not finite"):
        evaluate.probe((x, y))


@pytest.mark.parametrize(
    ("share", "n", "low", "high"),
    [(0.5, 100, 40.383, 59.617), (0.0, 10, 0.0, 27.754), (1.0, 10, 72.246, 100.0)],
)
def test_wilson(share, n, low, high):
    """Values of the formula as tabulated for z = 1.96."""
    assert scores.wilson(share, n) == pytest.approx((low, high), abs=5e-3)


# compare -------------------------------------------------------------------------------------


def score_of(correct):
    correct = np.array(correct, bool)
    return evaluate.Score("k-NN", 100 * correct.mean(), len(correct), "p", 0.0, correct)


@pytest.mark.parametrize(
    ("ours", "floor", "verdict", "words"),
    [
        ([1] * 80 + [0] * 20, [0] * 50 + [1] * 30 + [0] * 20, "above", "clears by 50.0 points"),
        ([0] * 80 + [1] * 20, [1] * 100, "below", "80.0 points above this encoder"),
        ([1] * 50 + [0] * 50, [1] * 49 + [0] * 50 + [1], "unclear", "within the noise"),
        ([1] * 50 + [0] * 50, [1] * 50 + [0] * 50, "unclear", "a difference of +0.0 points"),
    ],
)
def test_margin_says_what_the_samples_allow(ours, floor, verdict, words):
    from selftaught.evaluate.floors import Margin

    margin = Margin(score_of(ours), "pixels 8x8", score_of(floor))
    assert margin.verdict == verdict
    assert words in str(margin)


def test_paired_interval_by_hand():
    from selftaught.evaluate.floors import Margin

    ours, floor = [1] * 30 + [0] * 10 + [1] * 60, [0] * 30 + [1] * 10 + [1] * 60
    low, high = Margin(score_of(ours), "untrained", score_of(floor)).interval
    half = 1.96 * math.sqrt((31 + 11) / 102 - (20 / 102) ** 2) / math.sqrt(102)
    assert (low, high) == pytest.approx((2000 / 102 - 100 * half, 2000 / 102 + 100 * half))


@pytest.mark.parametrize(
    ("gained", "lost", "n", "verdict"),
    [
        (0, 0, 1, "unclear"),
        (0, 0, 100, "unclear"),
        (3, 0, 3, "unclear"),  # all of three: as likely as three heads
        (0, 2, 2, "unclear"),
        (5, 0, 1000, "unclear"),  # 0.0625 by the exact test
        (6, 0, 1000, "above"),  # 0.031
        (0, 6, 1000, "below"),
        (20, 0, 20, "above"),
    ],
)
def test_a_paired_interval_is_never_without_width(gained, lost, n, verdict):
    from selftaught.evaluate.floors import Margin

    ours = [1] * gained + [0] * (n - gained)
    floor = [0] * gained + [1] * lost + [0] * (n - gained - lost)
    margin = Margin(score_of(ours), "untrained", score_of(floor))
    low, high = margin.interval
    assert -100 <= low <= margin.points <= high <= 100
    assert high - low > 100 / n  # by one image more it would be otherwise
    assert margin.verdict == verdict


def test_compare_reads_each_image_once_for_all_and_agrees_with_single_scores(
    encoder, photos, found, monkeypatch
):
    read = []
    from selftaught.data import Samples

    real = Samples.read
    monkeypatch.setattr(Samples, "read", lambda s, i, **o: (read.append(i), real(s, i, **o))[1])
    compared = evaluate.compare(encoder, photos, k=3)
    assert read == list(range(26)) * 2  # first those that the untrained one's statistics are of
    assert compared.skipped == 2
    assert list(compared.scores) == ["this encoder", "untrained", "pixels 8x8", "pixels 16x16"]
    for ours, alone in zip(compared.scores["this encoder"], (evaluate.knn, evaluate.probe)):
        options = {"k": 3} if alone is evaluate.knn else {}
        assert list(ours.correct) == list(alone(found, **options).correct)
    floor = evaluate.knn(evaluate.pixels(photos, 8, size=32), k=3)
    assert list(compared.scores["pixels 8x8"][0].correct) == list(floor.correct)
    best = max(compared.scores[f][0].value for f in ("untrained", "pixels 8x8", "pixels 16x16"))
    assert compared.margins[0].floor_score.value == best


def test_comparison_as_table_and_as_file(encoder, photos, tmp_path):
    compared = evaluate.compare(encoder, photos, photos, k=3)
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(compared)
    text = console.export_text()
    for words in ("encoder", "untrained", "16x16", "k=3, T=0.07", "24 test"):
        assert words in text
    assert re.search("│ k-NN +│ .* to .* │\n│ probe +│", text)  # no row is folded
    compared.save(tmp_path / "scores.json")
    saved = json.loads((tmp_path / "scores.json").read_text())
    assert saved == compared.as_dict()
    assert len(saved["scores"]) == 8
    assert saved["verdict"] == compared.verdict
    assert saved["margins"][0]["verdict"] in ("above", "unclear", "below")


def test_the_start_is_one_more_floor(encoder, photos):
    start = evaluate.untrained(encoder, 7)
    found = evaluate.compare(encoder, photos, k=3, start=start)
    assert list(found.scores) == [
        "this encoder",
        "as it began",
        "untrained",
        "pixels 8x8",
        "pixels 16x16",
    ]
    alone = evaluate.compare(start, photos, k=3).scores["this encoder"]
    assert [s.value for s in found.scores["as it began"]] == [s.value for s in alone]
    without = evaluate.compare(encoder, photos, k=3)
    for name, floor in without.scores.items():
        assert [s.value for s in found.scores[name]] == [s.value for s in floor]
    assert [g.points for g in found.gains] == pytest.approx(
        [ours.value - its.value for ours, its in zip(found.scores["this encoder"], alone)]
    )
    assert found.as_dict()["gains"][0]["floor"] == "as it began"
    assert "its start" in found.verdict or "the weights it began with" in found.verdict
    assert not without.gains
    assert without.as_dict()["gains"] == []
    same = evaluate.compare(encoder, photos, k=3, start=encoder)
    assert same.verdict.startswith("Unclear: within the noise of its start (+0.0 points of k-NN")


def test_all_scores_have_the_start_beside_them_in_80_columns(encoder, photos, monkeypatch):
    monkeypatch.setattr(classifiers, "STEPS", 50)
    probes = ("knn", "ridge", "linear", "lowshot", "retrieval", "cluster", "robustness")
    start = evaluate.untrained(encoder, 7)
    found = evaluate.compare(encoder, photos, photos, probes=probes, k=3, altered=4, start=start)
    names = [s.name for s in found.scores["this encoder"]]
    assert [s.name for s in found.scores["as it began"]] == names
    assert len(found.gains) == len(names)
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(found)
    text = console.export_text()
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= 80
    assert re.search(r"as it[\s\S]*began", text)


def test_a_start_of_other_images_is_refused(encoder, photos):
    with pytest.raises(UserError, match=r"takes images of 3 channels, and .* takes 1"):
        evaluate.compare(encoder, photos, start=Image("test_resnet", 32, channels=1))


def test_compare_wants_labels_before_it_reads_anything(encoder, tmp_path):
    Picture.new("RGB", (32, 32)).save(tmp_path / "a.png")
    with pytest.raises(UserError, match="scores need labels"):
        evaluate.compare(encoder, tmp_path)


# commands ------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [commands.embed_command, score.evaluate_command])
def test_every_option_is_typed_and_documented(command):
    signature = read_function(Path(inspect.getfile(command)), command.__name__)
    assert all(p.doc and p.type is not None for p in signature.parameters)


def test_commands(encoder, photos, tmp_path):
    run = str(export.save(encoder, tmp_path / "run"))
    embedded = evaluate.embed_command(run, str(photos), out=tmp_path / "f.npz")
    features = np.load(tmp_path / "f.npz")["features"]
    assert np.array_equal(features, evaluate.embed(run, photos).features)
    assert embedded == (tmp_path / "f.npz", features.shape)
    compared = score.evaluate_command(run, str(photos), k=3, out=tmp_path / "s.json")
    assert json.loads((tmp_path / "s.json").read_text())["encoder"] == compared.encoder
    assert compared.encoder == f"test_resnet, 32 px from {run}"
    with pytest.raises(UserError, match=r"must end in \.json"):
        score.evaluate_command(run, str(photos), out=tmp_path / "s.csv")
