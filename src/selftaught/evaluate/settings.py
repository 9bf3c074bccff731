"""What an evaluation, or `embed`, may be asked for: each option once. Nothing heavy is imported."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from selftaught.roles import (
    Cosine,
    Count,
    Fraction,
    ImageSize,
    Number,
    Positive,
    Several,
    Temperature,
)
from selftaught.signature import Options


@dataclass(frozen=True)
class Reading(Options):
    """How images are read and shown to a network.

    Args:
        batch: images a forward pass.
        workers: processes that read images; by default one a core, none for few images.
        device: such as cpu or cuda; by default the best that the machine has.

    Other Args:
        path_column: column of a list that holds the paths, where it is not found by itself.
        precision: of the forward pass; bf16 is used only on processors that have it natively.
        read_timeout: seconds for a batch after which a process that reads counts as hung.
    """

    path_column: str | None = None
    batch: Count = 256
    workers: Number | None = None
    device: str = "auto"
    precision: Literal["fp32", "bf16"] = "fp32"
    read_timeout: Positive = 600.0


@dataclass(frozen=True)
class Encoding(Reading):
    """An encoder, and what its files do not say.

    Args:
        labels: CSV of path,label or name of a column; class folders are found by themselves.
        size: side of the views in pixels, or rows x columns; by default the encoder's own.
        weights: file of weights for the timm model of this name, instead of pretrained ones.

    Other Args:
        backbone: function that builds the module of a run, where it is of an installed package.
        mean, std: what images are normalized with, where the encoder does not say it.
    """

    labels: str | None = None
    size: ImageSize | None = None
    weights: Path | None = None
    backbone: str | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[Positive, ...] | None = None


@dataclass(frozen=True)
class Scoring(Encoding):
    """Which scores of an encoder and of its floors, on which data, and how it is read.

    Args:
        probes: which scores: knn, ridge, linear, linear-paper (on augmented images, as papers do;
            slow), attentive (a query that attends to all local features, as V-JEPA), lowshot,
            retrieval, cluster, robustness, adversarial (images that are changed to mislead
            the probe), noisy-labels, groups (the one that is served worst), layers (a probe at
            every depth), segment, or finetune, which trains the whole network and takes longest.
        test: labeled images to score on; by default a fifth of each class of data is held out.
        second: of a run that was trained on two modalities, the data of the second, as of
            `pretrain`: pairs are to find each other, and no labels are needed.
        second_test: the same of test pairs, whose first modality `test` is.
        k: neighbors that vote.
        out: JSON file for the scores.

    Other Args:
        second_column: column of the second modality in its table.
        pair_by: what belongs together: what has one name, or rows of one number, files in the order
            of their names; by default rows where neither side has names.
        masks: for segment: folder of masks with the names of the images, or a column (mask); of
            scans the folder with the class of each point.
        test_masks: for segment: folder of the test images' masks, where it is another one.
        groups: for groups: CSV of path,group or a column with the group of each test image, such as
            the camera or the hospital that it is from.
        ignore: for segment: values of masks that count for nothing.
        temperature: of their votes.
        blocks: for attentive: of self-attention before the query; V-JEPA 2 has 3.
        altered: for robustness, retrieval and adversarial: test images that are corrupted, copied
            and attacked, at most.
        passes: for linear-paper: over the training images, each time with other crops.
        shares: for finetune: of the labels that are used, one training each.
        epochs: for finetune: of a training with all labels; more where they are under 200 steps.
        seed: of the untrained network and of the probes.
    """

    probes: tuple[
        Literal[
            "knn",
            "ridge",
            "linear",
            "linear-paper",
            "lowshot",
            "finetune",
            "retrieval",
            "segment",
            "attentive",
            "cluster",
            "robustness",
            "adversarial",
            "noisy-labels",
            "groups",
            "layers",
        ],
        ...,
    ] = ("knn", "ridge")
    test: str | None = None
    second: str | None = None
    second_test: str | None = None
    second_column: str | None = None
    pair_by: Literal["auto", "name", "row"] = "auto"
    masks: str | None = None
    test_masks: str | None = None
    groups: str | None = None
    ignore: tuple[int, ...] = (255,)
    k: Count = 20
    temperature: Temperature = 0.07
    blocks: Number = 0
    altered: Several = 1000
    passes: Count = 100
    shares: tuple[Fraction, ...] = (0.1, 1.0)
    epochs: Count = 30
    seed: Number = 0
    out: Path | None = None


@dataclass(frozen=True)
class Embedding(Encoding):
    """How images are read and embedded, and where their features go.

    Args:
        out: file to write: .npz, .npy (features alone), .parquet or .csv.
        local: features of places, of a ViT's patches or the last map of a convolutional network,
            in place of one of the whole image: N x h x w x d, in tables a row a place.
        part: i/n embeds only the i-th of n parts of the data, counted from 0, into a file of that
            number beside `out`, as one of n jobs that share the work; one that is there stays.
        columns: of tables: one of lists (usual of .parquet), or wide: one for each dimension, f0
            and on (always of .csv).
    """

    out: Path = Path("features.npz")
    local: bool = False
    part: str | None = None
    columns: Literal["auto", "list", "wide"] = "auto"


@dataclass(frozen=True)
class Searching(Reading):
    """What is searched for among the images of a dataset, and where it is written.

    Args:
        query: pictures by which images are searched: files, or paths or numbers of images of data.
        duplicates: whether to find images that are there several times, be it smaller, compressed
            or mirrored.
        outliers: whether to list images by how unlike the others they are.
        k: images to find for each query.
        min: similarity of matches and of near duplicates, at least; by default of duplicates as the
            data shows it, of matches any.
        out: files to write: .html (a page of pictures), .csv, .parquet (all rows); the command
            writes search.html unless told otherwise.
        index: folder that keeps the features, to be used again; by default of the command
            runs/index-DATA-..., in Python none.
        size: side of the views in pixels, or rows x columns; by default the encoder's own.
        weights: file of weights for the timm model of this name, instead of pretrained ones.

    Other Args:
        engine: exact compares with every image; faiss with candidates, which it finds sooner; auto
            takes faiss, where it is installed, for 100,000 images and more.
        shown: groups of duplicates, and outliers, on the page, at most.
        backbone: function that builds the module of a run, where it is of an installed package.
        mean, std: what images are normalized with, where the encoder does not say it.
    """

    query: tuple[Path, ...] = ()
    duplicates: bool = False
    outliers: bool = False
    k: Count = 10
    min: Cosine | None = None
    out: tuple[Path, ...] = ()
    index: Path | None = None
    engine: Literal["auto", "exact", "faiss"] = "auto"
    shown: Count = 50
    size: ImageSize | None = None
    weights: Path | None = None
    backbone: str | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[Positive, ...] | None = None
