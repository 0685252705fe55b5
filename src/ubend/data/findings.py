"""What can be wrong with a data set: each fault, why it matters, what to do; and the report of those found."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

__all__ = ["FAULTS", "Case", "Fault", "Finding", "Level", "Report"]

Level = Literal["error", "warning", "note"]
"""An error stops training, or would make it learn nonsense; a warning is probably wrong; a note is good to know."""


@dataclass(frozen=True)
class Fault:
    """One kind of fault, in words.

    Attributes
    ----------
    level : {"error", "warning", "note"}
        How bad it is.
    what, why, remedy : str
        What it is, why it matters, and what to do.

    Examples
    --------
    >>> FAULTS["labels-are-the-image"].level
    'error'
    """

    level: Level
    what: str
    why: str
    remedy: str


@dataclass(frozen=True)
class Case:
    """One place where a fault was found.

    Attributes
    ----------
    files : tuple of Path
        The files that it is about.
    said : str
        What was seen there, in a few words; may be empty.
    image, labels : Path or None
        What to look at, where there is an image, or labels, that can be read.
    page : int
        Which page of these files, counted from 0.
    values : tuple of int
        The label values that it is about; empty where it is about all, or about none.

    Examples
    --------
    >>> Case((Path("masks/a.png"),), "87 values").said
    '87 values'
    """

    files: tuple[Path, ...]
    said: str = ""
    image: Path | None = None
    labels: Path | None = None
    page: int = 0
    values: tuple[int, ...] = ()


@dataclass(frozen=True)
class Finding:
    """A fault, and all cases of it.

    Attributes
    ----------
    code : str
        The fault's name, a key of `FAULTS`.
    cases : tuple of Case
        In the order of the images.

    Examples
    --------
    >>> Finding("labels-alone", (Case((Path("masks/a.png"),)),)).fault.what
    'Labels without an image'
    """

    code: str
    cases: tuple[Case, ...]

    @property
    def fault(self) -> Fault:
        """What the fault is."""
        return FAULTS[self.code]

    @property
    def level(self) -> Level:
        """How bad it is."""
        return self.fault.level


@dataclass(frozen=True)
class Report:
    """What was found in a folder.

    Attributes
    ----------
    folder : Path
        The folder.
    images : int
        How many images with labels were looked at; each page of a stack counts.
    of : int
        How many pairs of files there are. All were looked at, unless the check was a quick one.
    task : str or None
        What the labels mean: binary, classes or instances; None where that cannot be told.
    findings : tuple of Finding
        Errors first, then warnings, then notes.

    Examples
    --------
    >>> Report(Path("data"), 3, 3, "binary", ()).errors
    ()
    """

    folder: Path
    images: int
    of: int
    task: str | None
    findings: tuple[Finding, ...]

    @property
    def errors(self) -> tuple[Finding, ...]:
        """What has to be mended before training."""
        return self._of_level("error")

    @property
    def warnings(self) -> tuple[Finding, ...]:
        """What is probably wrong."""
        return self._of_level("warning")

    @property
    def notes(self) -> tuple[Finding, ...]:
        """What is good to know."""
        return self._of_level("note")

    def _of_level(self, level: Level) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if finding.level == level)

    def shown(self, path: Path) -> str:
        """Name a file as seen from the folder."""
        return path.relative_to(self.folder).as_posix() if path.is_relative_to(self.folder) else str(path)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as `ubend check --json` writes it."""
        return {
            "folder": str(self.folder),
            "images": self.images,
            "pairs_of_files": self.of,
            "task": self.task,
            "errors": len(self.errors),
            "warnings": len(self.warnings),
            "notes": len(self.notes),
            "findings": [
                {
                    "level": finding.level,
                    "code": finding.code,
                    "what": finding.fault.what,
                    "why": finding.fault.why,
                    "remedy": finding.fault.remedy,
                    "cases": [
                        {
                            "files": [self.shown(path) for path in case.files],
                            "page": case.page,
                            "labels": list(case.values),
                            "said": case.said,
                        }
                        for case in finding.cases
                    ],
                }
                for finding in self.findings
            ],
        }


def collected(found: Iterable[tuple[str, Case]]) -> tuple[Finding, ...]:
    """Put cases of one fault together, in the order of `FAULTS`.

    Examples
    --------
    >>> [one.code for one in collected([("specks", Case(())), ("layout", Case(())), ("specks", Case(()))])]
    ['layout', 'specks']
    """
    cases: dict[str, list[Case]] = {}
    for code, case in found:
        cases.setdefault(code, []).append(case)
    return tuple(Finding(code, tuple(cases[code])) for code in FAULTS if code in cases)


