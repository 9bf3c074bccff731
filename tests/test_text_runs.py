"""Trainings on texts, from the first word typed to what leaves; tiny."""

import json
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

import selftaught
from selftaught import cli, dist, kinds
from selftaught.backbones.text.encoder import Text
from selftaught.data import open_data
from selftaught.data.text import tokenizer as tokenizers
from selftaught.errors import UserError
from selftaught.export.conversion import convert
from selftaught.method import Batch
from tests.pool import Pool

WORDS = ["good", "bad", "film", "story", "cast", "scene", "plot", "music", "long", "short"]
SMALL = {"size": 12, "words": 300, "dropout": 0.0, "batch": 8, "precision": "fp32", "seed": 1}
FAST = {"workers": 0, "evaluate": False, "curve": False}


def sentences(count: int = 48) -> list[str]:
    rng = np.random.default_rng(0)
    return [
        f"{['a good', 'no bad'][i % 2]} {' '.join(rng.choice(WORDS, 5))} {i}" for i in range(count)
    ]


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    folder = tmp_path_factory.mktemp("texts")
    (folder / "corpus.txt").write_text("\n".join(sentences()))
    rows = [f"{text}\t{i % 2}" for i, text in enumerate(sentences())]
    (folder / "labeled.tsv").write_text("\n".join(["text\tlabel", *rows]))
    return folder


@pytest.fixture(scope="module")
def run(here):
    """A run from the command line, with scores."""
    words = f"pretrain bert {here / 'labeled.tsv'} --out {here / 'run'} --max-steps 6 --batch 8"
    words += " --size 12 --words 300 --workers 0 --precision fp32 --seed 1 --dropout 0"
    assert cli.main(words.split()) == 0
    return here / "run"


def state(run) -> dict[str, torch.Tensor]:
    return selftaught.load(run).state_dict()


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(x.equal(b[k]) for k, x in a.items())


def test_a_run_says_texts_and_not_images(here, run, capsys):
    data, out = here / "corpus.txt", here / "dry"
    assert cli.main(["pretrain", "bert", str(data), "--out", str(out), "--dry-run"]) == 0
    told = capsys.readouterr().out
    assert "48 texts of" in told
    assert "bert_tiny at 32 tokens" in told
    assert " px" not in told
    assert "image" not in told
    assert json.loads((run / "diagnosis.json").read_text())["findings"] == []


def test_an_encoder_is_beside_its_floors_and_its_tokenizer(run):
    folder = run
    scores = json.loads((folder / "scores.json").read_text())
    names = {row["features"] for row in scores["scores"]}
    assert names == {"this encoder", "untrained", "bag of tokens", "words"}
    words = [r["value"] for r in scores["scores"] if r["features"] == "words"]
    assert words == [100.0, 100.0]  # "good" and "bad" say it
    kind = kinds.of(selftaught.load(folder))
    assert kind.cut == tokenizers.read(folder)
    page = (folder / "report.html").read_text()
    assert "<blockquote" in page
    assert "Hidden words" in page
    assert '<mark class="wrong"><s>' in page
    assert sentences()[0] in page or sentences()[1] in page


def test_a_folder_without_its_tokenizer_says_so(run, tmp_path):
    for name in ("encoder.json", "encoder.safetensors"):
        shutil.copy(run / name, tmp_path)
    with pytest.raises(UserError, match=r"tokenizer of these texts .* is not here"):
        selftaught.embed(tmp_path, run.parent / "corpus.txt", workers=0)
    tokenizers.train(["other words"], 300).save(tmp_path)
    with pytest.raises(UserError, match="is another tokenizer"):
        selftaught.load(tmp_path)


