"""Un-Mix: both mixtures, and MoCo's loss, gradient and queue with them, one way and both."""

from typing import Any
from unittest.mock import patch

import torch
from torch import nn

from selftaught.engine import unmix
from selftaught.engine.unmix import mix_region, mix_whole, with_mixed
from selftaught.method import Batch
from selftaught.methods.contrastive.moco_v2 import MoCoV2
from selftaught.parts import frozen_copy
from tests.adapters import Golden, close
from tests.adapters.moco_v2 import Encoder


def check(golden: Golden) -> None:
    x = golden["im1"]
    whole = mix_whole(x, float(golden["lam_global"]))
    close(whole.images, golden["mixed_global"])
    close(whole.images.flip(0), golden["mixed_global_flip"])
    top, left, bottom, right = golden["bbox"].tolist()  # the reference's order
    region = mix_region(x, (top, bottom, left, right))
    close(region.images, golden["mixed_region"])
    close(region.share, golden["lam_region"])
    for kind in ("sym", "asym"):
        for name, mixed in (("global", whole), ("region", region)):
            _check_moco(golden, kind, name, mixed)


def _check_moco(golden: Golden, kind: str, name: str, mixed: unmix.Mixed) -> None:
    weight, queue = golden[f"{kind}_enc_w"], golden[f"{kind}_queue0"]
    linear = nn.Linear(*weight.T.shape)
    method: Any = MoCoV2(
        Encoder(3, 4),  # type: ignore[arg-type]
        temperature=golden.hyper["T"],
        dim=len(weight),
        queue=queue.shape[1],
        symmetric=kind == "sym",
    )
    method.backbone, method.projector = nn.Flatten(), linear
    method = method.double()
    linear.load_state_dict({"weight": weight, "bias": golden[f"{kind}_enc_b"]})
    method.target = frozen_copy(method.online)
    method.negatives.items.copy_(queue.T)
    views = [golden["im1"], golden["im2"]]
    with patch.object(unmix, "mix", lambda *_: mixed):
        terms = with_mixed(method, 0.5)(Batch(views, torch.arange(len(views[0]))))
    loss = sum(terms.values())
    close(loss, golden[f"{kind}_loss_{name}"])
    close(torch.autograd.grad(loss, linear.weight)[0], golden[f"{kind}_grad_w_{name}"])
    close(method.negatives.items.T, golden[f"{kind}_queue_after_{name}"])
