"""What a run came to, as one page that needs no network: RUN/report.html.

The model is finished; here it looks at images again (`run/inspection.py`), and the page shows what it finds, how good
that is, and where it is unsure. All that comes from outside, names of files above all, is escaped.
"""

import base64
import csv
import hashlib
import math
import re
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ubend import __version__
from ubend.data.annotated import class_indices
from ubend.data.formats import check_free, write_atomically
from ubend.faces.charts import curve, histogram, interval
from ubend.faces.pictures import (
    CLASS_COLOURS,
    HEAT,
    INVENTED,
    MISSED,
    RESULT,
    TRUTH,
    Compared,
    compared,
    data_uri,
    heat,
)
from ubend.faces.words import rules_in_words
from ubend.method.measurements import measure_objects
from ubend.method.network import count_parameters
from ubend.run.budget import at_resolution
from ubend.run.contract import Contract
from ubend.run.evaluation import HEADLINES, Evaluation
from ubend.run.inspection import MOST_IMAGES, Inspected, Inspection, Unlabelled, inspect, rank_unlabelled
from ubend.run.model import Model, load
from ubend.run.normalisation import count
from ubend.run.pooling import FEWEST_IMAGES
from ubend.run.recipe import to_toml
from ubend.run.runs import REPORT
from ubend.scores import cells

__all__ = ["REPORT", "seconds_for_report", "write_report"]

SHARE_OF_RUN, LONGEST = 0.02, 3.0
"""Of a timed run, and in seconds at most, what looking at images may take when the run ends."""
SHOWN_UNSURE = 3
MOST_RANKED = 20
MOST_CLASSES = 40

_PAPER = (
    "@inproceedings{ronneberger2015unet,\n  title     = {{U-Net}: Convolutional Networks for Biomedical Image "
    "Segmentation},\n  author    = {Ronneberger, Olaf and Fischer, Philipp and Brox, Thomas},\n  booktitle = {Medical "
    "Image Computing and Computer-Assisted Intervention -- MICCAI 2015},\n  series    = {Lecture Notes in Computer "
    "Science},\n  volume    = {9351},\n  pages     = {234--241},\n  year      = {2015},\n"
    "  doi       = {10.1007/978-3-319-24574-4_28}\n}"
)
_DOI = "https://doi.org/10.1007/978-3-319-24574-4_28"
_KINDS = {"binary": "foreground and background", "instances": "single objects", "classes": "classes"}


def seconds_for_report(minutes: float) -> float:
    """Return what looking at images may take after a run of so many minutes; 0 minutes for a run by steps."""
    return min(LONGEST, SHARE_OF_RUN * 60 * minutes) if minutes > 0 else LONGEST


def write_report(
    run: str | Path,
    data: str | Path,
    *,
    labels: str | None = None,
    images: str | Path | None = None,
    model: Model | None = None,
    seconds: float | None = None,
    device: str | None = None,
    overwrite: bool = False,
) -> Path:
    """Write the report of a run.

    Parameters
    ----------
    run : str or Path
        The folder of the run, with its model; log.csv and folds.csv are shown where they are.
    data : str or Path
        The annotated folder that the model was trained on, or another one.
    labels : str, optional
        Name of its label folder, as in training.
    images : str or Path, optional
        Images without labels, to be ranked: which to annotate next.
    model : Model, optional
        That of the run, if it is at hand.
    seconds : float, optional
        That looking at images may take, about; without it all held-out images are looked at.
    device : str, optional
        Where to predict.
    overwrite : bool
        Whether an earlier report may be replaced.

    Returns
    -------
    Path
        The report.

    Raises
    ------
    FileError, InputError, ModelFileError
        If there is no model, the data cannot be read, or there is a report already.
    """
    run, began = Path(run), perf_counter()
    check_free(run / REPORT, overwrite=overwrite)
    model = model or load(run, device=device)
    seen = inspect(model, data, labels=labels, seconds=seconds)
    unlabelled = [] if images is None else rank_unlabelled(model, images)
    page = _page(_Report(run, Path(data), model.contract, seen, unlabelled, _read_log(run)), began)
    write_atomically(run / REPORT, lambda part: part.write_text(page, encoding="utf-8"), overwrite=overwrite)
    return run / REPORT


@dataclass(frozen=True)
class _Report:
    """All that the page is made from."""

    run: Path
    data: Path
    contract: Contract
    seen: Inspection
    unlabelled: Sequence[Unlabelled]
    log: dict[str, NDArray[np.float64]]

    @property
    def made(self) -> dict[str, Any]:
        return self.contract.provenance

    @property
    def kind(self) -> str:
        return self.contract.task.kind

    @property
    def name(self) -> str:
        return self.run.resolve().name or "run"

    @property
    def cut(self) -> bool:
        """Whether of some image only the middle was looked at."""
        return any(one.truth.shape != one.whole for one in self.seen.images)

    @property
    def folds(self) -> dict[str, Any] | None:
        return self.made.get("folds")


