"""The page: complete, safe to open, and made of whatever a run left behind."""

import base64
import hashlib
import html.parser
import io
import json
import math
import re
import shutil

import numpy as np
import pytest
import torch
from PIL import Image as Picture
from pyarrow import parquet
from rich.console import Console

from selftaught import augment, evaluate, export, report
from selftaught.backbones import Image, Wrapped
from selftaught.data import open_data
from selftaught.errors import UserError
from selftaught.export.facts import keep
from selftaught.report import charts, plane, seen
from selftaught.report.folder import read
from selftaught.report.html import Section
from selftaught.report.image import local
from selftaught.report.image.gallery import Cell, Gallery, save
from selftaught.report.image.pictures import encode, sprite

EVIL = "<script>alert(1)</script>&\"'.png"


class Reader(html.parser.HTMLParser):
    """Checks that tags nest, and keeps tags, text and attributes; scripts apart."""

    void = ("meta", "img", "path", "rect", "circle")

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.words, self.links, self.scripts = [], [], [], [], []
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
        (self.scripts if self.open[-1:] == ["script"] else self.words).append(data)

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
        scores["verdict"].split(". ")[0],
        "k-NN, per cent right",
        "pixels 16x16",
        scores["scores"][0]["protocol"],
        "terms of the loss",
        "attract",
        "learning rate",
        "2 views of 32 x 32 px",
        "most similar among 21 of 21",
        "21 of 21 images, placed by principal components",
        "uvx embedding-atlas",
        "Most similar pairs",
        "Images that resemble no other",
        "three strongest directions",
        "2: ants (11), bees (10)",
        "50 px",
        "PNG",
        "neighbors have the class of their query",
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
    assert found.tags.count("canvas") == 2
    assert found.tags.count("img") == 5 * 2 + 12 * (1 + seen.NEAR) + 1 + 8 * 2 + 12 * 2 + 12
    assert "Not on this page" not in found.text
    assert 'class="missing"' not in (run / "report.html").read_text()
    anchors = [link for link in found.links if link.startswith("#")]
    assert len(anchors) == found.tags.count("section") == 10
    assert all(f'id="{a[1:]}"' in (run / "report.html").read_text() for a in anchors)


def test_nothing_on_the_page_leaves_the_machine_and_one_script_runs(run):
    found = page(run)
    text = (run / "report.html").read_text()
    data, script = re.findall(r"<script[^>]*>(.*?)</script>", text, re.DOTALL)
    assert [data, script] == found.scripts
    assert text.count('<script type="application/json">') == 1
    json.loads(data)
    allowed = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = "default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline';"
    assert f"{policy}\n script-src 'sha256-{allowed}'" in text
    assert "link" not in found.tags
    assert all(link.startswith(("data:image/", "#")) for link in found.links)
    assert not re.search(r"url\(|@import|fetch\(|XMLHttp|WebSocket", text)
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
    assert found.tags.count("script") == (run / "report.html").read_text().count("<script") == 2
    assert evil in found.text
    assert any("\\u003cscript>alert(1)" in text for text in found.scripts)  # a name of a file


def test_names_that_are_no_text(run):
    with open(run / "bad_files.csv", "wb") as file:
        file.write(b"path,reason,first_step\n\xff\xfe.jpg,broken,\n")
    assert "broken" in page(run).text


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("scores.json", "Unclear: there are no scores"),
        ("scores.json", "the data had no labels, or evaluation was switched off"),
        ("metrics.csv", "no step was recorded"),
        ("views.npz", "the views were not kept"),
        ("encoder.json", "no encoder was saved: the run is not finished"),
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
    """As if it was missing; settings, which are text, are shown as they are."""
    (run / name).write_bytes(content)
    text = page(run).text
    said = {
        "scores.json": "Unclear: there are no scores",
        "metrics.csv": "no step was recorded",
        "views.npz": "the views were not kept",
        "run.yaml": "[1, 2]" if content == b"[1, 2]" else "{{{" if content else "no run.yaml",
    }
    assert said.pop(name) in text
    assert not any(words in text for file, words in said.items() if file != "run.yaml")


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
    assert found.tags.count("img") == 3 + 12 * (1 + seen.NEAR) + 1 + 8 * 2 + 12 * 2 + 12
    assert (f"of {channels} channels" in found.text) == (channels > 1)


