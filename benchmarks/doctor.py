"""The doctor on real images: faults made on purpose, warnings on sets as they are, time.

    python benchmarks/doctor.py              all, into docs/reliability.md
    python benchmarks/doctor.py --images 100 fewer images to time, a table on the screen

Faults are made in copies, in a temporary folder. What it says of the sets as they are was looked at, picture by
picture; what was right and what was wrong stands in BY_EYE.
"""

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter, process_time

import numpy as np
import tifffile
from PIL import Image
from report import machine, markdown_table, write_section
from scipy import ndimage

from ubend.data.annotated import find_pairs, read_pairs
from ubend.data.doctor import check
from ubend.data.formats import write_labels

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT.parent / "shared" / "data"
PAGE = ROOT / "docs" / "reliability.md"

SETS: tuple[tuple[str, str | None], ...] = (
    ("coelho2009_nuclei", None),
    ("dic_hela", "masks"),
    ("dic_hela", "instances_approx"),
    ("dsb2018", None),
    ("isbi2012_em", None),
    ("ovule3d", None),
    ("trpl_bacteria", None),
    ("vnc_sstem", "masks"),
    ("vnc_sstem", "labels"),
)
BY_EYE: dict[tuple[str, str], tuple[int, str]] = {
    ("dsb2018", "channels-differ"): (0, "true: 91 of 532 images are in colour"),
    ("dsb2018", "modalities-mixed"): (0, "true: the 91 of histology and the 12 of bright field in its manifest"),
    ("dsb2018", "label-in-pieces"): (0, "true: label 39 is two pieces, of 11 and 19 pixels"),
    ("dsb2018", "several-cells"): (0, "looked at one by one: two cells or more, one of them doubtful"),
}
"""Of each finding on a set as it is: how many of its cases are wrong, and what was seen."""
A_FEW = 12
SIDES = (256, 384, 512)


@dataclass(frozen=True)
class Broken:
    """A fault to be made: in which set, what, and how."""

    data: str
    labels: str
    code: str
    what: str
    make: Callable[[Path], None]


def files(folder: Path, part: str) -> list[Path]:
    return sorted((folder / part).iterdir())


def change(path: Path, do: Callable[[np.ndarray], np.ndarray]) -> None:
    tifffile.imwrite(path, do(tifffile.imread(path)), photometric=None)


def masks(do: Callable[[np.ndarray], np.ndarray], which: slice = slice(3, 4)) -> Callable[[Path], None]:
    return lambda folder: [change(path, do) for path in files(folder, "masks")[which]] and None


def images(do: Callable[[np.ndarray], np.ndarray], which: slice = slice(3, 4)) -> Callable[[Path], None]:
    return lambda folder: [change(path, do) for path in files(folder, "images")[which]] and None


def everywhere(do: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        masks(do, slice(None))(folder)
        images(do, slice(None))(folder)

    return make


def smoothed(labels: np.ndarray) -> np.ndarray:
    half = ndimage.zoom(labels.astype(np.float64), 0.5, order=1)
    grown = ndimage.zoom(half, np.array(labels.shape) / half.shape, order=1)
    return np.rint(grown).astype(np.uint16)


def white(labels: np.ndarray) -> np.ndarray:
    return ((labels > 0) * 255).astype(np.uint8)


def through_jpeg(folder: Path) -> None:
    path = files(folder, "masks")[3]
    Image.fromarray(white(tifffile.imread(path))).save(folder / "m.jpg", quality=75)
    with Image.open(folder / "m.jpg") as picture:
        tifffile.imwrite(path, np.array(picture))


def coloured(labels: np.ndarray) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (int(labels.max()) + 1, 3), np.uint8)[labels]


def twin(change_pixels: Callable[[np.ndarray], np.ndarray], *, jpeg: bool = False) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        source = files(folder, "images")[3]
        pixels = change_pixels(tifffile.imread(source))
        if jpeg:
            scaled = (pixels.astype(np.float64) * (255 / pixels.max())).astype(np.uint8)
            Image.fromarray(scaled).save(folder / "images" / "zz.jpg", quality=60)
        else:
            tifffile.imwrite(folder / "images" / "zz.tif", pixels)
        shutil.copy(folder / "masks" / source.name, folder / "masks" / "zz.tif")

    return make


def brighter(pixels: np.ndarray) -> np.ndarray:
    top = 255 if pixels.dtype == np.uint8 else 65535
    return np.clip(pixels * 1.2 + 5, 0, top).astype(pixels.dtype)


