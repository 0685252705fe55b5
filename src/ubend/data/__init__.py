"""Images in and out: the only room that opens image files."""
