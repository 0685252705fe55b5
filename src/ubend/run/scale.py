"""Images larger than memory: read, computed and written block by block, here or by many workers.

A block is one tile of the overlap-tile strategy (`method/overlap_tile.py`): what is computed of it depends on the image
and the tile's place alone. So blocks may be computed in any order, by any number of processes, and again after a stop;
the result is the same, bit for bit. Each block is one chunk of a Zarr array, so that no two ever write the same file.

What is unfinished lies in a folder of its own beside the results: `job.json` says what is being made, `blocks.jsonl`
which blocks are done, each with its checksum.
"""

import contextlib
import hashlib
import json
import shutil
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import zarr
from numpy.typing import NDArray
from zarr.codecs import ZstdCodec

from ubend import __version__
from ubend.data.formats import check_writable, file_stem, image_files, text_of, why_not_written, write_atomically
from ubend.data.large import LargeImage, open_large
from ubend.data.large_results import create_labels, create_probabilities, is_our_result
from ubend.data.large_tiff import write_large_tiff
from ubend.data.large_zarr import is_zarr, open_zarr_array
from ubend.data.origin import is_for_labels, was_written_here
from ubend.data.tables import write_table
from ubend.errors import FileError, InputError, OutOfMemory, UbendError
from ubend.method.geometry import Span, mirror, smallest_input_for, tile_spans
from ubend.method.large_objects import objects_in_blocks
from ubend.method.measurements import measure_objects_in_blocks
from ubend.method.network import UNet, for_prediction
from ubend.run.batch_statistics import adapts, measure_image, measuring_bytes, on_device_of, weight_bytes
from ubend.run.contract import Contract, Unlike, unlike, unlike_diameter
from ubend.run.device import (
    choose_device,
    free_memory,
    is_out_of_memory,
    kept_memory,
    mixed_precision,
    resident_memory,
)
from ubend.run.drift import ImageStatistics, median_diameter, sampled_statistics
from ubend.run.labels import predict_labels
from ubend.run.memory import KEPT, OBJECT_BYTES, largest_tile_within, say_bytes, smallest_tile, tile_bytes
from ubend.run.model import FILE_NAME, Model, load
from ubend.run.normalisation import channels_first
from ubend.run.prediction import LARGEST_TILE, OnSmallerTile, check_tile, next_smaller, predict_part

OBJECTS_BLOCK = 2048
"""Rows and columns in which single objects are found at a time."""
LABELS_CHUNK = 512
"""Rows and columns of a chunk of label images of single objects."""
UNFINISHED = ".unfinished"
"""Ending of the folder that holds what is not finished."""
JOB, DONE, WRITING, STATISTICS = "job.json", "blocks.jsonl", "writing", "statistics.npy"
"""In that folder: what is being made; which blocks are done; a mark that results are being written; of each plane what
batch normalisation works by."""
Numbers = tuple[tuple[float, ...], ...]
"""Of each plane one a channel."""
_DAMAGE = (ValueError, KeyError, TypeError, OverflowError, RecursionError)
"""What comes of reading a damaged note."""
FAST = ZstdCodec(level=1)
"""Compression of what is only kept until the results are written."""


@dataclass(frozen=True)
class Block:
    """One tile of one plane.

    Attributes
    ----------
    number : int
        In the order of planes, rows, columns.
    plane : int
        Number of the plane.
    rows, columns : Span
        What it reads and what it is responsible for.
    """

    number: int
    plane: int
    rows: Span
    columns: Span

    @property
    def place(self) -> tuple[int, slice, slice]:
        """Plane, and the rows and columns that it is responsible for."""
        return self.plane, slice(self.rows.start, self.rows.stop), slice(self.columns.start, self.columns.stop)


@dataclass(frozen=True)
class Work:
    """All that a worker needs to compute any block; small, so that it travels.

    Attributes
    ----------
    job : str
        Of this job alone, so that a worker that lives on opens what it needs anew for the next one.
    model, image, folder : str
        Paths, which every worker must see under the same name: the model file, the image, the unfinished folder.
    pixel_size : float or None
        That the level of the image was chosen by.
    offsets, gains : tuple of tuple of float
        Normalisation of each plane, a number a channel.
    dtype : str
        "float32", or the 16-bit type in which all blocks are computed, whoever computes them.
    device : str or None
    """

    job: str
    model: str
    image: str
    folder: str
    pixel_size: float | None
    offsets: Numbers
    gains: Numbers
    dtype: str
    device: str | None


