"""The contract: what every method must do. Runs over the rows of `cases.py`, on tiny networks."""

import dataclasses
import inspect
import io
import itertools
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import default_collate

from selftaught import augment, dist, kinds, methods
from selftaught.backbones import backbone
from selftaught.engine.randomness import seed_all
from selftaught.engine.settings import Settings
from selftaught.engine.views import views_of
from selftaught.errors import UserError
from selftaught.method import Batch, Method, Recipe
from selftaught.parts import synchronize
from tests.cases import CASES, OTHERS, Case
from tests.pool import Pool

SAMPLES = 16
BATCH = 8
STEPS = 3
APART = 1000
"""Between the seeds of two processes: the engine's differ, so what must be alike may not be drawn
in each."""

ALL = CASES | OTHERS
each = pytest.mark.parametrize("name", sorted(CASES))
every = pytest.mark.parametrize("name", sorted(ALL))


# What the engine does with a method, in miniature.


def image(index: int, size: int, channels: int = 3) -> np.ndarray:
    """A picture that is not square, of blobs that differ from sample to sample."""
    rng = np.random.default_rng(index)
    coarse = rng.integers(0, 256, (5, 6, channels), np.uint8)
    fine = coarse.repeat(size // 4, 0).repeat(size // 4, 1)
    return np.clip(fine + rng.normal(0, 20, fine.shape), 0, 255).astype(np.uint8)


def shown(name: str, index: int, channels: int = 3) -> Any:
    """`image` as the method takes it, with a mask where it has one; or a sample of another kind."""
    if sample := ALL[name].sample:
        return sample(index)
    return image(index, CASES[name].size, channels + (methods.find(name).needs.beside == "masks"))


def leaves(node: Any) -> Iterator[Any]:
    if isinstance(node, dict):
        node = list(node.values())
    if isinstance(node, list | tuple):
        for child in node:
            yield from leaves(child)
    else:
        yield node


def each_leaf(function: Callable[[Tensor], Tensor], node: Any) -> Any:
    if isinstance(node, dict):
        return {key: each_leaf(function, value) for key, value in node.items()}
    if isinstance(node, list | tuple):
        return [each_leaf(function, value) for value in node]
    return function(node)


def build(name: str, dtype: torch.dtype = torch.float32, case: Case | None = None) -> Method:
    """The row's method, ready for its first step; weights are alike in all processes, draws not."""
    torch.manual_seed(0)
    method = (case or ALL[name]).make(name, SAMPLES).to(dtype).train()
    seed_all(1 + APART * dist.rank())
    method.on_start(Images(ALL[name].size))
    method.on_epoch(Images(ALL[name].size))
    return method


def batch(name: str, method: Any, count: int = BATCH, epoch: int = 0) -> Batch:
    """The first `count` samples, as the method asks for them and in its precision."""
    kind = kinds.of(method.backbone)
    pipeline = kind.views(method.views(ALL[name].size))
    samples = [pipeline(shown(name, i), augment.sample_rng(0, epoch, i)) for i in range(count)]
    dtype = next(method.parameters()).dtype
    net = method.backbone
    views = kind.prepare(default_collate(samples), net)
    views = each_leaf(lambda x: x.to(dtype) if x.is_floating_point() else x, views)
    return Batch(views, torch.arange(count), torch.arange(count) % 3)


def rows(whole: Batch, which: Any) -> Batch:
    views = each_leaf(lambda x: x[which], whole.views)
    return Batch(views, whole.index[which], whole.label[which])


@dataclasses.dataclass
class Images:
    """The dataset as a whole, as `on_epoch` sees it."""

    size: int

    def __len__(self) -> int:
        return SAMPLES

    @torch.no_grad()
    def embed(self, encoder: nn.Module, key: str = "") -> Tensor:
        training, dtype = encoder.training, next(encoder.parameters()).dtype
        plain = augment.plain(getattr(encoder, "size", self.size))
        views = [plain(image(i, self.size), None) for i in range(SAMPLES)]
        features = encoder.eval()(torch.from_numpy(np.stack(views)).to(dtype) / 255)
        encoder.train(training)
        return features


def total(terms: Tensor | dict[str, Tensor]) -> Tensor:
    terms = terms if isinstance(terms, dict) else {"loss": terms}
    assert terms, "a loss needs a term"
    for term in terms.values():
        assert term.shape == (), "each term is a scalar"
        assert term.isfinite()
    return torch.stack(list(terms.values())).sum()


def optimizer(method: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD([p for p in method.parameters() if p.requires_grad], 0.01, 0.9)


def step(method: Method, opt: torch.optim.Optimizer, views: Batch) -> Tensor:
    """One step, gradients averaged over the processes as DDP does; -> the mean loss."""
    opt.zero_grad()
    loss = total(method.loss(views))
    loss.backward()
    for parameter in method.parameters():
        if parameter.grad is not None:
            parameter.grad = dist.mean(parameter.grad)
    method.before_step()
    opt.step()
    method.after_step()
    return dist.mean(loss.detach())


def train(name: str, method: Method, opt: torch.optim.Optimizer, start: int = 0) -> list[Tensor]:
    """`STEPS` steps, this process on its rows of each batch; -> the losses."""
    share = BATCH // dist.world()
    mine = slice(dist.rank() * share, (dist.rank() + 1) * share)
    losses = []
    for epoch in range(start, start + STEPS):
        seed_all(epoch + APART * dist.rank())
        method.progress = epoch / (2 * STEPS)
        losses.append(step(method, opt, rows(batch(name, method, epoch=epoch), mine)))
    return losses


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> list[str]:
    """Names of the entries that differ in any bit."""
    assert a.keys() == b.keys()
    return [n for n in a if not torch.equal(a[n], b[n])]


def copied(method: nn.Module) -> dict[str, Tensor]:
    return {n: x.detach().clone() for n, x in method.state_dict().items()}


# The files.


def test_each_method_file_has_a_row():
    assert set(ALL) == set(methods.files())


@every
def test_documented_and_typed(name):
    signature = methods.signature(name)
    cls = methods.find(name)
    assert issubclass(cls, Method)
    assert cls.__name__ == signature.name
    assert cls.__subclasses__() == [], "a method is final"
    file = inspect.getdoc(inspect.getmodule(cls)) or ""
    assert "https://" in file.split("\n\n")[0], "the file names its paper and links it"
    assert signature.summary.endswith(".")
    given = inspect.signature(cls).parameters
    assert list(given) == [p.name for p in signature.parameters]
    for parameter in signature.parameters:
        assert parameter.doc, f"{parameter.name} is not documented"
        if parameter.type is None:
            needless = parameter.default is None  # which does without
            assert parameter.required or needless, f"YAML could give no {parameter.name}"
        elif not parameter.required:
            assert parameter.default == given[parameter.name].default
            assert parameter.parse(parameter.default) == parameter.default
        else:
            assert parameter.from_data, f"{parameter.name} needs the paper's default"


@every
def test_recipe_is_in_range(name):
    method, recipe = ALL[name].make(name), methods.find(name).recipe
    assert isinstance(recipe, Recipe)
    assert recipe.lr > 0
    assert recipe.batch > 0
    assert 0 <= recipe.warmup < 1
    assert list(recipe.milestones) == sorted(recipe.milestones)
    assert all(0 < m < 1 for m in recipe.milestones)
    assert bool(recipe.milestones) == (recipe.schedule == "step")
    for submodule in recipe.constant:
        assert list(method.get_submodule(submodule).parameters())


@every
def test_parameters_are_stored_under_their_names(name):
    method = ALL[name].make(name, SAMPLES)
    options = {"classes": 3, **ALL[name].options, "samples": SAMPLES}
    for parameter in methods.signature(name).parameters:
        if parameter.type is not None:
            expected = options.get(parameter.name, parameter.default)
            assert getattr(method, parameter.name) == expected


@each
def test_defaults_construct(name):
    """On the meta device: shapes alone, since the papers' networks are large."""
    cls = methods.find(name)
    # as many samples as the papers' numbers of clusters ask for
    samples = {"samples": 100_000} if "samples" in methods.signature(name) else {}
    classes = {"classes": 1000} if "classes" in methods.signature(name) else {}
    options = CASES[name].options
    network = {"network": options["network"]} if "network" in options else {}
    with torch.device("meta"):
        method = cls(backbone(cls.needs.backbone), **samples, **classes, **network)
    assert method.progress == 0
    method.views(224)


# The views.


@each
def test_views_pickle_and_follow_their_generator_alone(name):
    size = CASES[name].size
    pipeline = CASES[name].make(name).views(size)
    pickled = pickle.dumps(pipeline)
    assert len(pickled) < 10_000, "a pipeline must not hold the method: workers get a copy each"
    results = [
        list(leaves(p(shown(name, 3), augment.sample_rng(0, epoch, 3))))
        for p, epoch in ((pipeline, 0), (pickle.loads(pickled), 0), (pipeline, 1))
    ]
    assert all(isinstance(x, np.ndarray) for x in results[0])
    assert any(x.dtype == np.uint8 and x.ndim >= 3 for x in results[0]), "images leave as bytes"
    assert all(np.array_equal(a, b) for a, b in zip(results[0], results[1]))
    assert not all(np.array_equal(a, b) for a, b in zip(results[0], results[2]))


ASKED = {
    "crop_scale": (0.3, 1.0),
    "flips": "both",
    "color_jitter": 0.5,
    "grayscale": 0.1,
    "gaussian_blur": 0.5,
    "random_erasing": 0.5,
}


@each
def test_views_collate(name):
    method, size = CASES[name].make(name), CASES[name].size
    pipeline = method.views(size)
    assert type(views_of(method, size, Settings())) is type(pipeline)
    # what a user changes of them is taken, but where they are what is asked about, or halves
    if method.needs.views == "alike" and name not in ("dcca", "dccae"):
        own, rngs = views_of(method, size, Settings(**ASKED)), augment.sample_rng
        both = [leaves(p(shown(name, 0, 3), rngs(0, 0, 0))) for p in (pipeline, own)]
        assert [x.shape for x in both[0]] == [x.shape for x in both[1]]
    else:
        with pytest.raises(UserError, match="--crop-scale"):
            views_of(method, size, Settings(**ASKED))
    for channels in (1, 3):
        samples = [
            pipeline(shown(name, i, channels), augment.sample_rng(0, 0, i)) for i in range(3)
        ]
        views = default_collate(samples)
        assert all(len(x) == 3 for x in leaves(views)), "axis 0 of everything is the batch"
        assert all(x.shape[-3] == channels for x in leaves(views) if x.dtype == torch.uint8)


# The loss.


@every
@pytest.mark.parametrize("progress", [0.0, 0.5, 0.999])
@pytest.mark.parametrize("low", [False, True], ids=["fp32", "bf16"])
def test_loss_is_finite(name, progress, low):
    method = build(name)
    method.progress = progress
    with torch.autocast("cpu", torch.bfloat16, enabled=low):
        loss = total(method.loss(batch(name, method)))
    loss.backward()
    method.before_step()
    method.after_step()
    assert all(p.grad.isfinite().all() for p in method.parameters() if p.grad is not None)
    assert all(x.isfinite().all() for x in method.state_dict().values())


@every
def test_gradient_reaches_what_is_trained_and_nothing_else(name):
    method = build(name)
    total(method.loss(batch(name, method))).backward()
    parameters = dict(method.named_parameters())
    unused = {n for n in parameters if n.startswith(ALL[name].unused or ("\0",))}
    assert all(any(n.startswith(u) for n in parameters) for u in ALL[name].unused)
    lacking = {n for n, p in parameters.items() if p.requires_grad and p.grad is None}
    assert lacking <= unused, "trained, but without gradient"
    assert [n for n, p in parameters.items() if not p.requires_grad and p.grad is not None] == []
    assert sum(p.grad.abs().sum() for p in parameters.values() if p.grad is not None) > 0
    assert not any(x.requires_grad for x in method.buffers())


@every
def test_loss_depends_on_the_order_of_the_batch_only_where_rows_draw_by_their_place(name):
    losses = []
    for order in (torch.arange(BATCH), torch.arange(BATCH).flip(0)):
        method = build(name, torch.float64)
        losses.append(total(method.loss(rows(batch(name, method), order))))
    if ALL[name].any_order:
        torch.testing.assert_close(losses[0], losses[1], rtol=1e-9, atol=1e-12)
    else:
        assert not torch.isclose(losses[0], losses[1], rtol=1e-9), "this can be in any order"


UNLIKE = {
    "byol": "a fresh predictor turns directions anywhere",
    "scrl": "as byol",
    "nnclr": "the neighbors are those in a fresh, random queue",
    "dino": "most pairs are with local views, which are other crops",
    "ibot": "as dino",
    "dinov2": "as dino",
    "simdino": "as dino",
    "simdinov2": "as dino",
    "visreg": "nine tenths of it are of each view alone",
    "deepcluster_v2": "each view is compared with a cluster, not with the other view",
    "denoising": "an image with and without noise: a fresh decoder paints neither",
    "dccae": "the reconstruction outweighs the correlation",
    "distill_features": "each view is compared with what the teacher saw, not with the other view",
}
"""Methods of two views whose fresh loss does not say which pairs belong together, and why."""


def pair(views: Any, shift: int) -> Any:
    """The views, of which the second is the first one of the image `shift` rows before.

    Places of the views, such as corners and boxes, are made alike. None if there are no two images
    of a size.
    """
    nested = isinstance(views[0], list)
    images, *places = views if nested else [views]
    if not isinstance(images, list) or len(images) < 2 or images[0].shape != images[1].shape:
        return None
    paired = [images[0], images[0].roll(shift, 0), *images[2:]]
    alike = [x if x.dtype == torch.bool else x[:, :1].expand_as(x) for x in places]
    return [paired, *alike] if nested else paired


PAIRED = [
    "ace", "barlow_twins", "dcca", "dcl", "densecl", "hcl", "infomin", "infonce", "lejepa",
    "mean_shift", "moco_v1", "moco_v2", "moco_v3", "msn", "npair", "pcl", "pixcontrast",
    "pixpro", "seer", "siamese", "simclr", "simclr_v2", "simsiam", "spectral", "supcon", "swav",
    "triplet", "vicreg", "w_mse",
]  # fmt: skip
"""All others of two views."""


def test_which_methods_compare_two_views():
    views = {name: batch(name, case.make(name, SAMPLES), 2).views for name, case in CASES.items()}
    assert {n for n, v in views.items() if pair(v, 0) is not None} == {*PAIRED, *UNLIKE}


@pytest.mark.parametrize("name", PAIRED)
@torch.no_grad()
def test_two_views_of_an_image_cost_less_than_those_of_two_images(name):
    """Before any training, alike views: a turned sign shows."""
    losses = []
    for shift in (0, 1):
        method = build(name, torch.float64)
        whole = batch(name, method)
        views = pair(whole.views, shift)
        assert views is not None
        losses.append(float(total(method.loss(whole._replace(views=views)))))
    assert losses[0] < losses[1]


@every
def test_small_batches_work_or_are_refused(name):
    """Below `min_batch` the engine refuses; still no loss may be silently undefined there."""
    least = ALL[name].make(name).needs.batch
    assert 1 <= least <= BATCH
    for count in sorted({1, least, least + 1}):
        method = build(name)
        try:
            total(method.loss(batch(name, method, count))).backward()
        except (UserError, ValueError):
            assert count < least
        assert all(p.grad.isfinite().all() for p in method.parameters() if p.grad is not None)


@each
@pytest.mark.parametrize("net", ["test_resnet", "test_vit"])
def test_any_backbone_works_or_is_refused_in_words(name, net):
    case = dataclasses.replace(CASES[name], net=net)
    refusal = None
    try:
        method = case.make(name, SAMPLES)
        method.on_start(Images(case.size))
        method.on_epoch(Images(case.size))
        total(method.loss(batch(name, method))).backward()
    except UserError as error:
        refusal = str(error)
    assert refusal is None or (net != CASES[name].net and net in refusal)


# The state.


@each
def test_encoder_gives_features(name):
    method = build(name).eval()
    size = CASES[name].size
    with torch.no_grad():
        features = method.encoder(torch.rand(2, 3, size, size))
    assert features.shape == (2, method.backbone.dim)
    assert any(m is method.encoder for m in method.modules())


@every
def test_same_seed_gives_the_same_losses(name):
    traces = []
    for _ in range(2):
        method = build(name)
        traces.append(train(name, method, optimizer(method)))
    assert torch.equal(torch.stack(traces[0]), torch.stack(traces[1]))


@every
def test_continues_bit_for_bit_from_its_state(name):
    method = build(name)
    opt = optimizer(method)
    train(name, method, opt)
    file = io.BytesIO()
    torch.save((method.state_dict(), opt.state_dict()), file)
    expected = train(name, method, opt, STEPS)

    torch.manual_seed(1)
    other = ALL[name].make(name, SAMPLES)
    other.on_start(Images(ALL[name].size))
    again = optimizer(other)
    file.seek(0)
    state, opt_state = torch.load(file, weights_only=True)
    other.load_state_dict(state)
    again.load_state_dict(opt_state)
    assert torch.equal(torch.stack(train(name, other, again, STEPS)), torch.stack(expected))
    assert same(other.state_dict(), method.state_dict()) == []


@every
def test_only_after_step_moves_targets_and_nothing_moves_what_is_trained(name):
    """Under accumulation several losses precede one step. A parameter that is trained may be put
    back where it belongs (unit prototypes): done again, that moves nothing.
    """
    method = build(name)
    opt = optimizer(method)
    parameters = {n for n, _ in method.named_parameters()}
    trained = {n for n, p in method.named_parameters() if p.requires_grad}
    step(method, opt, batch(name, method))  # from now on a target differs from what it follows
    states = []
    for _ in range(3):
        (total(method.loss(batch(name, method))) / 3).backward()
        states.append(copied(method))
    method.before_step()
    states.append(copied(method))
    for state in states[1:]:
        assert not set(same(states[0], state)) & (parameters - trained)
    opt.step()
    before = copied(method)
    method.after_step()
    once = copied(method)
    assert bool(same(before, once)) == (type(method).after_step is not Method.after_step)
    method.after_step()
    for parameter in trained:
        torch.testing.assert_close(states[-1][parameter], states[0][parameter])
        torch.testing.assert_close(method.state_dict()[parameter], once[parameter])


# Two processes.


def train_on_rank(rank: int, name: str) -> tuple[list[float], dict[str, np.ndarray]]:
    return trained(name)


def trained(name: str) -> tuple[list[float], dict[str, np.ndarray]]:
    """Losses, and the state and the last gradients after some steps in float64.

    Batch norms are synchronized in every method: those of MoCo are meant to see their own process
    alone (`sync_batchnorm`), but all else of it must not depend on the number of processes.
    """
    method = build(name, torch.float64)
    synchronize(method)
    losses = [float(x) for x in train(name, method, optimizer(method))]
    state = {n: x.numpy() for n, x in method.state_dict().items()}
    seed_all(1 + APART * dist.rank())
    made = method.on_epoch(Images(ALL[name].size))
    if made is not None and made.order is not None:
        state["order of the next epoch"] = made.order.numpy()
    grads = {
        f"grad of {n}": p.grad.numpy() for n, p in method.named_parameters() if p.grad is not None
    }
    return losses, state | grads


@pytest.mark.xdist_group("pool")
@every
def test_two_processes_equal_one(name, pool: Pool):
    (losses, state), (other_losses, other_state) = pool.run(train_on_rank, name)
    assert losses == other_losses
    assert state.keys() == other_state.keys()
    unlike = [n for n in state if not np.array_equal(state[n], other_state[n])]
    assert unlike == [], "these differ between the processes"
    assert all(np.isfinite(x).all() for x in state.values())
    if ALL[name].exact_ranks:
        expected_losses, expected = trained(name)
        np.testing.assert_allclose(losses, expected_losses, 1e-9, err_msg="losses")
        assert state.keys() == expected.keys()
        far = {
            n: float(np.abs(state[n] - expected[n]).max())
            for n in state
            if not np.allclose(state[n], expected[n], rtol=1e-9, atol=1e-10)
        }
        assert far == {}, "these differ from one process with the whole batch"


def test_leaves_walk_nested_views():
    nested = {"a": [np.zeros(1), (np.ones(2), {"b": np.zeros(3)})]}
    assert [len(x) for x in leaves(nested)] == [1, 2, 3]
    assert list(itertools.chain(leaves([]))) == []


# What it shows of itself.


@each
@torch.no_grad()
def test_pictures_and_prototypes_are_those_of_the_images_and_change_nothing(name):
    method = build(name).eval()
    before = {k: v.clone() for k, v in method.state_dict().items()}
    views = batch(name, method)
    shown = method.show(views)
    if shown is not None:
        assert shown.title
        assert shown.note
        assert shown.columns.keys() >= shown.captions.keys()
        for column in shown.columns.values():
            assert column.dim() == 4
            assert len(column) == BATCH
            assert column.isfinite().all()
        assert all(len(lines) == BATCH for lines in shown.captions.values())
    plain = augment.plain(CASES[name].size)
    images = torch.from_numpy(np.stack([plain(image(i, CASES[name].size), None) for i in range(5)]))
    belongs = method.assign(augment.normalize(images, method.backbone.mean, method.backbone.std))
    assert belongs is None or (belongs.dim() == 2 and len(belongs) == 5)
    assert all(torch.equal(v, before[k]) for k, v in method.state_dict().items())
