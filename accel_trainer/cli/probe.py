"""The verb `probe`: what can be read out of the layers of a trained model."""

from typing import Annotated, Any, Literal

import typer

from accel_trainer.api.trained_run import load_run
from accel_trainer.cli.app import AllowOption, JsonOption, app, echo
from accel_trainer.cli.figures import CsvOption, print_records
from accel_trainer.cli.launching import (
    ConfigOption,
    CpuOption,
    DataRootOption,
    GpusOption,
    ProcessesOption,
    RunArgument,
    WeightsOption,
    launch_options,
    worker_call,
)
from accel_trainer.core.errors import UserError
from accel_trainer.core.text import did_you_mean, listed

READOUTS = ("logistic", "sgd", "knn")


@app.command()
def probe(
    run: RunArgument,
    layers: Annotated[
        str, typer.Option("--layers", help="As of `features`: such as V1,IT or IT-t2.", show_default=False)
    ],
    readout: Annotated[str, typer.Option("--readout", help="logistic, sgd, knn; several with commas.")] = "logistic",
    c: Annotated[
        str, typer.Option("--c", help="Of logistic: the inverse of the penalty; of several the best in 5 folds.")
    ] = "1",
    k: Annotated[str, typer.Option("--k", help="Of knn: how many neighbors; several with commas.")] = "20",
    temperature: Annotated[
        str, typer.Option("--temperature", help="Of knn: votes weigh exp(similarity / it); none: 1 each.")
    ] = "0.07",
    lr: Annotated[float, typer.Option("--lr", min=0, help="Of sgd: the learning rate.")] = 1.0,
    epochs: Annotated[int, typer.Option("--epochs", min=1, help="Of sgd.")] = 100,
    pool: Annotated[
        Literal["flatten", "mean"], typer.Option("--pool", help="All values, or means over height and width.")
    ] = "flatten",
    dataset: Annotated[
        str | None,
        typer.Option(
            "--dataset",
            help="Training and validation images, named as in a job; by default the run's own.",
            show_default=False,
        ),
    ] = None,
    data_root: DataRootOption = None,
    weights: WeightsOption = "best",
    name: Annotated[str, typer.Option("--name", help="Folder in the run's evaluations/.")] = "probe",
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Images in a forward pass.")] = 64,
    config: ConfigOption = None,
    gpus: GpusOption = None,
    num_processes: ProcessesOption = None,
    cpu: CpuOption = False,
    allow: AllowOption = "",
    as_csv: CsvOption = False,
    as_json: JsonOption = False,
) -> None:
    """Learn classes from frozen features of training images, by layer and cycle, and test on validation images."""
    readouts = _words(readout)
    if unknown := [word for word in readouts if word not in READOUTS]:
        near = did_you_mean(unknown[0], READOUTS) or f"; there are: {listed(READOUTS)}"
        raise UserError(f"{unknown[0]!r} is no readout{near}", option="readout")
    arguments = [f"--layer={word}" for word in _words(layers)] + [f"--readout={word}" for word in readouts]
    arguments += [f"--c={_positive(word, 'c')}" for word in _words(c)]
    arguments += [f"--k={int(_positive(word, 'k', whole=True))}" for word in _words(k)]
    arguments += [] if temperature == "none" else [f"--temperature={_positive(temperature, 'temperature')}"]
    arguments += [f"--lr={lr}", f"--epochs={epochs}", f"--pool={pool}", f"--name={name}", f"--batch-size={batch_size}"]
    given = {"dataset": dataset, "data-root": data_root}
    arguments += [f"--{option}={value}" for option, value in given.items() if value is not None]
    options = launch_options(config, num_processes, gpus, cpu=cpu)
    launched = load_run(run).launch_probe(arguments, weights=weights, options=options, allow=allow)
    with worker_call(launched, f"{run}: the probe") as call:
        if call.row is None:
            echo("the first machine has the result")
            return
        _print(call.row, as_csv=as_csv, as_json=as_json)


def _print(row: dict[str, Any], *, as_csv: bool, as_json: bool) -> None:
    for note in row["notes"]:
        echo(note, err=True)
    print_records(row["figures"], as_csv=as_csv, as_json=as_json)
    echo(f"{row['folder']}: trials.parquet, summary.csv", err=True)


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _positive(word: str, option: str, *, whole: bool = False) -> float:
    try:
        number = float(word)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf") or (whole and number != int(number)):
        raise UserError(f"{word!r} is no positive {'whole ' if whole else ''}number", option=option)
    return number
