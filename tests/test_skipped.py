"""What is left out of the data is said before the first step, with the way to have it read."""

import logging
import re

import numpy as np
import PIL.Image
import pytest

from selftaught import backbone
from selftaught.cli import main
from selftaught.data import Skipped, open_data
from selftaught.data.image.formats import HEIF
from selftaught.data.skipped import further, tell
from selftaught.errors import UserError
from selftaught.evaluate.features import open_samples

HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + b"\0" * 64


def photos(folder, count=3):
    for i in range(count):
        pixels = np.random.default_rng(i).integers(0, 255, (32, 32, 3), dtype=np.uint8)
        PIL.Image.fromarray(pixels).save(folder / f"{i}.png")


def told(data, caplog) -> list[tuple[str, str]]:
    caplog.clear()
    with caplog.at_level(logging.INFO, "selftaught"):
        tell(open_data(data))
    return [(r.levelname, r.getMessage()) for r in caplog.records]


@pytest.mark.parametrize(
    ("name", "way"),
    [
        ("a.jxl", r"1 \.jxl; \.jxl: JPEG XL: .* djxl"),
        ("scan.DCM", r"1 \.dcm; \.dcm: .*pydicom"),
        ("brain.nii", r"1 \.nii; .*nibabel"),
        ("brain.nii.gz", r"1 \.nii\.gz; .*nibabel"),
        ("photos.zip", r"1 \.zip; \.zip: unpack"),
        ("photos.tar.gz", r"1 \.tar\.gz; \.tar\.gz: unpack"),
        ("clip.MP4", r"1 \.mp4; .*selftaught frames"),
        ("IMG.NEF", r"1 \.nef; .*develop"),
        ("slide.svs", r"1 \.svs; .*tiles"),
        ("cells.czi", r"1 \.czi; .*TIFF"),
        ("light.exr", r"1 \.exr; .*float TIFF"),
        ("stack.h5", r"1 \.h5; .*\.npy"),
        ("shard-0.tar", r"1 \.tar; .*alone in a folder"),
    ],
)
def test_formats_that_are_not_read(name, way, tmp_path, caplog):
    photos(tmp_path)
    (tmp_path / name).write_bytes(b"II*\0" + bytes(200))  # as raw photos and slides begin
    ((level, line),) = told(tmp_path, caplog)
    assert level == "WARNING"
    assert line.count("\n") == 0
    assert re.search("left out of the data: " + way, line), line


def test_dicom_without_a_name(tmp_path, caplog):
    photos(tmp_path)
    (tmp_path / "IM0001").write_bytes(bytes(128) + b"DICM" + bytes(50))
    assert "1 .dcm; .dcm: DICOM" in told(tmp_path, caplog)[0][1]


@pytest.mark.skipif(HEIF, reason="with pillow-heif they are read")
def test_heic_names_its_extra(tmp_path, caplog):
    photos(tmp_path)
    for i in range(24):
        (tmp_path / f"IMG_{i}.HEIC").write_bytes(HEIC)
    line = "left out of the data: 24 .heic; .heic: pip install 'selftaught[heif]' reads them"
    assert told(tmp_path, caplog) == [("WARNING", line)]
    (tmp_path / "only").mkdir()
    (tmp_path / "only" / "a.heif").write_bytes(HEIC)
    with pytest.raises(UserError, match=r"1 \.heif; \.heif: pip install 'selftaught\[heif\]'"):
        open_data(tmp_path / "only")
    with pytest.raises(UserError, match=r"selftaught\[heif\]"):
        open_data(tmp_path / "only" / "a.heif")


def test_what_usually_lies_beside_images_is_no_warning(tmp_path, caplog):
    photos(tmp_path)
    assert told(tmp_path, caplog) == []
    for name in ("labels.csv", "README.md", ".hidden.png"):
        (tmp_path / name).write_bytes(b"text")
    assert told(tmp_path, caplog) == [("INFO", "left out of the data: 1 .csv, 1 .md, 1 hidden")]


def test_links_and_letters_of_names(tmp_path, caplog):
    photos(tmp_path)
    (tmp_path / "gone.png").symlink_to(tmp_path / "nothing")
    (tmp_path / "again.png").symlink_to(tmp_path / "0.png")
    (tmp_path / "a.\x1b[31mred\n").write_bytes(b"?")
    ((level, line),) = told(tmp_path, caplog)
    assert level == "WARNING"
    assert "1 dangling links, 1 repeated links" in line
    assert line.isprintable()


def test_further_pages(tmp_path, caplog):
    photos(tmp_path)
    pages = [PIL.Image.fromarray(np.full((32, 32), 40 * i, np.uint8)) for i in range(5)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    pages[0].save(tmp_path / "b.gif", save_all=True, append_images=pages[1:3])
    pages[0].save(tmp_path / "one.tif")
    (tmp_path / "broken.tif").write_bytes(b"II*\0")
    ((level, line),) = told(tmp_path, caplog)
    assert level == "WARNING"
    assert "6 further pages or frames in 2 files" in line
    assert further(open_data(np.zeros((4, 8, 8, 3), np.uint8))) == ""


def test_many_are_looked_at_in_part(tmp_path):
    pages = [PIL.Image.fromarray(np.full((8, 8), 40 * i, np.uint8)) for i in range(2)]
    for i in range(200):
        pages[0].save(tmp_path / f"{i:03}.tif", save_all=True, append_images=pages[1:])
    assert "50 further pages or frames in 50 files among 50 looked at" in further(
        open_data(tmp_path)
    )


def test_every_command_says_it(tmp_path, caplog, capsys):
    photos(tmp_path, 10)
    (tmp_path / "a.jxl").write_bytes(b"\xff\x0a")
    with caplog.at_level(logging.INFO, "selftaught"):
        open_samples(tmp_path, backbone("test_resnet", size=32))
    assert "1 .jxl" in caplog.text
    words = "--backbone test_resnet --size 32 --batch 8 --epochs 1 --hidden 16 --dim 8 --workers 0"
    command = ["pretrain", "simclr", str(tmp_path), "--out", str(tmp_path / "run"), *words.split()]
    assert main([*command, "--dry-run"]) == 0
    assert "1 .jxl; .jxl: JPEG XL" in capsys.readouterr().err
    assert main(command) == 0
    said = capsys.readouterr().err
    assert said.index("1 .jxl; .jxl: JPEG XL") < said.index("step 1/1")


def test_the_sentence_has_counts_alone():
    left = Skipped(ignored={".heic": 2, "": 1, ".csv": 5})
    assert left.sentence() == "2 .heic, 5 .csv, 1 without extension"
    assert not Skipped(ignored={".csv": 5}).matters
