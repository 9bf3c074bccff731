"""Encoders of texts as a folder that transformers reads, and that folder read back."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor

from selftaught import kinds
from selftaught.backbones.text.encoder import Text
from selftaught.data.text.tokenizer import FILE
from selftaught.export.quiet import quiet
from selftaught.kinds.text import Text as Texts

TRIED = (
    "a text",
    "Some Words, and numbers: 12.5 %!",
    "\u00c4rger \u2014 \u4e2d\u6587 \U0001f600",
    "words of a text that is longer than views are " * 40,
)
"""What tokens are compared on."""


def write(encoder: Text, folder: Path, fp16: bool = False) -> None:
    """config.json, model.safetensors, and the files of the tokenizer.

    Args:
        encoder: whose network is written; it knows the tokenizer that it was trained with.
        folder: an empty one that is there.
        fp16: whether weights are written in 16 bits.
    """
    from transformers import PreTrainedTokenizerFast

    cut, net = _kind(encoder).cut, copy.deepcopy(encoder.net).cpu()
    unknown = {} if cut.unknown is None else {"unk_token": cut.unknown}
    with quiet():
        (net.half() if fp16 else net.float()).save_pretrained(folder)
        cut.save(folder)
        PreTrainedTokenizerFast(
            tokenizer_file=str(folder / FILE),
            model_max_length=encoder.size,
            model_input_names=["input_ids", "attention_mask"],
            pad_token=cut.special("pad"),
            cls_token=cut.special("start"),
            sep_token=cut.special("end"),
            mask_token=cut.special("mask"),
            **unknown,
        ).save_pretrained(folder)


def read(folder: Path, encoder: Text) -> Callable[[Tensor], dict[str, Tensor]]:
    """That folder as a function of ids [B, L], run by transformers alone.

    Raises:
        ValueError: its tokenizer cuts a text otherwise than this package does.
    """
    from transformers import AutoModel, AutoTokenizer

    with quiet():
        net = AutoModel.from_pretrained(folder, local_files_only=True).eval().float()
        tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    view = _kind(encoder).plain(encoder.size)
    for said in TRIED:
        ids = tokenizer(said, truncation=True, padding="max_length")["input_ids"]
        if ids != view(said).tolist():
            raise ValueError(f"its tokenizer makes other tokens of {said[:40]!r}")

    def run(ids: Tensor) -> dict[str, Tensor]:
        seen = (ids != encoder.pad).long()
        local = net(input_ids=ids, attention_mask=seen).last_hidden_state
        weight = seen[..., None].to(local.dtype)
        return {"pooled": (local * weight).sum(1) / weight.sum(1).clamp(min=1), "local": local}

    return run


def _kind(encoder: Text) -> Texts:
    kind = kinds.of(encoder)
    assert isinstance(kind, Texts)
    return kind
