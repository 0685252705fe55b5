"""What prediction says of images unlike those trained on: once for a folder, with numbers and what to do."""

from collections.abc import Callable, Sized

from ubend.faces.terminal import warn
from ubend.run.contract import Contract, Unlike
from ubend.run.drift import LIMIT, Difference, Drift, Reference

__all__ = ["range_in_words", "warn_of_diameters", "warn_of_unlike"]

MOST_DIFFERENCES = 3
"""So many are told of the image that has drifted furthest."""

_IN_WORDS: dict[str, tuple[str, str, str, Callable[[float], str], str]] = {
    "extent": ("less contrast", "more contrast", "values over", lambda value: f"{2**value:,.4g}", ""),
    "brightness": ("darker", "brighter", "median at", lambda value: f"{100 * value:.0f}", " % of its range"),
    "noise": ("smoother", "noisier", "noise", lambda value: f"{100 * 2**value:.2g}", " % of its range"),
    "sharpness": ("out of focus or enlarged", "sharper or reduced", "sharpness", lambda value: f"{2**value:.2g}", ""),
    "polarity": ("darker details", "brighter details", "polarity", lambda value: f"{value:+.1f}", ""),
}
"""Too low, too high, what is measured, how its number is written, and its unit."""


def warn_of_unlike(images: dict[str, Unlike], contract: Contract) -> None:
    """Say how many images look, or are stored or named, unlike those trained on; of each kind one line.

    Parameters
    ----------
    images : dict of str to Unlike
        By the names of the images; at least one.
    contract : Contract
        With its reference.
    """
    assert contract.reference is not None  # else nothing is known to be unlike
    drifts = {name: one.drift for name, one in images.items() if one.drift is not None}
    if drifts:
        warn(_of_drift(drifts, contract.reference))
    dtypes = {name: one.dtype for name, one in images.items() if one.dtype is not None}
    if dtypes:
        first, known = next(iter(dtypes)), " and ".join(contract.reference.dtypes)
        warn(
            f"{_images(dtypes)} of {' and '.join(sorted(set(dtypes.values())))} values, and the model was trained on "
            f"{known}: a conversion may have cut values off; give images as they were recorded (the first is {first})",
        )
    names = {name: one.channel_names for name, one in images.items() if one.channel_names is not None}
    if names:
        first = next(iter(names))
        warn(
            f"{_images(names)} whose channels are named otherwise: {', '.join(names[first])} in {first}, and the model "
            f"was trained on {', '.join(contract.channel_names)}: bring them into that order",
        )


def warn_of_diameters(diameters: dict[str, float], contract: Contract) -> None:
    """Say that objects are larger or smaller than all those trained on."""
    assert contract.reference is not None
    assert contract.reference.diameters is not None
    known, low, high = contract.reference.diameters, min(diameters.values()), max(diameters.values())
    found = f"{low:.3g}" if low == high else f"{low:.3g} to {high:.3g}"
    warn(
        f"{_images(diameters)} with objects of {found} px (median diameter of an image), and those trained on have "
        f"{range_in_words(known.least, known.most)} px: of another magnification? Segment at the size trained on: "
        f"--resample, where files say their pixel size, or resize them (the first is {next(iter(diameters))})",
    )


def range_in_words(least: float, most: float) -> str:
    """Write a range of numbers, or one, to three digits."""
    low, high = (f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}" for value in (least, most))
    return low if low == high else f"{low} to {high}"


def _of_drift(drifts: dict[str, Drift], reference: Reference) -> str:
    worst = max(drifts, key=lambda name: drifts[name].score)
    drift = drifts[worst]
    found = "; ".join(_difference(one, drift, reference) for one in drift.differences[:MOST_DIFFERENCES])
    most = ":" if len(drifts) == 1 else ", most of all"
    said = (
        f"{_images(drifts)} unlike those trained on{most} {worst} (drift {drift.score:.1f}, up to {LIMIT:g} is alike)"
    )
    if drift.order is not None:
        order = ", ".join(str(number + 1) for number in drift.order)
        return f"{said}; with its channels in the order {order} it would be like them: bring them into that order"
    return (
        f"{said}: {found}. Look at the results (--outlines); where they are wrong, annotate some of these images and "
        "train again"
    )


def _difference(one: Difference, drift: Drift, reference: Reference) -> str:
    low, high, what, written, unit = _IN_WORDS[one.name]
    known, found = reference.channels[one.channel][one.name], drift.image.channels[one.channel]
    least, most = written(known.least), written(known.most)
    trained = least if least == most else f"{least} to {most}"
    channel = f"channel {one.channel + 1} " if len(reference.channels) > 1 else ""
    value = written(getattr(found, one.name))
    return f"{channel}{low if one.away < 0 else high} ({what} {value}{unit}, trained on {trained})"


def _images(images: Sized) -> str:
    return f"{len(images)} image" + ("" if len(images) == 1 else "s")
