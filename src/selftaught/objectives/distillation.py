"""Objectives that teach a network the outputs of another."""

from torch import Tensor
from torch.nn import functional as F

from selftaught.precision import full_precision


@full_precision
def soft_cross_entropy(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """Mean cross entropy of the student's classes under the teacher's (Chen et al., 2020, Eq. 2).

    Args:
        student, teacher: [B, K] logits; no gradient is wanted for the teacher's.
        temperature: that both are divided by, above 0.
    """
    chances = (teacher / temperature).softmax(1)
    return -(chances * (student / temperature).log_softmax(1)).sum(1).mean()


@full_precision
def with_labels(loss: Tensor, student: Tensor, label: Tensor, alpha: float) -> Tensor:
    """(1 - alpha) cross entropy with labels + alpha `loss` (Chen et al., 2020, Eq. 3).

    Args:
        loss: of distillation.
        student: [B, K] logits.
        label: [B] classes.
        alpha: weight of distillation, from 0 to 1.
    """
    return (1 - alpha) * F.cross_entropy(student, label) + alpha * loss
