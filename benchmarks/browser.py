"""Open reports in a real browser, without a window: do they work, do they look right?

python benchmarks/browser.py                      # trains tiny runs first, of all kinds
python benchmarks/browser.py runs/demo --shots shots/

Each page is opened from disk, light and dark, on a desktop and on a phone. It must load nothing,
complain of nothing, be no wider than the screen, and show every figure. Needs Chromium or Chrome;
what talks to it is the standard library alone.
"""

import argparse
import base64
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import wave
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from cuts import film

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
SCREENS = {"desktop": (1280, 900, False), "phone": (390, 844, True)}

FIGURES = """(() => {
  const wrong = [], seen = {img: 0, svg: 0, canvas: 0};
  const at = (e) => `${e.tagName} ${e.alt || e.className.baseVal || ""} in ` +
    (e.closest("section")?.id || "the top");
  for (const e of document.querySelectorAll("img, svg, canvas")) {
    if (e.closest(".tip")) continue;
    seen[e.tagName.toLowerCase()]++;
    if (e.tagName === "IMG" && !(e.complete && e.naturalWidth)) wrong.push("not decoded: " + at(e));
    if (e.classList.contains("sprite")) continue;
    const box = e.getBoundingClientRect();
    if (box.width < 8 || box.height < 8) wrong.push("without size: " + at(e));
    if (e.tagName === "CANVAS") {
      const data = e.getContext("2d").getImageData(0, 0, e.width, e.height).data;
      let painted = 0;
      for (let i = 3; i < data.length; i += 4) painted += data[i] > 0;
      if (painted < 0.002 * e.width * e.height) wrong.push("blank: " + at(e));
    }
  }
  for (const e of document.querySelectorAll("audio")) {
    if (e.error) wrong.push("not to be heard: " + e.title);
  }
  for (const s of document.querySelectorAll("section")) {
    const rest = [...s.children].filter((c) => c.tagName !== "H2" && !c.classList.contains("note"));
    if (!rest.some((c) => c.getBoundingClientRect().height > 4)) wrong.push("empty: " + s.id);
  }
  const width = document.documentElement.scrollWidth;
  if (width > innerWidth) wrong.push(`${width} px wide on a screen of ${innerWidth}`);
  for (const link of document.querySelectorAll("nav a")) {
    if (!document.querySelector(link.getAttribute("href"))) wrong.push("no " + link.hash);
  }
  return {wrong, seen, background: getComputedStyle(document.body).backgroundColor,
    height: document.documentElement.scrollHeight};
})()"""

MAP = """(() => {
  const canvas = document.querySelector(".map .canvas > canvas");
  if (!canvas) return null;
  canvas.scrollIntoView({block: "center"});
  const points = JSON.parse(document.querySelector(".map script").textContent);
  const box = canvas.getBoundingClientRect(), margin = 14;
  return {x: box.left + margin + points.x[0] * (box.width - 2 * margin),
    y: box.bottom - margin - points.y[0] * (box.height - 2 * margin), print: canvas.toDataURL()};
})()"""

TIP = """(() => {
  const tip = document.querySelector(".tip"), picture = tip.querySelector("canvas");
  const data = picture.getContext("2d").getImageData(0, 0, picture.width, picture.height).data;
  return {hidden: tip.hidden, words: tip.querySelector("span").textContent,
    colors: new Set(data).size};
})()"""

OTHER = """(() => {
  const other = document.querySelector('.map [data-show][aria-pressed="false"]');
  other.click();
  return document.querySelector(".map .canvas > canvas").toDataURL();
})()"""


