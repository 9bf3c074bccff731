"""Sounds: files of any format, views of spectrograms and of waves, floors, runs."""

import io
import re
import struct
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
import torch

import selftaught
from selftaught import dist, kinds
from selftaught.augment import View, Views, sample_rng
from selftaught.augment.sound import SoundViews, Stretch, heard
from selftaught.backbones.sound.encoder import Waves
from selftaught.data import BadSample, open_data
from selftaught.data.cached import cached
from selftaught.data.sound import files
from selftaught.data.sound.files import spread, wave
from selftaught.data.sound.spectrogram import spectrogram, stretch
from selftaught.engine.build import assemble
from selftaught.errors import UserError
from selftaught.kinds.floors.sound import bands, bands_twice, cepstra
from selftaught.methods.contrastive.cpc_audio import CPCAudio
from tests.pool import Pool
from tests.test_engine import often_killed

RATE = 8000


def tone(pitch: float, seconds: float = 0.3, rate: int = RATE, seed: int = 0) -> np.ndarray:
    """float32 [n]: a sine in a little noise."""
    t = np.arange(round(seconds * rate)) / rate
    noise = np.random.default_rng(seed).standard_normal(len(t))
    return (0.5 * np.sin(2 * np.pi * pitch * t) + 0.01 * noise).astype(np.float32)


def encoded(x: np.ndarray, rate: int = RATE, format: str = "WAV", subtype: str = "PCM_16") -> bytes:
    out = io.BytesIO()
    soundfile.write(out, x, rate, format=format, subtype=subtype)
    return out.getvalue()


@pytest.fixture(scope="module")
def sounds(tmp_path_factory) -> Path:
    """A folder of a folder a class: low tones and high ones, 12 each."""
    root = tmp_path_factory.mktemp("sounds") / "sounds"
    for name, pitch in (("high", 1500), ("low", 300)):
        (root / name).mkdir(parents=True)
        for i in range(12):
            x = tone(pitch * (1 + 0.02 * i), 0.25 + 0.01 * i, seed=i)
            (root / name / f"{i}.wav").write_bytes(encoded(x))
    return root


# ------------------------------------------------------------------------------------------ files


@pytest.mark.parametrize(
    ("format", "subtype", "near"),
    [
        ("WAV", "PCM_U8", 0.01),
        ("WAV", "PCM_24", 1e-4),
        ("WAV", "FLOAT", 1e-6),
        ("FLAC", "PCM_16", 1e-4),
        ("AIFF", "PCM_16", 1e-4),
        ("AU", "PCM_16", 1e-4),
        ("OGG", "VORBIS", 0.1),
        ("MP3", "MPEG_LAYER_III", 0.2),
    ],
)
def test_what_a_file_holds_is_told_by_its_content(format, subtype, near, tmp_path):
    """Whatever it is called: endings are wrong in sets that people use."""
    x = tone(440, 0.5)
    path = tmp_path / "sound.wav"
    path.write_bytes(encoded(x, format=format, subtype=subtype))
    for raw in (path, path.read_bytes()):
        found = wave(raw, None)
        assert found.dtype == np.float32
        assert abs(len(found) - len(x)) < 0.1 * len(x)
        if len(found) == len(x):
            assert np.abs(found - x).max() < near


def test_channels_are_added_up_and_rates_brought_to_one():
    left, right = tone(440), tone(880)
    both = wave(encoded(np.stack([left, right], 1)), RATE)
    np.testing.assert_allclose(both, (left + right) / 2, atol=1e-4)
    for rate in (4000, 11025, 44100):
        other = wave(encoded(tone(440, rate=rate), rate), RATE)
        assert abs(len(other) - 0.3 * RATE) <= 1
        peak = np.abs(np.fft.rfft(other * np.hanning(len(other)))).argmax() * RATE / len(other)
        assert abs(peak - 440) < 5
    assert wave(tone(440)[None].repeat(2, 0), RATE).shape == (2400,)
    whole = (tone(440) * 32767).astype(np.int16)
    np.testing.assert_allclose(wave(whole, RATE), tone(440), atol=1e-4)


