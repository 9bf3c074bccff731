"""What `selftaught export` runs: an encoder for another library, read back by that library."""

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from selftaught.errors import UserError
from selftaught.export.files import check_free, whole_folder
from selftaught.signature import closest

NEEDS = {
    "timm": (),
    "hf": ("transformers",),
    "onnx": ("onnx", "onnxscript", "onnxruntime"),
    "safetensors": (),
    "torch-export": (),
}
"""Targets, and modules of the extra of the same name that each needs."""


@dataclass(frozen=True)
class Exported:
    """An export that its library has read back.

    folder: what was written. library: that read it. images: what it was tried on.
    differences: output -> greatest difference, relative to the greatest feature of its image.
    """

    folder: Path
    library: str
    images: str
    differences: dict[str, float]

    def check(self) -> str:
        """How it was checked."""
        found = ", ".join(f"{d:.1g} ({name})" for name, d in self.differences.items())
        return (
            f"Read back by {self.library}: on {self.images} its features are the encoder's; the "
            f"greatest difference, relative to the greatest feature of one, is {found}."
        )


def convert(
    run: str | Path,
    *,
    to: Literal["timm", "hf", "onnx", "safetensors", "torch-export"] = "timm",
    out: Path | None = None,
    license: str | None = None,
    fp16: bool = False,
    backbone: str | None = None,
    force: bool = False,
) -> Exported:
    """Write an encoder for another library, with a model card, and check it in that library.

    Args:
        run: run folder of pretrain, or an encoder.safetensors.
        to: timm and hf (transformers) share a folder that both load; onnx and torch-export have
            pooled and local outputs for any batch; safetensors are the plain weights.
        out: folder to write; by default export-TARGET in the run folder.
        license: that you give the weights, such as mit; it stands in the model card.
        fp16: for onnx, half the size: weights are stored in 16 bits and computed with in 32.
        backbone: function that builds the module of a run, where it is of an installed package.
        force: whether to export what the doctor says has failed, or is not finite.

    Returns:
        Where it is, and how far its features are from the encoder's on 16 real images.

    Raises:
        UserError: an argument, a file or a network that cannot work; nothing was written.
        TrainingError: the training failed by the doctor's verdict, weights are not finite, or the
            library has other features than the encoder; nothing was kept.
    """
    run = Path(run)
    folder = run if run.is_dir() else run.parent
    out = folder / f"export-{to}" if out is None else Path(out)
    _check(to, out, fp16)

    from selftaught.export import card, trial
    from selftaught.export.encoder import check_finite, load
    from selftaught.export.targets import TARGETS

    facts, encoder = card.read(folder), load(run, backbone)
    facts.check_verdict(force)
    check_finite(encoder.get_submodule("net").state_dict(), force)
    target = TARGETS[to]
    x, source, count = trial.images(facts.settings, encoder)
    wanted = trial.features(encoder, x)
    with whole_folder(out) as written:
        target.write(encoder, written, fp16)
        tolerance = 1e-3 if fp16 else 1e-5
        found = trial.compare(encoder, target, written, x, wanted, tolerance)
        result = Exported(out, target.library, source, found)
        checked = result.check()
        text = card.text(facts, encoder, to, written, wanted, checked, license, count)
        (written / "README.md").write_text(text, "utf-8")
    return result


def _check(to: str, out: Path, fp16: bool) -> None:
    """What can be told before torch is imported."""
    if to not in NEEDS:
        raise UserError(f"selftaught exports to no {to!r}{closest(to, NEEDS)}")
    if fp16 and to != "onnx":
        raise UserError(f"fp16 is for onnx, not for {to}; leave it out, or export --to onnx")
    missing = [name for name in NEEDS[to] if find_spec(name) is None]
    if missing:
        raise UserError(
            f"an export to {to} needs {' and '.join(missing)}, not installed here: "
            f'pip install "selftaught[{to}]"'
        )
    if out.suffix in (".onnx", ".pt2", ".safetensors", ".json"):
        raise UserError(
            f"{out} is the name of a file; an export is a folder, with a model card: name one, "
            f"such as --out {out.with_suffix('')}"
        )
    check_free(out)
