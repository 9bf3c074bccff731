"""The model card: what an exported encoder is, how to use it, what is known of it and what is not.

Everything in it is from the run folder and the encoder; what is not known there is said to be so.
"""

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from torch import Tensor

from selftaught import __version__, augment, kinds
from selftaught.backbones import Encoder, Wrapped
from selftaught.errors import TrainingError
from selftaught.export.facts import CONFIG, DIAGNOSIS, KEPT, SETTINGS, content, evaluations
from selftaught.export.timm import WEIGHTS
from selftaught.sides import both, told_sides, told_size
from selftaught.verdict import START, judge

log = logging.getLogger("selftaught")


@dataclass(frozen=True)
class Facts:
    """What a run folder says of itself; empty where a file is missing or damaged.

    settings: of run.yaml. diagnosis, kept: of the files of these names. scores: as `evaluations`
    finds them. bad: number of images that could not be read. step: of the training that an encoder
    is from that was kept on the way, in words; empty for that of the end.
    """

    folder: Path
    settings: dict[str, Any]
    diagnosis: dict[str, Any]
    scores: list[dict[str, Any]]
    bad: int
    kept: dict[str, Any]
    step: str = ""

    def check_verdict(self, force: bool) -> None:
        """Raise TrainingError where the doctor says that the training failed, unless forced."""
        if self.diagnosis.get("verdict") != "failed":
            return
        why = "; ".join(map(str, self.diagnosis.get("evidence") or ["no evidence is recorded"]))
        if not force:
            raise TrainingError(
                f"the training in {self.folder} failed: {why}; nothing was exported. Its report "
                "says more; export the encoder all the same with --force"
            )
        log.warning("the training failed: %s; exported because of force", why)


def read(folder: Path) -> Facts:
    """The facts in a run folder, or in any other that holds an encoder.

    An encoder that a run has kept on its way lies in a folder within that of the run, whose verdict
    and scores are those of another one.
    """
    about, run = content(folder / CONFIG), folder
    step = f"{about['step']} of {about.get('steps')}" if "step" in about else ""
    if step and not (folder / SETTINGS).is_file():
        run = folder.resolve().parent
    bad = run / "bad_files.csv"
    return Facts(
        folder,
        content(run / SETTINGS),
        content(folder / DIAGNOSIS),
        evaluations(folder),
        max(0, len(bad.read_bytes().splitlines()) - 1) if bad.is_file() else 0,
        content(folder / KEPT),
        step,
    )


def text(
    facts: Facts,
    encoder: Encoder,
    to: str,
    written: Path,
    features: dict[str, Tensor],
    checked: str,
    license: str | None,
    count: int | None,
) -> str:
    """The card, in Markdown.

    Args:
        facts: of the run.
        encoder: that was exported.
        to: target.
        written: folder of the export.
        features: its pooled and local features of some images.
        checked: how it was compared with the encoder, in words.
        license: of the user's choice.
        count: of images in the run's data, where it could be read and run.yaml does not say.
    """
    method = facts.settings.get("method")
    by = f", trained by {method}" if method else ""
    parts = [
        _front(to, method, license, kinds.of(encoder).task),
        f"# {encoder.name}{by}\n",
        _about(encoder, features),
        f"## Use\n\n{_usage(to, encoder, written)}",
        _images(encoder),
        _training(facts, count),
        _verdict(facts),
        _scores(facts.scores),
        _kept(facts.kept),
        _limits(facts),
        f"## Check\n\n{checked}\n\nWritten by selftaught {__version__}.\n",
        "## License\n\n"
        + (f"{license}." if license else "None was chosen yet.")
        + " The weights belong to whoever trained them; selftaught lays no claim to them.\n",
    ]
    return "\n".join(p for p in parts if p)


def _about(encoder: Encoder, features: dict[str, Tensor]) -> str:
    kind, size, made = kinds.of(encoder), encoder.size, _shapes(features)
    if kind.photos:
        return (
            f"An image encoder made with selftaught. From an image of {told_sides(size)} pixels "
            f"and {encoder.channels} channels it makes {made}.\n"
        )
    return (
        f"An encoder of {kind.many} made with selftaught. Of one, seen at {kind.at(size)}, it "
        f"makes {made}.\n"
    )


def _front(to: str, method: Any, license: str | None, task: str) -> str:
    """What the Hugging Face hub reads."""
    about: dict[str, Any] = {"license": license} if license else {}
    about |= {"library_name": {"hf": "transformers"}.get(to, to)}
    about |= {"pipeline_tag": task}
    about |= {"tags": ["self-supervised-learning", *([method] if method else [])]}
    return f"---\n{yaml.safe_dump(about, sort_keys=False)}---\n"


