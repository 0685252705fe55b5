"""Workflows: a whole job from images to result."""
