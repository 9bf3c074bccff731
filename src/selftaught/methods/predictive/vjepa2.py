"""V-JEPA 2 (Assran et al., 2025), https://arxiv.org/abs/2506.09985."""

from collections.abc import Sequence

from torch import Tensor

from selftaught import augment
from selftaught.backbones.video.encoder import ClipEncoder
from selftaught.backbones.video.latents import boxes, latents, predictor_of
from selftaught.masks import Blocks
from selftaught.method import Batch, Few, Insight, Method, Needs, Pipeline, Recipe, ReferenceLoss
from selftaught.objectives.masked import latent_distance
from selftaught.parts import ema, frozen_copy
from selftaught.roles import BlockArea, Count, DecoderWidth, Momentum, Number, Positive
from selftaught.sides import Size


class VJEPA2(Method):
    """V-JEPA with rotary positions, and a rate, weight decay and EMA that stay as they are.

    The recipe is that of the paper's 252,000 steps: 12,000 of warm-up, and as many at the end in
    which the rate falls, for which the paper takes longer and larger clips. Its encoders' rotary
    positions are `tiled`, as the released weights want them; `--positions rotary` turns pairs of
    channels by one angle.

    Args:
        backbone: of clips. From scratch it gets the reference's initial weights.
        predictor_dim: width of the predictor, a multiple of its heads.
        predictor_depth: number of the predictor's blocks.
        momentum: of the target encoder (EMA teacher).
        small_boxes, large_boxes: number of boxes of each set.

    Other Args:
        small_area, large_area: of a box, as a fraction of a frame.
        predictor_heads: of its attention; as many as the backbone's if none.
        predictor_mlp_ratio: width of its MLPs, as a multiple of `predictor_dim`.
        aspect: smallest and largest height / width of a box.
        power: of the distance between predicted and true features.
    """

    recipe = Recipe(
        "adamw",
        lr=5.25e-4,
        batch=3072,
        scaling="sqrt",
        weight_decay=0.04,
        schedule="constant",
        warmup=12 / 252,
        warmup_from=0.19,
        cooldown=12 / 252,
        end=1.9e-3,
        step_offset=1,
    )
    few = Few(predictor_dim=64, predictor_depth=2, predictor_heads=2)
    needs = Needs(backbone="vit_small_rope", kinds=("clip",), batch=1, views="own")
    insight = Insight(copies=(("target", "backbone"),))
    backbone: ClipEncoder  # pyrefly: ignore[bad-override]

    def __init__(
        self,
        backbone: ClipEncoder,
        predictor_dim: DecoderWidth = 384,
        predictor_depth: Number = 12,
        momentum: Momentum = 0.99925,
        small_boxes: Count = 8,
        large_boxes: Count = 2,
        small_area: BlockArea = 0.15,
        large_area: BlockArea = 0.7,
        predictor_heads: Count | None = None,
        predictor_mlp_ratio: Positive = 4.0,
        aspect: tuple[Positive, Positive] = (0.75, 1.5),
        power: Positive = 1.0,
    ):
        super().__init__()
        self.predictor_dim, self.predictor_depth = predictor_dim, predictor_depth
        self.predictor_heads, self.predictor_mlp_ratio = predictor_heads, predictor_mlp_ratio
        self.momentum, self.aspect, self.power = momentum, aspect, power
        self.small_boxes, self.large_boxes = small_boxes, large_boxes
        self.small_area, self.large_area = small_area, large_area
        self.backbone = backbone
        self.predictor = predictor_of(
            backbone, predictor_dim, predictor_depth, predictor_heads, predictor_mlp_ratio
        )
        self.target = frozen_copy(backbone)

    def reference_losses(self, batch: int) -> tuple[ReferenceLoss, ...]:
        return (ReferenceLoss(0.0, "all features are the same", collapsed=True),)

    def views(self, size: Size) -> Pipeline:
        return augment.crop(size, scale=(0.3, 1.0), ratio=(0.75, 1.35), interpolation="bilinear")

    def loss(self, batch: Batch) -> Tensor:
        """views: one [B, C, T, H, W]. Masks are drawn here: their sizes belong to the batch."""
        (clips,) = batch.views
        return self.distance(clips, self.drawn(clips))

    def drawn(self, clips: Tensor) -> list[Blocks]:
        """What is seen and what is predicted."""
        sets = (self.small_boxes, self.small_area), (self.large_boxes, self.large_area)
        return boxes(self.backbone, clips, sets, self.aspect)

    def distance(self, clips: Tensor, parts: Sequence[Blocks]) -> Tensor:
        """Between predicted and true features of what `parts` hide (equation 1)."""
        found = latents(self.backbone, self.target, self.predictor, clips, parts)
        return latent_distance(*found, self.power)

    def after_step(self) -> None:
        ema(self.target, self.backbone, self.momentum)

    @property
    def encoder(self) -> ClipEncoder:
        return self.target
