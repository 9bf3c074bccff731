"""The page: complete, safe to open, and made of whatever a run left behind."""

import html.parser
import json
import math
import re
import shutil

import numpy as np
import pytest
import torch
from PIL import Image as Picture

from selftaught import evaluate, export, report
from selftaught.backbones import Image
from selftaught.errors import UserError
from selftaught.report import charts, pictures
from selftaught.report.folder import read

EVIL = "<script>alert(1)</script>&\"'.png"


class Reader(html.parser.HTMLParser):
    """Checks that tags nest, and keeps tags, text and attributes."""

    void = ("meta", "img", "path", "rect", "circle")

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.words, self.links = [], [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [v for k, v in attrs if k in ("src", "href") or k.startswith("on")]
        if tag not in self.void:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        if tag not in self.void:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self):
        return " ".join(self.words)


def page(run, data=None):
    path = report.write(run, data)
    assert path == run / "report.html"
    assert path.stat().st_size < 5e6
    return Reader(path.read_text("utf-8"))


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for name in ("ants", "bees"):
        (folder / name).mkdir()
        for i in range(10):
            image = rng.integers(0, 120, (40, 50, 3)) + (100 if name == "bees" else 0)
            Picture.fromarray(image.astype(np.uint8)).save(folder / name / f"{i}.png")
    shutil.copy(folder / "ants" / "0.png", folder / "ants" / EVIL.replace("/", "∕"))
    return folder


