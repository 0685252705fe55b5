"""The loop of the napari plugin, driven in a real window on dsb2018: paint, train, look, correct, train on.

    .venv-napari/bin/python benchmarks/napari_loop.py             into docs/benchmarks.md, and docs/napari.png
    .venv-napari/bin/python benchmarks/napari_loop.py --minutes 1 --try-out FOLDER

Needs a display; without one, Xvfb (Debian: apt-get install xvfb) and `xvfb-run -s "-screen 0 1600x1000x24"`. A truth
stands in for the person: of three images ten cells each are painted as it has them, and strokes through the background;
then the image that the model is least sure of is corrected. All buttons are pressed as a person presses them, and the
clock starts before napari is imported. What a person would take to paint is not counted.
"""

import argparse
import csv
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

STARTED = time.perf_counter()

import napari  # noqa: E402
import numpy as np  # noqa: E402
from numpy.typing import NDArray  # noqa: E402
from PIL import Image  # noqa: E402
from qtpy.QtTest import QTest  # noqa: E402
from qtpy.QtWidgets import QApplication  # noqa: E402
from report import machine, markdown_table, write_section  # noqa: E402

from ubend.data.formats import read_labels  # noqa: E402
from ubend.faces.napari.painting import BACKGROUND  # noqa: E402
from ubend.scores.cells import match, pooled  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT.parent / "shared" / "data" / "dsb2018"
PICTURE = ROOT / "docs" / "napari.png"
IMAGES, PAINTED, CELLS = 12, 3, 10
WINDOW = (1280, 820)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=2.0, help="of training, each time")
    parser.add_argument("--try-out", type=Path, metavar="FOLDER", help="leave pictures there, and docs/ as it is")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        pictures = asked.try_out or Path(scratch)
        pictures.mkdir(exist_ok=True)
        rows = Driver(Path(scratch), pictures).run(asked.minutes)
        table = markdown_table(["after", "seconds from the start of the program", "AP@0.5 (pooled)", "what"], rows)
        print(table)
        if asked.try_out is None:
            small = Image.open(pictures / "trained.png").convert("RGB").quantize(256)
            small.save(PICTURE, optimize=True)
            write_section("napari", f"{table}\n\n{machine()}\n\nCommand: `python benchmarks/napari_loop.py`")


class Driver:
    """A person at napari, who knows the truth."""

    def __init__(self, scratch: Path, pictures: Path) -> None:
        self.pictures, self.folder = pictures, scratch / "images"
        self.folder.mkdir()
        self.truths: dict[str, NDArray[np.integer[Any]]] = {}
        for name in chosen():
            shutil.copy(DATA / "images" / name, self.folder / name)
            self.truths[Path(name).stem] = read_labels(DATA / "masks" / name)[0].pixels
        self.viewer = napari.Viewer()
        self.viewer.window.resize(*WINDOW)
        _, self.widget = self.viewer.window.add_plugin_dock_widget("ubend", "Train and correct")

    def run(self, minutes: float) -> list[list[str]]:
        widget, rows = self.widget, []
        widget.open_folder(self.folder)
        self.shoot("opened")
        began = time.perf_counter()
        for number in range(PAINTED):
            widget.list.setCurrentRow(number)
            self.paint()
        widget.list.setCurrentRow(0)
        self.shoot("painted")
        by_hand = time.perf_counter() - began
        widget.minutes.setValue(minutes)
        widget.train.click()
        self.wait(lambda: widget._progress is not None and widget._progress.share > 0.5, 60 * minutes + 60)
        self.shoot("training")
        self.wait(lambda: self.widget.current.result_of is not None, 60 * minutes + 60)
        seconds = time.perf_counter() - STARTED - by_hand
        self.shoot("trained")
        steps = widget.session.model.contract.provenance["steps"]
        what = f"{PAINTED} images with {CELLS} cells each; {steps} steps in {minutes:g} min"
        rows.append(["the first training", f"{seconds:.0f}", self.score(), what])
        self.wait(lambda: all(i.is_annotated or i.unsure is not None for i in widget.session.images), 300)
        widget.next.click()
        self.wait(lambda: widget.current.result_of is widget.session.model, 120)
        self.shoot("next")
        wrong = self.correct()
        self.shoot("corrected")
        before = widget.session.model
        widget.train.click()
        self.wait(lambda: widget.session.model is not before and widget.current.result_of is widget.session.model, 300)
        self.shoot("trained on")
        what = f"and the image it was least sure of, {wrong} cells mended; trained on from the model"
        rows.append(["the second", f"{time.perf_counter() - STARTED - by_hand:.0f}", self.score(), what])
        widget.save_to(self.folder.parent / "saved")
        self.shoot("saved")
        self.viewer.close()
        return rows

    def paint(self) -> None:
        """Paint some cells and three strokes of background."""
        widget, layer = self.widget, self.viewer.layers["painted"]
        truth = self.truths[widget.current.name]
        for number in np.unique(truth[truth > 0])[:CELLS]:
            widget.new_cell.click()
            layer.data_setitem(np.nonzero(truth == number), layer.selected_label)
        widget.background.click()
        strokes = np.zeros(truth.shape, bool)
        for at in (0.2, 0.5, 0.8):
            row = int(at * truth.shape[0])
            strokes[row - 8 : row + 8] = True
        layer.data_setitem(np.nonzero(strokes & (truth == 0)), layer.selected_label)
        widget._on_paint()

    def correct(self) -> int:
        """Take the result, and put right what differs from the truth; return how many cells that were."""
        widget, layer = self.widget, self.viewer.layers["painted"]
        truth, result = self.truths[widget.current.name], np.asarray(widget.current.result)
        widget.correct.click()
        mended = 0
        for number in np.unique(truth[truth > 0]):
            cell = truth == number
            found = np.bincount(result[cell]).argmax()
            both = (cell & (result == found)).sum() / (cell | (result == found)).sum()
            if found == 0 or both < 0.7:
                widget.new_cell.click()
                layer.data_setitem(np.nonzero(cell), layer.selected_label)
                mended += 1
        wrong = (truth == 0) & (layer.data > BACKGROUND)
        layer.data_setitem(np.nonzero(wrong), BACKGROUND)
        return mended

    def score(self) -> str:
        """Segment all, and score the images that nothing was painted on."""
        widget = self.widget
        self.wait(lambda: widget.jobs.now in ("", "rank"), 120)
        widget.segment_all.click()
        self.wait(lambda: widget.said.text().startswith("All "), 300)
        left = [image for image in widget.session.images if not image.is_annotated]
        found = pooled([match(self.truths[image.name], np.asarray(image.result)) for image in left])
        return f"{found.average_precision:.3f} on {len(left)} images"

    def wait(self, until: Callable[[], bool], seconds: float) -> None:
        end = time.perf_counter() + seconds
        while not until():
            if time.perf_counter() > end:
                raise SystemExit(f"it does not come; the widget says: {self.widget.said.text()}")
            QApplication.processEvents()
            time.sleep(0.01)

    def shoot(self, name: str) -> None:
        QTest.qWait(300)
        self.viewer.window.screenshot(str(self.pictures / f"{name}.png"), flash=False, canvas_only=False)


def chosen() -> list[str]:
    """Take images of fluorescence with cells enough, evenly from the whole set."""
    with (DATA / "manifest.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    fit = sorted(row["file"] for row in rows if row["modality"] == "fluorescence" and int(row["n_instances"]) >= CELLS)
    return [fit[k] for k in np.linspace(0, len(fit) - 1, IMAGES).astype(int)]


if __name__ == "__main__":
    main()
