"""The verb `evaluate`: scores of trained weights."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from accel_trainer.api.trained_run import load_run
from accel_trainer.cli.app import AllowOption, JsonOption, app, echo, echo_text
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
