"""Words of a job that stand for numbers: "auto" and "LRfinder"."""
