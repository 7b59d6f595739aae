"""performance.png and performance.pdf: curves of a run, from its performance.csv.

As a program (`python -m accel_trainer.report.plots RUN`): draws once for every line on standard input.
"""

import os
import sys
import threading
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from accel_trainer.report.tables import Row, read_performance
from accel_trainer.runs import RunFolder

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLORS = {"train": "tab:blue", "val": "tab:orange"}


def draw(run: RunFolder) -> None:
    """Draw loss, accuracy and learning rate over epochs; files appear whole, by a rename."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib.figure import Figure

    rows = read_performance(run)
    if not rows:
        return
    figure = Figure(figsize=(12, 3.6), layout="constrained")
    loss, accuracy, rate = figure.subplots(1, 3)
    _curves(loss, rows, {"loss": "-"}, "loss")
    _curves(accuracy, rows, {"acc1": "-", "acc5": ":"}, "accuracy (%)")
    train = [row for row in rows if row.split == "train"]
    rate.plot([row.epoch for row in train], [row.lr for row in train], color="tab:green")
    rate.set(xlabel="epoch", ylabel="learning rate")
    figure.suptitle(run.path.name, parse_math=False)
    for suffix, dpi in (("png", 120), ("pdf", 72)):
        target = run.plot(suffix)
        aside = target.with_name(f".{target.name}.tmp")
        figure.savefig(aside, format=suffix, dpi=dpi, **_no_date(suffix))
        aside.replace(target)


def _curves(axes: "Axes", rows: list[Row], styles: dict[str, str], label: str) -> None:
    marker = "o" if max(row.epoch for row in rows) == 1 else None
    for split, color in COLORS.items():
        of_split = [row for row in rows if row.split == split]
        for name, style in styles.items():
            axes.plot(
                [row.epoch for row in of_split],
                [getattr(row, name) for row in of_split],
                style,
                color=color,
                marker=marker,
                label=split if len(styles) == 1 else f"{split} {name}",
            )
    axes.set(xlabel="epoch", ylabel=label)
    axes.legend()


def _no_date(suffix: str) -> dict[str, Any]:
    """The same numbers give the same file."""
    return {"metadata": {"CreationDate": None}} if suffix == "pdf" else {}


def serve(run: RunFolder) -> None:
    """Draw for every line on standard input; lines that came while drawing ask for one drawing together."""
    with suppress(OSError):
        os.nice(10)
    requests: SimpleQueue[bool] = SimpleQueue()

    def listen() -> None:
        for _ in sys.stdin:
            requests.put(True)
        requests.put(False)  # nobody is left to ask

    threading.Thread(target=listen, daemon=True).start()
    going_on = True
    while going_on:
        waiting = [requests.get()]
        while not requests.empty():
            waiting.append(requests.get())
        if any(waiting):
            draw(run)
        going_on = all(waiting)


if __name__ == "__main__":
    serve(RunFolder(Path(sys.argv[1])))
