"""Attentive probes: the formula, what they can tell that means cannot, what they are given."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from selftaught import evaluate, kinds
from selftaught.backbones import Features, backbone
from selftaught.data import open_data
from selftaught.errors import UserError
from selftaught.evaluate import Embeddings, attention, attentive, probe
from selftaught.evaluate.attention import Attentive, split_tokens, tokens
from selftaught.evaluate.features import Rest


@pytest.fixture
def short(monkeypatch):
    """Trainings of few steps, where it does not matter what is learned."""
    monkeypatch.setattr(attention, "STEPS", 10)
    monkeypatch.setattr(attention, "PASSES", 1)


def slow(network: Attentive, sample: torch.Tensor, there: list[bool]) -> torch.Tensor:
    """One sample [N, D], token by token and head by head."""
    kept = [token for token, seen in zip(sample, there) if seen]

    def attention(layer, query, others):
        width = len(query) // layer.heads
        weight, bias = layer.kv.weight, layer.kv.bias
        parts = []
        for head in range(layer.heads):
            where = slice(head * width, (head + 1) * width)
            later = slice(len(query) + head * width, len(query) + (head + 1) * width)
            q = layer.q.weight[where] @ query + layer.q.bias[where]
            keys = [weight[where] @ x + bias[where] for x in others]
            values = [weight[later] @ x + bias[later] for x in others]
            powers = [math.exp(float(q @ k) / math.sqrt(width)) for k in keys]
            parts.append(sum(p / sum(powers) * v for p, v in zip(powers, values)))
        return layer.proj.weight @ torch.cat(parts) + layer.proj.bias

    def norm(layer, x):
        return (x - x.mean()) / torch.sqrt(x.var(correction=0) + 1e-5) * layer.weight + layer.bias

    def rest(block, x):
        hidden = block.fc1.weight @ norm(block.norm2, x) + block.fc1.bias
        hidden = hidden * 0.5 * (1 + torch.erf(hidden / math.sqrt(2)))
        return x + block.fc2.weight @ hidden + block.fc2.bias

    for block in network.blocks:
        normed = [norm(block.norm1, x) for x in kept]
        kept = [rest(block, x + attention(block.attn, n, normed)) for x, n in zip(kept, normed)]
    query, block = network.query[0, 0], network.pool
    found = query + attention(block.attn, query, [norm(block.norm1, x) for x in kept])
    return network.linear.weight @ rest(block, found) + network.linear.bias


@pytest.mark.parametrize("blocks", [0, 2])
def test_it_is_the_papers_formula(blocks):
    torch.manual_seed(0)
    network = Attentive(8, 3, blocks, heads=2).double()
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.5)
    x = torch.randn(4, 5, 8, dtype=torch.float64)
    there = torch.tensor([[True] * 5, [True, False] * 2 + [True], [False] * 4 + [True], [True] * 5])
    with torch.no_grad():
        expected = [slow(network, a, b.tolist()) for a, b in zip(x, there)]
        torch.testing.assert_close(network(x, there), torch.stack(expected))
        torch.testing.assert_close(network(x)[0], expected[0])


def planted(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Tokens of which one alone, somewhere, is marked and tells the class; another one, that is not
    marked, says the opposite, so that the mean of all says nothing."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(count, 9, 16)).astype(np.float32)
    y, where = rng.integers(0, 2, count), rng.integers(0, 9, count)
    rows, other = np.arange(count), (where + rng.integers(1, 9, count)) % 9
    sign = np.where(y, 3, -3)[:, None]
    x[rows, where, :4], x[rows, other, :4] = 3, 0
    x[rows, where, 4:8], x[rows, other, 4:8] = sign, -sign
    return x, y


def test_it_tells_what_a_mean_of_tokens_cannot():
    train, test = planted(300, 0), planted(200, 1)
    by_mean = probe(*((x.mean(1), y) for x, y in (train, test)))
    by_query = attentive(train, test)
    assert by_mean.value < 65
    assert by_query.value > 95
    assert by_query.n == 200
    assert by_query.correct is not None
    assert "300 train, 200 test, 2 classes, given test set; a learned query" in by_query.protocol
    assert "9 tokens of width 16" in by_query.protocol
    assert "best of 3 on 60 held-out training samples" in by_query.protocol


def test_the_same_seed_gives_the_same_and_leaves_the_global_generator_alone(monkeypatch):
    monkeypatch.setattr(attention, "STEPS", 80)
    train, test = planted(60, 0), planted(50, 1)
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    first, second, other = (attentive(train, test, blocks=1, seed=s) for s in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert first.protocol == second.protocol
    assert np.array_equal(first.correct, second.correct)
    assert "after 1 blocks of self-attention" in first.protocol
    assert not np.array_equal(first.correct, other.correct)


def test_places_that_stand_for_nothing_are_not_seen(short):
    (x, y), (test_x, test_y) = planted(120, 0), planted(80, 1)
    there = [np.ones(part.shape[:2], bool) for part in (x, test_x)]
    noise = [part.copy() for part in (x, test_x)]
    for n, part in enumerate(noise):
        part[:, 4:] = 100 * (n + 1)
        there[n][:, 4:] = False
    sides = [
        Embeddings(part, label, extra={"there": seen})
        for part, label, seen in zip(noise, (y, test_y), there)
    ]
    cut = [Embeddings(part[:, :4], label) for part, label in ((x, y), (test_x, test_y))]
    assert np.array_equal(attentive(*sides).correct, attentive(*cut).correct)
    nothing = replace(sides[0], extra={"there": np.zeros_like(there[0])})
    assert np.isfinite(attentive(nothing, sides[1]).value)


def test_what_it_cannot_take_is_refused():
    x, y = planted(20, 0)
    with pytest.raises(UserError, match=r"takes features of places .* got \[20, 16\]"):
        attentive((x.mean(1), y))
    with pytest.raises(UserError, match="same encoder"):
        attentive((x, y), (x[:, :, :8], y))
    with pytest.raises(UserError, match="blocks=-1"):
        attentive((x, y), blocks=-1)
    with pytest.raises(UserError, match="got a ndarray"):
        attentive(x)


def samples(count: int, seed: int):
    """Images with a spot of one color somewhere."""
    rng = np.random.default_rng(seed)
    made = []
    for i in range(count):
        image = rng.integers(0, 60, (32, 32, 3), np.uint8)
        row, column = rng.integers(0, 24, 2)
        image[row : row + 8, column : column + 8, i % 2] += 180
        made.append((image, i % 2))
    return open_data(made)


def test_compare_has_it_beside_its_floors(short):
    net = backbone("test_vit", size=32, patch_size=8)
    found = evaluate.compare(
        net,
        samples(40, 0),
        samples(30, 1),
        probes=("attentive", "knn"),
        blocks=1,
        workers=0,
    )
    assert [s.name for s in found.scores["this encoder"]] == ["k-NN", "attentive"]
    assert set(found.scores) == {"this encoder", "untrained", "pixels 8x8", "pixels 16x16"}
    assert "16 tokens" in found.scores["untrained"][1].protocol
    assert "ridge classifier" in found.scores["pixels 8x8"][1].protocol
    assert found.as_dict()["settings"]["attentive"] == {"blocks": 1}
    assert {m.score.name for m in found.margins} == {"k-NN", "attentive"}


def test_series_have_it_too(short, tmp_path):
    rows = np.random.default_rng(0).normal(size=(40, 64)).astype(np.float32)
    np.savez(tmp_path / "series.npz", x=rows, y=np.arange(40) % 2)
    data = open_data(tmp_path / "series.npz", kind=kinds.find("series")())
    kind, given = data.kind.fill({"name": "inception", "width": 4, "depth": 1}, data)
    found = evaluate.compare(kind.build(**given), data, probes=("attentive",), workers=0)
    assert set(found.scores) == {"this encoder", "untrained", "raw values", "random kernels"}
    assert "64 tokens of width" in found.scores["this encoder"][0].protocol


def test_of_many_samples_some_are_left_out(short, monkeypatch):
    from selftaught.evaluate import comparing

    net = backbone("test_vit", size=32, patch_size=8)
    monkeypatch.setattr(comparing, "ATTENDED", 20 * 4 * 16 * (net.local_dim + 1))
    found = evaluate.compare(
        net, samples(40, 0), samples(30, 1),
        probes=("attentive",), workers=0,
    )  # fmt: skip
    assert found.scores["this encoder"][0].protocol.startswith("20 train, 20 test")


def test_an_encoder_without_places_is_refused_before_anything_is_read():
    class Pooled(nn.Module):
        def forward(self, x):
            return x.mean((2, 3))

    with pytest.raises(UserError, match="no features of places"):
        evaluate.compare(Pooled(), samples(8, 0), probes=("attentive",), workers=0)


def test_padding_of_texts_is_told():
    text = kinds.find("text")()

    class Network(nn.Module):
        kind, pad = text, 0

        def features(self, ids):
            return Features(ids.float(), ids[..., None].float(), (ids.shape[1], 1))

    found = tokens(Network(), torch.tensor([[5, 6, 0], [7, 0, 0]]))
    made = split_tokens(found.numpy(), Rest(None, np.arange(2), None, {}))
    assert made.features[..., 0].tolist() == [[5, 6, 0], [7, 0, 0]]
    assert made.extra["there"].tolist() == [[True, True, False], [True, False, False]]
