"""Collectives and what is built on them: in two processes the same as in one with all the rows."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from selftaught import dist, open_data
from selftaught.backbones import Image
from selftaught.feed.passes import DatasetPass
from selftaught.parts import Queue, SyncBatchNorm, ema, frozen_copy, synchronize
from selftaught.parts.shuffle import shuffled
from tests.pool import WORLD, Pool

pytestmark = pytest.mark.xdist_group("pool")


def data(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def share(x: Tensor) -> Tensor:
    """The rows of this process."""
    return x.chunk(dist.world())[dist.rank()]


# One process.


def test_one_process_needs_no_collectives():
    x = data(3, 2)
    assert (dist.world(), dist.rank()) == (1, 0)
    for collective in (dist.gather, dist.total, dist.mean, dist.maximum, dist.from_first):
        assert torch.equal(collective(x), x)


# Collectives.


def values(rank: int) -> None:
    assert (dist.world(), dist.rank()) == (WORLD, rank)
    x = data(2 * WORLD, 3)
    mine = share(x)
    kept = mine.clone()
    assert torch.equal(dist.gather(mine), x), "in rank order"
    assert torch.equal(dist.gather(mine.T.contiguous().T), x), "of any memory layout"
    torch.testing.assert_close(dist.total(mine), sum(x.chunk(WORLD)))
    torch.testing.assert_close(dist.mean(mine), sum(x.chunk(WORLD)) / WORLD)
    assert torch.equal(dist.maximum(mine), torch.stack(x.chunk(WORLD)).amax(0))
    assert torch.equal(dist.from_first(mine), x.chunk(WORLD)[0])
    assert torch.equal(dist.from_first(mine.T).T, x.chunk(WORLD)[0])
    assert torch.equal(mine, kept), "no collective changes what it is given"
    counts = dist.total(torch.tensor([rank + 1]))
    assert counts.tolist() == [WORLD * (WORLD + 1) // 2]


def test_values(pool: Pool):
    pool.run(values)


def loss_of(x: Tensor, weight: Tensor) -> Tensor:
    """This process's share of a loss that couples all rows: contrast, statistics, mean."""
    z = F.normalize(share(x) @ weight, dim=1)
    everyone = dist.gather(z)
    own = torch.arange(len(z)) + dist.rank() * len(z)
    contrast = F.cross_entropy(z @ everyone.T / 0.3, own.roll(1))
    count = len(z) * dist.world()
    mean = dist.total(z.sum(0)) / count
    variance = dist.total((z - mean).square().sum(0)) / count
    return contrast + variance.sqrt().sum() + dist.mean(z.exp().mean())


def gradient(rank: int) -> tuple[float, np.ndarray, np.ndarray]:
    """Loss and gradient of the weight, averaged as DDP does; gradient of the rows, times W."""
    x, weight = data(6, 4).requires_grad_(), data(4, 3, seed=1).requires_grad_()
    loss = loss_of(x, weight)
    rows, mine = torch.autograd.grad(loss, (x, weight))
    return float(dist.mean(loss.detach())), dist.mean(mine).numpy(), dist.mean(rows).numpy()


def test_gradients_are_those_of_one_process(pool: Pool):
    (loss, weight, rows), other = pool.run(gradient)
    expected = gradient_in_one()
    assert loss == other[0]
    for actual, wanted in zip((loss, weight, rows), expected):
        np.testing.assert_allclose(actual, wanted, 1e-12, 1e-14)


def gradient_in_one() -> tuple[float, np.ndarray, np.ndarray]:
    """The same in one process, which takes the contrast of each half apart and no collectives."""
    x, weight = data(6, 4).requires_grad_(), data(4, 3, seed=1).requires_grad_()
    z = F.normalize(x @ weight, dim=1)
    own = torch.arange(len(z)).view(WORLD, -1).roll(1, 1).flatten()
    contrast = F.cross_entropy(z @ z.T / 0.3, own)
    loss = contrast + z.var(0, unbiased=False).sqrt().sum() + z.exp().mean()
    rows, mine = torch.autograd.grad(loss, (x, weight))
    return float(loss.detach()), mine.numpy(), rows.numpy()


