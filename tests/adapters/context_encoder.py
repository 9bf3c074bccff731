"""Context encoders: what is hidden, how it is filled, each loss, the gradient, random regions."""

from typing import Any

import torch
from torch import Tensor, nn

from selftaught.backbones import Features
from selftaught.method import Batch
from selftaught.methods.pretext import inpainting
from selftaught.methods.pretext.inpainting import ContextEncoder
from tests.adapters import Golden, close


class Seeing(nn.Module):
    """Stands for the backbone, and keeps what it is shown; its colors are in [-1, 1] already."""

    dim = local_dim = 1

    def __init__(self, images: Tensor):
        super().__init__()
        self.channels, self.size = images.shape[1], images.shape[-1]
        self.mean = self.std = (0.5,) * self.channels

    def features(self, x: Tensor) -> Features:
        self.seen = x
        return Features(x.mean((2, 3)), x.mean(1).flatten(1)[..., None], (x.shape[2], x.shape[3]))


class Painter(nn.Module):
    """Stands for the decoder: whatever it is given, it paints `painted`."""

    def __init__(self, painted: Tensor):
        super().__init__()
        self.painted = painted

    def forward(self, x: Tensor) -> Tensor:
        return self.painted


class Judge(nn.Module):
    """Stands for the discriminator: the golden logits, and for what is painted a slope of them."""

    def __init__(self, real: Tensor, of_real: Tensor, of_fake: Tensor, slope: Tensor):
        super().__init__()
        self.real, self.of_real, self.of_fake, self.slope = real, of_real, of_fake, slope

    def forward(self, x: Tensor) -> Tensor:
        if torch.equal(x.double(), self.real):
            return self.of_real
        return self.of_fake + (self.slope * (x - x.detach())).flatten(1).sum(1)


def check(golden: Golden) -> None:
    hyper = golden.hyper
    image, overlap = golden["image"], hyper["ov"]
    assert image.shape[-1] == hyper["fine"]
    real, fake = golden["real_center"], golden.leaf("fake")
    close(inpainting.center(image), real)
    share = hyper["wtl2"]

    method: Any = ContextEncoder(
        Seeing(image),  # type: ignore[arg-type]
        overlap=overlap,
        adversarial=1 - share,
        width=16,
        fill="reference",
    ).double()
    weight = inpainting.border_weight(real.shape[-1], overlap, method.border).double()
    close((share * weight).expand_as(real), golden["l2_weight"])
    of_real, of_fake = (golden[name].logit() for name in ("d_real", "d_fake"))
    # what turns the slope of the generator's loss in the logits into that in what is painted
    slope = -golden["adv_grad"] * (len(fake) / (-of_fake).sigmoid())[:, None, None, None]
    method.decoder = Painter(fake)
    method.discriminator = Judge(real, of_real, of_fake, slope)
    terms = method.loss(Batch([image], torch.arange(len(image))))
    close(method.backbone.seen, golden["context"])
    close(terms["squared"], share * golden["errG_l2"])
    close(terms["telling"], golden["errD"])
    close(terms["fooling"], (1 - share) * golden["errG_adv"])
    close(terms["squared"] + terms["fooling"], golden["errG_total"])
    (terms["squared"] + terms["border"] + terms["fooling"]).backward()
    close(fake.grad, golden["grad_fake"])
    _regions(golden)


def _regions(golden: Golden) -> None:
    """Which cut-outs of the recorded pattern are taken."""
    pattern = golden["random.pattern"].numpy()
    places, expected = golden["random.pos"].tolist(), golden["random.accepted"].tolist()
    size = golden.given("random.")["fine"]
    cuts = [pattern[y : y + size, x : x + size] for y, x in places]
    assert [inpainting.accepted(cut) for cut in cuts] == expected
