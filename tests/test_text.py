"""Texts: what is read, how it is cut into tokens, what is told of it, and what leaves."""

import gzip
import json
import pickle

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch.utils.data import default_collate

from selftaught import kinds
from selftaught.augment import sample_rng
from selftaught.augment.text.windows import Start, Tokenized, beginning, framed, stretch, window
from selftaught.backbones import is_encoder
from selftaught.backbones.text.encoder import Text
from selftaught.data.source import BadSample
from selftaught.data.text import tokenizer as tokenizers
from selftaught.data.text.coding import as_text
from selftaught.data.text.opening import open_texts
from selftaught.errors import UserError
from selftaught.export import text as exported
from selftaught.kinds.floors import text as floors
from selftaught.method import Batch
from selftaught.methods.masked.bert import BERT
from selftaught.methods.predictive.causal_lm import CausalLM
from selftaught.report import html

ANIMALS = ("cat", "dog", "bird", "horse")
SENTENCES = [f"The {a} {v} in the {p}, again." for a in ANIMALS for v in ("sat", "ran")
             for p in ("garden", "house", "field")]  # fmt: skip


def texts_of(source) -> list[str]:
    return [as_text(source.load(i)) for i in range(len(source))]


def names_of(source) -> list[str]:
    return [source.name(i) for i in range(len(source))]


@pytest.fixture(scope="module")
def tokenizer():
    return tokenizers.train(SENTENCES, words=300)


# ------------------------------------------------------------------------------------------ lines


@pytest.mark.parametrize(
    ("content", "texts", "names"),
    [
        (b"one\n\n  two \n \nthree", ["one", "two", "three"], [1, 3, 5]),
        (b"\xef\xbb\xbfone\r\n\r\ntwo\r\n", ["one", "two"], [1, 3]),
        (b"one\rtwo\r", ["one", "two"], [1, 2]),
        (
            "\u00e4rger\u2028hier\n\u4e2d\u6587".encode(),
            ["\u00e4rger\u2028hier", "\u4e2d\u6587"],
            [1, 2],
        ),
        ("one\ntwo \u00e9\n".encode("utf-16"), ["one", "two \u00e9"], [1, 2]),
        ("one\ntwo\n".encode("utf-16-be"), ["one", "two"], [1, 2]),
        (b"a" * 3_000_000, ["a" * 3_000_000], [1]),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_lines_of_a_file(tmp_path, content, texts, names, packed):
    path = tmp_path / ("corpus.txt.gz" if packed else "corpus.txt")
    path.write_bytes(gzip.compress(content) if packed else content)
    source = open_texts(path)
    assert texts_of(source) == texts
    assert names_of(source) == [f"{path.name}:{n}" for n in names]
    assert source.labels is None
    again = pickle.loads(pickle.dumps(source))
    assert again.fingerprint() == source.fingerprint()
    assert texts_of(again) == texts


def test_empty_lines_are_counted_and_no_reason_to_worry(tmp_path):
    path = tmp_path / "corpus.txt"
    path.write_text("one\n\n\ntwo\n")
    assert open_texts(path).skipped.sentence() == "2 empty lines"
    assert not open_texts(path).skipped.matters


def test_a_letter_that_changes_changes_the_fingerprint(tmp_path):
    path = tmp_path / "corpus.txt"
    seen = set()
    for content in ("one\ntwo", "one\ntwa", "onet\nwo", "one\n\ntwo"):
        path.write_text(content)
        seen.add(open_texts(path).fingerprint())
    assert len(seen) == 3  # of the last one the texts are alike


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"gut\nm\xfcde\n", r"is not UTF-8 \(0xfc at byte 1\): save"),
        (b"x" * 600 + b"\nno\0ne", "holds NUL characters"),
        (b"good\n\xf0\x9f\x98\n", "is not UTF-8"),
    ],
)
def test_a_line_that_is_no_text_is_one_bad_sample(tmp_path, content, reason):
    path = tmp_path / "corpus.txt"
    path.write_bytes(content)
    source = open_texts(path)
    assert as_text(source.load(0))
    with pytest.raises(BadSample, match=reason):
        as_text(source.load(1))