def _page(report: _Report, began: float) -> str:
    pictures = {
        one.name: compared(one.image, one.truth, one.result, report.contract.task) for one in _gallery(report.seen)
    }
    sections = [
        _first_screen(report, pictures),
        _images(report, pictures),
        _unsure(report),
        _scores(report),
        _objects(report),
        _curves(report),
        _how_made(report),
        _next(report),
        _cite(report),
    ]
    footer = (
        f"<footer>Made by ubend {escape(__version__)} in {perf_counter() - began:.1f} seconds. This page is one file, "
        f"loads nothing from the network, and can be sent as it is.</footer>"
    )
    home = files("ubend.faces")
    script = (home / "report.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")
    body = (
        f'<header><p class="over">Training report · ubend {escape(__version__)} · {escape(_date(report))}</p>'
        f"{_contents(sections)}</header>"
        f'<main id="main">{"".join(html for _, _, html in sections)}</main>{footer}'
    )
    return Template((home / "report.html").read_text(encoding="utf-8")).substitute(
        title=escape(f"{report.name}: training report of ubend"),
        version=escape(__version__),
        script=script,
        script_hash=digest,
        gradient=_gradient(),
        body=body,
    )


_Section = tuple[str, str, str]
"""Anchor, name in the list of contents, HTML; an empty one is left out."""


def _contents(sections: Iterable[_Section]) -> str:
    links = "".join(f'<a href="#{anchor}">{name}</a>' for anchor, name, html in sections if html and name)
    return f'<nav aria-label="Contents">{links}</nav>'


# the first screen