@dataclass(frozen=True)
class Progress:
    """Where a job stands; given to `on_progress`.

    Attributes
    ----------
    what : str
        "blocks", "objects", "table", "probabilities" or "labels".
    done, of : int
    """

    what: str
    done: int
    of: int


@dataclass(frozen=True)
class LargePrediction:
    """What `predict_large` has written.

    Attributes
    ----------
    labels : Path
    probabilities : Path or None
    tables : tuple of Path
        For instances, one a plane.
    objects : int or None
        For instances, over all planes.
    blocks, kept, damaged : int
        Blocks in all; of a stopped job that were there and right; and that were there and did not have their checksum,
        so that they were computed again.
    tile : tuple of int
        Rows and columns that entered the network at a time.
    image : LargeImage
    unlike : dict of str to Unlike
        Planes that look, or are named or stored, unlike the images trained on.
    other_diameters : dict of str to float
        Median diameter, in pixels, of the objects of planes where they are more than twice as large or small as all
        those trained on.
    """

    labels: Path
    probabilities: Path | None
    tables: tuple[Path, ...]
    objects: int | None
    blocks: int
    kept: int
    damaged: int
    tile: tuple[int, int]
    image: LargeImage
    unlike: dict[str, Unlike]
    other_diameters: dict[str, float]


OnProgress = Callable[[Progress], None]
Engine = Callable[[Work, Sequence[Block], Callable[[Block, str], None]], None]
"""Computes blocks, in any order, and tells of each when it is done, with its checksum."""


def predict_large(  # noqa: PLR0913
    model: str | Path,
    image: str | Path,
    out: str | Path,
    *,
    engine: Engine | None = None,
    memory: int | None = None,
    tile: int | None = None,
    probabilities: bool = False,
    exact: bool = False,
    device: str | None = None,
    objects: Any = None,
    resume: bool = False,
    overwrite: bool = False,
    on_open: Callable[[LargeImage], None] | None = None,
    on_unlike: Callable[[dict[str, Unlike]], None] | None = None,
    on_progress: OnProgress | None = None,
    on_smaller_tile: OnSmallerTile | None = None,
) -> LargePrediction:
    """Segment an image of any size within a bounded memory.

    Parameters
    ----------
    model : path
        Folder of a run, or a model file.
    image : path
        OME-Zarr 0.4 or 0.5, of which the level nearest to the model's pixel size is taken; or a TIFF.
    out : path
        Folder for the results: STEM.ome.zarr of a Zarr, STEM.tif of a TIFF; of single objects also STEM_objects.csv.
    engine : callable, optional
        Computes the blocks; without it this process does, see `in_this_process` and `workers.engine_of`.
    memory : int, optional
        Bytes that a process may take; without it a share of what is free.
    tile : int, optional
        Rows and columns a tile may have at most.
    probabilities : bool
        Also keep the probabilities.
    exact : bool
        Compute in float32 also where the machine is faster in 16 bits.
    device : str, optional
    objects : ObjectRules, optional
        Other rules than the model's.
    resume : bool
        Continue a job that was stopped.
    overwrite : bool
        Replace results that are there, and what a stopped job has left.
    on_open : callable, optional
        Called with the image before anything is computed.
    on_unlike : callable, optional
        Called, before anything is computed, with the planes that are unlike the images trained on.
    on_progress : callable, optional
        Called with a `Progress`.
    on_smaller_tile : callable, optional
        Called with (tile, smaller tile) where the first block does not fit the memory and no tile was asked for.

    Returns
    -------
    LargePrediction

    Raises
    ------
    InputError
        If image and model do not fit each other.
    FileError
        If the image cannot be read, results or an unfinished job are in the way, or the disk is full. What was done
        stays, and can be continued.
    """
    model, out, tell = _model_file(model), Path(out), on_progress or (lambda _: None)
    contract = load(model, device="cpu").contract
    contract = contract if objects is None else replace(contract, objects=objects)
    _check_views(contract)
    opened = open_large(image, pixel_size=contract.pixel_size)
    names = _Names(out, opened, wants_probabilities=probabilities, counts_objects=contract.task.kind == "instances")
    check_writable(out)
    names.check(resume=resume, overwrite=overwrite)
    if on_open is not None:
        on_open(opened)
    folder, dtype = names.unfinished, "float32" if exact else _dtype_of(choose_device(device))
    if folder.exists() and not resume:
        shutil.rmtree(folder)
    offsets, gains, pixels, looks = _normalised(opened, contract)
    others = _unlike_planes(names, looks, contract)
    if on_unlike is not None and others:
        on_unlike(others)
    known = _read_job(folder)
    side = known["tile"] if known and tile is None else _tile(contract, opened, device, tile, memory, dtype)

    def segment(side: int) -> LargePrediction:
        blocks = _blocks(opened, side, contract.network.depth)
        job = _job(model, opened, pixels, side, contract, probabilities=probabilities, dtype=dtype)
        name = _same_job(folder, job)
        with _kept_to_resume(folder):
            store = _Store.create(folder, opened, contract, blocks, probabilities=probabilities)
            done, damaged = store.done(blocks, contract)
            where = {"model": model, "image": Path(image), "folder": folder}
            paths = {what: str(path.absolute()) for what, path in where.items()}
            work = Work(name, **paths, pixel_size=contract.pixel_size, offsets=offsets, gains=gains,
                        dtype=dtype, device=device)  # fmt: skip
            _keep_statistics(work, contract)
            count = len(done)
            tell(Progress("blocks", count, len(blocks)))

            def finished(block: Block, checksum: str) -> None:
                nonlocal count
                store.remember(block, checksum)
                count += 1
                tell(Progress("blocks", count, len(blocks)))

            (engine or in_this_process)(work, [block for block in blocks if block.number not in done], finished)
            found = _find_objects(store, opened, contract, _objects_block(memory), tell) if names.counts_objects else []
            diameters = _write_results(store, names, contract, found, tell)
        return LargePrediction(
            labels=names.labels,
            probabilities=names.probabilities,
            tables=tuple(names.tables),
            objects=sum(found) if names.counts_objects else None,
            blocks=len(blocks),
            kept=len(done),
            damaged=damaged,
            tile=(blocks[0].rows.size, blocks[0].columns.size),
            image=opened,
            unlike=others,
            other_diameters=_unlike_diameters(names, diameters, contract),
        )

    while True:
        try:
            return segment(side)
        except OutOfMemory:
            smaller = next_smaller(contract.network, side)
            if tile is not None or folder.exists() or smaller is None:  # the folder stays if a block is done
                raise
        if on_smaller_tile is not None:
            on_smaller_tile(side, smaller)
        side = smaller


