"""What is particular to SwAV, DINO and DeepCluster, beyond the contract and the golden values."""

import pytest
import torch
from torch import Tensor, nn

from selftaught.backbones import Image
from selftaught.backbones.image.edges import sobel
from selftaught.errors import UserError
from selftaught.method import Batch
from selftaught.methods.clustering.deepcluster import DeepCluster
from selftaught.methods.clustering.deepcluster_v2 import DeepClusterV2
from selftaught.methods.clustering.seer import SEER
from selftaught.methods.clustering.sela import SeLa
from selftaught.methods.clustering.swav import SwAV
from selftaught.methods.distillation.dino import DINO
from selftaught.methods.distillation.msn import MSN
from selftaught.objectives.assignment import balanced_plan, power_law, sinkhorn


class Flat(nn.Module):
    """The simplest backbone: the mean of each channel, weighed."""

    dim = 3
    channels = 3
    resample = None

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3)) * self.weight


class Corpus:
    """Three kinds of images, the first far more frequent than the others."""

    kinds = torch.tensor([0] * 20 + [1] * 6 + [2] * 4)

    def __len__(self) -> int:
        return len(self.kinds)

    def embed(self, encoder: nn.Module) -> Tensor:
        noise = torch.randn(30, 3, generator=torch.Generator().manual_seed(0))
        return torch.eye(3)[self.kinds] * 5 + noise * 0.01


def flat() -> Image:
    return Flat()  # type: ignore[return-value]


def test_deepcluster_relabels_resets_and_balances():
    method = DeepCluster(flat(), samples=30, clusters=3)
    before = method.classifier.weight.detach().clone()
    method.classifier.bias.data.fill_(1)
    # random starts often put two centroids into one kind: some epoch finds all three
    for _ in range(50):
        order, reset = method.on_epoch(Corpus())
        kinds = [method.assignment[Corpus.kinds == k].unique() for k in range(3)]
        if all(len(k) == 1 for k in kinds) and len(torch.cat(kinds).unique()) == 3:
            break
    else:
        pytest.fail(f"50 epochs of k-means have not found the three kinds, the last: {kinds}")
    assert not torch.equal(before, method.classifier.weight)
    assert method.classifier.weight.abs().max() < 0.06  # six standard deviations
    assert (method.classifier.bias == 0).all()
    counts = torch.bincount(Corpus.kinds[order])
    assert len(order) == 30
    assert counts.min() >= 8
    assert counts.max() <= 11
    for name in reset:
        assert list(method.get_submodule(name).parameters())


def test_each_epoch_of_deepcluster_draws_anew_and_repeats_with_its_seed():
    method = DeepCluster(flat(), samples=30, clusters=3)
    torch.manual_seed(7)
    first, second = method.on_epoch(Corpus()).order, method.on_epoch(Corpus()).order
    torch.manual_seed(7)
    assert torch.equal(method.on_epoch(Corpus()).order, first)
    assert not torch.equal(first, second)


def test_clusters_and_classifier_live_for_as_many_epochs_as_asked():
    method = DeepCluster(flat(), samples=30, clusters=3, reassign=2)
    kept = []
    for _ in range(4):
        order, reset = method.on_epoch(Corpus())
        kept.append((method.classifier.weight.clone(), method.assignment.clone(), reset))
        assert len(order) == 30
    for one, two in ((0, 1), (2, 3)):
        assert torch.equal(kept[one][0], kept[two][0])
        assert torch.equal(kept[one][1], kept[two][1])
    assert not torch.equal(kept[1][0], kept[2][0])
    assert [reset for _, _, reset in kept] == [("classifier",), (), ("classifier",), ()]


def test_deepcluster_says_what_it_needs():
    with pytest.raises(UserError, match="reassign must be at least 1, got 0"):
        DeepCluster(flat(), samples=30, clusters=3, reassign=0)
    with pytest.raises(UserError, match=r"500 images into 10000 clusters.*clusters=5$"):
        DeepCluster(flat(), samples=500)
    with pytest.raises(UserError, match=r"made for 20 images and got 30.*samples=30"):
        DeepCluster(flat(), samples=20, clusters=3).on_epoch(Corpus())
    with pytest.raises(UserError, match="leave sobel out"):
        DeepCluster(Image("test_resnet", 32, channels=1), samples=30, clusters=3, sobel=True)


