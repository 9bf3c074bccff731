"""Labels keep their names wherever they come from, and meet by them; what is none is told."""

import io
import json
import tarfile
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from selftaught import evaluate
from selftaught.backbones import Image as Backbone
from selftaught.data import open_data
from selftaught.data.folders import parts_of
from selftaught.data.labels import encode, match
from selftaught.engine.classes import agreed, keep
from selftaught.errors import UserError
from selftaught.evaluate import classifiers
from selftaught.evaluate.comparing import fingerprints, labeled

BLACK = np.zeros((8, 8, 3), np.uint8)


def draw(folder: Path, *names: str) -> Path:
    for i, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(BLACK + i).save(path)
    return folder


def png(value: int) -> bytes:
    out = io.BytesIO()
    Image.fromarray(BLACK + value).save(out, "PNG")
    return out.getvalue()


def called(samples) -> list[str | None]:
    """The name of each sample's label."""
    labels, classes = samples.labels, samples.classes
    return [None if y < 0 else str(y) if classes is None else classes[y] for y in labels]


# what a label is -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("texts", "numbers", "names"),
    [
        (["5", "7", "5"], [5, 7, 5], None),
        (["-1", "1", "-1"], [0, 1, 0], ["-1", "1"]),
        (["-1", "0"], [0, 1], ["-1", "0"]),
        (["-1", "0", "1"], [-1, 0, 1], None),
        (["-1", "-1"], [-1, -1], None),
        (["-2", "-1", "10", "9"], [0, 1, 3, 2], ["-2", "-1", "9", "10"]),
        (["1.0", "0.0", "nan", ""], [1, 0, -1, -1], None),
        (["9" * 20, "3", "10"], [2, 0, 1], ["3", "10", "9" * 20]),
        (["9" * 5000, "3"], [1, 0], ["3", "9" * 5000]),
        (["1e30", "2", "2"], [0, 1, 1], ["1e30", "2"]),
        (["inf", "1", "-inf"], [2, 1, 0], ["-inf", "1", "inf"]),
        (["True", "False"], [1, 0], ["False", "True"]),
        (["NaN", "cat", "None"], [-1, 0, -1], ["cat"]),
        (["²", "1"], [1, 0], ["1", "²"]),
        (["70000", "1"], [1, 0], ["1", "70000"]),
    ],
)
def test_numbers_stay_names_are_numbered_and_what_is_none_is_none(texts, numbers, names):
    found, classes = encode(texts)
    assert found.tolist() == numbers
    assert classes == names


def test_what_counts_as_none_is_told_with_its_count_and_the_way_out(caplog):
    encode(["-1", "0", "1", "-1"], "some.csv")
    assert "2 of 4 labels of some.csv are -1 and count as none" in caplog.text
    assert "write it as a name" in caplog.text
    encode(["nan", "cat", "dog", "null"], "other.csv")
    assert "2 labels of other.csv read nan or null and count as none" in caplog.text
    encode(["01", "1", "2"], "third.csv")
    assert "01 and 1 of third.csv are one number" in caplog.text
    before = len(caplog.records)
    encode(["-1", "0", "1", "-1"], "some.csv")
    encode(["1.0", "1", "2"], "fourth.csv")
    assert len(caplog.records) == before


