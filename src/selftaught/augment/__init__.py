"""What a sample is turned into: views that are declared once and executed by any engine.

A *pipeline* is a picklable callable `(image, rng) -> views`: `image` is a uint8 array [H, W, C],
`rng` a `numpy.random.Generator` that belongs to this sample (`sample_rng`), and `views` a nested
list, tuple or dict of arrays that `default_collate` batches. Image views leave as uint8 [C, S, S];
`device.normalize` turns the collated batch into floats where the model lives.

    views = augment.simclr(224)
    one, two = views(image, augment.sample_rng(seed=0, epoch=3, index=17))

Names load on first use, so that importing this package does not import torch.
"""

from typing import TYPE_CHECKING

from selftaught.lazily import lazily

if TYPE_CHECKING:
    from selftaught.augment.custom import Custom as Custom
    from selftaught.augment.image.alike import Alike as Alike
    from selftaught.augment.image.cells import Tiles as Tiles
    from selftaught.augment.image.cells import cut_tiles as cut_tiles
    from selftaught.augment.image.changes import Changes as Changes
    from selftaught.augment.image.colored import Colored as Colored
    from selftaught.augment.image.device import normalize as normalize
    from selftaught.augment.image.device import renormalize as renormalize
    from selftaught.augment.image.photometric import Deferred as Deferred
    from selftaught.augment.image.photometric import finish_on_device as finish_on_device
    from selftaught.augment.image.presets import byol as byol
    from selftaught.augment.image.presets import crop as crop
    from selftaught.augment.image.presets import moco as moco
    from selftaught.augment.image.presets import moco_v1 as moco_v1
    from selftaught.augment.image.presets import multicrop as multicrop
    from selftaught.augment.image.presets import plain as plain
    from selftaught.augment.image.presets import simclr as simclr
    from selftaught.augment.image.presets import simsiam as simsiam
    from selftaught.augment.image.presets import tiles as tiles
    from selftaught.augment.image.view import Params as Params
    from selftaught.augment.image.view import View as View
    from selftaught.augment.image.views import Cornered as Cornered
    from selftaught.augment.image.views import Plain as Plain
    from selftaught.augment.image.views import Views as Views
    from selftaught.augment.image.views import declared as declared
    from selftaught.augment.pipeline import Noised as Noised
    from selftaught.augment.pipeline import Pipeline as Pipeline
    from selftaught.augment.pipeline import Transform as Transform
    from selftaught.augment.pipeline import sample_rng as sample_rng

__all__, __getattr__ = lazily(__name__, __file__)
