"""Axes and levels of an image, and how OME-NGFF writes them down: 0.4 on zarr format 2, 0.5 on zarr format 3.

References
----------
Moore et al. 2021: OME-NGFF: a next-generation file format for expanding bioimaging data-access strategies. The
specification: https://ngff.openmicroscopy.org/0.4 and https://ngff.openmicroscopy.org/0.5, "multiscales" and
"image-label" metadata.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ubend.data.formats import MICROMETRES

__all__ = ["ZARR_FORMATS", "Axis", "Level", "Multiscales", "multiscales_metadata", "parse_multiscales"]

ZARR_FORMATS = {"0.4": 2, "0.5": 3}
"""Versions of OME-Zarr that can be written, and the zarr format that each stands on."""

_KINDS = {"t": "time", "c": "channel", "z": "space", "y": "space", "x": "space"}
_LETTERS = {"time": "t", "channel": "c"}
_ORDER = "t?czyx"  # what OME-NGFF demands: time, then channel or a type of one's own, then space


@dataclass(frozen=True)
class Axis:
    """One axis of an array, and where its pixels lie.

    Attributes
    ----------
    name : str
        As the file names it.
    kind : str or None
        "time", "channel", "space", or None where the file does not say or says something else.
    unit : str or None
        Unit of `scale` and `translation`.
    scale, translation : float
        Pixel k lies at k · scale + translation.
    """

    name: str
    kind: str | None = None
    unit: str | None = None
    scale: float = 1.0
    translation: float = 0.0

    @property
    def letter(self) -> str:
        """One of t, c, z, y, x, s (samples of a TIFF's pixel), or ? for an axis of another meaning.

        Examples
        --------
        >>> Axis("time", "time").letter, Axis("X").letter, Axis("angle").letter
        ('t', 'x', '?')
        """
        name = self.name.lower()
        if self.kind in _LETTERS:
            return _LETTERS[self.kind]
        return name if name in _KINDS or name == "s" else _LETTERS.get(name, "?")


@dataclass(frozen=True)
class Level:
    """One resolution of an image.

    Attributes
    ----------
    path : str
        Where it stands in the file.
    axes : tuple of Axis
        In the order of the file.
    shape : tuple of int
        Length of each axis.
    """

    path: str
    axes: tuple[Axis, ...]
    shape: tuple[int, ...]

    @property
    def letters(self) -> str:
        """The letter of each axis, say "tczyx"."""
        return "".join(axis.letter for axis in self.axes)

    def length(self, letter: str) -> int:
        """Pixels along an axis; 1 where there is none of that letter."""
        return self.shape[self.letters.index(letter)] if letter in self.letters else 1

    @property
    def pixel_size(self) -> float | None:
        """Micrometres per pixel; None where unknown, or different for rows and columns.

        Examples
        --------
        >>> rows, columns = Axis("y", "space", "nanometer", 250.0), Axis("x", "space", "micrometer", 0.25)
        >>> Level("0", (rows, columns), (10, 10)).pixel_size
        0.25
        """
        down, across = (self.axes[self.letters.index(letter)] for letter in "yx")
        height, width = (axis.scale * MICROMETRES.get((axis.unit or "").lower(), 0.0) for axis in (down, across))
        return width if width > 0 and np.isclose(height, width, rtol=0.01) else None


@dataclass(frozen=True)
class Multiscales:
    """What the metadata of an OME-Zarr say of an image.

    Attributes
    ----------
    version : str
    datasets : tuple of (str, tuple of Axis)
        Path of each level, the largest first, and its axes. No axes where a version before 0.3 names none.
    channel_names : tuple of str
        Labels of the channels ("omero"); empty unless each has one.
    """

    version: str
    datasets: tuple[tuple[str, tuple[Axis, ...]], ...]
    channel_names: tuple[str, ...] = ()


def parse_multiscales(attributes: Mapping[str, Any]) -> Multiscales | None:
    """Read the attributes of a group.

    Parameters
    ----------
    attributes : mapping
        Of the group, as zarr gives them.

    Returns
    -------
    Multiscales or None
        Of the first image that the group names; None where it names none.

    Raises
    ------
    ValueError, KeyError, TypeError, AttributeError
        If what stands there is not what the specification says.

    Examples
    --------
    >>> transformations = [{"type": "scale", "scale": [2.0, 2.0]}]
    >>> level = {"path": "0", "coordinateTransformations": transformations}
    >>> axes = [{"name": name, "type": "space", "unit": "micrometer"} for name in "yx"]
    >>> parse_multiscales({"multiscales": [{"version": "0.4", "axes": axes, "datasets": [level]}]}).datasets[0][1][0]
    Axis(name='y', kind='space', unit='micrometer', scale=2.0, translation=0.0)
    """
    ome = attributes.get("ome")
    holder = ome if isinstance(ome, Mapping) and "multiscales" in ome else attributes
    if "multiscales" not in holder:
        return None
    image = holder["multiscales"][0]
    version = str(image.get("version") or holder.get("version") or "0.4")
    axes = tuple(_axis(axis) for axis in image.get("axes", ()))
    common = image.get("coordinateTransformations", ())
    datasets = tuple(
        (str(one["path"]), _placed(_placed(axes, one.get("coordinateTransformations", ())), common))
        for one in image["datasets"]
    )
    if not datasets:
        raise ValueError("it names no level")
    return Multiscales(version, datasets, _channel_names(holder.get("omero")))


def _channel_names(omero: Any) -> tuple[str, ...]:
    """Read the labels of channels, which are for people: what is wrong with them is no reason to read no image."""
    channels = omero.get("channels") if isinstance(omero, Mapping) else None
    if not isinstance(channels, list) or not all(isinstance(channel, Mapping) for channel in channels):
        return ()
    names = [channel.get("label") for channel in channels]
    return tuple(map(str, names)) if all(names) else ()


def _axis(axis: Mapping[str, Any] | str) -> Axis:
    if isinstance(axis, str):  # version 0.3
        return Axis(axis, _KINDS.get(axis))
    kind, unit = axis.get("type"), axis.get("unit")
    return Axis(str(axis["name"]), None if kind is None else str(kind), None if unit is None else str(unit))


def _placed(axes: tuple[Axis, ...], transformations: Sequence[Mapping[str, Any]]) -> tuple[Axis, ...]:
    """Apply scale and translation, in their order, to what the axes have already."""
    for one in transformations:
        numbers = one.get(one["type"])
        if one["type"] not in ("scale", "translation") or not axes:
            continue  # identity
        if numbers is None:  # written in a file of its own
            axes = tuple(replace(axis, unit=None) for axis in axes)
            continue
        if len(numbers) != len(axes):
            raise ValueError(f"a {one['type']} has {len(numbers)} numbers for {len(axes)} axes")
        if one["type"] == "scale":
            axes = tuple(
                replace(axis, scale=axis.scale * float(factor), translation=axis.translation * float(factor))
                for axis, factor in zip(axes, numbers, strict=True)
            )
        else:
            axes = tuple(
                replace(axis, translation=axis.translation + float(step))
                for axis, step in zip(axes, numbers, strict=True)
            )
    return axes


def in_order(axes: Sequence[Axis]) -> tuple[Axis, ...]:
    """Sort axes as the specification demands: time, channel, then space as z, y, x.

    Examples
    --------
    >>> "".join(axis.name for axis in in_order([Axis(name) for name in "xyzct"]))
    'tczyx'
    """
    return tuple(sorted(axes, key=lambda axis: _ORDER.index(axis.letter)))


def multiscales_metadata(
    version: str, name: str, levels: Sequence[tuple[str, tuple[Axis, ...]]], extra: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Write the attributes of a group that holds an image.

    Parameters
    ----------
    version : str
        "0.4" or "0.5".
    name : str
        Of the image.
    levels : sequence of (str, tuple of Axis)
        Path and axes of each level, the largest first.
    extra : mapping, optional
        What stands beside the multiscales, say {"image-label": {...}}.

    Returns
    -------
    dict

    Examples
    --------
    >>> sorted(multiscales_metadata("0.5", "cells", [("0", (Axis("y"), Axis("x")))])["ome"])
    ['multiscales', 'version']
    """
    axes = [
        {"name": axis.name}
        | ({"type": axis.kind} if axis.kind else {})
        | ({"unit": axis.unit} if axis.unit is not None else {})
        for axis in levels[0][1]
    ]
    datasets = [{"path": path, "coordinateTransformations": _transformations(axes)} for path, axes in levels]
    image: dict[str, Any] = {"name": name, "axes": axes, "datasets": datasets}
    if version == "0.4":
        return {"multiscales": [{"version": version, **image}], **(extra or {})}
    return {"ome": {"version": version, "multiscales": [image], **(extra or {})}}


def _transformations(axes: tuple[Axis, ...]) -> list[dict[str, Any]]:
    scale: list[dict[str, Any]] = [{"type": "scale", "scale": [axis.scale for axis in axes]}]
    if any(axis.translation for axis in axes):
        scale.append({"type": "translation", "translation": [axis.translation for axis in axes]})
    return scale
