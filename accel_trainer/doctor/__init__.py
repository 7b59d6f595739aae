"""What may be wrong with a machine, an installation, or a queue's folder."""
