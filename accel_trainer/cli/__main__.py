"""`python -m accel_trainer.cli` is the command `accel-train`."""

from accel_trainer.cli import main

main()