@pytest.mark.parametrize(
    ("ours", "theirs", "pairs", "otherwise"),
    [
        ({0: "a", 1: "b"}, {0: "b", 1: "a"}, {0: 1, 1: 0}, []),
        ({0: "1", 1: "2"}, {1: "1", 2: "2"}, {0: 1, 1: 2}, []),
        ({0: "01", 1: "10"}, {1: "1", 10: "10"}, {0: 1, 1: 10}, ["01 as 1"]),
        ({0: "01", 1: "1"}, {1: "1"}, {1: 1}, []),
        ({1: "1"}, {0: "01", 1: "001"}, {}, []),
        ({0: "cat"}, {0: "dog"}, {}, []),
        ({3: "a"}, {0: "a", 1: "a"}, {3: 0}, []),
        ({0: "Red_cup", 1: "b"}, {0: "b", 1: "red cup"}, {0: 1, 1: 0}, ["Red_cup as red cup"]),
        ({0: "cat "}, {0: "cat"}, {0: 0}, ["cat  as cat"]),
        ({0: "U\u0308bung"}, {0: "\u00dcBUNG"}, {0: 0}, ["U\u0308bung as \u00dcBUNG"]),
        ({0: "CAT"}, {0: "Cat", 1: "cat"}, {}, []),
        ({0: "Cat", 1: "cat"}, {0: "cat"}, {1: 0}, []),
        ({0: "-0.5", 1: "A-"}, {0: "0.5", 1: "A", 2: "A+"}, {}, []),
    ],
)
def test_labels_meet_by_name_and_else_by_number_or_spelling_where_one_alone_can_be_meant(
    ours, theirs, pairs, otherwise
):
    assert match(ours, theirs) == (pairs, otherwise)


@pytest.mark.parametrize(
    ("values", "kind", "names"),
    [
        ([1, -1, 1], pa.int64(), ["1", "-1", "1"]),
        ([0, 1, -1], pa.int32(), ["0", "1", None]),
        ([2**63 + 5, 1, None], pa.uint64(), [str(2**63 + 5), "1", None]),
        ([1e30, 1.0, float("nan")], pa.float64(), [str(int(1e30)), "1", None]),
        ([True, False, None], pa.bool_(), ["True", "False", None]),
        ([Decimal(10**22), Decimal(1), None], pa.decimal128(38), [str(10**22), "1", None]),
        (["nan", "a", None], pa.string(), [None, "a", None]),
    ],
)
def test_labels_of_parquet(tmp_path, values, kind, names):
    columns = {"image": [png(i) for i in range(3)], "label": pa.array(values, kind)}
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    assert called(open_data(tmp_path / "a.parquet")) == names


def test_fractions_are_labels_only_where_somebody_says_so(tmp_path):
    columns = {"image": [png(i) for i in range(3)], "label": [0.5, 1.0, 2.0]}
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    assert open_data(tmp_path / "a.parquet").labels is None
    assert called(open_data(tmp_path / "a.parquet", labels="label")) == ["0.5", "1", "2"]


def test_files_of_one_dataset_may_number_their_classes_otherwise(tmp_path):
    for file, names in (("a", ["x", "y"]), ("b", ["y", "x"])):
        table = pa.table({"image": [png(1), png(2)], "label": [0, 1]})
        about = json.dumps({"info": {"features": {"label": {"names": names}}}})
        pq.write_table(
            table.replace_schema_metadata({"huggingface": about}), tmp_path / f"{file}.parquet"
        )
    assert called(open_data(tmp_path)) == ["x", "y", "y", "x"]


def test_a_file_without_the_column_of_labels_has_none(tmp_path, caplog):
    pq.write_table(pa.table({"image": [png(1)], "label": [3]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"image": [png(1)]}), tmp_path / "b.parquet")
    assert called(open_data(tmp_path)) == ["3", None]
    assert "b.parquet has no labels in a column label" in caplog.text


def test_labels_of_objects_and_arrays(tmp_path):
    assert called(open_data([(BLACK, "cat"), (BLACK, "dog"), (BLACK, None)])) == [
        "cat",
        "dog",
        None,
    ]
    assert called(open_data([(BLACK, 10**30), (BLACK, np.int64(1))])) == [str(10**30), "1"]
    assert called(open_data([(BLACK, True), (BLACK, False)])) == ["True", "False"]
    np.savez(tmp_path / "a.npz", images=np.stack([BLACK] * 3), labels=np.array(["b", "a", "b"]))
    assert called(open_data(tmp_path / "a.npz")) == ["b", "a", "b"]


