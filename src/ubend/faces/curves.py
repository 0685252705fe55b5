"""The learning curve for a person: what will be trained, a table, an answer in words, and a picture."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from ubend.data.formats import write_atomically
from ubend.faces.terminal import escape
from ubend.run.contract import Contract
from ubend.run.learning_curve import CurvePlan, LearningCurve, signed
from ubend.run.normalisation import count

_INK, _PALE, _COLOUR = "#222222", "#777777", "#0072b2"


def print_plan(console: Console, plan: CurvePlan, contract: Contract) -> None:
    """Say what will be trained, and for how long.

    Parameters
    ----------
    console : Console
    plan : CurvePlan
    contract : Contract
        For all images.
    """
    held = sorted({len(images) for images in plan.held_out})
    out = f"{held[0]} to {held[-1]} images" if len(held) > 1 else count(held[0], "image")
    console.print(
        f"{count(plan.images, 'image')}; labels: {contract.task.kind}, as seen from their values "
        f"(--task says otherwise)"
    )
    console.print(
        f"{plan.repeats} repeats, each of which holds out {out} and trains on {_listed(plan.sizes)} of the others: "
        f"{plan.trainings} trainings of {_length(plan)}"
    )
    for note in plan.notes:
        console.print(escape(note))


def print_curve(console: Console, curve: LearningCurve) -> None:
    """Print the scores by number of images, and what they say in words.

    Parameters
    ----------
    console : Console
    curve : LearningCurve
    """
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("images", curve.score_name, "95 % interval", ""):
        table.add_column(name, justify="left" if name == "" else "right", no_wrap=True)
    _, *rows = curve.to_table()
    for images, score, low, high, how in rows:
        ends = f"{low:.4f}–{high:.4f}" if isinstance(low, float) and isinstance(high, float) else "–"
        value = f"{score:.4f}" if isinstance(score, float) else "–"
        table.add_row(str(images), value, ends, "from the curve" if how == "foreseen" else "")
    console.print(table)
    console.print()
    for sentence in in_words(curve):
        console.print(escape(sentence))


def in_words(curve: LearningCurve) -> list[str]:
    """Say how good a model is with the images at hand, what more would bring, and how far to believe it.

    Parameters
    ----------
    curve : LearningCurve

    Returns
    -------
    list of str
        Sentences.
    """
    plan, outlook, name = curve.plan, curve.outlook, curve.score_name
    if outlook is not None:
        low, high = outlook.interval
        least, most = outlook.gain_interval
        answer = [
            f"With your {plan.images} images: {name} {outlook.score:.2f} (95 % {low:.2f} to {high:.2f}). "
            f"{outlook.more} more would bring about {signed(outlook.gain)} ({signed(least)} to {signed(most)})."
        ]
    else:
        low, high = curve.intervals[-1]
        answer = [
            f"With {plan.sizes[-1]} of your {plan.images} images: {name} {curve.scores[-1]:.2f} "
            f"(95 % {low:.2f} to {high:.2f}).",
            f"What more would bring these scores do not tell: {curve.why_no_outlook}.",
        ]
    return [
        *answer,
        f"Every point comes from trainings of {_length(plan)}: a model that is trained longer scores better, and more "
        f"images may bring it more, or less, than said here.",
    ]


def save_curve(path: Path, curve: LearningCurve, *, overwrite: bool = False) -> None:
    """Draw the scores over the number of images, with their intervals; dashed where nothing was measured.

    Parameters
    ----------
    path : Path
        Of a PNG.
    curve : LearningCurve
    overwrite : bool
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.0, 5.0), dpi=150, layout="constrained", facecolor="white")
    axis = figure.subplots()
    axis.set_facecolor("white")
    _draw_points(axis, curve)
    _draw_law(axis, curve)
    _label(axis, curve)
    figure.suptitle(_title(curve), fontsize=11, x=0.012, ha="left", weight="bold", color=_INK)
    write: Callable[[Path], object] = lambda part: figure.savefig(part, format="png", facecolor="white")  # noqa: E731
    write_atomically(path, write, overwrite=overwrite)


