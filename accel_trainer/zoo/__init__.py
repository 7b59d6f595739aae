"""Architectures by name. Nothing in here knows jobs or data."""
