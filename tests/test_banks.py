"""Methods that remember: queues, memories of all images, prototypes; and what they refuse."""

from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from selftaught.backbones import backbone
from selftaught.engine.plan import _fits
from selftaught.engine.pretrain import pretrain
from selftaught.errors import UserError
from selftaught.method import Batch
from selftaught.methods.contrastive.instdisc import InstDisc
from selftaught.methods.contrastive.mean_shift import MeanShift, shift
from selftaught.methods.contrastive.moco_v3 import MoCoV3
from selftaught.methods.contrastive.nnclr import NNCLR
from selftaught.methods.contrastive.pcl import PCL, concentration
from selftaught.methods.contrastive.pirl import PIRL
from selftaught.parts import MemoryBank
from tests.cases import CASES
from tests.pool import WORLD, Pool

QUEUED = ("mean_shift", "moco_v1", "moco_v2", "nnclr", "pcl")
REMEMBERING = ("instdisc", "pcl", "pirl")


def photos(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 40, 40, 3), dtype=np.uint8)


def net(name: str = "test_resnet") -> Any:
    return backbone(name, size=32)


# The memory.


def test_a_memory_begins_with_rows_about_as_long_as_units():
    for unit, spread in ((True, 1e-6), (False, 0.5)):
        lengths = MemoryBank(200, 64, unit=unit).items.norm(dim=1)
        assert (lengths - 1).abs().max() < spread
        assert lengths.mean() == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("samples", [20, 2000])
def test_similarities_are_the_same_whichever_way_and_spare_the_memory_gradient(samples: int):
    """With few rows all products are made, with many those that are asked for."""
    memory = MemoryBank(samples, 8).double()
    x = torch.randn(5, 8, dtype=torch.float64, requires_grad=True)
    rows = memory.draw(torch.arange(5), 6)
    assert torch.equal(rows[:, 0], torch.arange(5))
    before = memory.items.clone()
    found = memory.similarities(x, rows)
    memory.update(torch.arange(5), nn.functional.normalize(x, dim=1))  # after the comparison
    found.sum().backward()
    torch.testing.assert_close(found, torch.einsum("bd,brd->br", x, before[rows]))
    torch.testing.assert_close(x.grad, before[rows].sum(1))


def test_a_memory_mixes_in_what_it_sees_and_keeps_its_first_partition():
    memory = MemoryBank(4, 2, momentum=0.25)
    memory.items.copy_(torch.tensor([[1.0, 0.0]] * 4))
    memory.update(torch.tensor([2, 2]), torch.tensor([[0.0, 1.0], [-1.0, 0.0]]))
    expected = torch.tensor([0.25, 0.75]) / (0.25**2 + 0.75**2) ** 0.5
    torch.testing.assert_close(memory.items[2], expected)  # the first of two
    assert torch.equal(memory.items[[0, 1, 3]], torch.tensor([[1.0, 0.0]] * 3))
    assert float(memory.estimate(torch.full((2, 3), 5.0))) == 20
    assert float(memory.estimate(torch.full((2, 3), 7.0))) == 20


def remembered(rank: int) -> tuple[np.ndarray, float]:
    torch.manual_seed(0)
    memory = MemoryBank(9, 3)
    index = torch.tensor([[4, 1], [1, 7]])[rank]  # one image in both processes
    x = nn.functional.normalize(torch.arange(12.0).view(4, 3) + 1, dim=1).chunk(WORLD)[rank]
    memory.update(index, x)
    return memory.items.numpy(), float(memory.estimate(torch.tensor([1.0 + rank])))


@pytest.mark.xdist_group("pool")
def test_a_memory_is_alike_in_two_processes(pool: Pool):
    (items, partition), (same, equal) = pool.run(remembered)
    assert np.array_equal(items, same)
    assert partition == equal == 9 * 1.5


# The methods.


def test_the_full_softmax_compares_with_every_image():
    """Noise-contrastive estimation with as many negatives stays another loss."""
    method = InstDisc(net(), samples=6, negatives=0, temperature=0.5, dim=4)
    x = nn.functional.normalize(torch.randn(3, 4), dim=1)
    index = torch.tensor([5, 0, 2])
    logits = x @ method.memory.items.T / 0.5
    expected = -logits.log_softmax(1)[torch.arange(3), index].mean()
    torch.testing.assert_close(method.discriminate(x, index), expected)
    assert float(method.memory.partition) == 0


def test_pirl_draws_for_each_term_and_remembers_the_image():
    method = PIRL(net(), samples=6, negatives=3, dim=4)
    puzzle, image = torch.randn(2, 4), torch.randn(2, 4)
    with mock.patch.object(method.memory, "draw", wraps=method.memory.draw) as draw:
        before = method.memory.items.clone()
        method.discriminate(puzzle, image, torch.tensor([1, 4]))
    assert draw.call_count == 2
    moved = (method.memory.items != before).any(1)
    assert moved.tolist() == [False, True, False, False, True, False]
    unit = nn.functional.normalize
    expected = unit(before[[1, 4]] / 2 + unit(image, dim=1) / 2, dim=1)
    torch.testing.assert_close(method.memory.items[[1, 4]], expected)


