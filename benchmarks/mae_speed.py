"""How much faster is MAE than SimMIM, which encodes hidden patches too?

python benchmarks/mae_speed.py [--net vit_small_patch16_224] [--batch 4] [--rounds 3]

Steps of both (loss and gradient, on random images in memory) by turns, on the same ViT at ratio
0.75, one thread. CPU time, because other work runs beside: medians over the rounds. MAE's speed
depends on its decoder: the paper's has 8 blocks of width 512, made for a ViT-L.
"""

import argparse
import json
import statistics
import time
from contextlib import nullcontext
from pathlib import Path

import machine
import torch
from torch.utils.flop_counter import FlopCounterMode

from selftaught.backbones import Image
from selftaught.method import Batch, Method
from selftaught.methods.masked.mae import MAE
from selftaught.methods.masked.simmim import SimMIM


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--net", default="vit_small_patch16_224")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--decoders", nargs="+", default=["192x1", "512x1", "512x8"])
    given = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    size = 224
    noise, images = torch.rand(given.batch, 196), torch.randn(given.batch, 3, size, size)
    hidden = (noise.view(-1, 14, 14) > 0).logical_and(torch.rand(given.batch, 14, 14) < 0.75)
    runs: dict[str, tuple[Method, list[torch.Tensor]]] = {
        "simmim": (SimMIM(Image(given.net, size), 0.75, 16), [images, hidden])
    }
    for decoder in given.decoders:
        dim, depth = map(int, decoder.split("x"))
        mae = MAE(Image(given.net, size), dim=dim, depth=depth, heads=dim // 64)
        runs[f"mae, decoder {decoder}"] = (mae, [images, noise])
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    work: dict[str, float] = {}
    for turn in range(given.rounds + 1):  # the first counts operations, not time
        for name, (method, views) in runs.items():
            begun = time.process_time()
            method.zero_grad()
            with FlopCounterMode(display=False) if not turn else nullcontext() as counter:
                method.loss(Batch(views, torch.arange(given.batch))).backward()  # type: ignore
            if counter:
                work[name] = counter.get_total_flops() / given.batch
            else:
                seconds[name].append(time.process_time() - begun)
    ratios = {
        n: statistics.median(a / b for a, b in zip(seconds["simmim"], s))
        for n, s in seconds.items()
    }
    rows = {
        n: {
            "cpu_seconds_per_image": round(statistics.median(s) / given.batch, 4),
            "gflop_per_image": round(work[n] / 1e9, 2),
            "times_simmim": round(ratios[n], 2),
            "times_simmim_by_flop": round(work["simmim"] / work[n], 2),
        }
        for n, s in seconds.items()
    }
    path = Path(__file__).parent / "results" / "mae_speed.json"
    results = json.loads(path.read_text()) if path.exists() else {}
    command = f"python benchmarks/mae_speed.py --net {given.net} --batch {given.batch}"
    command += f" --rounds {given.rounds} --decoders {' '.join(given.decoders)}"
    results[given.net] = {"rows": rows, "command": command, "machine": machine.describe()}
    path.write_text(json.dumps(results, indent=1) + "\n")
    print(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
