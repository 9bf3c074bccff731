"""Pairs of two kinds of samples: who belongs together, a training from end to end, its scores."""

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as Pillow

import selftaught
from selftaught import cli, config, kinds, open_data, pretrain
from selftaught.augment import sample_rng
from selftaught.data.paired import pair
from selftaught.engine.build import restored
from selftaught.engine.pairs import towers
from selftaught.errors import UserError
from selftaught.evaluate import canonical
from selftaught.evaluate.pairing import chance, compare_pairs
from selftaught.kinds.text import Text

COLORS = {"red": (200, 30, 30), "green": (30, 180, 30), "blue": (30, 30, 210)}


def photo(where: Path, color: str, seed: int) -> None:
    where.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 60, (20, 24, 3)).astype(np.uint8)
    pixels[5:15, 6:18] = COLORS[color]
    Pillow.fromarray(pixels).save(where)


def table(where: Path, rows: list[tuple[str, ...]]) -> str:
    with where.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return str(where)


def photos(where: Path, count: int = 24) -> tuple[str, str]:
    """A folder, and a table of it with two captions of every other photo, in another order."""
    rows = []
    for i in range(count):
        color = list(COLORS)[i % 3]
        photo(where / "photos" / f"{i:02}.png", color, i)
        rows.append((f"{i:02}.png", f"a {color} box"))
        if i % 2:
            rows.append((f"{i:02}.png", f"this box is {color}"))
    np.random.default_rng(0).shuffle(rows)
    return str(where / "photos"), table(where / "captions.csv", [("file", "caption"), *rows])


def texts(source: object, **how: object):
    return open_data(source, kind=Text(), **how)


# who belongs together ---------------------------------------------------------------------------


def test_a_column_names_the_photos_and_one_has_several_captions(tmp_path):
    folder, captions = photos(tmp_path)
    both = pair(open_data(folder), texts(captions), (folder, captions))
    assert len(both) == 24
    assert both.rows.shape == (36, 2)
    for i, j in both.rows.tolist():
        color = list(COLORS)[int(Path(both.first.name(i)).stem) % 3]
        assert color in both.second.read(j)
    seen = {both.draw(1, sample_rng(0, epoch, 1))[1] for epoch in range(40)}
    assert len(seen) == 2
    assert {both.draw(0, sample_rng(0, epoch, 0))[1] for epoch in range(5)} == {"a red box"}
    part = both.at(np.array([5, 1]))
    assert [part.first.name(i) for i in range(2)] == ["05.png", "01.png"]
    assert part.starts.tolist() == [0, 2, 4]
    assert both.fingerprint != part.fingerprint


@pytest.mark.parametrize("name", ["path", "filepath", "which picture"])
def test_the_column_is_found_by_what_it_names(tmp_path, name):
    photo(tmp_path / "p" / "cat" / "a.png", "red", 0)
    photo(tmp_path / "p" / "dog" / "b.png", "blue", 1)
    rows = [(name, "caption"), ("p\\dog\\b.jpg", "blue"), ("elsewhere/cat/a.jpg", "red")]
    captions = table(tmp_path / "c.csv", rows)
    folder = str(tmp_path / "p")
    both = pair(open_data(folder), texts(captions), (folder, captions))
    found = {both.first.name(i): both.second.read(j) for i, j in both.rows.tolist()}
    assert found == {"cat/a.png": "red", "dog/b.png": "blue"}


def test_files_pair_with_texts_of_their_names(tmp_path):
    for i, color in enumerate(COLORS):
        photo(tmp_path / "p" / f"{color}.png", color, i)
        (tmp_path / "t").mkdir(exist_ok=True)
        (tmp_path / "t" / f"{color}.txt").write_text(color)
    both = pair(open_data(str(tmp_path / "p")), texts(str(tmp_path / "t")))
    assert [both.second.read(i) for i in range(3)] == sorted(COLORS)


def test_an_archive_names_its_series(tmp_path):
    for i in range(4):
        photo(tmp_path / "p" / f"{i}.png", "red", i)
    x = np.arange(4 * 20, dtype=np.float32).reshape(4, 1, 20)
    np.savez(tmp_path / "s.npz", x=x, names=np.array(["3", "1", "0", "2"]))
    kind, where = kinds.made({"kind": "series"}), str(tmp_path / "s.npz")
    folder = str(tmp_path / "p")
    both = pair(open_data(folder), open_data(where, kind=kind), (folder, where))
    assert [float(both.draw(i)[1][0, 0]) for i in range(4)] == [40.0, 20.0, 60.0, 0.0]


