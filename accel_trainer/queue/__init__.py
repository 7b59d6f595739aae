"""Jobs as files: claims, scheduling, attempts, where a job goes."""
