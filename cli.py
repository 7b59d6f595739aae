"""Run accel-train from a checkout: `python cli.py run-queue` is `accel-train run-queue`."""

from accel_trainer.cli import main

if __name__ == "__main__":
    main()
