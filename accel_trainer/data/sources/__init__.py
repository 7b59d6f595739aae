"""Where images come from: folders, Hugging Face datasets, a bundled set."""
