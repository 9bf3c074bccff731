"""Does ALSO learn what single points are? On scans of KITTI, beside the floors of points.

python benchmarks/points.py --data $DATA [--steps 260] [--size 8192] [--seed 0]

52 scans of two drives, of which one point is kept in each cube of 0.25 m, are trained on without
labels. Three other frames have boxes around what is on the road, where the camera sees it: their
points get classes in SemanticKITTI's layout, and `selftaught evaluate RUN velodyne --probes segment
--masks labels` tells each frame by a linear layer that was learned on the other two. $DATA has a
folder lidar with kitti_unlabelled_seq.npz and kitti_labelled3.npz; results are in
results/points.json and points.md.
"""

import argparse
import json
import logging
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import machine
import numpy as np
import torch

import selftaught
from selftaught.evaluate.comparing import compare

RESULTS = Path(__file__).parent / "results" / "points.json"
CUBE = 0.25
"""Meters: of the cubes of which the scans without labels have one point each."""
OBJECT, GROUND, REST = 10, 40, 99
NEAR_GROUND = 0.15
"""Meters from the plane of the ground within which points are of it."""
CAMERA = (375, 1242)
"""Rows and columns of what the camera sees."""
SETS = {
    "objects and ground, thinned": "points in boxes, those within 0.15 m of a plane through the "
    "ground, and all others that the camera sees; thinned as what was trained on",
    "objects, all points": "points in boxes, and all others; denser than what was trained on, "
    "where thinning leaves a few dozen points of objects",
}
"""Labels -> what they tell apart."""


def unlabeled(data: Path, folder: Path) -> Path:
    """KITTI's .bin of each scan."""
    folder.mkdir(parents=True)
    with np.load(data / "lidar" / "kitti_unlabelled_seq.npz") as found:
        for name in (n.removesuffix("_xyz_cm") for n in found.files if n.endswith("_xyz_cm")):
            points(found, name).tofile(folder / f"{name}.bin")
    return folder


def labeled(data: Path, folder: Path, which: str) -> Path:
    """The frames with labels, in SemanticKITTI's layout; those of `which` of `SETS`."""
    for part in ("velodyne", "labels"):
        (folder / part).mkdir(parents=True)
    with np.load(data / "lidar" / "kitti_labelled3.npz") as found:
        for name in sorted({n[:6] for n in found.files}):
            x = points(found, name)
            code = classes(x[:, :3], found, name, "ground" in which)
            if "thinned" in which:
                cube = np.floor(x[:, :3] / CUBE).astype(int)
                kept = np.sort(np.unique(cube, axis=0, return_index=True)[1])
                x, code = x[kept], code[kept]
            x.tofile(folder / "velodyne" / f"{name}.bin")
            code.astype("<u4").tofile(folder / "labels" / f"{name}.label")
    return folder


