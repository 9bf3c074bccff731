"""Colors in the plane (a, b) of CIE Lab, in bins of 10, and how often photos have them.

The 313 bins that hold colors of sRGB, and their shares of the smoothed pixels of ImageNet, are
those of Zhang et al. (2016, https://arxiv.org/abs/1603.08511), published with their code.
"""

import torch
from torch import Tensor

STEP = 10

# a, first b, then for each b in steps of 10 its share in parts per million
_TABLE = """
-90 50 14699 1279.03 1133.61 1066.5 182389
-80 20 10505.6 735.625 105.445 60.2087 44.9302 43.4257 53.0906 260.636
-70 0 3021.23 105.713 1135.95 72.4277 52.7338 44.8252 43.5817 52.0133 43.8716 157.427
-60 -20 14804 71.1606 75.7064 81.1761 201.777 49.5702 53.3345 51.366 57.9255 50.4411 43.7192 \
  90.5168
-50 -30 2573.8 64.9073 61.1531 61.035 133.407 122.439 44.8297 45.928 63.6031 55.5949 51.1968 \
  49.4501 83.2593 74361
-40 -40 1729.07 62.2116 48.9591 50.7817 71.1754 197.602 50.7614 46.1889 56.1539 47.3887 52.8306 \
  71.3262 87.543 130.061 6545.32
-30 -50 11455 52.4553 41.618 43.9292 164.431 65.6679 207.435 55.3314 63.4649 54.4218 63.9195 \
  77.148 224.666 1587.13 1195.02 5562.03
-20 -50 76.6814 47.6529 46.9601 47.721 94.663 95.9452 205.004 74.1655 70.5686 171.486 313.703 \
  311.854 179.485 97.694 200.33 4952.29
-10 -60 264.094 77.0691 46.2999 47.4358 51.6166 61.511 331.997 147.594 379.365 348.272 234.338 \
  72.1651 64.3591 54.9399 54.1535 124.292 4179.96
0 -70 569.601 68.5952 71.225 71.7658 77.5148 90.9726 332.382 45943.1 422.697 94.6405 81.7383 \
  75.6192 74.3771 71.8021 70.0774 75.6443 621.165 93605
10 -80 13588.5 48.6742 50.2429 50.7957 158.152 252.067 281.376 131.283 236.365 55.7261 48.2525 \
  44.2196 43.1951 41.6678 39.3916 49.2329 60.6421 89.3644
20 -80 125.6 87.8331 204.121 221.241 147.247 60.8319 66.398 154.141 92.9034 51.3265 39.5755 \
  39.1881 39.5432 41.4374 53.1825 49.6494 42.3256 129.671
30 -90 1179.9 1078.89 184.779 68.9325 55.4674 45.9316 49.7804 58.8007 162.023 49.5878 44.3802 \
  42.3896 37.688 45.5563 51.8701 42.9349 37.2558 35.0519 200.914
40 -100 15767.2 134.478 71.6232 58.1332 47.5391 41.7822 44.1463 69.4155 44.2599 152.621 45.094 \
  39.6742 45.4565 57.3286 46.0673 35.7793 32.9466 30.5414 30.116 43834.3
50 -100 120.837 69.3888 41.5544 45.3015 43.7997 47.1415 39.5154 49.3014 67.1574 122.902 48.3107 \
  50.0279 52.4902 39.3604 39.2585 30.1521 28.2898 26.8304 47.2338
60 -110 61605.2 50.6871 51.1282 40.1355 38.2173 42.6272 39.7501 41.8992 41.3124 154.15 59.36 \
  63.7017 44.697 34.1109 31.0397 28.8167 34.9668 26.1289 25.33 91.5747
70 -110 2775.65 51.2655 41.5557 30.5658 39.0109 34.3447 38.7255 38.3622 49.2756 817.177 66.8846 \
  45.8798 33.0241 29.2232 27.9365 27.197 27.2135 32.0075 26.7707 57475
80 -110 2610.96 47.1024 30.9576 38.14 32.6417 40.2099 47.0899 54.3401 60.9096 563.229 47.7164 \
  41.5461 32.0634 28.5581 26.971 25.5874 24.6497 28.0353 53.1346
90 -110 91376.4 295.112 40.4368 42.8703 49.8769 102.947 42.8404 38.4071 183.259 118.873 49.5318 \
  36.4282 42.4037 76.8829 143.094 214.036 292.096 567.713 165240
100 -90 15433.8 738.804 785.492 824.01 1007.35 1171.66 1782.17 1496.26 1066.26 10017.6
"""


def bins() -> Tensor:
    """[313, 2] centers (a, b), float32."""
    return torch.tensor(
        [[row[0], row[1] + STEP * k] for row in _rows() for k in range(len(row) - 2)]
    )


def prior() -> Tensor:
    """[313] shares of the bins, which sum to 1, float32."""
    shares = torch.tensor([share for row in _rows() for share in row[2:]], dtype=torch.float64)
    return (shares / shares.sum()).float()


def nearest(ab: Tensor, centers: Tensor, count: int = 1) -> tuple[Tensor, Tensor]:
    """[B, 2, H, W] colors -> distances to the `count` nearest of [Q, 2] centers, nearest first,
    and which they are, both [B, count, H, W].
    """
    points = ab.movedim(1, 3)
    mode = "donot_use_mm_for_euclid_dist"  # which rounds near distances to 0
    apart = torch.cdist(points.flatten(0, 2), centers.to(ab), compute_mode=mode)
    distance, which = apart.topk(count, largest=False)
    shape = (*points.shape[:3], count)
    return distance.view(shape).movedim(3, 1), which.view(shape).movedim(3, 1)


def annealed_mean(logits: Tensor, centers: Tensor, temperature: float = 1.0) -> Tensor:
    """[B, 2, H, W] mean color of a distribution [B, Q, H, W] over [Q, 2] centers, sharpened by a
    temperature below 1 (Zhang et al., 2016, Eq. 5).
    """
    p = (logits / temperature).softmax(1)
    return torch.einsum("bqhw,qc->bchw", p, centers.to(p))


def _rows() -> list[list[float]]:
    return [
        [float(n) for n in line.split()] for line in _TABLE.replace("\\\n", "").strip().splitlines()
    ]