# where labels meet -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def numbered(tmp_path_factory):
    """Images of 11 kinds in folders 0 to 10, and a CSV of the same images and labels."""
    folder = tmp_path_factory.mktemp("numbered")
    rng = np.random.default_rng(0)
    rows = ["path,label"]
    for kind in range(11):
        color = rng.integers(0, 256, 3)
        for i in range(6):
            path = folder / "photos" / str(kind) / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = color + rng.normal(0, 25, (16, 16, 3))
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path)
            rows.append(f"photos/{kind}/{i}.png,{kind}")
    (folder / "list.csv").write_text("\n".join(rows))
    (folder / "words.csv").write_text("\n".join([*rows, "photos/0/0.png,odd"]))
    return folder


def scored(folder: Path, train: str, test: str) -> dict[str, float]:
    torch.manual_seed(0)
    encoder = Backbone("test_resnet", 32)
    probes = ["knn", "ridge", "linear", "lowshot", "retrieval", "cluster", "robustness"]
    found = evaluate.compare(
        encoder, str(folder / train), str(folder / test), probes=probes, altered=8, workers=0
    )
    return {s.name: s.value for s in found.scores["this encoder"]}


def test_two_numberings_of_the_same_labels_score_alike(numbered, monkeypatch):
    monkeypatch.setattr(classifiers, "STEPS", 200)
    right = scored(numbered, "list.csv", "list.csv")
    assert right["k-NN"] > 80
    fixed = ("k-NN", "probe", "retrieval mAP", "recall@1", "recall@5", "cluster NMI")
    for train, test in (("photos", "list.csv"), ("list.csv", "photos"), ("photos", "photos")):
        found = scored(numbered, train, test)
        assert {name: found[name] for name in fixed} == {name: right[name] for name in fixed}
        assert found.keys() == right.keys()
        # what is drawn at random depends on the order of classes, but is far from chance
        assert min(found[name] for name in ("linear", "logistic", "5 a class")) > 80


def test_one_text_among_the_labels_costs_that_one_image_alone(numbered, caplog):
    clean = evaluate.embed(Backbone("test_resnet", 32), numbered / "list.csv", workers=0)
    words = open_data(numbered / "words.csv")
    test = evaluate.Embeddings(
        np.concatenate([clean.features, clean.features[:1]]),
        words.labels,
        classes=tuple(words.classes),
    )
    score = evaluate.knn(clean, test, k=3)
    assert score.correct[:-1].tolist() == evaluate.knn(clean, clean, k=3).correct.tolist()
    assert not score.correct[-1]
    assert "1 test samples of classes without training count as wrong (odd)" in score.protocol
    labeled([open_data(numbered / "list.csv"), words])
    assert "1 of 67 test images are of 1 classes that no training image is of (odd)" in caplog.text


def test_padded_numbers_are_the_same_numbers_and_that_is_told(tmp_path, caplog):
    draw(tmp_path, *(f"{kind}/{i}.png" for kind in ("01", "02", "10") for i in range(2)))
    rows = [f"{kind:02}/{i}.png,{kind}" for kind in (1, 2, 10) for i in range(2)]
    (tmp_path / "l.csv").write_text("\n".join(["path,label", *rows]))
    folders, numbers = open_data(tmp_path), open_data(tmp_path / "l.csv")
    labeled([folders, numbers])
    assert "taken by their number or spelling: 1 as 01, 2 as 02" in caplog.text
    x = np.repeat(np.eye(3, 4, dtype=np.float32), 2, 0)
    a = evaluate.Embeddings(x, folders.labels, classes=tuple(folders.classes))
    score = evaluate.knn(a, evaluate.Embeddings(x, numbers.labels), k=1)
    assert score.value == 100
    assert "1 as 01, 2 as 02" in score.protocol


def test_classes_that_do_not_meet_are_refused_with_both_names(numbered):
    other = open_data([(BLACK, "x"), (BLACK, "y")])
    with pytest.raises(UserError, match=r"test images \(x, y\) .* images \(0, 1, 2"):
        labeled([open_data(numbered / "list.csv"), other])


