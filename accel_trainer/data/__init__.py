"""From stored images to batches of pixels. Nothing in here knows models or runs."""