class Browser:
    """Chromium, spoken to by its DevTools protocol over two pipes."""

    def __init__(self, program: str):
        self.folder = tempfile.TemporaryDirectory()
        theirs_in, ours_out = os.pipe()
        ours_in, theirs_out = os.pipe()
        options = [
            "--headless=new",
            "--remote-debugging-pipe",
            "--no-sandbox",
            "--disable-gpu",
            "--no-first-run",
            "--hide-scrollbars",
            f"--user-data-dir={self.folder.name}",
        ]
        self.process = subprocess.Popen(  # the browser expects its pipes as files 3 and 4
            ["bash", "-c", f'exec "$@" 3<&{theirs_in} 4>&{theirs_out}', "bash", program, *options],
            pass_fds=(theirs_in, theirs_out),
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self.input, self.output = os.fdopen(ours_in, "rb"), os.fdopen(ours_out, "wb", 0)
        self.number = 0
        self.session: str | None = None
        self.events: list[dict[str, Any]] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self.session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command, wait for its answer; what happens meanwhile is kept in `events`."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        self.output.write(json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self.number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                return answer["result"]
            self.events.append(answer)

    def _next(self) -> dict[str, Any]:
        text = bytearray()
        while (byte := self.input.read(1)) != b"\0":
            if not byte:
                raise RuntimeError("the browser has ended")
            text += byte
        return json.loads(text)

    def run(self, script: str) -> Any:
        """The value of an expression in the page."""
        found = self.call("Runtime.evaluate", expression=script, returnByValue=True)
        if "exceptionDetails" in found:
            raise RuntimeError(str(found["exceptionDetails"]))
        return found["result"].get("value")

    def open(self, page: Path, width: int, height: int, mobile: bool, scheme: str) -> None:
        """Load a page from disk, on a screen of this size."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=mobile,
        )
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.call("Emulation.setEmulatedMedia", features=features)
        self.events.clear()
        self.call("Page.navigate", url=page.resolve().as_uri())
        end = time.monotonic() + 60
        while self.run("document.readyState") != "complete":
            if time.monotonic() > end:
                raise RuntimeError(f"{page} does not finish loading")
            time.sleep(0.05)
        time.sleep(0.3)  # what is drawn after loading

    def shoot(self, path: Path, height: int) -> None:
        """The whole page as PNG."""
        size = self.run("[innerWidth, document.documentElement.scrollHeight]")
        clip = {"x": 0, "y": 0, "width": size[0], "height": min(size[1], height), "scale": 1}
        shot = self.call("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)
        path.write_bytes(base64.b64decode(shot["data"]))

    def complaints(self) -> list[str]:
        """Errors and warnings of the page, and whatever it asked another machine for."""
        found = []
        for event in self.events:
            kind, told = event.get("method"), event.get("params", {})
            if kind == "Runtime.exceptionThrown":
                found.append(f"exception: {told['exceptionDetails']['text']}")
            elif kind == "Log.entryAdded" and told["entry"]["level"] in ("error", "warning"):
                found.append(f"{told['entry']['level']}: {told['entry']['text']}")
            elif kind == "Runtime.consoleAPICalled" and told["type"] in ("error", "warning"):
                found.append(f"console: {told['args']}")
            elif kind == "Network.requestWillBeSent":
                url = told["request"]["url"]
                if not url.startswith(("file:", "data:")):
                    found.append(f"asked for {url}")
        return found

    def close(self) -> None:
        try:
            self.session = None
            self.call("Browser.close")
        finally:
            self.process.wait(30)
            self.folder.cleanup()


@contextmanager
def browser(program: str | None) -> Iterator[Browser]:
    """A browser for a while."""
    found = program or next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found is None:
        sys.exit(f"no browser here (looked for {', '.join(BROWSERS)}); name one with --browser")
    opened = Browser(found)
    try:
        yield opened
    finally:
        opened.close()


def check(opened: Browser, page: Path, shots: Path | None, whole: bool) -> list[str]:
    """What is wrong with a page, in words; nothing if it is right; `whole`: no part is missing."""
    wrong, backgrounds = [], set()
    if whole and 'id="not-on-this-page"' in page.read_text("utf-8"):
        wrong.append("a part is not on the page")
    if page.stat().st_size > 10e6:
        wrong.append(f"{page.stat().st_size / 1e6:.1f} MB large")
    for screen, (width, height, mobile) in SCREENS.items():
        for scheme in ("light", "dark"):
            opened.open(page, width, height, mobile, scheme)
            found = opened.run(FIGURES)
            backgrounds.add(found["background"])
            problems = found["wrong"] + _map(opened)
            if shots:
                name = f"{page.parent.name}-{page.stem}-{screen}-{scheme}.png"
                opened.shoot(shots / name, 16_000)
            problems += opened.complaints()
            wrong += [f"{screen}, {scheme}: {p}" for p in problems]
            seen = ", ".join(f"{n} {kind}" for kind, n in found["seen"].items())
            print(f"  {screen}, {scheme}: {seen}, {found['height']} px high")
    if len(backgrounds) != 2:
        wrong.append(f"light and dark look alike: {backgrounds}")
    return wrong


def _map(opened: Browser) -> list[str]:
    """Point at the first image, then show the other kind of map."""
    place = opened.run(MAP)
    if place is None:
        return []
    move = {"type": "mouseMoved", "x": place["x"], "y": place["y"]}
    opened.call("Input.dispatchMouseEvent", **move)
    tip = opened.run(TIP)
    wrong = []
    if tip["hidden"] or not tip["words"] or tip["colors"] < 4:
        wrong.append(f"the map does not show what is pointed at: {tip}")
    if opened.run(OTHER) == place["print"]:
        wrong.append("the map's buttons change nothing")
    opened.run(OTHER)
    opened.call("Input.dispatchMouseEvent", **move)
    opened.run("scrollTo(0, 0)")
    return wrong


def tiny(folder: Path) -> list[Path]:
    """Pages of three short runs, which together have every section, and of their comparison."""
    photos = Path(__file__).parents[1] / "src" / "selftaught" / "demo" / "train.parquet"
    common = ["--epochs", "1", "--batch", "64", "--size", "64", "--force"]
    few = ["--prototypes", "20", "--queue", "0"]  # as a thousand photos allow
    runs = {
        "simclr": ["--backbone", "test_resnet"],
        "mae": ["--backbone", "test_vit", "--dim", "64", "--depth", "1", "--heads", "2"],
        "swav": ["--backbone", "test_resnet", "--local-crops", "2", *few],
    }
    command = [sys.executable, "-m", "selftaught"]
    for name, options in runs.items():
        words = ["pretrain", name, str(photos), "--out", str(folder / name), *common, *options]
        subprocess.run([*command, *words], check=True, stdout=subprocess.DEVNULL)
    pages = [folder / name / "report.html" for name in runs]
    out = folder / "compare.html"
    words = ["compare", *(str(folder / name) for name in runs), "--out", str(out)]
    subprocess.run([*command, *words], check=True, stdout=subprocess.DEVNULL)
    return [*pages, out]


def others(folder: Path) -> list[Path]:
    """Pages of a short run of each kind of samples that moves, sounds, is drawn or is read."""
    rng = np.random.default_rng(0)
    marks = np.arange(40) % 2
    waves = np.sin(np.arange(4000) * np.where(marks, 0.2, 0.4)[:, None]) + rng.normal(
        0, 0.1, (40, 4000)
    )
    np.savez(folder / "series.npz", x=waves[:, :96].astype(np.float32), y=marks)
    lines = (f"it was {word} in the {'sun' if mark else 'rain'}" for word, mark in
             zip(rng.choice(["warm", "cold", "quiet", "loud"], 40), marks))  # fmt: skip
    (folder / "corpus.txt").write_text("\n".join(lines))
    for n, (mark, values) in enumerate(zip(marks, waves)):
        sound, clip = (folder / k / str(mark) for k in ("sounds", "clips"))
        sound.mkdir(parents=True, exist_ok=True)
        clip.mkdir(parents=True, exist_ok=True)
        with wave.open(str(sound / f"{n}.wav"), "wb") as file:
            file.setparams((1, 2, 8000, 0, "NONE", ""))
            file.writeframes((values * 9000).astype("<i2").tobytes())
        frames = np.full((12, 32, 48, 3), 40, np.uint8)
        for t, frame in enumerate(frames):
            frame[8:20, (t if mark else 12 - t) * 2 : (t if mark else 12 - t) * 2 + 10] = 60 + 4 * n
        (clip / f"{n}.mkv").write_bytes(film(list(frames)))
    small = ["--width", "16", "--depth", "1", "--heads", "1"]
    runs = {
        "series": ["ts2vec", "series.npz"],
        "sounds": ["simclr", "sounds", "--backbone", "test_resnet"],
        "clips": ["simclr", "clips", "--frames", "4", "--size", "32", "--patch-size", "16", *small],
        "texts": ["bert", "corpus.txt", "--backbone", "bert_tiny", "--size", "16"],
    }
    for name, words in runs.items():
        out = ["--out", f"runs/{name}", "--epochs", "1", "--workers", "0", "--force"]
        command = [sys.executable, "-m", "selftaught", "pretrain", *words, *out]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=folder)
    return [folder / "runs" / name / "report.html" for name in runs]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("runs", nargs="*", type=Path, help="run folders, or pages")
    parser.add_argument("--shots", type=Path, help="folder for screenshots")
    parser.add_argument("--browser", help="program; by default the first that is found")
    given = parser.parse_args()
    if given.shots:
        given.shots.mkdir(parents=True, exist_ok=True)
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        pages = given.runs or [*(full := tiny(Path(folder))), *others(Path(folder))]
        with browser(given.browser) as opened:
            for path in pages:
                page = path / "report.html" if path.is_dir() else path
                print(f"{page} ({page.stat().st_size / 1e6:.1f} MB)")
                wrong = check(opened, page, given.shots, not given.runs and path in full)
                failed += bool(wrong)
                print("\n".join(f"  WRONG: {w}" for w in wrong) or "  all well")
    sys.exit(f"{failed} of {len(pages)} pages are wrong" if failed else 0)


if __name__ == "__main__":
    main()
