"""The pictures of docs/report.md and docs/terminal.md, from what `make demo` leaves: docs/report.png and others. With
--tutorial those of docs/tutorial.md, from the folder where its commands were run: report, and outlines of an image.

    python benchmarks/screenshots.py ubend-demo
    python benchmarks/screenshots.py --tutorial FOLDER

The report is photographed by headless Chromium, and so is a training of a minute on a terminal that tmux emulates
(Debian: apt-get install chromium tmux). All pictures have 256 colours and at most 200 kB.
"""

import argparse
import io
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image
from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

from ubend.faces.preview import prepare_preview, save_preview
from ubend.faces.report import write_report

DOCS = Path(__file__).resolve().parents[1] / "docs"
WINDOW = (1180, 790)
COLUMNS, ROWS = 104, 40
HALFWAY = re.compile(r"Training .* [67]\d%")
MOST_BYTES = 200_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="of `ubend demo`, or of the tutorial")
    parser.add_argument("--tutorial", action="store_true")
    asked = parser.parse_args()
    (tutorial if asked.tutorial else demo)(asked.folder)


def tutorial(folder: Path) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        shot = Path(scratch) / "shot.png"
        photograph(folder / "run" / "report.html", shot, Path(scratch) / "profile")
        make_small(shot, DOCS / "tutorial_report.png")
        make_small(folder / "results" / "nuclei_0_outlines.png", DOCS / "tutorial_outlines.png")


def demo(folder: Path) -> None:
    report = write_report(folder / "model", folder / "train", overwrite=True)
    with tempfile.TemporaryDirectory() as scratch:
        shot, preview = Path(scratch) / "shot.png", Path(scratch) / "preview.png"
        photograph(report, shot, Path(scratch) / "profile")
        save_preview(preview, prepare_preview(folder / "train"), 0)
        terminal = photograph_terminal(folder / "train", Path(scratch))
        for picture, name in ((shot, "report.png"), (preview, "preview.png"), (terminal, "terminal.png")):
            make_small(picture, DOCS / name)


def photograph_terminal(data: Path, folder: Path) -> Path:
    """Train for a minute on a terminal; show what it holds on the way, and below what has come since."""
    said = "ubend train DATA --out RUN --minutes 1"
    (folder / "DATA").symlink_to(data.resolve())
    run = shlex.join([sys.executable, "-m", *said.split()])
    session = ["tmux", "-L", f"ubend-{folder.name}"]
    begin = f"cd {shlex.quote(str(folder))}; {run}; touch done; sleep 60"
    environ = ["-e", "TERM=xterm-256color", "-e", "COLORTERM=truecolor"]
    subprocess.run([*session, "new-session", "-d", "-x", str(COLUMNS), "-y", str(ROWS), *environ, begin], check=True)
    shown, halfway = "", ""
    while not (folder / "done").exists():
        time.sleep(0.5)
        shown = subprocess.run(
            [*session, "capture-pane", "-p", "-e"], check=True, capture_output=True, text=True
        ).stdout
        if not halfway and HALFWAY.search(re.sub(r"\x1b\[[\d;]*m", "", shown)):
            halfway = shown.rstrip()
    shown = subprocess.run([*session, "capture-pane", "-p", "-e"], check=True, capture_output=True, text=True).stdout
    subprocess.run([*session, "kill-server"], check=True)
    before = halfway.splitlines()
    since = shown.rstrip().splitlines()[len(before) - 1 :]  # the bar has gone, and made room for one line
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), highlight=False)
    console.print(Text.from_ansi("\n".join([f"\x1b[1m$ {said}\x1b[0m", *before, *since])), soft_wrap=True)
    page, picture = folder / "terminal.svg", folder / "terminal.png"
    page.write_text(console.export_svg(title="ubend", theme=MONOKAI), encoding="utf-8")
    [size] = re.findall(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', page.read_text(encoding="utf-8"))
    width, height = (round(float(side)) for side in size)
    photograph(page, picture, folder / "profile", window=(width, height))
    return picture


def photograph(page: Path, picture: Path, profile: Path, window: tuple[int, int] = WINDOW) -> None:
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        raise SystemExit("there is no chromium here: apt-get install chromium")
    subprocess.run(
        [
            chromium, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars",
            f"--user-data-dir={profile}", f"--window-size={window[0]},{window[1]}", f"--screenshot={picture}",
            page.resolve().as_uri(),
        ],
        check=True, capture_output=True, timeout=120,
    )  # fmt: skip


def palette_of(image: Image.Image) -> Image.Image:
    """Take 96 grays, and 160 of the other colours: by frequency alone, a gray image would become coloured."""
    pixels = np.asarray(image).reshape(-1, 3)
    colourful = pixels[np.ptp(pixels.astype(int), axis=1) > 12]
    grays = np.repeat(np.linspace(0, 255, 96).round().astype(np.uint8)[:, None], 3, axis=1)
    others = Image.fromarray(colourful[None]).quantize(160, method=Image.Quantize.MEDIANCUT).getpalette() or []
    palette = Image.new("P", (1, 1))
    palette.putpalette([*grays.ravel().tolist(), *others[: 3 * 160]])
    return palette


def make_small(picture: Path, out: Path) -> None:
    """Take 256 colours, and fewer pixels until the file is small enough."""
    with Image.open(picture) as read:
        image = read.convert("RGB")
    for width in range(960, 400, -20):
        small = image.resize((width, round(image.height * width / image.width)), Image.Resampling.LANCZOS)
        small.quantize(palette=palette_of(small), dither=Image.Dither.NONE).save(out, optimize=True)
        if out.stat().st_size <= MOST_BYTES:
            break
    print(f"{out}: {small.width}×{small.height}, {out.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
