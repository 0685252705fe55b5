"""ubend inside napari: paint a few cells, train, look, correct, train on. What needs no window needs no napari."""
