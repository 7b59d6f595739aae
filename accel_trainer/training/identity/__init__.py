"""The data set is part of a run: what it began with is recorded, and another one is refused."""
