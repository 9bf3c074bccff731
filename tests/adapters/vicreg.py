"""VICReg: its terms and gradients, expander, LARS and rates."""

from typing import Any

import torch

from selftaught.methods.correlation.vicreg import VICReg
from tests.adapters import Golden, close
from tests.adapters.barlow_twins import Small, check_lars, check_rates, widths


def make(golden: Golden, inputs: int = 1, **options: Any) -> VICReg:
    hyper = golden.hyper
    names = ("sim_coeff", "std_coeff", "cov_coeff")
    weights = [hyper[n] for n in names] if "sim_coeff" in hyper else hyper["coeffs"]
    return VICReg(Small(inputs, inputs), *weights, **options).double()  # type: ignore[arg-type]


def check(golden: Golden) -> None:
    method = make(golden, hidden=1, dim=1, layers=1)
    x, y = golden.leaf("x"), golden.leaf("y")
    terms = method.compare(x, y)
    close(terms["invariance"], method.invariance * golden["repr"])
    close(terms["variance"], method.variance * golden["std"])
    close(terms["covariance"], method.covariance * golden["cov"])
    loss = torch.stack(list(terms.values())).sum()
    close(loss, golden["loss"])
    loss.backward()
    close(x.grad, golden["grad_x"])
    close(y.grad, golden["grad_y"])
    method.variance *= 2
    close(sum(method.compare(x, y).values()), golden["loss_paper_pseudocode"])

    state = golden.starting("proj.")
    head = widths(state)
    method = make(golden, head[0], hidden=head[1], dim=head[-1], layers=len(head) - 1)
    method.projector.load_state_dict(state)
    close(method.projector(golden["proj_x"]), golden["proj_out"])

    check_lars(golden)
    check_rates(golden, VICReg.recipe)
