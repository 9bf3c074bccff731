"""RotNet: the four turns of an image, and the loss over all of them."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from selftaught.method import Batch
from selftaught.methods.pretext.rotation import Rotation, rotations
from tests.adapters import Golden, close


class Given(nn.Module):
    """Stands for the backbone: whatever it sees, its features are the golden logits."""

    def __init__(self, features: Tensor):
        super().__init__()
        self.features, self.dim = features, features.shape[1]

    def forward(self, x: Tensor) -> Tensor:
        assert len(x) == len(self.features)
        return self.features


def on_square(turn: Callable[[Tensor], Tensor], images: Tensor) -> list[Tensor]:
    """What `turn` makes of images [B, C, H, W], laid in a corner of squares and cut out again."""
    count, _, height, width = images.shape
    side = max(height, width)
    shown = torch.ones(count, 1, height, width, dtype=images.dtype)
    pixels = torch.cat([images, shown], 1)
    square = torch.nn.functional.pad(pixels, (0, side - width, 0, side - height))
    return [x[:-1][:, x[-1].bool().any(1)][:, :, x[-1].bool().any(0)] for x in turn(square)]


def check(golden: Golden) -> None:
    image = golden["image"].permute(2, 0, 1)
    turned = on_square(rotations, torch.stack([image, image.flip(0)]))
    angles = {int(n): x for n, x in golden.starting("rot").items()}
    assert len(angles) == 4
    for degrees, expected in angles.items():
        first, second = (turned[i + degrees // 90].permute(1, 2, 0) for i in (0, 4))
        assert torch.equal(first, expected)
        assert torch.equal(second, expected.flip(2)), "image-major"

    logits = golden.leaf("logits")
    method = Rotation(Given(logits))  # type: ignore[arg-type]
    method.classifier = nn.Identity()  # type: ignore[assignment]
    images = torch.rand(len(logits) // 4, len(image), 5, 5)
    loss = method.loss(Batch([images], torch.arange(len(images))))
    close(loss, golden["loss"])
    close(torch.autograd.grad(loss, logits)[0], golden["grad_logits"])
