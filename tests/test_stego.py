"""STEGO beyond its values: neighbors, pairs, a frozen encoder, and the command that segments."""

import numpy as np
import PIL.Image
import pytest
import torch
from torch.nn.functional import normalize

from selftaught import pretrain
from selftaught.backbones import Image
from selftaught.cli import main
from selftaught.engine.segment import refined
from selftaught.errors import UserError
from selftaught.method import Batch
from selftaught.methods.contrastive.simclr import SimCLR
from selftaught.methods.dense.stego import PRESETS, STEGO, nearest_others, palette, shuffled
from selftaught.objectives.mean_field import mean_field
from tests.test_engine import photos, train

FAST = {"batch": 4, "workers": 0, "accelerator": "cpu", "evaluate": False}


class Corpus:
    """Eight images whose features lie on a circle, in turn."""

    def __len__(self) -> int:
        return 8

    def embed(self, encoder: torch.nn.Module) -> torch.Tensor:
        angle = torch.arange(8) * torch.pi / 10
        return torch.stack([angle.cos(), angle.sin()], 1)


def stego(samples: int = 8) -> STEGO:
    net = Image("test_vit", 32)
    return STEGO(net, samples, dim=8, clusters=4, places=3, neighbors=2, negatives=1)


def test_nearest_others_are_not_the_image_itself():
    features = normalize(torch.randn(30, 5), dim=1)
    found = nearest_others(features, 4)
    for i, row in enumerate(features @ features.mT):
        row[i] = -9
        assert found[i].tolist() == row.argsort(descending=True)[:4].tolist()


def test_the_epoch_shows_images_beside_their_neighbors():
    torch.manual_seed(0)
    method = stego()
    order = method.on_epoch(Corpus()).order
    anchors, others = order.view(-1, 2).T
    assert len(set(anchors.tolist())) == 4
    assert all(abs(a - b) <= 2 and a != b for a, b in zip(anchors.tolist(), others.tolist()))
    assert not torch.equal(order, method.on_epoch(Corpus()).order)


def test_nobody_is_told_from_himself():
    for count in (2, 3, 8):
        for _ in range(20):
            assert (shuffled(torch.randperm(count)) != torch.arange(count)).all()


def test_the_encoder_stays_as_it_is():
    method = STEGO(Image("test_resnet", 32), 8, dim=8, clusters=4, neighbors=2).train()
    assert not method.backbone.training
    assert method.linear.training
    assert not any(p.requires_grad for p in method.backbone.parameters())


def test_too_few_images_are_refused_in_words():
    with pytest.raises(UserError, match="neighbors=7 of 5 images"):
        STEGO(Image("test_vit", 32), 5)
    assert all(len(p.weights) == len(p.shifts) == 3 for p in PRESETS.values())


def test_colors_differ():
    for channels in (1, 3):
        for count in (24, 27, 150):
            assert len({tuple(c) for c in palette(count, channels).tolist()}) == count


def test_codes_can_be_drawn_to_edges(monkeypatch):
    """Codes that agree where colors do have the lower loss."""
    method = STEGO(Image("test_resnet", 32), 8, clusters=4, places=3, dim=3, crf=0.5)
    x = torch.zeros(4, 3, 32, 32)
    losses = []
    for codes in (torch.ones(4, 3, 2, 2), torch.randn(4, 3, 56, 56)):
        monkeypatch.setattr(method, "encode", lambda features, codes=codes: codes)
        losses.append(float(method.loss(Batch([x], torch.arange(4)))["crf"].detach()))
    assert losses[0] < losses[1] < 0


def test_half_a_pair_is_refused(tmp_path):
    for batch, parts in ((5, 1), (6, 2)):
        with pytest.raises(UserError, match=f"2 at a time, .* use a multiple of {2 * parts}"):
            train(tmp_path / "run", "stego", batch=batch, accumulate=parts)


def test_an_encoder_that_has_learned_nothing_is_refused(tmp_path, capsys):
    np.save(tmp_path / "data.npy", photos())
    words = ["pretrain", "stego", str(tmp_path / "data.npy"), "--out", str(tmp_path / "run")]
    assert main([*words, "--backbone", "test_resnet", "--size", "32"]) == 2
    assert "test_resnet has learned nothing yet: begin with a run" in capsys.readouterr().err


def test_the_field_cleans_noise_and_keeps_edges():
    torch.manual_seed(0)
    truth = torch.zeros(12, 16, dtype=torch.long)
    truth[:, 9:] = 1
    image = 255.0 * truth.expand(3, -1, -1)
    logits = torch.nn.functional.one_hot(truth, 2).movedim(2, 0) + 0.8 * torch.randn(2, 12, 16)
    before = (logits.argmax(0) == truth).float().mean()
    found = mean_field(logits, image)
    assert torch.allclose(found.sum(0), torch.ones(12, 16), atol=1e-5)
    assert (found.argmax(0) == truth).all()
    assert before < 0.95
    square = refined(logits[:, :, :12], image.byte()[:, :, :12])
    assert square.shape == (2, 12, 12)
    for channels in (1, 2, 4):
        other = image.byte()[:1, :, :12].expand(channels, -1, -1)
        torch.testing.assert_close(refined(logits[:, :, :12], other), square)


def test_segment_writes_masks_and_overlays(tmp_path, capsys):
    rng = np.random.default_rng(0)
    photos = tmp_path / "photos"
    photos.mkdir()
    for i in range(8):
        image = rng.integers(0, 256, (6, 8, 3), np.uint8).repeat(8, 0).repeat(8, 1)
        PIL.Image.fromarray(image).save(photos / f"{i}.png")
    run, files = tmp_path / "run", [str(photos / "0.png"), str(photos / "1.png")]
    pretrain(stego(), str(photos), run, epochs=1, **FAST)
    for extra in ([], ["--no-crf"]):
        out = tmp_path / f"out{len(extra)}"
        assert main(["segment", str(run), *files, "--out", str(out), *extra]) == 0
        written = capsys.readouterr().out.split()
        names = ("0-mask.png", "0-overlay.png", "1-mask.png", "1-overlay.png")
        assert written == [str(out / n) for n in names]
        mask = PIL.Image.open(written[0])
        assert mask.mode == "P"
        assert np.asarray(mask).shape == (32, 32)
        assert np.asarray(mask).max() < 4
        seen = np.asarray(mask.convert("RGB"))[0, 0]
        assert np.array_equal(seen, (255 * palette(4, 3)).round().byte()[mask.getpixel((0, 0))])
    other = tmp_path / "simclr"
    simclr = SimCLR(Image("test_resnet", 32), hidden=16, dim=8)
    pretrain(simclr, str(photos), other, epochs=1, **FAST | {"batch": 8})
    assert main(["segment", str(other), *files]) == 2
    assert "stego segments images" in capsys.readouterr().err
