"""One HTML file with everything that is compared: what it holds, gathered and written."""