def test_data_that_is_gone_is_said_and_can_be_given(run, photos):
    text = (run / "run.yaml").read_text()
    (run / "run.yaml").write_text(re.sub("data: .*", "data: /nowhere/photos", text))
    found = page(run)
    assert "Not on this page" in found.text
    assert "if the data has moved, say where it is with --data" in found.text
    assert "canvas" not in found.tags
    assert "Map" in page(run, photos).text
    assert "Not on this page" not in page(run, photos).text
    with pytest.raises(UserError, match="does not exist"):
        report.write(run, "/nowhere/else")


def test_how_many_images_are_looked_at(run):
    assert len(seen.look(read(run), images=12)) == 12
    for images in (1, 10_001):
        with pytest.raises(UserError, match=f"--images {images} must be from 2 to 10,000"):
            report.write(run, images=images)


def test_a_device_that_is_not_there_costs_no_page(run):
    before = report.write(run, images=2).read_bytes()
    with pytest.raises(UserError, match="device='foo' cannot be used"):
        report.write(run, device="foo")
    assert (run / "report.html").read_bytes() == before


def test_a_slow_network_is_shown_fewer_images(run, monkeypatch):
    network = export.load(run)
    ticks = iter(range(0, 10**6, 100 * torch.get_num_threads()))
    monkeypatch.setattr("time.process_time", lambda: next(ticks))
    assert seen._affordable(network, torch.device("cpu")) == 200


def test_what_is_seen_is_what_the_encoder_says(run, photos):
    found = seen.look(read(run))
    features = evaluate.embed(run, photos).features
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    samples = open_data(photos)
    assert [found.name(i) for i in range(21)] == [samples.name(i) for i in range(21)]
    np.testing.assert_allclose(found.unit, unit, atol=1e-5)
    cosines = unit @ unit.T
    np.fill_diagonal(cosines, -1)
    np.testing.assert_allclose(found.similarity, -np.sort(-cosines, 1)[:, :8], atol=1e-5)
    np.testing.assert_allclose(
        np.take_along_axis(cosines, found.near, 1), found.similarity, atol=1e-5
    )
    assert [found.label(i) for i in (0, 20)] == ["ants", "bees"]
    assert np.array_equal(found.small[0], augment.plain(32)(samples.read(0)))


def test_copies_are_the_most_similar_pair(run):
    found = page(run).text.split("Most similar pairs")[1]
    assert "1.000" in found[:60]  # one photo is there twice, under an evil name


def test_the_map_is_also_a_table_for_an_explorer(run):
    page(run)
    table = parquet.read_table(run / "embeddings.parquet").to_pylist()
    found = seen.look(read(run))
    assert len(table) == 21
    assert set(table[0]) == {"name", "x", "y", "image", "neighbors", "class"}
    for i, row in enumerate(table):
        assert Picture.open(io.BytesIO(row["image"]["bytes"])).size == (32, 32)
        assert row["neighbors"]["ids"] == found.near[i].tolist()
        assert row["neighbors"]["distances"] == pytest.approx(1 - found.similarity[i], abs=1e-6)
        assert row["class"] == found.label(i)


def test_a_gallery_is_a_section(run):
    data, kind = encode(np.zeros((3, 32, 32), np.uint8))
    cells = (Cell(data, kind, "seen", ""), Cell(data, kind, "painted", EVIL))
    save(run, [Gallery("Repairs", "How to read them.", (("", cells), ("", cells)))])
    found = page(run)
    assert "Repairs" in found.text
    assert "How to read them." in found.text
    assert f"painted: {EVIL}" in found.text


def evaluated(scores, data="labeled", test=None):
    """Of an encoder and of one floor: name -> number of labels, value of both."""
    rows = [
        {"features": features, "score": name, "value": values[n], "interval": [0, 1], "n": 9}
        | {
            "labels": None if name == "k-NN" else labels,
            "protocol": f"{labels} labels",
            "measure": "right",
        }
        for n, features in enumerate(("this encoder", "untrained"))
        for name, (labels, *values) in scores.items()
    ]
    savings = [
        {"score": name, "labels": labels, "value": ours, "needed": 4 * labels, "at_least": True}
        | {"saved": 3 * labels, "utility": 3.0}
        for name, (labels, ours, _) in scores.items()
        if name != "k-NN"
    ]
    return {"verdict": "Learned: much.", "margins": [], "scores": rows, "savings": savings}


