"""Draws the curves of a run, in a process of its own: matplotlib takes time and memory that a training needs.

Without an option it draws performance.png, .pdf and .svg for each line on its standard input; with `--lr-finder` it
draws the range test of a search for a learning rate once.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from accel_trainer.report.plots import draw_range_test, serve
from accel_trainer.report.style import usable_style
from accel_trainer.run.folder import RunFolder


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line and draw."""
    parser = argparse.ArgumentParser(prog="accel_trainer.workers.plot", description=__doc__)
    parser.add_argument("run", type=Path, help="the run folder")
    parser.add_argument("--aside", type=Path, help="the own folder of the run folder's owner, to write in first")
    parser.add_argument("--lr-finder", action="store_true", help="draw lr_finder.png instead")
    parser.add_argument("--rate", type=float, help="the learning rate that was found")
    parser.add_argument("--note", default="", help="what was found, in words")
    args = parser.parse_args(argv)
    run, style = RunFolder(args.run, aside=args.aside), usable_style()
    if args.lr_finder:
        draw_range_test(run, args.rate, args.note, style)
    else:
        serve(run, style)


if __name__ == "__main__":
    main()