def _shapes(features: dict[str, Tensor]) -> str:
    pooled = f"pooled features [{features['pooled'].shape[1]}]"
    if "local" not in features:
        return pooled
    _, cells, width = features["local"].shape
    return f"{pooled} and local features [{cells}, {width}], one row a cell, row by row"


# use ---------------------------------------------------------------------------------------------

_TIMM = """import timm
import torch
{imports}
# this folder; once it is on the hub, "hf-hub:OWNER/NAME"
model = timm.create_model("local-dir:.", pretrained=True).eval()
{prepare}
with torch.inference_mode():
    pooled = model(image)
    local = model.forward_features(image)  # a map or tokens, as timm has them
# to fine-tune: timm.create_model("local-dir:.", pretrained=True, num_classes=10)
"""

_TIMM_PREPARE = """about = timm.data.resolve_model_data_config(model)
transform = timm.data.create_transform(**about)
image = transform(Image.open("photo.jpg").convert("{mode}"))[None]"""

_HF = """import torch
{imports}from transformers import AutoImageProcessor, AutoModel

# this folder; once it is on the hub, "OWNER/NAME"
model = AutoModel.from_pretrained(".").eval()
{prepare}
with torch.inference_mode():
    found = model(pixel_values=image)
pooled = found.pooler_output
local = found.last_hidden_state  # a map or tokens, as timm has them
"""

_HF_TEXT = """import torch
from transformers import AutoModel, AutoTokenizer

# this folder; once it is on the hub, "OWNER/NAME"
tokenizer = AutoTokenizer.from_pretrained(".")
model = AutoModel.from_pretrained(".").eval()
texts = ["a text", "another one"]
given = tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
with torch.inference_mode():
    local = model(**given).last_hidden_state  # a row a token
there = given["attention_mask"][..., None]
pooled = (local * there).sum(1) / there.sum(1)
"""

_HF_PREPARE = """processor = AutoImageProcessor.from_pretrained(".")
photo = Image.open("photo.jpg").convert("{mode}")
image = processor(photo, return_tensors="pt")["pixel_values"]"""

_ANY_PREPARE = """# normalized as below: [1, {channels}, {rows}, {columns}]
image = torch.zeros(1, {channels}, {rows}, {columns})"""

_ONNX = """import json
from pathlib import Path

import numpy as np
import onnxruntime
{imports}
session = onnxruntime.InferenceSession("encoder.onnx")
{prepare}
{outputs} = session.run([{names}], {{"image": image}})
"""

_PT2 = """import json
from pathlib import Path

import numpy as np
import torch
{imports}
model = torch.export.load("encoder.pt2").module()
{prepare}
found = model(torch.from_numpy(image))
{found}
"""

_SELFTAUGHT = """import json
from pathlib import Path

import numpy as np
import selftaught
import torch
{imports}
encoder = selftaught.load("."{module})
{prepare}
with torch.inference_mode():
    {features}
"""

_WITH_LOCAL = {
    "outputs": "pooled, local",
    "names": '"pooled", "local"',
    "found": 'pooled, local = found["pooled"], found["local"]',
    "features": "pooled, local, grid = encoder.features(torch.from_numpy(image))",
}
_POOLED = {
    "outputs": "(pooled,)",
    "names": '"pooled"',
    "found": 'pooled = found["pooled"]',
    "features": "pooled = encoder(torch.from_numpy(image))",
}
"""What differs where there are no features of places."""

_PREPARE = """about = json.loads(Path("preprocessing.json").read_text())
size, resize = about["size"], about["resize_short_side"]
photo = Image.open("photo.jpg").convert("{mode}")
scale = resize / min(photo.size)
photo = photo.resize([max(resize, int(n * scale)) for n in photo.size], Image.Resampling.BILINEAR)
left, top = ((n - size) // 2 for n in photo.size)
pixels = np.asarray(photo.crop((left, top, left + size, top + size))) / 255
pixels = (pixels.reshape(size, size, -1) - about["mean"]) / about["std"]
image = pixels.transpose(2, 0, 1)[None].astype(np.float32)  # [B, C, size, size]; any B"""

