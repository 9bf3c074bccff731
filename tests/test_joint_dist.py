"""What joint-embedding methods do between processes that their papers' numbers leave out."""

from functools import partial
from unittest import mock

import pytest
import torch
from torch import Tensor, nn

from selftaught import dist
from selftaught.methods.correlation.barlow_twins import BarlowTwins, decorrelation
from selftaught.methods.correlation.lejepa import LeJEPA
from selftaught.methods.correlation.vicreg import VICReg
from selftaught.methods.correlation.visreg import VISReg
from selftaught.objectives import contrastive
from selftaught.objectives.contrastive import nt_xent
from selftaught.parts import shuffle, synchronize
from tests.pool import WORLD, Pool

pytestmark = pytest.mark.xdist_group("pool")


SKETCHED = {"lejepa": LeJEPA, "visreg": partial(VISReg, global_crops=2)}


class Features(nn.Identity):
    """A backbone for methods that are handed embeddings."""

    dim = 1


def embeddings(count: int, dim: int) -> tuple[Tensor, Tensor]:
    """The same in all processes."""
    rng = torch.Generator().manual_seed(3)
    z1, z2 = torch.randn(2, count, dim, generator=rng, dtype=torch.float64)
    return z1, z2


def loss_of(name: str, z1: Tensor, z2: Tensor, reference: bool = False) -> Tensor:
    if name == "nt_xent":
        with mock.patch.object(contrastive._PairCrossEntropy, "BLOCK", 50):
            return nt_xent(z1, z2, 0.2)
    if name == "vicreg":
        vicreg = VICReg(Features(), hidden=1, dim=z1.shape[1])  # type: ignore[arg-type]
        return torch.stack(list(vicreg.compare(z1, z2).values())).sum()
    if name in SKETCHED:  # random lines, which each process would draw otherwise
        sketched = SKETCHED[name](Features(), hidden=1, dim=z1.shape[1], slices=7)  # type: ignore[arg-type]
        torch.manual_seed(5 + dist.rank())
        return torch.stack(list(sketched.compare(torch.stack([z1, z2])).values())).sum()
    method = BarlowTwins(
        Features(),  # type: ignore[arg-type]
        hidden=1,
        dim=z1.shape[1],
        reference_gradient=reference,
    )
    synchronize(method.double())
    return method.compare(z1, z2)


def gradient_on_rank(rank: int, name: str, count: int, dim: int, reference: bool) -> list[Tensor]:
    mine = [z.chunk(WORLD)[rank].clone().requires_grad_() for z in embeddings(count, dim)]
    loss = loss_of(name, *mine, reference)
    loss.backward()
    # as DDP has it: the mean of the gradients, here of the embeddings that a process made
    return [dist.mean(loss.detach()), *(z.grad / WORLD for z in mine)]


@pytest.mark.parametrize("name", ["nt_xent", "barlow_twins", "vicreg", *SKETCHED])
@pytest.mark.parametrize("dim", [3, 20])
def test_two_processes_have_one_s_loss_and_gradient(name: str, dim: int, pool: Pool):
    """With fewer dimensions than samples, and with more, which goes another way."""
    whole = [z.clone().requires_grad_() for z in embeddings(12, dim)]
    loss = loss_of(name, *whole)
    loss.backward()
    results = pool.run(gradient_on_rank, name, 12, dim, False)
    for rank, (value, *grads) in enumerate(results):
        torch.testing.assert_close(value, loss.detach())
        for grad, z in zip(grads, whole):
            torch.testing.assert_close(grad, z.grad.chunk(WORLD)[rank])


def test_barlow_twins_reference_trains_with_a_part_of_the_gradient(pool: Pool):
    exact = pool.run(gradient_on_rank, "barlow_twins", 12, 20, False)
    divided = pool.run(gradient_on_rank, "barlow_twins", 12, 20, True)
    for (value, *grads), (same, *fewer) in zip(exact, divided):
        torch.testing.assert_close(value, same)
        torch.testing.assert_close(grads, [WORLD * g for g in fewer])


def test_wide_embeddings_of_all_processes_decide_the_path(pool: Pool):
    """9 rows in each process are fewer than 12 dimensions, 18 rows in both are not."""
    z1, z2 = embeddings(18, 12)
    results = pool.run(decorrelation_on_rank, 18, 12)
    torch.testing.assert_close(results, [decorrelation(z1, z2, 0.1)] * WORLD)


def decorrelation_on_rank(rank: int, count: int, dim: int) -> Tensor:
    z1, z2 = (z.chunk(WORLD)[rank] for z in embeddings(count, dim))
    return decorrelation(z1, z2, 0.1)


def shuffle_on_rank(rank: int) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(100 + rank)  # the order must be one even so
    x = torch.arange(16.0).view(8, 2) + 100 * rank
    seen: list[Tensor] = []

    def encode(rows: Tensor) -> Tensor:
        seen.append(rows)
        return 2 * rows

    return x, shuffle.shuffled(encode, x), seen[0]


def test_shuffling_mixes_processes_and_gives_each_its_own_back(pool: Pool):
    results = pool.run(shuffle_on_rank)
    for x, out, _ in results:
        assert torch.equal(out, 2 * x)
    seen = torch.cat([rows for *_, rows in results])
    assert torch.equal(seen.sort(0).values, torch.cat([x for x, *_ in results]))
    assert any((rows >= 100).any() and (rows < 100).any() for *_, rows in results)
