"""Optimizers, parameter groups, learning-rate schedules, and averages of weights."""
