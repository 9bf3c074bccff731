"""Do masks of motion find what moves? Against masks drawn by people.

python benchmarks/flow.py $DATA/video_frames/frames.parquet --seq davis_car-shadow [--apart 2]

Of each frame that has a mask and neighbors: how well the pixels that surely move (above 0.7) and
surely do not (below 0.4), as the method `motion` takes them, agree with the mask, and the
intersection over union of everything above the middle of the two.
"""

import argparse
import io
import json
import shlex
import sys
import time
from pathlib import Path

import machine
import numpy as np
import PIL.Image
import pyarrow.parquet as pq

from selftaught.data.video.flow import motion_mask

LOW, HIGH = 0.4, 0.7
"""Of the method's trimap."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("frames", type=Path, help="Parquet with image, mask, seq and frame")
    parser.add_argument("--seq", required=True, help="the clip, in which the masked object moves")
    parser.add_argument("--apart", type=int, default=2, help="frames to a neighbor")
    arguments = parser.parse_args()
    rows = pq.read_table(arguments.frames).to_pylist()
    rows = sorted((r for r in rows if r["seq"] == arguments.seq), key=lambda r: r["frame"])
    images = [pixels(row["image"]) for row in rows]
    unions, hits, seconds = [], [], []
    for i in range(arguments.apart, len(rows) - arguments.apart):
        if rows[i]["mask"] is None:
            continue
        begun = time.process_time()
        found = motion_mask(images[i - arguments.apart], images[i], images[i + arguments.apart])
        seconds.append(time.process_time() - begun)
        moving, true = found / 255, np.asarray(PIL.Image.open(io.BytesIO(rows[i]["mask"]))) > 0
        above = moving > (LOW + HIGH) / 2
        unions.append((above & true).sum() / max(1, (above | true).sum()))
        sure = (moving < LOW) | (moving > HIGH)
        hits.append((sure.mean(), ((moving > HIGH) == true)[sure].mean()))
    share, right = np.mean(hits, 0)
    result = {
        "frames": len(unions),
        "sure": round(100 * float(share), 1),
        "right_of_sure": round(100 * float(right), 1),
        "intersection_over_union": round(100 * float(np.mean(unions)), 1),
        "milliseconds": round(1000 * float(np.median(seconds)), 1),
        "command": "python benchmarks/flow.py $DATA/video_frames/frames.parquet "
        + shlex.join(sys.argv[2:]),
        "machine": machine.describe("opencv-python-headless"),
    }
    path = Path(__file__).parent / "results" / "flow.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(PIL.Image.open(io.BytesIO(data)).convert("RGB"))


if __name__ == "__main__":
    main()
