"""What napari opens and saves of ubend: models, results with their tables, simulated samples."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ubend.data.formats import file_stem, read_labels, write_labels
from ubend.data.origin import was_written_here
from ubend.data.simulated import simulate
from ubend.data.tables import write_table
from ubend.errors import FileError, UbendError
from ubend.method.measurements import measure_objects

__all__ = [
    "model_reader",
    "results_reader",
    "sample_cells",
    "sample_landscape",
    "sample_membranes",
    "sample_nuclei",
    "write_labels_layer",
]

LayerData = tuple[Any, ...]
SAMPLES, SAMPLE_SHAPE = 6, (256, 256)
_TABLE, _ALL = "_objects.csv", "objects.csv"


def model_reader(path: str | list[str]) -> Callable[[str | list[str]], list[LayerData]] | None:
    """Offer to open a model: it is no layer, so the widget opens with it."""
    paths = [path] if isinstance(path, str) else path
    return _open_model if all(one.endswith(".safetensors") for one in paths) else None


def _open_model(path: str | list[str]) -> list[LayerData]:
    import napari

    viewer = napari.current_viewer()
    if viewer is None:
        raise FileError("a model is opened by the widget of ubend, which needs a window of napari")
    _, widget = viewer.window.add_plugin_dock_widget("ubend", "Train and correct")
    widget.load_model(path if isinstance(path, str) else path[0])
    return [(None,)]


def results_reader(path: str | list[str]) -> Callable[[str | list[str]], list[LayerData]] | None:
    """Offer to open tables of objects, with the label images that they measure."""
    paths = [path] if isinstance(path, str) else path
    return _read_results if all(_label_images(Path(one)) for one in paths) else None


def _label_images(table: Path) -> list[Path]:
    """Find the label images of a table: of one image, or of all images of a folder."""
    if table.name.endswith(_TABLE):
        found = [table.with_name(f"{table.name.removesuffix(_TABLE)}.tif")]
    elif table.name == _ALL:
        found = [
            one.with_name(f"{one.name.removesuffix(_TABLE)}.tif") for one in sorted(table.parent.glob(f"*{_TABLE}"))
        ]
    else:
        found = []
    return [one for one in found if one.is_file()]


def _read_results(path: str | list[str]) -> list[LayerData]:
    layers: list[LayerData] = []
    for table in [Path(path)] if isinstance(path, str) else map(Path, path):
        for image in _label_images(table):
            [picture] = read_labels(image)
            options: dict[str, Any] = {
                "name": picture.name,
                "features": _features(image.with_name(f"{file_stem(image)}{_TABLE}")),
                "visible": not layers,  # one at a time: they would lie on each other
            }
            if picture.pixel_size is not None:
                options |= {"scale": (picture.pixel_size,) * 2, "units": ("micrometer",) * 2}
            layers.append((picture.pixels, options, "labels"))
    return layers


def _features(table: Path) -> dict[str, Any]:
    """Read a table as napari wants it: an object is known by its number in the column "index"."""
    if not table.is_file():
        return {}
    with table.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    if not rows:
        return {}
    columns = {name: np.array([float(row[name] or "nan") for row in rows]) for name in rows[0]}
    return {"index": columns.pop("id").astype(int)} | columns


def write_labels_layer(path: str, data: Any, meta: dict[str, Any]) -> list[str]:
    """Write a labels layer as TIFF, with its pixel size, and the table of its objects beside it."""
    labels, scale, units = np.asarray(data), meta.get("scale", (1.0, 1.0)), meta.get("units", ("pixel",))
    size = float(scale[-1]) if str(units[-1]) == "micrometer" else None
    table = Path(path).with_name(f"{Path(path).stem}{_TABLE}")
    if table.exists() and not was_written_here(table):
        raise ValueError(f"{table} was not written by ubend and is not replaced: give the labels another name")
    try:
        write_labels(path, labels, pixel_size=size, overwrite=True)  # napari has asked
        write_table(table, measure_objects(labels, pixel_size=size).columns(), overwrite=True)
    except UbendError as error:
        raise ValueError(str(error)) from None
    return [path, str(table)]


def _sample(scene: str) -> list[LayerData]:
    samples = [simulate(scene, np.random.default_rng((0, k)), SAMPLE_SHAPE) for k in range(SAMPLES)]
    truth = np.stack([sample.labels for sample in samples])
    return [
        (np.stack([sample.image for sample in samples]), {"name": scene, "rgb": samples[0].image.ndim == 3}, "image"),
        (truth.astype(np.int32), {"name": f"truth of {scene}", "visible": False}, "labels"),
    ]


def sample_cells() -> list[LayerData]:
    """Give simulated cells that touch, and their truth."""
    return _sample("cells")


def sample_nuclei() -> list[LayerData]:
    """Give simulated nuclei, and their truth."""
    return _sample("nuclei")


def sample_membranes() -> list[LayerData]:
    """Give simulated membranes, and their truth."""
    return _sample("membranes")


def sample_landscape() -> list[LayerData]:
    """Give simulated landscapes, and their truth."""
    return _sample("landscape")