def camera(folder: Path) -> None:
    """A photograph stored lying down, with a mask of how it is stored."""
    path = files(folder, "images")[3]
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(tifffile.imread(path)).save(path.with_suffix(".jpg"), exif=exif, quality=95)
    path.unlink()


def joined(folder: Path) -> None:
    """In each image two round cells that touch get one number, where there are such."""
    for path in files(folder, "masks"):
        labels = tifffile.imread(path)
        pair = touching(labels)
        if pair is not None:
            tifffile.imwrite(path, np.where(labels == pair[1], pair[0], labels))


def touching(labels: np.ndarray) -> tuple[int, int] | None:
    sizes = np.bincount(labels.ravel())
    usual = np.median(sizes[1:][sizes[1:] > 0])
    for one, other in ((labels[1:], labels[:-1]), (labels[:, 1:], labels[:, :-1])):
        meet = (one != other) & (one > 0) & (other > 0)
        for a, b in np.unique(np.stack([one[meet], other[meet]], axis=-1), axis=0):
            if min(sizes[a], sizes[b]) > 0.7 * usual:
                return int(a), int(b)
    return None


def far_apart(labels: np.ndarray) -> np.ndarray:
    numbers = np.unique(labels[labels > 0])
    rows = np.array(ndimage.center_of_mass(labels > 0, labels, numbers))[:, 0]
    return np.where(labels == numbers[rows.argmax()], numbers[rows.argmin()], labels)


