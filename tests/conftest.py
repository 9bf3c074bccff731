"""Fixtures: the two-process pool, photos, one thread a process, no network, empty caches."""

import io
import os
import resource
import socket
import tempfile

import numpy as np
import PIL.Image
import pytest
import timm
import torch
from hypothesis import settings

from tests.photos import shipped
from tests.pool import Pool

# read when the hub's client is imported: no test begins with what somebody has downloaded
EMPTY = tempfile.TemporaryDirectory()
PLACES = ("HF_HOME", "HF_HUB_CACHE", "TORCH_HOME", "SELFTAUGHT_CACHE")
os.environ |= dict.fromkeys(PLACES, EMPTY.name)

# no deadline, as other processes share the machine
settings.register_profile("selftaught", deadline=None)
settings.load_profile("selftaught")


@pytest.fixture(scope="session")
def pool():
    pool = Pool()
    yield pool
    pool.close()


@pytest.fixture(scope="session")
def files() -> list[bytes]:
    """Twelve photos as they lie in files."""
    return shipped(12)


@pytest.fixture(scope="session")
def photos(files) -> list[np.ndarray]:
    """The same, decoded: uint8 [H, W, 3]."""
    return [np.asarray(PIL.Image.open(io.BytesIO(f)).convert("RGB")) for f in files]


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


@pytest.fixture(autouse=True, scope="session")
def _one_thread_no_network():
    """Tests are exact on any number of cores, and nothing they call may leave the machine."""
    torch.set_num_threads(1)
    real = socket.socket.connect

    def connect(self, address):
        if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in (
            "127.0.0.1",
            "::1",
            "localhost",
        ):
            raise AssertionError(f"a test opened a connection to {address}")
        return real(self, address)

    socket.socket.connect = connect  # type: ignore[method-assign]
    yield
    socket.socket.connect = real  # type: ignore[method-assign]


@pytest.fixture
def unfinished(monkeypatch):
    """Runs end with their last step: export, scores and report are half of the time of small ones,
    and nothing to a test of what was trained."""
    monkeypatch.setattr("selftaught.engine.run.Run.finish", lambda *_: None)


@pytest.fixture
def shallow(monkeypatch):
    """timm's BEiTs have two narrow blocks: what is their own counts, and Base has 86 million
    weights to draw."""
    real = timm.create_model
    few = {"depth": 2, "embed_dim": 96, "num_heads": 3}

    def create_model(name: str, **options):
        return real(name, **(few if name.startswith("beit") else {}), **options)

    monkeypatch.setattr(timm, "create_model", create_model)


@pytest.fixture
def disk():
    """`disk(n)`: from now on no file can grow beyond n bytes, as on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit(size: int) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))

    yield limit
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