def test_half_a_character_of_json_is_one_bad_sample(tmp_path):
    path = tmp_path / "corpus.jsonl"
    path.write_text('{"text": "\\ud83d"}\n{"text": "good"}\n')
    source = open_texts(path)
    with pytest.raises(BadSample, match="is not UTF-8"):
        as_text(source.load(0))
    assert as_text(source.load(1)) == "good"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"", "holds no texts"),
        ("a.txt", b"\n \n\t\r\n", "holds no texts; left out: 3 empty lines"),
        ("a.txt", b"\x7fELF\x02\x01\0\0\x03", "a.txt is no text: byte 6 is 0"),
        ("a.txt.gz", gzip.compress(b"one\ntwo\n" * 999, mtime=0)[:-20], "is damaged or was cut"),
        ("a.txt.gz", b"one\n", "is damaged or was cut"),
        ("a.txt.xz", b"one\n", "is damaged or was cut"),
        ("a.txt", "one".encode("utf-16")[:-1], "looks like UTF-16 and is damaged"),
        ("a.txt", b"b/one.jpg\nc/two.PNG\n", r"lists pictures \(b/one.jpg\), and texts are needed"),
        ("a.jpg", b"\xff\xd8", "holds no texts that can be read: needed is .txt"),
        ("a.jsonl", b'{"text": "a"}\n[1]\n', "line 2 of .* must be an object"),
        ("a.jsonl", b'{"text": "a"}\n{"text"\n', "line 2 of .* is no JSON"),
        ("a.jsonl", b'{"one": "a", "two": "b"}\n', "has the fields one, two: name .* --column"),
        ("a.csv", b"label\na\nb\n", r"has labels alone \(label\): a column of texts is needed"),
        ("a.csv", b"", "holds no texts"),
        ("a.parquet", b"PAR1", "is not a Parquet file that can be read"),
    ],
)
def test_what_cannot_be_read_is_refused_with_a_reason(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        open_texts(tmp_path / name)


def test_what_is_not_there(tmp_path):
    (tmp_path / "corpus.txt").write_text("one")
    with pytest.raises(UserError, match=r"did you mean .*corpus\.txt"):
        open_texts(tmp_path / "corpsu.txt")
    with pytest.raises(UserError, match="labels=y is none"):
        open_texts(tmp_path / "corpus.txt", labels="y")
    with pytest.raises(UserError, match="pass list"):
        open_texts(iter(["one"]))
    with pytest.raises(UserError, match="a int holds no texts"):
        open_texts(3)


# ----------------------------------------------------------------------------------------- tables

ROWS = [("I like it, a lot", "pos"), ('He said "no"', "neg"), ("two\nlines", "pos")]


@pytest.mark.parametrize("header", ["text,label", "Sentence,label", "id,review,Label", None])
def test_rows_of_a_csv(tmp_path, header):
    path = tmp_path / "reviews.csv"
    quoted = ['"' + text.replace('"', '""') + '"' for text, _ in ROWS]
    lines = [f"{q},{label}" for q, (_, label) in zip(quoted, ROWS)]
    if header and header.startswith("id"):
        lines = [f"{i},{line}" for i, line in enumerate(lines)]
    path.write_text("\n".join([*([header] if header else []), *lines]))
    source = open_texts(path)
    assert texts_of(source) == [text for text, _ in ROWS]
    assert source.classes == ["neg", "pos"]
    assert source.labels.tolist() == [1, 0, 1]
    assert source.name(1) == "reviews.csv::1"


def test_quotes_of_a_tsv_are_letters_where_they_would_swallow_lines(tmp_path):
    path = tmp_path / "reviews.tsv"
    path.write_text('"good" film\t1\n"a bad one\t0\nso "so\t0\n' * 3)
    source = open_texts(path)
    assert texts_of(source)[:3] == ['"good" film', '"a bad one', 'so "so']
    assert source.labels.tolist() == [1, 0, 0] * 3
    path.write_text('text\tlabel\n"He ""ran"""\t1\nno\t0\n')
    assert texts_of(open_texts(path)) == ['He "ran"', "no"]


def test_quotes_of_a_csv_enclose_lines_that_alone_have_as_many_cells(tmp_path):
    path = tmp_path / "reviews.csv"
    rows = [f'"good, ""so good""\nline {i}",pos\nbad {i},neg\n' for i in range(40)]
    path.write_text("text,label\n" + "".join(rows), encoding="utf-8-sig")
    source = open_texts(path)
    assert texts_of(source)[:2] == ['good, "so good"\nline 0', "bad 0"]
    assert (len(source), source.classes) == (80, ["neg", "pos"])
    path.write_text('text,label\n"good film,1\na "bad" one,0\nso "so,0\n')
    assert texts_of(open_texts(path)) == ['"good film', 'a "bad" one', 'so "so']


def test_one_column_whose_texts_have_commas(tmp_path):
    path = tmp_path / "reviews.csv"
    path.write_text("text\nwell, yes\nno\nand, so, on\n")
    assert texts_of(open_texts(path)) == ["well, yes", "no", "and, so, on"]


def test_columns_without_names_the_longest_is_the_text_and_what_repeats_the_label(tmp_path):
    path = tmp_path / "news.csv"
    lines = [f'"{1 + i % 2}","Title {i}","A long line of news, number {i}"' for i in range(8)]
    path.write_text("\n".join(lines))
    source = open_texts(path)
    assert source.load(3) == b"A long line of news, number 3"
    assert source.labels.tolist() == [1, 2] * 4


def test_a_field_of_any_length_and_columns_by_name(tmp_path):
    path = tmp_path / "long.csv"
    path.write_text(f"body,kind\n{'word ' * 60_000},a\nshort,b\n")
    source = open_texts(path, column="body", labels="Kind")
    assert len(source.load(0)) == 5 * 60_000 - 1
    assert source.classes == ["a", "b"]
    with pytest.raises(UserError, match="has no column bodi; it has body, kind"):
        open_texts(path, column="bodi")


def write(path, table: pa.Table):
    if path.suffix == ".parquet":
        pq.write_table(table, path)
    elif path.suffix == ".arrow":
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as out:
            out.write_table(table)
    else:
        path.write_text("\n".join(json.dumps(row) for row in table.to_pylist()))
    return path


@pytest.mark.parametrize("ending", [".parquet", ".arrow", ".jsonl"])
def test_columns_of_tables_and_lines_of_json(tmp_path, ending):
    rows = {"id": [7, 8, 9, 10], "text": ["one", None, " ", "four"], "label": ["a", "a", "b", "b"]}
    path = write(tmp_path / f"a{ending}", pa.table(rows))
    source = open_texts(path)
    assert texts_of(source) == ["one", "four"]
    assert names_of(source) == [f"{path.name}::0", f"{path.name}::3"]
    assert source.labels.tolist() == [0, 1]
    assert source.skipped.empty == 2
    folder = tmp_path / "inside"
    folder.mkdir()
    for name in ("a", "b"):
        write(folder / f"{name}{ending}", pa.table(rows))
    both = open_texts(folder)
    assert names_of(both) == [f"{n}{ending}::{k}" for n in ("a", "b") for k in (0, 3)]
    assert both.labels.tolist() == [0, 1, 0, 1]


def test_columns_of_a_table_that_are_not_clear(tmp_path):
    path = write(tmp_path / "a.parquet", pa.table({"one": ["a"], "two": ["b"]}))
    with pytest.raises(UserError, match="several columns of texts, name one with --column"):
        open_texts(path)
    assert texts_of(open_texts(path, column="two", labels="one")) == ["b"]
    path = write(tmp_path / "b.parquet", pa.table({"one": [1]}))
    with pytest.raises(UserError, match="has no column of texts; its columns are one"):
        open_texts(path)


def test_a_folder_of_files_is_a_text_each_and_its_folders_are_classes(tmp_path):
    for kind in ("pos", "neg"):
        (tmp_path / kind).mkdir()
        for i in range(3):
            (tmp_path / kind / f"{i}.txt").write_text(f"\ufeff{kind} line\nline {i}\n")
    (tmp_path / "notes.md").write_text("no text of the data")
    source = open_texts(tmp_path)
    assert texts_of(source)[0] == "neg line\nline 0"
    assert source.classes == ["neg", "pos"]
    assert source.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert source.skipped.ignored == {".md": 1}
    (tmp_path / "list.txt").write_text("pos/0.txt\nneg/1.txt\n")
    assert texts_of(open_texts(tmp_path / "list.txt")) == ["pos line\nline 0", "neg line\nline 1"]


def test_lists_in_python(tmp_path):
    assert texts_of(open_texts(["one", " ", "two"])) == ["one", "two"]
    pairs = open_texts([("one", "a"), ("two", "b")])
    assert (pairs.labels.tolist(), pairs.classes) == ([0, 1], ["a", "b"])
    path = tmp_path / "a.txt"
    path.write_text("one\ntwo")
    assert texts_of(open_texts([path])) == texts_of(open_texts([str(path)])) == ["one\ntwo"]
    mixed = open_texts(["one", 3, None])
    assert texts_of(mixed) == ["one"]
    assert mixed.skipped.matters


# ------------------------------------------------------------------------------------------ tokens


def test_a_tokenizer_is_alike_for_the_same_texts_and_reads_any_text(tokenizer, tmp_path):
    assert tokenizers.train(iter(SENTENCES), words=300).hash == tokenizer.hash
    assert tokenizers.train(SENTENCES[1:], words=300).hash != tokenizer.hash
    assert tokenizers.train(SENTENCES, words=300, lower=False).hash != tokenizer.hash
    assert tokenizer.vocabulary.words == 300
    for text in ("the cat ran", "\u4e2d\u6587 \U0001f600\t\x07", "[MASK] and [CLS]"):
        ids = tokenizer.encode(text).ids
        assert ids.min() > tokenizer.vocabulary.mask  # none is special
        assert tokenizer.decode(ids).strip() == text.lower()
    tokenizer.save(tmp_path)
    assert tokenizers.read(tmp_path) == tokenizers.read(tmp_path / "tokenizer.json") == tokenizer
    assert pickle.loads(pickle.dumps(tokenizer)) == tokenizer


def test_which_tokens_continue_a_word(tokenizer):
    tokens = tokenizer.encode("zyx, garden")
    pieces = [tokenizer.decode([i]) for i in tokens.ids]
    assert [p for p, c in zip(pieces, tokens.continues) if not c] == [" ", ",", " garden"]


def test_special_tokens_that_a_tokenizer_lacks_are_added():
    from tokenizers import Tokenizer, models, pre_tokenizers

    made = Tokenizer(models.WordLevel({"a": 0, "<s>": 1, "</s>": 2, "<unk>": 3}, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.enable_padding(length=9)
    known = tokenizers.Tokenizer(made.to_str())
    assert known.vocabulary == (6, 4, 1, 2, 5)
    assert known.encode("a a").ids.tolist() == [0, 0]
    assert tokenizers.Tokenizer(known.text) == known


def test_tokenizers_that_cannot_be_had(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="words=99 is less than the 256 bytes"):
        tokenizers.train(SENTENCES, words=99)
    with pytest.raises(UserError, match=r"cannot be read .*as AutoTokenizer's save_pretrained"):
        tokenizers.read(tmp_path)
    (tmp_path / "tokenizer.json").write_text('{"a": 1}')
    with pytest.raises(UserError, match=r"tokenizer\.json: this is no tokenizer\.json"):
        tokenizers.read(tmp_path)
    monkeypatch.setitem(__import__("sys").modules, "tokenizers", None)
    with pytest.raises(UserError, match=r'pip install "selftaught\[hf\]"'):
        tokenizers.train(SENTENCES)


def test_windows_and_beginnings(tokenizer):
    long = " ".join(SENTENCES)
    rng = np.random.default_rng(0)
    whole = tokenizer.encode(long)
    assert beginning(tokenizer, long, 50).tolist() == whole.ids[:50].tolist()
    assert (
        beginning(tokenizer, "x" * 5000, 50).tolist()
        == tokenizer.encode("x" * 5000).ids[:50].tolist()
    )
    for _ in range(20):
        part = stretch(long, 60, rng)
        assert f" {part} " in f" {long} "
        assert len(window(whole, 16, rng).ids) == 14
    assert len(stretch("x" * 5000, 60, rng)) == 60
    assert stretch("short", 60, rng) == "short"
    view = Start(tokenizer, 8)("the cat", None)
    known = tokenizer.vocabulary
    assert view.tolist()[0] == known.start
    assert view.tolist().count(known.end) == 1
    assert (view[view.tolist().index(known.end) + 1 :] == known.pad).all()
    assert framed(np.arange(9), known, 5).tolist() == [known.start, 0, 1, 2, known.end]


# ---------------------------------------------------------------------------- encoders and methods


@pytest.fixture(scope="module", params=["bert_tiny", "gpt_tiny"])
def encoder(request):
    torch.manual_seed(0)
    return Text(request.param, size=16, words=300, dropout=0.1).eval()


def test_an_encoder_of_texts_is_one_and_what_fills_up_changes_nothing(encoder):
    assert is_encoder(encoder)
    ids = torch.randint(5, 300, (2, 16))
    ids[0, 7:] = 0
    pooled, local, grid = encoder.features(ids)
    assert (*local.shape, *grid) == (2, 16, encoder.dim, 16, 1)
    alone = encoder.features(ids[:1, :7])
    torch.testing.assert_close(pooled[:1], alone.pooled)
    torch.testing.assert_close(pooled[1], local[1].mean(0))
    ids[1, 10] += 1 if ids[1, 10] < 299 else -1
    changed = (encoder.features(ids).local[1] != local[1]).any(1)
    assert changed[10:].all()
    assert changed[:10].any() != encoder.causal
    again = Text(**encoder.config)
    again.load_state_dict(encoder.state_dict())
    with pytest.raises(UserError, match="17 tokens are more than the 16"):
        encoder(torch.ones(1, 17, dtype=torch.int64))


def test_networks_that_do_not_fit_a_method():
    with pytest.raises(UserError, match="gpt_tiny is none: use bert_tiny"):
        BERT(Text("gpt_tiny", size=8, words=300))
    with pytest.raises(UserError, match="use gpt_tiny"):
        CausalLM(Text("bert_tiny", size=8, words=300))
    with pytest.raises(UserError, match="pad=300 must be one of the 300 words"):
        Text(words=300, pad=300)


def batch(method, tokenizer, texts, size=16) -> Batch:
    pipeline = Tokenized(tokenizer, method.views(size), size)
    views = [pipeline(text, sample_rng(0, 0, i)) for i, text in enumerate(texts)]
    return Batch(default_collate(views), torch.arange(len(texts)))


def test_bert_hides_an_exact_number_of_tokens_and_asks_for_what_they_were(tokenizer):
    method = BERT(Text("bert_tiny", size=16, words=300, dropout=0.0), ratio=0.3)
    ids, positions, labels = batch(method, tokenizer, [*SENTENCES, "a"]).views
    true = torch.from_numpy(np.stack([Start(tokenizer, 16)(t) for t in [*SENTENCES, "a"]]))
    count = (true != 0).sum(1)
    assert ((positions >= 0).sum(1) == (count * 0.3).round().clamp(min=1)).all()
    for row, (where, what) in enumerate(zip(positions, labels)):
        assert (true[row][where[where >= 0]] == what[where >= 0]).all()
        others = np.setdiff1d(np.arange(16), where)
        assert (ids[row][others] == true[row][others]).all()
    assert (ids == tokenizer.vocabulary.mask).sum() > 0.6 * (positions >= 0).sum()


def test_whole_words_are_hidden_together(tokenizer):
    method = BERT(Text("bert_tiny", size=64, words=300), ratio=0.5, whole_words=True)
    text = "unbelievable zebras everywhere quick brown foxes"
    continues = np.pad(tokenizer.encode(text).continues, 1)
    for i in range(9):
        _, positions, _ = Tokenized(tokenizer, method.views(64), 64)(text, sample_rng(0, 0, i))
        hidden = np.zeros(64, bool)
        hidden[positions[positions >= 0]] = True
        for k in np.flatnonzero(continues):
            assert hidden[k] == hidden[k - 1]


@pytest.mark.parametrize(("make", "net"), [(BERT, "bert_tiny"), (CausalLM, "gpt_tiny")])
def test_a_method_learns_a_text_by_heart(tokenizer, make, net):
    torch.manual_seed(0)
    method = make(Text(net, size=16, words=300, dropout=0.0))
    given = batch(method, tokenizer, SENTENCES[:8])
    optimizer = torch.optim.AdamW(method.parameters(), 3e-3)
    losses = []
    for _ in range(40):
        optimizer.zero_grad()
        loss = method.loss(given)
        loss.backward()
        assert all(p.grad is not None for n, p in method.named_parameters())
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(np.log(300), rel=0.1)
    assert losses[-1] < 1.0


def test_causal_lm_asks_for_each_token_but_the_first(tokenizer):
    method = CausalLM(Text("gpt_tiny", size=8, words=300, dropout=0.0)).eval()
    given = batch(method, tokenizer, ["the cat", SENTENCES[0]], size=8)
    each = []
    for row in given.views:
        ids = row[row != 0]
        logits = method.backbone.tokens(ids[None])[0] @ method.backbone.table.T
        each.append(torch.nn.functional.cross_entropy(logits[:-1], ids[1:], reduction="none"))
    torch.testing.assert_close(method.loss(given), torch.cat(each).mean())


def test_what_a_method_says_is_shown_in_its_place(tokenizer):
    kind = kinds.made({"kind": "text"}).cutting(tokenizer)
    text = SENTENCES[0].lower()
    for method in (
        BERT(kind.build(name="bert_tiny", size=32, words=300), ratio=0.3).eval(),
        CausalLM(kind.build(name="gpt_tiny", size=32, words=300)).eval(),
    ):
        found = method.show(batch(method, tokenizer, [text, "a"], size=32))
        pieces = found.texts[0]
        assert "".join(stands for stands, _ in pieces).replace("[SEP]", "").strip() == text
        asked = [said for _, said in pieces if said is not None]
        whole = len(tokenizer.encode(text).ids)
        assert len(asked) == (
            whole + 1 if isinstance(method, CausalLM) else round(0.3 * (whole + 2))
        )
        assert " of " in found.note
    bare = BERT(Text("bert_tiny", size=32, words=300))
    assert bare.show(batch(bare, tokenizer, [text], size=32)) is None


def test_a_passage_is_marked_and_one_that_is_damaged_is_told():
    data = json.dumps([["a <b> ", None], ["c", "c"], [" d", " e"]]).encode()
    assert html.passage(data) == (
        '<p class="passage">a &lt;b&gt; <mark class="right">c</mark>'
        '<mark class="wrong"><s> d</s> e</mark></p>'
    )
    for damaged in (b"", b"[1]", b"[[1, 2, 3]]", b"\xff"):
        assert "damaged" in html.passage(damaged)


# ---------------------------------------------------------------------------------- floors, export


def test_words_tell_classes_and_a_number_that_is_known():
    train, labels = ["good film", "bad film", "good, good", "bad!"] * 5, np.array([1, 0, 1, 0] * 5)
    found = floors.bags(train, ["a good one", "bad one"])
    assert floors.probe(found, labels).tolist() == [1, 0]
    assert floors.nearest(found, labels, neighbors=3).tolist() == [1, 0]
    # "!" is in 5 of 20 texts, "bad" in 10: smoothed idf as scikit-learn has it
    row = found.train[3].toarray().ravel()
    idf = np.log(21 / np.array([6, 11])) + 1
    np.testing.assert_allclose(sorted(row[row > 0]), sorted(idf / np.linalg.norm(idf)))
    assert floors.probe(floors.bags(["", ""], [""]), np.array([0, 1])).shape == (1,)


def test_a_bag_of_tokens_forgets_their_order_and_is_small():
    ids = torch.tensor([[2, 7, 7, 9, 3, 0], [2, 9, 7, 7, 3, 0], [2, 8, 3, 0, 0, 0]])
    few = floors.bag(ids, 20, (0, 2, 3, 4))
    assert few[0].equal(few[1])
    torch.testing.assert_close(few[0, [7, 9]], torch.tensor([2 / 3, 1 / 3]).sqrt())
    assert few[:, :5].abs().sum() == 0
    many = floors.bag(torch.randint(5, 30_000, (4, 64)), 30_000, (0, 2, 3, 4))
    assert many.shape == (4, floors.HASHED)
    torch.testing.assert_close(many @ many.T, torch.eye(4), atol=0.3, rtol=0)


def test_neighbors_tell_what_is_between():
    texts = [np.array([2, 5, 6, 7, 3]), np.array([2, 5, 6, 7, 3]), np.array([2, 8, 9, 7, 3])]
    counts = floors.count(texts, 10)
    assert counts.single.tolist() == [0, 0, 3, 3, 0, 2, 2, 3, 1, 1]
    assert counts.pairs[5, 6] == 2
    left, right = np.array([5, 8, 4, 2]), np.array([7, 7, 3, 9])
    assert floors.between(counts, left, right).tolist() == [6, 9, 7, 8]
    assert floors.by_frequency(counts, 2).tolist() == [2, 2]
    share = np.array([3, 3, 2, 2, 3, 1, 1]) / 15
    assert counts.entropy == pytest.approx(-(share * np.log(share)).sum())


@pytest.mark.parametrize("fp16", [False, True])
def test_transformers_reads_what_is_exported(encoder, tokenizer, tmp_path, fp16):
    kind = kinds.made({"kind": "text"}).cutting(tokenizer)
    made = kind.build(**encoder.config)
    made.load_state_dict(encoder.state_dict())
    exported.write(made, tmp_path, fp16)
    written = ["the Cat ran \u00e9 in the garden", "dog"]
    ids = torch.from_numpy(np.stack([Start(tokenizer, 16)(t) for t in written]))
    with torch.inference_mode():
        found = exported.read(tmp_path, made)(ids)
        close = {"rtol": 0.05, "atol": 0.01} if fp16 else {"rtol": 1e-5, "atol": 1e-5}
        torch.testing.assert_close(found["pooled"], encoder(ids), **close)
    (tmp_path / "tokenizer.json").write_text(tokenizers.train(["other words"], 300).text)
    with pytest.raises(ValueError, match="makes other tokens"):
        exported.read(tmp_path, made)


@pytest.mark.parametrize(
    ("name", "content", "kind"),
    [
        ("a.txt", "A sentence.\nAnother one, longer.\n", "text"),
        ("a.txt", "photos/a.jpg\nphotos/b.PNG\n", "image"),
        ("a.txt", "a.jpg cat\nb.jpg dog\n", "image"),
        ("a.txt", "a.jpg,0\n", "image"),
        ("a.csv", "text,label\nwell,1\n", "text"),
        ("a.tsv", "id\tSentence\n1\tno\n", "text"),
        ("a.csv", "path,label\na.jpg,1\n", "image"),
        ("a.csv", "file_name,text\na.jpg,a caption\n", "image"),
        ("a.jsonl", '{"text": "a", "label": 1}\n', "text"),
        ("a.jsonl", '{"path": "a.jpg"}\n', "image"),
    ],
)
def test_texts_are_told_from_lists_of_files(tmp_path, name, content, kind):
    (tmp_path / name).write_text(content)
    assert kinds.guess(tmp_path / name, tuple(kinds.files())) == kind