def dotted(labels: np.ndarray) -> np.ndarray:
    free = np.argwhere(ndimage.maximum_filter(labels, 5) == 0)
    labels = labels.copy()
    for number, (row, column) in enumerate(free[:: len(free) // 5][:5], start=int(labels.max()) + 1):
        labels[row, column] = number
    return labels


def not_finite(pixels: np.ndarray) -> np.ndarray:
    pixels = pixels.astype(np.float32)
    pixels[5, 5] = np.nan
    return pixels


def swapped(folder: Path) -> None:
    (folder / "images").rename(folder / "x")
    (folder / "masks").rename(folder / "images")
    (folder / "x").rename(folder / "masks")


def sizes_of_pixels(folder: Path) -> None:
    for k, path in enumerate(files(folder, "images")):
        size = 0.65 if k == 3 else 0.325
        pixels = tifffile.imread(path)
        tifffile.imwrite(path, pixels, imagej=True, resolution=(1 / size, 1 / size), metadata={"unit": "um"})


def slices_as_channels(folder: Path) -> None:
    image, labels = files(folder, "images")[0], files(folder, "masks")[0]
    tifffile.imwrite(image, tifffile.imread(image), photometric="minisblack", metadata={"axes": "CYX"})
    tifffile.imwrite(labels, tifffile.imread(labels)[0])


def left_by_the_system(folder: Path) -> None:
    for name in (".DS_Store", "images/._a.tif", "masks/Thumbs.db"):
        (folder / name).write_bytes(b"\0\5\26\7")


FAULTS = (
    Broken("coelho2009_nuclei", "masks", "labels-smoothed", "numbers of cells resized with smoothing", masks(smoothed)),
    Broken("dsb2018", "masks", "labels-smoothed", "numbers of cells resized with smoothing", masks(smoothed)),
    Broken("isbi2012_em", "masks", "labels-smoothed", "masks of 0 and 255 resized with smoothing",
           masks(lambda a: smoothed(white(a)), slice(None))),
    Broken("dic_hela", "masks", "labels-smoothed", "a mask that went through JPEG", through_jpeg),
    Broken("isbi2012_em", "masks", "foreground-mixed", "some masks of 0 and 255 among 0 and 1", masks(white, slice(5))),
    Broken("vnc_sstem", "masks", "foreground-255", "masks of 0 and 255", masks(white, slice(None))),
    Broken("dsb2018", "masks", "mask-among-cells", "a mask of 0 and 255 among numbers of cells", masks(white)),
    Broken("coelho2009_nuclei", "masks", "labels-in-colour", "labels in colour", masks(coloured)),
    Broken("isbi2012_em", "masks", "labels-are-the-image", "a copy of the image as its mask",
           lambda f: shutil.copy(files(f, "images")[3], files(f, "masks")[3]) and None),
    Broken("coelho2009_nuclei", "masks", "labels-a-picture", "another image as mask",
           lambda f: shutil.copy(files(f, "images")[4], files(f, "masks")[3]) and None),
    Broken("vnc_sstem", "masks", "labels-a-picture", "images and masks swapped", swapped),
    Broken("isbi2012_em", "masks", "labels-turned", "a mask transposed, square image", masks(np.transpose)),
    Broken("vnc_sstem", "masks", "labels-turned", "a mask turned by 90°, square image", masks(np.rot90)),
    Broken("dic_hela", "masks", "labels-turned", "a mask mirrored", masks(np.fliplr)),
    Broken("dsb2018", "masks", "labels-turned", "a mask turned by 180°", masks(lambda a: np.rot90(a, 2))),
    Broken("trpl_bacteria", "masks", "labels-turned", "rows and columns of a mask swapped", masks(np.transpose)),
    Broken("isbi2012_em", "masks", "labels-turned", "a photograph with an EXIF orientation", camera),
    Broken("coelho2009_nuclei", "masks", "sizes-differ", "a mask of half the size", masks(lambda a: a[::2, ::2])),
    Broken("trpl_bacteria", "masks", "images-alone", "a mask deleted", lambda f: files(f, "masks")[3].unlink()),
    Broken("trpl_bacteria", "masks", "labels-alone", "an image deleted", lambda f: files(f, "images")[3].unlink()),
    Broken("dsb2018", "masks", "unreadable", "a file cut off",
           lambda f: files(f, "images")[3].write_bytes(files(f, "images")[3].read_bytes()[:500]) and None),
    Broken("isbi2012_em", "masks", "duplicates", "an image twice", twin(lambda a: a)),
    Broken("vnc_sstem", "masks", "duplicates", "an image twice, once as JPEG", twin(lambda a: a, jpeg=True)),
    Broken("trpl_bacteria", "masks", "duplicates", "an image twice, once brighter", twin(brighter)),
    Broken("dic_hela", "masks", "duplicates", "an image twice, once brighter and as JPEG", twin(brighter, jpeg=True)),
    Broken("dsb2018", "masks", "labels-empty", "an empty mask", masks(np.zeros_like)),
    Broken("dsb2018", "masks", "several-cells", "one number for two cells that touch", joined),
    Broken("dic_hela", "instances_approx", "several-cells", "one number for two cells that touch", joined),
    Broken("coelho2009_nuclei", "masks", "label-in-pieces", "one number for two cells apart", masks(far_apart)),
    Broken("coelho2009_nuclei", "masks", "specks", "five specks", masks(dotted)),
    Broken("dsb2018", "masks", "cells-cut", "windows of 48 × 48",
           everywhere(lambda a: a[40:88, 40:88])),
    Broken("vnc_sstem", "labels", "classes-missing", "classes 0, 1, 3, 4, …",
           masks(lambda a: (lambda k: np.where(k > 1, k + 1, k))(np.unique(a, return_inverse=True)[1].reshape(a.shape))
                 .astype(np.uint8), slice(None))),
    Broken("trpl_bacteria", "masks", "twelve-bits", "12-bit images",
           images(lambda a: (a / a.max() * 4095).astype(np.uint16), slice(None))),
    Broken("coelho2009_nuclei", "masks", "saturated", "an overexposed image",
           images(lambda a: np.clip(a.astype(float) * (255 / np.quantile(a, 0.8)), 0, 255).astype(np.uint8))),
    Broken("dic_hela", "masks", "image-blank", "a blank image", images(np.zeros_like)),
    Broken("dic_hela", "masks", "not-a-number", "an image with a NaN", images(not_finite)),
    Broken("coelho2009_nuclei", "masks", "pixel-sizes-differ", "one image of another pixel size", sizes_of_pixels),
    Broken("coelho2009_nuclei", "masks", "modalities-mixed", "an inverted image", images(lambda a: 255 - a)),
    Broken("coelho2009_nuclei", "masks", "channels-differ", "an image in colour",
           images(lambda a: np.stack([255 - a, 255 - a // 2, 255 - a // 3], axis=-1))),
    Broken("ovule3d", "masks", "slices-as-channels", "slices saved as channels", slices_as_channels),
    Broken("ovule3d", "masks", "pages-differ", "a slice of the labels lost", masks(lambda a: a[:-1], slice(None))),
    Broken("isbi2012_em", "masks", "images-small", "windows of 40 × 40",
           everywhere(lambda a: a[:40, :40])),
    Broken("trpl_bacteria", "masks", "objects-thin", "images shrunk to an eighth",
           everywhere(lambda a: a[::8, ::8])),
    Broken("isbi2012_em", "masks", "hidden-files", "files of the operating system", left_by_the_system),
)  # fmt: skip


def a_copy(fault: Broken, folder: Path) -> Path:
    """Copy a few images of one kind; what can be written to."""
    for part, name in (("images", "images"), ("masks", fault.labels)):
        (folder / part).mkdir(parents=True)
        chosen = files(DATA / fault.data, name)
        if fault.data == "dsb2018":
            chosen = [path for path in chosen if tifffile.imread(DATA / fault.data / "images" / path.name).ndim == 2]
        for path in chosen[:A_FEW]:
            shutil.copyfile(path, folder / part / path.name)
    return folder


def faults() -> tuple[list[list[str]], int]:
    rows, found = [], 0
    for fault in FAULTS:
        with tempfile.TemporaryDirectory() as place:
            folder = a_copy(fault, Path(place) / "data")
            before = {finding.code for finding in check(folder).findings}
            fault.make(folder)
            now = {finding.code for finding in check(folder).findings}
        is_found = fault.code in now and fault.code not in before
        found += is_found
        beside = sorted(now - before - {fault.code})
        rows.append([fault.what, fault.data, "yes" if is_found else "**no**", ", ".join(beside) or "–"])
        print(rows[-1], file=sys.stderr, flush=True)
    return rows, found


def as_they_are() -> tuple[list[list[str]], int]:
    rows, wrong = [], 0
    for data, labels in SETS:
        report = check(DATA / data, labels=labels)
        said = []
        for finding in (*report.errors, *report.warnings):
            bad, words = BY_EYE.get((data, finding.code), (len(finding.cases), "not looked at"))
            wrong += bad
            said.append(f"{finding.level} {finding.code}, {len(finding.cases)} files: {words}")
        notes = ", ".join(finding.code for finding in report.notes)
        name = data if labels is None else f"{data}, {labels}"
        rows.append([name, str(report.images), "; ".join(said) or "–", notes or "–"])
        print(rows[-1], file=sys.stderr, flush=True)
    return rows, wrong


def timed(number: int) -> str:
    """Look at windows of real images, 256 to 512 pixels a side."""
    rng = np.random.default_rng(0)
    sources = read_pairs(find_pairs(DATA / "coelho2009_nuclei")[:20])
    sources += read_pairs(find_pairs(DATA / "dic_hela", labels="instances_approx")[:20])
    with tempfile.TemporaryDirectory() as place:
        for part in ("images", "masks"):
            (Path(place) / part).mkdir()
        for k in range(number):
            source, side = sources[k % len(sources)], SIDES[k % len(SIDES)]
            row, column = (int(rng.integers(0, length - side + 1)) for length in source.labels.shape)
            window = (slice(row, row + side), slice(column, column + side))
            tifffile.imwrite(Path(place) / "images" / f"{k}.tif", source.image[window], compression="zlib")
            write_labels(Path(place) / "masks" / f"{k}.tif", source.labels[window])
        begin, used = perf_counter(), process_time()
        report = check(place)
        seconds, used = perf_counter() - begin, process_time() - used
    cores = len(os.sched_getaffinity(0))
    return (
        f"{report.images} images of {SIDES[0]}×{SIDES[0]} to {SIDES[-1]}×{SIDES[-1]} with their labels, deflated TIFF: "
        f"{seconds:.1f} s on {cores} core{'' if cores == 1 else 's'}, {used:.1f} s of processor time."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=1000, help="how many to time")
    number = parser.parse_args().images
    time = timed(number)
    print(time, file=sys.stderr, flush=True)
    made, found = faults()
    sets, wrong = as_they_are()
    text = "\n\n".join(
        [
            "One command, `python benchmarks/doctor.py`, makes faults in copies of real sets, a dozen images each, and "
            f"runs `ubend check`. {machine()}",
            f"**Faults made: {len(made)}; found: {found}.** Two cells under one number are seen only where the neck "
            "between them is narrow.",
            markdown_table(("fault", "set", "found", "said besides"), made),
            f"The sets as they are, nothing changed. **Errors and warnings that are wrong: {wrong}.**",
            markdown_table(("set", "images", "errors and warnings, looked at by eye", "notes"), sets),
            f"Time: {time}",
        ]
    )
    if number < 1000:
        print(text)
    else:
        write_section("doctor", text, PAGE)


if __name__ == "__main__":
    main()