# Queue.


def test_queue_is_first_in_first_out_and_wraps():
    queue = Queue(5, 3).double()
    before = queue.items.clone()
    torch.testing.assert_close(before.norm(dim=1), torch.ones(5, dtype=torch.float64))
    first, second = data(2, 3), data(4, 3, seed=1)
    queue.push(first)
    assert torch.equal(queue.items, torch.cat([first, before[2:]]))
    assert queue.head == 2
    queue.push(second)
    assert torch.equal(queue.items, torch.cat([second[3:], first[1:], second[:3]]))
    assert queue.head == 1


def test_queue_keeps_the_newest_of_a_batch_larger_than_itself():
    queue = Queue(3, 2).double()
    many = data(8, 2)
    queue.push(many)
    assert set(map(tuple, queue.items.tolist())) == set(map(tuple, many[-3:].tolist()))


def test_queue_keeps_its_precision_and_no_gradient():
    queue = Queue(4, 2)
    queue.push(data(2, 2).requires_grad_().bfloat16())
    assert queue.items.dtype == torch.float32
    assert not queue.items.requires_grad
    assert set(queue.state_dict()) == {"items", "head"}


def pushes(rank: int) -> tuple[np.ndarray, int]:
    torch.manual_seed(3)
    queue = Queue(7, 3).double()
    for seed in range(4):
        queue.push(share(data(4, 3, seed=seed)))
    return queue.items.numpy(), int(queue.head)


def test_queue_in_two_processes(pool: Pool):
    (items, head), (other, other_head) = pool.run(pushes)
    expected, expected_head = pushes(0)
    assert head == other_head == expected_head == 16 % 7
    np.testing.assert_array_equal(items, other)
    np.testing.assert_array_equal(items, expected)


# Targets.


def network() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)).double()


def test_ema_follows_parameters_alone():
    online = network()
    target = frozen_copy(online)
    assert not any(p.requires_grad for p in target.parameters())
    assert all(p.requires_grad for p in online.parameters())
    start = [p.clone() for p in target.parameters()]
    with torch.no_grad():
        for parameter in online.parameters():
            parameter.add_(1)
    online(data(5, 3))
    untouched = [b.clone() for b in target.buffers()]
    for _ in range(3):
        ema(target, online, 0.9)
    for old, new, now in zip(start, online.parameters(), target.parameters()):
        torch.testing.assert_close(now, 0.9**3 * old + (1 - 0.9**3) * new, rtol=1e-12, atol=0)
    assert all(torch.equal(a, b) for a, b in zip(untouched, target.buffers()))


def test_ema_at_the_ends():
    online, target = network(), frozen_copy(network())
    with torch.no_grad():
        for parameter in online.parameters():
            parameter.mul_(3)
    start = [p.clone() for p in target.parameters()]
    ema(target, online, 1.0)
    assert all(torch.equal(a, b) for a, b in zip(start, target.parameters()))
    ema(target, online, 0.0)
    assert all(torch.equal(a, b) for a, b in zip(online.parameters(), target.parameters()))


# Norms.


def normalized(rank: int) -> dict[str, np.ndarray]:
    net = synchronize(network()).train()
    x = data(6, 3).requires_grad_()
    out = net(share(x))
    loss = (out * share(data(6, 2, seed=5))).sum() / len(out) + dist.mean(out.square().mean())
    loss.backward()
    grads = [p.grad for p in net.parameters() if p.grad is not None]
    result = {f"gradient {i}": dist.mean(g).numpy() for i, g in enumerate(grads)}
    result["rows"] = dist.mean(x.grad).numpy() if x.grad is not None else np.zeros(0)
    result["out"] = dist.gather(out.detach()).numpy()
    return result | {n: b.numpy() for n, b in net.named_buffers()}