def test_rows_pair_by_number_where_that_is_said(tmp_path):
    folder, _ = photos(tmp_path, 3)
    lines = tmp_path / "lines.txt"
    lines.write_text("one\ntwo\nthree\n")
    first, second = open_data(folder), texts(str(lines))
    with pytest.raises(UserError, match=r"3 of 3 images have no partner .* 3 texts, such as 00; .*"
                                        r"--pair-by row"):  # fmt: skip
        pair(first, second, (folder, str(lines)))
    both = pair(first, second, by="row")
    assert [both.second.read(i) for i in range(3)] == ["one", "two", "three"]
    lines.write_text("one\ntwo\n")
    with pytest.raises(UserError, match="have 3 images and 2 texts, and row i of one"):
        pair(first, texts(str(lines)), by="row")


def test_numbers_of_rows_are_no_names_of_files(tmp_path):
    """Row 1 of a table of other things is not the caption of 1.png."""
    for i in range(3):
        photo(tmp_path / "p" / f"{i}.png", "red", i)
    captions = table(tmp_path / "c.csv", [("caption", "by"), ("a", "x"), ("b", "x"), ("c", "y")])
    folder = str(tmp_path / "p")
    with pytest.raises(UserError, match="3 of 3 images have no partner"):
        pair(open_data(folder), texts(captions), (folder, captions))


def test_what_has_no_partner_is_refused_or_left_out_and_told(tmp_path, caplog):
    folder, _ = photos(tmp_path, 4)
    rows = [("file", "text"), ("00.png", "a"), ("02.png", "b"), ("99.png", "c"), ("03.png", "")]
    captions = table(tmp_path / "some.csv", rows)
    sources = folder, captions
    first, second = open_data(folder), texts(captions)
    with pytest.raises(UserError, match=r"2 of 4 images have no partner of the same name among the "
                                        r"3 texts, such as 01; .*--unpaired skip"):  # fmt: skip
        pair(first, second, sources)
    with caplog.at_level("INFO", "selftaught"):
        both = pair(first, second, sources, unpaired="skip")
    assert [both.first.name(i) for i in range(len(both))] == ["00.png", "02.png"]
    assert "2 of 4 images have no partner" in caplog.text
    assert "1 of 3 texts belong to none of the images, such as some.csv::2" in caplog.text


def test_two_partners_that_are_called_alike_are_refused(tmp_path):
    folder, _ = photos(tmp_path, 2)
    (tmp_path / "s").mkdir()
    for name in ("00.txt", "01.txt", "01.text"):
        (tmp_path / "s" / name).write_text("x")
    with pytest.raises(UserError, match=r"01\.te?xt and 01\.te?xt of the second .* called alike"):
        pair(open_data(folder), texts(str(tmp_path / "s")))


def test_kinds_of_a_second_modality_are_guessed(tmp_path):
    _, captions = photos(tmp_path, 2)
    every = tuple(kinds.files())
    assert kinds.guess(captions, every, beside=True) == "text"
    assert kinds.guess(captions, every) == "image", "alone it is a list of images"
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "a.csv").write_text("x,y\n0.5,1.5\n")
    assert kinds.guess(str(tmp_path / "logs"), every, beside=True) == "series"
    np.savez(tmp_path / "s.npz", x=np.zeros((4, 2, 30), np.float32))
    assert kinds.guess(str(tmp_path / "s.npz"), every, beside=True) == "series"


# from end to end --------------------------------------------------------------------------------

