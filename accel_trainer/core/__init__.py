"""Small tools that know nothing of jobs; no torch, but in `safe_torch`."""
