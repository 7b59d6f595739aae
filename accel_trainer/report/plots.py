"""Pictures in a run folder: performance.png, .pdf and .svg from its performance.csv, lr_finder.png from its
lr_finder.csv."""

import csv
import os
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue

from accel_trainer.core.blocks import open_text
from accel_trainer.core.files import replacing
from accel_trainer.report.range_test_figure import range_test_figure
from accel_trainer.report.run_figure import About, run_figure
from accel_trainer.report.style import SUFFIXES, save, save_all, styled
from accel_trainer.run.folder import RunFolder
from accel_trainer.run.load import job_of
from accel_trainer.run.performance import MAX_PERFORMANCE, read_performance
from accel_trainer.run.records import read_environment

WHILE_TRAINING = ("png",)


def draw_curves(run: RunFolder, style: Path | None = None, suffixes: Sequence[str] = SUFFIXES) -> None:
    """Draw the curves of a run; files appear whole, by a rename. style: as of `styled`."""
    rows = read_performance(run)
    if not rows:
        return
    with styled(style):
        save_all(run_figure(rows, About.of(run, rows)), run.plot, suffixes, aside_in=run.aside)


def draw_range_test(run: RunFolder, found: float | None, note: str = "", style: Path | None = None) -> None:
    """Draw the losses of a range test over its learning rates, and the rate that was found, if one was. note: what is
    to be said of it.

    The file appears whole, by a rename.
    """
    with open_text(run.lr_finder, MAX_PERFORMANCE) as file:
        rows = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
    with styled(style), replacing(run.lr_finder_plot, aside_in=run.aside) as aside:
        save(range_test_figure(rows, found, job_of(run, read_environment(run)), note), aside, "png")


def serve(run: RunFolder, style: Path | None = None) -> None:
    """Draw for every line on standard input; lines that arrive while it draws cause one drawing together. While a
    training goes on that is performance.png, which takes half the time of all forms; when the input ends, all."""
    with suppress(OSError):
        os.nice(10)
    requests: SimpleQueue[bool] = SimpleQueue()

    def listen() -> None:
        for _ in sys.stdin:
            requests.put(True)
        requests.put(False)  # the training has ended

    threading.Thread(target=listen, daemon=True).start()
    is_open, is_drawn = True, False
    while is_open:
        waiting = [requests.get()]
        while not requests.empty():
            waiting.append(requests.get())
        is_open = all(waiting)
        is_drawn |= any(waiting)
        if is_drawn:
            try:
                draw_curves(run, style, WHILE_TRAINING if is_open else SUFFIXES)
            except FileNotFoundError:
                if run.aside is None or run.aside.is_dir():
                    raise
                return  # the run is another process's