X = tone(440)
SPOILED = np.concatenate([X[:100], [np.nan], X[:100]]).astype(np.float32)


def rated(data: bytes, rate: int) -> bytes:
    """A WAV file whose header says another rate."""
    return data[:24] + struct.pack("<I", rate) + data[28:]


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"", "is empty"),
        (b"these are words and no sound\n" * 30, "cannot be read as a sound: Format not recog"),
        (encoded(X)[:300], "ends early: 300 of 4,844 bytes"),
        (encoded(X, format="AIFF")[:300], "ends early: 300 of"),
        (encoded(X, format="AU")[:300], "ends early: 300 of"),
        (encoded(X, format="FLAC")[:1500], "is damaged inside: flac decoder lost sync"),
        (encoded(X, format="OGG", subtype="VORBIS")[:2000], "malformed"),
        (encoded(X, format="MP3", subtype="MPEG_LAYER_III")[:200], "cannot be read as a sound"),
        (encoded(SPOILED, subtype="FLOAT"), "1 of 201 values that are not finite"),
        (encoded(SPOILED * np.inf, subtype="FLOAT"), "201 of 201 values that are not finite"),
        (encoded(X[:0]), "holds no sound"),
        (encoded(X[:1]), "holds 1 value, at 8,000 a second: nothing can be heard"),
        (rated(encoded(X), 1), "says that it has 1 values a second"),
        (rated(encoded(X), 3_000_000), "says that it has 3,000,000 values a second"),
        (rated(encoded(X), 0), "cannot be read as a sound|values a second"),
        (encoded(X)[:22] + b"\0\0" + encoded(X)[24:], "cannot be read as a sound"),
        (b"RIFF\0\0\0\0WAVE", "cannot be read as a sound"),
        (np.zeros((2, 3, 4)), "no sound: .n. or .channels, n."),
        (np.full(500, np.nan, np.float32), "500 of 500"),
        (np.zeros(3, np.float32), "holds 3 values"),
        ("a path", "is a str, no sound"),
    ],
)
def test_what_is_no_sound_is_refused_with_the_reason(raw, words):
    with pytest.raises(BadSample, match=words):
        wave(raw, RATE)
    for name in ("sound", "wave"):
        with pytest.raises(BadSample, match=words):
            kinds.made({"kind": name, "rate": RATE}).decode(raw, "x.wav")


def test_silence_is_read_and_told(sounds):
    for name in ("sound", "wave"):
        kind = kinds.made({"kind": name, "rate": RATE})
        empty = kind.facts(kind.decode(encoded(np.zeros(4000, np.float32)), "x"))
        assert empty.empty
        assert not kind.facts(kind.decode(encoded(X), "x")).empty


def test_a_folder_may_hold_several_formats_and_rates(tmp_path, sounds):
    for i, (form, rate) in enumerate([("WAV", 8000), ("FLAC", 16000), ("OGG", 44100)]):
        subtype = "VORBIS" if form == "OGG" else "PCM_16"
        x = tone(440, 0.4, rate)
        (tmp_path / f"{i}.{form.lower()}").write_bytes(encoded(x, rate, form, subtype))
    (tmp_path / "notes.txt").write_text("words")
    (tmp_path / "text.wav").write_text("words")
    kind = kinds.find("sound")()
    samples = open_data(tmp_path, kind=kind)
    assert len(samples) == 4
    kind, given = kind.fill({}, samples)
    assert (kind.rate, given["channels"]) == (16000, 1)
    shapes = []
    for i in range(3):
        sample = samples.seen_as(kind, 1).read(i)
        shapes.append(sample.shape)
        assert abs(int(sample[:, 10:30, 0].mean(1).argmax()) - 51) <= 1  # 440 Hz, in all of them
    assert len(set(shapes)) == 1
    with pytest.raises(BadSample, match="Format not recog"):
        samples.read(3)
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "a.jpg").write_bytes(b"")
    with pytest.raises(UserError, match=r"holds no sounds; left out: 1 \.jpg"):
        open_data(tmp_path / "none", kind=kind)


