"""The verbs for trained runs: `compare` and `evaluate`."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from accel_trainer.api.trained_run import load_run, load_runs
from accel_trainer.cli.app import (
    MISTAKE,
    AllowOption,
    JsonOption,
    app,
    echo,
    echo_text,
    print_problems,
    print_warnings,
)
from accel_trainer.cli.launching import (
    ConfigOption,
    CpuOption,
    DataRootOption,
    GpusOption,
    ProcessesOption,
    WeightsOption,
    launch_options,
    worker_call,
)
from accel_trainer.core.errors import UserError
from accel_trainer.core.text import duration, format_value, shortest_suffixes
from accel_trainer.run.folder import RunFolder
from accel_trainer.run.status import status_damage

if TYPE_CHECKING:
    from accel_trainer.report.compare import Comparison


@app.command()
def compare(
    runs: Annotated[list[Path], typer.Argument(help="Run folders.", show_default=False)],
    columns: Annotated[
        str | None,
        typer.Option(
            "--columns",
            help="Parameters to show, such as lr,seed; by default those that differ among the runs of a sweep.",
            show_default=False,
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Print a table of trained runs, and of the runs that were fine-tuned from them inside their folders."""
    from accel_trainer.report import compare

    rows, problems = list["Comparison"](), list[str]()
    for path in runs:
        try:
            found = load_runs(path)
            rows += [run.summary for run in found]
            print_warnings(damage for run in found if (damage := status_damage(RunFolder(run.path))) is not None)
        except UserError as error:
            problems += error.problems
    if columns is None:
        keys = compare.varying_parameters(rows)
    else:
        keys = compare.find_parameters([word.strip() for word in columns.split(",")], rows) if rows else []
    rows = compare.select_parameters(keys, rows)
    if as_json:
        echo_text(json.dumps([asdict(row) for row in rows], indent=2))
    elif rows:
        echo_text(_comparison(rows))
    print_problems(problems)
    if problems:
        raise typer.Exit(MISTAKE)


@app.command()
def evaluate(
    run: Annotated[Path, typer.Argument(help="Run folder.", show_default=False)],
    weights: WeightsOption = "best",
    dataset: Annotated[
        str | None,
        typer.Option(
            "--dataset", help="Another data set, named as in a job; its validation images are used.", show_default=False
        ),
    ] = None,
    data_root: DataRootOption = None,
    config: ConfigOption = None,
    gpus: GpusOption = None,
    num_processes: ProcessesOption = None,
    cpu: CpuOption = False,
    allow: AllowOption = "",
    as_json: JsonOption = False,
) -> None:
    """Evaluate trained weights on the validation images of their own data set or of another one."""
    options = launch_options(config, num_processes, gpus, cpu=cpu)
    evaluation = load_run(run).launch_evaluation(
        dataset, weights=weights, data_root=data_root, options=options, allow=allow
    )
    with worker_call(evaluation, f"{run}: the evaluation") as call:
        if (row := call.row) is None:
            echo("the first machine has the result")
            return
        if row["corrupt"]:
            log = call.keep_log()
            echo(f"{row['corrupt']} corrupt images were left out; their names are in {log}", err=True)
        if others := row.get("other_inputs"):
            echo(f"the images are augmented from other files than in the training: {'; '.join(others)}", err=True)
        echo_text(json.dumps(row) if as_json else _evaluation(row))


def _evaluation(row: Mapping[str, Any]) -> str:
    from accel_trainer.cli.tables import table

    loss = None if row["loss"] is None else f"{row['loss']:.4f}"
    columns = {key: value for key, value in {**row, "loss": loss}.items() if key != "other_inputs"}
    return table(list(columns), [list(columns.values())])


def _comparison(rows: "Sequence[Comparison]") -> str:
    from accel_trainer.cli.tables import table

    settings = shortest_suffixes(rows[0].settings)
    any_corrupt = any(row.corrupt for row in rows)
    header = (
        "job",
        "architecture",
        *settings.values(),
        "parameters",
        "state",
        "epochs",
        "metric",
        "best",
        "in epoch",
        "images/s",
        "time",
        *["corrupt"] * any_corrupt,
    )
    cells = [
        [r.job, r.architecture, *(None if value is None else format_value(value) for value in r.settings.values()),
         r.parameters, r.state, f"{r.epochs}/{r.num_epochs}", r.metric, r.best, r.best_epoch, r.images_per_s,
         duration(r.seconds), *[r.corrupt] * any_corrupt]
        for r in rows
    ]  # fmt: skip
    return table(header, cells)
