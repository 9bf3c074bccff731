"""What `Method.loss` itself returns, held for each method by a formula of its own in `formulas`.

Golden values hold the objectives; a sign or a weight that is turned between them and the loss is
seen here.
"""

import copy
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from selftaught import methods
from selftaught.method import Batch, Method
from tests.cases import CASES, OTHERS, larger_dinov2, teacher
from tests.formulas import FORMULAS
from tests.test_methods import batch, build

VARIANTS: dict[str, list[dict[str, Any]]] = {
    "infonce": [{"symmetric": False}],
    "npair": [{"symmetric": True, "decay": 0.5}],
    "dcl": [{"weighted": True}],
    "hcl": [{"hardness": 0.0}, {"hardness": 2.0, "prior": 0.0}],
    "siamese": [{"margin": 30.0}],
    "triplet": [{"margin": 5.0}, {"margin": 50.0, "distance": "squared"}],
    "spectral": [{"radius": 0.5}],
    "moco_v2": [{"symmetric": True}, {"hardness": 0.5}],
    "moco_v3": [{"temperature": 0.3}],
    "nnclr": [{"both_ways": True}],
    "instdisc": [{"negatives": 0}],
    "pirl": [{"objective": "cross_entropy", "weights": (0.3, 0.9)}],
    "cpc": [{"negatives": 4}],
    "cpc_audio": [{"negatives": 5}],
    "dcca": [{"form": "frobenius"}, {"form": "squares"}, {"form": "largest"}, {"shared": True}],
    "dccae": [{"element_mean": True}],
    "ace": [{"shared": False, "eps": 0.1}],
    "lejepa": [{"local_crops": 0}, {"weight": 0.4, "reach": 3.0, "points": 9}],
    "visreg": [{"local_crops": 0}, {"weight": 0.4, "scale": 2.0, "shape": 3.0, "center": 0.5}],
    "w_mse": [{"normalize": False}, {"count": 3, "draws": 2}, {"group": None}],
    "swav": [{"queue": 0}, {"local_crops": 0}],
    "seer": [{"hard": 0.9}],
    "msn": [
        {"entropy": 0.7},
        {"iterations": 0, "drop": 0.0},
        {"prior": "power", "exponent": 0.5},
        {"prior": (9.0, 5.0, 4.0, 3.0, 2.0, 2.0, 1.0, 1.0, 1.0, 0.5, 0.5, 0.1)},
    ],
    "dinov2": [
        {"targets": "sinkhorn", "koleo_weight": 0.3},
        {"gram_weight": 2.0, "gram_start": 0.2, "local_crops": 1},
        {"separate_head": True, "patch_prototypes": 10, "local_crops": 0},
        {"network": larger_dinov2()},
        {
            "separate_head": True,
            "patch_prototypes": 10,
            "targets": "sinkhorn",
            "network": larger_dinov2(separate_head=True, patch_prototypes=10),
        },
    ],
    "simdino": [{"smoothed": False, "local_crops": 0}, {"eps": 0.5, "rate_weight": 2.0}],
    "simdinov2": [{"smoothed": False, "patch_weight": 0.3}, {"local_crops": 0}],
    "ibot": [{"shared_head": False, "shared_teacher_head": False, "patch_weight": 0.4}],
    "distill": [{"temperature": 2.0, "alpha": 0.3}],
    "distill_features": [
        {"cosine": 0.5, "network": [teacher(), teacher("test_vit", 48)]},
        {"teacher_view": "same", "teacher_size": 64, "local": 0.7, "smooth_l1": 0.0},
        {"teacher_view": "same", "local": 0.7, "network": [teacher("test_vit"), teacher()]},
    ],
    "finetune": [{"smoothing": 0.0}],
    "pixpro": [{"layers": 2, "clamp": 0.1}],
    "stego": [{"pointwise": False, "stabilize": True, "crf": 0.5}],
    "mae": [
        {"normalize": False},
        {"unit": 2},
        {"decoder": "cross", "depth": 2, "asked": 0.25},
        {"decoder": "cross", "unit": 4, "ratio": 0.5, "asked": 0.5, "normalize": False},
    ],
    "capi": [{"asked": 0.9, "target_temp": 0.3, "student_temp": 0.5, "iterations": 1}],
    "denoising": [{"distance": "squared"}],
    "aim": [{"normalize": False, "prefix": False}],
    "simmim": [{"distance": "smooth_l1"}, {"distance": "l2"}, {"predict_visible": True}],
    "data2vec": [{"layers": 1, "beta": 0.1}],
    "bert": [{"ratio": 0.5, "whole_words": True}],
    "discrete_vae": [{"straight_through": True, "kl": "reference"}],
    "counting": [{"form": "port", "margin": 20.0}],
    "exemplar_cnn": [
        {"objective": "triplet", "copies": 3, "dim": 8},
        {"objective": "triplet_reference", "copies": 2, "dim": 8},
    ],
    "colorization": [{"form": "plain"}, {"form": "regression"}, {"form": "hybrid"}],
    "inpainting": [{"region": "random", "adversarial": 0.0}, {"border": 3.0}],
    "rotation": [{"pair": True}],
    "jigsaw": [{"puzzles": 2}],
    "vjepa": [{"power": 2.0, "large_boxes": 1}],
    "temporal_order": [{"ask": "direction"}],
}
"""Further settings by which a loss, not what its submodules give, is another one."""