def _first_screen(report: _Report, pictures: dict[str, Compared]) -> _Section:
    shown = _gallery(report.seen)[len(_gallery(report.seen)) // 2]
    part = "the middle of " if shown.truth.shape != shown.whole else ""
    how = "trained on" if report.seen.trained_on else "that the network never trained on"
    middle = "The median" if len(report.seen.ranked) > 2 else "One"
    drawn = _lines_in_words(report, shown, pictures[shown.name])
    caption = f"{middle} of the images {how}: {part}<b>{escape(shown.name)}</b>, {drawn}."
    alt = f"{shown.name}: the image with what the network found drawn on it."
    return (
        "top",
        "",
        f'<div class="first" id="top"><div><p class="over">{escape(report.name)}</p>{_headline(report)}'
        f'{_what(report)}<div class="use"><p class="small">Use it on images of any size:</p>'
        f"{_copyable(_command('ubend predict', report.run, 'IMAGES --out RESULTS'))}</div></div><figure>"
        f'<img src="{data_uri(pictures[shown.name].result)}" alt="{escape(alt)}">'
        f"<figcaption>{caption}</figcaption></figure></div>",
    )


def _lines_in_words(report: _Report, shown: Inspected, drawn: Compared) -> str:
    """Say what is drawn on the result, and no more."""
    if report.kind == "classes":
        return "each pixel in the colour of the class found" + ", hatched where it is wrong" * (drawn.missed > 0)
    if not shown.result.any():
        return "where nothing was found"
    only = "pixels" if report.kind == "binary" else "objects"
    pink = f"; filled with pink the {only} that are not in the annotation" if drawn.invented else ""
    return f"outlined in orange what was found{pink}"


def _headline(report: _Report) -> str:
    name = HEADLINES[report.contract.task.kind]
    if report.folds is not None:
        value, ends = report.contract.quality.get(name, math.nan), report.folds["intervals"].get(name)
        images = count(len(report.folds["of"]), "image")
        words = f"{_percent(value)} {_MEANS[report.kind]}"
        note = f"over all {images}, each predicted by a network that had not seen it ({report.folds['number']} folds)"
        return f"<h1>{words}</h1>" + _score_line(name, value, tuple(ends) if ends else None, note)
    evaluation = report.seen.evaluation
    value, ends = evaluation.overall[name], evaluation.intervals[name]
    if report.seen.trained_on:
        why = (
            "the recipe holds none out"
            if report.contract.recipe.training.held_out == 0
            else "there are fewer than three"
        )
        return (
            "<h1>How good it is on new images, nobody knows yet</h1>"
            f'<p class="note">No image was held out ({why}), so the pictures here are of images that the network was '
            f"trained on. They show that it has learnt, not that it will do as well elsewhere.</p>"
            + _score_line(name, value, None, "on the images it was trained on, which flatters")
        )
    part = "the middle of " if report.cut else ""
    left_out = "" if report.seen.complete else "; there are more, which were not looked at"
    note = f"on {part}{count(len(evaluation.names), 'image')} that the network never trained on{left_out}"
    return f"<h1>{_in_words(report)}</h1>" + _score_line(name, value, ends, note)


_MEANS = {
    "instances": "of all objects, in annotation or result, are in both",
    "binary": "of the foreground, in annotation or result, is in both",
    "classes": "mean overlap of the classes found with those annotated",
}


def _in_words(report: _Report) -> str:
    """Say the score as one would to a colleague."""
    evaluation, value = report.seen.evaluation, report.seen.evaluation.overall[HEADLINES[report.contract.task.kind]]
    if math.isnan(value):
        return "The images held out show nothing to score"
    if report.kind == "instances":
        found = _matched(report)
        missed, invented = (
            f"{number or 'none'}&nbsp;{word}" for number, word in ((found.fn, "missed"), (found.fp, "invented"))
        )
        return f"{found.tp} of {count(found.n_truth, 'object')} found, {missed}, {invented}"
    if report.kind == "classes" and evaluation.confusion is not None:
        right = float(np.trace(evaluation.confusion) / max(1, evaluation.confusion.sum()))
        return f"{_percent(right)} of the pixels get the right class"
    return f"{_percent(value)} {_MEANS[report.kind]}"


def _matched(report: _Report) -> cells.Matching:
    task = report.contract.task
    return cells.pooled(cells.match(class_indices(one.truth, task), one.result) for one in report.seen.images)


def _score_line(name: str, value: float, ends: tuple[float, float] | None, note: str) -> str:
    within = f", 95 % interval {ends[0]:.3f} to {ends[1]:.3f}" if ends else ""
    drawn = "" if math.isnan(value) else interval(value, ends, title=f"{name} {value:.3f}{within}; 1 is best.")
    shown = "–" if math.isnan(value) else f"{value:.3f}"
    return f'<div class="score"><b>{escape(name)} {shown}</b>{within}<br><span class="small">{note}</span>{drawn}</div>'


def _what(report: _Report) -> str:
    contract, made = report.contract, report.made
    numbers = len(made.get("images", {})), len(made.get("held_out", {}))
    channels = "gray" if contract.network.in_channels == 1 else count(contract.network.in_channels, "channel")
    held = f"; {numbers[1]} more {'was' if numbers[1] == 1 else 'were'} held out" if numbers[1] else ""
    what = _KINDS[report.kind]
    if report.kind == "classes":
        what = f"{len(contract.task.values)} classes"
    return (
        f'<p class="lead">A U-Net was trained to find <strong>{what}</strong> from '
        f"<strong>{count(numbers[0], 'annotated image')}</strong> ({channels}) in "
        f"<strong>{_duration(made.get('minutes'))}</strong>, {made.get('steps', 0):,} steps{held}.</p>"
    )


# images


def _gallery(seen: Inspection) -> list[Inspected]:
    """Worst, median and best; all where there are no more than three."""
    ranked = seen.ranked or list(seen.images)
    if len(ranked) <= 3:
        return ranked
    return [ranked[0], ranked[len(ranked) // 2], ranked[-1]]


def _images(report: _Report, pictures: dict[str, Compared]) -> _Section:
    shown = _gallery(report.seen)
    names = {1: ("",), 2: ("Worst", "Best"), 3: ("Worst", "Median", "Best")}[len(shown)]
    figures = "".join(
        _comparison(report, one, pictures[one.name], name) for one, name in zip(shown, names, strict=True)
    )
    number = count(len(report.seen.images), "image")
    if report.seen.trained_on:
        title, intro = (
            "Images the network was trained on",
            f"{number} of those that taught it: no test of how it does on others.",
        )
        if report.folds is not None:
            intro = (
                f"{number}. The model was trained on all images in the end, these among them; the score above is of "
                f"networks that had not seen the image that they were scored on."
            )
    else:
        title, intro = "Images it has never seen", f"{number} that the network was not trained on."
    if not report.seen.complete and len(report.seen.images) < MOST_IMAGES:
        command = _command("ubend report", report.run, report.data, "--overwrite")
        intro += f" There was no time for the others: <code>{command}</code> looks at all of them."
    elif not report.seen.complete:
        intro += " There are more; these are the first."
    if report.cut:
        rows, columns = max(one.truth.shape for one in report.seen.images)
        intro += f" Of large ones the middle, {rows}×{columns} px, was looked at."
    html = (
        f'<section id="images"><h2>{title}</h2><p class="lead">{intro} Move the slider, or use the arrow keys, to go '
        f"from the image to its annotation and on to the result.</p>"
        f'<div class="row compare-row of-{len(shown)}">{figures}</div>{_key(report)}</section>'
    )
    return "images", "Images", html


def _comparison(report: _Report, one: Inspected, drawn: Compared, place: str) -> str:
    name = escape(one.name)
    alts = (f"{one.name}: the image", _alt_of_truth(report, one, drawn), _alt_of_result(report, one, drawn))
    panes = "".join(
        f'<div class="pane"><img src="{data_uri(picture)}" alt="{escape(alt)}" width="{picture.shape[1]}" '
        f'height="{picture.shape[0]}"><span>{word}</span></div>'
        for picture, alt, word in zip((drawn.image, drawn.truth, drawn.result), alts, _STOPS, strict=True)
    )
    stops = "".join(f'<button type="button" aria-pressed="false">{word}</button>' for word in _STOPS)
    short = HEADLINES[report.contract.task.kind].split(" (")[0]
    score = "nothing to score" if math.isnan(one.score) else f"{short} {one.score:.2f}"
    label = f"{place}: " if place else ""
    return (
        f'<figure class="compare"><div class="panes">{panes}</div><div class="slide">'
        f'<input type="range" min="0" max="200" step="5" value="200" aria-label="{name}: image, truth or result">'
        f'<div class="stops">{stops}</div></div>'
        f"<figcaption>{label}<b>{name}</b>, {score}{_what_is_wrong(report, drawn)}</figcaption></figure>"
    )


_STOPS = ("image", "truth", "result")


def _alt_of_truth(report: _Report, one: Inspected, drawn: Compared) -> str:
    if report.kind == "classes":
        return f"{one.name}: each pixel in the colour of its annotated class"
    if report.kind == "binary":
        return f"{one.name}: the annotated foreground outlined in blue; missed pixels filled with yellow"
    number = count(_objects_in(class_indices(one.truth, report.contract.task)), "annotated object")
    return f"{one.name}: {number} outlined in blue; {drawn.missed} missed, filled with yellow"


def _alt_of_result(report: _Report, one: Inspected, drawn: Compared) -> str:
    if report.kind == "classes":
        return f"{one.name}: each pixel in the colour of the class found; wrong ones hatched"
    if report.kind == "binary":
        return f"{one.name}: the foreground found outlined in orange; invented pixels filled with pink"
    number = count(_objects_in(one.result), "object")
    return f"{one.name}: {number} found, outlined in orange; {drawn.invented} invented, filled with pink"


def _what_is_wrong(report: _Report, drawn: Compared) -> str:
    if report.kind != "instances":
        return ""
    return f"; {drawn.missed} missed, {drawn.invented} invented"


def _objects_in(labels: NDArray[Any]) -> int:
    return int(np.count_nonzero(np.unique(labels) > 0))


def _key(report: _Report) -> str:
    if report.kind == "classes":
        values = report.contract.task.values[:MOST_CLASSES]
        swatches = [
            (_swatch(fill=tuple(CLASS_COLOURS[k % len(CLASS_COLOURS)].astype(int))), f"class {value}")
            for k, value in enumerate(values)
        ]
        return _key_of([*swatches, (_HATCHED, "wrong, in the result")])
    thing = "pixels" if report.kind == "binary" else "objects"
    return _key_of(
        [
            (_swatch(line=TRUTH), "truth: annotated"),
            (_swatch(fill=MISSED), f"in the truth: missed {thing}"),
            (_swatch(line=RESULT), "result: found"),
            (_swatch(fill=INVENTED), f"in the result: invented {thing}"),
        ]
    )


def _key_of(entries: Iterable[tuple[str, str]]) -> str:
    return '<ul class="key">' + "".join(f"<li>{mark}{escape(word)}</li>" for mark, word in entries) + "</ul>"


def _swatch(*, line: tuple[int, ...] | None = None, fill: tuple[int, ...] | None = None) -> str:
    stroke = f'stroke="rgb{tuple(map(int, line))}" stroke-width="3"' if line else ""
    inside = f"rgb{tuple(map(int, fill))}" if fill else "none"
    return (
        f'<svg viewBox="0 0 18 14" aria-hidden="true"><rect x="2" y="2" width="14" height="10" fill="{inside}" '
        f"{stroke}/></svg>"
    )


_HATCHED = (
    '<svg viewBox="0 0 18 14" aria-hidden="true"><rect x="2" y="2" width="14" height="10" fill="#999"/>'
    '<path d="M2 8L8 2M4 12L14 2M10 12L16 6" stroke="#000" stroke-width="2"/></svg>'
)


# where it is unsure


def _unsure(report: _Report) -> _Section:
    candidates: Sequence[Inspected | Unlabelled] = report.unlabelled or report.seen.images
    ranked = sorted(candidates, key=lambda one: -one.unsure)
    highest = max(0.05, max(float(np.quantile(one.disagreement, 0.995)) for one in ranked[:SHOWN_UNSURE]))
    figures = "".join(
        f'<figure><img src="{data_uri(heat(one.image, one.disagreement, highest=highest))}" '
        f'alt="{escape(one.name)}: bright where the network is unsure; mean disagreement {one.unsure:.1%}">'
        f"<figcaption><b>{escape(one.name)}</b>, mean disagreement {one.unsure:.1%}</figcaption></figure>"
        for one in ranked[:SHOWN_UNSURE]
    )
    return (
        "unsure",
        "Where it is unsure",
        '<section id="unsure"><h2>Where the network is unsure</h2><p class="lead">It saw each image 8 times, turned by '
        "quarters and mirrored. Bright is where it did not say the same each time: there it guesses.</p>"
        f'<div class="row of-{len(ranked[:SHOWN_UNSURE])}">{figures}</div>'
        f'<div class="scale-bar"><span>all views agree</span><i></i><span>differ by {highest:.0%} or more</span></div>'
        f"{_annotate_next(report, ranked)}</section>",
    )


def _annotate_next(report: _Report, ranked: Sequence[Inspected | Unlabelled]) -> str:
    command = _command("ubend report", report.run, report.data, "--images IMAGES --overwrite")
    rank = (
        f"the images that nobody has annotated yet: <code>{command}</code> puts those first that would teach it most."
    )
    if len(ranked) == 1:  # there is no first among them
        return "" if report.unlabelled else f"<h3>What to annotate next</h3><p>The network can rank {rank}</p>"
    if report.unlabelled:
        intro = "Of the images without labels, those that would teach the network most come first."
    else:
        intro = f"More images that look like the first of these would teach the network most. It can also rank {rank}"
    most = max(one.unsure for one in ranked) or 1.0
    with_scores = not report.unlabelled
    short = HEADLINES[report.contract.task.kind].split(" (")[0]
    rows = "".join(
        f'<tr><td class="n">{number}</td><td class="name">{escape(one.name)}</td><td class="n">{one.unsure:.1%}</td>'
        f'<td><span class="meter"><i style="width:{one.unsure / most:.0%}"></i></span></td>{_score_cell(one)}</tr>'
        for number, one in enumerate(ranked[:MOST_RANKED], start=1)
    )
    head = f'<th class="n" scope="col">{escape(short)}</th>' if with_scores else ""
    more = f'<p class="small">and {len(ranked) - MOST_RANKED} more</p>' if len(ranked) > MOST_RANKED else ""
    return (
        f'<h3>What to annotate next</h3><p>{intro}</p><div class="wide"><table><thead><tr>'
        f'<th class="n" scope="col">#</th><th scope="col">image</th><th class="n" scope="col">unsure</th><td></td>'
        f"{head}</tr></thead>"
        f"<tbody>{rows}</tbody></table></div>{more}"
    )


def _score_cell(one: Inspected | Unlabelled) -> str:
    if isinstance(one, Unlabelled):
        return ""
    return f'<td class="n">{_three(one.score)}</td>'


def _gradient() -> str:
    return ", ".join(f"rgb({red} {green} {blue})" for red, green, blue in HEAT)


# scores


def _scores(report: _Report) -> _Section:
    evaluation = report.seen.evaluation
    parts = []
    if report.folds is not None:
        parts.append(_table_of_folds(report))
    else:
        parts.append(_table_of_scores(evaluation, evaluation.headline))
        parts.append(_table_of_classes(evaluation))
    parts.append("".join(f'<p class="small">{_with_code(text)}</p>' for text in _how_to_read(report)))
    title = "Scores" if not report.seen.trained_on or report.folds is not None else "Scores on its own training images"
    return "scores", "Scores", f'<section id="scores"><h2>{title}</h2>{"".join(parts)}</section>'


def _table_of_scores(evaluation: Evaluation, headline: str) -> str:
    columns = [column.score for column in evaluation.columns if column.score.of_class is None]
    rows = [
        (one.name, evaluation.overall[one.name], evaluation.intervals[one.name], one.meaning, one.name == headline)
        for one in sorted(columns, key=lambda one: one.name != headline)
    ]
    return _table(rows)


def _table_of_folds(report: _Report) -> str:
    assert report.folds is not None
    meanings = {column.score.name: column.score.meaning for column in report.seen.evaluation.columns}
    headline, ends = HEADLINES[report.contract.task.kind], report.folds["intervals"]
    names = sorted(report.contract.quality, key=lambda name: name != headline)
    return _table(
        [
            (name, report.contract.quality[name], ends.get(name), meanings.get(name, ""), name == headline)
            for name in names[:MOST_CLASSES]
        ]
    )


def _table(rows: Iterable[tuple[str, float, Sequence[float] | None, str, bool]]) -> str:
    body = "".join(
        f'<tr{" class=chief" if chief else ""}><td>{escape(name)}</td><td class="n">{_three(value)}</td>'
        f'<td class="n">{"–" if ends is None else f"{ends[0]:.3f}–{ends[1]:.3f}"}</td>'
        f'<td class="lead">{escape(meaning)}</td></tr>'
        for name, value, ends, meaning, chief in rows
    )
    return (
        '<div class="wide"><table><thead><tr><th scope="col">score</th><th class="n" scope="col">value</th>'
        '<th class="n" scope="col">95 % interval</th><th scope="col">what it is</th></tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _table_of_classes(evaluation: Evaluation) -> str:
    if evaluation.kind != "classes" or evaluation.confusion is None:
        return ""
    total = max(1, int(evaluation.confusion.sum()))
    rows = "".join(
        f"<tr><td>{value}</td>"
        f'<td class="n">{_three(evaluation.overall[f"IoU of {value}"])}</td>'
        f'<td class="n">{evaluation.confusion[k].sum() / total:.1%}</td>'
        f'<td class="n">{evaluation.confusion[:, k].sum() / total:.1%}</td></tr>'
        for k, value in enumerate(evaluation.values[:MOST_CLASSES])
    )
    return (
        '<h3>Class by class</h3><div class="wide"><table><thead><tr><th scope="col">label value</th>'
        '<th class="n" scope="col">IoU</th><th class="n" scope="col">share of the truth</th>'
        f'<th class="n" scope="col">share of the result</th></tr></thead><tbody>{rows}</tbody></table></div>'
    )


def _how_to_read(report: _Report) -> list[str]:
    """Say what the numbers are, and what they are not."""
    contract, seen = report.contract, report.seen
    if report.folds is not None:
        chosen = " Rules for objects were chosen on the other folds." if report.kind == "instances" else ""
        return [
            f"Of all images, each by one of {report.folds['number']} networks that had not seen it.{chosen} The model "
            f"itself has seen more images than each of them and tends to be a little better. folds.csv has each image."
        ]
    number = len(seen.evaluation.names)
    sentences = list(seen.evaluation.notes)
    if number < FEWEST_IMAGES:
        sentences.append(f"No 95 % interval: it takes {FEWEST_IMAGES} images, here {_are(number)}.")
    elif not seen.trained_on:
        sentences.append(
            "95 % interval: bootstrap over images. It says how much the score depends on which images were held out."
        )
    if seen.trained_on:
        return sentences
    headline = HEADLINES[contract.task.kind]
    stated = contract.quality.get(headline)
    if stated is not None and contract.provenance.get("scored") == "as it predicts":
        sentences.append(
            "How foreground becomes objects was chosen with the help of held-out images, so these scores flatter a "
            f"little. The model file states {headline} {stated:.3f}, measured on them when training ended. "
            "`ubend train --folds 5` gives a number that flatters nobody."
        )
    elif stated is not None and report.kind == "instances":
        sentences.append(
            f"How foreground becomes objects was chosen with the help of held-out images, so these scores flatter a "
            f"little. Before that choice, and from one view instead of {_views(contract)}, training measured "
            f"{headline} {stated:.3f}, which the model file states: nothing was chosen for that number, and it is too "
            f"low for the model as it is now. `ubend train --folds 5` gives one that is neither."
        )
    elif stated is not None and contract.views != "one":
        sentences.append(
            f"As the model predicts now, averaged over {_views(contract)}. Training measured {headline} {stated:.3f} "
            f"from one view, which the model file states."
        )
    return sentences


def _views(contract: Contract) -> str:
    return {"one": "one view", "dihedral": "8 views", "rotations": "7 views"}[contract.views]


def _are(number: int) -> str:
    return "is 1" if number == 1 else f"are {number}"


# objects


def _objects(report: _Report) -> _Section:
    if report.kind != "instances":
        return "objects", "Objects", ""
    unit, sizes = _diameters(report)
    truth, result = sizes
    if not truth.size and not result.size:
        return "objects", "Objects", ""
    drawn = histogram(
        result, truth, x_label=f"equivalent diameter ({unit})", names=("found", "annotated"),
        title=f"How large the objects are. Found: {_sizes_in_words(result, unit)}. "
        f"Annotated: {_sizes_in_words(truth, unit)}.",
    )  # fmt: skip
    rows = "".join(
        f'<tr><td>{word}</td><td class="n">{len(values):,}</td>'
        + "".join(f'<td class="n">{text}</td>' for text in _quantile_texts(values))
        + "</tr>"
        for word, values in (("annotated", truth), ("found", result))
    )
    table = (
        f'<div class="wide"><table><thead><tr><th>diameter, {unit}</th><th class="n" scope="col">objects</th>'
        '<th class="n" scope="col">10 % below</th><th class="n" scope="col">median</th>'
        f'<th class="n" scope="col">10 % above</th></tr></thead><tbody>{rows}</tbody></table></div>'
    )
    where = "the images looked at" if not report.seen.trained_on else "these training images"
    return (
        "objects",
        "Objects",
        f'<section id="objects"><h2>The objects and their sizes</h2><p class="lead">In {where}. The diameter is that '
        f'of the disc of equal area.</p><div class="charts"><figure>{drawn}</figure><div>{table}'
        f'<p class="small">How foreground becomes objects: {escape(rules_in_words(report.contract))}.</p></div></div>'
        f"</section>",
    )


def _diameters(report: _Report) -> tuple[str, tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Equivalent diameters of truth and result; in micrometres if all images know their pixel size."""
    known = all(one.pixel_size is not None for one in report.seen.images)
    found: tuple[list[NDArray[np.float64]], list[NDArray[np.float64]]] = ([], [])
    for one in report.seen.images:
        size = one.pixel_size or 1.0 if known else 1.0
        for labels, values in zip((class_indices(one.truth, report.contract.task), one.result), found, strict=True):
            values.append(measure_objects(labels).equivalent_diameter * size)
    return ("µm" if known else "px"), (np.concatenate(found[0]), np.concatenate(found[1]))


def _quantile_texts(values: NDArray[np.float64]) -> list[str]:
    if not values.size:
        return ["–"] * 3
    return [f"{value:.3g}" for value in np.quantile(values, (0.1, 0.5, 0.9))]


def _sizes_in_words(values: NDArray[np.float64], unit: str) -> str:
    if not values.size:
        return "none"
    return f"{count(len(values), 'object')}, median {np.median(values):.3g} {unit}"


# curves


def _read_log(run: Path) -> dict[str, NDArray[np.float64]]:
    """Read the columns of log.csv; none if there is no log, as of a model trained in Python."""
    path = run / "log.csv"
    if not path.is_file():
        return {}
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    names = ("step", "seconds", "energy", "learning_rate", "waiting")
    try:
        return {name: np.array([float(row[name]) for row in rows]) for name in names} if rows else {}
    except (KeyError, TypeError, ValueError):  # written by hand, or cut off
        return {}


def _curves(report: _Report) -> _Section:
    if not report.log:
        return "curves", "Learning", ""
    seconds, energy, rate = (report.log[name] for name in ("seconds", "energy", "learning_rate"))
    unit, x = ("minutes", seconds / 60) if seconds[-1] >= 120 else ("seconds", seconds)
    last = energy[-max(1, len(energy) // 20) :]
    title = f"Energy over {unit}: {energy[0]:.3g} at the first step, {np.median(last):.3g} at the end."
    drawn = curve(x, energy, title=title, x_label=unit, y_label="energy", logarithmic=bool(energy.min() > 0))
    rates = curve(
        x, rate, x_label=unit, y_label="learning rate",
        title=f"Learning rate over {unit}: highest {rate.max():.2g}, {rate[-1]:.2g} at the end.",
    )  # fmt: skip
    return (
        "curves",
        "Learning",
        '<section id="curves"><h2>How it learned</h2><div class="charts">'
        f"<figure>{drawn}<figcaption>Energy, the number that training lowers. The line is the median of neighbouring "
        f"steps; most of them lie in the band.</figcaption></figure>"
        f"<figure>{rates}<figcaption>Learning rate: how large the steps were.</figcaption></figure></div></section>",
    )


# how it was made


def _how_made(report: _Report) -> _Section:
    contract, made = report.contract, report.made
    network = contract.network
    plan = made.get("plan", [])
    facts = {
        "Data": f"{report.data}",
        "Images": f"{len(made.get('images', {}))} trained on, {len(made.get('held_out', {}))} held out",
        "Labels": _KINDS[report.kind]
        + (f": {', '.join(map(str, contract.task.values[:MOST_CLASSES]))}" if contract.task.values else ""),
        "Pixel size": f"{contract.pixel_size:g} µm" if contract.pixel_size else "not known",
        "Network": f"U-Net of depth {network.core.depth}, width {network.width}{at_resolution(network.coarse)}; "
        f"{count_parameters(network):,} parameters",
        "Plan": " ".join([f"{plan[0]}.", *plan[1:]]) if plan else "",
        "Time": f"{_duration(made.get('minutes'))}, {made.get('steps', 0):,} steps"
        + (f"; waited for tiles {report.log['waiting'][-1]:.1%} of the time" if report.log else ""),
        "Machine": str(made.get("machine", "")),
        "Seed": str(made.get("seed", "")),
        "Made": _date(report),
        "With": ", ".join(f"{name} {number}" for name, number in made.get("versions", {}).items()),
    }
    lines = "".join(f"<dt>{name}</dt><dd>{escape(value)}</dd>" for name, value in facts.items() if value)
    trained, held = made.get("images", {}), made.get("held_out", {})
    names = f"<p><b>Trained on</b> {_names(trained)}.</p>" + (f"<p><b>Held out</b> {_names(held)}.</p>" if held else "")
    return (
        "made",
        "How it was made",
        f'<section id="made"><h2>How it was made</h2><dl>{lines}</dl>'
        f'<details><summary>Which images</summary><div class="small">{names}</div></details>'
        f"<details><summary>Recipe</summary><pre>{escape(to_toml(contract.recipe))}</pre></details></section>",
    )


def _names(images: dict[str, str], most: int = 200) -> str:
    rest = f" and {len(images) - most} more" if len(images) > most else ""
    return escape(", ".join(list(images)[:most]) + rest)


def _date(report: _Report) -> str:
    return str(report.made.get("date", "")).replace("T", " ").replace("+00:00", " UTC")


# what next


def _next(report: _Report) -> _Section:
    run, data = report.run, report.data
    steps = [
        ("Segment images of any size", _command("ubend predict", run, "IMAGES --out RESULTS")),
        ("Score results against a truth that you keep apart", _command("ubend evaluate", "RESULTS TRUTH")),
        ("Know which images to annotate next", _command("ubend report", run, data, "--images IMAGES --overwrite")),
        ("Know what more images would bring", _command("ubend learning-curve", data, "--out CURVE --minutes 60")),
    ]
    if report.folds is None:
        steps.insert(
            2, ("Know better how good it is", _command("ubend train", data, "--out RUN2 --folds 5 --minutes 30"))
        )
    blocks = "".join(f"<h3>{escape(why)}</h3>{_copyable(command)}" for why, command in steps)
    return "next", "Next", f'<section id="next"><h2>Next</h2>{blocks}</section>'


def _with_code(text: str) -> str:
    """Show a text in which commands stand between backticks."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))


def _copyable(text: str) -> str:
    """Show a text that is HTML already, with a button that copies it."""
    return f'<div class="copy"><button type="button">copy</button><pre tabindex="0">{text}</pre></div>'


def _command(*parts: str | Path) -> str:
    """Join a command that can be copied into a shell, as HTML."""
    return escape(" ".join(shlex.quote(str(part)) if isinstance(part, Path) else part for part in parts))


def _cite(report: _Report) -> _Section:
    made = report.made
    version = str(made.get("versions", {}).get("ubend", __version__))
    software = (
        "@software{ubend,\n  title   = {ubend: a {U-Net} from a handful of annotated images},\n"
        f"  author  = {{{{The ubend developers}}}},\n  version = {{{version}}},\n"
        f"  year    = {{{_date(report)[:4]}}}\n}}"
    )
    return (
        "cite",
        "Cite",
        '<section id="cite"><h2>How to cite</h2><p>The method: O. Ronneberger, P. Fischer, T. Brox. U-Net: '
        "Convolutional Networks for Biomedical Image Segmentation. MICCAI 2015, LNCS 9351, 234–241. "
        f'<a href="{_DOI}">doi:10.1007/978-3-319-24574-4_28</a></p>'
        f"<p>The program: The ubend developers. ubend, version {escape(version)}.</p>"
        f"<h3>For the methods section</h3>{_copyable(escape(_methods(report, version)))}"
        f"<details><summary>BibTeX</summary>{_copyable(escape(_PAPER + chr(10) * 2 + software))}</details></section>",
    )


def _methods(report: _Report, version: str) -> str:
    made, name = report.made, HEADLINES[report.contract.task.kind]
    images = len(made.get("images", {}))
    text = (
        f"Images were segmented with a U-Net (Ronneberger et al. 2015, doi:10.1007/978-3-319-24574-4_28) of depth "
        f"{report.contract.network.core.depth} and width {report.contract.network.width}"
        f"{at_resolution(report.contract.network.coarse)}, trained with ubend {version} on "
        f"{count(images, 'annotated image')} for {made.get('steps', 0):,} steps"
    )
    if report.folds is not None:
        value, ends = report.contract.quality.get(name, math.nan), report.folds["intervals"].get(name)
        within = f" (95 % interval {ends[0]:.2f} to {ends[1]:.2f}, bootstrap over images)" if ends else ""
        return f"{text}. In {report.folds['number']}-fold cross-validation {name} was {value:.2f}{within}."
    if report.seen.trained_on or report.cut or not report.seen.complete:  # not a score to publish
        return f"{text}."
    found = report.seen.evaluation
    held = f"{count(len(found.names), 'image')} that it was not trained on"
    return f"{text}. On {held}, {name} was {found.overall[name]:.2f}."


# words and numbers


def _percent(value: float) -> str:
    """Say a share with as many digits as it takes to tell it from all."""
    if math.isnan(value):
        return "–"
    return f"{value:.1%}".replace("%", " %") if value > 0.985 else f"{value:.0%}".replace("%", " %")


def _three(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.3f}"


def _duration(minutes: float | None) -> str:
    if minutes is None:
        return "an unknown time"
    if minutes < 2:
        return count(round(60 * minutes), "second")
    return f"{minutes:.0f} minutes" if minutes < 120 else f"{minutes / 60:.1f} hours"