def is_finished(model: Contract, image: str | Path, out: str | Path) -> bool:
    """Whether the results of an image are there, and nothing that was stopped."""
    opened = open_large(image, pixel_size=model.pixel_size)
    names = _Names(Path(out), opened, wants_probabilities=False, counts_objects=model.task.kind == "instances")
    return names.labels.exists() and not names.unfinished.exists()


def check_names(images: Sequence[Path]) -> None:
    """Raise FileError if two images would have results of the same name."""
    seen: dict[str, Path] = {}
    for image in images:
        other = seen.setdefault(file_stem(image).casefold(), image)
        if other != image:
            raise FileError(f"the results of {other.name} and {image.name} would have the same names: rename one")


def large_images(images: str | Path, contract: Contract, memory: int, *, every: bool = False) -> list[Path]:
    """List those of some images that go block by block.

    Parameters
    ----------
    images : path
        A folder of images, a Zarr, or an image file.
    contract : Contract
        Of the model.
    memory : int
        Bytes that may be taken: a TIFF that would need more than half of them for its pixels and results is large.
    every : bool
        Whether all TIFFs are; a Zarr always is.

    Returns
    -------
    list of Path
    """
    images = Path(images)
    found = [images]
    if is_folder_of_images(images):
        found = [path for path in sorted(images.glob("*")) if not path.name.startswith(".")]

    def is_large(path: Path) -> bool:
        tiff = path.suffix.lower() in (".tif", ".tiff")
        return is_zarr(path) or (tiff and (every or _needed(path, contract) > memory / 2))

    return [path for path in found if is_large(path)]


def is_folder_of_images(images: str | Path) -> bool:
    """Whether a path is a folder, and no Zarr, which is one image."""
    return Path(images).is_dir() and not is_zarr(Path(images))


def others_than(images: str | Path, large: Sequence[Path]) -> list[Path]:
    """List the images of a folder beside the large ones."""
    if not is_folder_of_images(images):
        return []
    return [image for image in image_files(images) if image not in large]


def _needed(path: Path, contract: Contract) -> int:
    """Bytes that the pixels of one plane take, read and normalised, with probabilities and labels."""
    try:
        image = open_large(path)
    except FileError:
        return 0  # it is named with the reason when it is read
    a_pixel = image.channels * (image.dtype.itemsize + 4) + 4 * contract.network.classes + OBJECT_BYTES
    return image.rows * image.columns * a_pixel


