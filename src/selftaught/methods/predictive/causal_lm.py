"""GPT's language model (Radford et al., 2018), https://openai.com/research/language-unsupervised."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor
from torch.nn import functional as F

from selftaught.augment import Pipeline
from selftaught.augment.text.windows import Tokens, framed, window
from selftaught.backbones.text.encoder import Text
from selftaught.errors import UserError
from selftaught.kinds.text import guessing, pieces
from selftaught.method import Batch, Few, Method, Needs, Passages, Recipe, ReferenceLoss
from selftaught.objectives.masked import token_cross_entropy


class CausalLM(Method):
    """Tell each token of a text from those before it.

    The weights of the last layer are those by which tokens come in. The recipe is GPT's, whose
    network this is up to GPT-2's place for the norms (Radford et al., 2019).

    Args:
        backbone: encoder of texts, whose tokens see none that follow.
    """

    recipe = Recipe("adamw", 2.5e-4, 64, scaling="none", weight_decay=0.01, warmup=0.001, clip=1.0)
    few = Few(lr=1e-3, batch=32)
    needs = Needs(kinds=("text",), backbone="gpt_base", batch=1, views="own")
    backbone: Text  # type: ignore[assignment]

    def __init__(self, backbone: Text):
        super().__init__()
        if not isinstance(backbone, Text) or not backbone.causal:
            raise UserError(
                "causal_lm tells tokens from those before them, which needs an encoder of texts "
                f"whose tokens see none that follow; {backbone.name} is none: use gpt_tiny, "
                "gpt_mini or a larger one, or the method bert"
            )
        self.backbone = backbone

    def reference_losses(self, batch: int) -> tuple[ReferenceLoss, ...]:
        known = guessing(self.backbone, ends=True)
        return () if known is None else (ReferenceLoss(*known),)

    def views(self, size: int) -> Any:
        return Window(size)

    def loss(self, batch: Batch) -> Tensor:
        """views: ids [B, L]."""
        ids = batch.views
        there = ids[:, 1:] != self.backbone.pad
        return token_cross_entropy(self.predict(ids)[there], ids[:, 1:][there], there[there], 0.0)

    def predict(self, ids: Tensor) -> Tensor:
        """[B, L - 1, V] logits of all tokens but the first."""
        return F.linear(self.backbone.tokens(ids)[:, :-1], self.backbone.table)

    def show(self, batch: Batch) -> Passages | None:
        ids = batch.views
        told, there = self.predict(ids).argmax(2), ids[:, 1:] != self.backbone.pad
        texts = [
            pieces(self.backbone, row, dict(enumerate(said.tolist(), 1)))
            for row, said in zip(ids.cpu(), told.cpu())
        ]
        note = (
            "What was said to come next, in place of each token. Green: told; red: another one was "
            f"said, the true one struck out. {int((told == ids[:, 1:])[there].sum())} of "
            f"{int(there.sum())} are right here."
        )
        return Passages("The next word", note, texts) if all(texts) else None


@dataclass(frozen=True)
class Window(Pipeline):
    """Tokens -> a window of them, between start and end."""

    size: int

    def __call__(self, tokens: Tokens, rng: np.random.Generator) -> np.ndarray:  # type: ignore[override]
        tokens = window(tokens, self.size, rng)
        return framed(tokens.ids, tokens.vocabulary, self.size)
