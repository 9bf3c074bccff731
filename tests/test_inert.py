"""Checkpoints with settings beside weights: read past what they are, none of whose code runs."""

import collections
import datetime
import functools
import io
import sys
import types
import zipfile

import numpy as np
import pytest
import timm
import torch

from selftaught import backbone
from selftaught.backbones import Image
from selftaught.backbones.weights import inert
from selftaught.backbones.weights.reading import read_weights
from selftaught.backbones.weights.told import weights_command
from selftaught.errors import UserError


def package(name: str) -> types.ModuleType:
    """A module that is not there when the file is read."""
    module = types.ModuleType(name)
    exec("class Node(dict): pass\nclass Listed(list): pass\nclass Plain: pass", module.__dict__)
    return module


def node(module, **values):
    found = module.Node(values)
    found.frozen = True
    return found


def counted(module):
    found = collections.defaultdict(list)
    found["loss"].append(0.5)
    return found


SETTINGS = {
    "a dictionary with attributes": lambda m: node(m, lr=0.1, inner=node(m, decay=None)),
    "a list of a class of its own": lambda m: m.Listed([1, m.Plain(), {2}]),
    "what types there are": lambda _: (dict, list, int, str, type(None), float),
    "plain values": lambda _: [{1}, frozenset([2]), 1j, slice(1, 3), range(4), bytearray(b"x")],
    "times": lambda _: [datetime.datetime(2026, 1, 2), datetime.timedelta(3)],
    "histories": lambda m: [counted(m), collections.deque([1, 2])],
    "random states": lambda _: [np.random.RandomState(0).get_state(), np.float32(2)],
    "a key of a dictionary": lambda m: {m.Plain(): 1},
}


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("kind", SETTINGS)
def test_settings_are_passed_over(kind, legacy, tmp_path, monkeypatch):
    base = torch.arange(12.0).reshape(3, 4)
    state = {
        "x": base,
        "turned": base.T,
        "part": base[1:, ::2],
        "one": torch.tensor(7),
        "none": torch.zeros(0, 3),
        "half": base.to(torch.bfloat16),
        "flags": torch.tensor([True, False]),
        "learned": torch.nn.Parameter(torch.ones(2)),
    }
    path = tmp_path / "x.ckpt"
    monkeypatch.setitem(sys.modules, "yacs", module := package("yacs"))
    content = {"model": state, "config": SETTINGS[kind](module)}
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    monkeypatch.delitem(sys.modules, "yacs")
    for found in (read_weights(path)["model"], inert.read(path)["model"]):
        assert found.keys() == state.keys()
        for name, x in state.items():
            assert found[name].dtype == x.dtype
            assert torch.equal(found[name], x), name


def test_code_is_refused_whatever_stands_beside_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "omegaconf", module := package("omegaconf"))
    weights = {"model": Image("test_resnet", 32).net.state_dict(), "config": node(module, a=1)}
    for code in (eval, functools.partial(print, "ran"), getattr):
        torch.save(weights | {"x": code}, tmp_path / "x.pth")
        with pytest.raises(UserError, match=r"could run code.*\(it names builtins\.\w+"):
            read_weights(tmp_path / "x.pth")
        assert weights_command(str(tmp_path / "x.pth")).commands == (
            "nothing: the file is refused",
        )


def test_a_whole_model_is_told_to_be_one(tmp_path):
    torch.save({"model": timm.create_model("test_resnet")}, tmp_path / "x.pth")
    with pytest.raises(UserError, match=r"save its state dict alone.*it names .*timm"):
        read_weights(tmp_path / "x.pth")


def test_damaged_files_with_settings(tmp_path):
    content = {"x": torch.arange(4.0), "settings": datetime.date(2026, 1, 2)}
    torch.save(content, path := tmp_path / "x.pth")
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    data = next(name for name in parts if name.endswith("/data/0"))

    def changed(**given: bytes) -> None:
        with zipfile.ZipFile(path, "w") as archive:
            for name, value in parts.items():
                archive.writestr(name, given.get(name.rpartition("/")[2].partition(".")[0], value))

    changed(**{"0": parts[data][:9]})
    with pytest.raises(UserError, match="no whole file of weights"):
        read_weights(path)
    with pytest.raises(ValueError, match="it ends too early"):
        inert.read(path)
    pickled = parts[data.replace("data/0", "data.pkl")]
    for place, says in ((b"K\x04\x85", "larger than what there is"), (b"K\x04t", "it ends too")):
        forged = pickled.replace(place, place.replace(b"\x04", b"\x05"))
        assert forged != pickled
        changed(data=forged)
        with pytest.raises(UserError, match="no whole file of weights"):
            read_weights(path)
        with pytest.raises(ValueError, match=says):
            inert.read(path)
    torch.save(content, buffer := io.BytesIO(), _use_new_zipfile_serialization=False)
    path.write_bytes(buffer.getvalue()[:-3])
    with pytest.raises(UserError, match=r"no whole file of weights \(it ends too early\)"):
        read_weights(path)


def test_only_what_is_taken_of_a_file_is_looked_at(tmp_path):
    vit = Image("test_vit", 64).net.state_dict()
    broken = {name: x * float("nan") for name, x in vit.items()}
    blank = vit | {"pos_embed": vit["pos_embed"] * 0}
    for other in (broken, blank):
        torch.save({"teacher": vit, "student": other}, tmp_path / "x.pth")
        told = weights_command(str(tmp_path / "x.pth"))
        assert told.looks == ()
        assert "--weights" in told.commands[0]
        backbone("test_vit", 64, weights=tmp_path / "x.pth")
        torch.save({"teacher": other, "student": vit}, tmp_path / "x.pth")
        told = weights_command(str(tmp_path / "x.pth"))
        assert told.commands == ("nothing: the file is refused",)
