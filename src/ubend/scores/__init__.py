"""How good a result is: arrays in, numbers out."""

from ubend.scores import cells, em_challenge, regions

__all__ = ["cells", "em_challenge", "regions"]