def test_commands_take_texts(run, monkeypatch, capsys):
    folder = run
    monkeypatch.chdir(folder.parent)
    for words, told in (
        ("evaluate run labeled.tsv --workers 0", "words"),
        ("embed run corpus.txt --workers 0 --out e.npy", "48 x 128"),
        ("check corpus.txt --workers 0", "texts"),
        ("search run corpus.txt --workers 0 --query corpus.txt:3 good --out s.html", "corpus.txt"),
        ("export run --to hf", "Read back by transformers"),
        ("compare run run2 --out c.html", "run2"),
    ):
        if "run2" in words and not (folder.parent / "run2").exists():
            shutil.copytree(folder, folder.parent / "run2")
        assert cli.main(words.split()) == 0, words
        assert told in capsys.readouterr().out, words
    assert "<blockquote" in (folder.parent / "s.html").read_text()
    for words, told in (
        ("evaluate run corpus.txt --workers 0", "has none"),
        ("reconstruct run corpus.txt", "learned from texts, which are not painted"),
        ("export run --to timm", "timm has no networks for texts"),
    ):
        assert cli.main(words.split()) == 2, words
        assert told in capsys.readouterr().err, words


def test_an_export_holds_what_its_card_runs(run, tmp_path, monkeypatch):
    convert(run, to="hf", out=tmp_path / "hf")
    card = (tmp_path / "hf" / "README.md").read_text()
    monkeypatch.chdir(tmp_path / "hf")
    names: dict[str, torch.Tensor] = {}
    exec(card.partition("```python\n")[2].partition("```")[0], names)
    assert names["pooled"].shape == (2, 128)
    assert "pipeline_tag: feature-extraction" in card


@pytest.mark.parametrize(("method", "net"), [("bert", "bert_tiny"), ("causal_lm", "gpt_tiny")])
def test_a_run_is_alike_with_any_number_of_workers(here, tmp_path, method, net):
    given = {"backbone": net, **SMALL, **FAST}
    data = here / "corpus.txt"
    whole = selftaught.pretrain(method, data, tmp_path / "a", epochs=2, **given)
    other = selftaught.pretrain(method, data, tmp_path / "b", epochs=2, **given | {"workers": 2})
    losses = [(r / "metrics.csv").read_text() for r in (whole.folder, other.folder)]
    columns = [[row.split(",")[:3] for row in text.splitlines()] for text in losses]
    assert columns[0] == columns[1]
    assert same(state(whole.folder), state(other.folder))

    assert whole.plan.content["sample"]["hash"] == tokenizers.read(whole.folder).hash


def test_a_killed_run_goes_on_as_if_it_had_not_been(here, tmp_path):
    words = f"pretrain bert {here / 'corpus.txt'} --batch 8 --size 12 --words 300 --epochs 3"
    words += " --precision fp32 --seed 1 --no-evaluate --no-curve --save-every 0 --log-every 1"
    whole, cut = tmp_path / "a", tmp_path / "b"
    assert cli.main([*words.split(), "--out", str(whole), "--workers", "0"]) == 0
    code = "from selftaught.cli import main; import sys; sys.exit(main(sys.argv[1:]))"
    argv = [*words.split(), "--out", str(cut)]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen([sys.executable, "-c", code, *argv, "--workers", "1"], **quiet)
    try:
        while process.poll() is None and not [*cut.glob("checkpoints/*[0-9]*")]:
            time.sleep(0.02)
    finally:
        process.kill()
        process.wait()
    before = (cut / "tokenizer.json").read_bytes()
    assert not (cut / "encoder.json").exists()
    assert cli.main([*argv, "--workers", "0", "--resume"]) == 0
    assert (cut / "tokenizer.json").read_bytes() == before
    assert same(state(whole), state(cut))


def test_another_tokenizer_is_another_run(here, tmp_path):
    given = {"backbone": "bert_tiny", **SMALL, **FAST}
    data = here / "corpus.txt"
    first = selftaught.pretrain("bert", data, tmp_path / "a", max_steps=2, **given)
    tokenizers.train([*sentences(), "other words " * 9], 300).save(first.folder)
    with pytest.raises(UserError, match=r"sample\.hash"):
        selftaught.pretrain("bert", data, first.folder, max_steps=4, resume=True, **given)


