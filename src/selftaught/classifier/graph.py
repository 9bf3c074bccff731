"""A classifier as one ONNX graph: bytes of an image in, names and probabilities out; checked."""

import copy
import json
import logging
import warnings
from dataclasses import dataclass
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from selftaught import augment, kinds
from selftaught.augment.image.render import LONGEST
from selftaught.classifier.model import Classifier, load
from selftaught.classifier.places import found, is_classifier
from selftaught.data import BadSample, Samples, open_data
from selftaught.errors import SelftaughtError, TrainingError, UserError
from selftaught.export.conversion import NEEDS, Exported, convert
from selftaught.export.files import check_free, whole_folder
from selftaught.export.targets import first_words
from selftaught.sides import both
from selftaught.signature import like

log = logging.getLogger("selftaught")

FILE, CLASSES = "classifier.onnx", "classes.txt"

COUNT = 16
"""Images that are compared."""

TOLERANCE = 1e-3
"""By which a probability may differ."""

_README = """# {title}

`{file}` takes images as bytes and says what is on them: resize, crop and normalization are in it.

| | |
| --- | --- |
| input `image` | uint8 [batch, height, width, {channels}], of any height and width |
{outputs}
| made from | {made_from} |
| scores | {scores} |

```python
import numpy as np
import onnxruntime
from PIL import Image, ImageOps

session = onnxruntime.InferenceSession("{file}")
photo = ImageOps.exif_transpose(Image.open("photo.jpg")).convert("{mode}")
image = np.asarray(photo){axis}[None]
print(session.run(None, {{"image": image}}))
```

{checked}
"""


@dataclass(frozen=True)
class ExportedClassifier:
    """A graph that onnxruntime has read back.

    folder: what was written. images: what it was tried on. difference: the greatest of a
    probability, or of an amount, relative to the spread of amounts.
    """

    folder: Path
    images: str
    difference: float

    def check(self) -> str:
        """How it was checked."""
        return (
            f"Read back by onnxruntime: on {self.images} it says what the classifier says; the "
            f"greatest difference is {self.difference:.1g}."
        )


