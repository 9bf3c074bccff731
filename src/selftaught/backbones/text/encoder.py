"""Encoders of texts: transformers' own, so that what is exported is a folder that it reads."""

from typing import Any, Literal

from torch import Tensor, nn

from selftaught.backbones.encoder import Features
from selftaught.errors import UserError
from selftaught.roles import Count, Number, PartialShare, Several

SIZES = {
    "tiny": (128, 2, 2),
    "mini": (256, 4, 4),
    "small": (512, 4, 8),
    "medium": (512, 8, 8),
    "base": (768, 12, 12),
}
"""Width, layers and heads (Turc et al., 2019, https://arxiv.org/abs/1908.08962)."""


class Text(nn.Module):
    """BERT without its pooler, or GPT-2, whose tokens see none that follow.

    Texts are token ids [B, L], `pad` where there is none. A text is the mean of its tokens.

    Args:
        name: which network, and how large.
        size: most tokens of a text, those at its start and end counted.
        words: entries of the vocabulary; that of the tokenizer, where one is used.
        dropout: rate, of values and of attention.

    Other Args:
        pad: the token that stands for none.
    """

    mean, std = (0.0,), (1.0,)
    trained = False
    channels = 1
    has_local = True

    def __init__(
        self,
        name: Literal[
            "bert_tiny",
            "bert_mini",
            "bert_small",
            "bert_medium",
            "bert_base",
            "gpt_tiny",
            "gpt_mini",
            "gpt_small",
            "gpt_medium",
            "gpt_base",
        ] = "bert_mini",
        size: Several = 128,
        words: Count = 4096,
        dropout: PartialShare = 0.1,
        pad: Number = 0,
    ):
        super().__init__()
        kind, _, large = name.partition("_")
        if kind not in ("bert", "gpt") or large not in SIZES:
            raise UserError(
                f"no encoder of texts is called {name!r}: bert_SIZE or gpt_SIZE, of the sizes "
                f"{', '.join(SIZES)}"
            )
        if pad >= words:
            raise UserError(f"pad={pad} must be one of the {words} words, from 0 on")
        self.name, self.size, self.words, self.dropout, self.pad = name, size, words, dropout, pad
        self.dim = self.local_dim = SIZES[large][0]
        self.causal = kind == "gpt"
        self.net = _gpt(self) if self.causal else _bert(self)

    @property
    def config(self) -> dict[str, Any]:
        """Plain values that build it again."""
        return {k: getattr(self, k) for k in ("name", "size", "words", "dropout", "pad")}

    @property
    def table(self) -> nn.Parameter:
        """[words, dim] what stands for each word, which a language model's head shares."""
        return self.net.get_input_embeddings().weight

    def tokens(self, ids: Tensor) -> Tensor:
        """[B, L] -> [B, L, dim], one for each token."""
        if ids.shape[1] > self.size:
            raise UserError(
                f"{ids.shape[1]} tokens are more than the {self.size} that {self.name} has places "
                "for: use a larger size, or cut texts"
            )
        seen = (ids != self.pad).long()
        return self.net(input_ids=ids, attention_mask=seen).last_hidden_state

    def features(self, ids: Tensor) -> Features:
        """Mean over the tokens that are there, and all of them, those of `pad` too."""
        local = self.tokens(ids)
        weight = (ids != self.pad)[..., None].to(local.dtype)
        pooled = (local * weight).sum(1) / weight.sum(1).clamp(min=1)
        return Features(pooled, local, (ids.shape[1], 1))

    def forward(self, ids: Tensor) -> Tensor:
        """[B, L] -> [B, dim]."""
        return self.features(ids).pooled


def _bert(text: Text) -> Any:
    library = _transformers()
    width, layers, heads = SIZES[text.name.partition("_")[2]]
    config = library.BertConfig(
        vocab_size=text.words,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=4 * width,
        max_position_embeddings=text.size,
        hidden_dropout_prob=text.dropout,
        attention_probs_dropout_prob=text.dropout,
        pad_token_id=text.pad,
    )
    return library.BertModel(config, add_pooling_layer=False)


def _gpt(text: Text) -> Any:
    library = _transformers()
    width, layers, heads = SIZES[text.name.partition("_")[2]]
    config = library.GPT2Config(
        vocab_size=text.words,
        n_embd=width,
        n_layer=layers,
        n_head=heads,
        n_positions=text.size,
        resid_pdrop=text.dropout,
        embd_pdrop=text.dropout,
        attn_pdrop=text.dropout,
        pad_token_id=text.pad,
        bos_token_id=None,
        eos_token_id=None,
        use_cache=False,
    )
    return library.GPT2Model(config)


def _transformers() -> Any:
    try:
        import transformers
    except ImportError as error:
        raise UserError(
            "encoders of texts need transformers, which is not installed; pip install "
            '"selftaught[hf]"'
        ) from error
    return transformers
