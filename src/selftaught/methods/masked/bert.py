"""BERT's masked language model (Devlin et al., 2019), https://arxiv.org/abs/1810.04805."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from selftaught.augment import Pipeline
from selftaught.augment.text.windows import Tokens, framed, window
from selftaught.backbones.text.encoder import Text
from selftaught.errors import UserError
from selftaught.kinds.text import guessing, pieces
from selftaught.masks.text import count_masked, mask_tokens
from selftaught.method import Batch, Few, Method, Needs, Passages, Recipe, ReferenceLoss
from selftaught.objectives.masked import token_cross_entropy
from selftaught.roles import Fraction


class BERT(Method):
    """Hide some tokens of a text; tell from the others which they were.

    Without the prediction of the next sentence, which RoBERTa (Liu et al., 2019,
    https://arxiv.org/abs/1907.11692) found useless; as there, tokens are drawn anew in each epoch.

    Args:
        backbone: encoder of texts, whose tokens see all others.
        ratio: fraction of the tokens that is asked for, those of start and end counted. Of these
            80 % become [MASK], 10 % any other, and 10 % stay.
        whole_words: whether the tokens of a word are hidden together, as in later releases.
    """

    recipe = Recipe(
        "adamw_bert",
        lr=1e-4,
        scaling="none",
        weight_decay=0.01,
        schedule="linear",
        warmup=0.01,
        clip=1.0,
    )
    few = Few(lr=1e-3, batch=32)
    needs = Needs(kinds=("text",), backbone="bert_base", batch=1, views="own")
    backbone: Text  # type: ignore[assignment]

    def __init__(self, backbone: Text, ratio: Fraction = 0.15, whole_words: bool = False):
        super().__init__()
        if not isinstance(backbone, Text) or backbone.causal:
            raise UserError(
                "bert fills in what is hidden from both sides, which needs an encoder of texts "
                f"whose tokens see all others; {backbone.name} is none: use bert_tiny, bert_mini "
                "or a larger one, or the method causal_lm"
            )
        self.backbone, self.ratio, self.whole_words = backbone, ratio, whole_words
        dense = nn.Linear(backbone.dim, backbone.dim)
        nn.init.trunc_normal_(dense.weight, std=0.02)
        nn.init.zeros_(dense.bias)
        self.head = nn.Sequential(dense, nn.GELU(), nn.LayerNorm(backbone.dim, eps=1e-12))
        self.bias = nn.Parameter(torch.zeros(backbone.words))

    def reference_losses(self, batch: int) -> tuple[ReferenceLoss, ...]:
        known = guessing(self.backbone)
        return () if known is None else (ReferenceLoss(*known),)

    def views(self, size: int) -> Any:
        return Hidden(size, self.ratio, self.whole_words)

    def loss(self, batch: Batch) -> Tensor:
        """views: ids [B, L], positions [B, K] with -1 where there are fewer, and labels [B, K]."""
        ids, positions, labels = batch.views
        labels = labels[positions >= 0].long()
        return token_cross_entropy(self.predict(ids, positions), labels, torch.ones_like(labels))

    def predict(self, ids: Tensor, positions: Tensor) -> Tensor:
        """[M, V] logits of the words at the M positions that are not -1, text by text."""
        text, place = (positions >= 0).nonzero(as_tuple=True)
        local = self.backbone.tokens(ids)[text, positions[text, place]]
        return F.linear(self.head(local), self.backbone.table, self.bias)

    def show(self, batch: Batch) -> Passages | None:
        ids, positions, labels = batch.views
        there = positions >= 0
        text, place = there.nonzero(as_tuple=True)[0], positions[there].long()
        labels, told = labels[there].long(), self.predict(ids, positions).argmax(1)
        true, said = ids.index_put((text, place), labels).cpu(), [dict[int, int]() for _ in ids]
        for row, where, token in zip(text.tolist(), place.tolist(), told.tolist()):
            said[row][where] = token
        texts = [pieces(self.backbone, row, words) for row, words in zip(true, said)]
        note = (
            f"{self.ratio:.0%} of the tokens were asked for, most of them hidden. Green: told; "
            "red: another one was said, the true one struck out. "
            f"{int((told == labels).sum())} of {len(labels)} are right here."
        )
        return Passages("Hidden words", note, texts) if all(texts) else None


@dataclass(frozen=True)
class Hidden(Pipeline):
    """Tokens -> a window of them with some hidden, where these were, and what they were."""

    size: int
    ratio: float
    whole_words: bool

    def __call__(self, tokens: Tokens, rng: np.random.Generator) -> tuple[np.ndarray, ...]:  # type: ignore[override]
        tokens, most = (
            window(tokens, self.size, rng),
            count_masked(self.size, self.ratio, self.size),
        )
        known, count = tokens.vocabulary, len(tokens.ids) + 2
        whole = framed(tokens.ids, known, self.size)
        special = np.zeros(count, bool)
        special[[0, -1]] = True
        masked = mask_tokens(
            rng,
            whole[:count],
            special,
            known.words,
            known.mask,
            np.pad(tokens.continues, 1) if self.whole_words else None,
            self.ratio,
            most,
        )
        whole[:count] = masked.ids
        # of 32 bits: what has 64 are ids of a text
        positions, labels = np.full(most, -1, np.int32), np.full(most, known.pad, np.int32)
        positions[: len(masked.positions)] = masked.positions
        labels[: len(masked.labels)] = masked.labels
        return whole, positions, labels
