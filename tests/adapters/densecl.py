"""DenseCL: matches, both losses, their gradient, both queues, and the target's update."""

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from selftaught.backbones import Features
from selftaught.method import Batch
from selftaught.methods.dense.densecl import DenseCL, features, match, project
from tests.adapters import Golden, close


class Maps(nn.Module):
    """Stands for the backbone: what it is given are feature maps already."""

    def __init__(self, dim: int):
        super().__init__()
        self.dim = self.local_dim = dim

    def features(self, x: Tensor) -> Features:
        return Features(x.mean((2, 3)), x.flatten(2).mT, (x.shape[2], x.shape[3]))


def check(golden: Golden) -> None:
    feats = golden.leaf("feats")
    dim, size = golden["queue_raw"].shape
    hidden = len(golden["neck_q.mlp.0.bias"])
    method = DenseCL(
        Maps(feats.shape[2]),  # type: ignore[arg-type]
        dim,
        hidden,
        size,
        golden.hyper["lam"],
        golden.hyper["momentum"],
        golden.hyper["temp"],
    ).double()
    for net, who in ((method.online, "q"), (method.target, "k")):
        for head, name in ((net[1], "mlp."), (net[2], "mlp2.")):
            weights = golden.starting(f"neck_{who}.{name}")
            head.load_state_dict({n: w.reshape(w.shape[:2]) for n, w in weights.items()})
    method.negatives.items.copy_(normalize(golden["queue_raw"], dim=0).mT)
    method.dense_negatives.items.copy_(normalize(golden["queue2_raw"], dim=0).mT)

    method.after_step()  # the reference updates its target at the start of the step
    views = [feats[:, 0], feats[:, 1]]
    with torch.no_grad():
        queries = project(method.online, features(method.backbone, views[0]))
        keys = project(method.target, features(method.target[0], views[1]))
    assert torch.equal(match(queries.features, keys.features), golden["match"])
    terms = method.loss(Batch(views, torch.arange(len(feats))))
    close(terms["whole"], golden["loss_single"])
    close(terms["dense"], golden["loss_dense"])
    close(torch.autograd.grad(sum(terms.values()), feats)[0], golden["grad_feats"])
    for queue, name in ((method.negatives, "queue"), (method.dense_negatives, "queue2")):
        close(queue.items.mT, golden[f"{name}_after"])
        assert queue.head == golden["ptr_after"]