def test_synchronized_norms_equal_one_process(pool: Pool):
    one, two = pool.run(normalized)
    expected = normalized(0)
    assert one.keys() == two.keys() == expected.keys()
    for name in expected:
        np.testing.assert_array_equal(one[name], two[name], name)
        np.testing.assert_allclose(one[name], expected[name], 1e-10, 1e-13, err_msg=name)


def uneven(rank: int) -> np.ndarray:
    norm = SyncBatchNorm(3).double()
    x = data(5, 3)
    norm(x[:2] if rank == 0 else x[2:])
    return torch.stack([norm.running_mean, norm.running_var]).numpy()  # type: ignore[list-item]


def test_synchronized_norms_weigh_each_row_alike(pool: Pool):
    norm = nn.BatchNorm1d(3).double()
    norm(data(5, 3))
    expected = torch.stack([norm.running_mean, norm.running_var]).numpy()  # type: ignore[list-item]
    for actual in pool.run(uneven):
        np.testing.assert_allclose(actual, expected, 1e-12)


def test_synchronize_keeps_everything_of_a_norm():
    net = network()
    net[1].eps, net[1].momentum = 1e-3, 0.2
    net[1].bias.requires_grad_(False)
    net.add_module("plain", nn.BatchNorm1d(2, affine=False, track_running_stats=False))
    net(data(5, 3))
    state = {n: x.clone() for n, x in net.state_dict().items()}
    synchronize(net.eval())
    norm = net[1]
    assert isinstance(norm, SyncBatchNorm)
    assert isinstance(net.plain, SyncBatchNorm)
    assert (norm.eps, norm.momentum, norm.training) == (1e-3, 0.2, False)
    assert (norm.weight.requires_grad, norm.bias.requires_grad) == (True, False)
    assert net.state_dict().keys() == state.keys()
    for name, x in net.state_dict().items():
        assert x.dtype == state[name].dtype
        assert torch.equal(x, state[name])


# ShuffleBN.


def centered(x: Tensor) -> Tensor:
    """Like a batch norm: what comes out depends on the whole batch of a process."""
    return x - x.mean(0)


def mixed(rank: int) -> tuple[np.ndarray, np.ndarray]:
    x = data(6, 2).requires_grad_()
    plain = shuffled(lambda rows: 2 * rows, share(x))
    assert not plain.requires_grad
    torch.manual_seed(rank)  # the order must come from one process
    return plain.numpy(), shuffled(centered, share(x)).numpy()


def test_shuffled_returns_rows_to_their_places(pool: Pool):
    (one, mixed_one), (two, mixed_two) = pool.run(mixed)
    x = data(6, 2)
    np.testing.assert_array_equal(np.concatenate([one, two]), 2 * x.numpy())
    apart = torch.cat([centered(half) for half in x.chunk(WORLD)]).numpy()
    assert not np.allclose(np.concatenate([mixed_one, mixed_two]), apart), "statistics are mixed"
    shift = np.concatenate([mixed_one, mixed_two]) - x.numpy()
    assert len(np.unique(shift.round(9), axis=0)) == WORLD


def test_shuffled_in_one_process_is_plain():
    assert torch.equal(shuffled(centered, data(4, 2)), centered(data(4, 2)))


def embedded(rank: int) -> torch.Tensor:
    """Features of equal images, by networks whose batch norms have seen other batches."""
    net = Image("test_resnet", 32)
    net.train()(torch.rand(4, 3, 32, 32) + rank)
    samples = open_data(np.full((6, 40, 40, 3), 90, np.uint8))
    return DatasetPass(samples, net, 4, 0, torch.device("cpu")).embed(net)


@pytest.mark.xdist_group("pool")
def test_a_dataset_is_embedded_alike_by_all_processes(pool: Pool):
    one, other = pool.run(embedded)
    assert torch.equal(one, other)
    torch.testing.assert_close(one, one[:1].expand_as(one))
