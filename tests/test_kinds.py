"""What a sample is: each kind fulfills one contract, and every room asks it."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import selftaught
from selftaught import cli, kinds, methods, nouns
from selftaught.augment import sample_rng
from selftaught.augment.series import resized
from selftaught.backbones.series.encoder import Series
from selftaught.data import BadSample, open_data
from selftaught.data.series import files
from selftaught.engine.build import asked_of, restored
from selftaught.errors import UserError
from selftaught.feed.check import check
from selftaught.kinds.floors.series import kernels
from selftaught.method import Batch
from selftaught.methods.contrastive.ts2vec import Drawn, TS2Vec
from selftaught.methods.masked.masked_series import MaskedSeries
from selftaught.objectives.hierarchical import hierarchical
from tests.formulas.contrastive import slow_hierarchical

TINY = {"backbone": "inception", "width": 4, "depth": 3, "size": 24, "batch": 8, "max_steps": 4}
QUICK = {"evaluate": False, "workers": 0, "precision": "fp32"}


def waves(count: int = 24, channels: int = 2, steps: int = 40, seed: int = 0) -> np.ndarray:
    """[N, C, T] float32: sines of two frequencies, in noise."""
    rng, t = np.random.default_rng(seed), np.arange(steps)
    pitch = np.where(np.arange(count) % 2, 0.2, 0.5)[:, None, None]
    phase = rng.uniform(0, 6, (count, channels, 1))
    return (np.sin(pitch * t + phase) + 0.1 * rng.standard_normal((count, channels, steps))).astype(
        np.float32
    )


def test_importing_a_kind_imports_no_torch():
    code = "import sys, selftaught.kinds as k; [k.find(n) for n in k.files()]; "
    code += "sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_unknown_kinds_are_refused_with_the_nearest():
    with pytest.raises(UserError, match="did you mean series"):
        kinds.find("serie")
    with pytest.raises(UserError, match="window must be at least 2"):
        kinds.made({"kind": "series", "window": 1})


@pytest.mark.parametrize("name", list(kinds.files()))
def test_a_kind_is_made_again_by_its_plain_values(name: str):
    kind = kinds.find(name)()
    assert kinds.made(json.loads(json.dumps(kind.config))) == kind
    assert kind.floors()
    assert kind.one
    assert kind.at(64).startswith("64 ")


@pytest.mark.parametrize(
    ("name", "content", "kind"),
    [
        ("a.csv", "path,label\na.jpg,cat\n", "image"),
        ("a.csv", "id,label\n17,3\n", "image"),
        ("a.csv", "score;path\n0.5;photos/a.JPG\n", "image"),
        ("a.csv", "t,x\n10:01,0.5\n", "series"),
        ("a.tsv", "1\t-2.5e-3\t7\n", "series"),
    ],
)
def test_a_table_is_a_list_of_files_unless_it_holds_fractions(tmp_path, name, content, kind):
    (tmp_path / name).write_text(content)
    assert kinds.guess(tmp_path / name, ("image", "series")) == kind


def test_the_kind_of_a_folder_is_told_by_its_endings(tmp_path: Path):
    for i in range(6):
        (tmp_path / f"{i}.csv").write_text("a\n1.5\n")
    assert kinds.guess(tmp_path, ("image", "series")) == "series"
    for i in range(12):
        (tmp_path / f"{i}.jpg").write_text("")
    (tmp_path / "labels.csv").write_text("")
    assert kinds.guess(str(tmp_path), ("image", "series")) == "image"
    other = tmp_path / "shards"
    other.mkdir()
    for i in range(8):
        (other / f"{i}.tar").write_text("")
    (other / "labels.csv").write_text("path,label\n")
    assert kinds.guess(other, ("image", "series")) == "image"


def test_arrays_of_fractions_that_are_no_squares_are_series(tmp_path: Path):
    known = ("image", "series")
    assert kinds.guess(waves(), known) == "series"
    assert kinds.guess(waves()[:, 0], known) == "series"
    assert kinds.guess(np.zeros((4, 8, 8), np.float32), known) == "image"
    assert kinds.guess(np.zeros((4, 8, 9), np.uint8), known) == "image"
    np.save(tmp_path / "x.npy", waves())
    np.savez(tmp_path / "x.npz", x=waves(), y=np.arange(24))
    assert kinds.guess(tmp_path / "x.npy", known) == "series"
    assert kinds.guess(tmp_path / "x.npz", known) == "series"


# ------------------------------------------------------------------------------------------ files


def test_series_are_read_from_arrays_and_tables_alike(tmp_path: Path):
    x, kind = waves(6), kinds.made({"kind": "series"})
    np.save(tmp_path / "x.npy", x)
    np.savez(tmp_path / "x.npz", x=x, y=np.array(list("aababb")))
    lines = [":".join(",".join(map(str, row)) for row in one) + ":b" for one in x.tolist()]
    (tmp_path / "x.ts").write_text(
        "@problemName x\n@classLabel true a b\n@data\n" + "\n".join(lines)
    )
    folder = tmp_path / "csv" / "up"
    folder.mkdir(parents=True)
    for i, one in enumerate(x):
        rows = [f"at {n},{a},{b}" for n, (a, b) in enumerate(one.T.tolist())]
        (folder / f"{i}.csv").write_text("when,a,b\n" + "\n".join(rows))
    for source in (x, list(x), tmp_path / "x.npy", tmp_path / "x.npz", tmp_path / "x.ts", folder):
        samples = open_data(source, kind=kind)
        assert len(samples) == 6
        np.testing.assert_allclose(samples.read(2), x[2], rtol=1e-6)
    assert open_data(tmp_path / "x.npz", kind=kind).classes == ["a", "b"]
    assert open_data(tmp_path / "x.ts", kind=kind).classes == ["b"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty"),
        (b"a,b\nfoo,bar\n", "no column of numbers"),
        (b"a\n1\nNaN\n2\n", "1 of 3 values that are missing"),
        (b"a\n1\ninf\n2\n", "missing or infinite"),
        (b"\xff\xfe\x00a", "not UTF-8"),
    ],
)
def test_series_that_cannot_be_used_say_why(content: bytes, words: str):
    with pytest.raises(BadSample, match=words):
        kinds.made({"kind": "series"}).decode(content, "a.csv")


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((0,)), "empty"),
        (np.zeros((2, 3, 4)), "no series"),
        (np.array(["a", "b"]), "no series"),
    ],
)
def test_arrays_that_are_no_series_say_why(array: np.ndarray, words: str):
    with pytest.raises(BadSample, match=words):
        kinds.made({"kind": "series"}).decode(array, "memory")


def test_missing_values_may_lie_on_the_line_between_their_neighbors():
    kind = kinds.made({"kind": "series", "missing": "line"})
    assert kind.decode(np.array([0, np.nan, 2, np.inf]), "x").tolist() == [[0, 1, 2, 2]]
    with pytest.raises(BadSample, match="3 of 3"):
        kind.decode(np.full(3, np.nan), "x")


def test_ts_files_that_are_not_as_they_say_are_refused(tmp_path: Path):
    for content, words in (
        ("1,2:a", "before @data"),
        ("@timestamps true\n@data\n", "a time beside each value"),
        ("@data\n1,2:3", "of one length"),
    ):
        (tmp_path / "x.ts").write_text(content)
        with pytest.raises(UserError, match=words):
            files.array_file(tmp_path / "x.ts", None, None)


def test_one_long_recording_is_cut_into_windows(tmp_path: Path):
    np.savetxt(tmp_path / "long.csv", np.arange(1000).reshape(500, 2), delimiter=",")
    whole, cut = kinds.made({"kind": "series"}), kinds.made({"kind": "series", "window": 64})
    one = open_data(tmp_path / "long.csv", kind=whole)
    with pytest.raises(UserError, match=r"one series of 500 steps.*--window"):
        whole.fill({}, one)
    samples = open_data(tmp_path / "long.csv", kind=cut)
    assert len(samples) == 7
    assert samples.read(1)[:, 0].tolist() == [128, 129]
    assert samples.name(1) == "long.csv@64"
    with pytest.raises(UserError, match="smaller --window"):
        open_data(tmp_path / "long.csv", kind=kinds.made({"kind": "series", "window": 501}))


def test_a_kind_is_filled_from_the_data_alone():
    kind, given = kinds.made({"kind": "series"}).fill(
        {}, open_data(3 + 5 * waves(), kind=kinds.made({"kind": "series"}))
    )
    assert given == {"size": 40, "channels": 2}
    x = np.stack([kind.decode(one, "x") for one in 3 + 5 * waves()])
    np.testing.assert_allclose(x.mean((0, 2)), 0, atol=1e-4)
    np.testing.assert_allclose(x.std((0, 2)), 1, atol=1e-4)
    again, _ = kind.fill({"size": 24}, open_data(waves(seed=1), kind=kind))
    assert again == kind


# ------------------------------------------------------------------------------------------ views


def test_resizing_keeps_means_and_lines():
    line = np.arange(12.0)[None]
    np.testing.assert_allclose(resized(line, 0, 12, 6), [[0.5, 2.5, 4.5, 6.5, 8.5, 10.5]])
    np.testing.assert_allclose(resized(line, 2, 3, 5), [[2, 2.5, 3, 3.5, 4]])
    assert resized(line, 0, 12, 12).tolist() == line.tolist()
    assert resized(line[:, :1], 0, 1, 4).tolist() == [[0, 0, 0, 0]]


def test_declared_views_are_translated_and_follow_their_generator():
    kind, x = kinds.made({"kind": "series"}), waves(1)[0]
    views = kind.views(selftaught.augment.simclr(24))
    one, again = views(x, sample_rng(0, 0, 1)), views(x, sample_rng(0, 0, 1))
    assert [v.shape for v in one] == [(2, 24), (2, 24)]
    assert all((a == b).all() for a, b in zip(one, again, strict=True))
    assert not (one[0] == one[1]).all()
    small = kind.views(selftaught.augment.multicrop(24, 12, 3))(x, sample_rng(0, 0, 1))
    assert [v.shape[1] for v in small] == [24, 24, 12, 12, 12]


@pytest.mark.parametrize(
    "name", [n for n in methods.files() if methods.find(n).needs.kinds == "any"]
)
def test_methods_for_any_kind_learn_from_series(tmp_path: Path, name: str):
    labels = methods.find(name).needs.labels
    data = tmp_path / "x.npz"
    np.savez(data, x=waves(), y=np.arange(24) % 2)
    given = {} if labels else {"labels": None}
    run = selftaught.pretrain(
        name,
        data,
        tmp_path / "run",
        **(TINY | {"max_steps": 1}),
        **QUICK,
        **given,
        **SMALL.get(name, {}),
        force=True,
    )
    assert (run.folder / "encoder.json").exists()


SMALL = {"w_mse": {"dim": 3, "group": None}, "moco_v1": {"queue": 16}, "moco_v2": {"queue": 16}}
SMALL |= {"mean_shift": {"queue": 16}, "nnclr": {"queue": 16}, "pcl": {"queue": 16}}


def test_methods_of_images_refuse_other_kinds(tmp_path: Path):
    with pytest.raises(UserError, match=r"mae learns from samples of kind `image`.*for `series`"):
        selftaught.pretrain("mae", waves(), tmp_path / "run", kind="series")


# ------------------------------------------------------------------------------------------- runs


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("series")
    np.savez(folder / "x.npz", x=waves(), y=np.arange(24) % 2)
    options = TINY | {"max_steps": 6, "workers": 0, "precision": "fp32"}
    selftaught.pretrain("simclr", folder / "x.npz", folder / "run", **options)
    return folder


def test_a_run_leaves_scores_beside_the_floors_of_its_kind(run: Path):
    scores = json.loads((run / "run" / "scores.json").read_text())
    names = {row["features"] for row in scores["scores"]}
    assert names == {"this encoder", "untrained", "random kernels", "raw values"}
    page = (run / "run" / "report.html").read_text()
    assert "24 steps" in page or "steps" in page
    assert (run / "run" / "views.npz").exists()


def test_an_encoder_alone_says_how_its_input_is_read(run: Path):
    encoder = selftaught.load(run / "run")
    kind = kinds.of(encoder)
    assert kind.word == "series"
    assert kind.config == asked_of(run / "run")["sample"]
    x = torch.from_numpy(np.stack([kind.plain(24)(kind.decode(one, "x")) for one in waves()[:3]]))
    with torch.inference_mode():
        alone = encoder(kind.prepare(x, encoder))
    found = selftaught.embed(run / "run", run / "x.npz", workers=0).features[:3]
    np.testing.assert_allclose(found, alone.numpy(), rtol=1e-4, atol=1e-5)


def test_a_method_of_a_run_is_built_again(run: Path):
    method = restored(run / "run")
    assert kinds.of(method.encoder).word == "series"


def test_samples_of_another_kind_are_refused(run: Path):
    with pytest.raises(UserError, match="kind `series`, and these are of `image`"):
        selftaught.embed(run / "run", open_data(np.zeros((4, 8, 8, 3), np.uint8)))


def test_encoders_of_series_refuse_what_is_none(run: Path):
    encoder = selftaught.load(run / "run")
    with pytest.raises(UserError, match=r"takes series \[B, 2, T\]"):
        encoder(torch.zeros(2, 3, 24))


def test_a_run_of_series_is_repeated_and_resumed_bit_for_bit(run: Path, tmp_path: Path):
    options = TINY | QUICK
    data = run / "x.npz"
    whole = selftaught.pretrain("simclr", data, tmp_path / "a", **options)
    other = selftaught.pretrain("simclr", data, tmp_path / "b", **(options | {"workers": 1}))
    first = selftaught.pretrain("simclr", data, tmp_path / "c", **(options | {"max_steps": 2}))
    more = selftaught.pretrain("simclr", data, first.folder, **options, resume=True, force=True)
    ours = whole.encoder.state_dict()
    assert isinstance(whole.encoder, nn.Module)
    for run_ in (other,):
        assert all(v.equal(run_.encoder.state_dict()[k]) for k, v in ours.items())
    assert more.folder == first.folder


def test_series_are_checked(run: Path):
    found = check(run / "x.npz", workers=0)
    assert (found.kind.word, found.sizes, found.readable) == ("series", (40, 40, 40), 24)
    assert dict(found.rows())["steps (min / median / max)"] == "40 / 40 / 40"


def test_random_kernels_are_the_same_each_time_and_know_the_shape_of_a_wave():
    x = torch.from_numpy(waves(24))
    found = kernels(x)
    assert found.shape == (24, 2000)
    assert found.equal(kernels(x))
    assert kernels(x[:2]).equal(found[:2])
    assert kernels(x[:, :, :5]).shape == (24, 2000)


@pytest.mark.parametrize(
    ("text", "worded"),
    [
        ("370 test images, an image", "370 test sounds, a sound"),
        ("Images: /data/images/a.png, --images 5", "Sounds: /data/images/a.png, --images 5"),
        ("imagenet, image.png, my-images", "imagenet, image.png, my-images"),
        ("the images.", "the sounds."),
        ("3% of the images have a single color", "3% of the sounds are silent"),
        ("of kind `image`, --kind=image", "of kind `image`, --kind=image"),
    ],
)
def test_sentences_of_images_speak_of_what_was_opened(text: str, worded: str):
    try:
        nouns.speak_of("sound", "sounds", "are silent")
        assert nouns.worded(text) == worded
        assert nouns.folder() == "sounds/"
    finally:
        nouns.speak_of("image", "images")
    assert nouns.worded(text) == text
    assert nouns.folder() == "photos/"


# -------------------------------------------------------------------------------- methods of series


@pytest.mark.parametrize("shape", [(3, 5, 4), (2, 8, 3), (4, 1, 2)])
def test_hierarchical_contrast_is_the_papers(shape: tuple[int, int, int]):
    rng = np.random.default_rng(0)
    one, other = rng.standard_normal(shape), rng.standard_normal(shape)
    found = hierarchical(torch.from_numpy(one), torch.from_numpy(other))
    assert found.item() == pytest.approx(slow_hierarchical(one, other), rel=1e-12)


def test_pieces_of_ts2vec_share_steps_of_the_same_series():
    method = TS2Vec(Series("dilated", 32, 2, width=4, depth=2), hidden=0.0)
    views = [Drawn(32)(x, sample_rng(0, 0, i)) for i, x in enumerate(waves(6, steps=50))]
    batch = Batch(torch.utils.data.default_collate(views), torch.arange(6))
    seen: list[torch.Tensor] = []
    method.backbone.net.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    method.loss(batch).backward()
    one, other = seen
    x = batch.views[0]
    shared = [
        n
        for n in range(1, min(one.shape[2], other.shape[2]) + 1)
        if one[:, :, -n:].equal(other[:, :, :n])
    ]
    assert shared
    assert shared[0] >= 4
    for piece, whole in zip(one, x, strict=True):
        assert any(
            whole[:, s : s + piece.shape[1]].equal(piece)
            for s in range(whole.shape[1] - piece.shape[1] + 1)
        )


def test_masked_series_look_at_nothing_that_they_are_to_fill_in():
    torch.manual_seed(0)
    method = MaskedSeries(Series("patches", 24, 2, width=8, depth=1, heads=2, dropout=0.0))
    x, order = torch.randn(3, 2, 24), torch.rand(3, 2, 3)
    hidden = order.argsort(2).argsort(2) < method.hide
    assert hidden.sum(2).eq(1).all()
    other = torch.where(hidden.repeat_interleave(8, 2), torch.randn(3, 2, 24), x)
    a, b = (method.backbone.features(z, hidden).local for z in (x, other))
    assert a.equal(b)
    loss = method.loss(Batch([x, order[:, None]], torch.arange(3)))
    assert loss.isfinite()
    with pytest.raises(UserError, match="inception has none"):
        MaskedSeries(Series("inception", 24, 2))
    with pytest.raises(UserError, match="hides 0 of 3 patches"):
        MaskedSeries(Series("patches", 24, 2), ratio=0.1)
    with pytest.raises(UserError, match="--size 24"):
        Series("patches", 25, 2)


@pytest.mark.parametrize("name", ["ts2vec", "masked_series"])
def test_methods_of_series_train_and_are_alike_for_any_workers(tmp_path: Path, name: str):
    options = {"width": 8, "size": 24, "batch": 8, "max_steps": 3, "depth": 1} | QUICK
    one, other = (
        selftaught.pretrain(name, waves(), tmp_path / str(n), **(options | {"workers": n}))
        for n in (0, 1)
    )
    theirs = other.encoder.state_dict()
    assert all(v.equal(theirs[k]) for k, v in one.encoder.state_dict().items())
    assert one.encoder.config["name"] == {"ts2vec": "dilated"}.get(name, "patches")


@pytest.mark.parametrize(
    ("content", "rows"),
    [
        ("zeit;a;b\n01.01.;0,5;10\n02.01.;1,5;11,25\n", [[0.5, 1.5], [10, 11.25]]),
        ("1,5;2\n3;4,5\n", [[1.5, 3], [2, 4.5]]),
        ("t\ta\nx\t1,5\ny\t2\n", [[1.5, 2]]),
        ("a, b\n1.5, 2\n3, 4\n", [[1.5, 3], [2, 4]]),
        ("a b\n1.5 2\n3 4\n", [[1.5, 3], [2, 4]]),
    ],
)
def test_columns_are_cut_where_most_are_numbers(content: str, rows: list[list[float]]):
    kind = kinds.made({"kind": "series"})
    assert kind.decode(content.encode(), "a.csv").tolist() == rows


def test_one_step_is_no_series():
    with pytest.raises(BadSample, match="has one step, and a series needs 2 at least"):
        kinds.made({"kind": "series"}).decode(b"a,b\n1,2\n", "a.csv")


def test_a_classifier_and_an_index_of_series_speak_of_series(tmp_path, capsys):
    rows = np.random.default_rng(0).normal(size=(24, 40)).astype(np.float32)
    rows[::2] += 3
    rows[7] = rows[5]
    np.savez(tmp_path / "series.npz", x=rows, y=np.arange(24) % 2)
    data, run = str(tmp_path / "series.npz"), str(tmp_path / "run")
    small = ["--width", "4", "--depth", "1", "--epochs", "1", "--workers", "0"]
    assert cli.main(["pretrain", "simclr", data, "--out", run, *small]) == 0
    model, table = str(tmp_path / "model"), str(tmp_path / "found.csv")
    assert cli.main(["classify", run, data, "--out", model]) == 0
    assert f"selftaught predict {model} series/" in capsys.readouterr().out
    assert cli.main(["predict", model, data, "--out", table]) == 0
    assert f"24 series are in {table}" in capsys.readouterr().out
    page, kept = str(tmp_path / "found.html"), str(tmp_path / "kept")
    assert cli.main(["search", run, data, "--outliers", "--out", page, "--index", kept]) == 0
    assert "24 series by their mean distance" in " ".join(capsys.readouterr().out.split())
    alike = tmp_path / "alike.csv"
    pages = [page, str(alike)]
    assert cli.main(["search", run, data, "--duplicates", "--out", *pages, "--index", kept]) == 0
    with alike.open() as file:
        found = {row["path"]: row for row in csv.DictReader(file)}
    first, again = (found[f"series.npz::{i}"] for i in (5, 7))
    assert (first["size"], first["bytes"]) == (again["size"], again["bytes"]) == ("40", "160")
    assert again["kind"] == "identical file"
    assert "keep, 40" in Path(page).read_text()


@pytest.mark.parametrize("name", ["ts2vec", "masked_series"])
def test_numbers_that_a_method_draws_are_no_series_on_the_page(name: str):
    kind, built = kinds.find("series")(), methods.find(name)
    net = Series({"ts2vec": "dilated"}.get(name, "patches"), 32, 2, width=8, depth=1)
    views = built(net).views(32)(waves(1, steps=50)[0], sample_rng(0, 0, 0))
    assert [len(kind.pictures(view)) for view in views] == [1] + [0] * (len(views) - 1)


def test_a_list_may_hold_series_with_their_labels():
    kind, rows = kinds.find("series")(), waves(4, steps=50)
    found = open_data(
        [(row, mark) for row, mark in zip(rows, ["up", "down", "up", "up"])], kind=kind
    )
    assert [found.classes[n] for n in found.labels] == ["up", "down", "up", "up"]
    assert np.array_equal(found.source.load(1), rows[1])
    with pytest.raises(UserError, match="item 1 of the list is no pair"):
        open_data([(rows[0], 1), rows[1]], kind=kind)
    assert open_data(list(rows), kind=kind).labels is None