def test_a_tokenizer_of_ones_own(here, tmp_path):
    made = tokenizers.train(sentences(), 280, lower=False)
    made.save(tmp_path)
    given = {"backbone": "bert_tiny", **SMALL, **FAST, "tokenizer": str(tmp_path), "max_steps": 2}
    del given["words"]
    run = selftaught.pretrain("bert", here / "corpus.txt", tmp_path / "a", **given)
    assert kinds.of(run.encoder).cut == made
    assert run.encoder.words == made.vocabulary.words
    second = {k: v for k, v in given.items() if k != "tokenizer"}
    other = tmp_path / "other.txt"
    other.write_text("\n".join(f"quite another text {i}" for i in range(24)))
    more = selftaught.pretrain("bert", other, tmp_path / "b", start=run.folder, **second)
    assert kinds.of(more.encoder).cut == made


def test_texts_and_images_are_not_taken_for_each_other(here, run, tmp_path):
    with pytest.raises(
        UserError,
        match=r"mae learns from .* and this data is taken for .text.",
    ):
        selftaught.pretrain("mae", here / "corpus.txt", tmp_path / "a", kind="text")
    images = np.zeros((12, 8, 8, 3), np.uint8)
    with pytest.raises(UserError, match="rows whose text is none"):
        selftaught.pretrain("bert", images, tmp_path / "a")
    with pytest.raises(UserError, match=r"takes samples of kind .text., and these are of .image."):
        selftaught.embed(run, open_data(images))


def test_the_guessing_loss_is_that_of_the_frequencies(here):
    kind = kinds.made({"kind": "text"})
    samples = open_data(here / "corpus.txt", kind=kind)
    kind, given = kind.fill({"words": 300, "size": 32}, samples)
    ids = np.concatenate([kind.cut.encode(t).ids for t in sentences()])
    share = np.bincount(ids) / len(ids)
    share = share[share > 0]
    entropy = -(share * np.log(share)).sum()
    method = selftaught.methods.BERT(kind.build(name="bert_tiny", **given))
    assert method.reference_losses(8)[0].value == pytest.approx(entropy, abs=1e-3)
    ends = np.append(ids, np.full(len(samples), kind.cut.vocabulary.end))
    share = np.bincount(ends) / len(ends)
    share = share[share > 0]
    causal = selftaught.methods.CausalLM(kind.build(name="gpt_tiny", **given))
    found = causal.reference_losses(8)[0].value
    assert found == pytest.approx(-(share * np.log(share)).sum(), abs=1e-2)


def gradients_on_rank(rank: int) -> None:
    """Half of a batch in each process, of which one asks for many more tokens."""
    torch.manual_seed(0)
    method = selftaught.methods.BERT(Text("bert_tiny", size=12, words=300, dropout=0.0))
    ids = torch.randint(5, 300, (4, 12))
    positions = torch.full((4, 6), -1, dtype=torch.int32)
    for row, count in enumerate((1, 1, 6, 5)):
        positions[row, :count] = torch.arange(1, count + 1)
    labels = ids[:, 1:7].int()
    part = slice(2 * rank, 2 * rank + 2)
    method.loss(Batch((ids[part], positions[part], labels[part]), ids[:2, 0])).backward()
    ours = [dist.mean(p.grad) for p in method.parameters() if p.grad is not None]
    method.zero_grad()
    asked = positions >= 0
    logits = method.predict(ids, positions)
    torch.nn.functional.cross_entropy(logits, labels[asked].long()).backward()
    theirs = [p.grad for p in method.parameters() if p.grad is not None]
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


@pytest.mark.xdist_group("pool")
def test_two_processes_have_the_gradient_of_one(pool: Pool):
    pool.run(gradients_on_rank)
