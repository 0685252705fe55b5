"""The pictures of docs/report.md, from what `make demo` leaves: docs/report.png and docs/preview.png. With --tutorial
those of docs/tutorial.md, from the folder in which its commands were run: report, and the outlines of an image.

    python benchmarks/screenshots.py ubend-demo
    python benchmarks/screenshots.py --tutorial FOLDER

The report is photographed by headless Chromium (Debian: apt-get install chromium). All pictures have 256 colours and
at most 200 kB.
"""

import argparse
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from ubend.faces.preview import prepare_preview, save_preview
from ubend.faces.report import write_report

DOCS = Path(__file__).resolve().parents[1] / "docs"
WINDOW = (1180, 790)
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
        for picture, name in ((shot, "report.png"), (preview, "preview.png")):
            make_small(picture, DOCS / name)


def photograph(page: Path, picture: Path, profile: Path) -> None:
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        raise SystemExit("there is no chromium here: apt-get install chromium")
    subprocess.run(
        [
            chromium, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars",
            f"--user-data-dir={profile}", f"--window-size={WINDOW[0]},{WINDOW[1]}", f"--screenshot={picture}",
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