def test_arrays_may_have_names_for_labels():
    x = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)
    y = np.arange(20) % 2
    x[:, 0] += 9 * y
    names = np.array(["no", "yes"])[y]
    assert evaluate.knn((x, names), (x, names)).value == 100
    assert evaluate.knn((x, 2 * y - 1), (x, 2 * y - 1)).n == 20


def test_what_is_scored_has_a_fingerprint_of_images_and_names(numbered):
    both = fingerprints([open_data(numbered / "photos"), open_data(numbered / "photos")])
    assert both["train"] == both["test"]
    plain, words = (open_data(numbered / f"{name}.csv") for name in ("list", "words"))
    assert len(set(fingerprints([plain, words]).values())) == 2
    one = open_data([(BLACK, "a"), (BLACK, "b")])
    two = open_data([(BLACK, "b"), (BLACK, "a")])
    assert fingerprints([one])["test"] != fingerprints([two])["test"]


def test_a_student_has_the_class_numbers_of_its_teacher(numbered, tmp_path, caplog):
    teacher = tmp_path / "teacher"
    teacher.mkdir()
    folders, numbers = open_data(numbered / "photos"), open_data(numbered / "list.csv")
    keep(teacher, folders)
    assert json.loads((teacher / "classes.json").read_text()) == folders.classes
    student = agreed(numbers, str(teacher), None)
    assert called(student) == called(numbers)
    assert student.labels.tolist() != numbers.labels.tolist()
    assert student.classes == folders.classes
    assert agreed(folders, teacher, None) is folders
    assert agreed(numbers, None, teacher).labels.tolist() == student.labels.tolist()
    strange = open_data([(BLACK, "3"), (BLACK, "x"), (BLACK, "10")])
    assert called(agreed(strange, teacher, None)) == ["3", None, "10"]
    assert f"that {teacher} does not know are left out: x" in caplog.text
    assert agreed(strange, None, teacher) is strange
    with pytest.raises(UserError, match=r"none of the classes of the images \(a, b\)"):
        agreed(open_data([(BLACK, "a"), (BLACK, "b")]), teacher, None)


# folders ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "names",
    [
        ("train", "test", "unlabeled"),
        ("train2017", "val2017"),
        ("train_images", "test_images"),
        ("Train", "Validation", "Extra"),
        ("train-set", "test-set"),
        ("TRAIN", "VAL"),
        ("trainA", "trainB", "testA", "testB"),
        ("stage1_train", "stage1_test"),
        ("DIV2K_train_HR", "DIV2K_valid_HR"),
        ("images", "masks"),
        ("train", "test", "misc"),
        ("part1", "part2"),
        ("Set1", "Set2", "Set3"),
        ("seg_train", "seg_pred"),
        ("rgb", "masks"),
        ("Images", "Ground_Truth"),
        ("leftImg8bit", "gtFine"),
        ("imagesTr", "labelsTr", "imagesTs"),
        ("train/cat", "train/dog", "val/cat", "val/dog"),
    ],
)
def test_parts_of_a_dataset_are_no_classes_and_that_is_told(tmp_path, names, caplog):
    samples = open_data(draw(tmp_path, *(f"{n}/{i}.png" for n in names for i in range(2))))
    assert samples.labels is None
    open_data(tmp_path)
    assert caplog.text.count("are parts of a dataset, not classes") == 1
    assert "--test" in caplog.text


@pytest.mark.parametrize(
    "names",
    [
        ("ant", "bee", "cat", "dog", "elk", "fox", "gnu", "hen", "ibis", "jay", "test"),
        ("train", "car"),
        ("train_station", "bus_station"),
        ("test_tube", "train_track"),
        ("testimony", "validity"),
        ("set", "table", "chair"),
        ("s1", "s2"),
        ("with_mask", "without_mask"),
        ("1", "2", "10"),
    ],
)
def test_classes_may_have_any_name(tmp_path, names):
    samples = open_data(draw(tmp_path, *(f"{n}/{i}.png" for n in names for i in range(2))))
    assert samples.classes == sorted(names)


