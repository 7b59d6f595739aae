"""The Python API, of which the command line is a user."""