@kept_memory
def in_this_process(work: Work, blocks: Sequence[Block], done: Callable[[Block, str], None]) -> None:
    """Compute blocks one after the other."""
    for block in blocks:
        done(block, compute_block(work, block))


def compute_block(work: Work, block: Block) -> str:
    """Read, predict and write one block.

    Returns
    -------
    str
        SHA-256 of what was written.

    Raises
    ------
    InputError
        If the image holds NaN there.
    FileError
        If it cannot be read or written.
    OutOfMemory
        If it does not fit the memory.
    """
    model, image, store = _opened(work)
    contract = model.contract
    if work.dtype != "float32" and work.dtype != _dtype_of(model.device):
        raise InputError(
            f"this job is computed in {work.dtype}, in which a worker's {model.device} is not at home: workers of one "
            f"job need processors of one kind"
        )
    place = image.planes[block.plane]
    pixels = channels_first(np.moveaxis(_read_mirrored(image, place, block), 0, -1), contract.network.in_channels)
    offset, gain = (np.array(v[block.plane], np.float32).reshape(-1, 1, 1) for v in (work.offsets, work.gains))
    try:
        network = _network_of(work, block.plane)
        maps = predict_part(network, contract, pixels, offset, gain, exact=work.dtype == "float32")
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        size = f"{block.rows.size}×{block.columns.size}"
        raise OutOfMemory(
            f"a tile of {size} px does not fit the memory of {model.device}; try a smaller --tile"
        ) from None
    height, width = block.rows.stop - block.rows.start, block.columns.stop - block.columns.start
    return store.write(block, np.ascontiguousarray(maps[:, :height, :width]), contract)


@lru_cache(maxsize=1)
def _network_of(work: Work, plane: int) -> UNet:
    """Make the network that predicts a plane, once in each process, from the statistics that the first one measured."""
    model, image, _ = _opened(work)
    if not adapts(model.contract):
        return model.predictor
    statistics = _read_statistics(Path(work.folder), len(image.planes))[plane]
    return on_device_of(model.network, for_prediction(model.network, statistics))


def _forget() -> None:
    """Let go of what the blocks of a job needed."""
    _network_of.cache_clear()
    _opened.cache_clear()


def _read_statistics(folder: Path, planes: int) -> NDArray[np.float32]:
    """Read what `_keep_statistics` has kept.

    Raises
    ------
    FileError
        If it is damaged.
    """
    try:
        found: NDArray[np.float32] = np.load(folder / STATISTICS, allow_pickle=False)
        if found.ndim == 3 and len(found) == planes and np.isfinite(found).all():
            return found
    except (*_DAMAGE, EOFError):
        pass
    raise FileError(f"{folder / STATISTICS} is damaged, so that nothing can be continued: --overwrite begins anew")


def _keep_statistics(work: Work, contract: Contract) -> None:
    """Measure the statistics of all planes, unless they are there, so that all workers have the same."""
    path = Path(work.folder) / STATISTICS
    if not adapts(contract):
        return
    model, image, _ = _opened(work)
    if path.exists():
        _read_statistics(path.parent, len(image.planes))
        return
    found = []
    for plane, offset, gain in zip(image.planes, work.offsets, work.gains, strict=True):
        read = partial(_read_channels, image, plane, contract.network.in_channels)
        shape, normalised = (image.rows, image.columns), (np.array(offset, np.float32), np.array(gain, np.float32))
        found.append(measure_image(model.network, contract, shape, read, *normalised))

    def write(part: Path) -> None:
        with part.open("wb") as file:
            np.save(file, np.stack(found), allow_pickle=False)

    write_atomically(path, write)


@lru_cache(maxsize=1)
def _opened(work: Work) -> tuple[Model, LargeImage, "_Store"]:
    """Open what all blocks of a job need, once in each process."""
    return (
        load(work.model, device=work.device),
        open_large(work.image, pixel_size=work.pixel_size),
        _Store.open(Path(work.folder)),
    )


def _read_mirrored(image: LargeImage, plane: tuple[int, ...], block: Block) -> NDArray[Any]:
    """Read the input of a block, mirrored where it reaches beyond the border of the image."""
    rows, columns = (
        mirror(np.arange(span.first, span.first + span.size), length)
        for span, length in ((block.rows, image.rows), (block.columns, image.columns))
    )
    top, left = int(rows.min()), int(columns.min())
    part = image.read(plane, slice(top, int(rows.max()) + 1), slice(left, int(columns.max()) + 1))
    return part.take(rows - top, axis=1).take(columns - left, axis=2)


def _dtype_of(device: torch.device) -> str:
    """Name the type in which a device computes."""
    return str(mixed_precision(device) or torch.float32).removeprefix("torch.")