def test_classes_that_differ_in_spelling_alone_are_told(tmp_path, caplog):
    draw(tmp_path, "Cat/1.png", "cat/2.png", "dog/3.png")
    assert open_data(tmp_path).classes == ["Cat", "cat", "dog"]
    assert "'Cat' and 'cat'" in caplog.text
    encode(["red cup", "red_cup", "A-", "A+", "0.5", "-0.5"], "some.csv")
    assert "'red cup' and 'red_cup' of some.csv are 2 classes" in caplog.text
    assert caplog.text.count("differ in spelling alone") == 2


def test_a_name_is_a_part_by_all_of_it():
    assert parts_of(["trains", "trainee", "my_val", "val_set2"]) == ["trains", "val_set2"]
    assert parts_of(["my_val", "my_train", "your_test"]) == ["my_val", "my_train"]


def test_folders_of_links_to_a_pool_are_classes(tmp_path, caplog):
    draw(tmp_path, *(f"pool/{i}.png" for i in range(5)))
    for i, name in enumerate(["cat", "dog", "cat", "dog"]):
        (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / name / f"{i}.png").symlink_to(f"../pool/{i}.png")
    (tmp_path / "dog" / "again.png").symlink_to("../pool/0.png")
    assert called(open_data(tmp_path)) == [None, "dog", "cat", "dog", None]
    assert "1 of the images in" in caplog.text


def test_links_to_folders_of_a_pool_are_classes(tmp_path):
    draw(tmp_path, "pool/a/0.png", "pool/b/0.png")
    (tmp_path / "cat").symlink_to("pool/a")
    (tmp_path / "dog").symlink_to("pool/b")
    (tmp_path / "loop").symlink_to(tmp_path)
    assert called(open_data(tmp_path)) == ["cat", "dog"]


def test_links_between_classes_change_none(tmp_path, caplog):
    draw(tmp_path, "cat/0.png", "dog/1.png")
    (tmp_path / "best").mkdir()
    (tmp_path / "best" / "0.png").symlink_to("../cat/0.png")
    assert called(open_data(tmp_path)) == ["cat", "dog"]
    assert "their class is the folder that they lie in" in caplog.text


def test_an_image_elsewhere_that_two_classes_link_to_is_of_none(tmp_path, caplog):
    pool, data = draw(tmp_path / "pool", "0.png", "1.png", "2.png"), tmp_path / "data"
    for name, i in (("cat", 0), ("cat", 1), ("dog", 2), ("dog", 0)):
        (data / name).mkdir(parents=True, exist_ok=True)
        (data / name / f"{i}.png").symlink_to(pool / f"{i}.png")
    assert called(open_data(data)) == [None, "cat", "dog"]
    assert "linked from several classes" in caplog.text


# lists -----------------------------------------------------------------------------------------

FOUR = ["0.png", "1.png", "0.png", "1.png"]


