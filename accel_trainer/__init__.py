"""accel-train: a folder of job files in, trained and comparable models out."""

__version__ = "0.1.0"