@pytest.fixture(scope="module")
def template(photos, tmp_path_factory):
    """A whole run folder, as pretrain leaves it."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("run")
    encoder = Image("test_resnet", 32)
    export.save(encoder, folder)
    evaluate.compare(encoder, photos, k=3).save(folder / "scores.json")
    (folder / "run.yaml").write_text(
        f"method: simclr\ndata: {photos}\nbackbone: {{name: test_resnet, size: 32}}\n"
        "training: {epochs: 7, batch: 16}\nmade_by: {torch: 9.9.9}\n"
    )
    rows = ["step,epoch,progress,loss,attract,repel,lr,images_per_second,data_wait"]
    rows += [f"{i},{i // 9},{i / 60},{5 / i},{3 / i},{2 / i},0.1,900,0.02" for i in range(1, 61)]
    (folder / "metrics.csv").write_text("\n".join(rows) + "\n")
    rng = np.random.default_rng(0)
    views = {f"view{i}": rng.integers(0, 255, (5, 3, 32, 32), np.uint8) for i in range(2)}
    np.savez_compressed(folder / "views.npz", **views)
    (folder / "bad_files.csv").write_text("path,reason,first_step\na/b.jpg,ends too early,3\n")
    return folder


@pytest.fixture
def run(template, tmp_path):
    return shutil.copytree(template, tmp_path / "run")


def test_everything_is_on_the_page(run):
    found = page(run)
    scores = json.loads((run / "scores.json").read_text())
    for words in (
        "simclr on photos",
        "test_resnet, 32 px",
        scores["verdict"].split(": ")[0],
        "k-NN, per cent right",
        "pixels 16x16",
        scores["scores"][0]["protocol"],
        "terms of the loss",
        "attract",
        "learning rate",
        "2 views of 32 x 32 px",
        "among 21 of 21",
        "neighbours have the class of their query",
        "1 files could not be read",
        "ends too early",
        "selftaught evaluate",
        "timm.create_model",
        "trained with torch",
        "9.9.9",
        "method: simclr",
    ):
        assert words in found.text, words
    assert found.tags.count("svg") == 7
    assert found.tags.count("img") == 5 * 2 + pictures.QUERIES * (1 + pictures.NEAR)
    assert 'class="missing"' not in (run / "report.html").read_text()


def test_nothing_on_the_page_leaves_the_machine_or_runs(run):
    found = page(run)
    assert "script" not in found.tags
    assert "link" not in found.tags
    assert all(link.startswith("data:image/") for link in found.links)
    text = (run / "report.html").read_text()
    assert "default-src 'none'; img-src data:; style-src 'unsafe-inline'" in text
    assert not re.search(r"url\(|@import", text)
    # The only address is a name: that of no document.
    assert "http://" not in text
    assert "https://" not in text


def test_every_text_from_outside_is_escaped(run, photos):
    evil = EVIL
    text = (run / "run.yaml").read_text()
    (run / "run.yaml").write_text(
        text.replace("simclr", json.dumps(evil)).replace("epochs: 7", f"epochs: {json.dumps(evil)}")
    )
    scores = json.loads((run / "scores.json").read_text())
    scores["verdict"] = evil
    scores["margins"][0] |= {"score": evil, "points": evil, "interval": evil}
    scores["scores"][0] |= {"features": evil, "protocol": evil, "value": evil}
    (run / "scores.json").write_text(json.dumps(scores))
    metrics = (run / "metrics.csv").read_text()
    (run / "metrics.csv").write_text(metrics.replace("attract", "<script>x"))
    (run / "bad_files.csv").write_text(
        "path,reason,first_step\n<script>a,<script>b,\n", encoding="utf-8"
    )
    about = json.loads((run / "encoder.json").read_text())
    (run / "encoder.json").write_text(json.dumps({**about, "timm": evil}))
    found = page(run)
    assert "script" not in found.tags
    assert "<script>" not in (run / "report.html").read_text()
    assert evil in found.text


def test_names_that_are_no_text(run):
    with open(run / "bad_files.csv", "wb") as file:
        file.write(b"path,reason,first_step\n\xff\xfe.jpg,broken,\n")
    assert "broken" in page(run).text


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("scores.json", "Not scored."),
        ("scores.json", "No scores: the data had no labels"),
        ("metrics.csv", "no step was recorded"),
        ("views.npz", "the views were not kept"),
        ("encoder.json", "the run is not finished"),
        ("encoder.json", "--resume"),
        ("encoder.safetensors", "encoder.safetensors is missing"),
        ("bad_files.csv", "every file that was read could be read"),
        ("run.yaml", "There is no run.yaml."),
    ],
)
def test_what_is_missing_is_said(run, name, words):
    (run / name).unlink()
    assert words in page(run).text


@pytest.mark.parametrize("name", ["scores.json", "metrics.csv", "views.npz", "run.yaml"])
@pytest.mark.parametrize("content", [b"", b"\x00\xff{{{", b"[1, 2]"])
def test_what_is_damaged_is_left_out(run, name, content):
    (run / name).write_bytes(content)
    assert "What to do next" in page(run).text


def test_one_step_gaps_and_a_loss_that_is_not_finite(run):
    head = "step,epoch,progress,loss,lr\n"
    (run / "metrics.csv").write_text(head + "1,0,0.1,4.5,0.1\n")
    assert "A single row makes a point" in page(run).text
    (run / "metrics.csv").write_text(head + "1,0,0.1,4.5,\n2,0,0.2,nan,\n3,0,,inf\n4,0,0.4,4\nx")
    assert "4 rows in metrics.csv" in page(run).text


@pytest.mark.parametrize("channels", [1, 2, 5])
def test_any_number_of_channels(tmp_path, channels):
    run = tmp_path / "run"
    rng = np.random.default_rng(0)
    export.save(Image("test_resnet", 32, channels=channels), run)
    np.savez(run / "views.npz", view0=rng.integers(0, 255, (3, channels, 32, 32), np.uint8))
    data = rng.integers(0, 255, (20, 30, 40, channels), np.uint8)
    found = page(run, data)
    assert found.tags.count("img") == 3 + pictures.QUERIES * (1 + pictures.NEAR)
    assert ("channels" in found.text.split("What it was trained on")[1][:200]) == (channels > 1)


def test_data_that_is_gone_is_said(run):
    text = (run / "run.yaml").read_text()
    (run / "run.yaml").write_text(re.sub("data: .*", "data: /nowhere/photos", text))
    assert "could not be computed" in page(run).text


def test_neighbours_are_those_of_the_features(run, photos):
    found = pictures.neighbours(read(run))
    features = evaluate.embed(run, photos)
    x = features.features / np.linalg.norm(features.features, axis=1, keepdims=True)
    from selftaught.data import open_data

    samples = open_data(photos)
    names = {samples.name(i): row for i, row in zip(features.index, x)}
    for query, *near in found.rows:
        similarity = sorted(
            (float(names[query.name] @ v) for n, v in names.items() if n != query.name)
        )
        assert [n.similarity for n in near] == pytest.approx(similarity[::-1][:8], abs=1e-5)
        assert all(n.same == (n.name.split("/")[0] == query.name.split("/")[0]) for n in near)
    assert pictures.neighbours(read(run)) == found


def test_no_run_is_refused(tmp_path):
    with pytest.raises(UserError, match="is not a folder"):
        report.write(tmp_path / "nowhere")
    with pytest.raises(UserError, match="holds no run"):
        report.write(tmp_path)


# charts --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("low", "high"), [(0, 1), (3.2, 9.7), (-1, 0), (1e-6, 3e-6), (0, 1234567), (4.99, 5.01)]
)
def test_ticks_are_few_round_and_enclose(low, high):
    marks = charts.ticks(low, high)
    assert marks[0] <= low + 1e-9 * abs(low)
    assert marks[-1] >= high - 1e-9 * abs(high)
    assert 3 <= len(marks) <= 9
    assert len(set(map(charts.number, marks))) == len(marks)


def test_a_long_curve_is_small_and_keeps_its_gap():
    points = [(float(i), math.nan if 50_000 < i < 60_000 else float(i)) for i in range(100_000)]
    text = charts.lines({"loss": points})
    assert len(text) < 20_000
    assert text.count('class="line') == 2


def test_smooth_keeps_a_constant_and_skips_gaps():
    assert charts.smooth([(0, 2.0), (1, math.nan), (2, 2.0)]) == [(0, 2.0), (2, 2.0)]
    noisy = [(float(i), 1.0 + (-1) ** i) for i in range(400)]
    assert all(abs(y - 1) < 0.1 for _, y in charts.smooth(noisy)[100:])
