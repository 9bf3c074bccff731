"""RotNet: the four turns of an image, and the loss over all of them."""

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


def check(golden: Golden) -> None:
    image = golden["image"].permute(2, 0, 1)
    turned = rotations(torch.stack([image, image.flip(0)])).permute(0, 2, 3, 1)
    angles = {int(n): x for n, x in golden.starting("rot").items()}
    assert len(angles) == 4
    for degrees, expected in angles.items():
        assert torch.equal(turned[degrees // 90], expected)
        assert torch.equal(turned[4 + degrees // 90], expected.flip(2)), "image-major"

    logits = golden.leaf("logits")
    method = Rotation(Given(logits))  # type: ignore[arg-type]
    method.classifier = nn.Identity()  # type: ignore[assignment]
    images = torch.rand(len(logits) // 4, *image.shape)
    loss = method.loss(Batch([images], torch.arange(len(images))))
    close(loss, golden["loss"])
    close(torch.autograd.grad(loss, logits)[0], golden["grad_logits"])
