"""W-MSE (Ermolov et al., 2021), https://arxiv.org/abs/2007.06346."""

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from selftaught import dist
from selftaught.augment import View, Views
from selftaught.backbones import Image
from selftaught.errors import UserError
from selftaught.method import Batch, Few, Insight, Method, Needs, Pipeline, Recipe, ReferenceLoss
from selftaught.objectives.whitening import cholesky_whiten
from selftaught.parts import mlp
from selftaught.precision import full_precision
from selftaught.roles import Count, Fraction, HeadWidth, Share, Weight
from selftaught.sides import Size


class WMSE(Method):
    """Bring views together that were whitened, so that they cannot all come to one place.

    Groups of each view's embeddings, drawn anew at each step from the batch of all processes, are
    whitened alone. Gradient flows through the whitening and both views of a pair. (A published port
    stops it in one of the two, which loses half of it: that is `one_sided`.) Views are cropped
    before their colors change, in the paper's code afterwards. The recipe is that of CIFAR's 1000
    epochs: 500 steps of warm-up, and falls 50 and 25 epochs before the end.

    Args:
        backbone: image encoder.
        dim: width of the embedding.
        group: embeddings that are whitened together, at least 2 * dim; the whole batch if none.
        scale: area of the crops, as fractions of the image.

    Other Args:
        hidden: width of the projector's hidden layer.
        draws: how often the batch is divided anew for the mean of the losses; 4 in the paper for
            STL-10 and Tiny ImageNet.
        count: number of views, of which all pairs are compared; 2 or 4 in the paper.
        eps: weight of the identity in the covariance, in [0, 1].
        normalize: whether whitened embeddings become unit vectors before they are compared.
        one_sided: whether the second view of a pair is a constant, as in that port.
        jitter: strengths of brightness, contrast, saturation and hue.
        gray: probability of dropping the colors.
    """

    needs = Needs(kinds="any")
    recipe = Recipe(
        "adam",
        lr=3e-3,
        batch=512,
        scaling="none",
        weight_decay=1e-6,
        warmup=0.005,
        schedule="step",
        milestones=(0.95, 0.975),
        drop=0.2,
        decay_bias=True,
    )
    few = Few(hidden=256, dim=32, group=None, lr=0.001)
    insight = Insight("projector")

    def __init__(
        self,
        backbone: Image,
        hidden: HeadWidth = 1024,
        dim: HeadWidth = 64,
        group: Count | None = 128,
        draws: Count = 1,
        count: Count = 2,
        eps: Share = 0.0,
        normalize: bool = True,
        one_sided: bool = False,
        jitter: tuple[Weight, Weight, Weight, Weight] = (0.4, 0.4, 0.4, 0.1),
        gray: Share = 0.1,
        scale: tuple[Fraction, Fraction] = (0.2, 1.0),
    ):
        super().__init__()
        if group is not None and group < 2 * dim:
            raise UserError(
                f"group={group} is too few to whiten embeddings of width dim={dim}: there must be "
                f"at least twice as many, so set group to {2 * dim} or more, or dim to "
                f"{max(group // 2, 1)} or less"
            )
        if count < 2:
            raise UserError(f"w_mse compares count={count} views: at least 2")
        self.backbone, self.hidden, self.dim = backbone, hidden, dim
        self.group, self.draws, self.count, self.eps = group, draws, count, eps
        self.normalize, self.one_sided = normalize, one_sided
        self.jitter, self.gray, self.scale = jitter, gray, scale
        self.needs = replace(self.needs, batch=2 * dim)
        self.projector = mlp(backbone.dim, hidden, dim)

    def reference_losses(self, batch: int) -> tuple[ReferenceLoss, ...]:
        far = 2.0  # squared, of unit vectors at right angles, and of whitened coordinates
        return (ReferenceLoss(far, "2, views without correlation"),)

    def views(self, size: Size) -> Pipeline:
        view = View(size, self.scale, interpolation="bicubic", jitter=self.jitter, gray=self.gray)
        return Views((view,) * self.count)

    def loss(self, batch: Batch) -> Tensor:
        """views: `count` of [B, C, H, W], which go through the batch norms together."""
        h = self.projector(self.backbone(torch.cat(list(batch.views))))
        return self.compare(h.unflatten(0, (self.count, -1)))

    @full_precision
    def compare(self, h: Tensor) -> Tensor:
        """The loss of embeddings [count, B, dim]."""
        everyone = dist.gather(h.transpose(0, 1)).transpose(0, 1)
        return torch.stack([self.of_groups(everyone) for _ in range(self.draws)]).mean()

    def of_groups(self, h: Tensor) -> Tensor:
        """Mean distance of the views of all pairs, whitened in groups; h: [count, B, dim]."""
        size = h.shape[1]
        order = dist.from_first(torch.randperm(size).to(h.device))
        parts = order.tensor_split(max(1, size // (self.group or size)))
        white = torch.stack(
            [torch.cat([cholesky_whiten(view[part], self.eps) for part in parts]) for view in h]
        )
        pairs = [(white[i], white[j]) for i in range(self.count) for j in range(i)]
        return torch.stack([self._distance(a, b) for a, b in pairs]).mean()

    def _distance(self, a: Tensor, b: Tensor) -> Tensor:
        if self.one_sided:
            a = a.detach()
        if self.normalize:
            return 2 - 2 * F.cosine_similarity(a, b, dim=1).mean()
        return F.mse_loss(a, b)
