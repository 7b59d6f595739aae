"""Jobs of a queue as jobs of Slurm: handed over, looked after, run inside their allocation.

Slurm owns placement, priority and time. A claim that is a cluster's stays in running/ until the job is over, however
often Slurm starts it; only what has that claim may train, so a job of Slurm that comes late does nothing.
"""
