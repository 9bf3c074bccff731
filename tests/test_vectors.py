"""k-means, whitening, neighbors, and assignments that are balanced without overflowing."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans
from torch import Tensor

from selftaught import dist, vectors
from selftaught.errors import UserError
from selftaught.methods.clustering.deepcluster import balanced
from selftaught.objectives.assignment import cross_prediction, sinkhorn
from selftaught.vectors import kmeans, nearest, neighbors, spherical_kmeans, whiten


def blobs(each: int = 60, clusters: int = 8, dim: int = 5, noise: float = 0.3) -> Tensor:
    rng = np.random.default_rng(0)
    centers = rng.normal(size=(clusters, dim)) * 3
    points = centers.repeat(each, 0) + rng.normal(size=(each * clusters, dim)) * noise
    return torch.from_numpy(points[rng.permutation(len(points))])


# k-means


@pytest.mark.parametrize("noise", [0.3, 3.0])
def test_kmeans_is_as_good_as_scikit_learn(noise):
    x = blobs(noise=noise)
    theirs = KMeans(8, n_init=10, random_state=0).fit(x.numpy()).inertia_
    ours = min(kmeans(x, 8, iterations=100, seed=s).inertia for s in range(10))
    assert ours <= 1.01 * theirs
    if noise < 1:  # where the clusters are plain to see, the first try finds them
        assert kmeans(x, 8).inertia == pytest.approx(theirs, rel=0.01)


def test_kmeans_returns_what_it_says():
    x = blobs()
    found = kmeans(x, 8)
    distances = torch.cdist(x, found.centroids).square()
    assert torch.equal(found.assignment, distances.argmin(1))
    assert found.inertia == pytest.approx(float(distances.min(1).values.sum()))
    means = torch.stack([x[found.assignment == c].mean(0) for c in range(8)])
    torch.testing.assert_close(found.centroids, means)


@pytest.mark.parametrize("init", ["k-means++", "random"])
def test_kmeans_depends_on_its_seed_alone(init):
    x = blobs(noise=2.0)
    torch.manual_seed(1)
    first = kmeans(x, 12, 5, seed=3, init=init)
    torch.manual_seed(2)
    again = kmeans(x, 12, 5, seed=3, init=init)
    other = kmeans(x, 12, 5, seed=4, init=init)
    assert torch.equal(first.assignment, again.assignment)
    assert torch.equal(first.centroids, again.centroids)
    assert not torch.equal(first.assignment, other.assignment)


def test_blocks_do_not_change_the_answer(monkeypatch):
    x = blobs()
    whole = kmeans(x, 8), whiten(x, 3), neighbors(x, 4)
    monkeypatch.setattr(vectors, "BLOCK", 100)
    parts = kmeans(x, 8), whiten(x, 3), neighbors(x, 4)
    assert torch.equal(whole[0].assignment, parts[0].assignment)
    torch.testing.assert_close(whole[0].centroids, parts[0].centroids)
    torch.testing.assert_close(whole[1], parts[1])
    assert torch.equal(whole[2].index, parts[2].index)


def test_an_empty_cluster_takes_half_of_another():
    # random centroids fall on the equal points, where all but one run empty
    x = torch.cat([torch.randn(40, 3) * 0.1, torch.randn(40, 3) * 0.1 + 5])
    x = torch.cat([x[:1].expand(60, -1), x])
    for seed in range(5):
        found = kmeans(x, 6, seed=seed, init="random")
        assert len(found.assignment.unique()) >= 5
        assert found.inertia < kmeans(x, 2, seed=seed).inertia


def test_one_cluster_too_many_for_the_distinct_points():
    found = kmeans(torch.ones(10, 4), 3)
    assert found.inertia == 0
    assert found.centroids.isfinite().all()


def test_a_large_common_mean_does_not_blur_float32():
    x = blobs().float()
    near, far = kmeans(x, 8), kmeans(x + 1000, 8)
    assert far.inertia == pytest.approx(near.inertia, rel=0.01)


def test_kmeans_refuses_in_words():
    with pytest.raises(UserError, match="5 embeddings cannot give 9 clusters; ask for at most 5"):
        kmeans(torch.zeros(5, 2), 9)
    with pytest.raises(UserError, match="2 of 5 embeddings are not finite"):
        kmeans(torch.tensor([[0.0], [1.0], [torch.nan], [torch.inf], [2.0]]), 2)


def test_spherical_kmeans_goes_by_direction_and_keeps_empty_clusters():
    x = torch.nn.functional.normalize(torch.randn(50, 4).double(), dim=1)
    start = x[[0, 1, 2, 0]]  # ties go to the first: nobody is nearest to the last one
    centroids, assignment = spherical_kmeans(x, start, 10)
    torch.testing.assert_close(centroids.norm(dim=1), torch.ones(4).double())
    assert torch.equal(assignment, (x @ centroids.T).argmax(1))
    assert torch.equal(spherical_kmeans(x, start, 1)[0][3], start[3])


def test_nearest_by_distance_and_by_direction():
    centroids = torch.tensor([[1.0, 0.0], [5.0, 5.0]])
    x = torch.tensor([[1.0, 1.0]])
    assert nearest(x, centroids).tolist() == [0]
    assert nearest(x, centroids, cosine=True).tolist() == [1]


# whitening and neighbors


def test_whitened_components_have_identity_covariance():
    x = torch.randn(200, 6).double() @ torch.randn(6, 6).double() + 7
    white = whiten(x, 4)
    assert white.shape == (200, 4)
    torch.testing.assert_close(white.mean(0), torch.zeros(4).double())
    torch.testing.assert_close(white.T @ white / 200, torch.eye(4).double())


def test_whitening_keeps_the_strongest_directions_and_no_others():
    scales = torch.tensor([0.1, 5.0, 1.0, 0.0])
    x = torch.randn(500, 4) * scales
    one = whiten(x, 1)[:, 0]
    assert np.corrcoef(one, x[:, 1])[0, 1] ** 2 > 0.999
    assert whiten(x, 4).shape == (500, 3)  # the fourth does not vary
    assert whiten(x[:2], 4).shape == (2, 1)  # two points span a line


@pytest.mark.parametrize("shape", [(40, 41), (40, 40), (40, 39)])
def test_whitening_is_the_same_with_few_samples_and_with_many(shape):
    x = torch.randn(shape).double() * torch.linspace(1, 3, shape[1]).double()
    u = torch.linalg.svd(x - x.mean(0), full_matrices=False).U
    white = whiten(x, 10)
    torch.testing.assert_close(white @ white.T, 40 * u[:, :10] @ u[:, :10].T)


def test_neighbors_leave_out_the_query_but_not_its_duplicates():
    x = torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.9, 0.1], [0.1, 1.0]])
    found = neighbors(x, 2)
    assert found.index[:3].sort(1).values.tolist() == [[1, 2], [0, 2], [0, 1]]
    assert found.index[[0, 1, 3], 0].tolist() == [1, 0, 2]
    assert found.similarity[0, 0] == 1
    assert neighbors(x, 1, queries=torch.tensor([[0.0, 3.0]])).index.tolist() == [[3]]
    with pytest.raises(UserError, match="ask for at most"):
        neighbors(x, 4)


# assignments


def plain_sinkhorn(scores: Tensor, epsilon: float, iterations: int) -> Tensor:
    """The paper's own form, which overflows."""
    q = (scores / epsilon).exp().T
    q = q / q.sum()
    for _ in range(iterations):
        q = q / q.sum(1, keepdim=True) / len(q)
        q = q / q.sum(0, keepdim=True) / q.shape[1]
    return (q * q.shape[1]).T


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 9), st.integers(2, 9), st.sampled_from([1, 3, 10]), st.integers(0, 999))
def test_sinkhorn_equals_the_plain_form(batch, prototypes, iterations, seed):
    scores = torch.randn(batch, prototypes, generator=torch.Generator().manual_seed(seed)).double()
    q = sinkhorn(scores, 0.05, iterations)
    torch.testing.assert_close(q, plain_sinkhorn(scores, 0.05, iterations), rtol=1e-9, atol=1e-15)


