"""Trained runs, measured again."""
