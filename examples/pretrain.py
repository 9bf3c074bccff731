"""The main job in Python: unlabeled photos in, a run folder with an encoder and a report out.

python examples/pretrain.py PHOTOS [EPOCHS]
"""

import sys

from selftaught import pretrain
from selftaught.methods import SimCLR

if __name__ == "__main__":  # the processes that make views import this file
    run = pretrain(
        SimCLR,
        sys.argv[1],
        "runs/example",
        backbone="resnet18",
        size=32,
        temperature=0.2,
        strength=0.5,
        blur=0.0,
        epochs=int(sys.argv[2]) if len(sys.argv) > 2 else 100,
        batch=64,
        optimizer="adamw",
        lr=1e-3,
        seed=0,
        overwrite=True,
    )
    print(f"{run.verdict}; open {run.report}")
