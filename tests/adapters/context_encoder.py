"""Context encoders: what is hidden, how it is filled, each loss, the gradient, random regions."""

from selftaught.methods.pretext import inpainting
from tests.adapters import Golden, close


def check(golden: Golden) -> None:
    hyper = golden.hyper
    image, overlap = golden["image"], hyper["ov"]
    assert image.shape[-1] == hyper["fine"]
    hidden = inpainting.hidden_center(image.shape[-1], overlap).expand(len(image), -1, -1)
    seen = inpainting.filled(image, hidden, inpainting.REFERENCE_FILL)
    close(seen, golden["context"])
    close(inpainting.center(image), golden["real_center"])

    real, fake = golden["real_center"], golden.leaf("fake")
    share = hyper["wtl2"]
    weight = inpainting.border_weight(real.shape[-1], overlap, 10.0).double()
    close((share * weight).expand_as(real), golden["l2_weight"])
    plain, more = inpainting.squared(fake, real, weight)
    close(plain, golden["errG_l2"])
    (share * (plain + more) + ((1 - share) * golden["adv_grad"] * fake).sum()).backward()
    close(fake.grad, golden["grad_fake"])

    of_real, of_fake = (golden[name].logit() for name in ("d_real", "d_fake"))
    close(inpainting.telling(of_real, of_fake), golden["errD"])
    fooling = inpainting.fooling(of_fake)
    close(fooling, golden["errG_adv"])
    close((1 - share) * fooling + share * plain, golden["errG_total"])
    _regions(golden)


def _regions(golden: Golden) -> None:
    """Which cut-outs of the recorded pattern are taken."""
    pattern = golden["random.pattern"].numpy()
    places, expected = golden["random.pos"].tolist(), golden["random.accepted"].tolist()
    size = golden.hyper["fine"]
    cuts = [pattern[y : y + size, x : x + size] for y, x in places]
    assert [inpainting.accepted(cut) for cut in cuts] == expected
