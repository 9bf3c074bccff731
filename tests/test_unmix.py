"""Un-Mix around any method that compares views, and the boxes that it draws."""

import pytest
import torch

from selftaught.engine.unmix import Mixed, draw_box, mix, mixed_loss, with_mixed
from selftaught.errors import UserError
from tests.test_engine import Killed, curve, make, train
from tests.test_methods import batch, build, total


@pytest.mark.parametrize(
    "name",
    [
        "simclr",
        "moco_v2",
        "byol",
        "simsiam",
        "barlow_twins",
        "lejepa",
        "visreg",
        "dino",
        "simdino",
        "nnclr",
        "supcon",
    ],
)
def test_mixtures_add_a_term_and_leave_no_trace_in_memories(name):
    plain, mixing = build(name), build(name)
    views = batch(name, plain)
    torch.manual_seed(3)
    terms = with_mixed(mixing, 0.5)(views)
    total(terms).backward()
    assert terms["mixed"].isfinite()
    total(plain.loss(views)).backward()
    for path in mixing.insight.memory:
        torch.testing.assert_close(mixing.get_buffer(path), plain.get_buffer(path))
    grads = [p.grad for p in mixing.backbone.parameters() if p.grad is not None]
    assert all(g.isfinite().all() for g in grads)


@pytest.mark.parametrize("name", ["moco_v1", "mean_shift", "nnclr", "pcl"])
def test_both_sources_are_looked_for_among_the_same_memories(name):
    """A key that the first look has pushed into a queue is no negative of the second."""
    method = build(name, torch.float64)
    views = batch(name, method)
    mixed = views.views[0].flip(0) * 0.4 + views.views[0] * 0.6
    torch.manual_seed(0)
    found = mixed_loss(method, Mixed(mixed, 0.6), views)
    parts = []
    for images in (mixed, mixed.flip(0)):
        alone = build(name, torch.float64)
        parts.append(total(alone.loss(views._replace(views=[images, *views.views[1:]]))))
    torch.testing.assert_close(found, 0.6 * parts[0] + 0.4 * parts[1])


def test_the_mixture_looks_and_is_not_looked_for():
    method, seen = build("msn"), []
    views = batch("msn", method)
    method.target.register_forward_hook(lambda _, given, __: seen.append(given[0]))
    with_mixed(method, 1.0)(views)
    assert len(seen) == 3  # for each source, and for the plain images
    assert all(torch.equal(x, views.views[0]) for x in seen)


def test_methods_that_change_weights_in_their_loss_are_refused():
    method = build("swav")
    with pytest.raises(UserError, match="SwAV changes its weights while it computes its loss"):
        with_mixed(method, 0.5)(batch("swav", method))


def test_equal_shares_of_equal_images_change_nothing():
    method = build("simclr", torch.float64)
    views = batch("simclr", method)
    same = views._replace(views=[v[:1].expand_as(v) for v in views.views])
    mixed = mixed_loss(method, Mixed(same.views[0], 0.3), same)
    torch.testing.assert_close(mixed, total(method.loss(same)))


def test_boxes_have_their_share_and_stay_within():
    torch.manual_seed(0)
    for share in (0.0, 0.25, 0.9, 1.0):
        for _ in range(20):
            top, bottom, left, right = draw_box(32, 48, share)
            assert 0 <= top <= bottom <= 32
            assert 0 <= left <= right <= 48
            assert (bottom - top) * (right - left) <= (1 - share) * 32 * 48 + 1e-9


def test_the_chance_chooses_between_wholes_and_regions():
    x = torch.stack([torch.zeros(3, 8, 8), torch.ones(3, 8, 8)])
    torch.manual_seed(0)
    wholes = [mix(x, 1.0).images[0] for _ in range(5)]
    regions = [mix(x, 0.0).images[0] for _ in range(5)]
    assert all(len(image.unique()) == 1 for image in wholes)
    assert all(set(image.unique().tolist()) <= {0.0, 1.0} for image in regions)


def test_training_with_mixtures_resumes_bit_for_bit(tmp_path):
    options = {"unmix": 0.5, "save_every": 0}
    whole = train(tmp_path / "whole", "moco_v1", **options).state_dict()
    assert "mixed" in curve(tmp_path / "whole")[0]
    method = make("moco_v1")

    def after_step():
        if method.progress > 0.5:
            raise Killed
        type(method).after_step(method)

    method.after_step = after_step
    with pytest.raises(Killed):
        train(tmp_path / "run", method=method, **options)
    again = train(tmp_path / "run", "moco_v1", resume=True, **options).state_dict()
    assert curve(tmp_path / "run") == curve(tmp_path / "whole")
    assert all(torch.equal(x, again[key]) for key, x in whole.items())


def test_what_cannot_be_mixed_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"the views of Rotation are not two or more images"):
        train(tmp_path / "run", "rotation", method=make("rotation"), unmix=0.5)
    with pytest.raises(UserError, match=r"unmix must be from 0 to 1, got 2"):
        train(tmp_path / "other", unmix=2.0)
