"""Search by likeness: what a plain sort finds, kept on disk, and copies told from chance."""

import io
import os
import shutil

import numpy as np
import pytest
import torch
from PIL import Image as Picture
from PIL import ImageOps
from pyarrow import parquet

import selftaught
from selftaught import Index, embed, export, search
from selftaught.backbones import Image
from selftaught.data import open_data
from selftaught.errors import DataError, TrainingError, UserError
from selftaught.index import approximate, exact, index, likeness
from selftaught.index.commands import Searched, search_command
from selftaught.index.exact import Vectors, nearest

SIDE = 32


def photo(seed, width=48, height=40):
    """A picture of soft colors, another one for each seed."""
    colors = np.random.default_rng(seed).uniform(0, 255, (6, 6, 3)).astype(np.uint8)
    return Picture.fromarray(colors).resize((width, height), Picture.Resampling.BICUBIC)


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(0)
    return Image("test_resnet", SIDE)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """60 pictures; of some a copy: the same file, compressed, smaller, mirrored; one is broken."""
    folder = tmp_path_factory.mktemp("photos")
    for n in range(60):
        photo(n).save(folder / f"{n:02}.png")
    shutil.copy(folder / "03.png", folder / "same.png")
    photo(4).save(folder / "pixels.bmp")
    photo(5).save(folder / "compressed.jpg", quality=50)
    photo(6).resize((36, 30)).save(folder / "smaller.jpg", quality=80)
    ImageOps.mirror(photo(7)).save(folder / "mirrored.jpg", quality=90)
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nno image")
    return folder


@pytest.fixture(scope="module")
def made(encoder, photos):
    return Index.of(encoder, photos)


