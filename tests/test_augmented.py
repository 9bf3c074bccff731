"""Linear classification on augmented images: what is seen, how it learns, what is chosen."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from selftaught import evaluate
from selftaught.backbones import backbone
from selftaught.data import open_data
from selftaught.evaluate import augmented
from selftaught.evaluate.augmented import RATES, linear_augmented
from selftaught.evaluate.classifiers import Heads
from selftaught.evaluate.settings import Scoring

CLASSES = 3


def samples(count: int, seed: int):
    """Images of one color, by whose hue the class is told; each with a texture of its own."""
    rng = np.random.default_rng(seed)
    made = []
    for i in range(count):
        image = rng.integers(0, 60, (40, 40, 3), np.uint8)
        image[..., i % CLASSES] += 120
        made.append((image, i % CLASSES))
    return open_data(made)


def color(x: torch.Tensor) -> torch.Tensor:
    return x.float().mean((2, 3)) / 255


def asked(**more) -> Scoring:
    return Scoring(**{"passes": 4, "workers": 0, "batch": 16} | more)


def test_classifiers_learn_as_by_sgd_of_torch():
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(8, 20, 5), torch.randint(0, CLASSES, (8, 20))
    heads = Heads(x[0], (0.1, 3.0), CLASSES, 20, generator)
    ours, offset = (p.clone() for p in heads.parameters)
    for step in range(8):
        heads.step(x[step], y[step], step / 8)
    for n, rate in enumerate((0.1, 3.0)):
        weight = ours[:, n].clone().requires_grad_()
        bias = offset[n].clone().requires_grad_()
        sgd = torch.optim.SGD([weight, bias], lr=1.0, momentum=0.9)
        for step in range(8):
            # as papers' code: 256 samples a step, momentum before the rate
            sgd.param_groups[0]["lr"] = rate * 20 / 256 * 0.5 * (1 + np.cos(np.pi * step / 8))
            sgd.zero_grad()
            F.cross_entropy(x[step] @ weight + bias, y[step]).backward()
            sgd.step()
        torch.testing.assert_close(heads.parameters[0][:, n], weight.detach())
        torch.testing.assert_close(heads.parameters[1][n], bias.detach())


def test_each_pass_sees_other_crops_of_the_training_images_alone():
    seen: list[torch.Tensor] = []

    def network(x):
        seen.append(x.clone())
        return color(x)

    train, test = samples(24, 0), samples(9, 1)
    (score,) = linear_augmented({"x": network}, train, test, 32, asked()).values()
    plain, crops = [x for x in seen if len(x) < 24], [x for x in seen if len(x) == 24]
    assert [len(x) for x in plain] == [9, 6]  # the test, and what a rate is chosen by
    assert len(crops) == 4
    assert {x.shape[1:] for x in crops} == {(3, 32, 32)}
    ordered = [x[x.flatten(1).float().mean(1).argsort()] for x in crops]
    assert not any(torch.equal(ordered[0], other) for other in ordered[1:])
    assert score.value == 100
    assert score.n == 9
    assert "24 train, 9 test, 3 classes, given test set; softmax" in score.protocol
    assert "4 passes" in score.protocol
    assert "of 10 the best on 6 held-out training samples" in score.protocol


def test_the_same_seed_gives_the_same_and_workers_change_nothing():
    train = samples(30, 0)
    found = [
        linear_augmented({"x": color}, train, None, 32, asked(workers=n, passes=2))["x"]
        for n in (0, 0, 1)
    ]
    assert len({s.protocol for s in found}) == 1
    assert np.array_equal(found[0].correct, found[2].correct)
    assert "24 train, 6 test, 3 classes, a fifth of each class held out, seed 0" in (
        found[0].protocol
    )


@pytest.mark.parametrize("best", [0.1, 10.0])
def test_the_rate_that_is_best_on_held_out_images_is_taken(best, monkeypatch):
    """The twin that has not seen them chooses; what is scored has seen all."""
    train, test = samples(24, 0), samples(9, 1)
    widths = []

    def told(x, heads):
        """All but the best rate take each image for one of the next class."""
        widths.append(len(x))
        truth = torch.from_numpy(x).argmax(1)
        found = ((truth + 1) % CLASSES)[:, None].repeat(1, len(RATES))
        found[:, RATES.index(best)] = truth
        return found

    monkeypatch.setattr(augmented, "_told", told)
    (score,) = linear_augmented({"x": color}, train, test, 32, asked()).values()
    assert f"learning rate {best:g} for 256 samples" in score.protocol
    assert widths == [6, 9]


def test_compare_has_it_beside_its_floors(tmp_path):
    net = backbone("test_resnet", size=32)
    found = evaluate.compare(
        net, samples(24, 0), samples(9, 1), probes=("linear-paper", "knn"), passes=2, workers=0
    )
    names = [s.name for s in found.scores["this encoder"]]
    assert names == ["k-NN", "linear, augmented"]
    assert set(found.scores) == {"this encoder", "untrained", "pixels 8x8", "pixels 16x16"}
    alone = evaluate.compare(net, samples(24, 0), probes=("linear-paper",), passes=1, workers=0)
    assert [len(s) for s in alone.scores.values()] == [1] * 4
    assert "linear, augmented" in alone.verdict


def test_one_image_a_class_chooses_no_rate():
    train = open_data([(np.full((40, 40, 3), 80 * i, np.uint8), i) for i in range(3)])
    (score,) = linear_augmented({"x": color}, train, train, 32, asked()).values()
    assert "too few training samples to choose" in score.protocol