_COVER = """about = json.loads(Path("preprocessing.json").read_text())
(rows, columns), cover = about["size"], about["resize_to_cover"]
photo = Image.open("photo.jpg").convert("{mode}")
scale = max(cover[0] / photo.height, cover[1] / photo.width)
whole = max(cover[1], int(photo.width * scale)), max(cover[0], int(photo.height * scale))
photo = photo.resize(whole, Image.Resampling.BILINEAR)
left, top = (photo.width - columns) // 2, (photo.height - rows) // 2
pixels = np.asarray(photo.crop((left, top, left + columns, top + rows))) / 255
pixels = (pixels.reshape(rows, columns, -1) - about["mean"]) / about["std"]
image = pixels.transpose(2, 0, 1)[None].astype(np.float32)  # [B, C, rows, columns]; any B"""
"""`_PREPARE` of images that are no squares."""

_ARRAY = """about = json.loads(Path("preprocessing.json").read_text())
pixels = np.zeros(({rows}, {columns}, {channels}))  # yours, in 0..1, resized and cropped
pixels = (pixels - about["mean"]) / about["std"]
image = pixels.transpose(2, 0, 1)[None].astype(np.float32)  # [B, C, H, W]; any B"""


_OTHER = """about = json.loads(Path("preprocessing.json").read_text())  # how {kind} are read
image = np.zeros({shape}, np.{dtype})  # yours, as selftaught.kinds.made(about).plain gives it"""


def _usage(to: str, encoder: Encoder, written: Path) -> str:
    """Lines that run in the folder of the export; tested by running them."""
    kind = kinds.of(encoder)
    if to == "hf" and kind.typed:
        return _python(_HF_TEXT)
    mode = {1: "L", 3: "RGB"}.get(encoder.channels)
    imports = "from PIL import Image\n" if mode else ""
    rows, columns = both(encoder.size) if kind.photos else (0, 0)
    fields: dict[str, Any] = {"mode": mode, "channels": encoder.channels}
    fields |= {"rows": rows, "columns": columns}
    if to in ("timm", "hf"):
        code, prepare = {"timm": (_TIMM, _TIMM_PREPARE), "hf": (_HF, _HF_PREPARE)}[to]
        prepare = prepare if mode else _ANY_PREPARE
    else:
        mode = mode if kind.photos else None
        imports = imports if mode else ""
        code = {"onnx": _ONNX, "torch-export": _PT2, "safetensors": _SELFTAUGHT}[to]
        prepare = _PREPARE if isinstance(encoder.size, int) else _COVER
        prepare = prepare if mode else _ARRAY
        if not kind.photos:
            prepare = _OTHER
            fields = {"kind": kind.many, "shape": list(kind.blank(1, encoder).shape)}
            fields |= {"dtype": str(kind.prepare(kind.blank(1, encoder), encoder).dtype)[6:]}
    words = _WITH_LOCAL if encoder.has_local else _POOLED
    # a module of one's own is built by its function, or, where nobody named one, by the reader
    by = encoder.config["name"]
    module = f", {by!r}" if ":" in by else f", {by}(...)" if isinstance(encoder, Wrapped) else ""
    prepared = prepare.format(**fields)
    block = _python(code.format(imports=imports, prepare=prepared, module=module, **words))
    if to != "safetensors":
        return block
    alone = json.loads((written / CONFIG).read_text("utf-8"))["timm"]
    if alone is None:
        fits = f"the module {encoder.name}" if isinstance(encoder, Wrapped) else "selftaught"
        return f"{block}\nPlain timm has no such network; `{WEIGHTS}` fits {fits} alone.\n"
    return f"{block}\nWithout selftaught:\n\n{_python(alone)}"


def _python(code: str) -> str:
    return f"```python\n{code.strip()}\n```\n"


def _images(encoder: Encoder) -> str:
    kind = kinds.of(encoder)
    if not kind.photos:
        read = ", ".join(f"{name} {value}" for name, value in kind.config.items())
        return f"{kind.many.capitalize()} are read as `preprocessing.json` says: {read}.\n"
    view = augment.plain(encoder.size)
    mean, std = ([round(v, 6) for v in values] for values in (encoder.mean, encoder.std))
    resized = f"short side to {view.resize} pixels"
    if not isinstance(view.size, int):
        resized = f"resized to cover {told_size(view.resize)} pixels"
    return (
        f"Images: {resized} (bilinear, antialiased), center crop of "
        f"{told_size(view.size)}, values in 0..1, then (x - mean) / std with mean {mean} and std "
        f"{std}.\n"
    )


# what is known -----------------------------------------------------------------------------------


