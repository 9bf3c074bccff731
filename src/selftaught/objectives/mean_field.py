"""Dense conditional random fields: segmentations that follow an image's edges."""

import torch
from torch import Tensor


def mean_field(
    logits: Tensor,
    image: Tensor,
    iterations: int = 10,
    smooth: float = 3.0,
    smooth_xy: float = 1.0,
    edges: float = 4.0,
    edges_xy: float = 67.0,
    edges_rgb: float = 3.0,
) -> Tensor:
    """Mean field of the fully connected CRF of Krähenbühl & Koltun (2011), computed exactly.

    Two Potts terms, of pixels that are near and of pixels that are near and of one color; their
    kernels, which hold each pixel itself too, are normalized by the roots of both sums, as in the
    authors' code. That code approximates the kernels on a lattice; here all pairs of pixels are
    summed, so that maps of more than about 100 x 100 pixels should be made smaller first. The
    defaults are STEGO's.

    Args:
        logits: [K, H, W] of the classes.
        image: [3, H, W] in 0..255.
        iterations: of the mean field.
        smooth, smooth_xy: weight of nearness alone, and its deviation in pixels.
        edges, edges_xy, edges_rgb: weight of nearness and color, and their deviations.

    Returns:
        [K, H, W] probabilities.
    """
    count, height, width = logits.shape
    # energies are single precision, as in the authors' code, also where all else is double
    unary = logits.softmax(0).clamp(1e-5, 1).log().flatten(1).float().to(logits)
    rows, columns = torch.meshgrid(
        *(torch.arange(n, device=logits.device, dtype=unary.dtype) for n in (height, width)),
        indexing="ij",
    )
    at = torch.stack([columns, rows], -1).flatten(0, 1)
    color = image.to(unary).flatten(1).mT / edges_rgb
    pairs = smooth * _kernel(at / smooth_xy)
    pairs += edges * _kernel(torch.cat([at / edges_xy, color], 1))
    q = unary.softmax(0)
    for _ in range(iterations):
        q = (unary + q @ pairs).softmax(0)
    return q.view(count, height, width)


def _kernel(features: Tensor) -> Tensor:
    """[N, N] Gaussian of the distance of rows [N, F], by the roots of its sums."""
    mode = "donot_use_mm_for_euclid_dist"
    kernel = torch.cdist(features, features, compute_mode=mode).square_().mul_(-0.5).exp_()
    scale = kernel.sum(1).rsqrt()
    return kernel.mul_(scale[:, None]).mul_(scale)


def crf_loss(
    codes: Tensor,
    image: Tensor,
    at: Tensor,
    alpha: float = 0.5,
    beta: float = 0.15,
    gamma: float = 0.05,
    near: float = 10.0,
    smooth: float = 3.0,
    shift: float = 0.0,
) -> Tensor:
    """STEGO's optional loss: codes agree where pixels are near and alike (Hamilton et al., 2022).

    As in the reference, the bandwidths are not squared and distances are in pixels.

    Args:
        codes: [B, D, H, W] unit vectors.
        image: [B, C, H, W].
        at: [2, S] row and column of the places that are compared.
        alpha, beta: of distance and difference in color; `near` is the weight of both.
        gamma: of distance alone; `smooth` is its weight.
        shift: subtracted from the kernel.
    """
    apart = (at[:, :, None] - at[:, None]).square().sum(0)
    colors, chosen = (x[:, :, at[0], at[1]] for x in (image, codes))
    unlike = (colors[..., None] - colors[:, :, None]).square().sum(1)
    kernel = near * (-apart / (2 * alpha) - unlike / (2 * beta)).exp()
    kernel = kernel + smooth * (-apart / (2 * gamma)).exp() - shift
    return -(chosen.mT @ chosen * kernel).mean()
