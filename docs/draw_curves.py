"""The pictures of docs/curves.md, of numbers in docs/measured: the runs of the sweep that the page shows."""

import csv
import json
import shutil
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from accel_trainer.config import Job
from accel_trainer.report.compare import compare
from accel_trainer.report.curves import History, curves_of_groups
from accel_trainer.report.curves_figure import Look, curves_figure
from accel_trainer.report.groups import grouped
from accel_trainer.report.range_test_figure import range_test_figure
from accel_trainer.report.run_figure import About, run_figure
from accel_trainer.report.style import save, styled
from accel_trainer.run.folder import RunFolder
from accel_trainer.run.performance import PerformanceRow, read_performance, write_performance
from accel_trainer.run.status import RunState, Status, write_status

MEASURED = Path(__file__).parent / "measured"
# In two of them one run is shown.
SHOWN = "cornet_z-40-0"
NUM_CLASSES = 10
# Pictures of a page of the site need no more.
SHEET = "savefig.dpi: 200\n"


def lay_out(folder: Path) -> list[RunFolder]:
    """Run folders as the sweep has left them, with what the curves are drawn from."""
    tables: dict[tuple[str, str, str], list[PerformanceRow]] = defaultdict(list)
    with (MEASURED / "runs.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            scores = {name: float(row[name]) for name in ("loss", "acc1", "acc5")}
            measured = PerformanceRow(int(row["epoch"]), row["split"], scores, float(row["lr"]), 1.0, 1.0)
            tables[row["architecture"], row["visibility"], row["seed"]].append(measured)
    return [_run(folder, *about, rows) for about, rows in tables.items()]


def _run(folder: Path, architecture: str, visibility: str, seed: str, rows: list[PerformanceRow]) -> RunFolder:
    name = f"{architecture}-{visibility}-{seed}"
    job = Job.model_validate(
        {
            "architecture": architecture,
            "name": name,
            "seed": int(seed),
            "Occlusion": {"form": "mudSplash", "visibility": int(visibility)},
        }
    )
    run = RunFolder(folder / name)
    run.create()
    run.config.write_text(json.dumps({**job.completed(), "primary_metric": "acc1"}))
    run.environment.write_text(json.dumps({"job": name}))
    run.classes.write_text(json.dumps([{"class": str(digit), "label": digit} for digit in range(NUM_CLASSES)]))
    write_performance(run, rows)
    write_status(run, Status(state=RunState.FINISHED))
    return run


def draw(folder: Path, runs_folder: Path) -> Iterator[Path]:
    """Write curves-run.png, curves-groups.png and curves-lr-finder.png."""
    runs = lay_out(runs_folder)
    sheet = runs_folder / "page.mplstyle"
    sheet.write_text(SHEET)
    with styled(sheet):
        shown = next(run for run in runs if run.path.name == SHOWN)
        rows = read_performance(shown)
        histories = [History.of(run, row) for run, row in zip(runs, compare(runs), strict=True)]
        groups = grouped([one.row for one in histories], ["architecture", "visibility"])
        curves = curves_of_groups(groups, {id(one.row): one for one in histories}, "acc1", "epoch")
        with (MEASURED / "lr_finder.csv").open(newline="") as file:
            tried = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
        found = float(json.loads((MEASURED / "found.json").read_text())["LRfinder"])
        figures = {
            "curves-run": run_figure(rows, About.of(shown, rows)),
            "curves-groups": curves_figure({"acc1": curves}, "epoch", Look()),
            "curves-lr-finder": range_test_figure(tried, found, "digits", ""),
        }
        for name, figure in figures.items():
            save(figure, folder / f"{name}.png", "png")
            yield folder / f"{name}.png"
    shutil.rmtree(runs_folder)
