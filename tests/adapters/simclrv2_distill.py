"""SimCLRv2's distillation: through the method, at the reference's scale and at the paper's."""

from typing import Any

import torch
from torch import nn

from selftaught.method import Batch
from selftaught.methods.supervised.distill import Distill
from selftaught.objectives.distillation import soft_cross_entropy, with_labels
from tests.adapters import Golden, close


class Given(nn.Module):
    """Stands for a network: whatever it sees, it says the golden logits."""

    def __init__(self, logits: torch.Tensor):
        super().__init__()
        self.given, self.dim, self.classes = logits, logits.shape[1], logits.shape[1]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.given

    logits = forward


def check(golden: Golden) -> None:
    temperature = golden.hyper["temperature"]
    logits, teacher = golden.leaf("student_logits"), golden["teacher_logits"]
    student: Any = Given(logits)
    method: Any = Distill(student, Given(teacher), temperature=temperature)
    method.classifier = nn.Identity()
    batch = Batch([torch.rand(len(logits), 3, 4, 4)], torch.arange(len(logits)))
    loss = method.loss(batch)
    close(loss, golden["loss"])
    close(torch.autograd.grad(loss, logits)[0], golden["grad_student"])

    paper = soft_cross_entropy(logits, teacher, temperature)
    close(paper, golden["loss_paper"])
    alpha = float(golden["alpha"])
    close(with_labels(paper, logits, golden["labels"], alpha), golden["loss_mixed_paper"])