def _blocks(image: LargeImage, largest_input: int, depth: int) -> list[Block]:
    spans = [tile_spans(length, largest_input=largest_input, depth=depth) for length in (image.rows, image.columns)]
    places = [(plane, r, c) for plane in range(len(image.planes)) for r in spans[0] for c in spans[1]]
    return [Block(number, *place) for number, place in enumerate(places)]


def _tile(
    contract: Contract, image: LargeImage, device: str | None, asked: int | None, memory: int | None, dtype: str
) -> int:
    """Choose the largest tile for which a process has memory, or check the one asked for."""
    config, chosen = contract.network, choose_device(device)
    check_tile(config, asked)
    if asked is not None:
        return asked
    free = free_memory(chosen)
    room = free / 2 if memory is None else min(free, memory if chosen.type != "cpu" else memory - resident_memory())
    weights, measuring = weight_bytes(contract), measuring_bytes(contract, (image.rows, image.columns))
    sixteen_bits = dtype != "float32"
    views = 8 if contract.views == "dihedral" else 1
    kept = KEPT if chosen.type == "cpu" else 1
    fitting = largest_tile_within(config, (room - weights) / kept, sixteen_bits=sixteen_bits, views=views)
    if fitting is None or measuring > room:
        smallest = weights + kept * tile_bytes(config, smallest_tile(config), sixteen_bits=sixteen_bits, views=views)
        smallest = max(smallest, measuring)
        least = smallest + (resident_memory() if chosen.type == "cpu" else 0)
        raise OutOfMemory(
            f"the smallest tile of this network needs {say_bytes(smallest)} beside what the program holds: "
            f"--memory {say_bytes(1.02 * least, up=True)} would do"
        )
    whole = smallest_input_for(max(image.rows, image.columns), config.depth)
    return max(min(fitting, LARGEST_TILE << config.coarse, whole), smallest_tile(config))