def _draw_points(axis: Any, curve: LearningCurve) -> None:
    sizes = curve.plan.sizes
    for repeat in zip(*curve.of_repeats, strict=True):
        axis.plot(sizes, repeat, color=_PALE, linewidth=0.6, alpha=0.6, zorder=1)
    below = [max(0.0, score - low) for score, (low, _) in zip(curve.scores, curve.intervals, strict=True)]
    above = [max(0.0, high - score) for score, (_, high) in zip(curve.scores, curve.intervals, strict=True)]
    axis.errorbar(
        sizes, curve.scores, yerr=[below, above], fmt="o", color=_INK, markersize=5, capsize=3, linewidth=1.2, zorder=4,
        label="measured on held-out images, 95 % interval",
    )  # fmt: skip
    axis.plot([], [], color=_PALE, linewidth=0.6, label=f"each of the {curve.plan.repeats} repeats")


def _draw_law(axis: Any, curve: LearningCurve) -> None:
    drawn = curve.drawn()
    if not drawn:
        return
    measured = curve.plan.sizes[-1]
    numbers, scores, low, high = (list(values) for values in zip(*drawn, strict=True))
    axis.fill_between(
        numbers, low, high, color=_COLOUR, alpha=0.18, linewidth=0, zorder=2, label="95 % interval of the power law"
    )
    last = sum(n <= measured for n in numbers)
    axis.plot(
        numbers[:last], scores[:last], color=_COLOUR, linewidth=1.8, zorder=3, label="power law through the scores"
    )
    axis.plot(
        numbers[last - 1 :], scores[last - 1 :], color=_COLOUR, linewidth=1.8, linestyle=(0, (4, 3)), zorder=3,
        label="power law, beyond what was measured",
    )  # fmt: skip
    axis.axvline(curve.plan.images, color=_INK, linewidth=0.8, linestyle=":", zorder=1)
    axis.annotate(
        f"your {curve.plan.images}", (curve.plan.images, 0.02), xycoords=("data", "axes fraction"), xytext=(4, 0),
        textcoords="offset points", fontsize=8.5, color=_INK,
    )  # fmt: skip


def _label(axis: Any, curve: LearningCurve) -> None:
    outlook, sizes = curve.outlook, curve.plan.sizes
    ticks = [*sizes, *((outlook.images, outlook.images + outlook.more) if outlook else ())]
    axis.set_xscale("log", base=2)
    axis.set_xticks(_apart(ticks), labels=[str(n) for n in _apart(ticks)])
    axis.minorticks_off()
    axis.set_xlim(min(ticks) / 1.15, max(ticks) * 1.15)
    axis.set_xlabel(f"annotated images to train on (number); {_length(curve.plan)} a training", color=_INK)
    axis.set_ylabel(f"{curve.score_name}, 0 to 1", color=_INK)
    axis.grid(axis="y", color="#dddddd", linewidth=0.6, zorder=0)
    axis.spines[["top", "right"]].set_visible(False)
    axis.tick_params(colors=_INK)
    handles, labels = axis.get_legend_handles_labels()
    order = sorted(range(len(labels)), key=lambda k: ("measured on" not in labels[k], "repeats" not in labels[k]))
    axis.figure.legend(
        [handles[k] for k in order],
        [labels[k] for k in order],
        frameon=False,
        fontsize=8.5,
        loc="outside lower left",
        ncols=2,
    )


def _apart(ticks: list[int]) -> list[int]:
    """Leave out what would be written over its neighbour."""
    kept: list[int] = []
    for tick in sorted(set(ticks), reverse=True):
        if not kept or kept[-1] / tick >= 1.12:
            kept.append(tick)
    return kept[::-1]


def _title(curve: LearningCurve) -> str:
    outlook = curve.outlook
    if outlook is None:
        return f"{curve.score_name} by number of images; not enough to look ahead"
    return f"{outlook.more} images more than your {outlook.images}: about {signed(outlook.gain)} {curve.score_name}"


def _length(plan: CurvePlan) -> str:
    return f"{plan.minutes:.2g} minutes" if plan.minutes else count(plan.steps, "step")


def _listed(sizes: tuple[int, ...]) -> str:
    *first, last = map(str, sizes)
    return f"{', '.join(first)} and {last}" if first else last
