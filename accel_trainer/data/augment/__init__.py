"""What is done to images: drawn for all rows at once, then applied."""
