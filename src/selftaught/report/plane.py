"""The map: images as points in the plane, near each other where their features are."""

import json
import shlex
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from selftaught import export
from selftaught.evaluate.writing import write_table
from selftaught.report.html import Missing, Section
from selftaught.report.image.pictures import jpeg, sprite
from selftaught.report.seen import Seen

TITLE, FILE = "Map", "embeddings.parquet"
_FEW = 50
"""Points below which principal components say all that there is to say."""
_WIDTH = 50
"""Principal components that are handed to t-SNE, which then costs the same for all encoders."""
_LEGEND = 24
"""Classes that have a place in the legend."""


def section(seen: Seen, run: Path) -> Section | Missing:
    """The map, and the same as a table for an explorer, written to the run folder."""
    plane = project(seen.unit)
    if plane is None:
        return Missing(TITLE, f"all {len(seen)} features are the same: there is nothing to map")
    _table(seen, plane, run / FILE)
    low, span = plane.min(0), np.ptp(plane, 0)
    points = (plane - low) / np.where(span > 0, span, 1)
    side = 48 if len(seen) <= 2500 else 32
    image, columns = sprite(seen.small, side)
    classes = sorted({seen.label(i) for i in range(len(seen))} - {""})
    position = {name: i for i, name in enumerate(classes)}
    content = {
        "x": points[:, 0].round(4).tolist(),
        "y": points[:, 1].round(4).tolist(),
        "kind": [position.get(seen.label(i), -1) for i in range(len(seen))],
        "kinds": classes,
        "legend": 1 < len(classes) <= _LEGEND,
        "names": [seen.name(i) for i in range(len(seen))],
        "side": side,
        "columns": columns,
    }
    data = json.dumps(content, separators=(",", ":")).replace("<", "\\u003c")
    where = shlex.quote(str(run / FILE))
    command = (
        f"uvx embedding-atlas {where} --x x --y y --image image --neighbors neighbors "
        "--disable-projection"
    )
    how = "principal components" if len(seen) < _FEW else "t-SNE"
    note = (
        f"{len(seen):,} of {seen.total:,} images, placed by {how} of their features. Near each "
        "other means alike to the encoder; distances between far groups mean little. Point at the "
        "map to see the images."
    )
    body = (
        '<div class="map"><p class="bar"><button type="button" data-show="points">points</button>'
        '<button type="button" data-show="images">images</button></p>'
        '<div class="canvas"><canvas role="img" aria-label="map of the images"></canvas>'
        '<div class="tip" hidden><canvas></canvas><span></span></div></div>'
        f'<p class="legend"></p><img class="sprite" alt="" src="{image}">'
        f'<script type="application/json">{data}</script></div>'
        f'<p class="note">To search, filter and zoom, open {FILE} in Embedding Atlas, a viewer '
        "that runs on your machine, in a browser with WebGPU:</p>"
        f"<pre>{escape(command)}</pre>"
    )
    return Section(TITLE, body, note)


def project(unit: np.ndarray) -> np.ndarray | None:
    """[N, D] unit features -> [N, 2]: by principal components, by t-SNE where there are many.

    t-SNE (van der Maaten & Hinton, 2008, https://www.jmlr.org/papers/v9/vandermaaten08a.html)
    starts from the principal components, so that the same features give the same map.

    Returns:
        None where all features are the same.
    """
    components = principal(unit, _WIDTH)
    if not components.shape[1]:
        return None
    if len(unit) < _FEW:
        return np.pad(components[:, :2], ((0, 0), (0, max(0, 2 - components.shape[1]))))
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    start = np.pad(components[:, :2], ((0, 0), (0, max(0, 2 - components.shape[1]))))
    rng = np.random.default_rng(0)
    start = 1e-4 * (start / components[:, 0].std() + rng.normal(scale=1e-2, size=start.shape))
    model = TSNE(perplexity=min(30, (len(unit) - 1) / 3), init=start.astype(np.float32))
    with threadpool_limits(1):  # threads add up in another order each time, and the map would move
        return np.asarray(model.fit_transform(components), np.float64)


def principal(x: np.ndarray, count: int) -> np.ndarray:
    """[N, D] -> [N, <= count] principal components, the strongest first; signs are fixed.

    Directions in which x does not vary are left out.
    """
    centered = x.astype(np.float64) - x.mean(0, dtype=np.float64)
    if len(x) <= x.shape[1]:
        values, vectors = np.linalg.eigh(centered @ centered.T)
        components = vectors * np.sqrt(values.clip(0))
    else:
        values, vectors = np.linalg.eigh(centered.T @ centered)
        components = centered @ vectors
    rows, columns = x.shape
    noise = (
        np.finfo(x.dtype).eps ** 2 * max(rows, columns) * float((x.astype(np.float64) ** 2).sum())
    )
    kept = [i for i in np.argsort(-values)[:count] if values[i] > noise]
    components = components[:, kept]
    largest = np.abs(components).argmax(0) if len(kept) else np.zeros(0, int)
    signs = np.sign(components[largest, np.arange(len(kept))])
    return components * signs


def _table(seen: Seen, plane: np.ndarray, path: Path) -> None:
    """Place, image, neighbors and class of each point, in the columns that viewers know."""
    columns: dict[str, Any] = {
        "name": [_text(seen.name(i)) for i in range(len(seen))],
        "x": plane[:, 0],
        "y": plane[:, 1],
        "image": [{"bytes": jpeg(image)} for image in seen.small],
        "neighbors": [
            {"ids": near, "distances": [max(0.0, 1 - s) for s in similarity]}
            for near, similarity in zip(seen.near.tolist(), seen.similarity.tolist(), strict=True)
        ],
    }
    if seen.labels is not None:
        columns["class"] = [_text(seen.label(i)) or None for i in range(len(seen))]
    with export.atomic(path) as temporary:
        write_table(temporary, columns)


def _text(name: str) -> str:
    """Bytes that are no text become escapes."""
    return name.encode("utf-8", "backslashreplace").decode()
