"""BERT: masks replayed draw by draw, their numbers, the loss, the optimizer and its rates."""

import numpy as np
import torch
from torch import nn

from selftaught.backbones.text.encoder import Text
from selftaught.engine.optim import Rates, build
from selftaught.masks.text import count_masked, mask_tokens
from selftaught.method import Batch, Recipe
from selftaught.methods.masked.bert import BERT
from tests.adapters import Golden, close, warm
from tests.replay import Recorded

PAD, CLS, SEP, MASK = range(4)  # as the index says


def check(golden: Golden) -> None:
    for kind in ("token", "wwm"):
        _replay(golden, kind)
    _numbers(golden)
    _fractions(golden)
    _loss(golden)
    _optimizer(golden)
    _rates(golden)


def _replay(golden: Golden, kind: str) -> None:
    given, settings = golden.starting(f"{kind}."), golden.given(f"{kind}.")
    subword = golden["vocab_is_subword"].numpy()
    assert settings["vocab"] == len(subword)
    for i, row in enumerate(given["input_ids"].numpy()):
        ids = row[: len(row) - int((row[::-1] == PAD).cumprod().sum())]
        firsts = given["candidate_order"][slice(*given["offsets_order"][i : i + 2])].numpy()
        order = firsts.argsort().argsort()  # rank of each first position = which candidate
        draws = Recorded(given["draws"][slice(*given["offsets_draws"][i : i + 2])], [order])
        masked = mask_tokens(
            draws,
            ids,
            (ids == CLS) | (ids == SEP),
            settings["vocab"],
            mask=MASK,
            continues=subword[ids] if kind == "wwm" else None,
            ratio=settings["prob"],
            most=settings["maxp"],
            reference=True,
        )
        count = len(masked.positions)
        np.testing.assert_array_equal(masked.ids, given["output_ids"][i][: len(ids)])
        np.testing.assert_array_equal(masked.positions, given["positions"][i][:count])
        np.testing.assert_array_equal(masked.labels, given["labels"][i][:count])
        assert torch.all(given["positions"][i][count:] == -1)
        assert draws.exhausted()


def _numbers(golden: Golden) -> None:
    given = golden.given("num_to_predict.")
    for length, expected in zip(golden["num_to_predict.len"], golden["num_to_predict.value"]):
        assert count_masked(int(length), given["prob"], given["maxp"]) == expected


def _fractions(golden: Golden) -> None:
    """To 6 standard errors of 4,000 tokens, and of as many as the file says at most."""
    vocabulary, draws, count = golden.given("stat.")["vocab"], np.random.default_rng(0), 4000
    ids = draws.integers(MASK + 1, vocabulary, count)
    masked = mask_tokens(draws, ids, np.zeros(count, bool), vocabulary, MASK, None, 1.0, count)
    became = masked.ids == MASK, masked.ids == ids, (masked.ids != MASK) & (masked.ids != ids)
    ours, expected = torch.tensor([b.mean() for b in became]), golden["stat.fractions"]
    error = (expected * (1 - expected) / count).sqrt()
    assert torch.all((ours - expected).abs() < 6 * error)


def _loss(golden: Golden) -> None:
    """By the method itself, whose network says what the file says."""
    logits, labels = golden.leaf("loss.logits"), golden["loss.labels"]
    there = golden["loss.weights"] > 0
    method = BERT(Text("bert_tiny", size=len(labels), words=logits.shape[1]))
    ids = torch.ones(1, len(labels), dtype=torch.int64)
    method.predict = lambda ids, positions: logits[positions[0][positions[0] >= 0]]
    positions = torch.where(there, torch.arange(len(labels)), -1)
    loss = method.loss(Batch((ids, positions[None], labels[None]), torch.zeros(1)))
    close(loss, golden["loss.value"])
    loss.backward()
    close(logits.grad, golden["loss.grad_logits"])


def _optimizer(golden: Golden) -> None:
    net = nn.Module()
    net.weight = nn.Parameter(golden["adamwd.p0"][None])  # a vector would not be decayed
    decay = golden.setting("adamwd.", "weight_decay", r"\+([\d.]+) p\)")
    lr = golden.setting("adamwd.", "lr")
    recipe = Recipe("adamw_bert", lr, weight_decay=decay, schedule="constant")
    optimizer = build(net, recipe)
    Rates(recipe, recipe.batch, 1, 1).apply(optimizer, 0)
    for gradient, expected in zip(golden["adamwd.grads"], golden["adamwd.params"]):
        net.weight.grad = gradient[None]
        optimizer.step()
        close(net.weight[0], expected)


def _rates(golden: Golden) -> None:
    given = golden.given("lr.")
    steps = given["num_train_steps"]
    recipe = Recipe("adamw_bert", given["lr"], schedule="linear", warmup=warm(given) / steps)
    plan = Rates(recipe, recipe.batch, steps, steps)
    close([plan.lr(int(step)) for step in golden["lr.steps"]], golden["lr.values"])
