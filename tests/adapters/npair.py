"""N-pair loss: one way, both ways, with decay; of normalized embeddings, as one library has it."""

from torch.nn import functional as F

from selftaught.objectives.metric import n_pair
from tests.adapters import Golden, close


def check(golden: Golden) -> None:
    anchor, positive = golden.leaf("anchor"), golden.leaf("positive")
    loss = n_pair(anchor, positive)
    close(loss, golden["loss"])
    loss.backward()
    close(anchor.grad, golden["grad_anchor"])
    close(positive.grad, golden["grad_positive"])
    close(n_pair(anchor, positive, symmetric=True), golden["loss_symmetric"])
    close(n_pair(anchor, positive, golden.hyper["l2_reg"]), golden["loss_with_l2"])
    normalized = n_pair(F.normalize(anchor, dim=1), F.normalize(positive, dim=1))
    close(normalized, golden["loss_pml_normalised"])
