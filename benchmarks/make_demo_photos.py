"""Make the photos that the package ships, from the CC0 set `clothing`: stratified, 112 px, JPEG.

python benchmarks/make_demo_photos.py CLOTHING_FOLDER
"""

import argparse
import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

SIDE, QUALITY = 112, 75
OUT = Path(__file__).parent.parent / "src" / "selftaught" / "demo"
TAKEN = {"train": (1000, ["train"]), "test": (400, ["test", "validation"])}


def smaller(encoded: bytes) -> bytes:
    image = Image.open(io.BytesIO(encoded)).convert("RGB")
    scale = SIDE / min(image.size)
    image = image.resize([round(s * scale) for s in image.size], Image.Resampling.LANCZOS)
    out = io.BytesIO()
    image.save(out, "JPEG", quality=QUALITY, optimize=True)
    return out.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    for part, (count, sources) in TAKEN.items():
        table = pa.concat_tables([pq.read_table(folder / f"{s}.parquet") for s in sources])
        labels = table["label"].to_numpy()
        rng = np.random.default_rng(0)
        order = rng.permutation(len(labels))
        share = count / len(labels)
        parts = [order[labels[order] == c] for c in np.unique(labels)]
        rows = np.sort(np.concatenate([own[: round(share * len(own))] for own in parts]))
        chosen = table.take(rows)
        images = [smaller(b.as_py()) for b in chosen["image"]]
        small = pa.table({"image": images, "label": chosen["label"], "path": chosen["path"]})
        pq.write_table(small, OUT / f"{part}.parquet", compression="zstd")
        size = (OUT / f"{part}.parquet").stat().st_size
        print(f"{part}: {len(rows)} photos, {size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
