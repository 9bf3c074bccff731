"""Files of arrays are mapped where they can be, and what they claim is not believed."""

import pickle
import zipfile

import numpy as np
import pytest

from selftaught.data import BadSample, open_data
from selftaught.errors import UserError

SHAPE = (6, 8, 8, 3)


def npy(header: str, data: bytes = b"", version: tuple[int, int] = (1, 0)) -> bytes:
    text = header.encode("latin1") + b" " * 20 + b"\n"
    size = len(text).to_bytes(2 if version == (1, 0) else 4, "little")
    return b"\x93NUMPY" + bytes(version) + size + text + data


def shaped(shape: str, kind: str = "|u1") -> str:
    return f"{{'descr': {kind!r}, 'fortran_order': False, 'shape': {shape}, }}"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (npy(shaped("(-1, 8, 8, 3)"), bytes(999)), "shape"),
        (npy(shaped("(2, -8, -8, 3)"), bytes(999)), "shape"),
        (npy(shaped(f"({1 << 70}, 8, 8, 3)")), "shape"),
        (npy(shaped("(True, 8, 8, 3)"), bytes(999)), "shape"),
        (npy(shaped("(100000000, 800, 800, 3)")), "ends early|GiB"),
        (npy(shaped("(2, 8, 8, 3)"), bytes(10)), "ends early|EOF"),
        (npy(shaped("(2, 8, 8)", "|O"), pickle.dumps([1])), "objects, which are never loaded"),
        (npy("(" * 4000 + ")" * 4000), "header"),
        (npy("{" * 300), "header"),
        (npy("[" * 3000 + "]" * 3000), "header"),
        (npy("__import__('os')"), "header"),
        (npy(shaped("(2, 8, 8, 3)") + " " * 20000, version=(2, 0)), "header"),
        (npy(shaped("(2, 8, 8, 3)"), bytes(999), (9, 0)), "version"),
        (npy(""), "header"),
        (b"", "EOF|empty"),
    ],
)
def test_headers_that_lie(content, reason, tmp_path):
    (tmp_path / "a.npy").write_bytes(content)
    with pytest.raises(UserError, match=reason) as error:
        open_data(tmp_path / "a.npy")
    assert "\n" not in str(error.value)
    with pytest.raises(BadSample):
        open_data([tmp_path / "a.npy"]).read(0)
    for how in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        with zipfile.ZipFile(tmp_path / "a.npz", "w", how) as archive:
            archive.writestr("images.npy", content)
        with pytest.raises(UserError, match=reason):
            open_data(tmp_path / "a.npz")


@pytest.mark.parametrize("order", ["C", "F"])
def test_an_archive_is_mapped(order, tmp_path):
    images = np.asarray(np.random.default_rng(0).integers(0, 255, SHAPE, np.uint8), order=order)
    np.savez(tmp_path / "a.npz", other=np.arange(3), images=images, labels=np.arange(6))
    samples = open_data(tmp_path / "a.npz")
    assert isinstance(samples.source.array, np.memmap)
    assert len(pickle.dumps(samples)) < 2000
    again = pickle.loads(pickle.dumps(samples))
    for i in range(6):
        np.testing.assert_array_equal(again.read(i), images[i])
    np.testing.assert_array_equal(again.labels, np.arange(6))


def test_a_compressed_archive_is_read_where_it_fits(tmp_path, monkeypatch):
    images = np.random.default_rng(0).integers(0, 255, SHAPE, dtype=np.uint8)
    np.savez_compressed(tmp_path / "a.npz", images=images)
    np.testing.assert_array_equal(open_data(tmp_path / "a.npz").read(5), images[5])
    monkeypatch.setattr("selftaught.data.arrays.free_memory", lambda: images.nbytes)
    with pytest.raises(UserError, match=r"compressed .* save the array as \.npy"):
        open_data(tmp_path / "a.npz")


def test_archives_that_are_damaged(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", images=np.zeros(SHAPE, np.uint8))
    whole = (tmp_path / "a.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[:-30])
    middle = bytearray(whole)
    middle[60:90] = bytes(30)
    (tmp_path / "middle.npz").write_bytes(middle)
    for name in ("cut.npz", "middle.npz"):
        with pytest.raises(UserError, match="can"):
            open_data(tmp_path / name)