def test_evaluations_are_kept_beside_those_of_training(run):
    before = len(read(run).scores)
    curve = {"1 a class": (2, 60.0, 50.0), "10 % of labels": (20, 80.0, 60.0)}
    keep(run, "labeled", None, evaluated(curve))
    keep(run, "labeled", "held", evaluated({"k-NN": (20, 91.0, 1.0)}))
    assert [len(read(run).scores), before] == [3, 1]
    found = page(run)
    for words in (
        "On labeled, tested on held",
        "number of labels; 2 labels. Without",
        "Labels saved on labeled",
        "At best 20 labels with the encoder do what more than 80 do without: more than 60 saved.",
        "Learned: much.",
        "more than +60",
    ):
        assert words in found.text, words
    (svg,) = re.findall(
        r"Labels saved on labeled</h2>.*?(<svg.*?</svg>)",
        (run / "report.html").read_text(),
        re.DOTALL,
    )
    assert svg.count("<circle") == 4
    assert "1 a class, per cent right" not in found.text  # the curve has it
    assert [float(v) for v in re.findall(r'middle" x="[^"]*" y="184">([^<]*)<', svg)] == [
        2,
        5,
        10,
        20,
    ]


def test_runs_are_compared_by_what_they_share(run, tmp_path):
    other = shutil.copytree(run, tmp_path / "other")
    mine = {row[0] for row in report.compare([run, other], tmp_path / "a.html").overview}
    keep(run, "labeled", None, evaluated({"k-NN": (20, 91.0, 1.0)}))
    compared = report.compare([run, other], tmp_path / "b.html")
    assert compared.warning == ""  # both have the score of training
    assert {row[0] for row in compared.overview} == mine
    keep(other, "labeled", None, evaluated({"k-NN": (20, 92.0, 1.0)}))
    (row,) = [
        r for r in report.compare([run, other], tmp_path / "c.html").overview if r[0] == "k-NN %"
    ]
    assert [cell[:4] for cell in row[1:]] == ["91.0", "92.0"]


def test_an_evaluation_that_is_repeated_takes_its_place(run):
    one, two = {"1 a class": (2, 60.0, 50.0)}, {"k-NN": (20, 70.0, 50.0)}
    keep(run, "labeled", None, evaluated(one))
    keep(run, "labeled", None, evaluated(two))
    keep(run, "other", None, evaluated(one))
    assert len(read(run).scores) == 4
    keep(run, "labeled", None, evaluated(one | two))
    assert [e.get("data") for e in read(run).scores] == [None, "other", "labeled"]
    about = json.loads((run / "encoder.json").read_text())
    (run / "encoder.json").write_text(json.dumps(about | {"sha256": "trained further"}))
    assert [e.get("data") for e in read(run).scores] == [None]


def test_one_number_of_labels_bounds_nothing_but_itself(run):
    found = evaluated({"fine-tuned, 100 % of labels": (20, 60.0, 50.0)})
    found["savings"][0] |= {"needed": 20, "saved": 0, "utility": 0.0}
    keep(run, "labeled", None, found)
    text = page(run).text
    assert "Labels saved by fine-tuning on labeled" in text
    assert "The encoder does more with 20 labels than 20 do without." in text


def test_a_run_without_labels_has_the_verdict_of_its_evaluation(run):
    (run / "scores.json").unlink()
    assert "Unclear: there are no scores" in page(run).text
    found = evaluated({"k-NN": (20, 70.0, 50.0)})
    keep(run, "labeled", None, found | {"margins": [{"score": "k-NN", "verdict": "above"}]})
    assert "there are no scores" not in page(run).text
    assert "Learned: its score clears its floor." in page(run).text


@pytest.mark.parametrize("text", ["[]", "{", '{"evaluations": 3}', '{"evaluations": [3, {}]}'])
def test_damaged_evaluations_are_left_out(run, text):
    (run / "evaluated.json").write_text(text)
    assert len(read(run).scores) == 1
    about = json.loads((run / "encoder.json").read_text())["sha256"]
    entry = {"encoder_sha256": about, "scores": 4, "savings": [{}], "margins": {}, "data": []}
    (run / "evaluated.json").write_text(json.dumps({"evaluations": [entry]}))
    with_it = page(run).text
    (run / "evaluated.json").unlink()
    times = re.compile(r"\d\d:\d\d")
    assert times.sub("", with_it) == times.sub("", page(run).text)


def test_the_doctor_speaks_first_with_causes_and_remedy(run):
    finding = {"name": "collapse", "says": "it fell", "causes": ["a", EVIL], "remedy": "mend it"}
    diagnosis = {
        "verdict": "failed",
        "evidence": ["the rank is 1"],
        "standing": ["collapse"],
        "findings": [{**finding, "step": 7}],
    }
    (run / "diagnosis.json").write_text(json.dumps(diagnosis))
    words = page(run).text
    order = [words.index(w) for w in ("Failed: The rank is 1", "it fell", "mend it", "Curves")]
    assert order == sorted(order)


