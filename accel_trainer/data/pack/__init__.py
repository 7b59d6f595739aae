"""Packs: all images of a data set in a few files."""
