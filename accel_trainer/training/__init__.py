"""One training run. Nothing in here knows the queue or the command line."""
