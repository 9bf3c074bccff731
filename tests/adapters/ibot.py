"""iBOT: both terms, their gradients, both centers, and the head of two last layers."""

import torch
from torch import Tensor, nn

from selftaught.methods.distillation.ibot import IBOT, patch_scores
from selftaught.parts import Prototypes, prototype_head
from tests.adapters import Golden, close


def model(prototypes: int, patch_prototypes: int, **options) -> IBOT:
    """The method without its network: logits are what the files start from."""
    backbone = nn.Linear(1, 1)
    backbone.dim, backbone.arrange = 1, lambda pool: None  # type: ignore[assignment]
    backbone.resample = None  # type: ignore[assignment]
    separate = prototypes != patch_prototypes
    return IBOT(
        backbone,  # type: ignore[arg-type]
        prototypes,
        patch_prototypes,
        shared_head=not separate,
        shared_teacher_head=not separate,
        hidden=1,
        bottleneck=1,
        **options,
    ).double()


def distill(
    method: IBOT, student: Tensor, patches: Tensor, teacher: Tensor, of: Tensor, hidden: Tensor
) -> dict[str, Tensor]:
    """student: [V * B, K]; patches, of: [2 * B, N, K2]; teacher: [2 * B, K]; hidden: [2, B, ...]"""
    hidden = hidden.flatten(2)
    each = hidden.shape[1]
    return method.distill(
        student.unflatten(0, (-1, each)),
        teacher.unflatten(0, (2, each)),
        patches[hidden.flatten(0, 1)],
        of.unflatten(0, (2, each)),
        hidden,
    )


def student(golden: Golden, prefix: str = "") -> dict[str, Tensor]:
    """Logits of class tokens by name: of the global views, and of small ones where there are."""
    names = ("student_cls", "student_local_cls")
    return {n: golden.leaf(prefix + n) for n in names if prefix + n in golden}


def check(golden: Golden) -> None:
    hyper = golden.given("loss", "loss_")
    method = model(
        golden["center0"].shape[-1],
        golden["center2_0"].shape[-1],
        student_temp=hyper["student_temp"],
        teacher_temp=(hyper["teacher_temp"],) * 2,
        patch_temp=(hyper["teacher_patch_temp"],) * 2,
        class_weight=hyper["lambda1"],
        patch_weight=hyper["lambda2"],
    )
    method.center.copy_(golden["center0"].flatten())
    method.patch_center.copy_(golden["center2_0"].flatten())
    masks = [golden[f"mask{i}"] for i in range(hyper["ngcrops"])]
    views, patches = student(golden), golden.leaf("student_patch")
    terms = distill(
        method,
        torch.cat([*views.values()]),
        patches,
        golden["teacher_cls"],
        golden["teacher_patch"],
        torch.stack(masks),
    )
    close(terms["class"], golden["loss_cls"])
    close(terms["patch"], golden["loss_patch"])
    loss = terms["class"] + terms["patch"]
    close(loss, golden["loss"])
    loss.backward()
    for name, x in {**views, "student_patch": patches}.items():
        close(x.grad, golden[f"grad_{name}".replace("local_cls", "local")])
    close(method.center, golden["center1"].flatten())
    close(method.patch_center, golden["center2_1"].flatten())
    check_head(golden.starting("head."), golden["head_x"], golden["head_cls"], golden["head_patch"])


def check_head(given: dict[str, Tensor], x: Tensor, of_class: Tensor, of_patches: Tensor) -> None:
    """given: weights by the reference's names; there may be one last layer for both."""
    layers = [n for n in given if n.startswith("mlp.") and n.endswith(".weight")]
    hidden, dim = given["mlp.0.weight"].shape
    count, bottleneck = given["last_layer.weight_v"].shape
    head = prototype_head(dim, hidden, bottleneck, count, scale=True, layers=len(layers)).double()
    state = {n.removeprefix("mlp."): w for n, w in given.items() if n.startswith("mlp.")}
    last = len(head) - 1
    state[f"{last}.weight"] = given["last_layer.weight_v"]
    state[f"{last}.scale"] = given["last_layer.weight_g"]
    head.load_state_dict(state)
    own = None
    if "last_layer2.weight_v" in given:
        own = Prototypes(bottleneck, of_patches.shape[-1], scale=True).double()
        pair = given["last_layer2.weight_v"], given["last_layer2.weight_g"]
        own.load_state_dict(dict(zip(("weight", "scale"), pair)))
    close(head(x[:, 0]), of_class)
    close(patch_scores(head, own, x[:, 1:]), of_patches)
