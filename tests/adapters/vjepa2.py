"""V-JEPA 2: masks replayed draw by draw, rotary positions, the whole loss, schedules."""

from dataclasses import replace

import torch
from timm.layers import apply_rot_embed_cat

from selftaught.backbones import rotary
from selftaught.backbones.predictor import rotary_blocks
from selftaught.engine.optim import Rates
from selftaught.method import Recipe
from selftaught.methods.predictive.vjepa2 import VJEPA2
from tests.adapters import Golden, close, warm
from tests.clips import check_masks, check_whole


def check(golden: Golden) -> None:
    check_masks(golden)
    _rotation(golden)
    _attention(golden)
    check_whole(golden, VJEPA2)
    _schedules(golden)


def _rotation(golden: Golden) -> None:
    x, places = golden["rope.x"], golden["rope.pos"].long()
    table = rotary((int(places.max()) + 1,), x.shape[-1], tiled=True)[places]
    close(apply_rot_embed_cat(x, table), golden["rope.y"])


def _attention(golden: Golden) -> None:
    rows = int(golden.setting("ropeattn.ids", "rows", r"T x (\d+)"))
    cols = int(golden.setting("ropeattn.ids", "cols", r"T x \d+ x (\d+)"))
    width = int(golden.setting("ropeattn.y", "head_dim", r"head_dim (\d+)"))
    x, ids = golden["ropeattn.x"], golden["ropeattn.ids"]
    frames = int(ids.max()) // (rows * cols) + 1
    attention = rotary_blocks(x.shape[-1], 1, x.shape[-1] // width, 1.0)[0].attn.double()
    attention.load_state_dict(golden.starting("ropeattn.param."))
    table = rotary((frames, rows, cols), width, tiled=True)[ids]
    close(attention(x, rope=table[:, None]), golden["ropeattn.y"])


def _schedules(golden: Golden) -> None:
    given = golden.given("sched.linear")
    recipe = Recipe(
        "adamw",
        given["ref_lr"],
        schedule="linear",
        end=given["final_lr"] / given["ref_lr"],
        step_offset=1,
    )
    _rates(recipe, given["T_max"], golden["sched.linear"])
    given = golden.given("sched.wsd")
    steps = given["T_max"]
    recipe = replace(
        recipe,
        lr=given["ref_lr"],
        schedule="constant",
        warmup=warm(given) / steps,
        warmup_from=given["start_lr"] / given["ref_lr"],
        cooldown=given["anneal"] / steps,
        end=given["final_lr"] / given["ref_lr"],
    )
    _rates(recipe, steps, golden["sched.wsd"])


def _rates(recipe: Recipe, steps: int, expected: torch.Tensor) -> None:
    plan = Rates(recipe, recipe.batch, steps, steps)
    close([plan.lr(step) for step in range(len(expected))], expected)
