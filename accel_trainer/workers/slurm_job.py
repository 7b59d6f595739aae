"""The program that a Slurm job runs on each of its nodes."""

# Signals are handled from the first moment on.
from accel_trainer.core.processes import stop_request

if __name__ == "__main__":
    stop_request()

import sys

from accel_trainer.queue.slurm.start import main

if __name__ == "__main__":
    sys.exit(main())
