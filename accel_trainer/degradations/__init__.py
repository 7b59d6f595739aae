"""Degraded images: pure functions of an image, a level and a key, and published sets of degraded images."""
