"""What a run saves and starts from."""
