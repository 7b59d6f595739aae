"""Small tools: errors, text, files, processes, leases, keyed random numbers. No torch, but in `safe_torch`."""
