"""Runs that are trained, measured again."""
