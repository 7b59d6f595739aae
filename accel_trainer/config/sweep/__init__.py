"""Sweeps: one job and some axes to many jobs."""