SMALL = {
    "backbone": "test_resnet",
    "size": 32,
    "dim": 8,
    "epochs": 2,
    "batch": 8,
    "workers": 0,
    "curve": False,
    "second_words": 300,
    "second_size": 16,
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of photos and captions, with test pairs of its own."""
    where = tmp_path_factory.mktemp("pairs")
    folder, captions = photos(where)
    held, told = photos(where / "held", 12)
    run = pretrain(
        "infonce", folder, where / "run", second=captions, test=held, second_test=told, **SMALL
    )
    return where, run


def test_a_run_keeps_both_encoders_and_says_so(trained):
    where, run = trained
    asked = config.load(where / "run" / "run.yaml")
    assert asked["second_sample"]["kind"] == "text"
    assert asked["second_backbone"]["name"] == "bert_tiny"
    assert asked["options"]["pair"] == "modalities"
    assert (where / "run" / "second" / "tokenizer.json").exists()
    first, second = (selftaught.load(where / p) for p in ("run", "run/second"))
    assert kinds.of(second).word == "text"
    assert first.channels == 3
    found = selftaught.evaluate.embed(second, str(where / "captions.csv"))
    assert found.features.shape == (36, second.dim)
    again = restored(where / "run")
    state = run.method.state_dict()
    assert all(torch.equal(v.cpu(), state[n].cpu()) for n, v in again.state_dict().items())
    with np.load(where / "run" / "views.npz") as views:
        assert [views[n].shape[1] for n in views.files] == [3, 1], "a photo and a text"
    assert "What it was trained on" in (where / "run" / "report.html").read_text()


def test_a_run_is_scored_on_test_pairs_beside_floors(trained):
    where, run = trained
    saved = json.loads((where / "run" / "scores.json").read_text())
    assert {s["features"] for s in saved["scores"]} == {
        "this encoder", "plain CCA", "untrained CCA", "chance"
    }  # fmt: skip
    names = {s["score"] for s in saved["scores"]}
    assert names == {
        "image to text recall@1", "image to text recall@5",  # of six different texts
        "text to image recall@1", "text to image recall@5", "text to image recall@10",
    }  # fmt: skip
    assert run.verdict is not None
    assert "recall" in " ".join(run.verdict.reasons)


def test_the_same_settings_give_the_same_run(trained, tmp_path):
    where, _ = trained
    argv = ["pretrain", "--config", str(where / "run" / "run.yaml"), "--out", str(tmp_path / "r")]
    assert cli.main([*argv, "--workers", "1", "--no-evaluate"]) == 0
    for part in ("", "second"):
        ours, theirs = (f / part / "encoder.safetensors" for f in (where / "run", tmp_path / "r"))
        assert ours.read_bytes() == theirs.read_bytes()


def test_a_run_goes_on_with_its_own_tokenizer(trained, tmp_path):
    where, _ = trained
    given = {**SMALL, "second": str(where / "captions.csv"), "evaluate": False, "save_every": 0}
    whole = pretrain("infonce", str(where / "photos"), tmp_path / "a", **given)
    part = {**given, "max_steps": 2}
    pretrain("infonce", str(where / "photos"), tmp_path / "b", **part)
    resumed = {**given, "resume": True, "force": True}
    on = pretrain("infonce", str(where / "photos"), tmp_path / "b", **resumed)
    assert kinds.of(on.method.other) == kinds.of(whole.method.other)
    assert len((tmp_path / "b" / "metrics.csv").read_text().splitlines()) >= 3


def test_evaluate_scores_pairs_from_the_command_line(trained, capsys, tmp_path):
    where, _ = trained
    held = where / "held"
    out = tmp_path / "scores.json"
    argv = ["evaluate", str(where / "run"), str(where / "photos")]
    argv += ["--second", str(where / "captions.csv"), "--test", str(held / "photos")]
    argv += ["--second-test", str(held / "captions.csv"), "--out", str(out)]
    assert cli.main(argv) == 0
    assert "recall@1" in capsys.readouterr().out
    assert json.loads(out.read_text())["margins"]


def test_pairs_that_were_trained_on_are_told(trained, caplog):
    where, _ = trained
    argv = ["evaluate", str(where / "run"), str(where / "photos")]
    assert cli.main([*argv, "--second", str(where / "captions.csv")]) == 0
    assert "has learned from these pairs" in caplog.text


def test_an_unreadable_partner_takes_the_pair_away(tmp_path):
    folder, _ = photos(tmp_path, 12)
    (tmp_path / "s").mkdir()
    for i in range(12):
        np.savetxt(tmp_path / "s" / f"{i:02}.csv", np.random.default_rng(i).random((20, 2)))
    (tmp_path / "s" / "03.csv").write_bytes(b"\xff\xfe no table")
    run = tmp_path / "run"
    given = {n: v for n, v in SMALL.items() if not n.startswith("second")}
    pretrain(
        "vicreg", folder, run, second=str(tmp_path / "s"), second_kind="series",
        **given | {"batch": 12, "epochs": 1, "hidden": 8, "max_bad": 0.2, "second_width": 4},
    )  # fmt: skip
    listed = (run / "bad_files.csv").read_text()
    assert "03.png" in listed
    assert "03.csv" in listed


def test_what_cannot_be_is_told_before_training(tmp_path):
    folder, captions = photos(tmp_path, 6)
    with pytest.raises(UserError, match="DCCAE compares two images of a thing"):
        pretrain("dccae", folder, tmp_path / "r", second=captions)
    with pytest.raises(UserError, match="SimCLR sees one image a sample"):
        pretrain("simclr", folder, tmp_path / "r", second=captions, backbone="test_resnet", size=32)
    with pytest.raises(UserError, match="no kind of samples is called 'words'"):
        pretrain("infonce", folder, tmp_path / "r", second=captions, second_kind="words")
    with pytest.raises(UserError, match="holds no sounds"):
        pretrain("infonce", folder, tmp_path / "r", second=folder, second_kind="sound")
    with pytest.raises(UserError, match="--second-test names one side of test pairs"):
        pretrain("infonce", folder, tmp_path / "r", second=captions, second_test=captions, **SMALL)
    assert not (tmp_path / "r").exists()


# scores -----------------------------------------------------------------------------------------


def test_chance_is_the_share_of_draws_that_hold_a_right_one():
    rng = np.random.default_rng(0)
    for right, among, k in ((1, 7, 1), (2, 9, 3), (4, 6, 5)):
        drawn = [bool((rng.permutation(among)[:k] < right).any()) for _ in range(20_000)]
        found = chance(np.array([right]), among, k)[0]
        assert found == pytest.approx(np.mean(drawn), abs=0.02)
    assert chance(np.array([3]), 4, 2)[0] == 1.0
    exact = 1 - math.comb(95, 5) / math.comb(100, 5)
    assert chance(np.array([5]), 100, 5)[0] == pytest.approx(exact, rel=1e-12)


def test_what_is_alike_for_all_finds_nothing():
    same = torch.ones(4, 3)
    assert canonical.ranks(same, same, torch.eye(4, dtype=torch.bool)).tolist() == [3, 3, 3, 3]
    own = torch.eye(4)
    assert canonical.ranks(own, own, torch.eye(4, dtype=torch.bool)).tolist() == [0, 0, 0, 0]


def test_canonical_correlations_find_what_both_sides_share():
    rng = np.random.default_rng(0)
    shared = rng.standard_normal((300, 3))
    x, y = (
        np.concatenate([shared @ rng.standard_normal((3, 4)), rng.standard_normal((300, 6))], 1)
        for _ in range(2)
    )
    made = canonical.fit(x[:200], y[:200], np.arange(200))
    right = torch.eye(100, dtype=torch.bool)
    ranks = canonical.ranks(made.first(x[200:]), made.second(y[200:]), right)
    assert (ranks == 0).mean() > 0.7
    turned = canonical.ranks(made.first(x[200:]), made.second(y[200:]).roll(1, 0), right)
    assert (turned == 0).mean() < 0.1


def test_repeated_captions_all_count(trained, tmp_path):
    """Photos of one color have the same caption: any of it is right, and is one thing to find."""
    _, run = trained
    folder, _ = photos(tmp_path, 12)
    rows = [("file", "caption")]
    rows += [(f"{i:02}.png", f"a {list(COLORS)[i % 3]} box") for i in range(12)]
    captions = table(tmp_path / "c.csv", rows)
    both = towers(run.method)
    second = texts(captions).seen_as(kinds.of(both[1].encoder))
    pairs = pair(open_data(folder), second, (folder, captions))
    scores = compare_pairs(both, pairs, pairs).scores
    found = {s.name: s for s in scores["this encoder"]}
    assert found["image to text recall@1"].n == 12
    assert "12 search 3 by cosine" in found["image to text recall@1"].protocol
    assert found["text to image recall@1"].n == 3
    luck = {s.name: s.value for s in scores["chance"]}
    assert luck["image to text recall@1"] == pytest.approx(100 / 3)
    assert luck["text to image recall@1"] == pytest.approx(100 * 4 / 12)
    assert {s.name for s in scores["plain CCA"]} == set(found)


def test_too_few_pairs_are_refused(trained, tmp_path):
    _, run = trained
    folder, captions = photos(tmp_path, 3)
    both = towers(run.method)
    second = texts(captions).seen_as(kinds.of(both[1].encoder))
    pairs = pair(open_data(folder), second, (folder, captions))
    with pytest.raises(UserError, match="too few"):
        compare_pairs(both, pairs, None)