def test_containers_are_read_by_pyav(tmp_path):
    av = pytest.importorskip("av")
    x = tone(440, 1.0, 44100)
    for suffix, codec in (("m4a", "aac"), ("webm", "libopus"), ("wma", "wmav2"), ("aac", "aac")):
        path = tmp_path / f"x.{suffix}"
        form = {"wma": "asf", "aac": "adts", "m4a": "ipod"}.get(suffix, suffix)
        rate = 48000 if codec == "libopus" else 44100
        with av.open(str(path), "w", format=form) as out:
            stream = out.add_stream(codec, rate=rate, layout="mono")
            stream.bit_rate = 64000
            resample = av.AudioResampler(
                "s16" if codec == "libopus" else "fltp", "mono", rate, 1024
            )
            frame = av.AudioFrame.from_ndarray(x[None], "fltp", "mono")
            frame.rate = 44100
            for part in (*resample.resample(frame), *resample.resample(None)):
                for packet in stream.encode(part):
                    out.mux(packet)
            for packet in stream.encode(None):
                out.mux(packet)
        found = wave(path.read_bytes(), RATE)
        assert abs(len(found) - RATE) < 0.08 * RATE, suffix
        peak = np.abs(np.fft.rfft(found * np.hanning(len(found)))).argmax() * RATE / len(found)
        assert abs(peak - 440) < 5, suffix
        late = wave(path, RATE, [files.Span(0.5, 0.25)])
        assert abs(len(late) - RATE / 4) < 0.08 * RATE
    with pytest.raises(BadSample, match=r"cannot be read as a sound|without a sound"):
        wave((tmp_path / "x.webm").read_bytes()[:200], RATE)


def test_a_table_of_sounds_is_told_by_its_column(tmp_path):
    known = ("image", "series", "sound")
    for column in ("audio", "image", "bytes"):
        path = tmp_path / f"{column}.parquet"
        rows = {"label": ["a", "b"], column: [encoded(X), encoded(tone(900), format="FLAC")]}
        pq.write_table(pa.table(rows), path)
        assert kinds.guess(path, known) == ("sound" if column == "audio" else "image")
    samples = open_data(tmp_path / "audio.parquet", kind=kinds.made({"kind": "sound"}))
    assert samples.classes == ["a", "b"]
    assert samples.read(1).shape == (64, 30, 1)
    assert kinds.guess(tmp_path / "absent.parquet", known) == "image"


# -------------------------------------------------------------------------------- long recordings


@pytest.fixture(scope="module")
def long(tmp_path_factory) -> Path:
    """Ten hours of silence with one tone in each hour, its pitch the hour's."""
    path = tmp_path_factory.mktemp("long") / "long.wav"
    rate, hours = 1000, 10
    with soundfile.SoundFile(path, "w", rate, 1, "PCM_16") as out:
        for hour in range(hours):
            x = np.zeros(3600 * rate, np.float32)
            x[1800 * rate : 1810 * rate] = tone(40 * (hour + 1), 10, rate)
            out.write(x)
    return path


