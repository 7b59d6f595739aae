"""From stored images to batches of what models see."""
