"""ALSO: places from the recorded draws, pairs, decoder and losses with their gradient."""

import numpy as np
import torch

from selftaught.methods.dense.also import Decoder, losses, neighbors, places
from tests.adapters import Golden, close


class Recorded:
    """Orders and numbers as they were drawn, in their order."""

    def __init__(self, golden: Golden):
        count = len(golden.starting("perm"))
        self.orders = iter([golden[f"perm{i}"].numpy() for i in range(count)])
        self.numbers = iter([golden[f"u{i}"].numpy() for i in range(count)])

    def permutation(self, x: int) -> np.ndarray:
        order = next(self.orders)
        assert len(order) == x
        return order

    def random(self, size: tuple[int, int]) -> np.ndarray:
        drawn = next(self.numbers)
        assert drawn.shape == size
        return drawn


def check(golden: Golden) -> None:
    hyper = golden.hyper
    points = golden["pos"].numpy()
    draws = Recorded(golden)
    found = places(draws, points, hyper["nq"], hyper["dist"])
    assert not [*draws.orders, *draws.numbers]
    close(found.places, golden["queries"])
    close(found.full, golden["occupancies"])
    light = np.where(found.far, -1, golden["intensities"].numpy()[found.source, 0])
    close(light, golden["query_intensities"])

    scene, asked = golden["batch_pos"].numpy(), golden["batch_query"].numpy()
    pairs = []
    for each in np.unique(asked):
        rows, columns = np.flatnonzero(asked == each), np.flatnonzero(scene == each)
        near = neighbors(points[columns], found.places[rows], hyper["radius"], len(columns))
        row, k = np.nonzero(near >= 0)
        pairs += [*zip(rows[row].tolist(), columns[near[row, k]].tolist())]
    expected = golden["pairs"].T.tolist()
    assert sorted(pairs) == sorted(map(tuple, expected))

    query, point = golden["pairs"]
    decoder = Decoder(hyper["latent"]).double()
    decoder.load_state_dict(golden.starting("dec."))
    latents = golden.leaf("latents")
    offsets = golden["queries"][query] - golden["pos"][point]
    out = decoder(latents[point], offsets)
    close(out[:, 0], golden["logits"])
    terms = losses(out, torch.from_numpy(found.full)[query], torch.from_numpy(light)[query])
    # the reference makes single floats of its targets, and so of this loss
    close(terms["occupancy"], golden["recons_loss"], rtol=1e-6)
    close(terms["intensity"], golden["intensity_loss"])
    torch.stack([*terms.values()]).sum().backward()
    close(latents.grad, golden["grad_latents"])
