"""What `classify` and `predict` may be asked for: each option once. Nothing heavy is imported."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from selftaught.evaluate.settings import Encoding, Reading
from selftaught.roles import Count, Number, Share


@dataclass(frozen=True)
class Classifying(Encoding):
    """What a classifier is made of, what it is judged on, and where it goes.

    Args:
        test: labeled images to judge on; by default parts of data that were not learned from.
        out: folder to write; by default model in the run folder, or classifier-DATA.
        finetune: whether to train the whole network, too, and keep what held-out labels prefer.
        target: what labels are: classes, several names an image (multilabel) or amounts
            (regression); by default told from them.
        overwrite: whether to replace the classifier in `out`.
        json: print the scores as JSON, for programs.

    Other Args:
        heads: which classifiers of features to choose from.
        epochs: of fine-tuning; by default 10, and more where those are under 100 steps.
        seed: of the parts that are held out, of the untrained network and of fine-tuning.
    """

    test: str | None = None
    out: Path | None = None
    finetune: bool = False
    target: Literal["classes", "multilabel", "regression"] | None = None
    overwrite: bool = False
    json: bool = False
    heads: tuple[Literal["ridge", "logistic", "knn"], ...] = ("ridge", "logistic", "knn")
    epochs: Count | None = None
    seed: Number = 0


@dataclass(frozen=True)
class Predicting(Reading):
    """How images are read and predicted, and where the predictions go.

    Args:
        out: file to write, .csv or .parquet.
        min: probability below which an image gets no label; of a classifier with several names an
            image, above which it gets a name (0.5).
        overwrite: whether to replace the file `out`.

    Other Args:
        backbone: function that builds the module of a classifier, where it is of an installed
            package.
    """

    out: Path = Path("predictions.csv")
    min: Share | None = None
    overwrite: bool = False
    backbone: str | None = None