def test_of_ten_hours_a_minute_is_read(long):
    code = (
        "import resource, sys\n"
        "from selftaught import kinds\n"
        "from selftaught.data import open_data\n"
        "def now(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "kind = kinds.made({'kind': 'sound', 'rate': 16000})\n"
        "samples = open_data([sys.argv[1]] * 2, kind=kind)\n"
        "before = now()\n"
        "print(samples.read(1).shape, now() - before)"
    )
    run = subprocess.run([sys.executable, "-c", code, str(long)], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    found = re.fullmatch(r"\((\d+), (\d+), 1\) (\d+)\n", run.stdout)
    assert found
    assert 5990 <= int(found[2]) <= 6001
    assert int(found[3]) < 400_000  # KiB; at 16 kHz all of it would be 2.3 GB
    spans = spread(36000)
    assert sum(s.seconds for s in spans) == 60
    assert spans[0].start == 0
    assert spans[-1].start + spans[-1].seconds == 36000
    assert spread(60) == [files.Span(0, 60)]


def test_long_recordings_are_cut_into_windows_that_are_read_alone(long):
    whole = kinds.made({"kind": "sound", "rate": 1000})
    with pytest.raises(UserError, match=r"one recording of 36,000 seconds.*--window 10"):
        whole.fill({}, open_data(long, kind=whole))
    kind = kinds.made({"kind": "sound", "rate": 1000, "window": 10, "bands": 32})
    samples = open_data(long, kind=kind)
    assert len(samples) == 3600
    assert samples.name(540) == "long.wav@5400"
    for hour in (1, 7):
        i = (3600 * hour + 1800) // 10
        sound = wave(samples.source.load(i), 1000)
        assert len(sound) == 10_000
        peak = np.abs(np.fft.rfft(sound)).argmax() / 10
        assert abs(peak - 40 * (hour + 1)) < 1
        assert kind.facts(samples.read(i - 1)).empty
    filled, given = kind.fill({}, samples)
    assert given == {"size": (32, 992), "channels": 1}
    assert filled.seconds == 9.92
    assert samples.fingerprint != open_data(long, kind=kinds.made({"kind": "sound"})).fingerprint


def test_windows_keep_labels_and_what_is_short(tmp_path):
    for name, seconds in (("a", 1.0), ("b", 0.2), ("c", 0.69), ("d", 0.7)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.wav").write_bytes(encoded(tone(440, seconds)))
    (tmp_path / "d" / "y.wav").write_bytes(b"no sound")
    kind = kinds.made({"kind": "wave", "rate": RATE, "window": 0.4})
    samples = open_data(tmp_path, kind=kind)
    names = [samples.name(i) for i in range(len(samples))]
    assert names == [
        *("a/x.wav@0", "a/x.wav@0.4", "b/x.wav@0", "c/x.wav@0", "c/x.wav@0.4"),
        *("d/x.wav@0", "d/x.wav@0.4", "d/y.wav@0"),
    ]
    assert samples.labels is not None
    assert samples.labels.tolist() == [0, 0, 1, 2, 2, 3, 3, 3]
    lengths = [samples.read(i).shape[1] for i in range(7)]
    assert lengths == [3200, 3200, 1600, 3200, 2320, 3200, 2400]
    with pytest.raises(BadSample, match="Format not recog"):
        samples.read(7)


def test_what_is_missing_is_named_in_a_sentence(monkeypatch, sounds):
    monkeypatch.setitem(sys.modules, "soxr", None)
    with pytest.raises(UserError, match=re.escape("pip install 'selftaught[sound]'")):
        open_data(sounds, kind=kinds.find("sound")())


# ---------------------------------------------------------------------------------- spectrograms


def test_a_spectrogram_has_low_pitches_at_the_bottom_and_decibels():
    rows = [
        int(spectrogram(tone(f), RATE, 64, 0.01, 80)[:, 5:25, 0].mean(1).argmax())
        for f in (200, 500, 1000, 2000)
    ]
    assert rows == sorted(rows, reverse=True)
    loud = np.concatenate([tone(500, 1.0), 0.01 * tone(500, 1.0)])
    levels = spectrogram(loud, RATE, 64, 0.01, 80)[:, :, 0].astype(int)
    assert levels.max() == 255
    row = levels[:, 50].argmax()
    assert abs(levels[row, 50] - levels[row, 150] - 40 / 80 * 255) <= 3  # a hundredth is 40 dB
    assert levels.shape == (64, 200)
    assert spectrogram(X, RATE, 128, 0.002, 80).shape == (128, 150, 1)
    twice = spectrogram(0.2 * X, RATE, 64, 0.01, 80).astype(int)
    assert np.abs(twice - spectrogram(X, RATE, 64, 0.01, 80)).max() <= 1


def test_a_mel_band_that_no_frequency_lies_in_has_the_nearest():
    levels = spectrogram(tone(100, 0.5), 16000, 256, 0.01, 80)
    assert levels.shape[0] == 256
    assert levels[-20:].mean() > 60  # the lowest bands, of 11 Hz each


def test_shorter_sounds_are_repeated_and_of_longer_ones_a_part_is_taken():
    sample = np.arange(12, dtype=np.uint8).reshape(2, 6, 1)
    assert stretch(sample, 8)[0, :, 0].tolist() == [0, 1, 2, 3, 4, 5, 0, 1]
    assert stretch(sample, 3)[0, :, 0].tolist() == [3, 4, 5]
    assert stretch(sample, 3, 0.0)[1, :, 0].tolist() == [6, 7, 8]
    assert {int(stretch(sample, 3, p)[0, 0, 0]) for p in np.linspace(0, 0.999, 50)} == {0, 1, 2, 3}
    x = np.zeros((1, 100), np.float32)
    x[0, 70:75] = 1
    assert Stretch(10, loudest=True)(x)[0].sum() == 5
    assert Stretch(250, loudest=True)(x).shape == (1, 250)
    parts = [Stretch(10)(np.arange(40.0)[None], sample_rng(0, 0, i)) for i in range(300)]
    assert {int(p[0, 0]) for p in parts} == set(range(31))


def test_views_of_images_mean_crops_and_loudness_here():
    asked = kinds.made({"kind": "sound", "rate": RATE, "seconds": 0.32})
    kind, _ = asked.fill({"size": 32}, open_data([X, X], kind=asked))
    view = View(32, (0.08, 1.0), jitter=(0.4, 0.4, 0.4, 0.1), gray=0.2, solarize=0.2, vertical=0.5)
    made = kind.views(Views((view, view)))
    assert isinstance(made, SoundViews)
    for each in made.views.views:
        assert (each.flip, each.vertical, each.gray, each.solarize, each.turns) == (0, 0, 0, 0, 0)
        assert each.jitter == (0.2, 0.2, 0.0, 0.0)
        assert each.scale == (0.5, 1.0)
    assert heard(View(32, (0.05, 0.2))).scale == (0.1, 0.2)  # small crops stay small
    sample = kind.decode(X, "x")
    first, second = made(sample, sample_rng(0, 0, 0))
    assert first.shape == second.shape == (1, 32, 32)
    assert not np.array_equal(first, second)
    rising = np.tile(np.arange(100, dtype=np.uint8)[None, :, None], (32, 1, 1))
    for i in range(20):  # time goes on, whatever is drawn
        for one in made(rising, sample_rng(0, 0, i)):
            assert one[0, 16, -1] > one[0, 16, 0]


def test_floors_are_of_bands_and_cepstra():
    loud = torch.zeros(2, 1, 16, 30, dtype=torch.uint8)
    loud[0, 0, 3] = 255
    loud[1, 0, 3, ::2] = 255
    mean = bands(loud)
    assert mean[:, 3].tolist() == [1.0, 0.5]
    assert mean.sum() == 1.5
    assert bands_twice(loud).shape == (2, 32)
    torch.testing.assert_close(bands_twice(loud)[1, 19], torch.tensor(0.5085), atol=1e-3, rtol=0)
    found = cepstra(torch.cat([loud, loud.new_full((1, 1, 16, 30), 51)]))
    assert found.shape == (3, 48)
    assert found[0, 16:].abs().max() == 0  # nothing changes
    assert found[1, 16:].abs().min() > 0.001
    torch.testing.assert_close(found[2, 0], torch.tensor(0.2 * 16 * (2 / 16) ** 0.5))
    torch.testing.assert_close(found[2, 1:16], torch.zeros(15), atol=1e-6, rtol=0)


def test_floors_of_waves_are_those_of_their_spectrograms():
    sound, wave_ = (kinds.made({"kind": k, "rate": RATE}) for k in ("sound", "wave"))
    x = wave_.decode(X, "x")
    made = torch.from_numpy(sound.decode(X, "x")).permute(2, 0, 1)[None]
    for name, floor in wave_.floors().items():
        ours = floor(torch.from_numpy(x)[None])
        torch.testing.assert_close(ours, sound.floors()[name](made), atol=0.02, rtol=0)


# ------------------------------------------------------------------------------------------- CPC


def test_a_vector_of_waves_knows_its_own_time_and_what_was():
    torch.manual_seed(0)
    net = Waves(size=3200, width=12, context=6).eval()
    x = torch.randn(1, 1, 3200, requires_grad=True)
    z = net.steps(x)
    assert z.shape == (1, 20, 12)
    (seen,) = torch.autograd.grad(z[0, 10].sum(), x, retain_graph=True)
    where = seen[0, 0].nonzero()
    assert where.min() >= 1600 - 320
    assert where.max() < 1600 + 480
    (seen,) = torch.autograd.grad(net.known(z)[0, 10].sum(), x)
    assert seen[0, 0, 2200:].abs().max() == 0
    assert seen[0, 0, :200].abs().max() > 0
    assert net(x).shape == (1, 6)
    local = net.features(x).local
    assert local.shape == (1, 20, 6)
    assert sum(p.numel() for p in Waves(norm="none").parameters()) == sum(
        [512 * 10 + 512, 512 * 512 * 8 + 512, 3 * (512 * 512 * 4 + 512), 3 * 256 * (512 + 256 + 2)]
    )


@pytest.mark.parametrize("negatives", [0, 7])
def test_what_follows_is_found_by_who_knows_it(negatives):
    torch.manual_seed(0)
    method = CPCAudio(Waves(size=4800, width=32, context=32), 1, negatives)
    guess = method.reference_losses(4)[0].value
    assert guess == pytest.approx(np.log(negatives + 1 if negatives else 4 * 29))
    with torch.no_grad():
        method.predictors[0].weight.copy_(torch.eye(32))
    z = torch.nn.functional.normalize(torch.randn(4, 30, 32), dim=2) * 60
    told = torch.zeros_like(z)
    told[:, :-1] = z[:, 1:]
    # a negative may lie where the prediction does, as in CPC_audio
    assert method.predict(z, told) < (0.5 if negatives else 1e-3)
    assert method.predict(z, told.roll(1, 0)) > 5
    assert method.predict(z, torch.zeros_like(z)).item() == pytest.approx(guess, abs=1e-5)


def test_negatives_lie_at_any_other_time():
    method = CPCAudio(Waves(size=4800, width=8, context=8), 3, 50)
    rows = method.draw(2, 27, 30)
    assert rows.shape == (54, 50)
    assert set(rows.flatten().tolist()) == set(range(60))
    own = torch.arange(27).repeat(2)[:, None]
    assert not ((rows % 30) == own).any()


def test_what_cannot_work_is_said_in_words():
    with pytest.raises(UserError, match="1600 values make 10 vectors, of which 12"):
        CPCAudio(Waves(size=1600, width=8, context=8)).views(1600)
    with pytest.raises(UserError, match="channels=2: a wave has one"):
        Waves(channels=2)
    with pytest.raises(UserError, match=r"takes waves \[B, 1, n\], got \[2, 3, 8, 8\]"):
        Waves(width=8)(torch.zeros(2, 3, 8, 8))
    kind = kinds.find("sound")()
    with pytest.raises(UserError, match="channels=3: a spectrogram has one"):
        kind.fill({"channels": 3}, open_data([X, X], kind=kind))


# ------------------------------------------------------------------------------------------ runs

QUICK = {"evaluate": False, "workers": 0, "precision": "fp32", "batch": 8, "max_steps": 4}
TINY = {
    "simclr": {"backbone": "test_resnet", "size": 32, "hidden": 16, "dim": 8},
    "mae": {"backbone": "test_vit", "size": 32, "dim": 16, "depth": 1, "heads": 1},
    "dino": {"backbone": "test_vit", "size": 32, "prototypes": 8, "hidden": 16, "bottleneck": 8},
    "cpc_audio": {"width": 8, "context": 8, "steps": 2, "size": 1600},
}


def words(options: dict[str, object]) -> list[str]:
    return [w for k, v in options.items() for w in (f"--{k.replace('_', '-')}", str(v))]


BACKBONE = ("backbone", "size", "width", "context")


def weights(run: Path) -> bytes:
    return (run / "encoder.safetensors").read_bytes()


def losses(run: Path) -> str:
    lines = [line.split(",") for line in (run / "metrics.csv").read_text().splitlines()]
    at = lines[0].index("loss")
    return "\n".join(f"{line[0]} {line[at]}" for line in lines)


@pytest.fixture(scope="module")
def trained(sounds, tmp_path_factory) -> dict[str, Path]:
    """A run of each method, by its name."""
    root = tmp_path_factory.mktemp("runs")
    for name, options in TINY.items():
        selftaught.pretrain(name, sounds, out=root / name, **QUICK, **options)
    return {name: root / name for name in TINY}


def test_methods_of_images_and_of_waves_learn_from_a_folder_of_sounds(trained, sounds):
    for name, run in trained.items():
        encoder = selftaught.load(run)
        kind = kinds.of(encoder)
        assert kind.word == ("wave" if name == "cpc_audio" else "sound")
        assert kind.rate == RATE
        samples = open_data(sounds, kind=kind, channels=1)
        view = torch.from_numpy(kind.plain(encoder.size)(samples.read(0)))[None]
        with torch.no_grad():
            assert torch.isfinite(encoder(kind.prepare(view, encoder))).all()
        found = selftaught.embed(run, sounds)
        assert len(found.features) == 24


def test_a_page_plays_a_few_and_stays_small(trained):
    for name in ("simclr", "cpc_audio"):
        text = (trained[name] / "report.html").read_text()
        found = re.findall(r'<audio controls title="\w+/\d+.wav" src="data:audio/wav;base64,', text)
        assert len(found) == 8
        assert "media-src data:" in text
        assert len(text) < 2_000_000


@pytest.mark.parametrize("name", ["simclr", "cpc_audio"])
def test_workers_change_nothing_and_a_killed_run_goes_on(name, trained, sounds, tmp_path):
    options = {**QUICK, **TINY[name]}
    other = tmp_path / "other"
    selftaught.pretrain(name, sounds, out=other, **{**options, "workers": 2})
    assert losses(other) == losses(trained[name])
    assert weights(other) == weights(trained[name])

    asked = kinds.find("wave" if name == "cpc_audio" else "sound")()
    samples = open_data(sounds, kind=asked)
    kind, given = asked.fill({k: v for k, v in TINY[name].items() if k in BACKBONE}, samples)
    given |= {"name": given.pop("backbone")} if "backbone" in given else {}
    own = {k: v for k, v in TINY[name].items() if k not in BACKBONE}
    samples = samples.seen_as(kind, 1)

    def train(out, method, resume):
        how = {**QUICK, "save_every": 0, "log_every": 1}
        selftaught.pretrain(method, sounds, out, resume=resume, **how)
        return out

    fresh = partial(assemble, name, given, own, samples, 0)
    whole = train(tmp_path / "whole", fresh(), False)
    killed = often_killed(tmp_path / "killed", fresh, train, 2)
    assert losses(killed) == losses(whole)
    assert weights(killed) == weights(whole)


def test_spectrograms_can_be_kept_in_memory_and_waves_not(trained, sounds, tmp_path):
    kept = tmp_path / "kept"
    selftaught.pretrain("simclr", sounds, out=kept, **QUICK, **TINY["simclr"], cache=True)
    assert losses(kept) == losses(trained["simclr"])
    assert weights(kept) == weights(trained["simclr"])
    with pytest.raises(UserError, match=r"these are sounds, which have none: leave it away"):
        cached(open_data(sounds, kind=kinds.find("wave")()))


def half(rank: int, length: int) -> list[torch.Tensor]:
    """The loss of one process's half, and its gradients as DDP has them."""
    torch.manual_seed(0)
    method = CPCAudio(Waves(size=160 * length, width=5, context=4), 2).double()
    rng = torch.Generator().manual_seed(3)
    z, known = (torch.randn(6, length, d, generator=rng, dtype=torch.float64) for d in (5, 4))
    z, known = (x.chunk(dist.world())[rank].clone().requires_grad_() for x in (z, known))
    loss = method.predict(z, known)
    loss.backward()
    return [dist.mean(loss.detach()), *(x.grad / dist.world() for x in (z, known))]


@pytest.mark.xdist_group("pool")
def test_two_processes_have_one_s_loss_and_gradient(pool: Pool):
    alone = half(0, 9)
    both = pool.run(half, 9)
    torch.testing.assert_close(both[0][0], alone[0])
    for i in (1, 2):
        torch.testing.assert_close(torch.cat([part[i] for part in both]), alone[i])
