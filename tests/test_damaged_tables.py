"""Damaged Parquet and Arrow files, and JSON nested without end, are refused in words."""

import io
import subprocess
import sys
import tarfile

import numpy as np
import PIL.Image
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from selftaught.data import open_data
from selftaught.errors import SelftaughtError, UserError


def png(i: int) -> bytes:
    file = io.BytesIO()
    PIL.Image.fromarray(np.full((8, 9, 3), 40 * i, np.uint8)).save(file, "PNG")
    return file.getvalue()


def table() -> pa.Table:
    return pa.table({"image": [png(i) for i in range(4)], "label": ["a", "b", "a", "b"]})


def damaged(content: bytes, count: int):
    """The content with bytes changed or cut, always alike."""
    rng = np.random.default_rng(0)
    for _ in range(count):
        data = bytearray(content)
        for at in rng.integers(0, len(data), 3):
            data[at] = int(rng.integers(256))
        cut = int(rng.integers(len(data) // 2, len(data))) if rng.random() < 0.3 else len(data)
        yield bytes(data[:cut])


def written(kind: str) -> bytes:
    file = io.BytesIO()
    if kind == "parquet":
        pq.write_table(table(), file, row_group_size=2)
    else:
        with pa.ipc.new_file(file, table().schema) as writer:
            writer.write_table(table())
    return file.getvalue()


@pytest.mark.parametrize("kind", ["parquet", "arrow"])
def test_damage_is_read_or_refused(kind, tmp_path):
    path, refused = tmp_path / f"a.{kind}", []
    for content in damaged(written(kind), 150):
        path.write_bytes(content)
        try:
            samples = open_data(path)
            for i in range(min(len(samples), 4)):
                samples.read(i)
        except SelftaughtError as error:
            refused.append(str(error))
    assert len(refused) > 30
    assert not any("\n" in text for text in refused)


def test_offsets_that_lead_astray_do_not_end_the_process(tmp_path):
    content = written("arrow")
    start = content.index(png(0)) - 64
    for at in range(start, start + 64, 16):  # where the offsets of the column lie
        wrong = content[:at] + (2**31 - 1).to_bytes(4, "little") + content[at + 4 :]
        (tmp_path / "a.arrow").write_bytes(wrong)
        code = (
            "import sys; from selftaught.data import open_data\n"
            "from selftaught.errors import SelftaughtError\n"
            "try: [open_data(sys.argv[1]).read(i) for i in range(4)]\n"
            "except SelftaughtError: pass\n"
        )
        done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "a.arrow")])
        assert done.returncode == 0, at


def test_json_without_end(tmp_path):
    deep = b"[" * 100_000
    folder = tmp_path / "saved"
    folder.mkdir()
    (folder / "state.json").write_bytes(deep)
    with pytest.raises(UserError, match="cannot be read"):
        open_data(folder)
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for name, content in (("0.png", png(0)), ("0.json", deep)):
            about = tarfile.TarInfo(name)
            about.size = len(content)
            archive.addfile(about, io.BytesIO(content))
    with pytest.raises(UserError, match="no labels there"):
        open_data(tmp_path / "a.tar", labels="class")
    marked = table().replace_schema_metadata({"huggingface": deep})
    pq.write_table(marked, tmp_path / "a.parquet")
    assert len(open_data(tmp_path / "a.parquet")) == 4
