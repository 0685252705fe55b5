"""From what is seen in each image to what is wrong with the set."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ubend.data.annotated import Task
from ubend.data.duplicates import find_duplicates
from ubend.data.findings import Case
from ubend.data.inspection import ImageFacts, LabelFacts, Pieces
from ubend.data.turned import better_turn, common_turn, turn_of

__all__ = ["Seen", "all_symptoms"]

Found = Iterator[tuple[str, Case]]

_BETWEEN, _MOSTLY_THIN, _LEAST_VALUES = 0.15, 0.5, 4
_SECOND_PIECE = 0.05
_SPECK, _SPECK_SHARE = 9, 0.02
_THIN_SHARE, _LEAST_THIN = 0.05, 5
_CUT_SHARE, _LEAST_CELLS = 0.6, 10
_TOP_SHARE, _TOP_IN_LABELS, _LEAST_LEVELS = 0.05, 0.2, 4
_DARK, _BRIGHT, _CONTRAST, _COLOURED = 0.4, 0.75, 0.5, 0.04
_SIZES_ALIKE = 1.1
_TWELVE_BITS, _EIGHT_BITS, _LEAST_IMAGES = 4095, 255, 3
_LARGEST_NUMBERED_CLASS = 32
_PIECES_OF_A_MASK = 3


@dataclass(frozen=True)
class Seen:
    """One image and its labels as they were looked at.

    Attributes
    ----------
    files : Case
        Where they are.
    image : ImageFacts
        What is seen in the image.
    labels : LabelFacts or None
        What is seen in the labels; None where they cannot be used.
    pixel_size : float or None
        Micrometres per pixel.
    of_stack : bool
        Whether the file has several pages.
    """

    files: Case
    image: ImageFacts
    labels: LabelFacts | None
    pixel_size: float | None
    of_stack: bool

    def image_case(self, said: str = "") -> Case:
        """Say something of the image."""
        return Case((self.files.image,) if self.files.image else (), said, *self._at())

    def label_case(self, said: str = "", values: Iterable[int] = ()) -> Case:
        """Say something of the labels, of some of their values or all."""
        return Case((self.files.labels,) if self.files.labels else (), said, *self._at(), tuple(values))

    def _at(self) -> tuple[Path | None, Path | None, int]:
        return self.files.image, self.files.labels, self.files.page


def all_symptoms(seen: Sequence[Seen], task: Task | None, *, smallest_side: int, field: int) -> Found:
    """Yield every fault that the facts of all images show.

    Parameters
    ----------
    seen : sequence of Seen
        In the order of the images.
    task : Task or None
        What the labels mean.
    smallest_side : int
        Rows and columns that an image should have for the network.
    field : int
        Pixels that the network sees around each.
    """
    yield from _of_labels_alone(seen)
    yield from _turned(seen)
    yield from _of_images_alone(seen, smallest_side)
    yield from _of_the_set(seen)
    yield from _twice(seen)
    usable = [(one, one.labels) for one in seen if one.labels is not None and not unsound(one.labels)]
    if task is None or not usable:
        return
    yield from _of_all_labels(usable, task)
    yield from _of_shapes(usable, task, field)


def unsound(labels: LabelFacts) -> bool:
    """Whether labels are none, so that their values mean nothing."""
    return labels.is_picture or labels.is_image or _is_smoothed(labels)


def _is_smoothed(labels: LabelFacts) -> bool:
    """Whether edges have values in between, and these make thin pieces everywhere."""
    if labels.between < _BETWEEN or len(labels.values) < _LEAST_VALUES or not labels.pieces.size.size:
        return False
    return float(np.mean(labels.pieces.inside == 0)) > _MOSTLY_THIN


# labels by themselves, and with their image


def _of_labels_alone(seen: Sequence[Seen]) -> Found:
    for one in seen:
        labels = one.labels
        if labels is None:
            continue
        number = len(labels.values)
        if labels.is_image:
            yield "labels-are-the-image", one.label_case()
        elif labels.is_picture:
            yield "labels-a-picture", one.label_case(f"{number} different values")
        elif _is_smoothed(labels):
            yield (
                "labels-smoothed",
                one.label_case(
                    f"{number} different values; {labels.between:.0%} of the pixels at edges lie in between"
                ),
            )


def _turned(seen: Sequence[Seen]) -> Found:
    """One by one where that is clear; all, where each tells a little and all tell the same."""
    ones = [(one, labels.fit) for one in seen if (labels := one.labels) and not unsound(labels) and labels.fits_known]
    way_of_all = common_turn([fit for _, fit in ones])
    for one, fit in ones:
        turn = better_turn(fit) or (turn_of(fit, way_of_all) if way_of_all else None)
        if turn is not None:
            yield (
                "labels-turned",
                one.label_case(f"they fit when {turn.way}: correlation {turn.fit:.2f}, as they are {turn.fit_now:.2f}"),
            )


def _of_images_alone(seen: Sequence[Seen], smallest_side: int) -> Found:
    for one in seen:
        image = one.image
        if image.not_finite:
            yield "not-a-number", one.image_case(f"{image.not_finite} of them")
        if image.levels <= 1:
            yield "image-blank", one.image_case(f"{image.highest:g} everywhere")
        elif image.levels == 2:
            yield "image-of-two-values", one.image_case(f"{image.lowest:g} and {image.highest:g}")
        elif _is_overexposed(one):
            yield "saturated", one.image_case(f"{image.at_top:.0%} of the pixels are {image.highest:g}, the brightest")
        if image.channels_in_order:
            yield "slices-as-channels", one.image_case(f"{image.shape[2]} channels, each likest to the next")
        if min(image.shape[:2]) < smallest_side:
            yield "images-small", one.image_case(f"{image.shape[0]} × {image.shape[1]} (rows × columns)")


def _is_overexposed(one: Seen) -> bool:
    image = one.image
    if image.levels < _LEAST_LEVELS:
        return False
    if one.labels is None or unsound(one.labels):
        return image.at_top > _TOP_SHARE and image.middle <= _BRIGHT
    if one.labels.top_in_labels > _TOP_IN_LABELS:
        return True
    return image.at_top > _TOP_SHARE and one.labels.contrast > -_CONTRAST  # a white ground is no loss


# images against each other


def _of_the_set(seen: Sequence[Seen]) -> Found:
    yield from _channels(seen)
    yield from _modalities(seen)
    yield from _pixel_sizes(seen)
    yield from _bits(seen)


def _channels(seen: Sequence[Seen]) -> Found:
    if all(one.image.gray for one in seen):
        return
    number = [one.image.shape[2] if len(one.image.shape) == 3 else 1 for one in seen]
    usual = Counter(number).most_common(1)[0][0]
    for one, channels in zip(seen, number, strict=True):
        if channels != usual:
            yield "channels-differ", one.image_case(f"{_count(channels, 'channel')}, most images have {usual}")


def _modalities(seen: Sequence[Seen]) -> Found:
    kinds = [_modality(one) for one in seen]
    known = Counter(kind for kind in kinds if kind is not None)
    if len(known) < 2:
        return
    usual = known.most_common(1)[0][0]
    for one, kind in zip(seen, kinds, strict=True):
        if kind is not None and kind != usual:
            yield "modalities-mixed", one.image_case(f"{kind}; most images are {usual}")


def _modality(one: Seen) -> str | None:
    """Say how an image looks, where that is clear."""
    if one.image.colour > _COLOURED:
        return "colour"
    contrast = one.labels.contrast if one.labels is not None and not unsound(one.labels) else 0.0
    if one.image.middle < _DARK and contrast > _CONTRAST:
        return "gray, bright on dark"
    if one.image.middle > _BRIGHT and contrast < -_CONTRAST:
        return "gray, dark on bright"
    return None


def _pixel_sizes(seen: Sequence[Seen]) -> Found:
    sizes = [one.pixel_size for one in seen if one.pixel_size is not None]
    if not sizes:
        return
    usual = float(np.median(sizes))
    for one in seen:
        size = one.pixel_size
        if size is not None and not 1 / _SIZES_ALIKE <= size / usual <= _SIZES_ALIKE:
            yield "pixel-sizes-differ", one.image_case(f"{size:g} µm a pixel, usual here {usual:g} µm")
    unknown = [one for one in seen if one.pixel_size is None]
    for one in unknown:
        yield "pixel-size-unknown", one.image_case(f"unknown; others {usual:g} µm")


def _bits(seen: Sequence[Seen]) -> Found:
    kinds = Counter(one.image.dtype for one in seen)
    if len(kinds) > 1:
        usual = kinds.most_common(1)[0][0]
        for one in seen:
            if one.image.dtype != usual:
                yield "bit-depths-differ", one.image_case(f"{one.image.dtype}, most images {usual}")
    highest = max((one.image.highest for one in seen if one.image.dtype == "uint16"), default=0.0)
    if set(kinds) == {"uint16"} and _EIGHT_BITS < highest <= _TWELVE_BITS and len(seen) >= _LEAST_IMAGES:
        for one in seen:
            yield "twelve-bits", one.image_case(f"up to {one.image.highest:g}")


def _twice(seen: Sequence[Seen]) -> Found:
    """Group what is the same image; pages of one stack only where they are equal."""
    group = list(range(len(seen)))  # the first of those that are the same

    def join(one: int, other: int) -> None:
        first, second = sorted((group[one], group[other]))
        if first == second:
            return
        group[:] = [first if number == second else number for number in group]

    exact = dict[tuple[tuple[int, ...], bytes], int]()
    for number, one in enumerate(seen):
        if one.image.levels > 1:
            join(exact.setdefault((one.image.shape, one.image.digest), number), number)
    for one_, other, _ in find_duplicates([one.image.look for one in seen]):
        if group[one_] != group[other] and seen[one_].files.image != seen[other].files.image:
            join(one_, other)
    for first, count in sorted(Counter(group).items()):
        if count == 1:
            continue
        members = [number for number, root in enumerate(group) if root == first]
        files = tuple(dict.fromkeys(path for k in members if (path := seen[k].files.image) is not None))
        equal = len({seen[k].image.digest for k in members}) == 1
        labels = {facts.digest for k in members if (facts := seen[k].labels) is not None}
        said = "equal pixel by pixel" if equal else "the same up to brightness or compression"
        if len(files) == 1:
            said += f", pages {_some([seen[k].files.page + 1 for k in members])}"
        if len(labels) > 1:
            said += "; their labels differ"
        at = seen[first].files
        yield "duplicates", Case(files, said, at.image, at.labels, at.page)


# labels together


def _of_all_labels(usable: Sequence[tuple[Seen, LabelFacts]], task: Task) -> Found:
    if not any((labels.values > 0).any() for _, labels in usable):
        for one, _ in usable:
            yield "nothing-labelled", one.label_case()
        return
    if task.kind != "classes":
        for one, labels in usable:
            if not (labels.values > 0).any():
                yield "labels-empty", one.label_case()
    yield from _values_of_masks(usable, task)
    yield from _classes(usable, task)


def _values_of_masks(usable: Sequence[tuple[Seen, LabelFacts]], task: Task) -> Found:
    above = [frozenset(int(value) for value in labels.values if value > 0) for _, labels in usable]
    all_values = frozenset().union(*above)
    if all_values == {1, 255} and {1, 255} not in above:
        for (one, _), values in zip(usable, above, strict=True):
            if values:
                yield "foreground-mixed", one.label_case(f"0 and {next(iter(values))}")
    elif all_values == {255}:
        for one, _ in usable:
            yield "foreground-255", one.label_case()
    if task.kind == "instances" and len(all_values) > 1:
        for (one, labels), values in zip(usable, above, strict=True):
            large = _without_specks(labels.pieces)
            if len(values) == 1 and large >= _PIECES_OF_A_MASK:
                yield "mask-among-cells", one.label_case(f"{large} pieces, all with the value {next(iter(values))}")


def _without_specks(pieces: Pieces) -> int:
    return int(np.count_nonzero(pieces.size > _SECOND_PIECE * pieces.size.max(initial=0)))


def _classes(usable: Sequence[tuple[Seen, LabelFacts]], task: Task) -> Found:
    values = [value for value in task.values if value >= 0]
    if task.kind == "instances" or not values:
        return
    if max(values) <= _LARGEST_NUMBERED_CLASS:
        missing = sorted(set(range(min(values), max(values))) - set(values))
        if missing and len(missing) < len(values):
            there = _some(values, 8)
            yield "classes-missing", Case((), f"{_some(missing)} in no image; there are {there}", *usable[0][0]._at())
    if task.kind == "classes" and len(usable) >= _LEAST_IMAGES:
        for value in values:
            where = [one for one, labels in usable if value in labels.values]
            if len(where) == 1:
                yield "class-rare", where[0].label_case(f"class {value}", (value,))


def _of_shapes(usable: Sequence[tuple[Seen, LabelFacts]], task: Task, field: int) -> Found:
    if any(labels.widest > field for _, labels in usable) and task.kind != "classes":
        for one, labels in usable:
            if labels.widest > field:
                yield "objects-large", one.label_case(f"{labels.widest:.0f} pixels wide; the network sees {field}")
    if task.kind == "classes":
        return
    pieces = [_counted(labels.pieces, task) for _, labels in usable]
    sizes = np.concatenate([one.size for one in pieces])
    if not sizes.size:
        return
    usual = float(np.median(sizes))
    for (one, labels), found in zip(usable, pieces, strict=True):
        are_specks = found.size <= min(_SPECK, _SPECK_SHARE * usual)
        specks = found.size[are_specks]
        if task.kind == "instances":
            yield from _of_cells(one, labels, found, usual)
        if specks.size and not (one.of_stack and task.kind == "instances"):
            code = "specks" if task.kind == "instances" else "stray-pixels"
            values = np.unique(found.value[are_specks]).tolist() if task.kind == "instances" else ()
            yield code, one.label_case(f"{_pieces(specks)}; usual are {usual:.0f}", values)
    yield from _thin(usable, pieces)
    if task.kind == "instances" and sizes.size >= _LEAST_CELLS:
        cut = [int(np.count_nonzero(found.cut)) for found in pieces]
        if sum(cut) > _CUT_SHARE * sizes.size:
            for (one, _), number, found in zip(usable, cut, pieces, strict=True):
                if number:
                    yield "cells-cut", one.label_case(f"{number} of {found.size.size}")


def _counted(pieces: Pieces, task: Task) -> Pieces:
    """Leave out what counts as background, or as not labelled."""
    background = task.values[0] if task.kind == "binary" else 0
    keep = pieces.value != background
    if task.ignore_label is not None:
        keep &= pieces.value != task.ignore_label
    return Pieces(pieces.value[keep], pieces.size[keep], pieces.inside[keep], pieces.cut[keep])


def _of_cells(one: Seen, labels: LabelFacts, pieces: Pieces, usual: float) -> Found:
    several = [value for value, second in labels.several if second >= 0.2 * usual]
    if several:
        yield "several-cells", one.label_case(f"{_labels(len(several))} {_some(several)}", several)
    apart = _in_pieces(pieces)
    if apart and len(np.unique(pieces.value)) > 1:
        said = f"{_labels(len(apart))} {_some(list(apart))}"
        if len(apart) == 1:
            [(value, number)] = apart.items()
            said = f"label {value} in {number} pieces"
        yield "pieces-in-slices" if one.of_stack else "label-in-pieces", one.label_case(said, apart)


def _in_pieces(pieces: Pieces) -> dict[int, int]:
    """Values with more than one piece of some size, and how many."""
    values, which = np.unique(pieces.value, return_inverse=True)
    largest: NDArray[np.int64] = np.zeros(len(values), np.int64)
    np.maximum.at(largest, which, pieces.size)
    counts = np.bincount(which[pieces.size > _SECOND_PIECE * largest[which]], minlength=len(values))
    return {int(value): int(count) for value, count in zip(values, counts, strict=True) if count > 1}


def _thin(usable: Sequence[tuple[Seen, LabelFacts]], pieces: Sequence[Pieces]) -> Found:
    thin = [np.count_nonzero((found.inside == 0) & (found.size >= _LEAST_THIN)) for found in pieces]
    if sum(thin) <= _THIN_SHARE * sum(found.size.size for found in pieces):
        return
    for (one, _), number, found in zip(usable, thin, pieces, strict=True):
        if number:
            yield "objects-thin", one.label_case(f"{number} of {found.size.size}")


def _pieces(sizes: NDArray[np.int64]) -> str:
    low, high = int(sizes.min()), int(sizes.max())
    return f"{_count(sizes.size, 'piece')} of " + (_count(low, "pixel") if low == high else f"{low} to {high} pixels")


def _labels(number: int) -> str:
    return "label" if number == 1 else f"{number} labels:"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")


def _some(things: Sequence[object], most: int = 4) -> str:
    said = ", ".join(str(thing) for thing in things[:most])
    return said + (f" and {len(things) - most} more" if len(things) > most else "")