def spread(count, width=8, seed=0):
    x = np.random.default_rng(seed).normal(size=(count, width)).astype(np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


# search among vectors


@pytest.mark.parametrize("block", [1, 7, 10**6])
@pytest.mark.parametrize("own", [True, False])
def test_blocks_find_what_a_plain_sort_finds(block, own, monkeypatch):
    x = spread(90)
    rows = np.random.default_rng(1).permutation(90)[:70]  # the others are gone
    monkeypatch.setattr(exact, "BLOCK", block * 10)
    monkeypatch.setattr(exact, "QUERIES", 10)
    vectors = Vectors([x[:40], x[40:41], x[41:]], rows)
    near = nearest(vectors, vectors.at(np.arange(70)), 5, np.arange(70) if own else None)
    scores = x[rows] @ x[rows].T
    if own:
        np.fill_diagonal(scores, -np.inf)
    np.testing.assert_array_equal(near.index, np.argsort(-scores, axis=1)[:, :5])
    np.testing.assert_allclose(near.similarity, -np.sort(-scores, axis=1)[:, :5], atol=1e-6)


def test_no_more_are_found_than_there_are():
    x = spread(4)
    near = nearest(Vectors([x], np.arange(4)), torch.from_numpy(x), 9, np.arange(4))
    assert near.index.shape == (4, 4)
    assert (np.sort(near.index) == [[-1, *(j for j in range(4) if j != i)] for i in range(4)]).all()


def test_faiss_finds_what_exact_search_finds_or_is_asked_for(tmp_path):
    x = spread(3000, 16)
    vectors = Vectors([x[:2900].astype(np.float16), x[2900:].astype(np.float16)], np.arange(3000))
    first = Vectors(vectors.parts[:1], np.arange(2900))
    if not approximate.installed():
        with pytest.raises(UserError, match=r"pip install selftaught\[search\]"):
            approximate.opened(first, tmp_path, "mark", ["a"])
        return
    approximate.opened(first, tmp_path, "mark", ["a"])
    found = approximate.opened(vectors, tmp_path, "mark", ["a", "b"])
    assert found.covered == 2900  # made before; what is new is compared one by one
    assert found.recall >= approximate.RECALL
    own = np.arange(2800, 3000)
    near = found.nearest(vectors, vectors.at(own), 10, own)
    truth = nearest(vectors, vectors.at(own), 10, own)
    hits = (near.index[:, :, None] == truth.index[:, None]).any(2)
    assert hits.mean() > 0.97
    np.testing.assert_allclose(near.similarity[hits], truth.similarity[hits[:, :10]], atol=1e-5)


@pytest.mark.skipif(not approximate.installed(), reason="faiss is not installed")
def test_what_is_alike_is_found_by_looking_at_fewer(monkeypatch):
    x = spread(6000, 32)
    x[1::2] = x[::2] + 0.3 * spread(3000, 32)
    vectors = Vectors([x / np.linalg.norm(x, axis=1, keepdims=True)], np.arange(6000))
    own = np.arange(6000)
    queries = vectors.at(own)
    truth = nearest(vectors, queries, 5, own)
    alike = np.where(truth.similarity >= 0.9, truth.index, -1)
    assert (alike[:, 0] >= 0).mean() > 0.9  # its copy, most of all
    found = approximate.opened(vectors, None, "", [], 0.9)
    assert found.recall >= approximate.RECALL
    assert found.probed < approximate.opened(vectors, None, "", []).probed / 2
    about, rows = found.candidates(queries, 20)
    off = about - np.einsum("qd,qcd->qc", vectors.parts[0], vectors.parts[0][rows])
    assert np.abs(off[rows >= 0]).max() < approximate.ROUGH / 2

    def fails(*_):
        raise AssertionError("what is not alike is not looked for")

    monkeypatch.setattr(approximate, "nearest", fails)
    near = found.nearest(vectors, queries, 5, own)
    hits = (near.index[:, :, None] == alike[:, None]).any(1) & (alike >= 0)
    assert hits.sum() / (alike >= 0).sum() > 0.97


# what is kept


def test_what_was_embedded_is_kept_and_what_changed_is_embedded(encoder, photos, tmp_path):
    data, kept = tmp_path / "data", tmp_path / "index"
    shutil.copytree(photos, data)
    first = Index.of(encoder, data, kept)
    assert (len(first), first.added, list(first.skipped)) == (65, 65, ["broken.png"])
    assert Index.of(encoder, data, kept).added == 0
    photo(100).save(data / "new.png")
    photo(101).save(data / "04.png")  # another picture under an old name
    (data / "05.png").unlink()
    again = Index.of(encoder, data, kept)
    assert again.added == 2
    names = [again.name(i) for i in range(len(again))]
    assert "05.png" not in names
    fresh = Index.of(encoder, data)
    assert names == [fresh.name(i) for i in range(len(fresh))]
    all_of = np.arange(len(again))
    torch.testing.assert_close(again.vectors.at(all_of), fresh.vectors.at(all_of))


def test_another_encoder_makes_it_anew_and_says_so(encoder, photos, tmp_path, caplog):
    caplog.set_level("INFO", "selftaught")
    some = [str(photos / f"{n:02}.png") for n in range(9)]
    Index.of(encoder, some, tmp_path / "index")
    assert "anew" not in caplog.text
    assert Index.of(encoder, some, tmp_path / "index", size=48).added == 9
    assert "made otherwise (size 32, now 48)" in caplog.text
    torch.manual_seed(1)
    assert Index.of(Image("test_resnet", 48), some, tmp_path / "index").added == 9
    assert "other weights" in caplog.text
    assert len(list((tmp_path / "index").glob("part-*.npy"))) == 1


def test_a_process_that_was_killed_leaves_whole_parts(encoder, photos, tmp_path, monkeypatch):
    monkeypatch.setattr(index, "PART", 16)

    def killed(done, total):
        if done > 40:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Index.of(encoder, photos, tmp_path, progress=killed)
    parts = sorted(tmp_path.glob("part-*.npy"))
    assert len(parts) == 2
    parts[0].unlink()  # as if it had been killed before this, the last file of a part
    parts[1].write_bytes(parts[1].read_bytes()[:-100])
    (tmp_path / ".part-x.npy.abcdefgh").mkdir()  # a file in the making
    found = Index.of(encoder, photos, tmp_path)
    assert found.added == 65
    assert sorted(found.vectors.rows) == list(range(65))
    assert not list(tmp_path.glob(".part*"))
    assert Index.of(encoder, photos, tmp_path).added == 0


@pytest.mark.parametrize("kind", ["list", "tar", "parquet"])
def test_data_of_other_kinds_is_told_apart_by_what_it_holds(kind, encoder, tmp_path):
    import tarfile

    def write(seeds):
        if kind == "list":
            return [np.asarray(photo(s)) for s in seeds]
        encoded = []
        for s in seeds:
            file = io.BytesIO()
            photo(s).save(file, "png")
            encoded.append(file.getvalue())
        if kind == "parquet":
            import pyarrow as pa

            parquet.write_table(pa.table({"image": encoded}), tmp_path / "a.parquet")
            return tmp_path / "a.parquet"
        with tarfile.open(tmp_path / "a.tar", "w") as tar:
            for n, content in enumerate(encoded):
                about = tarfile.TarInfo(f"{n}.png")
                about.size = len(content)
                tar.addfile(about, io.BytesIO(content))
        return tmp_path / "a.tar"

    assert Index.of(encoder, write([1, 2, 3]), tmp_path / "index").added == 3
    if kind == "list":
        assert Index.of(encoder, write([1, 2, 3]), tmp_path / "index").added == 0
    data = write([1, 2, 4])
    again = Index.of(encoder, data, tmp_path / "index")
    assert again.added >= 1
    assert [row["index"] for row in again.query(photo(4), k=1)] == [2]


def test_an_index_among_the_photos_is_none_of_them(encoder, tmp_path):
    for n in range(4):
        photo(n).save(tmp_path / f"{n}.png")
    for added in (4, 0):
        made = Index.of(encoder, tmp_path, tmp_path / "runs" / "index")
        assert (len(made), made.added) == (4, added)


def test_a_folder_of_something_else_is_left_alone(encoder, photos):
    before = sorted(os.listdir(photos))
    with pytest.raises(UserError, match="which is of no index"):
        Index.of(encoder, photos, photos)
    assert sorted(os.listdir(photos)) == before


# what is found


def test_a_picture_finds_itself_and_its_copies(made, photos):
    rows = list(made.query([photos / "05.png", photo(9), 10, "11.png"], k=2))
    first = [row for row in rows if row["rank"] == 1]
    assert [row["path"] for row in first] == ["05.png", "09.png", "10.png", "11.png"]
    assert [row["similarity"] for row in first] == pytest.approx([1] * 4, abs=1e-3)
    assert rows[1]["path"] == "compressed.jpg"
    assert [made.data.name(row["index"]) for row in rows] == [row["path"] for row in rows]
    assert len(made.query(photo(3), k=1000)) == 65
    high = rows[0]["similarity"] - 1e-4
    assert {r["path"] for r in made.query(photos / "05.png", min=high)} == {"05.png"}


def test_notebooks_show_tables_and_shells_one_line(encoder, made, photos):
    found = made.query([photo(3)], k=3)
    html = found._repr_html_()
    assert html.count("<tr>") == 4
    assert "<td>03.png</td><td>" not in html  # the number of a row is for files
    assert "<td>03.png</td>" in html
    assert repr(found) == f"<3 rows of matches: {found.note}>"
    odd = made.outliers()
    assert odd._repr_html_().count("<tr>") == 51
    assert f"... and {len(odd) - 50} more rows" in odd._repr_html_()
    done = Searched(made, found, None, odd, ())
    assert done._repr_html_().count("<table>") == 2
    assert repr(done) == f"<Searched {made}: {found!r}, {odd!r}>"
    assert repr(made) == f"<{made}>"
    features = embed(encoder, photos, workers=0)
    assert repr(features) == "<Embeddings: features 65 x 96, 1 samples left out>"


def test_copies_are_told_and_the_largest_is_kept(made, photos):
    found = made.duplicates()
    groups = {}
    for row in found:
        groups.setdefault(row["group"], {})[row["path"]] = row["kind"]
    told = {frozenset(g): g for g in groups.values()}
    assert told[frozenset(("03.png", "same.png"))]["same.png"] == "identical file"
    assert set(told[frozenset(("04.png", "pixels.bmp"))].values()) == {"kept", "same pixels"}
    for n, copy in ((5, "compressed.jpg"), (6, "smaller.jpg"), (7, "mirrored.jpg")):
        assert told[frozenset((f"{n:02}.png", copy))][copy] in ("near", "kept")
    assert told[frozenset(("06.png", "smaller.jpg"))]["06.png"] == "kept"  # it has more pixels
    assert len(groups) == 5
    assert len(made.duplicates(min=-1)) == 65
    assert {row["path"] for row in made.duplicates(min=1)} >= {"03.png", "same.png"}
    assert all((photos / row["path"]).exists() for row in found)


def test_neighbors_by_chance_are_no_copies_and_copies_are():
    x = spread(2000, 12)
    copies = x[:30] + 0.01 * spread(30, 12, seed=1)
    both = np.concatenate([x, copies / np.linalg.norm(copies, axis=1, keepdims=True)])
    for vectors, wanted in ((x, range(5)), (both, range(56, 66))):
        near = nearest(
            Vectors([vectors], np.arange(len(vectors))),
            torch.from_numpy(vectors),
            20,
            np.arange(len(vectors)),
        )
        bars = likeness.bars(near.similarity)
        assert (near.similarity[:, 0] >= bars).sum() in wanted
    assert likeness.bars(np.full((60, 20), 0.99999, np.float32)) is None


def test_light_is_no_likeness_and_a_mirror_image_is():
    shades = np.linspace(30, 220, 16)[None, :] + np.zeros((16, 1))
    rng = np.random.default_rng(0)
    one, two = (shades + rng.normal(0, 4, (16, 16)) for _ in range(2))
    flat = [x.round().astype(np.uint8).reshape(1, 256) for x in (one, two, one[:, ::-1])]
    assert likeness.alike(flat[0], flat[1][:, None], 64).item() < 0.5
    assert likeness.alike(flat[0], flat[0][:, None], 64).item() == pytest.approx(1)
    assert likeness.alike(flat[0], flat[2][:, None], 64).item() == pytest.approx(1)
    gray = np.full((1, 256), 90, np.uint8)
    assert likeness.alike(gray, gray[:, None], 64).item() < 0.1


def test_the_one_that_is_unlike_all_others_is_first():
    rng = np.random.default_rng(0)
    usual = [np.asarray(photo(0)).clip(9, 240) + rng.integers(0, 9, (40, 48, 3)) for _ in range(20)]
    odd = np.zeros((40, 48, 3), np.uint8)
    odd[::4] = 255
    torch.manual_seed(0)
    data = [x.astype(np.uint8) for x in [*usual[:7], odd, *usual[7:]]]
    found = list(Index.of(Image("test_resnet", SIDE), data).outliers(k=3))
    assert (found[0]["index"], found[0]["rank"], len(found)) == (7, 1, 21)
    assert found[0]["distance"] > found[1]["distance"]


def test_a_collapsed_encoder_is_told(photos, caplog):
    class Same(torch.nn.Module):
        def forward(self, x):
            return torch.ones(len(x), 8) + 0 * x.mean((1, 2, 3))[:, None]

    found = Index.of(Same(), photos, size=SIDE).duplicates()
    assert "collapsed" in caplog.text
    assert max(row["group"] for row in found) <= 5


# bad input


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ("nowhere.png", "neither a file nor an image"),
        (99, "0 to 65"),
        ([], "no picture"),
        (".", "is a folder"),
        ("broken.png", "cannot be searched by"),
    ],
)
def test_a_query_that_cannot_be_is_told(asked, told, made):
    with pytest.raises(UserError, match=told):
        made.query(asked)


