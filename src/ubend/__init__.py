"""A U-Net from a handful of annotated images, and the segmentation of images of any size with it.

The system of Ronneberger, Fischer and Brox 2015 (doi:10.1007/978-3-319-24574-4_28), faithful by name, and then better.
Importing this package loads neither torch nor numpy: each name is imported when it is first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ubend import scores as scores
    from ubend.data.doctor import check as check
    from ubend.data.simulated import simulate as simulate
    from ubend.method.border_weight import border_weights as border_weights
    from ubend.method.elastic import deform as deform
    from ubend.method.elastic import draw_elastic as draw_elastic
    from ubend.method.nearest_cells import two_nearest_cells as two_nearest_cells
    from ubend.method.network import NetworkConfig as NetworkConfig
    from ubend.method.network import UNet as UNet
    from ubend.run.model import Model as Model
    from ubend.run.model import load as load
    from ubend.run.training import train as train

_HOME = {
    "Model": "ubend.run.model",
    "NetworkConfig": "ubend.method.network",
    "UNet": "ubend.method.network",
    "border_weights": "ubend.method.border_weight",
    "check": "ubend.data.doctor",
    "deform": "ubend.method.elastic",
    "draw_elastic": "ubend.method.elastic",
    "load": "ubend.run.model",
    "simulate": "ubend.data.simulated",
    "train": "ubend.run.training",
    "two_nearest_cells": "ubend.method.nearest_cells",
}

__version__ = "0.1.0"
__all__ = [
    "Model",
    "NetworkConfig",
    "UNet",
    "border_weights",
    "check",
    "deform",
    "draw_elastic",
    "load",
    "scores",
    "simulate",
    "train",
    "two_nearest_cells",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    if name == "scores":
        return importlib.import_module("ubend.scores")
    if name not in _HOME:
        raise AttributeError(f"module 'ubend' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
