"""Attentive probes: classification from all tokens of a frozen encoder, not from their mean.

V-JEPA (Bardes et al., 2024, https://arxiv.org/abs/2404.08471, 4.2 and appendix D) and V-JEPA 2
(Assran et al., 2025, https://arxiv.org/abs/2506.09985, 5).
"""

import math
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from selftaught import kinds
from selftaught.backbones import Encoder
from selftaught.errors import UserError
from selftaught.evaluate.features import Embeddings, Rest
from selftaught.evaluate.scores import Score, Task, split

RATES = (3e-4, 1e-3, 3e-3)
"""Peak learning rates that are tried: V-JEPA's 0.001, and what of V-JEPA 2's lies around it."""

DECAY = 0.01
"""Of weights, not of biases and norms."""

BATCH, STEPS, PASSES = 64, 300, 20
"""Samples a step; steps at least; passes over the samples at least."""

WIDTH = 64
"""Of a head, about."""

STD = 0.02
"""Deviation of initial weights."""


class _Attention(nn.Module):
    """Attention of queries to tokens of the same width, by several heads."""

    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.heads = heads
        self.q, self.kv = nn.Linear(dim, dim), nn.Linear(dim, 2 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, queries: Tensor, tokens: Tensor, there: Tensor) -> Tensor:
        """[B, Q, D] queries and [B, N, D] tokens, of which those that are `there` [B, 1, 1, N] are
        seen -> [B, Q, D]."""
        q = self.q(queries).unflatten(2, (self.heads, -1)).transpose(1, 2)
        if queries.shape[1] == 1:
            return self.proj(self._one(q, tokens, there))
        k, v = self.kv(tokens).unflatten(2, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        found = F.scaled_dot_product_attention(q, k, v, attn_mask=there)
        return self.proj(found.transpose(1, 2).flatten(2))

    def _one(self, q: Tensor, tokens: Tensor, there: Tensor) -> Tensor:
        """The same for one query [B, heads, 1, D / heads]: tokens are weighed, and their sum alone
        is projected. What is left out of the scores is the same for all tokens."""
        to_keys, to_values = self.kv.weight.unflatten(0, (2, self.heads, -1))
        scores = (q[:, :, 0, None] @ to_keys)[:, :, 0] @ tokens.mT / math.sqrt(q.shape[3])
        weights = scores.masked_fill(~there[:, 0], -math.inf).softmax(2)
        sums = (weights @ tokens)[:, :, None] @ to_values.mT
        return sums.flatten(1)[:, None] + self.kv.bias[len(self.kv.bias) // 2 :]


class _Block(nn.Module):
    """A transformer's block, of self-attention, or of attention to others' tokens."""

    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attn = _Attention(dim, heads)
        self.fc1, self.fc2 = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)

    def forward(self, tokens: Tensor, there: Tensor, queries: Tensor | None = None) -> Tensor:
        """[B, N, D] tokens -> as many, or as many as `queries` [B, Q, D], which are not normed."""
        seen = self.norm1(tokens)
        start, asking = (tokens, seen) if queries is None else (queries, queries)
        found = start + self.attn(asking, seen, there)
        return found + self.fc2(F.gelu(self.fc1(self.norm2(found))))


class Attentive(nn.Module):
    """A learned query that attends to all tokens, and a linear layer on what it finds.

    Args:
        dim: width of the tokens.
        classes: number of classes.
        blocks: of self-attention among the tokens before: none in V-JEPA, 3 in V-JEPA 2.
        heads: of the attention, of which `dim` is a multiple.
    """

    def __init__(self, dim: int, classes: int, blocks: int = 0, heads: int = 1):
        super().__init__()
        self.query = nn.Parameter(torch.empty(1, 1, dim))
        steps = [_Block(dim, heads) for _ in range(blocks + 1)]
        self.blocks, self.pool = nn.ModuleList(steps[:-1]), steps[-1]
        self.linear = nn.Linear(dim, classes)
        nn.init.trunc_normal_(self.query, std=STD)
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=STD)
                nn.init.zeros_(layer.bias)
        with torch.no_grad():
            for i, block in enumerate(steps, 1):
                for layer in (block.attn.proj, block.fc2):
                    layer.weight.div_(math.sqrt(2 * i))

    def forward(self, tokens: Tensor, there: Tensor | None = None) -> Tensor:
        """[B, N, D] -> [B, classes]; there: bool [B, N], whether a token stands for anything."""
        if there is None:
            there = tokens.new_ones(tokens.shape[:2], dtype=torch.bool)
        there = there[:, None, None]
        for block in self.blocks:
            tokens = block(tokens, there)
        return self.linear(self.pool(tokens, there, self.query.expand(len(tokens), -1, -1))[:, 0])