def _training(facts: Facts, count: int | None) -> str:
    settings = facts.settings
    if not settings:
        return "## Training\n\nThere was no run.yaml beside the weights: how is not known.\n"
    training, made = settings.get("training") or {}, settings.get("made_by") or {}
    count = made.get("images", count)
    images = f"{count:,} images" if isinstance(count, int) else "an unknown number of images"
    rows = [
        ("method", settings.get("method")),
        ("data", f"{Path(str(settings.get('data'))).name}, {images}"),
        ("left out as unreadable", facts.bad or None),
        ("backbone", _listed(settings.get("backbone"))),
        ("options of the method", _listed(settings.get("options"))),
        *((name, training.get(name)) for name in ("epochs", "batch", "seed", "precision")),
        ("encoder of step", facts.step or None),
        *(
            (name.replace("_", " "), _own(training, name))
            for name in ("optimizer", "lr", "weight_decay", "warmup", "clip")
        ),
        ("made by", _listed(made)),
    ]
    lines = [f"| {_cell(name)} | {_cell(value)} |" for name, value in rows if value is not None]
    return "\n".join(["## Training\n", "| | |", "| --- | --- |", *lines, ""])


def _own(training: dict[str, Any], name: str) -> Any:
    return "as in the method's paper" if training.get(name) is None else training[name]


def _listed(node: Any) -> str | None:
    if not isinstance(node, dict):
        return None
    return ", ".join(f"{k} {v}" for k, v in node.items() if k != "images") or None


def _cell(value: Any) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")


def _scores(found: list[dict[str, Any]]) -> str:
    each = [part for scores in found if (part := _evaluation(scores))]
    if not each:
        return "## Scores\n\nNot scored: what the features are worth is not known.\n"
    floors = "Floors: raw pixels, and the same network untrained"
    begun = any(r.get("features") == START for s in found for r in _rows(s.get("scores")))
    floors += ", and with the weights that it began with.\n" if begun else ".\n"
    return "\n".join(["## Scores\n", *each, floors])


def _evaluation(scores: dict[str, Any]) -> str:
    rows = _rows(scores.get("scores"))
    if not rows:
        return ""
    data = scores.get("data")
    where = f"On {Path(str(data)).name}: " if data else ""
    lines = [
        f"| {_cell(r.get('features'))} | {_cell(r.get('score'))} | {_cell(r.get('value'))} | "
        f"{_interval(r.get('interval'))} |"
        for r in rows
    ]
    protocols = dict.fromkeys(
        f"{r.get('score')}, per cent {r.get('measure', 'right')}: {r.get('protocol')}."
        for r in rows
    )
    return "\n".join(
        [
            f"{where}{scores.get('verdict', '')}\n",
            "| features | score | % | 95 % interval |",
            "| --- | --- | --- | --- |",
            *lines,
            "",
            "\n".join(protocols),
            "",
        ]
    )


def _rows(node: Any) -> list[dict[str, Any]]:
    return [r for r in node if isinstance(r, dict)] if isinstance(node, list) else []


def _kept(kept: dict[str, Any]) -> str:
    """Which encoder this is, of a run that began with weights."""
    if not kept:
        return ""
    lines = [
        f"| {' | '.join(_cell(r.get(name)) for name in ('name', 'k-NN', 'probe', 'mean'))} |"
        for r in _rows(kept.get("candidates"))
    ]
    heads = ["| | k-NN % | probe % | mean % |", "| --- | --- | --- | --- |"] if lines else []
    return "\n".join(["## What was kept\n", f"{kept.get('why', '')}\n", *heads, *lines, ""])


def _interval(node: Any) -> str:
    return f"{node[0]} to {node[1]}" if isinstance(node, list) and len(node) == 2 else ""


def _verdict(facts: Facts) -> str:
    """The verdict on the run, with reasons."""
    if not facts.diagnosis and not facts.scores:
        return "## Verdict\n\nNone was recorded.\n"
    said = judge(facts.diagnosis, facts.scores, facts.kept)
    reasons = "".join(f"\n- {reason}" for reason in said.reasons)
    return f"## Verdict\n\n**{said.word.capitalize()}**: {said.because}\n{reasons}\n"


def _limits(facts: Facts) -> str:
    lines = [
        "- The features suit images like those it was trained on; on others they are untested.",
        "- Whatever bias the images have, the features may have.",
        "- It classifies nothing by itself: a probe or fine-tuning on labels comes on top.",
    ]
    backbone = facts.settings.get("backbone") or {}
    if backbone.get("pretrained"):
        lines.insert(
            0,
            f"- Training started from timm's weights of {backbone.get('name')}: their license and "
            "their data bear on these weights, too.",
        )
    return "\n".join(["## Limits\n", *lines, ""])
