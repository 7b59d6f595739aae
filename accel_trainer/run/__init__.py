"""The run folder: its paths, status, lock, log and tables. The trainer writes it, queue and reports read it."""