def _objects_block(memory: int | None) -> int:
    """Rows and columns in which single objects are found at a time, as the memory allows."""
    if memory is None:
        return OBJECTS_BLOCK
    side = int(np.sqrt(max(memory - resident_memory(), 0) / OBJECT_BYTES))
    return min(max(side // 256 * 256, 256), OBJECTS_BLOCK)


def _normalised(image: LargeImage, contract: Contract) -> tuple[Numbers, Numbers, str, list[ImageStatistics]]:
    """Offset and gain of each plane, a hash of the pixels that they come from, an even grid of all, and its looks.

    Raises
    ------
    InputError
        If the image has other channels than the model, or holds NaN there.
    """
    step, seen = contract.normalisation.stride(image.rows, image.columns), hashlib.sha256()
    offsets, gains, looks = [], [], []
    for plane in image.planes:
        pixels = np.moveaxis(image.read_strided(plane, step), 0, -1)
        try:
            sample = channels_first(pixels, contract.network.in_channels)
        except InputError as error:
            raise InputError(f"{image.path}: {error}") from None
        seen.update(np.ascontiguousarray(sample).tobytes())
        offset, gain = contract.normalisation.of_sample(sample)
        offsets.append(tuple(map(float, offset)))
        gains.append(tuple(map(float, gain)))
        read = partial(_read_channels, image, plane, contract.network.in_channels)
        looks.append(sampled_statistics(sample, image.rows, image.columns, read))
    return tuple(offsets), tuple(gains), seen.hexdigest(), looks


def _unlike_planes(names: "_Names", looks: Sequence[ImageStatistics], contract: Contract) -> dict[str, Unlike]:
    found = {
        plane: unlike(contract, look, names.image.channel_names)
        for plane, look in zip(names.planes, looks, strict=True)
    }
    return {plane: other for plane, other in found.items() if other is not None}


def _unlike_diameters(names: "_Names", diameters: Sequence[float | None], contract: Contract) -> dict[str, float]:
    found = zip(names.planes, diameters, strict=False)
    return {plane: one for plane, one in found if one is not None and unlike_diameter(contract, one)}


def _check_views(contract: Contract) -> None:
    if contract.views == "rotations":
        raise InputError(
            'this model averages rotations of the whole image (views = "rotations"), for which it must fit the memory; '
            'a model trained with views = "dihedral" takes images of any size'
        )


def _model_file(model: str | Path) -> Path:
    path = Path(model)
    return path / FILE_NAME if path.is_dir() else path


@dataclass(frozen=True)
class _Names:
    """Where everything goes."""

    out: Path
    image: LargeImage
    wants_probabilities: bool
    counts_objects: bool

    @property
    def _ending(self) -> str:
        return ".ome.zarr" if self.image.zarr_format else ".tif"

    @property
    def labels(self) -> Path:
        return self.out / f"{self.image.name}{self._ending}"

    @property
    def probabilities(self) -> Path | None:
        return self.out / f"{self.image.name}_probabilities{self._ending}" if self.wants_probabilities else None

    @property
    def tables(self) -> list[Path]:
        """One a plane; pages of a stack are named as they are without this module."""
        if not self.counts_objects:
            return []
        return [self.out / f"{plane}_objects.csv" for plane in self.planes]

    @property
    def planes(self) -> list[str]:
        """Name each plane."""
        name, number = self.image.name, len(self.image.planes)
        return [name] if number == 1 else [f"{name}_{plane:04d}" for plane in range(number)]

    @property
    def unfinished(self) -> Path:
        return self.out / f"{self.image.name}{UNFINISHED}"

    @property
    def results(self) -> list[Path]:
        return [path for path in (self.labels, self.probabilities, *self.tables) if path is not None]

    def check(self, *, resume: bool, overwrite: bool) -> None:
        """Refuse before anything is computed what is in the way."""
        source = self.image.path.resolve()
        begun = resume and (self.unfinished / WRITING).exists()  # what is there is of the job that was stopped
        for path in self.results:
            if path.resolve() == source or source in path.resolve().parents:
                raise FileError(f"{path} would be the image itself, or inside it: choose another --out")
            if path.exists() and not (overwrite or begun):
                raise FileError(f"{path} exists already: choose another folder or say --overwrite")
            if path.exists() and not (is_our_result(path) if path.is_dir() else was_written_here(path)):
                raise FileError(f"{path} is no result of ubend, and is not replaced: choose another --out")
            if path.exists() and not begun and is_for_labels(self.out, source.parent):
                raise FileError(
                    f"{path} is in the folder of the labels, where nothing is replaced: choose another --out"
                )
        if self.unfinished.exists() and not ((self.unfinished / JOB).exists() or _is_empty(self.unfinished)):
            raise FileError(
                f"{self.unfinished} is no unfinished job of ubend, and is not replaced: choose another --out"
            )
        if self.unfinished.exists() and not (resume or overwrite):
            raise FileError(
                f"{self.unfinished} holds what a stopped job has done: --resume goes on there, --overwrite begins anew"
            )


def _is_empty(folder: Path) -> bool:
    return folder.is_dir() and not any(folder.iterdir())


@dataclass(frozen=True)
class _Store:
    """What is computed, as plain Zarr arrays in the unfinished folder, a chunk a block.

    Attributes
    ----------
    folder : Path
    maps : zarr.Array of float32, shape (planes, maps, rows, columns), or None
        Probabilities; where they are not asked for only what single objects are found in.
    labels : zarr.Array, shape (planes, rows, columns)
    """

    folder: Path
    maps: Any
    labels: Any

    @classmethod
    def create(
        cls, folder: Path, image: LargeImage, contract: Contract, blocks: Sequence[Block], *, probabilities: bool
    ) -> "_Store":
        """Make both arrays, or open those that are there."""
        planes, shape = len(image.planes), (image.rows, image.columns)
        tile = tuple(span.stop - span.start for span in (blocks[0].rows, blocks[0].columns))
        counts_objects = contract.task.kind == "instances"
        arrays: dict[str, dict[str, Any]] = {}
        if probabilities or counts_objects:
            maps = contract.network.classes - (0 if probabilities else 1)
            arrays["maps.zarr"] = {"shape": (planes, maps, *shape), "chunks": (1, maps, *tile), "dtype": "float32"}
        dtype = (
            np.dtype(np.uint32) if counts_objects else predict_labels(contract, np.zeros((2, 1, 1), np.float32)).dtype
        )
        chunk = tuple(min(LABELS_CHUNK, length) for length in shape) if counts_objects else tile
        arrays["labels.zarr"] = {"shape": (planes, *shape), "chunks": (1, *chunk), "dtype": dtype}
        for name, kind in arrays.items():
            if not (folder / name).exists():
                zarr.create_array(folder / name, compressors=FAST, **kind)
            found = open_zarr_array(folder / name)
            if any(getattr(found, what) != value for what, value in kind.items()):
                raise FileError(
                    f"{folder / name} is damaged, so that nothing can be continued: --overwrite begins anew"
                )
        return cls.open(folder)

    @classmethod
    def open(cls, folder: Path) -> "_Store":
        maps = open_zarr_array(folder / "maps.zarr", "r+") if (folder / "maps.zarr").exists() else None
        return cls(folder, maps, open_zarr_array(folder / "labels.zarr", "r+"))

    def write(self, block: Block, maps: NDArray[np.float32], contract: Contract) -> str:
        """Write what the network has found in a block; return the checksum."""
        try:
            return self._write(block, maps, contract)
        except OSError as error:
            raise FileError(why_not_written(self.folder, error)) from error

    def _write(self, block: Block, maps: NDArray[np.float32], contract: Contract) -> str:
        digest = hashlib.sha256()
        plane, rows, columns = block.place
        if self.maps is not None:
            kept = np.ascontiguousarray(maps[-self.maps.shape[1] :])
            self.maps[plane, :, rows, columns] = kept
            digest.update(kept.tobytes())
        if contract.task.kind != "instances":
            labels = predict_labels(contract, maps)
            self.labels[plane, rows, columns] = labels
            digest.update(labels.tobytes())
        return digest.hexdigest()

    def checksum(self, block: Block, contract: Contract) -> str:
        """Read a block again."""
        digest = hashlib.sha256()
        plane, rows, columns = block.place
        with contextlib.suppress(OSError, ValueError, RuntimeError):  # a damaged chunk has no checksum that is right
            if self.maps is not None:
                digest.update(np.asarray(self.maps[plane, :, rows, columns]).tobytes())
            if contract.task.kind != "instances":
                digest.update(np.asarray(self.labels[plane, rows, columns]).tobytes())
            return digest.hexdigest()
        return ""

    def remember(self, block: Block, checksum: str) -> None:
        """Note that a block is done."""
        try:
            with (self.folder / DONE).open("a", encoding="utf-8") as file:
                file.write(json.dumps({"block": block.number, "sha256": checksum}) + "\n")
        except OSError as error:
            raise FileError(why_not_written(self.folder / DONE, error)) from error

    def done(self, blocks: Sequence[Block], contract: Contract) -> tuple[set[int], int]:
        """Return the numbers of the blocks that are there and have their checksum, and how many do not have it."""
        noted: dict[int, str] = {}
        if (self.folder / DONE).is_file():
            for line in (self.folder / DONE).read_bytes().splitlines():
                with contextlib.suppress(*_DAMAGE):  # the line under way when it was stopped
                    row = json.loads(line)
                    noted[int(row["block"])] = str(row["sha256"])
        right = {b.number for b in blocks if b.number in noted and self.checksum(b, contract) == noted[b.number]}
        return right, len(noted) - len(right)


@dataclass(frozen=True)
class _Plane:
    """One plane of an array (…, rows, columns), read and written like an array of its own."""

    array: Any
    place: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.array.shape[len(self.place) :])

    @property
    def dtype(self) -> np.dtype[Any]:
        dtype: np.dtype[Any] = self.array.dtype
        return dtype

    def __getitem__(self, index: Any) -> NDArray[Any]:
        return np.asarray(self.array[(*self.place, *index)])

    def __setitem__(self, index: Any, values: Any) -> None:
        self.array[(*self.place, *index)] = values


def _find_objects(
    store: _Store, image: LargeImage, contract: Contract, block: int, tell: Callable[[Progress], None]
) -> list[int]:
    """Find the single objects of each plane; return how many there are."""
    found = []
    maps = store.maps
    foreground = 1 - (contract.network.classes - maps.shape[1])  # the background may have been left out
    for plane in range(len(image.planes)):
        distance = _Plane(maps, (plane, maps.shape[1] - 1)) if contract.learns_distance else None
        found.append(
            objects_in_blocks(
                _Plane(maps, (plane, foreground)), contract.objects, _Plane(store.labels, (plane,)), distance=distance,
                block=block, on_block=lambda done, of: tell(Progress("objects", done, of)),
            )
        )  # fmt: skip
    return found


def _write_results(
    store: _Store, names: "_Names", contract: Contract, found: Sequence[int], tell: Callable[[Progress], None]
) -> list[float | None]:
    """Write tables, probabilities and, last, the labels under their own names; return diameters of objects."""
    image, diameters = names.image, []
    (store.folder / WRITING).touch()
    for plane, (place, table) in enumerate(zip(image.planes, names.tables, strict=False)):
        tell(Progress("table", plane, len(names.tables)))
        measured = measure_objects_in_blocks(
            _Plane(store.labels, (plane,)), partial(_read_channels, image, place, contract.network.in_channels),
            pixel_size=image.pixel_size, block=OBJECTS_BLOCK,
        )  # fmt: skip
        write_table(table, measured.columns(), overwrite=True)
        diameters.append(median_diameter(measured.area))
    if names.probabilities is not None:
        _write_planes(names.probabilities, image, store.maps, "probabilities", None, tell)
    most = max(found, default=0) if names.counts_objects else max(contract.task.values)
    _write_planes(names.labels, image, store.labels, "labels", most, tell)
    return diameters


def _read_channels(
    image: LargeImage, plane: tuple[int, ...], channels: int, rows: slice, columns: slice
) -> NDArray[Any]:
    """Read the channels that the model takes: of a gray image that was saved as colour the first."""
    return image.read(plane, rows, columns)[:channels]


def _write_planes(
    path: Path, image: LargeImage, array: Any, what: str, most: int | None, tell: Callable[[Progress], None]
) -> None:
    planes = [_Plane(array, (plane,)) for plane in range(len(image.planes))]
    if image.zarr_format is None:
        tell(Progress(what, 0, 1))
        write_large_tiff(path, planes if len(planes) > 1 else planes[0], maximum=most,
                         stack=image.stack, pixel_size=image.pixel_size, overwrite=True)  # fmt: skip
        return
    if most is None:
        result = create_probabilities(path, image, array.shape[1], overwrite=True)
    else:
        result = create_labels(path, image, dtype=array.dtype, overwrite=True)
    step = OBJECTS_BLOCK // result.chunk[0] * result.chunk[0] or result.chunk[0]
    places = [
        (plane, row, column)
        for plane in range(len(planes))
        for row in range(0, image.rows, step)
        for column in range(0, image.columns, step)
    ]
    for number, (plane, row, column) in enumerate(places):
        tell(Progress(what, number, len(places)))
        window = slice(row, min(row + step, image.rows)), slice(column, min(column + step, image.columns))
        block = planes[plane][window] if most is not None else planes[plane][(slice(None), *window)]
        result.write(image.planes[plane], row, column, block)
    result.finish()


def _job(
    model: Path,
    image: LargeImage,
    pixels: str,
    tile: int,
    contract: Contract,
    *,
    probabilities: bool,
    dtype: str,
) -> dict[str, Any]:
    """Say all that the values of the blocks depend on."""
    return {
        "ubend": __version__,
        "torch": torch.__version__,
        "model": hashlib.sha256(model.read_bytes()).hexdigest(),
        "image": f"{image.channels}×{image.rows}×{image.columns}, {len(image.planes)} planes, {image.dtype}",
        "pixels": pixels,
        "level": image.level,
        "tile": tile,
        "probabilities": probabilities,
        "dtype": dtype,
        "task": contract.task.kind,
    }


def _read_job(folder: Path) -> dict[str, Any] | None:
    if not (folder / JOB).exists():
        return None
    try:
        found = json.loads(text_of(folder / JOB))
    except _DAMAGE:
        found = None
    if not isinstance(found, dict) or type(found.get("tile")) is not int:
        raise FileError(f"{folder / JOB} is damaged, so that nothing can be continued: --overwrite begins anew")
    return found


def _same_job(folder: Path, job: dict[str, Any]) -> str:
    """Note what is being made, or refuse to continue another job; return the name of the job."""
    known = _read_job(folder)
    if known is None:
        name = str(uuid.uuid4())
        named = {"name": name, **job}
        try:
            folder.mkdir(parents=True, exist_ok=True)
            write_atomically(folder / JOB, lambda part: part.write_text(json.dumps(named, indent=2), encoding="utf-8"))
        except OSError as error:
            raise error if isinstance(error, FileError) else FileError(why_not_written(folder, error)) from error
        return name
    others = [name for name in job if known.get(name) != job[name]]
    if others:
        said = ", ".join(f"{name} {known.get(name)!s:.40}, now {job[name]!s:.40}" for name in others)
        raise FileError(f"{folder} was begun otherwise ({said}): --overwrite begins anew")
    return str(known.get("name"))


@contextlib.contextmanager
def _kept_to_resume(folder: Path) -> Iterator[None]:
    """The unfinished folder goes when all is done, and stays for --resume if a block is."""
    try:
        yield
    except BaseException as error:
        _forget()
        if not (folder / DONE).exists():
            shutil.rmtree(folder, ignore_errors=True)
            raise
        stays = f"what is done stays in {folder}, and --resume goes on there"
        if isinstance(error, UbendError):
            raise type(error)(f"{error}; {stays}") from error
        if isinstance(error, OSError):
            raise FileError(f"{why_not_written(folder, error)} {stays}") from error
        raise
    _forget()
    shutil.rmtree(folder)