def test_sobel_shows_edges_in_place_of_colors():
    x = torch.zeros(1, 3, 6, 6)
    x[..., 3:] = 3.0  # an upright edge, 3 high in each channel
    across, down, rest = sobel(x)[0, :, 1:-1, 1:-1]
    assert across.tolist() == [[0.0, -12.0, -12.0, 0.0]] * 4
    assert (down == 0).all()
    assert (rest == 0).all()
    turned = sobel(x.mT)[0, :, 1:-1, 1:-1]
    torch.testing.assert_close(turned[:2], torch.stack([down, across.mT]))


@pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
def test_deepcluster_with_sobel_leaves_an_encoder_that_sees_edges(name):
    method = DeepCluster(Image(name, 32), samples=30, clusters=3, sobel=True).eval()
    plain = Image(name, 32).eval()
    plain.load_state_dict(method.backbone.state_dict())
    rebuilt = Image(**method.backbone.config).eval()
    rebuilt.load_state_dict(method.backbone.state_dict())
    x = torch.randn(2, 3, 32, 32)
    expected = plain(sobel(x))
    torch.testing.assert_close(rebuilt(x), expected)
    torch.testing.assert_close(rebuilt.features(x).pooled, expected)
    assert not torch.allclose(plain(x), expected)


def test_swav_holds_prototypes_still_at_first_and_fills_its_queue_in_time():
    method = SwAV(flat(), prototypes=4, hidden=8, dim=5, queue=6, queue_start=0.5, local_crops=1)
    batch = [torch.randn(4, 3, 8, 8), torch.randn(4, 3, 8, 8), torch.randn(4, 3, 4, 4)]
    for progress, frozen, filled in [(0.0, True, 0), (0.3, False, 0), (0.5, False, 4)]:
        method.progress = progress
        method.zero_grad()
        method.loss(Batch(batch, torch.arange(4))).backward()
        method.before_step()
        assert (method.scores.weight.grad is None) == frozen
        assert int(method.earlier.any(-1).sum(-1)[0]) == filled
    torch.testing.assert_close(method.scores.weight.norm(dim=1), torch.ones(4))


def test_dino_teacher_has_no_drop_path_and_the_last_layer_waits():
    student = Image("test_vit", 32, drop_path=0.3)
    method = DINO(student, 12, 8, 6, norm_last_layer=False, teacher_temp=(0.04, 0.08))
    rates = {
        name: [m.drop_prob for m in net.modules() if type(m).__name__ == "DropPath"]
        for name, net in (("student", method.backbone), ("teacher", method.teacher))
    }
    assert max(rates["student"]) > 0
    assert set(rates["teacher"]) <= {0.0}
    last = list(method.head[-1].parameters())
    assert len(last) == 2
    for progress, temperature in [(0.0, 0.04), (0.15, 0.06), (0.3, 0.08), (0.9, 0.08)]:
        method.progress = progress
        assert method.temperature == pytest.approx(temperature)
        for parameter in method.parameters():
            parameter.grad = torch.ones_like(parameter)
        method.before_step()
        assert [p.grad is None for p in last] == [progress < 0.01] * 2


def test_dino_loss_uses_the_center_of_before():
    method = DINO(flat(), 12, 8, 6)
    student, teacher = torch.randn(3, 4, 12), torch.randn(2, 4, 12)
    first = method.distill(student, teacher)
    torch.testing.assert_close(method.center, 0.1 * teacher.mean((0, 1)))
    moved = method.distill(student, teacher)
    method.center.zero_()
    assert method.distill(student, teacher) == first != moved


def test_deepcluster_v2_finds_the_kinds_and_remembers_by_image():
    options = {"hidden": 8, "dim": 5, "local_crops": 0}
    method = DeepClusterV2(flat(), samples=30, prototypes=(3, 2), **options)
    assert not method.memory.any()
    corpus = Corpus()
    corpus.embed = lambda encoder: torch.randn(30, 5)  # type: ignore[method-assign]
    method.on_epoch(corpus)
    torch.testing.assert_close(method.memory.norm(dim=2), torch.ones(2, 30))
    for head, count in enumerate((3, 2)):
        assert method.assignment[head].unique().numel() <= count
    lengths = method.centroids.norm(dim=1)
    torch.testing.assert_close(lengths, torch.ones(5))
    index = torch.tensor([4, 29])
    before = method.memory.clone()
    views = [torch.randn(2, 3, 8, 8) for _ in range(2)]
    method.loss(Batch(views, index)).backward()
    changed = (method.memory != before).any(-1).nonzero()[:, 1].unique()
    assert changed.tolist() == [4, 29]
    kept = method.memory.clone()
    method.on_epoch(corpus)  # from memory, not from plain views again
    assert torch.equal(method.memory, kept)


