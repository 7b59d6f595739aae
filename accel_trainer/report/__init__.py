"""Finished numbers, for people. Nothing in here knows torch or the queue."""
