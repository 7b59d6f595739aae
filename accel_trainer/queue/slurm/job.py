"""What scripts that Slurm holds already call, for one release: `python -m accel_trainer.queue.slurm.job`."""

import sys

from accel_trainer.core.processes import stop_request

if __name__ == "__main__":
    stop_request()  # signals are noted from the first moment on
    from accel_trainer.queue.slurm.start import main

    sys.exit(main())
