"""Files that are copied into exported folders as they stand. They import nothing of this package but each other."""
