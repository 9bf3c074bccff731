"""V-JEPA (Bardes et al., 2024), https://arxiv.org/abs/2404.08471."""

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
from selftaught.schedule import linear
from selftaught.sides import Size


class VJEPA(Method):
    """From the features of a part of a clip, predict those that an EMA teacher gives the rest.

    Two sets of boxes are hidden for as long as the clip lasts, many small ones and few large ones;
    all that is in none of them is seen. The recipe is that of the paper's ViT-L: 300 epochs, of
    which 40 are warm-up, of a schedule a quarter longer. The reference has no rule for how the
    learning rate follows the batch, here it follows its square root; and it does not clip before
    the end of the warm-up.

    Args:
        backbone: of clips. From scratch it gets the reference's initial weights.
        predictor_dim: width of the predictor, a multiple of its heads.
        predictor_depth: number of the predictor's blocks.
        momentum: of the target encoder (EMA teacher), at the start and at the end.
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
        lr=6.25e-4,
        batch=3072,
        scaling="sqrt",
        weight_decay=(0.04, 0.4),
        warmup=40 / 300,
        warmup_from=0.32,
        end=1.6e-3,
        horizon=1.25,
        step_offset=1,
        clip=10.0,
        clip_by="module",
    )
    few = Few(predictor_dim=64, predictor_depth=2, predictor_heads=2)
    needs = Needs(backbone="vit_small", kinds=("clip",), batch=1, views="own", shards=True)
    insight = Insight(copies=(("target", "backbone"),))
    backbone: ClipEncoder  # pyrefly: ignore[bad-override]

    def __init__(
        self,
        backbone: ClipEncoder,
        predictor_dim: DecoderWidth = 384,
        predictor_depth: Number = 12,
        momentum: tuple[Momentum, Momentum] = (0.998, 1.0),
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
        ema(self.target, self.backbone, linear(*self.momentum, self.progress))

    @property
    def encoder(self) -> ClipEncoder:
        return self.target