def points(found: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    """float32 [N, 4]."""
    meters, light = found[f"{name}_xyz_cm"] / 100, found[f"{name}_i"] / 255
    return np.c_[meters, light].astype(np.float32)


def classes(x: np.ndarray, found: Mapping[str, np.ndarray], name: str, ground: bool) -> np.ndarray:
    """Of points [N, 3]: 0 where the camera, for which boxes are, sees nothing or nobody cared."""
    lines = (
        found[f"{name}_{part}"].tobytes().decode().splitlines() for part in ("calib", "label_2")
    )
    calibration, boxes = lines
    at = {k: np.array(v.split(), float) for k, _, v in (c.partition(":") for c in calibration) if v}
    seen, turn = np.eye(4), np.eye(4)
    seen[:3], turn[:3, :3] = at["Tr_velo_to_cam"].reshape(3, 4), at["R0_rect"].reshape(3, 3)
    camera = np.c_[x, np.ones(len(x))] @ (turn @ seen).T
    image = camera @ at["P2"].reshape(3, 4).T
    ahead = image[:, 2] > 0.1
    column, row = (image[:, :2] / np.where(ahead, image[:, 2], 1)[:, None]).T
    inside = ahead & (row >= 0) & (row < CAMERA[0]) & (column >= 0) & (column < CAMERA[1])
    code = np.where(inside, REST, 0)
    if ground:
        code[inside & (np.abs(heights(x)) < NEAR_GROUND)] = GROUND
    for line in boxes:
        word, *numbers = line.split()
        left, top, right, bottom, high, wide, long, *place, angle = map(float, numbers[3:14])
        if word == "DontCare":
            hidden = (column >= left) & (column <= right) & (row >= top) & (row <= bottom)
            code[hidden & inside] = 0
            continue
        away = camera[:, :3] - np.array(place)
        c, s = np.cos(angle), np.sin(angle)
        along, across = c * away[:, 0] - s * away[:, 2], s * away[:, 0] + c * away[:, 2]
        box = (np.abs(along) <= long / 2) & (np.abs(across) <= wide / 2)
        code[box & inside & (away[:, 1] <= 0) & (away[:, 1] >= -high)] = OBJECT
    return code


def heights(x: np.ndarray) -> np.ndarray:
    """Above the plane that most points near the sensor lie on, of 500 through three of them."""
    rng = np.random.default_rng(0)
    near = x[(np.abs(x[:, :2]).max(1) < 30) & (x[:, 2] < -1)]
    best, most = np.zeros(len(x)), -1
    for _ in range(500):
        a, b, c = near[rng.choice(len(near), 3, replace=False)]
        normal = np.cross(b - a, c - a)
        if abs(normal[2]) < 0.9 * np.linalg.norm(normal) or not normal.any():
            continue
        normal /= np.linalg.norm(normal) * np.sign(normal[2])
        count = int((np.abs((near - a) @ normal) < NEAR_GROUND / 2).sum())
        if count > most:
            best, most = (x - a) @ normal, count
    return best


def run(data: Path, options: dict[str, Any], seed: int) -> dict[str, Any]:
    """Train, and score the points of the frames with labels."""
    with tempfile.TemporaryDirectory() as folder:
        scans = unlabeled(data, Path(folder) / "scans")
        begun = time.process_time()
        made = selftaught.pretrain(
            "also", scans, Path(folder) / "run", seed=seed, workers=0, precision="fp32",
            curve=False, evaluate=False, **options,
        )  # fmt: skip
        trained = time.process_time() - begun
        rows: dict[str, Any] = {}
        for which in SETS:
            place = labeled(data, Path(folder) / which, which)
            codes = [np.fromfile(f, "<u4") for f in sorted((place / "labels").iterdir())]
            found = compare(
                made.encoder, place / "velodyne", probes=("segment",), workers=0, seed=seed,
                masks=str(place / "labels"),
            )  # fmt: skip
            objects = [int((code == OBJECT).sum()) for code in codes]
            rows[which] = found.as_dict() | {"objects": objects}
        return {
            "options": options,
            "seed": seed,
            "network": f"{made.encoder.name}, {made.encoder.size} points",
            "verdict": str(made.verdict),
            "terms": terms(Path(folder) / "run" / "metrics.csv"),
            "cpu_seconds": round(trained, 1),
            "rows": rows,
            "machine": machine.describe(),
        }


def terms(path: Path) -> dict[str, list[float]]:
    """Of the loss, at the first and at the last step that was written down."""
    head, *lines = [line.split(",") for line in path.read_text().splitlines()]
    return {
        name: [round(float(lines[i][head.index(name)]), 4) for i in (0, -1)]
        for name in ("occupancy", "intensity")
    }


def markdown(found: dict[str, Any]) -> str:
    """A table, and what it means."""
    given = " ".join(f"--{k.replace('_', '-')} {v}" for k, v in found["options"].items())
    occupancy, light = found["terms"]["occupancy"], found["terms"]["intensity"]
    lines = [
        "# What single points are, beside the floors",
        "",
        "Made by `python benchmarks/points.py --data $DATA`: `selftaught pretrain also scans/ "
        f"{given} --seed {found['seed']}` on 52 scans of KITTI without labels "
        f"({found['cpu_seconds']:.0f} CPU s, {found['network']}), then `selftaught evaluate RUN "
        "velodyne/ --probes segment --masks labels/` on three other frames.",
        "",
        f"While it trained, occupancy went from {occupancy[0]:.3f} to {occupancy[1]:.3f} (about "
        f"0.683 is guessing) and intensity from {light[0]:.3f} to {light[1]:.3f}.",
        "",
        "Mean intersection over union in per cent; each frame is told by a linear layer learned on "
        "the other two. 95 % intervals are over eight sectors of each frame, which are drawn anew "
        "200 times: three frames are too few to draw frames, so that they say nothing of other "
        "streets. The margin is above the highest floor, on the same sectors.",
        "",
        "| labels | points of objects, a frame | this encoder | 95 % | untrained | "
        "height and surroundings | IoU of objects: encoder, untrained, surroundings | "
        "above the floors |",
        "| --- " * 8 + "|",
    ]
    for which, row in found["rows"].items():
        by = {s["features"]: s for s in row["scores"]}
        ours, fresh, plain = (
            by[n] for n in ("this encoder", "untrained", "height and surroundings")
        )
        margin = row["margins"][0]
        objects = ", ".join(f"{s['parts'][f'class {OBJECT}']:.1f}" for s in (ours, fresh, plain))
        low, high = ours["interval"]
        cells = [
            which,
            ", ".join(map(str, row["objects"])),
            f"{ours['value']:.1f}",
            f"{low:.1f} to {high:.1f}",
            f"{fresh['value']:.1f}",
            f"{plain['value']:.1f}",
            objects,
            "{:+.1f} ({:+.1f} to {:+.1f}): {}".format(
                margin["points"], *margin["interval"], margin["verdict"]
            ),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", *(f"- {which}: {told}." for which, told in SETS.items()), ""]
    lines += [
        "Boxes hold a pedestrian, a cyclist, cars, a truck and a trailer, few points each, and "
        "what is an object in two frames hardly tells what is one in the third.",
        "",
        "On {cores} cores of {cpu}, one thread.".format(**found["machine"]),
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with a folder lidar")
    parser.add_argument("--steps", type=int, default=260)
    parser.add_argument("--size", type=int, default=8192, help="points of a view")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    logging.getLogger("selftaught").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    options = {"size": arguments.size, "max_steps": arguments.steps}
    found = run(arguments.data, options, arguments.seed)
    RESULTS.write_text(json.dumps(found, indent=1) + "\n")
    RESULTS.with_suffix(".md").write_text(markdown(found))


if __name__ == "__main__":
    main()
