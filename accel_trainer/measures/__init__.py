"""Figures from one table of trials, of models and of people alike; no model is known here."""
