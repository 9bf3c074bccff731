"""Barlow Twins (Zbontar et al., 2021), https://arxiv.org/abs/2103.03230."""

from torch import Tensor, nn

from selftaught import augment, dist
from selftaught.backbones import Image
from selftaught.method import Batch, Few, Insight, Method, Needs, Pipeline, Recipe, ReferenceLoss
from selftaught.parts import mlp
from selftaught.precision import full_precision
from selftaught.roles import Blur, Count, HeadWidth, TermWeight
from selftaught.sides import Size


class BarlowTwins(Method):
    """Make the cross-correlation of two views' embeddings the identity.

    The reference code sums the correlation over processes outside the gradient, so that it trains
    with 1 / processes of the gradient. LARS hides that for weights, not for biases and norms. The
    recipe is the reference code's, whose warm-up has 10 epochs always: 0.1 of 100 epochs, 0.01 of
    the paper's 1000.

    Args:
        backbone: image encoder.
        redundancy: weight of the elements off the diagonal.
        dim: width of the embedding.
        blur, solarize: probabilities in the first and the second view; 0,0 for small images.

    Other Args:
        hidden: width of the projector's hidden layers.
        layers: Linear layers of the projector.
        reference_gradient: whether to divide the gradient by the number of processes, as the
            reference code does.
    """

    needs = Needs(kinds="any")
    recipe = Recipe("lars", lr=0.2, weight_decay=1e-6, warmup=0.1, end=0.001, bias_lr=0.024)
    few = Few(hidden=512, dim=512, lr=0.001)
    insight = Insight("projector")

    def __init__(
        self,
        backbone: Image,
        redundancy: TermWeight = 0.0051,
        hidden: HeadWidth = 8192,
        dim: HeadWidth = 8192,
        layers: Count = 3,
        reference_gradient: bool = False,
        blur: tuple[Blur, Blur] = (1.0, 0.1),
        solarize: tuple[Blur, Blur] = (0.0, 0.2),
    ):
        super().__init__()
        self.backbone, self.redundancy = backbone, redundancy
        self.hidden, self.dim, self.layers = hidden, dim, layers
        self.reference_gradient, self.blur, self.solarize = reference_gradient, blur, solarize
        self.projector = mlp(
            backbone.dim, *[hidden] * (layers - 1), dim, bias=False, last_bias=False
        )
        self.norm = nn.BatchNorm1d(dim, affine=False)

    def reference_losses(self, batch: int) -> tuple[ReferenceLoss, ...]:
        return (ReferenceLoss(self.dim, f"dim = {self.dim}, views without correlation"),)

    def views(self, size: Size) -> Pipeline:
        return augment.byol(size, blur=self.blur, solarize=self.solarize)

    def loss(self, batch: Batch) -> Tensor:
        """views: two [B, C, H, W]; each goes through the batch norms alone."""
        z1, z2 = (self.projector(self.backbone(x)) for x in batch.views)
        return self.compare(z1, z2)

    @full_precision
    def compare(self, z1: Tensor, z2: Tensor) -> Tensor:
        """The loss of embeddings [B, dim]."""
        loss = decorrelation(self.norm(z1), self.norm(z2), self.redundancy)
        if self.reference_gradient:
            loss = loss.detach() + (loss - loss.detach()) / dist.world()
        return loss


def decorrelation(a: Tensor, b: Tensor, redundancy: float) -> Tensor:
    """Squared distance of the cross-correlation c of two views from the identity (Eq. 1).

    With more dimensions than samples, the sum of all c_ij^2 is that of the products of two B x B
    Gram matrices, and nothing of size D x D is made.

    Args:
        a, b: [B, D] embeddings, standardized over the batches of all processes.
        redundancy: weight of the elements off the diagonal.
    """
    count = len(a) * dist.world()
    diagonal = dist.total((a * b).sum(0)) / count
    if count < a.shape[1]:
        a, b = dist.gather(a), dist.gather(b)
        everything = ((a @ a.mT) * (b @ b.mT)).sum() / count**2
    else:
        everything = (dist.total(a.mT @ b) / count).square().sum()
    off = everything - diagonal.square().sum()
    return (diagonal - 1).square().sum() + redundancy * off
