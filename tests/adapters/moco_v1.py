"""MoCo v1: steps of training with its queue and momentum encoder, and its rate schedules."""

import torch

from selftaught.engine.optim import Rates
from selftaught.methods.contrastive.moco_v1 import MoCoV1
from tests.adapters import Golden, close, moco_v2


def check(golden: Golden) -> None:
    moco_v2.check(golden, MoCoV1)
    rates = golden["lr_step_schedule"]  # with the method's own milestones
    plan = Rates(MoCoV1.recipe, MoCoV1.recipe.batch, len(rates), 1)
    own = torch.tensor([plan.lr(epoch) for epoch in range(len(rates))], dtype=torch.float64)
    close(own / own[0], rates / rates[0])