def test_pirl_shuffles_the_tiles():
    views = PIRL(net(), samples=6, negatives=3).views(225)
    image = np.arange(9, dtype=np.uint8).reshape(3, 3).repeat(85, 0).repeat(85, 1)[..., None] * 20
    orders = set()
    for seed in range(20):
        whole, tiles = views(image, np.random.default_rng(seed))
        assert whole.shape == (1, 225, 225)
        assert tiles.shape == (9, 1, 64, 64)
        orders.add(tuple(np.argsort(tiles.mean((1, 2, 3))).tolist()))
    assert len(orders) > 15


def test_one_neighbor_is_the_other_view_itself():
    torch.manual_seed(0)
    unit = nn.functional.normalize
    query, target = torch.randn(4, 8), unit(torch.randn(4, 8), dim=1)
    earlier = torch.cat([unit(torch.randn(20, 8), dim=1), target])
    expected = (2 - 2 * (unit(query, dim=1) * target).sum(1)).mean()
    torch.testing.assert_close(shift(query, target, earlier, 1), expected)
    assert shift(query, target, earlier, 5) != expected


def test_the_support_set_is_searched_before_it_takes_in_the_batch():
    method = NNCLR(net(), hidden=8, dim=4, predictor_hidden=8, queue=6)
    z = torch.randn(3, 4)
    before = method.support.items.clone()
    with mock.patch.object(method, "find", wraps=method.find) as find:
        method.contrast(z, z, torch.randn(3, 4), torch.randn(3, 4))
    for call in find.call_args_list:
        assert all((row == before).all(1).any() for row in call.args[0])
    torch.testing.assert_close(method.support.items[:3], nn.functional.normalize(z, dim=1))


@pytest.mark.parametrize("freeze", [True, False])
def test_moco_v3_keeps_the_random_patches_and_fixed_positions_of_a_vit(freeze: bool):
    method = MoCoV3(net("test_vit"), hidden=32, dim=16, freeze_patches=freeze)
    vit = method.backbone.net
    linears = [m for m in method.projector if isinstance(m, nn.Linear)]
    assert len(linears) == 3
    assert isinstance(method.predictor[-1], nn.BatchNorm1d)
    assert not any(m.bias is not None for m in (*linears, method.predictor[0]))
    before = {n: p.detach().clone() for n, p in vit.named_parameters()}
    rows, columns = vit.blocks[0].attn.qkv.weight.shape
    bound = (6 / (rows / 3 + columns)) ** 0.5
    assert 0.95 * bound < vit.blocks[0].attn.qkv.weight.abs().max() <= bound
    x = [torch.randn(4, 3, 32, 32) for _ in range(2)]
    method.loss(Batch(x, torch.arange(4))).backward()
    trained = [p for p in method.parameters() if p.requires_grad]
    torch.optim.SGD(trained, 1.0).step()
    still = {n for n, p in vit.named_parameters() if torch.equal(p, before[n])}
    patches = {"patch_embed.proj.weight", "patch_embed.proj.bias"}
    assert "pos_embed" in still
    assert bool(still & patches) == freeze
    assert len(still) < 6


def test_moco_v3_of_a_convolutional_network_has_two_layers_and_a_plain_predictor():
    method = MoCoV3(net(), hidden=32, dim=16)
    assert len([m for m in method.projector if isinstance(m, nn.Linear)]) == 2
    assert isinstance(method.projector[-1], nn.BatchNorm1d)
    assert isinstance(method.predictor[-1], nn.Linear)


# Prototypes.


class Corpus:
    """Three kinds of images, which embeddings tell at once."""

    kinds = torch.tensor([0] * 12 + [1] * 6 + [2] * 6)

    def __len__(self) -> int:
        return len(self.kinds)

    def embed(self, encoder: nn.Module) -> Tensor:
        noise = torch.randn(24, 8, generator=torch.Generator().manual_seed(0))
        return torch.eye(8)[self.kinds] + noise * 0.01


def pcl(**options: Any) -> PCL:
    given = {"prototypes": (3, 6), "dim": 8, "queue": 12, "cluster_start": 0.5, "restarts": 20}
    return PCL(net(), 24, **(given | options))


