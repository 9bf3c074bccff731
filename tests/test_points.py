"""Points as samples: reading, views, encoder, ALSO, the class of each point, and runs."""

import io
import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import selftaught
from selftaught import augment, export, kinds
from selftaught.augment import sample_rng
from selftaught.cli import main
from selftaught.data import BadSample, open_data
from selftaught.data.points import las
from selftaught.data.points.files import parsed
from selftaught.engine.build import assemble
from selftaught.errors import UserError
from selftaught.evaluate.comparing import compare
from selftaught.feed.check import check
from selftaught.kinds.floors.points import SLICES, Heights, Occupied, by_neighbors, surroundings
from selftaught.method import Batch
from selftaught.methods.dense.also import ALSO, Asked, losses, neighbors, places
from tests.cases import scan
from tests.test_engine import often_killed

KIND = kinds.made({"kind": "points", "reach": 4.0, "intensity": "yes", "brightest": 1.0})


def bare(**options: Any) -> Any:
    return kinds.made({"kind": "points", **options})


def street(index: int, boxes: int = 2, count: int = 600) -> tuple[np.ndarray, np.ndarray]:
    """A scan of flat ground with boxes on it, float32 [N, 4], and the class of each point: 40 of
    the ground, 10 of boxes, and 0 of some that nobody has labeled."""
    rng = np.random.default_rng(index)
    ground = np.c_[rng.uniform(-10, 10, (count, 2)), rng.normal(-1.7, 0.02, count)]
    parts, codes = [ground], [np.full(count, 40)]
    for _ in range(boxes):
        middle = rng.uniform(-7, 7, 2)
        size = rng.uniform(-1, 1, (count // 6, 3)) * (1.5, 1.0, 0.7)
        parts.append(size + np.array([*middle, -0.9]))
        codes.append(np.full(len(size), 10))
    x, code = np.concatenate(parts), np.concatenate(codes)
    code[rng.random(len(code)) < 0.1] = 0
    shade = np.where(code == 10, 0.6, 0.3) + rng.normal(0, 0.05, len(x))
    return np.c_[x, shade.clip(0, 1)].astype(np.float32), code.astype(np.uint32)


def saved(folder: Path, count: int = 8, boxes: int = 2) -> Path:
    """Scans in SemanticKITTI's layout."""
    for name in ("velodyne", "labels"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for i in range(count):
        x, code = street(i, boxes)
        x.tofile(folder / "velodyne" / f"{i:06}.bin")
        (code | (i << 16)).astype("<u4").tofile(folder / "labels" / f"{i:06}.label")
    return folder


# ---------------------------------------------------------------------------------------- readers


def ascii_pcd(x: np.ndarray) -> bytes:
    head = "# .PCD v0.7\nVERSION 0.7\nFIELDS x y z intensity\nSIZE 4 4 4 4\nTYPE F F F F\n"
    head += f"COUNT 1 1 1 1\nWIDTH {len(x)}\nHEIGHT 1\nPOINTS {len(x)}\nDATA ascii\n"
    return head.encode() + "\n".join(" ".join(map(str, row)) for row in x.tolist()).encode()


def binary_pcd(x: np.ndarray) -> bytes:
    """With padding that is called `_`, twice, and one field of several numbers."""
    head = "VERSION .7\nFIELDS x y z _ intensity ring _\nSIZE 4 4 4 1 4 2 1\nTYPE F F F U F U U\n"
    head += f"COUNT 1 1 1 4 1 1 10\nWIDTH {len(x)}\nHEIGHT 1\nPOINTS {len(x)}\nDATA binary\n"
    kind = [("x", "<f4", 3), ("p", "u1", 4), ("i", "<f4"), ("r", "<u2"), ("q", "u1", 10)]
    table = np.zeros(len(x), kind)
    table["x"], table["i"] = x[:, :3], x[:, 3]
    return head.encode() + table.tobytes()


def ply(x: np.ndarray, form: str = "binary_little_endian") -> bytes:
    head = f"ply\nformat {form} 1.0\ncomment made here\nelement vertex {len(x)}\n"
    head += "property double x\nproperty double y\nproperty double z\nproperty uchar red\n"
    head += "property float scalar_Intensity\nelement face 1\n"
    head += "property list uchar int vertex_indices\nend_header\n"
    if form == "ascii":
        rows = [f"{a} {b} {c} 7 {i}" for a, b, c, i in x.tolist()]
        return (head + "\n".join([*rows, "3 0 1 2", ""])).encode()
    order = "<" if "little" in form else ">"
    names = [(n, f"{order}f8") for n in "xyz"] + [("r", "u1"), ("i", f"{order}f4")]
    table = np.zeros(len(x), names)
    for i, n in enumerate("xyz"):
        table[n] = x[:, i]
    table["i"] = x[:, 3]
    return head.encode() + table.tobytes() + b"\x03" + np.arange(3, dtype=f"{order}i4").tobytes()


def surveyed(x: np.ndarray, compressed: bool = False, offset: float = 0.0) -> bytes:
    import laspy

    x = x.astype(np.float64)
    header = laspy.LasHeader(point_format=1, version="1.2")
    header.offsets, header.scales = np.array([offset, offset, 0]), np.full(3, 0.001)
    made = laspy.LasData(header)
    made.x, made.y, made.z = x[:, 0] + offset, x[:, 1] + offset, x[:, 2]
    made.intensity = (1000 * x[:, 3]).astype(np.uint16)
    file = io.BytesIO()
    made.write(file, do_compress=compressed)
    return file.getvalue()


def npy(x: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, x)
    return file.getvalue()


def npz(**arrays: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


X = scan(0)
GOOD = {
    "a.bin": X.tobytes(),
    "a.pcd.bin": np.c_[X, np.arange(len(X))].astype(np.float32).tobytes(),
    "a.npy": npy(X),
    "a64.npy": npy(X.astype(np.float64)),
    "a.npz": npz(points=X),
    "other.npz": npz(number=np.zeros(3), whatever=X),
    "apart.npz": npz(xyz=X[:, :3], intensity=X[:, 3]),
    "named.npy": npy(np.rec.fromarrays(X.T, names="x,y,z,reflectivity")),
    "ascii.pcd": ascii_pcd(X),
    "binary.pcd": binary_pcd(X),
    "little.ply": ply(X),
    "big.ply": ply(X, "binary_big_endian"),
    "ascii.ply": ply(X, "ascii"),
}


@pytest.mark.parametrize("name", GOOD)
def test_all_formats_give_the_same_points(name: str):
    found = bare().decode(GOOD[name], name)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, X, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("compressed", [False, True])
def test_surveyors_files_begin_in_their_middle_on_the_ground(compressed: bool):
    raw = surveyed(X, compressed, offset=5_000_000)
    found = bare().decode(raw, "a.laz" if compressed else "a.las")
    np.testing.assert_allclose(np.ptp(found[:, :3], axis=0), np.ptp(X[:, :3], axis=0), atol=2e-3)
    np.testing.assert_allclose(found[:, :2].max(0), -found[:, :2].min(0), atol=1e-3)
    assert abs(np.percentile(found[:, 2], 1)) < 1e-3
    np.testing.assert_allclose(found[:, 3], (1000 * X[:, 3]).astype(int))
    with pytest.raises(BadSample, match="cannot be read"):
        parsed(raw[: len(raw) // 2], "a.las")


def test_points_far_from_where_coordinates_begin_keep_their_centimeters():
    x = X[:, :3].astype(np.float64) + np.array([431_000.25, 5_411_000.75, 210])
    found = bare().decode(x, "memory")
    np.testing.assert_allclose(np.ptp(found, axis=0), np.ptp(X[:, :3], axis=0), atol=1e-3)
    there = bare(origin="sensor").decode(x, "memory")
    assert there[:, 0].min() > 430_000
    middle = bare(origin="middle").decode(X, "memory")
    np.testing.assert_allclose(middle[:, :2].max(0), -middle[:, :2].min(0), atol=1e-4)


def test_what_reads_maps_is_named_where_it_is_not_there(monkeypatch, tmp_path: Path):
    (tmp_path / "a.las").write_bytes(surveyed(X))

    def absent(name: str) -> Any:
        raise ImportError(name)

    monkeypatch.setattr(las, "import_module", absent)
    with pytest.raises(UserError, match=r"pip install 'selftaught\[points\]'"):
        open_data(tmp_path, kind=bare())


LOST = X.copy()
LOST[3:-10] = np.nan
BAD = {
    "empty.bin": (b"", "is empty"),
    "short.bin": (X.tobytes()[:-7], "cut short.* 9 of"),
    "double.bin": (X.astype(np.float64).tobytes(), "does not look like float32"),
    "words.bin": (b"these are words " * 40, "does not look like float32"),
    "one.bin": (X[:1].tobytes(), "has 1 point: 16 at least"),
    "lost.bin": (LOST.tobytes(), r"has 13 points, \d+ others are not finite"),
    "lost.npy": (npy(LOST), r"has 13 points, \d+ others are not finite"),
    "square.npy": (npy(np.zeros((9, 2))), "no points"),
    "words.npy": (npy(np.array(["a"])), "no points"),
    "cut.npy": (npy(X)[:-40], "cannot be read as an array"),
    "none.npz": (npz(a=np.zeros(4)), "no array of points"),
    "cut.npz": (npz(points=X)[:-90], "cannot be read as arrays"),
    "uneven.npz": (npz(xyz=X[:, :3], intensity=X[1:, 3]), "points and .* intensities"),
    "flat.npy": (npy(np.rec.fromarrays(X.T[:2], names="x,y")), "has no z"),
    "cut.pcd": (binary_pcd(X)[:-100], r"cut short: \d+ of"),
    "lines.pcd": (ascii_pcd(X).rpartition(b"\n")[0], r"cut short: \d+ of"),
    "headless.pcd": (b"VERSION 0.7\nFIELDS x y z\n", "no line that begins with DATA"),
    "odd.pcd": (ascii_pcd(X).replace(b"TYPE F", b"TYPE Q"), "no PCD's"),
    "packed.pcd": (
        binary_pcd(X).replace(b"DATA binary", b"DATA binary_compressed"),
        "binary_compressed data.*pcl_convert_pcd_ascii_binary",
    ),
    "cut.ply": (ply(X)[:-1000], r"cut short: \d+ of"),
    "head.ply": (ply(X)[:60], "no end of its header"),
    "faces.ply": (b"ply\nformat ascii 1.0\nelement face 1\nend_header\n", "faces before"),
    "form.ply": (ply(X).replace(b"little", b"middle"), "binary_middle_endian"),
    "words.ply": (ply(X, "ascii").replace(b" 7 ", b" seven "), "no vertex"),
    "text.las": (b"LASF and no more", "cannot be read"),
    "a.las": (b"words, and no more", "does not begin as points do"),
}


@pytest.mark.parametrize("name", BAD)
def test_files_that_are_no_points_say_why(name: str):
    with pytest.raises(BadSample, match=BAD[name][1]):
        bare().decode(BAD[name][0], name)


def test_points_that_no_beam_came_back_from_are_left_out():
    x = X.copy()
    x[5:9, 0], x[11, 3] = np.nan, np.inf
    assert bare().decode(npy(x), "a.npy").shape == (len(X) - 5, 4)
    assert bare().decode(binary_pcd(x), "a.pcd").shape == (len(X) - 5, 4)
    assert bare(intensity="no").decode(npy(x), "a.npy").shape == (len(X) - 4, 3)


def test_check_tells_what_is_wrong_with_a_folder_of_scans(tmp_path: Path):
    for name in ("empty.bin", "short.bin", "cut.pcd", "cut.ply"):
        (tmp_path / name).write_bytes(BAD[name][0])
    for i, name in enumerate(("good.bin", "copy.bin", "other.npy", "more.pcd")):
        x = scan(max(0, i - 1))
        (tmp_path / name).write_bytes(
            {"n": npy, "p": ascii_pcd}.get(name[-3], np.ndarray.tobytes)(x)
        )
    found = check(tmp_path, workers=0)
    assert (found.kind.word, found.readable, len(found.bad)) == ("points", 4, 4)
    assert (found.duplicates, found.sizes[0]) == (1, min(len(scan(i)) for i in range(3)))


def test_a_million_points_are_one_scan():
    x = np.random.default_rng(0).uniform(-30, 30, (1_000_000, 4)).astype(np.float32)
    sample = bare(reach=30.0).decode(x.tobytes(), "a.bin")
    assert sample.shape == x.shape
    assert bare(reach=30.0).plain(4096)(sample).shape == (4096, 4)


def test_scans_are_found_in_arrays_and_in_files_of_several(tmp_path: Path):
    several = [scan(i) for i in range(3)]
    np.savez(tmp_path / "scans.npz", *several)
    np.savez(tmp_path / "one.npz", points=several[1])
    np.save(tmp_path / "stack.npy", np.stack([s[:90] for s in several]))
    kind = bare()
    for source in (several, tmp_path / "scans.npz", tmp_path / "stack.npy"):
        samples = open_data(source, kind=kind)
        assert len(samples) == 3
        np.testing.assert_array_equal(samples.read(1)[:90], several[1][:90])
    assert len(open_data(tmp_path / "one.npz", kind=kind)) == 1
    with pytest.raises(UserError, match="no array other"):
        open_data(tmp_path / "scans.npz", kind=kind, column="other")


# ------------------------------------------------------------------------------------------- kind


def test_a_kind_is_filled_from_the_data_alone():
    scans = [street(i)[0] * (1, 1, 1, 255) for i in range(4)]
    kind, given = bare().fill({}, open_data(scans, kind=bare()))
    assert (kind.intensity, kind.brightest, given["channels"]) == ("yes", 255.0, 4)
    assert 9.5 < kind.reach <= 10.5
    assert given["reach"] == kind.reach
    assert given["size"] % 16 == 0
    assert (
        0 <= kind.decode(scans[0], "x")[:, 3].min() <= kind.decode(scans[0], "x")[:, 3].max() <= 1
    )
    wide, given = bare().fill({"reach": 20.0, "size": 100}, open_data(scans, kind=bare()))
    assert (wide.reach, given["size"]) == (20.0, 100)
    assert kinds.made(json.loads(json.dumps(wide.config))) == wide


def test_intensity_is_left_out_of_all_where_most_have_none():
    scans = [street(i)[0][:, : 3 + (i == 0)] for i in range(5)]
    kind, given = bare().fill({}, open_data(scans, kind=bare()))
    assert (kind.intensity, given["channels"]) == ("no", 3)
    assert kind.decode(scans[0], "x").shape[1] == 3
    kind, _ = bare(intensity="yes").fill({}, open_data(scans, kind=bare()))
    with pytest.raises(BadSample, match="--intensity no"):
        kind.decode(scans[1], "x")
    with pytest.raises(UserError, match=r"channels=4.*3 numbers"):
        bare().fill({"channels": 4}, open_data(scans, kind=bare()))


def test_plain_views_are_the_points_within_reach():
    x = np.r_[scan(0), [[9, 0, 0, 1], [0, -4.5, 0, 1]]].astype(np.float32)
    view = KIND.plain(64)(x)
    assert view.shape == (64, 4)
    assert np.abs(view[:, :2]).max() < 4
    assert len(np.unique(view, axis=0)) == 64
    np.testing.assert_array_equal(view, KIND.plain(64)(x))
    few = KIND.plain(500)(x)
    assert len(np.unique(few, axis=0)) == len(scan(0))
    with pytest.raises(BadSample, match="--reach"):
        KIND.plain(64)(x + 50)


def test_declared_views_are_translated():
    x = street(0)[0]
    kind = bare(reach=10.0, intensity="yes", brightest=1.0)
    pipeline = kind.views(augment.simclr(256))
    one, other = pipeline(x, sample_rng(0, 0, 1))
    assert one.shape == other.shape == (256, 4)
    assert one.dtype == np.float32
    again = pipeline(x, sample_rng(0, 0, 1))
    assert all(map(np.array_equal, again, (one, other)))
    # turned about the vertical axis, and scaled by 5 % at most
    bounds = np.abs(x[:, 2]).max() * 1.05 + 0.11
    assert np.abs(one[:, 2]).max() <= bounds
    small = kind.views(augment.multicrop(256, 96, 2))(x, sample_rng(0, 0, 1))
    assert [len(v) for v in small] == [256, 256, 96, 96]
    near = np.ptp(small[2][:, :2], axis=0).max()
    assert near < np.ptp(small[0][:, :2], axis=0).max()


def test_pictures_show_points_from_above_ahead_being_up():
    x = np.tile(np.array([[3.0, 0, 0, 0.5]], np.float32), (20, 1))
    x[10:] = 0, 3.0, 2.0, 0.5
    picture = KIND.thumbnail(x, 41)
    assert picture.shape == (3, 41, 41)
    dark = np.argwhere((picture != 255).any(0)).tolist()
    assert dark == [[5, 20], [20, 5]]
    low, high = picture[:, 5, 20], picture[:, 20, 5]
    assert low[2] > low[0]
    assert high[0] > high[2]
    assert KIND.pictures(np.zeros((7, 5), np.float32)) == []


def test_floors_know_heights_and_where_points_are():
    x = torch.zeros(2, 50, 4)
    x[1, :, 2], x[1, :, 0] = 2.0, 3.9
    heights, cells = Heights(4.0)(x), Occupied(4.0)(x)
    torch.testing.assert_close(heights.sum(1), torch.ones(2))
    assert heights[0].argmax() != heights[1].argmax()
    assert cells.sum(1).tolist() == [1, 1]
    scans = [street(i, boxes=3 * (i % 2))[0] for i in range(12)]
    told = by_neighbors(scans[:8], np.arange(8) % 2, scans[8:])
    assert told.tolist() == [0, 1, 0, 1]


def test_surroundings_are_ranges_of_what_is_around_a_point():
    x, code = street(0)
    found = surroundings(x, 10.0)
    assert found.shape == (len(x), 7 * SLICES)
    np.testing.assert_array_equal(found.reshape(len(x), 7, SLICES).sum(2), 1)
    heights = found[:, 2 * SLICES : 3 * SLICES].argmax(1)
    assert heights[code == 10].mean() > heights[code == 40].mean() + 1
    assert surroundings(x[:, :3], 10.0).shape == (len(x), 6 * SLICES)


# ---------------------------------------------------------------------------------------- encoder


def test_pillars_take_points_in_any_order():
    encoder = KIND.build(size=64, reach=4.0, cells=8, width=4, depth=2).eval()
    x = torch.from_numpy(np.stack([KIND.plain(64)(scan(i)) for i in range(2)]))
    order = torch.randperm(64)
    pooled, local, grid = encoder.features(x)
    assert (pooled.shape, local.shape, grid) == ((2, 16), (2, 64, 8), (64, 1))
    again = encoder.features(x[:, order])
    torch.testing.assert_close(again.pooled, pooled)
    torch.testing.assert_close(again.local, local[:, order])
    twice = encoder.features(torch.cat([x, x], 1))
    torch.testing.assert_close(twice.pooled, pooled)
    torch.testing.assert_close(twice.local[:, 64:], local)
    far = x.clone()
    far[0, 0, :2] = 1e4  # counts to the column at the edge
    assert encoder(far).isfinite().all()
    torch.testing.assert_close(encoder(far)[1], pooled[1])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"channels": 5}, "x, y, z, and perhaps intensity"),
        ({"cells": 10, "depth": 3}, "cannot be halved 2 times.*--cells 12"),
    ],
)
def test_encoders_that_cannot_be_say_why(options: dict[str, Any], words: str):
    with pytest.raises(UserError, match=words):
        KIND.build(**options)


def test_an_encoder_refuses_other_points():
    encoder = KIND.build(size=64, reach=4.0, cells=8, width=4, depth=2)
    with pytest.raises(UserError, match=r"takes points \[B, N, 4\]"):
        encoder(torch.zeros(2, 64, 3))


# ------------------------------------------------------------------------------------------- ALSO


def test_places_are_before_and_behind_points_and_on_the_way_to_them():
    points = scan(0)[:, :3]
    asked = places(np.random.default_rng(0), points, 302, 0.1)
    beam = points / np.linalg.norm(points, axis=1, keepdims=True)
    away = ((asked.places - points[asked.source]) * beam[asked.source]).sum(1)
    full, near = asked.full, ~asked.full & ~asked.far
    assert (full.sum(), near.sum(), asked.far.sum()) == (102, 100, 100)
    assert (away[full] >= 0).all()
    assert (away[full] <= 0.1).all()
    assert (away[near] <= 0).all()
    assert (away[near] >= -0.1).all()
    across = np.cross(asked.places, beam[asked.source])
    np.testing.assert_allclose(across, 0, atol=1e-6)
    assert (np.linalg.norm(asked.places[asked.far], axis=1) <= 6).all()


def test_neighbors_are_the_nearest_within_the_radius_and_no_more():
    rng = np.random.default_rng(1)
    points, asked = rng.uniform(-2, 2, (200, 3)), rng.uniform(-2, 2, (40, 3))
    asked[0] = 90
    points[0], asked[1] = (9, 0, 0), (10, 0, 0)  # exactly as far as the radius
    near = neighbors(points, asked, 1.0, 5)
    far = np.linalg.norm(points[None] - asked[:, None], axis=2)
    for row, found in zip(far, near):
        wanted = [i for i in np.argsort(row)[:5] if row[i] <= 1.0]
        assert found[found >= 0].tolist() == wanted
    assert near[0].tolist() == [-1] * 5
    assert near[1].tolist() == [0, -1, -1, -1, -1]
    assert neighbors(points[:3], asked, 1.0, 5).shape == (40, 5)


def test_scans_without_intensity_have_no_loss_of_it():
    kind = bare(reach=4.0, intensity="no")
    encoder = kind.build(size=64, channels=3, reach=4.0, cells=8, width=4, depth=2)
    method = ALSO(encoder, queries=12, latent=8, neighbors=4)
    x, asked, near = method.views(64)(scan(0)[:, :3], sample_rng(0, 0, 0))
    assert x.shape == (64, 3)
    assert (asked[:, 4] == -1).all()
    views = tuple(torch.from_numpy(v)[None] for v in (x, asked, near))
    terms = method.loss(Batch(views, torch.zeros(1)))
    assert terms["intensity"] == 0
    assert terms["occupancy"] > 0
    nothing = losses(torch.zeros(0, 2), torch.zeros(0), torch.zeros(0))
    assert (nothing["occupancy"], nothing["intensity"]) == (0, 0)


def test_what_is_asked_is_asked_of_the_scan_as_it_is_turned():
    x, asked, near = Asked(64, 4.0, 30, 0.1, 1.0, 8)(scan(0), sample_rng(0, 0, 0))
    assert (x.shape, asked.shape, near.shape) == ((64, 4), (30, 5), (30, 8))
    assert (x.dtype, asked.dtype, near.dtype) == (np.float32, np.float32, np.int32)
    rows, k = np.nonzero(near >= 0)
    away = np.linalg.norm(x[near[rows, k], :3] - asked[rows, :3], axis=1)
    assert away.max() <= 1 + 1e-5
    assert (np.linalg.norm(x[:, :2], axis=1).max()) <= np.linalg.norm(
        scan(0)[:, :2], axis=1
    ).max() + 1e-5


def test_also_learns_what_is_full():
    """Of scans of flat ground: what is above it is empty, what is below it full."""
    torch.manual_seed(0)
    kind = bare(reach=10.0, intensity="yes", brightest=1.0)
    encoder = kind.build(size=512, reach=10.0, cells=32, width=8, depth=2)
    method = ALSO(encoder, queries=256, latent=32, neighbors=8, thickness=0.5)
    optimizer = torch.optim.AdamW(method.parameters(), 3e-3)
    pipeline = kind.views(method.views(512))
    first = last = 0.0
    for step in range(60):
        rows = [pipeline(street(i, 0)[0], sample_rng(0, step, i)) for i in range(4)]
        views = tuple(torch.from_numpy(np.stack(column)) for column in zip(*rows))
        terms = method.loss(Batch(views, torch.arange(4)))
        optimizer.zero_grad()
        torch.stack([*terms.values()]).sum().backward()
        optimizer.step()
        last = terms["occupancy"].item()
        first = first or last
    assert last < 0.9 * first
    assert last < method.reference_losses(4)[0].value


# ----------------------------------------------------------------------------- classes of points


def test_the_class_of_points_is_scored_from_labels_beside_scans(tmp_path: Path):
    folder = saved(tmp_path, 6)
    kind = bare(reach=10.0, intensity="yes", brightest=1.0)
    encoder = kind.build(size=300, reach=10.0, cells=32, width=8, depth=2)
    asked = {"probes": ("segment",), "masks": str(folder / "labels"), "workers": 0}
    found = compare(encoder, folder / "velodyne", **asked)
    assert set(found.scores) == {"this encoder", "untrained", "height and surroundings"}
    (score,) = found.scores["height and surroundings"]
    assert (score.name, score.n, set(score.parts)) == (
        "segment linear",
        6,
        {"class 10", "class 40"},
    )
    assert score.value > 60
    assert "6 scans in 5 parts" in score.protocol
    assert "sectors" in score.protocol
    low, high = score.interval
    assert low < score.value < high
    test = saved(tmp_path / "more", 3)
    found = compare(
        encoder, folder / "velodyne", test / "velodyne", test_masks=str(test / "labels"), **asked
    )
    (score,) = found.scores["this encoder"]
    assert "6 training, 3 test scans" in score.protocol
    again = compare(
        encoder, folder / "velodyne", test / "velodyne", test_masks=str(test / "labels"), **asked
    )
    assert again.scores["this encoder"][0].value == score.value


def test_labels_that_do_not_belong_to_scans_say_why(tmp_path: Path):
    folder = saved(tmp_path, 3)
    encoder = bare(reach=10.0, intensity="yes", brightest=1.0).build(
        size=64, reach=10.0, cells=8, width=4, depth=2
    )
    score = partial(compare, encoder, folder / "velodyne", probes=("segment",), workers=0)
    labels = folder / "labels"
    with pytest.raises(UserError, match="name the folder with --masks"):
        score()
    with pytest.raises(UserError, match="is no folder"):
        score(masks=str(tmp_path / "nowhere"))
    whole = (labels / "000001.label").read_bytes()
    for content, words in (
        (whole[:-4], "these do not belong together"),
        (whole[:-3], "cut short"),
    ):
        (labels / "000001.label").write_bytes(content)
        with pytest.raises(UserError, match=words):
            score(masks=str(labels))
    (labels / "000001.label").unlink()
    with pytest.raises(UserError, match=r"no labels for 1 of 3 scans, such as 000001\.label"):
        score(masks=str(labels))
    np.save(labels / "000001.npy", np.frombuffer(whole, np.uint32) & 0xFFFF)
    assert score(masks=str(labels)).scores["this encoder"][0].n == 3
    np.save(labels / "000001.npy", np.zeros((4, 2)))
    with pytest.raises(UserError, match="a whole number a point"):
        score(masks=str(labels))
    for path in labels.iterdir():
        path.unlink()
    for i in range(3):
        np.save(labels / f"{i:06}.npy", np.zeros(len(street(i)[0]), int))
    with pytest.raises(UserError, match="hold 0 classes"):
        score(masks=str(labels))


def test_scans_that_cannot_be_read_are_left_out_of_the_score(tmp_path: Path, caplog):
    folder = saved(tmp_path, 3)
    encoder = bare(reach=10.0, intensity="yes", brightest=1.0).build(
        size=64, reach=10.0, cells=8, width=4, depth=2
    )
    score = partial(compare, encoder, folder / "velodyne", probes=("segment",), workers=0)
    (folder / "velodyne" / "000001.bin").write_bytes(b"short")
    (score_of,) = score(masks=str(folder / "labels")).scores["this encoder"]
    assert score_of.n == 2
    assert "1 samples left out, for instance 000001.bin: is cut short" in caplog.text
    (folder / "velodyne" / "000002.bin").write_bytes(b"")
    with pytest.raises(UserError, match="needs two scans with labels"):
        score(masks=str(folder / "labels"))


def test_labels_lie_beside_the_scans_of_each_sequence(tmp_path: Path):
    for sequence in ("00", "01"):
        saved(tmp_path / "sequences" / sequence, 2)
    encoder = bare(reach=10.0, intensity="yes", brightest=1.0).build(
        size=64, reach=10.0, cells=8, width=4, depth=2
    )
    root = str(tmp_path / "sequences")
    found = compare(encoder, root, probes=("segment",), masks=root, workers=0)
    assert found.scores["this encoder"][0].n == 4


def test_what_has_no_places_is_not_segmented():
    encoder = kinds.made({"kind": "series"}).build(name="inception", size=32, width=4, depth=3)
    with pytest.raises(UserError, match="series have no masks"):
        compare(encoder, np.zeros((4, 32), np.float32), probes=("segment",), workers=0)


# ------------------------------------------------------------------------------------------- runs

NET: dict[str, Any] = {"size": 128, "cells": 16, "width": 4, "depth": 2}
OWN: dict[str, Any] = {"queries": 24, "latent": 8, "neighbors": 4}
HOW: dict[str, Any] = {"batch": 4, "max_steps": 4, "workers": 0, "precision": "fp32"}


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("points") / "scans"
    for i in range(12):
        place = folder / ("empty" if i % 2 else "full")
        place.mkdir(parents=True, exist_ok=True)
        street(i, 3 * (1 - i % 2), 240)[0].tofile(place / f"{i}.bin")
    return folder


@pytest.fixture(scope="module")
def run(scans: Path) -> Path:
    out = scans.parent / "run"
    selftaught.pretrain("also", scans, out, **NET, **OWN, **HOW)
    return out


def weights(run: Path) -> bytes:
    return (run / "encoder.safetensors").read_bytes()


def test_the_kind_is_told_by_endings(scans: Path):
    assert kinds.guess(scans, tuple(kinds.files())) == "points"
    assert kinds.guess(scans / "full" / "0.bin", tuple(kinds.files())) == "points"
    with pytest.raises(UserError, match=r"also learns from .*points.*--kind"):
        selftaught.pretrain("also", np.zeros((8, 8, 8, 3), np.uint8), kind="image")


def test_a_run_of_scans_leaves_scores_a_page_and_an_encoder(run: Path, scans: Path):
    names = {row["features"] for row in json.loads((run / "scores.json").read_text())["scores"]}
    assert names == {"this encoder", "untrained", "heights", "map from above", "whole scans"}
    page = (run / "report.html").read_text()
    assert "128 points" in page
    assert "Floors: heights, map from above, whole scans, and the same network" in page
    assert np.load(run / "views.npz")["view0"].shape[1:] == (3, 96, 96)
    encoder = selftaught.load(run)
    kind = kinds.of(encoder)
    assert kind.word == "points"
    samples = open_data(scans, kind=kind)
    views = [kind.plain(encoder.size)(samples.read(i)) for i in range(3)]
    with torch.inference_mode():
        alone = encoder(torch.from_numpy(np.stack(views)))
    found = selftaught.embed(run, scans, workers=0).features[:3]
    np.testing.assert_allclose(found, alone.numpy(), rtol=1e-4, atol=1e-5)


def test_workers_change_nothing_and_a_killed_run_goes_on(run: Path, scans: Path, tmp_path: Path):
    for workers in (1, 2):
        other = tmp_path / f"other{workers}"
        asked = NET | OWN | HOW | {"workers": workers}
        selftaught.pretrain("also", scans, other, **asked, evaluate=False)
        assert weights(other) == weights(run)
    kind, given = bare().fill(dict(NET), open_data(scans, kind=bare()))
    samples = open_data(scans, kind=kind)

    def train(out: Path, method: Any, resume: bool) -> Path:
        quick = HOW | {"save_every": 0, "evaluate": False}
        selftaught.pretrain(method, samples, out, resume=resume, **quick)
        return out

    fresh = partial(assemble, "also", given | {"name": "pillars"}, OWN, samples, 0)
    whole = train(tmp_path / "whole", fresh(), False)
    killed = often_killed(tmp_path / "killed", fresh, train, 1)
    assert weights(killed) == weights(whole)


def test_methods_for_any_kind_learn_from_scans(scans: Path, tmp_path: Path):
    how = HOW | {"max_steps": 1, "evaluate": False}
    for method in ("simclr", "byol"):
        made = selftaught.pretrain(method, scans, tmp_path / method, **NET, **how)
        assert made.encoder.config["name"] == "pillars"


def test_the_doctor_has_no_false_alarm_on_also(scans: Path, tmp_path: Path):
    out, how = tmp_path / "run", HOW | {"max_steps": 30, "evaluate": False}
    selftaught.pretrain("also", scans, out, **NET, **OWN, **how)
    assert json.loads((out / "diagnosis.json").read_text())["findings"] == []


@pytest.mark.parametrize("target", ["onnx", "torch-export", "safetensors"])
def test_an_encoder_of_scans_is_exported_and_read_back(run: Path, tmp_path: Path, target: str):
    made = export.convert(run, to=target, out=tmp_path / target)
    assert made.images == "12 scans of the training data"
    assert max(made.differences.values()) < 1e-5


def test_the_command_line_once_through(scans: Path, tmp_path: Path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["check", str(scans)]) == 0
    assert "points (min / median / max)" in capsys.readouterr().out
    words = "pretrain also --out run --size 64 --cells 8 --width 4 --depth 2 --queries 12"
    words += " --latent 8 --max-steps 2 --batch 4 --workers 0 --precision fp32 --no-evaluate"
    assert main([*words.split()[:2], str(scans), *words.split()[2:]]) == 0
    assert main(["embed", "run", str(scans), "--out", "f.npz", "--workers", "0"]) == 0
    assert np.load("f.npz")["features"].shape == (12, 16)
    labeled = saved(tmp_path / "labeled", 3)
    asked = ["--probes", "segment", "--masks", str(labeled / "labels"), "--workers", "0"]
    assert main(["evaluate", "run", str(labeled / "velodyne"), *asked]) == 0
    assert "height and surroundings" in capsys.readouterr().out.replace("\n", " ")
