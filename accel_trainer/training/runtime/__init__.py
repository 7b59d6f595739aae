"""What a run is trained in: accelerator, environment, ranks."""