ROWS = [
    pytest.param(name, options, id=f"{name}-{i}" if i else name)
    for name in sorted(CASES | OTHERS)
    for i, options in enumerate([{}, *VARIANTS.get(name, [])])
]


def ready(name: str, options: dict[str, Any]) -> tuple[Method, Batch]:
    """A method in the middle of training, whose parts all differ, and a batch, in float64."""
    case = (CASES | OTHERS)[name]
    case = replace(case, options=case.options | options)
    method = build(name, torch.float64, case=case)
    with torch.no_grad():
        for parameter in method.parameters():  # an EMA copy no longer is one
            parameter.add_(torch.randn_like(parameter), alpha=0.02)
        method.progress = 0.3
        method.loss(batch(name, method, epoch=1))  # fills queues, centers and memories
    views = batch(name, method)
    return method, views if method.needs.labels else views._replace(label=None)


def values(terms: Any) -> dict[str, float]:
    """Of a loss or its terms, by name."""
    return {k: float(v) for k, v in (terms if isinstance(terms, dict) else {"loss": terms}).items()}


def hold(found: dict[str, float], expected: dict[str, float]) -> None:
    """The same terms and values, none of which is 0."""
    assert found.keys() == expected.keys()
    assert 0 not in expected.values(), "a term of 0 holds nothing"
    for term, value in expected.items():
        np.testing.assert_allclose(found[term], value, rtol=1e-9, err_msg=term)


def wrong(found: dict[str, float]) -> Iterator[dict[str, float]]:
    """With a sign turned or a factor too many, in all terms or in one of them."""
    for factor in (-1.0, 2.0):
        for changed in {tuple(found), *((term,) for term in found)}:
            yield {k: factor * v if k in changed else v for k, v in found.items()}


def test_each_method_has_a_formula():
    assert set(FORMULAS) == set(methods.files())


@pytest.mark.parametrize(("name", "options"), ROWS)
def test_the_loss_is_the_formula_s_value(name, options):
    method, views = ready(name, options)
    twin = copy.deepcopy(method)
    with torch.no_grad():
        torch.manual_seed(7)
        expected = values(FORMULAS[name](twin, views))
        torch.manual_seed(7)
        found = values(method.loss(views))
    hold(found, expected)
    for changed in wrong(found):
        with pytest.raises(AssertionError):
            hold(changed, expected)