def _table(level: Level, **faults: tuple[str, str, str]) -> dict[str, Fault]:
    return {name.replace("_", "-"): Fault(level, *words) for name, words in faults.items()}


_ERRORS = _table(
    "error",
    layout=(
        "No images with labels can be told apart in this folder",
        "ubend pairs images and labels by the names of folders and files",
        "Follow the line above; what always works is images in images/ and labels of the same names in masks/",
    ),
    same_name=(
        "Several files fit the same place",
        "Only one of them can be the image, or its labels",
        "Keep the right one there and move the others to another folder",
    ),
    unreadable=(
        "Files that cannot be read",
        "A damaged or unknown file cannot be trained on",
        "Copy it again from where it came from, or save it anew as TIFF; or take it out of the folder",
    ),
    images_alone=(
        "Images without labels",
        "What is not labelled cannot be learnt from",
        "Label them, or correct the names, or move them to another folder",
    ),
    labels_alone=(
        "Labels without an image",
        "Their image is missing, or has another name",
        "Give labels the name of their image, or move them to another folder",
    ),
    pages_differ=(
        "A stack and its labels have different numbers of pages",
        "Page 1 of the image belongs to page 1 of the labels, and so on",
        "Save both with the same slices or time points (Fiji: Image > Properties tells how many there are)",
    ),
    sizes_differ=(
        "An image and its labels differ in size",
        "Each pixel of the image needs its label at the same place",
        "Export the labels again at the full size of the image, with nearest-neighbour (no smoothing)",
    ),
    labels_turned=(
        "Labels are turned or mirrored against their image",
        "The network would learn from places where the cells are not",
        "Turn the labels back (Fiji: Image > Transform), or export them again from the image as it is stored",
    ),
    labels_in_colour=(
        "Labels are colours",
        "Which colour is which label is not known, and shades would count as labels of their own",
        "Save them with one number a pixel: 8-bit or 16-bit gray, or a palette image",
    ),
    labels_not_whole=(
        "Labels are no whole numbers",
        "A label is 0, 1, 2, …; fractions are probabilities or smoothed labels",
        "Save the labels themselves; of probabilities, those above 0.5 are the foreground",
    ),
    labels_smoothed=(
        "Labels have gray values at their edges",
        "They were resized with smoothing or saved as JPEG, and each gray value would count as a label of its own",
        "Export them again as TIFF or PNG, without smoothing; a mask of two values can be mended by a threshold",
    ),
    labels_are_the_image=(
        "The labels are the image itself",
        "There is nothing to learn from an image that is its own label",
        "Put the true labels there: most likely the wrong file was copied or saved",
    ),
    labels_a_picture=(
        "Labels look like a photograph",
        "Nearly every pixel has another value; labels are areas of one value each",
        "Check that images and labels are not swapped, and that the labels were saved, not the picture of them",
    ),
    nothing_labelled=(
        "No pixel of any image is labelled",
        "There is nothing to learn from",
        "Check that the labels were saved, not an empty image",
    ),
    foreground_mixed=(
        "Some masks are 0 and 1, others 0 and 255",
        "They do not mean the same then: 255 would be taken for pixels that nobody labelled",
        "Save all masks in one way (Fiji: Process > Math > Divide by 255, or Multiply)",
    ),
    channels_differ=(
        "Images have different numbers of channels",
        "A network takes one number of channels, so training stops",
        "Train one model for each kind, or save all as gray, or all in colour",
    ),
    not_a_number=(
        "Images with pixels that are no number (NaN) or infinite",
        "One such pixel would spoil the network",
        "Put a number there, for example 0, or leave the image out",
    ),
)  # fmt: skip

