"""From an encoder and some labels to a classifier: chosen, judged, kept with its names.

made = selftaught.classify("runs/simclr-photos", "labeled/")     # or `selftaught classify`
made.predict("photos/").labels                                   # or `selftaught predict`
made.save("model/"); classifier.load("model/")
"""

from typing import TYPE_CHECKING

from selftaught.lazily import lazily

if TYPE_CHECKING:
    from selftaught.classifier.model import Classifier as Classifier
    from selftaught.classifier.model import Predictions as Predictions
    from selftaught.classifier.model import load as load

__all__, __getattr__ = lazily(__name__, __file__)
