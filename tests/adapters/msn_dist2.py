"""MSN in two processes: targets balanced and prototypes kept in use over the samples of both."""

from selftaught import dist
from tests.adapters import Golden, close
from tests.adapters.msn import model


def check(golden: Golden, rank: int) -> None:
    method = model(golden)
    anchors, targets = golden.leaf(f"r{rank}_anchors"), golden[f"r{rank}_targets"]
    close(method.goals(targets), golden[f"r{rank}_targets_used"])
    terms = method.match(anchors.unflatten(0, (-1, len(targets))), targets)
    close(terms["match"], golden[f"r{rank}_ce"])
    close(terms["me_max"], golden["me_max"])
    loss = terms["match"] + terms["me_max"]
    close(loss, golden[f"r{rank}_loss"])
    loss.backward()
    close(anchors.grad, golden[f"r{rank}_grad_anchors"])
    close(dist.total(method.scores.weight.grad), golden["grad_prototypes_summed"])
    # another library takes the mean of this process alone: a number that ours must not give
    assert abs(loss.item() / golden[f"r{rank}_lightly_loss"].item() - 1) > 1e-6
