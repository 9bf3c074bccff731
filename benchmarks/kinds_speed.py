"""From a file to what a network takes: how much CPU time beside the obvious alternative?

python benchmarks/kinds_speed.py --data $DATA [--rounds 3] [--out FILE.md]

Sounds: encoded bytes to a log-mel spectrogram, and to two random views of it. Clips: encoded bytes
to 16 frames of 112 x 112, and to two random views of them. Texts: lines to token ids of 64. Both
sides do the same: the same rate, bands, window and step; the same frames of the file; the same
vocabulary. Each pair is measured in turns in one process with one thread, `--rounds` times; ratios
of CPU time are of the medians, and the least and greatest of the rounds stand beside them. What is
not installed is left out:

    pip install torchaudio librosa soundfile decord opencv-python-headless --target FOLDER
    PYTHONPATH=FOLDER python benchmarks/kinds_speed.py --data $DATA

$DATA has the folders fsdd, video_clips and text.
"""

import argparse
import gzip
import io
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import machine
import numpy as np
import pyarrow.parquet as pq
import torch

from selftaught import augment, kinds
from selftaught.augment import sample_rng

RATE, BANDS, HOP, WINDOW = 8000, 64, 80, 256
"""Values a second, mel bands, values from a column to the next, values in each."""
COLUMNS, FRAMES, STRIDE, SIDE = 64, 16, 4, 112
SOUNDS, CLIPS, LINES, LENGTH, WORDS = 100, 4, 2000, 64, 4096


class Pair(NamedTuple):
    """The same work done here and elsewhere: a sample -> anything.

    ours: None where it is that of the row before.
    """

    name: str
    other: str
    samples: list[Any]
    ours: Callable[[Any], Any]
    theirs: Callable[[Any], Any]


