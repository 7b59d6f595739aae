"""The Python API; the command line is a user of it."""
