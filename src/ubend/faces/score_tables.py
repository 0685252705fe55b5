"""The scores of an evaluation on a terminal or in a pipe: images, all together, and what the scores mean."""

import math
import statistics
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from ubend.faces.terminal import escape
from ubend.run.evaluation import Evaluation, ImageScores
from ubend.run.pooling import FEWEST_IMAGES, RESAMPLES, Column

MOST_IMAGES = 10
"""Of more than these only some are shown."""

WORST = 5
FEW_FOR_AN_INTERVAL = 10
VERY_SMALL = 0.001
WIDE = 140
"""From so many characters on the meanings have room in the table."""


def print_scores(console: Console, evaluation: Evaluation, *, every: bool = False) -> None:
    """Print the images, or the worst of many, then the overall scores with their intervals and meanings.

    Parameters
    ----------
    console : Console
    evaluation : Evaluation
    every : bool
        All images, however many.
    """
    _print_images(console, evaluation, every=every)
    console.print()
    _print_overall(console, evaluation)
    console.print()
    for sentence in (*evaluation.notes, *_how_to_read(evaluation)):
        console.print(f"[dim]{escape(sentence)}[/]")


def score_text(value: float | None) -> str:
    """Write a score with four decimals, a very small error with seven, and a dash where there is none."""
    if value is None or math.isnan(value):
        return "–"
    return f"{value:.7f}" if 0 < value < VERY_SMALL else f"{value:.4f}"


def _print_images(console: Console, evaluation: Evaluation, *, every: bool) -> None:
    rows, by = evaluation.rows, _headline_of_images(evaluation)
    ranked = sorted((row for row in rows if not math.isnan(row.scores[by])), key=lambda row: row.scores[by])
    if every or len(rows) <= MOST_IMAGES:
        shown = rows
    else:
        console.print(f"The worst of {len(rows)} images by {by} (--all shows all, --csv FILE writes all):")
        shown = (*ranked[:WORST], _middle(rows), *(ImageScores(f"best: {row.name}", row.scores) for row in ranked[-1:]))
    names = _that_fit(evaluation, console.width - _name_width(console, shown))
    table = _table()
    table.add_column("image", overflow="fold", width=_name_width(console, shown))
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)
    for row in shown:
        table.add_row(escape(row.name), *(score_text(row.scores[name]) for name in names))
    console.print(table)
    if shown is rows and len(ranked) > 1:
        worst = ", ".join(f"{row.name} {score_text(row.scores[by])}" for row in ranked[:3])
        console.print(escape(f"Worst by {by}: {worst}"))
    if len(ranked) < len(rows):
        nothing = [row.name for row in rows if math.isnan(row.scores[by])]
        console.print(escape(f"Without {by}, having nothing to score: {_some(nothing)}"))


def _print_overall(console: Console, evaluation: Evaluation) -> None:
    headline = evaluation.headline
    ends = evaluation.intervals[headline]
    within = f", 95 % interval {_interval_text(ends)}" if ends else ""
    images = "1 image" if len(evaluation.names) == 1 else f"{len(evaluation.names)} images"
    console.print(
        f"[bold]Over all:[/] {headline} [bold]{score_text(evaluation.overall[headline])}[/]{within}; "
        f"{images}, scored as {evaluation.kind} (--task says otherwise)"
    )
    together = [column for column in evaluation.columns if column.score.of_class is None]
    wide = console.width >= WIDE
    sure = any(evaluation.intervals.values())
    table = _table("score", "value", *["95 % interval"] * sure, "over", *["meaning"] * wide)
    for score in (column.score for column in together):
        interval = [_interval_text(evaluation.intervals[score.name])] * sure
        value = score_text(evaluation.overall[score.name])
        table.add_row(score.name, value, *interval, score.pooled_over, *[score.meaning] * wide)
    console.print(table)
    _print_classes(console, evaluation)
    if not wide:
        _print_meanings(console, together)