_WARNINGS = _table(
    "warning",
    duplicates=(
        "The same image is there more than once",
        "It counts more than others, and if one copy is held out, the quality is reported better than it is",
        "Keep one of each, with the better labels",
    ),
    labels_empty=(
        "Images whose labels are empty",
        "The network learns that there is nothing in them",
        "If there are cells, label them or leave the image out; if there truly is nothing, all is well",
    ),
    mask_among_cells=(
        "A mask of one value among labels with a number for each cell",
        "All cells of that image count as one cell",
        "Number its cells (Fiji: Analyze > Analyze Particles, Count Masks), or leave it out",
    ),
    several_cells=(
        "One label covers what look like several cells",
        "The network learns not to part cells that touch",
        "Look at them; where they are several cells, give each its own number",
    ),
    label_in_pieces=(
        "One label lies in several places of an image",
        "The pieces count as one cell",
        "Give each cell its own number, and delete stray pixels",
    ),
    specks=(
        "Labels of very few pixels",
        "They are slips of the brush, most likely, and count as cells",
        "Delete them, if they are not cells",
    ),
    modalities_mixed=(
        "Different kinds of microscopy are mixed",
        "Few images of each kind teach little; what is bright in one is dark in the other",
        "Train one model for each kind, unless one model for all is what you want, with enough images of each",
    ),
    pixel_sizes_differ=(
        "Pixels do not have the same size in all images",
        "The same cell looks larger in one image than in another",
        "Bring all to one pixel size (Fiji: Image > Scale; labels without interpolation), or correct the stored sizes",
    ),
    slices_as_channels=(
        "Channels look like slices of a stack or time points",
        "All slices would count as colours of one image",
        "Save them as slices or frames (Fiji: Image > Properties), if they are no stains",
    ),
    image_blank=(
        "Images of one gray value",
        "There is nothing to see in them",
        "Leave them out, or save them again",
    ),
    image_of_two_values=(
        "Images with two gray values only",
        "They look like masks, and what a microscope saw is lost",
        "Check that images and masks are not swapped; use the image from before the threshold",
    ),
    saturated=(
        "Overexposed images",
        "Where many pixels are at the brightest value, structure and borders are lost",
        "Use the unchanged data, not a screenshot or a stretched copy; next time expose shorter",
    ),
    classes_missing=(
        "A class number is left out",
        "Either a class was never drawn, or a number was mistyped",
        "Check the list of classes; if the number means nothing, all is well",
    ),
    images_small=(
        "Images that are small for the network",
        "A network that sees less far is taken, and what is beyond the border is mirrored",
        "Use larger images or fields of view, if you have them",
    ),
    objects_large=(
        "Cells wider than the network can see",
        "In their middle it sees nothing of their border",
        "Shrink the images by half, or more (labels without interpolation), and train on those",
    ),
    objects_thin=(
        "Cells only a pixel or two wide",
        "So little is hard to learn, and lost at the first error of a pixel",
        "Use a higher magnification, or enlarge the images (labels without interpolation)",
    ),
    turned_by_camera=(
        "Files that say they are to be turned",
        "Programs differ in whether they turn them, so labels may lie elsewhere",
        "Look at an image with its labels; save it as it should stand, as TIFF or PNG",
    ),
    not_read=(
        "Images in formats that ubend does not read",
        "They are left out without a word",
        "Export them as TIFF (Fiji opens most formats: File > Save As > Tiff)",
    ),
)  # fmt: skip

_NOTES = _table(
    "note",
    foreground_255=(
        "Masks of 0 and 255",
        "They are taken as background and foreground; cells that touch count as one",
        "Nothing to do; if cells that touch are to come out apart, give each its number",
    ),
    palette=(
        "Labels with a colour table",
        "The number of a colour is the label, not the colour itself",
        "Nothing to do if the numbers are right",
    ),
    cells_cut=(
        "Most cells are cut by the border of their image",
        "Of cut cells the network does not see the shape, and measured sizes are too small",
        "Use larger fields of view, if you have them",
    ),
    stray_pixels=(
        "Very small pieces in masks",
        "They are slips of the brush, most likely; so few pixels hardly matter",
        "Nothing to do; they may be deleted",
    ),
    pieces_in_slices=(
        "Labels in several pieces in slices of a stack",
        "Normal where a slice cuts through a cell twice; in one slice the pieces count as one cell",
        "Nothing to do",
    ),
    class_rare=(
        "A class that only one image shows",
        "How well it is learnt cannot be measured on another image",
        "Label it in at least two images more",
    ),
    twelve_bits=(
        "12-bit data in 16-bit files",
        "Other programs show them black; ubend scales each image by itself",
        "Nothing to do",
    ),
    bit_depths_differ=(
        "Images of different bit depths",
        "Each image is scaled by itself, so that alone is no harm; they may come from different exports",
        "Nothing to do if all come from one microscope, unchanged",
    ),
    pixel_size_unknown=(
        "Only some images know the size of their pixels",
        "Whether all have the same magnification cannot be checked",
        "Set it in Fiji (Image > Properties) if magnifications may differ",
    ),
    hidden_files=(
        "Files that the operating system left",
        "They are no images and are left out",
        "Nothing to do",
    ),
)  # fmt: skip

FAULTS: dict[str, Fault] = {**_ERRORS, **_WARNINGS, **_NOTES}
"""Every fault by its name, the worst first."""
