"""InfoNCE: negatives in the batch, given to all, given to each; and both ways."""

import torch
from torch.nn import functional as F

from selftaught.objectives.contrastive import info_nce
from selftaught.objectives.metric import match
from tests.adapters import Golden, close


def check(golden: Golden) -> None:
    temperature = golden.hyper["temperature"]
    q, k = golden.leaf("query"), golden.leaf("key")
    query, key = F.normalize(q, dim=1), F.normalize(k, dim=1)
    loss = match(query, key, temperature)
    close(loss, golden["loss_inbatch"])
    for x, grad in zip((q, k), torch.autograd.grad(loss, (q, k), retain_graph=True)):
        close(grad, golden[f"grad_inbatch_{'query' if x is q else 'key'}"])
    both = (loss + match(key, query, temperature)) / 2
    close(both, golden["loss_symmetric"])

    for kind, name in (("unpaired", "neg"), ("paired", "neg_paired")):
        negatives = golden.leaf(name)
        loss = info_nce(query, key, F.normalize(negatives, dim=-1), temperature)
        close(loss, golden[f"loss_{kind}"])
        grads = torch.autograd.grad(loss, (q, k, negatives), retain_graph=True)
        for grad, of in zip(grads, ("query", "key", "negatives"), strict=True):
            close(grad, golden[f"grad_{kind}_{of}"])
