"""The doctor's report on a terminal, and the worst of it as one picture."""

import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.padding import Padding

from ubend.data.findings import Case, Finding, Report
from ubend.data.formats import Picture, read_images, write_atomically
from ubend.data.origin import MARK
from ubend.errors import UbendError
from ubend.faces.terminal import ERROR, NOTE, WARNING, escape

COLOURS = {"error": ERROR, "warning": WARNING, "note": NOTE}
INKS = {"error": "#b00020", "warning": "#8a5a00", "note": "#005f73"}
OUTLINE, MARKED = np.array([255, 90, 0], np.uint8), np.array([0, 230, 255], np.uint8)

_FEW = 3
_MOST_PANELS, _COLUMNS = 12, 3
_PANEL, _CAPTION = 480, 60
_CROWDED = 0.3


def print_report(console: Console, report: Report) -> None:
    """Print each finding: what, where, why it matters, what to do."""
    for finding in report.findings:
        fault = finding.fault
        console.print(f"\n[{COLOURS[finding.level]}]{finding.level.capitalize()}[/]  [bold]{escape(fault.what)}[/]")
        for line in _places(finding, report):
            _print_indented(console, line)
        _print_indented(console, f"Why it matters: {fault.why}.")
        _print_indented(console, f"What to do: {fault.remedy}.")


def print_in_short(console: Console, report: Report) -> None:
    """Print each warning in one line."""
    for finding in report.warnings:
        first, *_ = _places(finding, report, most=1)
        console.print(f"[{COLOURS['warning']}]Warning[/]  {escape(finding.fault.what)}: {escape(first)}")


def summary(report: Report) -> str:
    """Say how much was found, in a few words."""
    counts = {"error": len(report.errors), "warning": len(report.warnings), "note": len(report.notes)}
    found = [f"{number} {level}{'' if number == 1 else 's'}" for level, number in counts.items() if number]
    return ", ".join(found) if found else "nothing found to be wrong"


def _places(finding: Finding, report: Report, most: int = _FEW) -> list[str]:
    lines = []
    for case in finding.cases[:most]:
        names = [report.shown(path) for path in case.files]
        shown = " = " if finding.code == "duplicates" else ", "
        files = shown.join(names[:_FEW]) + (f" and {len(names) - _FEW} more" if len(names) > _FEW else "")
        where = f"{files}, page {case.page + 1}" if case.page else files
        lines.append(": ".join(part for part in (where, case.said) if part))
    rest = len(finding.cases) - most
    if rest > 0:
        lines[-1] += f"; and {rest} more"
    return [line for line in lines if line]


def _print_indented(console: Console, line: str) -> None:
    console.print(Padding(escape(line), (0, 0, 0, 2), expand=False))


# the picture


def save_contact_sheet(path: Path, report: Report, *, overwrite: bool = False) -> int:
    """Draw the worst images with the outlines of their labels, and what is wrong, as one PNG.

    Returns
    -------
    int
        How many images are drawn; nothing is written where there is none to show.
    """
    from matplotlib.figure import Figure

    panels = [(finding, case, drawn) for finding, case in _worst(report) if (drawn := _drawn(case)) is not None]
    if not panels:
        return 0
    columns = min(_COLUMNS, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(4.6 * columns, 4.8 * rows), dpi=100, layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis in axes:
        axis.set_axis_off()
    for axis, (finding, case, pixels) in zip(axes, panels, strict=False):
        axis.imshow(pixels, interpolation="nearest")
        name = f"{_shortened(case.files[0].name, 28)}: " if case.files else ""
        caption = "\n".join(textwrap.wrap(f"{name}{finding.fault.what}", _CAPTION))
        axis.set_title(caption, fontsize=8, loc="left", color=INKS[finding.level])
    write: Callable[[Path], object] = lambda part: figure.savefig(part, format="png", metadata=MARK)  # noqa: E731
    write_atomically(path, write, overwrite=overwrite)
    return len(panels)


def _worst(report: Report) -> Iterator[tuple[Finding, Case]]:
    """Of each fault the first case, then the second of each, …; errors before warnings."""
    drawable = [
        (finding, [case for case in finding.cases if case.image is not None or case.labels is not None])
        for finding in (*report.errors, *report.warnings)
    ]
    chosen = [
        (turn, order, finding, cases[turn])
        for order, (finding, cases) in enumerate(drawable)
        for turn in range(min(len(cases), _MOST_PANELS))
    ]
    best = sorted(chosen, key=lambda one: (one[0], one[1]))[:_MOST_PANELS]
    for _, _, finding, case in sorted(best, key=lambda one: (one[1], one[0])):
        yield finding, case


def _drawn(case: Case) -> NDArray[np.uint8] | None:
    """Image with the outlines of its labels, those in question marked; where that cannot be, one beside the other."""
    from ubend.faces.pictures import displayed

    image, labels = _read(case.image, case.page), _read(case.labels, case.page)
    if image is None and labels is None:
        return None
    shown = [_small(displayed(np.nan_to_num(one.astype(np.float64)))) for one in (image, labels) if one is not None]
    if image is None or labels is None or image.shape[:2] != labels.shape[:2]:
        return _beside(shown)
    flat = labels if labels.ndim == 2 else labels[..., 0]
    edges = _edges(flat)
    if edges.mean() > _CROWDED:
        return _beside(shown)
    _draw(shown[0], edges, OUTLINE)
    if case.values:
        _draw(shown[0], _edges(np.where(np.isin(flat, case.values), flat, 0)), MARKED)
    return shown[0]


def _beside(pictures: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    height = max(one.shape[0] for one in pictures)
    framed = [np.pad(one, ((4, 4 + height - len(one)), (4, 4), (0, 0)), constant_values=160) for one in pictures]
    return np.concatenate(framed, axis=1)


def _draw(picture: NDArray[np.uint8], edges: NDArray[np.bool_], colour: NDArray[np.uint8]) -> None:
    """Colour edges of the full image in a picture that may be smaller."""
    places = np.argwhere(edges) // _step(edges.shape)
    inside = (places < picture.shape[:2]).all(axis=1)
    picture[places[inside, 0], places[inside, 1]] = colour


def _read(path: Path | None, page: int) -> NDArray[Any] | None:
    if path is None:
        return None
    try:
        pages: list[Picture] = read_images(path)
    except UbendError:
        return None
    return pages[min(page, len(pages) - 1)].pixels


def _edges(labels: NDArray[Any]) -> NDArray[np.bool_]:
    edges = np.zeros(labels.shape, bool)
    edges[1:] |= labels[1:] != labels[:-1]
    edges[:, 1:] |= labels[:, 1:] != labels[:, :-1]
    return edges


def _step(shape: tuple[int, ...]) -> int:
    return max(1, -(-max(shape[:2]) // _PANEL))


def _small(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    step = _step(image.shape)
    return image[::step, ::step].copy()


def _shortened(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
