"""Encoders of texts as a folder that transformers reads, and that folder read back."""

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from selftaught.backbones.text.encoder import Text
from selftaught.data.text.tokenizer import Tokenizer
from selftaught.export.targets import quiet


def write(encoder: Text, tokenizer: Tokenizer, folder: Path, fp16: bool = False) -> None:
    """config.json, model.safetensors, and the files of the tokenizer.

    Args:
        encoder: whose network is written.
        tokenizer: that it was trained with.
        folder: an empty one that is there.
        fp16: whether weights are written in 16 bits.
    """
    from transformers import PreTrainedTokenizerFast

    net = copy.deepcopy(encoder.net).cpu()
    with quiet():
        (net.half() if fp16 else net.float()).save_pretrained(folder)
        tokenizer.save(folder)
        PreTrainedTokenizerFast(
            tokenizer_file=str(folder / "tokenizer.json"),
            model_max_length=encoder.size,
            model_input_names=["input_ids", "attention_mask"],
            pad_token=tokenizer.special("pad"),
            cls_token=tokenizer.special("start"),
            sep_token=tokenizer.special("end"),
            mask_token=tokenizer.special("mask"),
            **({"unk_token": unknown} if (unknown := tokenizer.unknown) else {}),
        ).save_pretrained(folder)


def read(folder: Path) -> Callable[[Sequence[str]], dict[str, Tensor]]:
    """That folder as a function of texts, run by transformers alone.

    It gives ids [B, L], and features pooled [B, D] and local [B, L, D].
    """
    from transformers import AutoModel, AutoTokenizer

    with quiet():
        net = AutoModel.from_pretrained(folder, local_files_only=True).eval().float()
        tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)

    @torch.inference_mode()
    def run(texts: Sequence[str]) -> dict[str, Tensor]:
        given = tokenizer(list(texts), padding=True, truncation=True, return_tensors="pt")
        local = net(**given).last_hidden_state
        weight = given["attention_mask"][..., None].to(local.dtype)
        return {
            "ids": given["input_ids"],
            "pooled": (local * weight).sum(1) / weight.sum(1),
            "local": local,
        }

    return run
