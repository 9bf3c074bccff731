"""DINOv3's parts of dinov2: the Gram teacher, and positions that are scaled at random."""

from itertools import pairwise

import pytest
import torch
from torch.utils.data import default_collate

from selftaught import augment, methods
from selftaught.backbones import backbone
from selftaught.errors import UserError
from selftaught.method import Batch
from tests.cases import CASES
from tests.test_engine import curve, train
from tests.test_methods import each_leaf, image


def anchored(**options):
    torch.manual_seed(0)
    own = CASES["dinov2"].options | {"gram_weight": 2.0} | options
    return methods.find("dinov2")(backbone("test_vit", size=32), **own)


def weight(net: torch.nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in net.parameters()])


def test_the_gram_teacher_is_an_earlier_ema_teacher_that_is_renewed_late():
    method = anchored(gram_start=0.5, gram_every=0.25, momentum=(0.9, 0.9))
    made, seen = [], []
    for step in range(20):
        method.progress = step / 20
        with torch.no_grad():
            for parameter in method.backbone.parameters():
                parameter.add_(0.01)
        method.after_step()
        made.append(weight(method.gram))
        seen.append(weight(method.ema))
    copied = [step for step in range(20) if torch.equal(made[step], seen[step])]
    assert copied == [*range(11), 15]  # until 0.5, and at 0.75
    assert sum(not torch.equal(a, b) for a, b in pairwise(made)) == 11


@pytest.mark.parametrize("progress", [0.2, 0.6])
def test_it_counts_from_its_start_on(progress):
    method = anchored(gram_start=0.5)
    pipeline = method.views(32)
    samples = [pipeline(image(i, 32), augment.sample_rng(0, 0, i)) for i in range(4)]
    views = each_leaf(lambda x: x.float() / 255, default_collate(samples))
    assert [[v.shape[-1] for v in vs] for vs in views] == [[32, 32, 12, 12], [64, 64]]
    with torch.no_grad():
        for parameter in method.gram.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.05)
    method.progress = progress
    terms = method.loss(Batch(views, torch.arange(4)))
    assert (terms["gram"] > 0) == (progress > 0.5)
    assert "gram" in method.insight.idle


def test_a_run_with_it_ends_and_says_the_term(tmp_path):
    method = anchored(gram_start=0.5)
    train(tmp_path / "run", method=method)
    values = [float(row["gram"]) for row in curve(tmp_path / "run")]
    assert values[0] == 0
    assert values[-1] > 0


def test_positions_are_scaled_in_the_student_s_passes_alone():
    def made(**options):
        torch.manual_seed(0)
        net = backbone("vit_small_patch16_dinov3", size=32)
        net.net.blocks = net.net.blocks[:2]
        few = CASES["dinov2"].options | options
        return methods.find("dinov2")(net, **few).train()

    method, x = made(rope_scale=2.0), torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert not torch.allclose(method.backbone(x), method.backbone(x))
        torch.testing.assert_close(method.ema(x), method.ema(x))
        torch.testing.assert_close(method.eval().backbone(x), method.ema(x))
        plain = made()
        torch.testing.assert_close(plain.backbone(x), plain.backbone(x))


def test_without_such_positions_it_is_refused():
    with pytest.raises(UserError, match=r"rope_scale=2\.0 .* test_vit has none"):
        anchored(rope_scale=2.0)
