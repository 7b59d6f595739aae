"""Weights of others that a run starts from."""
