"""Objectives: what a model is trained for, and what is measured of it."""
