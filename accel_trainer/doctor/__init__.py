"""What may be wrong with a machine, an installation, or the folder of a queue, before a job finds out."""
