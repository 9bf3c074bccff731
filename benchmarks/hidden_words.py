"""How many hidden words of texts that it has not seen a run of `bert` tells, beside counting.

python benchmarks/hidden_words.py RUN TEXTS

RUN: folder of a training, whose data is where it was. TEXTS: others, of which nothing was learned.
"""

import argparse
import json
import math
from pathlib import Path

import numpy as np
import torch

from selftaught import kinds
from selftaught.augment import sample_rng
from selftaught.data import open_data
from selftaught.engine.build import asked_of, restored
from selftaught.kinds.floors.text import between, by_frequency, count


def main() -> None:
    """Print shares that are right, with 95 % intervals, and losses, as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run")
    parser.add_argument("texts")
    asked = parser.parse_args()
    method = restored(asked.run).eval()
    kind, size = kinds.of(method.encoder), method.backbone.size
    pipeline = kind.views(method.views(size))
    seen, held = (
        open_data(str(data), kind=kind) for data in (asked_of(Path(asked.run))["data"], asked.texts)
    )
    known = kind.cut.vocabulary
    frame = [known.start], [known.end]
    texts = (kind.cut.encode(seen.read(i)).ids for i in range(len(seen)))
    counts = count((np.concatenate([frame[0], ids, frame[1]]) for ids in texts), known.words)
    counts.single[[known.start, known.end]] = 0  # which are never asked for
    right: dict[str, list[np.ndarray]] = {"network": [], "frequency": [], "neighbors": []}
    losses: list[np.ndarray] = []
    for i in range(len(held)):
        ids, positions, labels = pipeline(held.read(i), sample_rng(0, 0, i))
        with torch.no_grad():
            views = torch.from_numpy(ids)[None], torch.from_numpy(positions)[None]
            logits = method.predict(*views).log_softmax(1).numpy()
        asked_for = positions >= 0
        places, true = positions[asked_for], labels[asked_for]
        losses.append(-logits[np.arange(len(true)), true])
        told = between(counts, ids[places - 1], ids[places + 1])
        right["network"].append(logits.argmax(1) == true)
        right["frequency"].append(by_frequency(counts, len(true)) == true)
        right["neighbors"].append(told == true)
    shares = {name: np.concatenate(each) for name, each in right.items()}
    n = len(shares["network"])
    found = {name: [100 * x.mean(), 196 * math.sqrt(x.var() / n)] for name, x in shares.items()}
    print(
        json.dumps(
            {
                "tokens asked for": n,
                "right, per cent ± 95 %": {k: [round(v, 1) for v in x] for k, x in found.items()},
                "loss": round(float(np.concatenate(losses).mean()), 3),
                "loss of guessing": round(counts.entropy, 3),
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main()
