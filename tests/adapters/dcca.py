"""DCCA and DCCAE: correlations, the loss in all forms, gradients, reconstructions."""

from typing import Any

import torch
from torch import Tensor, nn

from selftaught.method import Batch
from selftaught.methods.correlation.dcca import DCCA
from selftaught.methods.correlation.dccae import DCCAE
from selftaught.objectives.canonical import canonical_correlations, total_correlation
from tests.adapters import Golden, close

FORMS = {"paper": "sum", "frobenius": "frobenius", "sumsq": "squares", "top1": "largest"}


class Given(nn.Module):
    """Stands for a network: whatever it sees, it gives `out`."""

    dim = channels = 1

    def __init__(self, out: Tensor | None = None, partner: nn.Module | None = None):
        super().__init__()
        self.out, self.other = out, partner

    def partner(self, name: str, channels: int) -> nn.Module | None:
        return self.other

    def forward(self, x: Tensor) -> Tensor | None:
        return self.out


def made(kind: type, h1: Tensor, h2: Tensor, **options: Any) -> Any:
    """The method on networks that give h1 and h2."""
    method = kind(Given(h1, Given(h2)), dim=h1.shape[1], **options)
    method.head, method.other_head = nn.Identity(), nn.Identity()
    return method


def check(golden: Golden) -> None:
    hyper = golden.hyper
    views = [golden[x][:, None, None] for x in ("x1", "x2")]
    batch = Batch(views, torch.arange(len(views[0])))
    h1, h2 = golden.leaf("h1"), golden.leaf("h2")
    found = canonical_correlations(h1, h2, hyper["r1"], hyper["r2"])
    close(found, golden["singular_values"])
    alike = hyper["r1"] == hyper["r2"]  # methods have one number for both
    for name, form in FORMS.items():
        loss = -total_correlation(found, form)  # type: ignore[arg-type]
        if alike:
            loss = made(DCCA, h1, h2, regularize=hyper["r1"], form=form).loss(batch)
        close(loss, golden[f"loss_{name}"])
        if name == "paper":
            for x, grad in zip((h1, h2), torch.autograd.grad(loss, (h1, h2), retain_graph=True)):
                close(grad, golden["grad_h1" if x is h1 else "grad_h2"])
    # defects of another port, told by numbers of ours: r1 joins the squares of the correlations;
    # and roots of single elements, whose gradient is nan, make more than there can be
    close(-(found.square() + hyper["r1"]).sqrt().sum(), golden["michaelvll_topk"])
    assert -found.sum().item() > golden["michaelvll_all"].item()

    port = golden.setting("dccae_xdmvteam", "lam", r"lam=([\d.]+)")
    paper = float(golden["lam"]) if "lam" in golden else golden.given("dccae_paper")["lam"]
    for name, weight, mean in (("paper", paper, False), ("xdmvteam", port, True)):
        decoded = [golden.leaf("rec1"), golden.leaf("rec2")]
        method = made(
            DCCAE, h1, h2, weight=float(weight), element_mean=mean, regularize=hyper["r1"]
        )
        method.decoder, method.other_decoder = (Given(x) for x in decoded)
        method.shape = (None, None)  # what is reconstructed is small already
        terms = method.loss(batch)
        if alike:
            close(terms["correlation"], golden["loss_paper"])
        close(golden["loss_paper"] + terms["reconstruction"], golden[f"dccae_{name}"])
        for i, grad in enumerate(torch.autograd.grad(terms["reconstruction"], decoded), 1):
            if f"dccae_grad_rec{i}" in golden and name == "paper":
                close(grad, golden[f"dccae_grad_rec{i}"])