def sounds(data: Path) -> Iterator[Pair]:
    """FLAC files of spoken digits, through soundfile on both sides."""
    files = pq.read_table(data / "fsdd" / "test.parquet")["audio"].to_pylist()[:SOUNDS]
    kind = kinds.made(
        {"kind": "sound", "rate": RATE, "bands": BANDS, "hop": HOP / RATE, "seconds": 0.64}
    )
    pipeline = kind.views(augment.simclr((BANDS, COLUMNS)))
    rng = np.random.default_rng(0)

    def both(raw: bytes) -> Any:
        return pipeline(kind.decode(raw, ""), rng)

    if find_spec("torchaudio"):
        import soundfile
        import torchaudio.transforms as transforms

        mel = transforms.MelSpectrogram(RATE, WINDOW, hop_length=HOP, n_mels=BANDS)
        decibels = transforms.AmplitudeToDB(top_db=80)
        masks = [transforms.TimeMasking(16), transforms.FrequencyMasking(16)]

        def heard(raw: bytes) -> torch.Tensor:
            wave, _ = soundfile.read(io.BytesIO(raw), dtype="float32")
            return decibels(mel(torch.from_numpy(wave)[None]))

        def views(raw: bytes) -> list[torch.Tensor]:
            found, made = heard(raw), []
            for _ in range(2):
                part = found.repeat(1, 1, COLUMNS // found.shape[2] + 1)
                room = part.shape[2] - COLUMNS
                start = int(torch.randint(0, room + 1, ()))
                part = part[..., start : start + COLUMNS]
                for mask in masks:
                    part = mask(part)
                made.append(part)
            return made

        name = "torchaudio MelSpectrogram, AmplitudeToDB"
        yield Pair("sound: spectrogram", name, files, lambda raw: kind.decode(raw, ""), heard)
        name = "the same, a random stretch, time and frequency masks"
        yield Pair("sound: two views", name, files, both, views)
    if find_spec("librosa"):
        import librosa

        def drawn(raw: bytes) -> np.ndarray:
            wave, _ = librosa.load(io.BytesIO(raw), sr=RATE)
            found = librosa.feature.melspectrogram(
                y=wave, sr=RATE, n_fft=WINDOW, hop_length=HOP, n_mels=BANDS
            )
            return librosa.power_to_db(found, ref=np.max)

        name = "librosa melspectrogram, power_to_db"
        yield Pair("sound: spectrogram", name, files, lambda raw: kind.decode(raw, ""), drawn)


def clips(data: Path) -> Iterator[Pair]:
    """Frames in the middle of videos; the alternatives open files, which lie in memory."""
    kind = kinds.made({"kind": "clip", "frames": FRAMES, "stride": STRIDE})
    plain, rng = kind.plain(SIDE), np.random.default_rng(0)
    found = sorted(f for f in (data / "video_clips").glob("*.mp4") if "corrupt" not in f.name)
    long = [f for f in found if kind.decode(f.read_bytes(), f.name).count > FRAMES * STRIDE]
    files = long[:CLIPS]
    pipeline = kind.views(augment.moco(SIDE, blur=0.0))

    def seen(path: Path) -> Any:
        return plain(kind.decode(path.read_bytes(), ""), rng)

    def both(path: Path) -> Any:
        return pipeline(kind.decode(path.read_bytes(), ""), rng)

    def numbers(count: int) -> list[int]:
        start = (count - (FRAMES - 1) * STRIDE) // 2
        return [start + i * STRIDE for i in range(FRAMES)]

    if find_spec("cv2"):
        import cv2

        cv2.setNumThreads(1)

        def square(frame: np.ndarray) -> np.ndarray:
            scale = SIDE / min(frame.shape[:2])
            small = cv2.resize(frame, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
            top, left = ((s - SIDE) // 2 for s in small.shape[:2])
            return small[top : top + SIDE, left : left + SIDE]

        def opened(path: Path) -> np.ndarray:
            video = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
            wanted = numbers(int(video.get(cv2.CAP_PROP_FRAME_COUNT)))
            video.set(cv2.CAP_PROP_POS_FRAMES, wanted[0])
            made = []
            for at in range(wanted[0], wanted[-1] + 1):
                if not video.grab():
                    break
                if at in wanted:
                    made.append(square(cv2.cvtColor(video.retrieve()[1], cv2.COLOR_BGR2RGB)))
            return np.stack(made)

        yield Pair("clip: 16 frames", "OpenCV VideoCapture, resize", files, seen, opened)
        if find_spec("decord"):
            import decord

            def decoded(path: Path) -> np.ndarray:
                video = decord.VideoReader(str(path), num_threads=1)
                batch = video.get_batch(numbers(len(video))).asnumpy()
                return np.stack([square(frame) for frame in batch])

            yield Pair("clip: 16 frames", "decord get_batch, resize", files, seen, decoded)

            def views(path: Path) -> list[torch.Tensor]:
                from torchvision.transforms import v2

                video = decord.VideoReader(str(path), num_threads=1)
                change = v2.Compose(
                    [
                        v2.RandomResizedCrop(SIDE, (0.2, 1.0), antialias=True),
                        v2.RandomHorizontalFlip(),
                        v2.RandomApply([v2.ColorJitter(0.4, 0.4, 0.4, 0.1)], 0.8),
                        v2.RandomGrayscale(0.2),
                    ]
                )
                made = []
                for _ in range(2):
                    first = int(torch.randint(0, len(video) - (FRAMES - 1) * STRIDE, ()))
                    wanted = [first + i * STRIDE for i in range(FRAMES)]
                    frames = torch.from_numpy(video.get_batch(wanted).asnumpy())
                    made.append(change(frames.permute(0, 3, 1, 2)))
                return made

            if find_spec("torchvision"):
                name = "decord get_batch, torchvision transforms v2"
                yield Pair("clip: two views", name, files, both, views)


def texts(data: Path) -> Iterator[Pair]:
    """Lines to ids, framed and filled up, with one vocabulary."""
    with gzip.open(data / "text" / "wikitext2_valid.txt.gz", "rt", encoding="utf-8") as file:
        lines = [line.strip() for line in file if line.strip()][:LINES]
    from selftaught.data import open_data

    with tempfile.TemporaryDirectory() as folder:
        corpus = Path(folder) / "corpus.txt"
        corpus.write_text("\n".join(lines), "utf-8")
        samples = open_data(str(corpus), kind=kinds.made({"kind": "text"}))
        wanted = {"size": LENGTH, "words": WORDS}
        kind, _ = kinds.made({"kind": "text"}).fill(wanted, samples)
        kind.keep(Path(folder))
        from transformers import PreTrainedTokenizerFast

        tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(Path(folder) / "tokenizer.json"))
    tokenizer.pad_token = tokenizer.convert_ids_to_tokens(kind.cut.vocabulary.pad)
    plain = kind.plain(LENGTH)

    def ours(line: str) -> np.ndarray:
        return plain(line, sample_rng(0, 0, 0))

    def theirs(line: str) -> Any:
        return tokenizer(line, max_length=LENGTH, truncation=True, padding="max_length")

    yield Pair("text: 64 tokens", "transformers, fast tokenizer", lines, ours, theirs)


def cpu(work: Callable[[Any], Any], samples: list[Any]) -> float:
    """Seconds of CPU time a sample, of all threads of this process."""
    begun = time.process_time()
    for sample in samples:
        work(sample)
    return (time.process_time() - begun) / len(samples)


def measured(pair: Pair, rounds: int) -> list[str]:
    """Cells of a row."""
    for work in (pair.ours, pair.theirs):  # what is made at the first call
        work(pair.samples[0])
    times = [(cpu(pair.ours, pair.samples), cpu(pair.theirs, pair.samples)) for _ in range(rounds)]
    ours, theirs = (median(each) for each in zip(*times))
    ratios = [b / a for a, b in times]
    return [
        pair.name,
        f"{1000 * ours:.2f}",
        pair.other,
        f"{1000 * theirs:.2f}",
        f"{theirs / ours:.2f} ({min(ratios):.2f} to {max(ratios):.2f})",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with a folder a set")
    parser.add_argument("--rounds", type=int, default=3)
    here = Path(__file__).parent / "results" / "kinds_speed.md"
    parser.add_argument("--out", type=Path, default=here)
    given = parser.parse_args()
    torch.set_num_threads(1)
    lines = [
        "# Kinds of data: CPU time beside alternatives",
        "",
        "Made by `python benchmarks/kinds_speed.py --data $DATA`; its first lines say what is "
        "measured. Milliseconds of CPU time a sample, medians of rounds in turns; a ratio above 1 "
        "means that this library takes less, with the least and the greatest of the rounds.",
        "",
        "| work | here | beside | there | ratio |",
        "| --- | --- | --- | --- | --- |",
    ]
    for each in (sounds, clips, texts):
        for pair in each(given.data):
            lines.append(f"| {' | '.join(measured(pair, given.rounds))} |")
            print(lines[-1], flush=True)
    names = ("torchaudio", "librosa", "decord", "transformers", "soundfile", "av")
    packages = [p for p in names if find_spec(p)]
    lines += ["", f"On {machine.sentence(machine.describe(*packages))}", ""]
    given.out.write_text("\n".join(lines))


if __name__ == "__main__":
    main()
