"""lr_finder.png: what the search for a learning rate has tried, from its lr_finder.csv.

As a program: `python -m accel_trainer.report.rates RUN [RATE]`, with the rate that was found, if one was.
"""

import csv

from accel_trainer.run.folder import RunFolder


def draw_range_test(run: RunFolder, found: float | None) -> None:
    """Draw the losses of the test over its learning rates, and the rate that was found, if one was; the file appears
    whole, by a rename."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib.figure import Figure

    with run.lr_finder.open(newline="") as file:
        rows = list(csv.DictReader(file))
    rates = [float(row["rate"]) for row in rows]
    figure = Figure(figsize=(6, 3.6), layout="constrained")
    axes = figure.subplots()
    axes.plot(rates, [float(row["loss"]) for row in rows], ".", color="tab:blue", alpha=0.4, label="loss of a step")
    axes.plot(rates, [float(row["smoothed"]) for row in rows], color="tab:blue", label="running mean")
    if found is not None:
        axes.axvline(found, color="tab:orange", label=f"steepest: {found:g}")
    axes.set(xscale="log", xlabel="learning rate", ylabel="loss")
    axes.legend()
    figure.suptitle(run.path.name, parse_math=False)
    aside = run.lr_finder_plot.with_name(f".{run.lr_finder_plot.name}.tmp")
    figure.savefig(aside, format="png", dpi=120)
    aside.replace(run.lr_finder_plot)
