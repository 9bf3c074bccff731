"""DeepCluster: whitening, balanced order; version 2: spherical k-means and its loss."""

import re

import torch
from torch.nn import functional as F

from selftaught.methods.clustering.deepcluster import balanced
from selftaught.objectives.assignment import cluster_cross_entropy
from selftaught.vectors import spherical_kmeans, whiten
from tests.adapters import Golden, close


def check(golden: Golden) -> None:
    dim = golden.hyper["pca"]
    white = F.normalize(whiten(golden["features"], dim), dim=1)
    close(white @ white.T, golden["gram_f64"])
    close(white @ white.T, golden["gram_pca_white"], rtol=1e-5, atol=2e-6)  # faiss, in float32
    check_order(golden)
    check_clusters(golden)
    check_loss(golden)


def check_order(golden: Golden) -> None:
    """Which images are cut off the end is random: the counts differ by at most their number."""
    expected = golden["sampler_counts"]
    length = int(golden.setting("sampler_counts", "N", r"N=(\d+)"))
    told = re.search(r"clusters of size ([\d,]+)", golden.said("sampler_counts"))
    given = told[1].strip(",").split(",") if told else []
    sizes = torch.tensor(golden.own("sampler_counts").get("sizes") or [int(n) for n in given])
    filled = int((sizes > 0).sum())
    assignment = torch.arange(len(sizes)).repeat_interleave(sizes)
    each = length // filled + 1
    for seed in range(20):
        order = balanced(assignment, torch.Generator().manual_seed(seed))
        counts = torch.bincount(assignment[order], minlength=len(sizes))
        for drawn in (counts, expected):
            assert drawn.sum() == length
            assert drawn.max() <= each
            assert (drawn[sizes == 0] == 0).all()
        assert (counts - expected).abs().max() <= each * filled - length
        whole = sizes > each  # drawn without repetition
        for cluster in whole.nonzero()[:, 0]:
            members = order[assignment[order] == cluster]
            assert len(members.unique()) == len(members)


def check_clusters(golden: Golden) -> None:
    memory = golden["memory"]
    for head, rows in enumerate(golden.starting("init_rows").values()):
        bank = memory[head % len(memory)]
        iterations = golden.hyper["kmeans_iters_v2"]
        centroids, assignment = spherical_kmeans(bank, bank[rows], iterations)
        close(centroids, golden[f"centroids{head}"])
        assert torch.equal(golden["assignments"][head][golden["memory_index"]], assignment)


def check_loss(golden: Golden) -> None:
    scores = [golden.leaf(f"scores{i}") for i in range(len(golden.starting("scores")))]
    labels = golden["assignments"][:, golden["batch_index"]]
    loss = cluster_cross_entropy(scores, labels, golden.hyper["temperature_v2"])
    close(loss, golden["loss"])
    loss.backward()
    for name, gradient in golden.starting("grad_scores").items():
        close(scores[int(name)].grad, gradient)
