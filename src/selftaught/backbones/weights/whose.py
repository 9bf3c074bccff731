"""Whose weights a file holds, told by what training has left beside the encoder."""

import re
from collections.abc import Collection

from selftaught.backbones.weights.layouts import Layout

TRAININGS = (
    ("lightly-train", r"embedding_model\.|\blightly_train\."),
    ("MoCo v3", r"base_encoder\.", r"momentum_encoder\."),
    ("MoCo", r"encoder_q\."),
    ("I-JEPA", r"target_encoder\.", r"predictor\.", r"encoder\.[^ ]*patch_embed"),
    ("MSN", r"target_encoder\.", r"prototypes"),
    ("SimMIM", r"encoder\.mask_token", r"decoder\.0\."),
    ("SwAV", r"prototypes\.", r"projection_head\."),
    ("iBOT", r"masked_embed|head\.last_layer2"),
    ("DINOv2", r"dino_head\."),
    ("DINO", r"head\.last_layer"),
    ("DINOv3", r"storage_tokens"),
    ("DINOv2", r"ls1\.gamma$", r"mask_token$"),
    ("DINOv2", r"layer_scale1\.lambda1", r"encoder\.layer"),
    ("DINOv3", r"embeddings\.register_tokens", r"(?<!encoder\.)layer\.0\."),
    ("MAE", r"mask_token", r"decoder_(blocks|embed|pred)|decoder\.decoder_"),
    ("BEiT or Data2Vec", r"relative_position_bias_table", r"gamma_1|lambda_1"),
    ("BYOL", r"online_(encoder|network)"),
    ("DeepCluster", r"top_layer\.|sobel\."),
    ("Barlow Twins", r"backbone\.", r"projector\.", r"(^|\.)bn\.running_mean"),
    ("solo-learn", r"backbone\.", r"projector\.|momentum_projector\.", r"(^|\.)classifier\."),
    ("VICReg or SimCLR", r"(backbone|encoder)\.", r"projector\.|projection_head\."),
    ("V-JEPA", r"mask_tokens", r"predictor\."),
    ("a run of selftaught", r"^method\."),
)
"""Trainings, and patterns that the names of their checkpoints all match."""


def training(names: Collection[str]) -> str:
    """The training that a checkpoint is of; empty where nothing but a network is left."""
    for name, *patterns in TRAININGS:
        if all(any(re.search(pattern, n) for n in names) for pattern in patterns):
            return name
    return ""


def as_timm_has_it(author: str, layout: Layout | None) -> bool:
    """Whether weights of this kind want images as timm's entry of their network says.

    Those of most papers and of torchvision want ImageNet's statistics, whatever timm's own want.
    """
    return (layout is not None and bool(layout.padded)) or author.startswith("BEiT")


def whose(names: Collection[str], library: str) -> str:
    """In words: the training and the library whose names the layers have, where they tell."""
    trained = training(names)
    by = f"by the names of {library}"
    return f"{trained}, {by}" if trained else f"weights {by}"
