"""How good a result is: arrays in, numbers out."""

from . import cells, em_challenge, regions, surface

__all__ = ["cells", "em_challenge", "regions", "surface"]
