"""A pool: each image stays or leaves with a reason, killed or not, in one job or in many."""

import io
import json
import signal
import subprocess
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image as Picture
from PIL import ImageOps
from pyarrow import parquet

import selftaught
from selftaught import Pool, export, kinds
from selftaught.backbones import Image
from selftaught.cli import main
from selftaught.curate import prints, same
from selftaught.curate.clusters import Level, drawn, entropy, gini, levels, shared
from selftaught.curate.dedup import components
from selftaught.curate.judges import Faces
from selftaught.curate.pool import share
from selftaught.data import open_data
from selftaught.data.joined import Joined
from selftaught.data.source import digest
from selftaught.errors import UserError
from selftaught.index.exact import Vectors
from tests.photos import shipped

ALTERED = {
    "same.jpg": lambda image: image,
    "smaller.jpg": lambda image: image.resize((image.width * 2 // 3, image.height * 2 // 3)),
    "gray.jpg": lambda image: image.convert("L"),
    "mirrored.jpg": ImageOps.mirror,
    "turned.jpg": lambda image: image.rotate(90, expand=True),
    "cropped.jpg": lambda image: image.crop(
        (image.width // 6, image.height // 6, image.width * 5 // 6, image.height * 5 // 6)
    ),
    "framed.jpg": lambda image: ImageOps.expand(image, 12, "white"),
}


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """40 photos; of the first seven an altered copy each; one blank, one tiny, one broken."""
    folder = tmp_path_factory.mktemp("photos")
    for n, data in enumerate(shipped(40)):
        (folder / f"{n:02}.jpg").write_bytes(data)
    (folder / "exact.jpg").write_bytes((folder / "39.jpg").read_bytes())
    for n, (name, alter) in enumerate(ALTERED.items()):
        image = Picture.open(folder / f"{n:02}.jpg").convert("RGB")
        alter(image).save(folder / f"{n:02}-{name}", quality=85)
    Picture.new("RGB", (90, 90), "gray").save(folder / "blank.png")
    Picture.open(folder / "01.jpg").resize((30, 30)).save(folder / "tiny.png")
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nno image")
    return folder


@pytest.fixture(scope="module")
def encoder(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("encoder")
    export.save(Image("test_resnet", 64), folder)
    return folder


@pytest.fixture(scope="module")
def embedded(photos, encoder, tmp_path_factory) -> Path:
    """A pool up to its features, in blocks of 16 rows."""
    folder = tmp_path_factory.mktemp("pools") / "pool"
    Pool.scan(photos, out=folder, rows=16).filter(min_side=32).embed(encoder)
    return folder


@pytest.fixture
def pool(embedded, tmp_path) -> Pool:
    return Pool(copied(embedded, tmp_path / "pool"))


def copied(folder: Path, to: Path) -> Path:
    subprocess.run(["cp", "-r", str(folder), str(to)], check=True)
    return to


def outcome(folder: Path) -> dict[str, bytes]:
    """Everything that stages have decided, byte by byte; how long it took aside."""
    found = {
        str(f.relative_to(folder)): f.read_bytes()
        for f in sorted(folder.rglob("*"))
        if f.suffix in (".parquet", ".npy")
    }
    for file in folder.glob("*.json"):
        told = json.loads(file.read_text())
        told.pop("seconds", None)
        found[file.name] = json.dumps(told, sort_keys=True).encode()
    return found


def left(pool: Pool) -> set[str]:
    return {Path(pool.samples.name(i)).name for i in range(len(pool.samples))}


def reasons(pool: Pool, stage: str) -> dict[str, str]:
    told = pool.verdict(stage)
    names = (Path(pool.everything.name(int(row))).name for row in told["row"])
    return {n: str(r) for n, r in zip(names, told["reason"]) if r}


# the stages


def test_each_image_that_leaves_has_its_reason(embedded):
    pool = Pool(embedded)
    assert reasons(pool, "scan")["broken.png"].startswith("unreadable: ")
    assert reasons(pool, "filter") == {"tiny.png": "small: 30", "blank.png": "empty: 0"}
    assert [record.name for record in pool.records()] == ["scan", "filter", "embed"]
    assert len(pool) == len(pool.samples) == 48
    assert repr(pool) == f"<Pool {embedded}: 48 of 51 images>"


def test_copies_of_every_kind_are_found_and_nothing_else(pool):
    pool.dedup(candidates=-1.0)
    gone = reasons(pool, "dedup")
    assert len(gone) == len(ALTERED) + 1
    kept = left(pool)
    for n, name in enumerate(ALTERED):
        assert len({f"{n:02}.jpg", f"{n:02}-{name}"} & kept) == 1, name
    assert len({"exact.jpg", "39.jpg"} & kept) == 1
    assert sum(reason.startswith("exact copy") for reason in gone.values()) == 1
    assert {"04-turned.jpg", "04.jpg"} & set(gone)
    assert gone["05-cropped.jpg"].startswith("embedding copy: of row ")


def test_a_block_of_which_nothing_is_left_or_can_be_read_is_embedded(encoder, tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for n, data in enumerate(shipped(6)):
        cut = data[: len(data) // 2] if n < 2 else data
        (folder / f"{n}.jpg").write_bytes(cut)
    pool = Pool.scan(folder, out=tmp_path / "pool", rows=2).embed(encoder)
    assert left(pool) == {"2.jpg", "3.jpg", "4.jpg", "5.jpg"}
    pool.filter(min_side=100_000).embed(encoder).dedup()
    assert len(pool) == 0
    with pytest.raises(UserError, match=r"has left none of its 6 images: .*curate restore"):
        _ = open_data(str(tmp_path / "pool"))


def test_the_largest_of_a_group_stays(pool):
    assert {"06-framed.jpg", "05.jpg", "01.jpg"} <= left(pool.dedup(candidates=-1.0))


def test_nothing_of_a_test_set_stays_nor_a_copy_of_its_copies(pool, photos, tmp_path):
    held = tmp_path / "test"
    held.mkdir()
    Picture.open(photos / "05.jpg").save(held / "a.jpg", quality=60)
    (held / "b.jpg").write_bytes((photos / "39.jpg").read_bytes())
    pool.dedup(candidates=-1.0, against=str(held))
    gone = reasons(pool, "dedup")
    assert {name for name, reason in gone.items() if reason.startswith("copy of ")} == {
        "05.jpg", "05-cropped.jpg", "39.jpg", "exact.jpg",
    }  # fmt: skip
    assert not left(pool) & {"05.jpg", "05-cropped.jpg", "39.jpg", "exact.jpg"}


def test_a_cosine_decides_where_one_is_given(pool):
    everything = pool.dedup(threshold=-1.0, hash=-1)
    assert len(everything) == 1
    assert len(pool.dedup(threshold=1.0, hash=-1)) == 47


def test_what_is_like_a_query_is_found_and_the_query_itself_is_not(pool, photos, tmp_path):
    wanted = tmp_path / "wanted"
    wanted.mkdir()
    (wanted / "a.jpg").write_bytes((photos / "10.jpg").read_bytes())
    Picture.open(photos / "11.jpg").convert("RGB").save(wanted / "b.jpg", quality=70)
    pool.retrieve(wanted, nearest=3)
    assert 3 <= len(pool) <= 6
    assert not left(pool) & {"10.jpg", "11.jpg"}
    gone = reasons(pool, "retrieve")
    assert gone["10.jpg"] == gone["11.jpg"] == "copy of a query"
    told = pool.verdict("retrieve")
    stays = told["reason"] == ""
    unit = selftaught.embed(pool.stage("embed").network, wanted).features
    unit = unit / np.linalg.norm(unit, axis=1, keepdims=True)
    own = selftaught.embed(pool.stage("embed").network, pool.samples).features
    own = own / np.linalg.norm(own, axis=1, keepdims=True)
    np.testing.assert_allclose(told["similarity"][stays], (own @ unit.T).max(1), atol=2e-3)
    assert len(pool.retrieve(wanted, nearest=3, limit=2)) == 2


def test_of_few_queries_whole_groups_are_drawn(pool, photos, tmp_path):
    (tmp_path / "wanted").mkdir()
    (tmp_path / "wanted" / "a.jpg").write_bytes((photos / "10.jpg").read_bytes())
    assert len(pool.retrieve(tmp_path / "wanted", clusters=1, per_cluster=7)) in (6, 7)
    assert len(pool.retrieve(tmp_path / "wanted", clusters=1)) == 47


def test_as_many_stay_as_were_asked_for(pool):
    assert len(pool.balance(keep=20)) == 20
    assert len(pool.balance(keep=1000)) == 48
    assert len(pool.balance(keep=5, clusters=(8, 3))) == 5
    with pytest.raises(UserError, match=r"clusters=\[3, 8\] of 48 images: each level has fewer"):
        pool.balance(keep=5, clusters=(3, 8))


# doing it again, in parts, killed


def test_what_is_done_is_not_done_again(pool, monkeypatch):
    pool.dedup(candidates=-1.0).balance(keep=10)
    before = outcome(pool.folder)
    monkeypatch.setattr("selftaught.curate.stage.Stage.do", None)
    monkeypatch.setattr("selftaught.curate.clusters.levels", None)
    Pool(pool.folder).dedup(candidates=-1.0).balance(keep=10)
    assert outcome(pool.folder) == before


def test_parts_in_any_order_give_the_same_bytes_as_one_job(photos, encoder, embedded, tmp_path):
    folder = tmp_path / "pool"
    for part in ("2/3", "0/3", "1/3"):
        made = Pool.scan(photos, out=folder, rows=16, part=part)
    assert [r.name for r in made.records()] == ["scan"]
    for part in ("1/2", "0/2"):
        Pool(folder).filter(min_side=32, part=part)
    for part in ("0/2", "1/2"):
        Pool(folder).embed(encoder, part=part)
    assert outcome(folder) == outcome(embedded)


KILLED = """
import os, signal, sys
from selftaught import Pool
from selftaught.curate import stage
from selftaught.export import files

real, left = files.atomic, [int(sys.argv[2])]

def atomic(path):
    left[0] -= 1
    if left[0] < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(path)

stage.atomic = atomic
import selftaught.curate.pool as pool
pool.atomic = atomic
Pool(sys.argv[1]).embed(sys.argv[3]).dedup(candidates=-1.0).balance(keep=10)
"""


@pytest.fixture(scope="module")
def ended(embedded, tmp_path_factory) -> Any:
    """What an uninterrupted run comes to."""
    whole = copied(embedded, tmp_path_factory.mktemp("ended") / "whole")
    Pool(whole).dedup(candidates=-1.0).balance(keep=10)
    return outcome(whole)


@pytest.mark.parametrize("writes", [0, 12, 24])
def test_killed_anywhere_and_run_again_it_ends_alike(photos, encoder, ended, writes, tmp_path):
    folder = tmp_path / "killed"
    Pool.scan(photos, out=folder, rows=16).filter(min_side=32)
    argv = [sys.executable, "-c", KILLED, str(folder), str(writes), str(encoder)]
    assert subprocess.run(argv, check=False).returncode == -signal.SIGKILL
    Pool(folder).embed(encoder).dedup(candidates=-1.0).balance(keep=10)
    assert outcome(folder) == ended


BY_RAY = """
import os, signal, sys, threading, time
from pathlib import Path
import ray
from selftaught import Pool

photos, folder = sys.argv[1:]
ray.init(num_cpus=2, object_store_memory=80 << 20, include_dashboard=False, log_to_driver=False)
killed = []

def kill():
    while not killed:
        for file in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                title = file.read_bytes()
            except OSError:
                continue
            if title.startswith(b"ray::Actor.do"):
                killed.append(int(file.parent.name))
                os.kill(killed[0], signal.SIGKILL)
                return

Pool.scan(photos, out=folder, rows=2, engine="ray", workers=2)
threading.Thread(target=kill, daemon=True).start()
Pool(folder).filter(min_side=32, engine="ray", workers=2)
print("killed", len(killed))
"""


def test_ray_gives_the_same_bytes_even_where_an_actor_is_killed(photos, tmp_path):
    argv = [sys.executable, "-c", BY_RAY, str(photos), str(tmp_path / "ray")]
    done = subprocess.run(argv, check=True, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "killed 1"
    Pool.scan(photos, out=tmp_path / "here", rows=2).filter(min_side=32)
    assert outcome(tmp_path / "ray") == outcome(tmp_path / "here")


def test_a_stage_counts_no_more_when_others_come_in(pool, caplog):
    pool.dedup(threshold=1.0, hash=-1).balance(keep=10)
    assert len(pool) == 10
    pool.filter(min_side=200)
    assert "dedup, balance: made of other images than now come in" in caplog.text
    assert [record.name for record in pool.records()][:2] == ["scan", "filter"]
    assert len(pool) == sum(
        min(pool.everything.header(i).width, pool.everything.header(i).height) >= 200
        for i in np.flatnonzero(pool.alive(before="filter"))
        if not reasons(pool, "filter").get(Path(pool.everything.name(int(i))).name)
    )
    pool.filter(min_side=32)
    assert len(pool) == 10  # what was made of these is there still


def test_a_stage_can_be_taken_back(pool):
    pool.dedup(threshold=1.0, hash=-1).balance(keep=10).restore("balance")
    assert len(pool) == 47
    assert len(pool.restore("filter")) == 50
    with pytest.raises(UserError, match="scan is no stage that leaves images out: filter, embed"):
        pool.restore("scan")


# the data


def test_a_second_scan_adds_what_is_new(photos, tmp_path):
    more = tmp_path / "more"
    more.mkdir()
    for n, data in enumerate(shipped(45)[40:]):
        (more / f"{n}.jpg").write_bytes(data)
    folder = tmp_path / "pool"
    Pool.scan(photos, out=folder)
    pool = Pool.scan(more, out=folder)
    assert (pool.count, len(pool)) == (56, 55)
    (more / "new.jpg").write_bytes(shipped(46)[45])
    with pytest.raises(UserError, match=r"has changed since .* scanned it \(5 images then, 6 now"):
        _ = Pool(folder).samples
    assert Pool.scan(more, out=folder).count == 57


def test_data_that_was_moved_is_found_again_and_nothing_else_taken_for_it(encoder, tmp_path):
    here, there, other = (tmp_path / name for name in ("here", "there", "other"))
    for folder, data in ((here, shipped(6)[:3]), (other, shipped(6)[3:])):
        folder.mkdir()
        for n, content in enumerate(data):
            (folder / f"{n}.jpg").write_bytes(content)
    folder = tmp_path / "pool"
    Pool.scan(here, out=folder, rows=2).filter(min_side=8)
    before = outcome(folder)
    here.rename(there)
    with pytest.raises(UserError, match=r"here, which .* was made of, is not there: put it back"):
        Pool(folder).embed(encoder)
    with pytest.raises(UserError, match="other holds other images: scan the place to which"):
        Pool.scan(other, out=folder)
    assert len(Pool.scan(there, out=folder).embed(encoder)) == 3
    about = json.loads((folder / "pool.json").read_text())
    assert [source["data"] for source in about["sources"]] == [str(there)]
    after = outcome(folder)
    assert {name: after[name] for name in before if name != "pool.json"} == {
        name: content for name, content in before.items() if name != "pool.json"
    }


def test_a_pool_is_not_held_against_itself(pool, photos):
    with pytest.raises(UserError, match=r"is what .* itself is made of"):
        pool.dedup(against=photos)
    with pytest.raises(UserError, match=r"is what .* itself is made of"):
        pool.retrieve(pool.folder)
    with pytest.raises(UserError, match="retrieve looks for images like others: name them"):
        pool.retrieve()


def test_a_pool_is_one_of_images(pool, tmp_path):
    np.savez(tmp_path / "series.npz", x=np.zeros((9, 2, 30), np.float32))
    (tmp_path / "corpus.txt").write_text("a text\nand another one\n")
    (tmp_path / "sounds").mkdir()
    (tmp_path / "sounds" / "a.wav").write_bytes(b"RIFF")
    for name, many in (("series.npz", "series"), ("corpus.txt", "texts"), ("sounds", "sounds")):
        with pytest.raises(
            UserError, match=f"holds {many}, and a pool is one of images: of {many}"
        ):
            Pool.scan(tmp_path / name, out=tmp_path / "new")
    encoder = kinds.made({"kind": "series", "mean": (0.0,), "std": (1.0,)}).build(
        size=32, channels=1, width=4, depth=1
    )
    export.save(encoder, tmp_path / "encoder")
    with pytest.raises(UserError, match="is an encoder of series, and a pool is one of images"):
        pool.embed(tmp_path / "encoder")


def test_a_pool_is_data_for_everything_else(pool, photos):
    pool.dedup(threshold=1.0, hash=-1)
    for data in (pool, pool.folder, str(pool.folder)):
        found = open_data(data)
        assert [found.name(i) for i in range(len(found))] == [
            pool.samples.name(i) for i in range(47)
        ]
        assert found.fingerprint == pool.samples.fingerprint
    np.testing.assert_array_equal(found.read(0), open_data(photos).read(0))


def test_what_a_judge_calls_indecent_leaves(photos, tmp_path, monkeypatch):
    pool = Pool.scan(photos, out=tmp_path / "pool").filter(min_side=32, nsfw=0.9)
    told = pool.verdict("filter")
    assert told["nudity"].max() < 0.5  # clothes, on floors
    assert (told["nudity"] > 0).sum() > 40
    before = len(pool)
    bound = float(np.sort(told["nudity"][told["reason"] == ""])[-3]) + 1e-6
    monkeypatch.setattr("selftaught.curate.judges.Nudity.__call__", None)
    assert len(pool.filter(min_side=32, nsfw=bound)) == before - 2  # and nothing is judged again
    assert sum(r.startswith("nudity: 0.") for r in reasons(pool, "filter").values()) == 2


def test_faces_are_blurred_wherever_a_pool_is_read(tmp_path, monkeypatch):
    (tmp_path / "people").mkdir()
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 255, (100, 200, 3), np.uint8)
    for name in ("a", "b"):
        Picture.fromarray(pixels).save(tmp_path / "people" / f"{name}.png")
    boxes = [np.array([[0.4, 0.4, 0.5, 0.6]], np.float32), np.empty((0, 4), np.float32)]
    monkeypatch.setattr("selftaught.curate.judges.Faces.__call__", lambda *_: boxes.pop(0))
    pool = Pool.scan(tmp_path / "people", out=tmp_path / "pool").filter(blur_faces=True)
    assert pool.verdict("filter")["faces"].tolist() == [1, 0]
    for data in (pool.samples, open_data(tmp_path / "pool")):
        seen = data.read(0)
        np.testing.assert_array_equal(data.read(1), pixels)
        np.testing.assert_array_equal(seen[:30], pixels[:30])
        assert seen[42:58, 82:98].std() < 0.2 * pixels[42:58, 82:98].std()
        assert data.fingerprint != open_data(tmp_path / "people").fingerprint
    assert (
        Pool.scan(tmp_path / "people", out=tmp_path / "pool").samples.read(0).std() < pixels.std()
    )
    pool.filter()
    np.testing.assert_array_equal(pool.samples.read(0), pixels)
    np.testing.assert_array_equal(open_data(tmp_path / "pool").read(0), pixels)


def test_the_finder_of_faces_finds_none_in_clothes(photos):
    found = Faces()(np.asarray(Picture.open(photos / "01.jpg").convert("RGB")))
    assert found.shape == (0, 4)


def test_what_pages_name_becomes_a_pool(photos, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    served = partial(SimpleHTTPRequestHandler, directory=str(photos))
    with ThreadingHTTPServer(("127.0.0.1", 0), served) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        there = f"http://127.0.0.1:{server.server_port}"
        Path("urls.txt").write_text("".join(f"{there}/{n:02}.jpg\n" for n in (1, 2, 77)))
        argv = ["curate", "fetch", "urls.txt", "--out", "pool", "--allow", "127.0.0.1"]
        argv += ["--per-host", "1000"]
        assert main(argv) == 0
        done = capsys.readouterr()
        Path("both.yaml").write_text(
            "fetch: {source: urls.txt, out: both, allow: [127.0.0.1], per_host: 1000}\n"
            f"scan: {{data: {photos}}}\nfilter: {{min_side: 32}}\n"
        )
        assert main(["curate", "run", "both.yaml"]) == 0
        server.shutdown()
    assert capsys.readouterr().out == "both/report.html\n"
    assert (Pool("both").count, len(Pool("both"))) == (53, 50)
    assert done.out == "<Pool pool: 2 of 2 images>\n"
    assert "fetch: 2 of 3 images kept; left: 1 404" in done.err
    moved = tmp_path / "moved"
    Path("pool").rename(moved)  # what was fetched lies in the pool, and moves with it
    pool = Pool(moved)
    assert {pool.samples.source.content(i) for i in range(2)} == {
        digest((photos / f"{n:02}.jpg").read_bytes()) for n in (1, 2)
    }
    Path("hosts.txt").write_text("127.0.0.1\n")
    assert len(pool.filter(blocklist="hosts.txt")) == 0
    assert set(reasons(pool, "filter").values()) == {"blocked: 127.0.0.1"}


def test_several_sources_are_one_with_their_classes(tmp_path):
    for source, names in (("one", "ab"), ("two", "bc")):
        for name in names:
            (tmp_path / source / name).mkdir(parents=True)
            for n in range(2):
                Picture.new("RGB", (9, 9)).save(tmp_path / source / name / f"{n}.png")
    (tmp_path / "three").mkdir()
    Picture.new("RGB", (9, 9)).save(tmp_path / "three" / "x.png")
    parts = [open_data(tmp_path / name).source for name in ("one", "two", "three")]
    made = Joined(parts)
    assert made.classes == ["a", "b", "c"]
    assert made.labels is not None
    assert made.labels.tolist() == [0, 0, 1, 1, 1, 1, 2, 2, -1]
    assert [made.name(i) for i in (0, 4, 8)] == [parts[0].name(0), parts[1].name(0), "x.png"] or (
        made.name(8).endswith("x.png")
    )


def test_another_folder_is_no_pool(tmp_path, photos):
    with pytest.raises(UserError, match=r"is no pool .* selftaught curate scan photos/ --out"):
        Pool(tmp_path)
    with pytest.raises(UserError, match="holds other things than a pool: name a new folder"):
        Pool.scan(photos, out=photos)
    Pool.scan(photos, out=tmp_path / "pool")
    for stage, options in (("balance", {"keep": 3}), ("retrieve", {"query": str(photos)})):
        with pytest.raises(UserError, match="has no embed: run selftaught curate embed first"):
            getattr(Pool(tmp_path / "pool"), stage)(**options)
    with pytest.raises(UserError, match="the pool is embedded by an encoder: name a run"):
        Pool(tmp_path / "pool").embed()
    with pytest.raises(UserError, match="part=3/3 must be i/n, the i-th of n counted from 0"):
        share("3/3")


# the command line, the page, search


def test_all_stages_by_one_file_and_the_page(photos, encoder, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("curate.yaml").write_text(
        f"scan: {{data: {photos}, out: pool}}\nfilter: {{min_side: 32, min_sharpness: 1.0}}\n"
        f"embed: {{model: {encoder}}}\ndedup: {{candidates: -1.0}}\nbalance: {{keep: 12}}\n"
    )
    assert main(["curate", "run", "curate.yaml"]) == 0
    assert capsys.readouterr().out == "pool/report.html\n"
    page = Path("pool/report.html").read_text()
    for title in ("What came and went", "Filter", "Copies", "Balanced", "12 left"):
        assert title in page
    assert len(Path("pool/list.txt").read_text().splitlines()) == 12
    rows = parquet.read_table("pool/rows.parquet").to_pylist()
    assert len(rows) == 51
    assert sum(row["state"] == "left" for row in rows) == 12
    assert {row["state"] for row in rows} == {"left", "scan", "filter", "dedup", "balance"}
    atlas = parquet.read_table("pool/atlas.parquet")
    assert {"id", "path", "x", "y", "state", "reason", "cluster", "copies", "image"} <= {
        *atlas.column_names
    }
    points = atlas.to_pylist()
    assert [p["id"] for p in points] == [
        row["row"] for row in rows if row["state"] not in ("scan", "filter")
    ]
    assert np.ptp([p["x"] for p in points]) > 0 < np.ptp([p["y"] for p in points])
    assert all((p["cluster"] is None) == (p["state"] == "dedup") for p in points)
    assert Picture.open(io.BytesIO(points[0]["image"]["bytes"])).size == (96, 96)
    assert "uvx embedding-atlas pool/atlas.parquet --x x --y y --image image" in page
    assert "- dedup (hash 8, candidates -1.0, k 20): " in Path("pool/datasheet.md").read_text()
    assert main(["search", "pool", "--query", "0", "--k", "3", "--out", "found.csv"]) == 0
    first = Path("found.csv").read_text().splitlines()[1]
    assert ",1," in first
    assert main(["curate", "restore", "pool", "balance"]) == 0
    assert capsys.readouterr().out.endswith("<Pool pool: 40 of 51 images>\n")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("dedup: {}", "needs a section scan with its data"),
        ("scan: {out: pool}", "names no data below scan"),
        ("scan: {data: x}\ndedupe: {}", "has a section dedupe: did you mean dedup?"),
        ("scan: {data: x}\nbalance: {kep: 3}", "balance has no option kep: did you mean keep?"),
        ("scan: {data: x}\nbalance: {keep: 0}", "keep"),
        ("scan: [", "cannot be read as YAML"),
        ("scan: {data: [x, 3]}", "names no data below scan"),
        ("scan: {data: x}\nembed: resnet18", "embed must have options, such as embed: {OPTION"),
        ("scan: {data: x}\ndedup: {against: nowhere/}", "dedup: nowhere does not exist"),
        ("fetch: {contact: me}", "names no source below fetch"),
        ("fetch: {source: x, out: a}\nscan: {data: x, out: b}", "into different pools: a, b"),
    ],
)
def test_a_file_that_cannot_work_is_told_before_anything_is_done(text, said, tmp_path, capsys):
    file = tmp_path / "curate.yaml"
    file.write_text(text)
    assert main(["curate", "run", str(file)]) == 2
    assert said in capsys.readouterr().err


def test_the_command_lists_its_verbs_and_knows_a_typo(capsys):
    with pytest.raises(SystemExit) as end:
        main(["curate", "--help"])
    assert not end.value.code
    text = capsys.readouterr().out
    for verb in ("scan", "filter", "embed", "dedup", "retrieve", "balance", "report", "run"):
        assert f"\n  {verb} " in text
    assert main(["curate", "dedupe"]) == 2
    assert "did you mean dedup?" in capsys.readouterr().err


# hashes, pictures laid over each other, clusters


def hashed(image: Picture.Image) -> np.ndarray:
    square = image.convert("L").resize((prints.SIDE, prints.SIDE), Picture.Resampling.LANCZOS)
    return prints.hashes(np.asarray(square, np.float32))


def test_one_hash_of_eight_is_that_of_each_way_to_turn_a_picture(files):
    for data in files[:4]:
        image = Picture.open(io.BytesIO(data))
        size = min(image.size)
        image = image.crop((0, 0, size, size))
        eight = hashed(image)
        found = set()
        for mirror in (False, True):
            for quarter in range(4):
                turned = (ImageOps.mirror(image) if mirror else image).rotate(90 * quarter)
                bits = np.bitwise_count(eight ^ hashed(turned)[0])
                found.add(int(bits.argmin()))
                assert bits.min() <= 2
        assert found == set(range(8))


@pytest.mark.parametrize("bits", [0, 3, 6, 10])
def test_by_words_no_pair_is_missed(bits, monkeypatch):
    rng = np.random.default_rng(bits)
    first = rng.integers(0, 2**63, (300, 8), np.uint64)
    for i in range(0, 300, 2):  # every other one is near its neighbor, in one of its ways
        flip = np.bitwise_or.reduce(
            np.uint64(1) << rng.choice(64, bits, replace=False).astype(np.uint64),
            initial=np.uint64(0),
        )
        first[i + 1, rng.integers(8)] = first[i, 0] ^ flip
    expected = prints.pairs(first, bits)
    assert len(expected) >= 150
    monkeypatch.setattr(prints, "FEW", 1)
    np.testing.assert_array_equal(prints.pairs(first, bits), expected)
    other = prints.pairs(first[:100], bits, first[100:])
    monkeypatch.setattr(prints, "FEW", 10**6)
    np.testing.assert_array_equal(prints.pairs(first[:100], bits, first[100:]), other)


def test_two_photos_are_not_one_and_an_unreadable_one_is_like_nothing(photos):
    data = open_data(photos)
    names = [Path(data.name(i)).name for i in range(len(data))]
    seen = [same.opened(data, i) for i in range(12)]
    pairs = [(a, b) for a in range(12) for b in range(a)]
    copies = {(a, b) for a, b in pairs if same.same(seen[a], seen[b])}
    assert copies == {(a, b) for a, b in pairs if names[a][:2] == names[b][:2]}
    broken = same.opened(data, names.index("broken.png"))
    assert broken is None
    assert not same.same(broken, seen[0])
    assert not same.same(same.opened(data, names.index("blank.png")), seen[0])


def test_groups_are_numbered_by_their_first_member():
    pairs = [np.array([[4, 2], [5, 4]]), np.array([[1, 6]])]
    assert components(7, pairs).tolist() == [0, 1, 2, 3, 2, 2, 1]


def test_all_give_alike_and_none_more_than_it_has():
    assert shared(np.array([1, 5, 100]), 9).tolist() == [1, 4, 4]
    assert shared(np.array([1, 5, 100]), 106).tolist() == [1, 5, 100]
    assert shared(np.array([3, 3, 3]), 4).sum() == 4
    assert shared(np.array([10, 10]), 6, np.array([1.0, 2.0])).tolist() == [2, 4]
    rng = np.random.default_rng(0)
    for _ in range(50):
        sizes = rng.integers(0, 20, 9)
        sizes[0] += 1
        total = int(rng.integers(0, sizes.sum() + 1))
        found = shared(sizes, total)
        assert found.sum() == total
        assert (found <= sizes).all()
        assert found[found < sizes].max(initial=0) - found[found < sizes].min(initial=99) <= 1


def test_the_rare_is_drawn_as_often_as_the_frequent():
    rng = np.random.default_rng(0)
    sizes, rings = (4000, 60, 300, 120, 1600), []
    for n, (x, y) in zip(sizes, ((0, 0), (3, 0), (0, 3), (3, 3), (1.5, 6))):
        angle, radius = rng.uniform(0, 2 * np.pi, n), np.sqrt(rng.uniform(0.36, 1, n))
        rings.append(np.stack([x + radius * np.cos(angle), y + radius * np.sin(angle)], 1))
    points, of = np.concatenate(rings), np.repeat(np.arange(5), sizes)
    # in a plane, where `Vectors` has unit length: a place on a sphere, nearly flat there
    sphere = np.concatenate([points / 100, np.ones((len(points), 1))], 1).astype(np.float32)
    vectors = Vectors([sphere], np.arange(len(points)))
    tree = levels(vectors, [300, 80], resampling=10)
    counts = np.bincount(of[drawn(tree, 250)], minlength=5)
    assert counts.sum() == 250
    assert entropy(counts) >= 0.97
    assert entropy(np.array(sizes)) < 0.6
    assert entropy(np.array([3, 3, 3])) == pytest.approx(1)
    assert gini(np.array([5, 5, 5])) == pytest.approx(0)
    assert gini(np.array([0, 0, 0, 12])) == pytest.approx(0.75)


def test_what_is_drawn_is_spread_over_every_level():
    tree = [
        Level(torch.zeros(4, 2), np.repeat(np.arange(4), (10, 10, 100, 2))),
        Level(torch.zeros(2, 2), np.array([0, 0, 0, 1])),
    ]
    of = tree[0].of[drawn(tree, 14)]
    assert np.bincount(of, minlength=4).tolist() == [4, 4, 4, 2]
    assert len(drawn(tree, 500)) == 122
