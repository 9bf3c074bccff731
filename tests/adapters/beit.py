"""BEiT: masks replayed and their statistics, the paper's ViT end to end, both tokenizers."""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from selftaught.backbones import Image
from selftaught.backbones.image.tokenizer import DallEBlock, map_pixels, unmap_pixels
from selftaught.masks.blocks import blocks
from selftaught.methods.masked.beit import BEiT, told
from selftaught.methods.masked.discrete_vae import DiscreteVAE, Residual
from tests.adapters import NUMBER, Golden, close
from tests.replay import Recorded
from tests.vits import beit


def check(golden: Golden) -> None:
    for name in sorted({n.split(".")[1] for n in golden.arrays if n.startswith("mask.")}):
        given = golden.own(f"mask.{name}.", f"stat.{name}.")
        _replay(golden, name, _options(given))
        _statistics(golden, name, _options(given))
    _end_to_end(golden)
    _dvae(golden)
    _dalle(golden)


def _options(given: dict[str, Any]) -> dict[str, Any]:
    low = given["min_aspect"]
    return {
        "grid": (given["H"], given["W"]),
        "count": given["num_masking_patches"],
        "smallest": given["min_num_patches"],
        "largest": given["max_num_patches"] or math.inf,
        "aspect": (low, 1 / low),
    }


def _replay(golden: Golden, name: str, options: dict[str, Any]) -> None:
    rows, at = golden[f"mask.{name}.draws"], golden[f"mask.{name}.offsets"].tolist()
    for i, expected in enumerate(golden[f"mask.{name}.masks"]):
        draws = Recorded(rows[at[i] : at[i + 1]])
        assert torch.equal(torch.from_numpy(blocks(draws, **options)), expected.bool())
        assert draws.exhausted()


def _statistics(golden: Golden, name: str, options: dict[str, Any]) -> None:
    """Numbers of hidden patches, and how often each place is, against a sample of ours: distances
    that happen by chance once in 1e8 tests."""
    expected = golden[f"stat.{name}.count_hist"].numpy()
    runs, draws = int(expected.sum()), np.random.default_rng(0)
    drawn = np.stack([blocks(draws, **options) for _ in range(runs)])
    ours = np.bincount(drawn.sum((1, 2)), minlength=len(expected))
    assert len(ours) == len(expected)
    assert np.abs(ours.cumsum() - expected.cumsum()).max() / runs < (-np.log(5e-10) / runs) ** 0.5
    often = golden[f"stat.{name}.freq"].numpy()
    error = np.sqrt(2 * often * (1 - often) / runs)
    assert np.all(np.abs(drawn.mean(0) - often) < 6 * error)


def _end_to_end(golden: Golden) -> None:
    hyper, weights = golden.hyper, golden.starting("mim.param.")
    own = {n: w for n, w in weights.items() if n == "mask_token" or n.startswith("lm_head.")}
    encoder = {n: w for n, w in weights.items() if n not in own}
    shape = hyper["img"], hyper["patch"], hyper["heads"], hyper["mlp_ratio"]
    image = beit(encoder, *shape, golden["mim.imgs"].shape[1])
    method = BEiT(
        image, None, len(own["lm_head.bias"]), hyper["num_mask"], hyper["min_num"]
    ).double()
    tokens = {f"backbone.net.{n}": w for n, w in encoder.items()}
    method.load_state_dict(own | tokens, strict=False)

    images, hidden = golden.leaf("mim.imgs"), golden["mim.mask"]
    logits = method.predict(images, hidden)
    close(logits, golden["mim.logits_all"])
    asked, ids = logits[hidden.flatten(1)], golden["mim.token_ids"][hidden.flatten(1)]
    close(asked, golden["mim.logits"])
    loss = told(asked, ids)
    close(loss, golden["mim.loss"])
    close((asked.argmax(1) == ids).double().mean(), golden["mim.acc"])
    loss.backward()
    close(images.grad, golden["mim.grad_imgs"])
    close(method.mask_token.grad, golden["mim.grad_mask_token"])


class Stack(nn.Module):
    """The reference's encoder, up to its last layer, with a timm model's functions."""

    def __init__(self, weights: dict[str, Tensor], layers: int):
        super().__init__()
        self.encoder = nn.Sequential()
        for i in range(layers):
            given = weights.get(f"encoder.{i}.0.weight")
            if given is not None:
                down = nn.Conv2d(given.shape[1], given.shape[0], given.shape[2], 2, 1)
                self.encoder.append(nn.Sequential(down, nn.ReLU()))
            else:
                self.encoder.append(Residual(weights[f"encoder.{i}.net.0.weight"].shape[0]))
        self.num_features = self.encoder[-1].net[-1].out_channels

    def forward_features(self, x: Tensor) -> Tensor:
        return self.encoder(x)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        return x.mean((2, 3))


def _dvae(golden: Golden) -> None:
    weights = golden.starting("dvae.param.")
    layers = 1 + max(int(n.split(".")[1]) for n in weights if n.startswith("encoder."))
    net = Stack(weights, layers - 1)
    image = Image("test_resnet", golden["dvae.imgs"].shape[-1])
    image.net, image.dim, image.local_dim = net, net.num_features, net.num_features
    image.mean, image.std = (0.0,) * 3, (1.0,) * 3
    vocabulary, dim = weights["codebook.weight"].shape
    width = weights["decoder.0.0.bias"].shape[0]
    temperature = golden.setting("dvae.recon", "tau", f"tau={NUMBER}")
    method = DiscreteVAE(image, vocabulary, dim, width, (temperature,) * 2, kl="reference").double()
    renamed = {
        n.replace(f"encoder.{layers - 1}.", "tokenizer.head.").replace(
            "encoder.", "tokenizer.backbone.net.encoder."
        ): w
        for n, w in weights.items()
    }
    method.load_state_dict(renamed)

    images = golden.leaf("dvae.imgs")
    logits = method.tokenizer.logits(images)
    close(logits, golden["dvae.logits"])
    assert torch.equal(method.tokenizer(golden["dvae.imgs"]), golden["dvae.indices"])
    painted, error, divergence = method.terms(logits, golden["dvae.gumbel"], images)
    close(painted, golden["dvae.recon"])
    close(divergence, golden["dvae.kl_term"])
    loss = error + golden.setting("dvae.loss", "kl_weight", rf"\+ {NUMBER}\*KL") * divergence
    close(loss, golden["dvae.loss"])
    loss.backward()
    close(images.grad, golden["dvae.grad_imgs"])


def _dalle(golden: Golden) -> None:
    """The reference computes its convolutions in float32."""
    weights = golden.starting("dalle.block.param.")
    x, y = golden["dalle.block.x"], golden["dalle.block.y"]
    layers = int(golden.setting("dalle.block.y", "n_layers", r"n_layers=(\d+)"))
    block = DallEBlock(x.shape[1], y.shape[1], layers).double()
    block.load_state_dict(weights)
    close(block(x), y, rtol=1e-6, atol=1e-6)
    pixels = golden["dalle.pixels"]
    close(map_pixels(pixels), golden["dalle.map_pixels"], rtol=1e-6)
    close(unmap_pixels(1.4 * pixels - 0.2), golden["dalle.unmap_pixels"], rtol=1e-6, atol=1e-7)
