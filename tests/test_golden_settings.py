"""Adapters of golden files on other settings and shapes than those of this project's copy."""

import importlib
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.adapters import Golden
from tests.test_golden import load


def changed(
    name: str, arrays: dict[str, Any] | None = None, own: dict[str, Any] | None = None, **hyper: Any
) -> Golden:
    """The file with other arrays (None for those that it has not), settings of arrays, settings."""
    golden = load(name)
    merged = golden.arrays | {
        k: None if v is None else np.array(v) for k, v in (arrays or {}).items()
    }
    about = dict(golden.about)
    for array, settings in (own or {}).items():
        said = dict(about.get(array, {"meaning": ""}))
        said["hyperparameters"] = (said.get("hyperparameters") or {}) | settings
        about[array] = said
    kept = {k: v for k, v in merged.items() if v is not None}
    return replace(golden, arrays=kept, hyper=golden.hyper | hyper, about=about)


def check(name: str, golden: Golden) -> None:
    importlib.import_module(f"tests.adapters.{name}").check(golden)


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def test_settings_of_an_array_hold_over_those_of_the_file():
    about = {"a.x": {"hyperparameters": {"k": 2}}, "a.y": {}, "ab": {"meaning": "k = 0.3"}}
    golden = Golden({}, {"k": 1, "m": 7}, about)
    assert golden.given("a.") == {"k": 2, "m": 7}
    assert golden.given("a.y") == golden.given("a") == {"k": 1, "m": 7}
    assert golden.own("a.y") == {}
    assert golden.setting("a.", "k", r"k = ([\d.]+)") == 2
    assert golden.setting("ab", "k", r"k = ([\d.]+)") == 0.3
    with pytest.raises(AssertionError, match="names no m of ab"):
        golden.setting("ab", "m")


def test_bert_with_other_numbers_of_tokens():
    lengths = np.arange(2, 200)
    counts = [min(27, max(1, round(0.31 * n))) for n in lengths.tolist()]
    arrays = {"num_to_predict.len": lengths, "num_to_predict.value": counts}
    own = {"num_to_predict.value": {"prob": 0.31, "maxp": 27}}
    check("bert_mlm", changed("bert_mlm", arrays, own))
    with pytest.raises(AssertionError):
        check("bert_mlm", changed("bert_mlm", arrays))


def test_dcca_with_another_weight_of_the_port():
    given = load("dcca").arrays
    errors = [((given[f"x{i}"] - given[f"rec{i}"]) ** 2).mean() for i in (1, 2)]
    arrays = {"dccae_xdmvteam": given["loss_paper"] + 0.03 * sum(errors)}
    check("dcca", changed("dcca", arrays, {"dccae_xdmvteam": {"lam": 0.03}}))
    with pytest.raises(AssertionError):
        check("dcca", changed("dcca", arrays))


def test_dinov2_with_other_rates_and_batches():
    arrays = {"lr.scaled": [7e-4 * math.sqrt(b / 1024) for b in (128, 512, 4096)]}
    own = {"lr.scaled": {"base_lr": 7e-4, "batches": [128, 512, 4096]}}
    check("dinov2_system", changed("dinov2_system", arrays, own))
    own["lr.scaled"]["base_lr"] = 8e-4
    with pytest.raises(AssertionError):
        check("dinov2_system", changed("dinov2_system", arrays, own))


def test_ibot_without_small_views():
    golden = load("ibot")
    given, hyper = golden.arrays, golden.hyper
    student, teacher = (given[f"{n}_cls"].reshape(2, -1, 14) for n in ("student", "teacher"))
    goals = softmax((teacher[::-1] - given["center0"]) / hyper["teacher_temp"])
    found = softmax(student / hyper["student_temp"])
    loss = -(goals * np.log(found)).sum(-1).mean()
    slope = (found - goals) / hyper["student_temp"] / goals[..., 0].size
    arrays = {
        "loss_cls": loss,
        "loss": loss + given["loss_patch"],
        "grad_student_cls": slope.reshape(given["student_cls"].shape),
        "student_local_cls": None,
        "grad_student_local": None,
    }
    check("ibot", changed("ibot", arrays, nlcrops=0))


def test_ibot_that_hides_patches_from_an_epoch_on():
    """An epoch later the temperatures are those of this project's copy again."""
    temperatures = load("ibot_masking").arrays["loss.temp2_schedule"]
    later = np.concatenate([temperatures[:1], temperatures[:-1]])
    arrays = {"loss.temp2_schedule": later}
    own = {"loss.cls": {"epoch": 3}, "loss.temp2_schedule": {"pred_start_epoch": 1}}
    check("ibot_masking", changed("ibot_masking", arrays, own))
    with pytest.raises(AssertionError):
        check("ibot_masking", changed("ibot_masking", arrays, {"loss.cls": {"epoch": 3}}))
    own["loss.temp2_schedule"]["pred_start_epoch"] = 2
    with pytest.raises(AssertionError):
        check("ibot_masking", changed("ibot_masking", arrays, own))


def test_ijepa_with_another_share_of_random_targets_and_a_warmup_in_steps():
    given = load("ijepa").arrays
    orders, share = given["random.perms"], 0.2 + 0.3 * float(given["random.u"])
    kept = int(orders.shape[1] * (1 - share))
    arrays = {"random.enc": orders[:, :kept], "random.pred": orders[:, kept:]}
    own = {"random.enc": {"ratio": [0.2, 0.5]}, "sched.lr": {"warmup": 3, "warmup_steps": 10}}
    check("ijepa", changed("ijepa", arrays, own))
    with pytest.raises(AssertionError):
        check("ijepa", changed("ijepa", arrays, {"sched.lr": {"warmup": 3}}))


def test_ijepa_told_of_fewer_targets_than_it_drew():
    own = {"stat.vitb16.enc_keep": {"npred": 3}}
    with pytest.raises(AssertionError):
        check("ijepa", changed("ijepa", own=own))


def test_moco_v3_with_a_head_that_is_named_as_in_vits():
    golden = load("moco_v3")
    arrays = {k.replace("encoder.fc.", "encoder.head."): v for k, v in golden.arrays.items()}
    assert any(".head." in name for name in arrays)
    check("moco_v3", replace(golden, arrays=arrays))


@pytest.mark.parametrize("shape", [(6, 6), (4, 7), (9, 2)])
def test_rotations_of_any_rectangle(shape):
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    turns = {f"rot{90 * k}": np.rot90(image, k) for k in range(4)}
    check("rotnet", changed("rotnet", {"image": image, **turns}))
    turns["rot90"], turns["rot270"] = turns["rot270"], turns["rot90"]
    with pytest.raises(AssertionError):
        check("rotnet", changed("rotnet", {"image": image, **turns}))


@pytest.mark.parametrize("as_settings", [False, True])
def test_simmim_with_other_numbers_of_hidden_squares(as_settings):
    cases = [(160, 32, 16, 0.55), (96, 16, 4, 0.33), (128, 64, 16, 0.9)]
    counts = [math.ceil((size // unit) ** 2 * ratio) for size, unit, _, ratio in cases]
    name = "mask.counts_table"
    golden = changed("simmim", {name: counts}, {name: {"cases": cases}} if as_settings else {})
    if not as_settings:
        golden.about[name] = {"meaning": f"counts for (img, unit, patch, ratio) = {cases}"}
    check("simmim", golden)
    golden.arrays[name][1] += 1
    with pytest.raises(AssertionError):
        check("simmim", golden)