def test_no_run_is_refused(tmp_path):
    with pytest.raises(UserError, match="is not a folder"):
        report.write(tmp_path / "nowhere")
    with pytest.raises(UserError, match="holds no run"):
        report.write(tmp_path)


# the map and local features ------------------------------------------------------------------


def test_groups_are_apart_on_the_map():
    rng = np.random.default_rng(0)
    centers = rng.normal(size=(3, 16))
    which = rng.integers(0, 3, 150)
    unit = centers[which] + 0.05 * rng.normal(size=(150, 16))
    unit = (unit / np.linalg.norm(unit, axis=1, keepdims=True)).astype(np.float32)
    found = plane.project(unit)
    assert found is not None
    assert found.shape == (150, 2)
    distance = np.linalg.norm(found[:, None] - found[None], axis=2)
    np.fill_diagonal(distance, np.inf)
    assert (which[distance.argmin(1)] == which).all()
    again = plane.project(unit)
    assert again is not None
    assert np.array_equal(found, again)


@pytest.mark.parametrize("count", [2, 3, 49, 50, 60])
def test_any_number_of_points_has_a_map(count):
    unit = np.random.default_rng(0).normal(size=(count, 8)).astype(np.float32)
    found = plane.project(unit)
    assert found is not None
    assert found.shape == (count, 2)
    assert np.isfinite(found).all()


def test_features_that_are_all_the_same_have_no_map():
    assert plane.project(np.ones((80, 4), np.float32) / 2) is None
    line = np.zeros((60, 4), np.float32)
    line[:, 0] = np.linspace(-1, 1, 60)
    found = plane.project(line)
    assert found is not None
    assert np.isfinite(found).all()


@pytest.mark.parametrize("shape", [(40, 6), (6, 40)])
def test_principal_components_are_those_of_the_svd(shape):
    x = np.random.default_rng(0).normal(size=shape)
    u, s, _ = np.linalg.svd(x - x.mean(0), full_matrices=False)
    np.testing.assert_allclose(np.abs(plane.principal(x, 3)), np.abs(u * s)[:, :3], atol=1e-9)
    assert plane.principal(np.repeat(x[:1], 5, 0), 3).shape == (5, 0)


def test_local_features_that_are_alike_have_one_color():
    rng = np.random.default_rng(0)
    kinds = rng.normal(size=(3, 12)).astype(np.float32)
    which = rng.integers(0, 3, (2, 16))
    colors = local.colored(kinds[which], (4, 4))
    assert colors.shape == (2, 3, 4, 4)
    flat = colors.transpose(0, 2, 3, 1).reshape(2, 16, 3)
    for kind in range(3):
        assert len(np.unique(flat[which == kind], axis=0)) == 1
    assert len(np.unique(flat.reshape(-1, 3), axis=0)) == 3


@torch.no_grad()
@pytest.mark.parametrize("class_token", [True, False])
def test_attention_is_that_of_the_last_block(class_token):
    torch.manual_seed(0)
    network = Image("test_vit", 32, pool="mean", class_token=class_token).eval()
    x = torch.randn(2, 3, 32, 32)
    found = network.attention(x)
    assert found.shape == (2, network.heads, 64)
    block, kept = network.net.blocks[-1], []
    block.attn.fused_attn = False
    block.attn.attn_drop.register_forward_hook(lambda m, inputs, _: kept.append(inputs[0]))
    network.features(x)
    rows = kept[0][:, :, :1] if class_token else kept[0][:, :, network.prefix :]
    torch.testing.assert_close(found, rows.mean(2)[..., network.prefix :])


def test_transformers_show_attention_and_networks_without_cells_nothing(run, photos):
    export.save(Image("test_vit", 32), run)
    words = page(run).text
    assert "Attention is the last block's" in words
    assert "head 1" in words


def test_modules_of_ones_own_show_features_of_places_without_attention(photos):
    samples = open_data(photos)
    rows = np.zeros((len(samples), 1))
    network = Wrapped(torch.nn.Conv2d(3, 8, 4, 4), 32)
    found = local.section(
        seen.Seen(network, samples, len(samples), rows, None, None, rows, rows, rows, {})
    )
    assert isinstance(found, Section)
    assert "features of" in found.body
    assert "Attention" not in found.note


