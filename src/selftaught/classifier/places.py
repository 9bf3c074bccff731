"""Where classifiers and predictions lie, and what is in their way. Nothing heavy is imported."""

from pathlib import Path

from selftaught.errors import UserError
from selftaught.export.facts import CLASSIFIER, CONFIG, WEIGHTS, is_path
from selftaught.export.files import check_free, check_place

ABOUT, HEAD = CLASSIFIER, "head.safetensors"
"""Files of a classifier, beside those of its encoder."""


def default_out(encoder: str, data: str) -> Path:
    """`model` in the folder of an encoder; classifier-DATA where that has none."""
    path = Path(encoder)
    if is_path(encoder):
        folder = path if path.is_dir() else path.parent
        if (folder / CONFIG).is_file():
            return folder / "model"
    return Path(f"classifier-{Path(data).resolve().stem or 'data'}")


def taken(folder: Path, overwrite: bool) -> bool:
    """Whether a classifier in `folder` is to be moved aside.

    Raises:
        UserError: something is in the way.
    """
    if is_classifier(folder):
        if overwrite:
            check_place(folder)
            return True
        raise UserError(
            f"{folder} holds a classifier already: move it aside with --overwrite, or name another "
            "folder with --out"
        )
    check_free(folder)
    return False


def is_classifier(folder: Path) -> bool:
    """Whether `folder` holds what `Classifier.save` writes."""
    return (folder / ABOUT).is_file()


def found(folder: Path) -> Path:
    """The folder of a classifier: `folder`, or `model` in it; UserError where it is neither."""
    for place in (folder, folder / "model"):
        if is_classifier(place):
            missing = [n for n in (HEAD, CONFIG, WEIGHTS) if not (place / n).is_file()]
            if missing:
                raise UserError(f"{place / missing[0]} is missing; copy the classifier again")
            return place
    if not folder.exists():
        raise UserError(f"{folder} does not exist; give the folder of a classifier")
    raise UserError(
        f"{folder} holds no classifier (no {ABOUT}); make one of it with "
        f"selftaught classify {folder} LABELED"
    )


def free(out: Path, overwrite: bool) -> None:
    """Raise UserError where `out` is no table, or is there already and is not to be replaced."""
    if out.suffix not in (".csv", ".parquet"):
        raise UserError(f"{out} must end in .csv or .parquet: name another file with --out")
    if out.exists() and not overwrite:
        raise UserError(f"{out} exists already: replace it with --overwrite, or name another --out")