def test_pcl_clusters_after_its_warmup_and_finds_what_is_there():
    torch.manual_seed(0)
    method = pcl()
    query, index = nn.functional.normalize(torch.randn(4, 8), dim=1), torch.arange(4)
    method.on_epoch(Corpus())
    assert float(method.find_prototypes(query, index)) == 0
    assert method.assign(torch.zeros(2, 3, 32, 32)) is None
    method.progress = 0.5
    method.on_epoch(Corpus())
    first = method.clusterings[0]
    found = [first.assignment[Corpus.kinds == k].unique() for k in range(3)]
    assert all(len(f) == 1 for f in found)
    assert len(torch.cat(found).unique()) == 3
    for clustering in method.clusterings:
        torch.testing.assert_close(clustering.density.mean(), torch.tensor(0.2))
        lengths = clustering.centroids.norm(dim=1)
        torch.testing.assert_close(lengths, torch.ones_like(lengths))
    assert float(method.find_prototypes(query, index)) > 0
    assert method.eval().assign(torch.zeros(2, 3, 32, 32)).shape == (2, 3)


def test_prototypes_of_the_batch_are_no_further_negatives():
    clustering = pcl().clusterings[1]
    own = torch.tensor([1, 4, 1])
    for _ in range(5):
        drawn = clustering.absent(own, 100)
        assert sorted(drawn.tolist()) == [0, 2, 3, 5]
        assert len(clustering.absent(own, 3)) == 3


def test_small_clusters_have_the_largest_temperature():
    """One of a single member, one of none, and one spread wider than the other."""
    features = torch.tensor([[0.0], [0.1], [-0.1], [5.0], [6.0], [4.0], [9.0]])
    means = torch.tensor([[0.0], [5.0], [9.0], [20.0]])
    assignment = torch.tensor([0, 0, 0, 1, 1, 1, 2])
    phi = concentration(features, means, assignment, 0.5)
    assert phi[0] < phi[1]
    assert phi[1] == phi[2] == phi[3]
    torch.testing.assert_close(phi.mean(), torch.tensor(0.5))
    alone = concentration(features[:4], features[:4], torch.arange(4), 0.5)
    torch.testing.assert_close(alone, torch.full((4,), 0.5))


# What is refused, before training.


@pytest.mark.parametrize("name", QUEUED)
def test_a_queue_longer_than_the_dataset_is_refused(name: str):
    method = CASES[name].make(name, 16)
    method.queue = 16
    _fits(method, 16, 8, 1, 1)
    method.queue = 17
    with pytest.raises(UserError, match=r"queue of 17 .* dataset of 16 images.*--queue 8 or less"):
        _fits(method, 16, 8, 1, 1)


@pytest.mark.parametrize("name", [*QUEUED, *REMEMBERING, "moco_v3"])
def test_a_batch_of_one_is_refused(name: str, tmp_path):
    with pytest.raises(UserError, match="needs at least 2 at once, got 1; use --batch 2 or more"):
        pretrain(CASES[name].make(name, 16), photos(16), tmp_path, epochs=1, batch=1)


@pytest.mark.parametrize("name", ["mean_shift", "moco_v1", "moco_v2", "pcl"])
def test_one_image_a_process_is_refused_where_batch_norms_are_apart(name: str):
    method = CASES[name].make(name, 16)
    with pytest.raises(UserError, match=r"leaves 1 to each of 4 parts; use --batch 8 or more"):
        _fits(method, 16, 4, 1, 4)
    _fits(method, 16, 8, 1, 4)


@pytest.mark.parametrize("name", REMEMBERING)
def test_a_stream_without_length_is_refused(name: str, tmp_path):
    stream = (photo for photo in photos(16))
    with pytest.raises(UserError, match=r"a generator is a stream without length.*__len__"):
        pretrain(CASES[name].make(name, 16), stream, tmp_path, epochs=1)


@pytest.mark.parametrize("name", REMEMBERING)
def test_a_memory_of_another_dataset_is_refused(name: str, tmp_path):
    with pytest.raises(UserError, match=r"made for 12 images and got 16; make one with samples=16"):
        pretrain(CASES[name].make(name, 12), photos(16), tmp_path, epochs=1, batch=8)


def test_what_cannot_work_is_said_in_words():
    with pytest.raises(UserError, match=r"sort 500 images into 25000, .*prototypes=10,20,41$"):
        PCL(net(), 500)
    with pytest.raises(UserError, match="into no prototypes"):
        PCL(net(), 500, prototypes=())
    with pytest.raises(UserError, match="1 or 2 layers, not 3"):
        PCL(net(), 500, prototypes=(5,), layers=3)
    with pytest.raises(UserError, match="4096 of 500 images; use negatives=0"):
        InstDisc(net(), 500)
    with pytest.raises(UserError, match="32000 of 500 images; use negatives=250"):
        PIRL(net(), 500)
    with pytest.raises(UserError, match="needs 2 to tell apart, got 1"):
        InstDisc(net(), 1, negatives=0)
    with pytest.raises(UserError, match=r"momentum of 1\.0 is not in \[0, 1\)"):
        InstDisc(net(), 10, negatives=0, memory_momentum=1.0)
    with pytest.raises(UserError, match="5 neighbors among a queue of 4"):
        MeanShift(net(), queue=4)
