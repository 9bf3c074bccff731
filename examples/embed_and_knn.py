"""Features of labeled photos from a trained encoder, and what they are worth.

python examples/embed_and_knn.py ENCODER LABELED      # ENCODER: a run folder
"""

import sys

from rich.console import Console

import selftaught
from selftaught import evaluate

if __name__ == "__main__":
    run, labeled = sys.argv[1:3]
    encoder = selftaught.load(run)

    found = selftaught.embed(encoder, labeled)
    print(f"{len(found)} photos, {found.features.shape[1]} features each")
    print(f"k-NN {evaluate.knn(found, k=5).value:.1f} %")

    # the same, beside raw pixels and the untrained network
    Console().print(evaluate.compare(encoder, labeled, k=5))
