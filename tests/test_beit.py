"""BEiT and its tokenizers: both stages, other tokenizers, what is refused."""

import numpy as np
import pytest
import torch
from torch import nn

from selftaught import pretrain
from selftaught.backbones import backbone
from selftaught.backbones.image.tokenizer import DallETokenizer, load_tokenizer
from selftaught.errors import UserError
from selftaught.method import Batch
from selftaught.methods.masked.beit import BEiT
from selftaught.methods.masked.discrete_vae import DiscreteVAE, choose


def batch(method: BEiT, count: int = 2) -> Batch:
    side = 32 // method.patch
    hidden = torch.rand(count, side, side) < 0.4
    return Batch([torch.randn(count, 3, 32, 32), hidden], torch.arange(count))


def test_both_stages_from_run_folders(tmp_path):
    data = np.random.default_rng(0).integers(0, 256, (16, 32, 32, 3), np.uint8)
    first = DiscreteVAE(backbone("test_vit", 32), vocabulary=8, dim=8, width=8)
    options = {"batch": 8, "workers": 0, "evaluate": False, "accelerator": "cpu"}
    pretrain(first, data, tmp_path / "words", epochs=1, **options)
    words = load_tokenizer(tmp_path / "words")
    colors = torch.rand(2, 3, 32, 32)
    assert torch.equal(words(colors), first.tokenizer.eval()(colors))
    second = BEiT(backbone("test_vit", 32), tmp_path / "words")
    assert second.lm_head.out_features == 8
    assert not any(p.requires_grad for p in second.words.parameters())
    second.train()
    assert not second.words.training
    images = batch(second).views[0]
    mean, std = images.new_tensor([second.backbone.mean, second.backbone.std])[..., None, None]
    expected = words((images * std + mean).clamp(0, 1))
    assert torch.equal(second.ids(images), expected)
    assert torch.isfinite(second.loss(batch(second)))

    other = DiscreteVAE(backbone("test_vit", 32), vocabulary=4, dim=8, width=8).state_dict()
    with pytest.raises(UserError, match="vocabulary=4 is less than the 8 words"):
        BEiT(backbone("test_vit", 32), tmp_path / "words", vocabulary=4)
    assert other["codebook.weight"].shape == (4, 8)


def test_dalles_weights_make_a_tokenizer_of_8_px(tmp_path):
    theirs = DallETokenizer(hidden=8, vocabulary=12).eval()
    torch.save(theirs.state_dict(), tmp_path / "encoder.pt")
    method = BEiT(backbone("test_vit", 32), tmp_path / "encoder.pt")
    assert method.cell == 8
    assert method.patch == 4
    images = torch.randn(2, 3, 32, 32)
    assert method.ids(images).shape == (2, 8, 8)  # of images enlarged to 64 px
    colors = torch.rand(2, 3, 16, 24)
    assert torch.equal(load_tokenizer(tmp_path / "encoder.pt")(colors), theirs(colors))
    assert theirs(colors).shape == (2, 2, 3)


@pytest.mark.parametrize("content", [b"", b"no weights", None])
def test_files_that_are_no_tokenizer_are_refused(tmp_path, content):
    path = tmp_path / "encoder.pt"
    if content is None:
        torch.save({"a": torch.zeros(1)}, path)
    else:
        path.write_bytes(content)
    for wrong in (path, tmp_path / "none", tmp_path):
        with pytest.raises(UserError, match=r"is no tokenizer \((?s:.)*; give the run folder"):
            BEiT(backbone("test_vit", 32), wrong)


class Words(nn.Module):
    """Ids of the given shape for any image."""

    def __init__(self, rows: int, word: int = 0):
        super().__init__()
        self.rows, self.word = rows, word

    def forward(self, colors: torch.Tensor) -> torch.Tensor:
        return torch.full((len(colors), self.rows, self.rows), self.word)


def test_any_module_may_be_the_tokenizer_of_the_right_resolution():
    method = BEiT(backbone("test_vit", 32), vocabulary=3).use(Words(8, 2), 4)
    method.loss(batch(method))
    with pytest.raises(UserError, match=r"makes \[2, 7, 7\] words .* 32 px, .* has 8 x 8 patches"):
        method.use(Words(7), 4).loss(batch(method))
    with pytest.raises(UserError, match="says word 3 and vocabulary is 3"):
        method.use(Words(8, 3), 4).loss(batch(method))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden": 64}, "hidden=64 of 64 patches: at least 1 must be hidden and 1 seen"),
        ({"hidden": -1}, "hidden must be .*, got -1"),
        ({"hidden": 0}, "hidden must be .*, got 0"),
        ({"smallest": 60}, "smallest=60 must be from 1 to the 24 hidden patches"),
    ],
)
def test_beit_refuses(options, message):
    with pytest.raises(UserError, match=message):
        BEiT(backbone("test_vit", 32), **options)


def test_a_tokenizer_of_other_channels_is_refused(tmp_path):
    torch.save(DallETokenizer(8, 4, groups=2, depth=1).state_dict(), tmp_path / "words.pt")
    BEiT(backbone("test_vit", 32), tmp_path / "words.pt")
    with pytest.raises(UserError, match=r"words.pt reads images of 3 channels, and test_vit .* 1"):
        BEiT(backbone("test_vit", 32, 1), tmp_path / "words.pt")


@pytest.mark.parametrize("net", ["test_resnet", "swin_tiny_patch4_window7_224"])
def test_beit_needs_tokens(net):
    with pytest.raises(UserError, match=f"{net} is a .*masking needs a plain ViT"):
        BEiT(backbone(net, 32))


@pytest.mark.parametrize("options", [{"vocabulary": 1}, {"temperature": (1.0, 0.0)}])
def test_discrete_vae_refuses(options):
    with pytest.raises(UserError, match="must be"):
        DiscreteVAE(backbone("test_vit", 32), **options)


def test_words_are_chosen_one_at_a_place_with_a_relaxed_gradient():
    logits = torch.randn(2, 5, 3, 3, requires_grad=True)
    noise = torch.zeros_like(logits)
    hard, soft = (choose(logits, noise, 0.5, one) for one in (True, False))
    assert torch.equal(hard.argmax(1), logits.argmax(1))
    torch.testing.assert_close(hard.amax(1), torch.ones(2, 3, 3))
    weight = torch.randn_like(logits)
    grads = [torch.autograd.grad((x * weight).sum(), logits)[0] for x in (hard, soft)]
    torch.testing.assert_close(*grads)


def test_one_patch_is_hidden_where_no_block_fits():
    method = BEiT(backbone("test_vit", 32), vocabulary=3)
    method.patch = 16  # 2 x 2 patches: blocks must be smaller than the grid on both sides
    image = np.zeros((32, 32, 3), np.uint8)
    for seed in range(20):
        _, hidden = method.views(32)(image, np.random.default_rng(seed))
        assert 1 <= hidden.sum() < 4