@pytest.mark.parametrize(
    ("head", "delimiter"),
    [
        ("img_path,dx", ","),
        ("image_id,label", ","),
        ("ImagePath,Finding", ","),
        ("path;label", ";"),
        ("slide;grade", ";"),
        ("Bild\tArt", "\t"),
        ("a|b", "|"),
        ("", ","),
        ("\ufeffpath,label", ","),
        ("sep=;\npath;label", ";"),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-16-le", "utf-16-be"])
def test_a_line_of_names_is_never_an_image(tmp_path, head, delimiter, encoding):
    draw(tmp_path, *(f"{i}.png" for i in range(6)))
    rows = [f"{i}.png{delimiter}{'uv'[i % 2]}" for i in range(6)]
    (tmp_path / "l.csv").write_bytes("\r\n".join([head, *rows]).lstrip().encode(encoding))
    samples = open_data(tmp_path / "l.csv")
    assert [samples.name(i) for i in range(6)] == [f"{i}.png" for i in range(6)]
    assert called(samples) == list("uvuvuv")


@pytest.mark.parametrize("cell", ["ISIC_{}", "sub/ISIC_{}", "ISIC_{}.jpg", r"D:\x\ISIC_{}.jpg"])
def test_ids_and_paths_of_another_machine_are_found_by_name(tmp_path, cell):
    draw(tmp_path, *(f"images/sub/ISIC_{i}.jpg" for i in range(4)))
    rows = [f"{cell.format(i)},x,{'mel' if i % 2 else 'nv'}" for i in range(4)]
    (tmp_path / "l.csv").write_text("\n".join(["isic_id,site,dx", *rows]))
    samples = open_data(tmp_path / "l.csv")
    assert [samples.name(i) for i in range(4)] == [f"images/sub/ISIC_{i}.jpg" for i in range(4)]
    assert called(samples) == ["nv", "mel"] * 2
    again = open_data(tmp_path / "images", labels=str(tmp_path / "l.csv"))
    assert called(again) == ["nv", "mel"] * 2


def test_labels_that_are_names_of_files_too_are_no_paths(tmp_path):
    draw(tmp_path, "1.png", "2.png", "3.png")
    (tmp_path / "l.csv").write_text("img,grade\ngone1.png,1\ngone2.png,2\n")
    with pytest.raises(UserError, match=r"none of the 2 files .* columns are img, grade"):
        open_data(tmp_path / "l.csv")
    (tmp_path / "l.csv").write_text("id,level\n3,1\n1,2\n2,1\n")
    samples = open_data(tmp_path / "l.csv")
    assert [samples.name(i) for i in range(3)] == ["3.png", "1.png", "2.png"]


def test_slashes_of_windows(tmp_path):
    draw(tmp_path, "sub/0.png", "sub/1.png")
    (tmp_path / "l.csv").write_text("path,label\nsub\\0.png,a\nsub\\1.png,b\n")
    samples = open_data(tmp_path / "l.csv")
    assert [samples.name(i) for i in range(2)] == ["sub/0.png", "sub/1.png"]
    assert (samples.read(1) == 1).all()


@pytest.mark.parametrize("separator", [" ", "\t", ",", "  "])
def test_lines_of_path_and_label(tmp_path, separator):
    draw(tmp_path, "a b.png", "c d.png")
    (tmp_path / "l.txt").write_text(f"a b.png{separator}3\nc d.png{separator}5\n")
    samples = open_data(tmp_path / "l.txt")
    assert [samples.name(i) for i in range(2)] == ["a b.png", "c d.png"]
    assert samples.labels.tolist() == [3, 5]
    (tmp_path / "l.txt").write_text("a b.png\nc d.png\n")
    assert open_data(tmp_path / "l.txt").labels is None


def test_json_lines(tmp_path):
    draw(tmp_path, "0.png", "1.png")
    lines = [{"file_name": f"{i}.png", "label": [10**30, None][i]} for i in range(2)]
    (tmp_path / "l.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert called(open_data(tmp_path / "l.jsonl")) == [str(10**30), None]
    (tmp_path / "l.jsonl").write_text('{"file_name": "0.png"}\nno\n')
    with pytest.raises(UserError, match=r"line 2 of .* is no JSON"):
        open_data(tmp_path / "l.jsonl")


def test_columns_can_be_named(tmp_path, caplog):
    draw(tmp_path, *(f"{kind}{i}.png" for kind in "xy" for i in range(3)))
    rows = [f"x{i}.png,y{i}.png,k{i}" for i in range(3)]
    (tmp_path / "l.csv").write_text("\n".join(["first,second,kind", *rows]))
    assert open_data(tmp_path / "l.csv").name(0) == "x0.png"
    assert "the columns first, second" in caplog.text
    samples = open_data(tmp_path / "l.csv", path_column="Second", labels="kind")
    assert samples.name(0) == "y0.png"
    assert called(samples) == ["k0", "k1", "k2"]
    with pytest.raises(UserError, match="no column third; it has first, second, kind"):
        open_data(tmp_path / "l.csv", path_column="third")


def test_an_image_with_two_labels_has_none(tmp_path, caplog):
    draw(tmp_path, "0.png", "1.png")
    (tmp_path / "l.csv").write_text("path,label\n0.png,a\n1.png,b\n0.png,b\n")
    assert called(open_data(tmp_path, labels="l.csv")) == [None, "b"]
    assert "1 of the images have more than one label" in caplog.text


@pytest.mark.parametrize("head", ["file,defect", "image,age", "filename;Fehlerart", "path,value"])
def test_a_list_beside_a_folder_has_labels_whatever_its_columns_are_called(tmp_path, head):
    draw(tmp_path, "0.png", "1.png")
    by = ";" if ";" in head else ","
    (tmp_path / "l.csv").write_text(f"{head}\n0.png{by}a\n1.png{by}b\n", "utf-8-sig")
    assert called(open_data(tmp_path, labels="l.csv")) == ["a", "b"]


def test_of_more_columns_one_must_be_known_to_hold_labels(tmp_path):
    draw(tmp_path, "0.png")
    (tmp_path / "l.csv").write_text("file,width,defect\n0.png,5,a\n")
    with pytest.raises(
        UserError, match=r"\(file, width, defect\): call it label in its first line"
    ):
        open_data(tmp_path, labels="l.csv")


def test_tables_and_archives_tell_which_columns_might_hold_labels(tmp_path, caplog):
    caplog.set_level("INFO")
    table = pa.table({"image": [png(0), png(1)], "kind": ["a", "b"]})
    pq.write_table(table, tmp_path / "a.parquet")
    assert open_data(tmp_path / "a.parquet").labels is None
    assert "a.parquet is known to hold labels (kind): --labels names one" in caplog.text
    np.savez(tmp_path / "b.npz", images=np.stack([BLACK] * 2), kind=np.array(["a", "b"]))
    assert open_data(tmp_path / "b.npz").labels is None
    assert "b.npz is known to hold labels (kind): --labels names one" in caplog.text


def test_rows_that_name_no_image_of_the_folder_are_counted(tmp_path, caplog):
    caplog.set_level("INFO")
    draw(tmp_path, "0.png", "1.png")
    (tmp_path / "l.csv").write_text("path,label\n0.png,a\n7.png,b\n1.png,b\n8.png,b\n")
    assert called(open_data(tmp_path, labels="l.csv")) == ["a", "b"]
    assert f"2 of 4 rows of {tmp_path / 'l.csv'} name no image of {tmp_path}, the first 7.png" in (
        caplog.text
    )


def test_a_column_of_the_training_data_is_none_of_test_folders(tmp_path, caplog):
    draw(tmp_path, "cat/0.png", "dog/1.png")
    assert open_data(tmp_path, labels="dx").classes == ["cat", "dog"]
    assert "so dx is none of it" in caplog.text


# shards ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("members", "names"),
    [
        (["img v1.0.png", "img v1.0.cls=3", "img v1.1.png", "img v1.1.cls=4"], ["3", "4"]),
        (["d/a.v2.png", "d/a.v2.cls=x", "d/b.png", "d/b.cls=y"], ["x", "y"]),
        (["a.0.png", "a.cls=3", "b.png", "b.cls=4"], ["3", "4"]),
        (["b.0.png", "b.1.png", "b.cls=4", "c.png", "c.cls=5"], [None, None, "5"]),
        (["a.png", "a.cls=-1", "b.png", "b.cls=1"], ["-1", "1"]),
    ],
)
def test_labels_beside_names_with_dots(tmp_path, members, names):
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for i, member in enumerate(members):
            name, _, label = member.partition("=")
            data = label.encode() or png(i)
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    assert called(open_data(tmp_path / "a.tar")) == names