@pytest.mark.parametrize(
    ("kind", "options", "words"),
    [
        (DeepClusterV2, {}, r"30 images into prototypes=\(3000, 3000, 3000\)"),
        (DeepClusterV2, {"prototypes": ()}, "30 images into"),
        (SeLa, {}, "30 images into prototypes=3000"),
        (SeLa, {"prototypes": 3, "heads": 0}, "heads must be at least 1, got 0"),
    ],
)
def test_more_prototypes_than_samples_are_refused(kind, options, words):
    with pytest.raises(UserError, match=words):
        kind(flat(), samples=30, **options)


def test_clusterings_refuse_another_dataset():
    for kind, options in ((DeepClusterV2, {"prototypes": (3,)}), (SeLa, {"prototypes": 3})):
        with pytest.raises(UserError, match=r"made for 20 images and got 30.*samples=30"):
            kind(flat(), samples=20, **options).on_epoch(Corpus())


def test_sela_relabels_evenly_and_ever_more_seldom():
    method = SeLa(flat(), samples=30, prototypes=3, heads=2, relabelings=5)
    done = []
    for progress in (0.0, 0.02, 0.1, 0.2, 0.3, 0.6, 0.9):
        method.progress = progress
        method.on_epoch(Corpus())
        done.append(int(method.done))
    assert done == [1, 1, 2, 2, 3, 4, 4]
    for labels in method.assignment:
        # the tolerance of the paper's code leaves clusters a little uneven
        assert labels.bincount(minlength=3).max() <= 20


def test_balanced_plan_is_balanced_where_powers_would_vanish():
    log_p = (torch.randn(60, 4, dtype=torch.float64) * 60).log_softmax(1)
    plan = balanced_plan(log_p, tolerance=1e-6).exp()
    torch.testing.assert_close(plan.sum(1), torch.full((60,), 1 / 60, dtype=torch.float64))
    torch.testing.assert_close(
        plan.sum(0), torch.full((4,), 0.25, dtype=torch.float64), rtol=1e-4, atol=0
    )


def test_seer_assigns_hard_at_first_if_asked_to_and_says_what_it_needs():
    method = SEER(flat(), prototypes=4, hidden=(8,), dim=5, hard=0.5, freeze_prototypes=0.5)
    scores = torch.randn(6, 4)
    assert set(method.goals(scores).unique().tolist()) == {0.0, 1.0}
    method.progress = 0.6
    assert method.goals(scores).unique().numel() > 2
    assert [m for m in method.projector if isinstance(m, nn.BatchNorm1d)] == []
    with pytest.raises(UserError, match="epsilon must be above 0, got 0"):
        SEER(flat(), epsilon=0.0)


def test_sinkhorn_gives_prototypes_the_shares_that_are_asked_for():
    torch.manual_seed(0)
    scores, sizes = torch.randn(40, 6, dtype=torch.float64), torch.tensor(power_law(6, 1.5))
    shares = sizes.double() / sizes.sum()
    q = sinkhorn(scores, 0.5, 300, shares.log())
    torch.testing.assert_close(q.sum(1), torch.ones(40, dtype=torch.float64))
    torch.testing.assert_close(q.mean(0), shares, rtol=1e-6, atol=0)
    even = sinkhorn(scores, 0.5, 3, torch.full((6,), 1 / 6, dtype=torch.float64).log())
    torch.testing.assert_close(even, sinkhorn(scores, 0.5, 3))


def test_msn_is_held_to_its_prior_and_to_nothing_else():
    """The term is 0 where the mean prediction is the prior, and above 0 anywhere else."""
    small = {"prototypes": 4, "hidden": 8, "dim": 4}
    even, prior = torch.full((4,), 0.25), torch.tensor([0.4, 0.3, 0.2, 0.1])
    given = MSN(Image("test_vit", 32), **small, prior=(4.0, 3.0, 2.0, 1.0))
    assert abs(float(given.divergence(prior))) < 1e-6
    assert float(given.divergence(even)) > 0.1
    assert float(given.divergence(prior.flip(0))) > 0.1
    flat = MSN(Image("test_vit", 32), **small, prior="power", exponent=0.0)
    uniform = MSN(Image("test_vit", 32), **small)
    for mean in (even, prior):
        torch.testing.assert_close(flat.divergence(mean), uniform.divergence(mean))
    with pytest.raises(UserError, match="prior has 2 numbers for 4 prototypes"):
        MSN(Image("test_vit", 32), **small, prior=(2.0, 1.0))