def test_sinkhorn_balances():
    q = sinkhorn(torch.randn(30, 6).double(), 0.5, 200)
    torch.testing.assert_close(q.sum(1), torch.ones(30).double())
    torch.testing.assert_close(q.sum(0), torch.full((6,), 5.0).double())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_sinkhorn_never_overflows(dtype):
    scores = (torch.randn(40, 7) * 1000).to(dtype)
    q = sinkhorn(scores, 0.05)
    assert q.dtype == torch.float32
    assert q.isfinite().all()
    torch.testing.assert_close(q.sum(1), torch.ones(40), rtol=1e-3, atol=1e-3)
    moderate = torch.randn(40, 7)
    torch.testing.assert_close(
        sinkhorn(moderate, 0.05), sinkhorn(moderate.double(), 0.05).float(), rtol=1e-3, atol=1e-4
    )


def _uneven(rank: int) -> None:
    scores = torch.randn(10, 5, generator=torch.Generator().manual_seed(0)).double() * 4
    mine = slice(0, 3) if rank == 0 else slice(3, 10)
    together = plain_sinkhorn(scores, 0.3, 3)
    torch.testing.assert_close(sinkhorn(scores[mine], 0.3), together[mine], rtol=1e-9, atol=0)
    x = torch.nn.functional.normalize(scores, dim=1)
    centroids, assignment = spherical_kmeans(x[mine], x[:4], 5)
    shared = dist.from_first(centroids)
    torch.testing.assert_close(centroids, shared, rtol=0, atol=0)
    assert torch.equal(assignment, (x[mine] @ centroids.T).argmax(1))


@pytest.mark.xdist_group("pool")
def test_processes_may_hold_different_numbers_of_samples(pool):
    pool.run(_uneven)


def test_cross_prediction_is_the_mean_over_pairs_of_different_views():
    targets = torch.rand(2, 5, 4).double().softmax(-1)
    logits = torch.randn(4, 5, 4).double()
    pairs = [
        torch.nn.functional.cross_entropy(logits[v], targets[t])
        for t in range(2)
        for v in range(4)
        if t != v
    ]
    torch.testing.assert_close(cross_prediction(targets, logits), torch.stack(pairs).mean())


# the order that shows all clusters equally often


def test_balanced_order_shows_clusters_equally_often():
    assignment = torch.tensor([0] * 90 + [2] * 8 + [3] * 2)
    order = balanced(assignment, torch.Generator().manual_seed(0))
    counts = torch.bincount(assignment[order], minlength=4)
    assert len(order) == 100
    assert counts[1] == 0
    assert counts.max() <= 34
    assert counts[[0, 2, 3]].min() >= 31
    assert len(order[assignment[order] == 0].unique()) == counts[0]  # enough: none twice