def attentive(
    train: Any,
    test: Any = None,
    *,
    blocks: int = 0,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> Score:
    """Classification from frozen local features by a learned query that attends to all of them.

    AdamW with weight decay 0.01 and a cosine schedule; of three learning rates the one is taken
    that is best on a fifth of the training samples, which are then all used; test samples are never
    looked at. Unlike in the papers each sample is one plain view, without augmentation.

    Args:
        train, test: `Embeddings` with features [N, ..., L] of places, as `embed(local=True)` gives
            them, and perhaps `there` [N, P] among `extra`: which of the P places stand for
            anything; or pairs of such features and labels [N]. Without `test` a fifth of `train` is
            held out.
        blocks: of self-attention among the places before: none in V-JEPA, 3 in V-JEPA 2.
        seed: of the initial weights, of the order of samples and of the part held out.
        device: where the classifier is trained.

    Raises:
        UserError: labels are missing, or features do not fit.
    """
    begun = time.perf_counter()
    if blocks < 0:
        raise UserError(f"blocks={blocks} must be at least 0")
    sides = [_Tokens.of(part) for part in (train, test) if part is not None]
    if len({side.x.shape[1:] for side in sides}) > 1:
        shapes = " and ".join(str(list(side.x.shape)) for side in sides)
        raise UserError(
            f"training and test features are {shapes}: both must come from the same encoder"
        )
    task = Task.of(*(side.rows for side in sides))
    fitted, tested = sides[0].at(task.train_x), sides[-1].at(task.test_x)
    y, how = task.train_y, "too few training samples to choose"
    fit, held = (torch.from_numpy(i) for i in split(y.numpy(), seed))

    def trained(rows: Tensor, rate: float) -> Callable[["_Tokens"], Tensor]:
        return _fit(fitted.pick(rows), y[rows], rate, task.classes, blocks, seed, device)

    rate = RATES[len(RATES) // 2]
    if len(held):
        right = [int((trained(fit, r)(fitted.pick(held)) == y[held]).sum()) for r in RATES]
        rate = RATES[int(np.argmax(right))]  # of equally good ones the lowest
        how = f"best of {len(RATES)} on {len(held)} held-out training samples"
    predicted = trained(torch.arange(len(y)), rate)(tested)
    before = f" after {blocks} blocks of self-attention" if blocks else ""
    protocol = (
        f"{task.protocol}; a learned query attends to {fitted.x.shape[1]} tokens of width "
        f"{fitted.x.shape[2]}{before}, AdamW, learning rate {rate:g}, {how}"
    )
    score = task.score("attentive", predicted, protocol, begun)
    return replace(score, settings={"blocks": blocks})


def tokens(network: Encoder, x: Tensor) -> Tensor:
    """[B, P, L + 1] local features of prepared views, and whether they stand for anything.

    Raises:
        UserError: the network gives none.
    """
    local = network.features(x).local
    there = kinds.of(network).there(x, network)
    if there is None:
        there = local.new_ones(local.shape[:2])
    return torch.cat([local, there[..., None].to(local)], 2)


def split_tokens(found: np.ndarray, rest: Rest) -> Embeddings:
    """What `attentive` takes, from what `tokens` gave for all samples."""
    return Embeddings(found[..., :-1], *rest, extra={"there": found[..., -1] > 0})


class _Tokens:
    """x: [N, P, L]; there: [N, P] bool. rows: the positions of the samples with their labels."""

    def __init__(self, x: Tensor, there: Tensor, rows: Any = None):
        self.x, self.there, self.rows = x, there, rows

    @staticmethod
    def of(given: Any) -> "_Tokens":
        if isinstance(given, Embeddings):
            features, there = given.features, given.extra.get("there")
        elif isinstance(given, tuple | list) and len(given) == 2:
            features, there = given[0], None
        else:
            raise UserError(
                f"got a {type(given).__name__} where Embeddings of places or a pair (features, "
                "labels) is needed"
            )
        x = torch.as_tensor(features)
        if x.dim() < 3:
            raise UserError(
                f"an attentive probe takes features of places [N, ..., L], got {list(x.shape)}; "
                "embed(encoder, data, local=True) gives them"
            )
        x = x.flatten(1, -2)
        seen = torch.ones(x.shape[:2], dtype=torch.bool) if there is None else _mask(there, x)
        places = np.arange(len(x), dtype=np.float32)[:, None]
        if isinstance(given, Embeddings):
            return _Tokens(x, seen, replace(given, features=places, extra={}))
        return _Tokens(x, seen, (places, given[1]))

    def at(self, rows: Tensor) -> "_Tokens":
        """Those of the samples that a task has, by their positions [M, 1]."""
        return self.pick(rows[:, 0].long())

    def pick(self, rows: Tensor) -> "_Tokens":
        return _Tokens(self.x[rows], self.there[rows])


def _mask(there: Any, x: Tensor) -> Tensor:
    """bool [N, P], at least one of each row: attention to nothing is no number."""
    found = torch.as_tensor(np.asarray(there)).bool().clone()
    if found.shape != x.shape[:2]:
        raise UserError(f"`there` is {list(found.shape)}, and features are {list(x.shape)}")
    found[:, 0] |= ~found.any(1)
    return found


def _fit(
    on: _Tokens,
    y: Tensor,
    rate: float,
    classes: int,
    blocks: int,
    seed: int,
    device: torch.device | str,
) -> Callable[[_Tokens], Tensor]:
    """Train a classifier; what it says of others, [M] classes on the CPU."""
    dim, count = on.x.shape[2], len(y)
    heads = next(h for h in range(max(1, round(dim / WIDTH)), 0, -1) if dim % h == 0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = Attentive(dim, classes, blocks, heads).to(device)
    decayed = [p for p in network.parameters() if p.dim() == 2]
    others = [p for p in network.parameters() if p.dim() != 2]
    parts = [{"params": decayed, "weight_decay": DECAY}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(parts, lr=rate)
    batch = min(BATCH, count)
    steps = max(STEPS, PASSES * count // batch)
    generator = torch.Generator().manual_seed(seed)
    order = torch.empty(0, dtype=torch.long)
    for step in range(steps):
        for part in optimizer.param_groups:
            part["lr"] = rate * 0.5 * (1 + math.cos(math.pi * step / steps))
        if len(order) < batch:
            order = torch.randperm(count, generator=generator)
        rows, order = order[:batch], order[batch:]
        said = network(on.x[rows].to(device), on.there[rows].to(device))
        optimizer.zero_grad()
        F.cross_entropy(said, y[rows].to(device)).backward()
        optimizer.step()

    @torch.inference_mode()
    def classify(of: _Tokens) -> Tensor:
        found = [
            network(x.to(device), there.to(device)).argmax(1).cpu()
            for x, there in zip(of.x.split(BATCH), of.there.split(BATCH))
        ]
        return torch.cat(found)

    return classify