class Whole(nn.Module):
    """From bytes to what is said: plain view, normalization, network, head.

    Args:
        made: the classifier, which is copied.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, made: Classifier):
        super().__init__()
        kind = kinds.of(made.network)
        if not kind.photos:
            raise UserError(
                "a graph holds what is done to an image before the network sees it, and this "
                f"classifier is of {kind.many}, whose reading no graph does: use it with "
                "`selftaught predict`, or export the encoder that it was made of"
            )
        view = augment.plain(made.size)
        self.size, self.resize = both(view.size), both(view.resize)
        self.network: Any = copy.deepcopy(made.network).eval().requires_grad_(False)
        self.head = copy.deepcopy(made.head).eval()
        for name in ("mean", "std"):
            values = torch.tensor(getattr(made.network, name), dtype=torch.float32)
            self.register_buffer(name, values[:, None, None])

    def forward(self, image: Tensor) -> Tensor:
        """uint8 [B, H, W, C] -> [B, names]."""
        return self.head(self.network((self.view(image) / 255 - self.mean) / self.std))

    def view(self, image: Tensor) -> Tensor:
        """uint8 [B, H, W, C] -> whole levels [B, C, rows, columns], as `augment.plain` has them."""
        x = image.permute(0, 3, 1, 2).float()
        down, across = (torch.arange(side, device=x.device) for side in x.shape[2:])
        height, width = down.max() + 1, across.max() + 1
        x = _levels(x @ self._weights(across, height, 1).T)
        return _levels(self._weights(down, width, 0) @ x)

    def _weights(self, places: Tensor, other: Tensor, axis: int) -> Tensor:
        """[S, n]: what each of n pixels of a side gives to each of the view, as `render_plain`.

        Bilinear with antialiasing is a triangle as wide as two pixels of the coarser grid.

        Args:
            places: 0 to n - 1.
            other: number of pixels of the other side.
            axis: 0 of rows, 1 of columns.
        """
        size, cover, beside = self.size[axis], self.resize[axis], self.resize[1 - axis]
        count = places.max() + 1
        longer = count * beside >= other * cover  # see `covering`: the other side decides
        most = (LONGEST * other * cover // beside).clamp(min=1)
        kept = torch.where(longer, torch.minimum(count, most), count)
        first = (count - kept) // 2
        whole = torch.where(longer, beside * kept // other, cover)
        offset = ((whole - size).double() / 2).round()
        step = kept.double() / whole.double()
        reach = step.clamp(min=1.0)
        centers = (torch.arange(size, device=places.device).double() + offset + 0.5) * step
        inside = places - first
        away = (inside.double() + 0.5 - centers[:, None]).abs() / reach
        seen = ((inside >= 0) & (inside < kept)).double()
        weights = (1 - away).clamp(min=0.0) * seen
        weights = weights.float() * (1 / weights.sum(1, keepdim=True)).float()
        # whole numbers of as many steps as 16 bits hold, as torch, Pillow and our renderer have it
        steps = torch.log2((2**15 - 0.5) / (2 * weights.max().double())).ceil().clamp(max=22.0)
        steps = torch.pow(2.0, steps).float()
        return (weights * steps + 0.5).floor() / steps


def _levels(x: Tensor) -> Tensor:
    """Whole levels 0..255: pixels are bytes between two passes of a resize."""
    return (x + 0.5).floor().clamp(0, 255)


@like(convert)
def export_command(run: str, **options: Any) -> Exported | ExportedClassifier:
    """Write an encoder or a classifier for another library, and check it in that library.

    Args:
        run: run folder of pretrain, an encoder.safetensors, or the folder of a classifier.
    """
    if not is_classifier(Path(run)):
        return convert(run, **options)
    given = [n for n in ("license", "fp16") if options.get(n)]
    if options.get("to", "onnx") != "onnx" or given:
        asked = f"--{given[0]}" if given else f"--to {options['to']}"
        raise UserError(
            f"{run} is a classifier, which is exported --to onnx, whole: leave {asked} out. Its "
            f"encoder alone is exported from a copy of its encoder.* files"
        )
    return export(run, options.get("out"), options.get("backbone"))


def export(
    model: str | Path, out: str | Path | None = None, module: Any = None
) -> ExportedClassifier:
    """Write a classifier as one ONNX graph, with its names, and check what it says.

    Args:
        model: folder of the classifier.
        out: folder to write; by default export-onnx in that of the classifier.
        module: as of `load`.

    Raises:
        UserError: an argument or a network that cannot work; nothing was written.
        TrainingError: onnxruntime says something else than the classifier; nothing was kept.
    """
    place = found(Path(model))
    out = place / "export-onnx" if out is None else Path(out)
    missing = [name for name in NEEDS["onnx"] if find_spec(name) is None]
    if missing:
        raise UserError(
            f"an export to onnx needs {' and '.join(missing)}, not installed here: "
            'pip install "selftaught[onnx]"'
        )
    if out.suffix == ".onnx":
        raise UserError(f"{out} is the name of a file; an export is a folder: --out {out.stem}")
    check_free(out)
    made = load(place, module)
    with whole_folder(out) as folder:
        _write(made, folder)
        images, difference = _compare(made, folder)
        done = ExportedClassifier(out, images, difference)
        (folder / CLASSES).write_text("\n".join(made.target.names) + "\n", "utf-8")
        (folder / "README.md").write_text(_readme(made, done), "utf-8")
    return done


def _write(made: Classifier, folder: Path) -> None:
    side = 2 * max(both(made.size))
    example = torch.zeros(2, side, side + 1, made.network.channels, dtype=torch.uint8)
    dims = {n: torch.export.Dim(name) for n, name in enumerate(("batch", "height", "width"))}
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # of the exporter's own deprecations
            program = torch.onnx.export(
                Whole(made).eval(),
                (example,),
                dynamo=True,
                input_names=["image"],
                output_names=[_output(made)],
                dynamic_shapes={"image": dims},
                verbose=False,
            )
    except Exception as error:  # hundreds of kinds, by whatever the network does
        raise UserError(
            f"ONNX cannot express this {made.network.name} ({first_words(error)}); make the "
            "classifier of another backbone"
        ) from error
    assert program is not None
    if made.target.kind == "classes":
        _name(program.model, made.target.names)
    program.model.metadata_props["selftaught"] = json.dumps(made.plain(), ensure_ascii=False)
    program.model.metadata_props["classes"] = json.dumps(made.target.names, ensure_ascii=False)
    program.save(folder / FILE)


def _output(made: Classifier) -> str:
    return "value" if made.target.kind == "regression" else "probabilities"


def _name(model: Any, names: tuple[str, ...]) -> None:
    """Let the graph say the name of the likeliest class, too."""
    import onnx_ir as ir

    graph = model.graph
    texts = ir.StringTensor([n.encode() for n in names], shape=ir.Shape([len(names)]), name="names")
    known = ir.Value(
        name="names", shape=texts.shape, type=ir.TensorType(ir.DataType.STRING), const_value=texts
    )
    graph.register_initializer(known)
    (said,) = graph.outputs
    attributes = [ir.AttrInt64("axis", 1), ir.AttrInt64("keepdims", 0)]
    best = ir.Node("", "ArgMax", [said], attributes)
    label = ir.Value(
        name="label",
        shape=ir.Shape([said.shape[0]]),
        type=ir.TensorType(ir.DataType.STRING),
    )
    graph.extend([best, ir.Node("", "Gather", [known, best.outputs[0]], outputs=[label])])
    graph.outputs.append(label)


def _compare(made: Classifier, folder: Path) -> tuple[str, float]:
    """What it was tried on, and the greatest difference; TrainingError where it is too great."""
    import onnxruntime

    source, images = _images(made)
    view = augment.plain(made.size)
    views = torch.from_numpy(np.stack([view(image) for image in images]))
    with made.ready(torch.device("cpu"), "fp32") as forward:
        wanted = forward(views).numpy()
    try:
        session = onnxruntime.InferenceSession(folder / FILE, providers=["CPUExecutionProvider"])
        said: list[Any] = [session.run(None, {"image": image[None]}) for image in images]
    except Exception as error:  # each has its own kind, and all mean the same
        raise TrainingError(
            f"onnxruntime cannot read back this classifier ({first_words(error)}); nothing was kept"
        ) from error
    outputs = np.concatenate([each[0] for each in said])
    scale = max(float(np.ptp(wanted)), 1e-6) if made.target.kind == "regression" else 1.0
    difference = float(np.abs(outputs - wanted).max()) / scale
    named = made.target.kind == "classes"
    labels = [str(each[1][0]) for each in said] if named else []
    sure = np.sort(wanted, 1)[:, -1] - np.sort(wanted, 1)[:, -2] > 2 * TOLERANCE if named else []
    other = [a for a, b, s in zip(labels, made.labels(wanted), sure) if s and a != b]
    if not difference <= TOLERANCE or other:
        raise TrainingError(
            "onnxruntime says something else than the classifier: they differ by "
            f"{difference:.2g}, and {TOLERANCE:g} is allowed; nothing was kept"
        )
    return source, difference


def _images(made: Classifier) -> tuple[str, list[np.ndarray]]:
    """Images [H, W, C] of the data that it was made of, filled up with photos of this package."""
    found: list[np.ndarray] = []
    place = made.about.get("data", {}).get("path")
    if place:
        try:
            found = _some(open_data(place, channels=made.network.channels))
        except (SelftaughtError, OSError) as error:
            log.info("the images that it was made of cannot be read: %s", error)
    source = f"{len(found)} images that it was made of"
    if len(found) < COUNT:
        photos = open_data(str(Path(str(files("selftaught"))) / "demo" / "test.parquet"))
        channels = np.arange(made.network.channels) % photos.channels
        more = [np.ascontiguousarray(x[..., channels]) for x in _some(photos)][: COUNT - len(found)]
        source = f"{source} and {len(more)} demo photos" if found else f"{len(more)} demo photos"
        found += more
    return source, found


def _some(samples: Samples) -> list[np.ndarray]:
    found = []
    for i in np.linspace(0, len(samples) - 1, min(COUNT, len(samples))).astype(int):
        try:
            found.append(samples.read(int(i)))
        except BadSample:
            continue
    return found


def _readme(made: Classifier, done: ExportedClassifier) -> str:
    names = made.target.names
    outputs = (
        f"| output `{_output(made)}` | float [batch, {len(names)}], in the order of {CLASSES} |"
    )
    if made.target.kind == "classes":
        outputs += "\n| output `label` | text [batch]: the likeliest name |"
    told = (f"{n} {s['value']:.1f} % (n {s['n']})" for n, s in made.scores.items())
    channels = made.network.channels
    return _README.format(
        title=f"Classifier of {made.network.name}",
        file=FILE,
        channels=channels,
        outputs=outputs,
        made_from=made.about.get("made_from", made.network.name),
        scores=", ".join(told) or "none",
        mode="L" if channels == 1 else "RGB",
        axis="[..., None]" if channels == 1 else "",
        checked=done.check(),
    )
