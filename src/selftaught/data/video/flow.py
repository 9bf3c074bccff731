"""What moves in a frame: its optical flow, less that of the camera."""

import numpy as np

from selftaught.data.video.clips import needed

SIDE = 320
"""Longest side, in pixels, at which flow is computed."""
STEP = 8
"""Pixels between two places that the camera's motion is fitted to."""
LEAST = 1.0
"""Pixels of flow that count as full motion at least: less is noise."""
PEAK = 99
"""Percentile of motion that counts as full."""


def motion_mask(before: np.ndarray, frame: np.ndarray, after: np.ndarray) -> np.ndarray:
    """How sure it is that each pixel of `frame` moves, uint8 [H, W], 255 for full motion.

    The optical flow to a frame (DIS; Kroeger et al., 2016) less that of the camera, a homography
    fitted to most of it by RANSAC, is how far a pixel moves by itself. Of two frames the smaller
    distance counts: what one of them hides has a wrong flow there, rarely in both. Uncertain
    halves belong to the method's trimap, so nothing is cut off here.

    Args:
        before, frame, after: uint8 [H, W, 3] of one size.
    """
    cv2 = needed("cv2", "OpenCV")
    height, width = frame.shape[:2]
    scale = min(1.0, SIDE / max(height, width))
    size = max(16, round(width * scale)), max(16, round(height * scale))
    one, middle, other = (
        cv2.resize(cv2.cvtColor(x, cv2.COLOR_RGB2GRAY), size, interpolation=cv2.INTER_AREA)
        for x in (before, frame, after)
    )
    own = np.minimum(own_motion(middle, one), own_motion(middle, other))
    mask = (own / max(LEAST, float(np.percentile(own, PEAK)))).clip(0, 1)
    mask = cv2.resize(mask.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    return (255 * mask).round().astype(np.uint8)


def own_motion(frame: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Distance in pixels, [H, W], that each pixel of `frame` moves beyond the camera's motion.

    Args:
        frame, other: gray uint8 [H, W].
    """
    cv2 = needed("cv2", "OpenCV")
    flow = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM).calc(frame, other, None)
    height, width = frame.shape
    grid = np.stack(np.meshgrid(np.arange(width), np.arange(height)), 2).astype(np.float32)
    places = np.s_[STEP // 2 :: STEP, STEP // 2 :: STEP]
    start = grid[places].reshape(-1, 2)
    cv2.setRNGSeed(0)
    camera, _ = cv2.findHomography(start, start + flow[places].reshape(-1, 2), cv2.RANSAC, 1.0)
    if camera is None:  # nothing to fit: the camera stands still
        camera = np.eye(3)
    moved = cv2.perspectiveTransform(grid.reshape(1, -1, 2), camera).reshape(grid.shape)
    return np.linalg.norm(flow - (moved - grid), axis=2)
