"""A U-Net from a handful of annotated images."""
