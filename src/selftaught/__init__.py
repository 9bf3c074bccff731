"""Self-supervised learning: from a folder of unlabeled images to an encoder that can be trusted.

Everything is imported on first use, so that ``import selftaught`` costs nothing.
"""

from importlib.metadata import version
from typing import TYPE_CHECKING

from selftaught.lazily import lazily

if TYPE_CHECKING:
    from selftaught import augment as augment
    from selftaught import backbones as backbones
    from selftaught import classifier as classifier
    from selftaught import data as data
    from selftaught import dist as dist
    from selftaught import errors as errors
    from selftaught import evaluate as evaluate
    from selftaught import export as export
    from selftaught import masks as masks
    from selftaught import method as method
    from selftaught import methods as methods
    from selftaught import objectives as objectives
    from selftaught import parts as parts
    from selftaught import report as report
    from selftaught import roles as roles
    from selftaught import schedule as schedule
    from selftaught import vectors as vectors
    from selftaught.backbones import backbone as backbone
    from selftaught.curate.pool import Pool as Pool
    from selftaught.data import open_data as open_data
    from selftaught.engine.classify import classify as classify
    from selftaught.engine.pretrain import pretrain as pretrain
    from selftaught.evaluate import embed as embed
    from selftaught.export import load as load
    from selftaught.feed.check import check as check
    from selftaught.index.commands import search as search
    from selftaught.index.index import Index as Index

__version__ = version("selftaught")

__all__, __getattr__ = lazily(__name__, __file__)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