def test_a_sprite_holds_each_image_in_its_place():
    images = np.zeros((5, 1, 8, 8), np.uint8) + np.arange(0, 250, 50, np.uint8)[:, None, None, None]
    url, columns = sprite(images, 16)
    sheet = np.asarray(Picture.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))))
    assert (columns, sheet.shape) == (3, (32, 48, 3))
    centers = [sheet[8 + 16 * (i // 3), 8 + 16 * (i % 3), 0] for i in range(5)]
    np.testing.assert_allclose(centers, images[:, 0, 0, 0], atol=4)


# runs side by side ---------------------------------------------------------------------------


@pytest.fixture
def two(run, tmp_path):
    other = shutil.copytree(run, tmp_path / "other")
    text = (other / "run.yaml").read_text()
    (other / "run.yaml").write_text(text.replace("epochs: 7", "epochs: 9, note: <script>"))
    return run, other


def test_runs_side_by_side(two, tmp_path, capsys):
    out = tmp_path / "both.html"
    found = report.compare(two, out)
    scores = json.loads((two[0] / "scores.json").read_text())["scores"]
    rows = {row[0]: row[1:] for row in found.overview[1:]}
    assert found.overview[0] == ["", "run", "other"]
    assert rows["epochs"] == ["7", "9"]
    assert rows["k-NN %"][0].startswith(f"{scores[0]['value']:.1f} (")
    assert set(rows) >= {"method", "encoder", "k-NN above floor", "probe floor %", "last loss"}
    assert found.settings[1:] == [["training.epochs", "7", "9"], ["training.note", "–", "<script>"]]
    assert found.warning == ""
    read = Reader(out.read_text())
    for words in (
        "2 runs",
        "Settings that differ",
        "training.epochs",
        "k-NN, per cent right",
        "loss",
    ):
        assert words in read.text, words
    assert read.tags.count("svg") == 2 + 3
    assert out.read_text().count("<script") == 1
    Console(width=80).print(found)
    printed = capsys.readouterr().out
    assert "training.epochs" in printed
    assert "both.html" in printed.replace("\n", "")


def test_scores_of_different_tests_are_not_comparable(two, tmp_path):
    scores = json.loads((two[1] / "scores.json").read_text())
    for score in scores["scores"]:
        score["protocol"] = "900 train, 99 test, 2 classes; cosine"
    (two[1] / "scores.json").write_text(json.dumps(scores))
    assert "different tests" in report.compare(two, tmp_path / "x.html").warning


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"images": {"train": "a", "test": "c"}}, "different images or labels, though of as many"),
        ({"images": {"train": "b", "test": "b"}}, "different images or labels, though of as many"),
        ({"size": 64}, "made in different ways"),
        ({"settings": {"k-NN": {"k": 5, "temperature": 0.07}}}, "k-NN: "),
        ({}, ""),
        ({"images": None, "size": None, "settings": None}, ""),
    ],
)
def test_equal_numbers_of_other_images_or_settings_are_told(two, tmp_path, change, words):
    settings = {"k-NN": {"k": 20, "temperature": 0.07}}
    known = {"images": {"train": "a", "test": "b"}, "size": 32, "settings": settings}
    for path, own in zip(two, (known, known | change), strict=True):
        saved = json.loads((path / "scores.json").read_text())
        assert {*known} <= {*saved}
        (path / "scores.json").write_text(json.dumps(saved | own))
    warning = report.compare(two, tmp_path / "x.html").warning
    assert words in warning
    assert bool(warning) == bool(words)


def test_runs_that_left_little(two, tmp_path):
    for name in ("scores.json", "metrics.csv", "encoder.json", "views.npz"):
        (two[1] / name).unlink()
    found = report.compare(two, tmp_path / "x.html")
    assert {row[0]: row[2] for row in found.overview}["k-NN %"] == "–"
    for path in two:
        (path / "metrics.csv").unlink(missing_ok=True)
        (path / "scores.json").unlink(missing_ok=True)
    report.compare(two, tmp_path / "x.html")
    assert "no run was scored" in (tmp_path / "x.html").read_text()


def test_comparisons_that_cannot_be_are_refused(two, tmp_path):
    with pytest.raises(UserError, match="two runs or more, got 1"):
        report.compare(two[:1])
    with pytest.raises(UserError, match="names a run twice"):
        report.compare([two[0], two[0]])
    with pytest.raises(UserError, match="holds no run"):
        report.compare([two[0], tmp_path])
    with pytest.raises(UserError, match=r"must end in \.html"):
        report.compare(two, tmp_path / "x.txt")


def test_runs_with_the_same_settings(run, tmp_path):
    again = shutil.copytree(run, tmp_path / "again")
    report.compare([run, again], tmp_path / "x.html")
    assert "all settings are the same" in (tmp_path / "x.html").read_text()


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
