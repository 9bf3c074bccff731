"""MoCo v3 (Chen et al., 2021), https://arxiv.org/abs/2104.02057."""

import math
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from selftaught import augment
from selftaught.backbones import Image
from selftaught.backbones.image.create import plain_vit
from selftaught.method import Batch, Few, Insight, Method, Needs, Pipeline, Recipe, ReferenceLoss
from selftaught.objectives.metric import match
from selftaught.parts import ema, frozen_copy, mlp
from selftaught.precision import full_precision
from selftaught.roles import Blur, Count, Fraction, HeadWidth, Momentum, Temperature
from selftaught.schedule import cosine
from selftaught.sides import Size

OF_VITS = Recipe("adamw", lr=1.5e-4, weight_decay=0.1, warmup=40 / 300, decay_bias=True)
"""The paper's recipe for ViTs; the class has that for ResNets."""


class MoCoV3(Method):
    """Predict a momentum encoder's embedding of the other view, told from those of the whole batch.

    The defaults are those of a ResNet-50 and 100 epochs (momentum 0.996, learning rate 0.3 and
    weight decay 1.5e-6 for 1000), and of the paper's ViTs, which take 300 epochs: AdamW, learning
    rate 1.5e-4, weight decay 0.1, warm-up 0.133 (40 epochs). From scratch ViTs get the reference's
    fixed positions and initial weights; their patch projection stays random, without which training
    is unstable.

    Args:
        backbone: image encoder.
        temperature: of the softmax over similarities, above 0; none for the paper's, 0.2 for ViTs
            and 1 for others.
        momentum: of the momentum encoder (EMA) at the start, in [0, 1); it rises to 1.
        dim: width of the embedding.
        blur, solarize: probabilities in the first and the second view; 0,0 for small images.

    Other Args:
        hidden: width of the hidden layers of projector and predictor.
        layers: Linear layers of the projector; none for the paper's, 3 for ViTs and 2 for others.
        predictor_norm: whether a batch norm ends the predictor; in the paper for ViTs alone.
        freeze_patches: whether the patch projection of a ViT is never trained.
        scale: area of the crops, as fractions of the image; none for the paper's, 0.08,1 for ViTs
            and 0.2,1 for others.
    """

    needs = Needs(kinds="any", shards=True)
    recipe = Recipe("lars", lr=0.6, weight_decay=1e-6, warmup=0.1)
    few = Few(hidden=512, dim=128, temperature=0.2)
    insight = Insight(
        "projector", "predictor", (("target.0", "backbone"), ("target.1", "projector")), "other"
    )

    def __init__(
        self,
        backbone: Image,
        temperature: Temperature | None = None,
        momentum: Momentum = 0.99,
        hidden: HeadWidth = 4096,
        dim: HeadWidth = 256,
        layers: Count | None = None,
        predictor_norm: Literal["vits", "always", "never"] = "vits",
        freeze_patches: bool = True,
        scale: tuple[Fraction, Fraction] | None = None,
        blur: tuple[Blur, Blur] = (1.0, 0.1),
        solarize: tuple[Blur, Blur] = (0.0, 0.2),
    ):
        super().__init__()
        self.backbone, self.temperature, self.momentum = backbone, temperature, momentum
        self.hidden, self.dim, self.layers = hidden, dim, layers
        self.predictor_norm, self.freeze_patches = predictor_norm, freeze_patches
        self.scale, self.blur, self.solarize = scale, blur, solarize
        vit = plain_vit(backbone.net)
        if vit is not None:
            self.recipe = OF_VITS
        own = (1.0, (0.2, 1.0)) if vit is None else (0.2, (0.08, 1.0))
        self.softness = own[0] if temperature is None else temperature
        self.crops = own[1] if scale is None else scale
        if vit is not None and not backbone.trained:
            backbone.arrange("timm", positions="sincos")
            initialize(vit)
        if vit is not None and freeze_patches:
            vit.patch_embed.proj.requires_grad_(False)
        last_norm = predictor_norm == "always" or (predictor_norm == "vits" and vit is not None)
        widths = [hidden] * ((layers or (2 if vit is None else 3)) - 1)
        self.projector = mlp(
            backbone.dim, *widths, dim, bias=False, last_bias=False, last_norm=True
        )
        self.predictor = mlp(dim, hidden, dim, bias=False, last_bias=False, last_norm=last_norm)
        self.target = frozen_copy(self.online)

    @property
    def online(self) -> nn.Module:
        return nn.Sequential(self.backbone, self.projector)

    def reference_losses(self, batch: int) -> tuple[ReferenceLoss, ...]:
        guess = 4 * self.softness * math.log(batch)
        return (ReferenceLoss(guess, f"4 * {self.softness} ln {batch}, guessing in the batch"),)

    def views(self, size: Size) -> Pipeline:
        return augment.byol(size, self.crops, "bilinear", self.blur, self.solarize)

    def loss(self, batch: Batch) -> Tensor:
        """views: two [B, C, H, W]; each goes through the batch norms alone."""
        q1, q2 = (self.predictor(self.online(x)) for x in batch.views)
        with torch.no_grad():
            k1, k2 = (self.target(x) for x in batch.views)
        return self.contrast(q1, k2) + self.contrast(q2, k1)

    @full_precision
    def contrast(self, q: Tensor, k: Tensor) -> Tensor:
        """2 T times InfoNCE (Algorithm 1), so that the gradient's scale does not follow T."""
        q, k = F.normalize(q, dim=1), F.normalize(k, dim=1)
        return 2 * self.softness * match(q, k, self.softness)

    def after_step(self) -> None:
        # the reference does this at the start of the next step, with that one's momentum
        ema(self.target, self.online, cosine(self.momentum, 1.0, self.progress))


def initialize(vit: Any) -> None:
    """The reference's weights: Xavier's, for query, key, value and the patches each on its own."""
    for name, module in vit.named_modules():
        if isinstance(module, nn.Linear):
            rows, columns = module.weight.shape
            fan_out = rows // 3 if name.endswith("qkv") else rows
            bound = math.sqrt(6 / (fan_out + columns))
            nn.init.uniform_(module.weight, -bound, bound)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    if vit.cls_token is not None:
        nn.init.normal_(vit.cls_token, std=1e-6)
    patches = vit.patch_embed.proj
    bound = math.sqrt(6 / (patches.weight[0].numel() + vit.embed_dim))
    nn.init.uniform_(patches.weight, -bound, bound)
    if patches.bias is not None:
        nn.init.zeros_(patches.bias)