def _print_classes(console: Console, evaluation: Evaluation) -> None:
    """Print a row for each class, if there are any."""
    single = [column.score for column in evaluation.columns if column.score.of_class is not None]
    if not single:
        return
    kinds = list(dict.fromkeys(score.name.split(" of ")[0] for score in single))
    console.print()
    sure = any(evaluation.intervals.values())
    table = _table("class", kinds[0], *["95 % interval"] * sure, *kinds[1:])
    for value in dict.fromkeys(score.of_class for score in single):
        first, *others = (f"{kind} of {value}" for kind in kinds)
        numbers = [score_text(evaluation.overall[name]) for name in (first, *others)]
        interval = [_interval_text(evaluation.intervals[first])] * sure
        table.add_row(str(value), numbers[0], *interval, *numbers[1:])
    console.print(table)


def _print_meanings(console: Console, columns: Sequence[Column]) -> None:
    meanings = {column.score.image_name: column.score.meaning for column in reversed(columns)}
    console.print()
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column()
    for name in dict.fromkeys(column.score.image_name for column in columns):
        table.add_row(name, meanings[name], style="dim")
    console.print(table)


def _how_to_read(evaluation: Evaluation) -> list[str]:
    over = {column.score.pooled_over for column in evaluation.columns if column.score.of_class is None}
    counted = " and ".join(what for what in ("pixels", "objects") if what in over)
    pooling = "; ".join(
        sentence
        for sentence, said in (
            (f"over {counted}: counted in all images, then divided once, so large images weigh more", counted),
            ("over classes: each class over pixels, then the mean of the classes", "classes" in over),
            ("over images: mean of the images' own scores, all weigh alike", "images" in over),
        )
        if said
    )
    pooling = f"How scores were joined: {pooling}."
    images = len(evaluation.names)
    if images < FEWEST_IMAGES:
        return [pooling, f"No 95 % interval: it takes {FEWEST_IMAGES} images, here {_are(images)}."]
    if not any(evaluation.intervals.values()):
        return [pooling, f"No 95 % interval: no score has {FEWEST_IMAGES} images with something to score."]
    few = " Of so few images it comes out rather too narrow." if images < FEW_FOR_AN_INTERVAL else ""
    interval = (
        f"95 % interval: bootstrap over images, {RESAMPLES:,} resamples. It says how much the score depends on which "
        f"images were scored, not on how the training went.{few}"
    )
    return [pooling, interval]


def _are(number: int) -> str:
    return "is 1" if number == 1 else f"are {number}"


def _middle(rows: Sequence[ImageScores]) -> ImageScores:
    """Return the median of each score, as if it were an image."""
    known = {name: [row.scores[name] for row in rows if not math.isnan(row.scores[name])] for name in rows[0].scores}
    return ImageScores(
        "median", {name: statistics.median(values) if values else math.nan for name, values in known.items()}
    )


def _headline_of_images(evaluation: Evaluation) -> str:
    [score] = [column.score for column in evaluation.columns if column.score.name == evaluation.headline]
    return score.image_name


def _that_fit(evaluation: Evaluation, width: int) -> list[str]:
    """Name the scores that have room beside each other, the headline first."""
    first = _headline_of_images(evaluation)
    names = [first, *(name for name in evaluation.rows[0].scores if name != first)]
    used = 0
    fitting: list[str] = []
    for name in names:
        used += 2 + max(len(name), len(score_text(0.0)))
        if used > width and fitting:
            break
        fitting.append(name)
    return fitting


def _name_width(console: Console, rows: Sequence[ImageScores]) -> int:
    longest = max(len("image"), *(len(row.name) for row in rows))
    return min(longest, max(console.width // 3, len("median")))


def _table(*names: str) -> Table:
    """Make a table without lines; numbers to the right."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in names:
        words = name in ("score", "over", "meaning", "class")
        table.add_column(name, justify="left" if words else "right", no_wrap=name not in ("score", "meaning"))
    return table


def _interval_text(ends: tuple[float, float] | None) -> str:
    return "–" if ends is None else "–".join(map(score_text, ends))


def _some(names: Sequence[str]) -> str:
    rest = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + rest