def test_data_that_cannot_be_searched_is_told(encoder, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no images"):
        Index.of(encoder, tmp_path / "empty")
    (tmp_path / "a.png").write_bytes(b"no")
    with pytest.raises(DataError, match="none of the 1"):
        Index.of(encoder, tmp_path)
    broken = Image("test_resnet", SIDE)
    torch.nn.init.constant_(next(broken.parameters()), float("nan"))
    with pytest.raises(TrainingError, match="not finite"):
        Index.of(broken, [np.asarray(photo(0))])
    one = Index.of(encoder, [np.asarray(photo(0))])
    assert [len(one.query(photo(0))), len(one.duplicates()), len(one.outliers())] == [1, 0, 0]


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda made: made.query("05.png", k=0), "k=0 must be a whole number, at least 1"),
        (lambda made: made.query("05.png", k=2.5), r"k=2\.5 must be a whole number"),
        (lambda made: made.outliers(k=-1), "k=-1 must be"),
        (lambda made: made.query("05.png", min=1.5), r"min=1\.5 is a similarity, from -1 to 1"),
        (lambda made: made.query("05.png", min=float("nan")), "min=nan is"),
        (lambda made: made.duplicates(min=-2), "min=-2 is"),
        (
            lambda made: made.query("05.png").write("a.txt"),
            r"a\.txt must end in \.csv or \.parquet",
        ),
    ],
)
def test_numbers_and_files_that_cannot_be_are_told(call, told, made):
    with pytest.raises(UserError, match=told):
        call(made)


