"""Jobs as files, and the processes that train them. Nothing in here knows models, epochs or torch."""