# Python and the command


def test_what_was_found_is_asked_for_again_and_written_by_name(made, tmp_path):
    """As docs/search.md has it: names of files are text, and numbers may be NumPy's."""
    (first, *_) = made.query("05.png", k=1, min=0.9)
    (again,) = made.query(np.int64(first["index"]), k=1)
    assert again["path"] == first["path"] == "05.png"
    for name in ("a.csv", "a.parquet"):
        made.query(["05.png"], k=2).write(str(tmp_path / name))
        assert (tmp_path / name).stat().st_size


def test_everything_is_written_and_nothing_of_the_data_is_touched(
    encoder, photos, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    export.save(encoder, tmp_path / "run")
    before = {f.name: f.stat().st_mtime_ns for f in photos.iterdir()}
    done = search_command(
        "run",
        str(photos),
        query=[photos / "05.png"],
        duplicates=True,
        outliers=True,
        k=3,
        out=["a.html", "a.csv", "a.parquet"],
    )
    assert {f.name: f.stat().st_mtime_ns for f in photos.iterdir()} == before
    page = (tmp_path / "a.html").read_text("utf-8")
    assert page.count("<figure") == 1 + 3 + len(done.duplicates) + 50
    assert "compressed.jpg" in page
    rows = (tmp_path / "a-matches.csv").read_text("utf-8").splitlines()
    assert rows[0] == "query,rank,similarity,path,index"
    assert rows[2].split(",")[3] == "compressed.jpg"
    assert parquet.read_table(tmp_path / "a-outliers.parquet").num_rows == 65
    again = search_command("run", str(photos), duplicates=True)
    assert (again.index.added, [str(f) for f in again.files]) == (0, ["search.html"])
    alone = selftaught.search(encoder, photos, query=photos / "05.png", k=1)
    assert (alone.files, alone.duplicates, alone.index.store.folder) == ((), None, None)
    with pytest.raises(UserError, match="nothing to write"):
        search(encoder, photos, out="b.csv")


def test_files_are_words_of_their_own_commas_and_all():
    from selftaught.cli import arguments

    words = "run photos --query a,b.jpg c.jpg --k 3 --query d.jpg --out x.html x.csv"
    asked = arguments("search", words.split())
    assert [str(q) for q in asked["query"]] == ["a,b.jpg", "c.jpg", "d.jpg"]
    assert [str(f) for f in asked["out"]] == ["x.html", "x.csv"]
    assert (asked["k"], asked["encoder"], asked["data"]) == (3, "run", "photos")


def test_an_array_of_gray_images_is_searched_by_a_file(tmp_path):
    torch.manual_seed(0)
    encoder = Image("test_resnet", SIDE, channels=1)
    gray = np.stack([np.asarray(photo(n).convert("L")) for n in range(5)])
    photo(2).convert("L").save(tmp_path / "a.png")
    done = search(
        encoder, open_data(gray, channels=1), query=tmp_path / "a.png", k=1, out=tmp_path / "a.html"
    )
    assert [row["index"] for row in done.matches] == [2]
    assert "<figure" in (tmp_path / "a.html").read_text("utf-8")
