"""The verb `evaluate`: scores of trained weights, and their trials under degradations."""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from accel_trainer.api.trained_run import load_run
from accel_trainer.cli.anchors import (
    AnchorOptions,
    ArchitectureOption,
    ClassesOption,
    OutOption,
    PretrainedOption,
    SettingsOption,
)
from accel_trainer.cli.app import AllowOption, JsonOption, app, echo, echo_text
from accel_trainer.cli.completion import runs
from accel_trainer.cli.launching import (
    ConfigOption,
    CpuOption,
    DataRootOption,
    DegradedSetOption,
    GpusOption,
    ProcessesOption,
    WeightsOption,
    launch_options,
    plan_of_options,
    worker_call,
)
from accel_trainer.core.errors import UserError
from accel_trainer.core.files import replacing

if TYPE_CHECKING:
    from accel_trainer.launch.call_worker import WorkerCall


@app.command(several=("--degrade", "--levels"))
def evaluate(
    run: Annotated[
        Path | None,
        typer.Argument(help="Run folder; none with --architecture.", show_default=False, autocompletion=runs),
    ] = None,
    weights: WeightsOption = "best",
    dataset: Annotated[
        str | None,
        typer.Option(
            "--dataset", help="Another data set, named as in a job; its validation images are used.", show_default=False
        ),
    ] = None,
    data_root: DataRootOption = None,
    architecture: ArchitectureOption = None,
    pretrained: PretrainedOption = None,
    classes: ClassesOption = None,
    settings: SettingsOption = None,
    out: OutOption = None,
    degrade: Annotated[
        list[str] | None,
        typer.Option(
            "--degrade",
            metavar="NAME...",
            help="Measure under degradations, such as occlusion noise blur imagenet-c/fog; names after RUN, up to the "
            "next option.",
            show_default=False,
        ),
    ] = None,
    levels: Annotated[
        list[str] | None,
        typer.Option(
            "--levels",
            metavar="LEVEL...",
            help="Levels of all of these; by default the published ones.",
            show_default=False,
        ),
    ] = None,
    degraded_set: DegradedSetOption = None,
    trials: Annotated[
        Path | None,
        typer.Option("--trials", help="Write the table of trials to this Parquet file, too.", show_default=False),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(
            "--name", help="Folder below evaluations/ of the run; by default what is measured.", show_default=False
        ),
    ] = None,
    probabilities: Annotated[
        str | None,
        typer.Option(
            "--probabilities",
            metavar="all|K",
            help="Of each trial: all, or the K largest; 0 for none.",
            show_default="all",
        ),
    ] = None,
    occluder_dir: Annotated[
        Path | None,
        typer.Option("--occluder-dir", help="Folder laid out as the Visual Occluders Dataset.", show_default=False),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option("--batch-size", min=1, help="Images in a forward pass.", show_default="the validation's"),
    ] = None,
    config: ConfigOption = None,
    gpus: GpusOption = None,
    num_processes: ProcessesOption = None,
    cpu: CpuOption = False,
    allow: AllowOption = "",
    as_json: JsonOption = False,
) -> None:
    """Evaluate trained weights on the validation images of their own data set or of another one, as they are or under
    degradations; or weights that were not trained here, by --architecture and --pretrained."""
    options = launch_options(config, num_processes, gpus, cpu=cpu)
    of_others = AnchorOptions(architecture, pretrained, classes, settings, out)
    if run is None:
        run = of_others.run(dataset, data_root, allow)
        dataset = data_root = None  # its own
    else:
        of_others.refuse(run)
    if trials is not None and not trials.parent.is_dir():
        raise UserError(f"{trials}: no folder {trials.parent}", option="trials", hint="make it first")
    if degrade or degraded_set is not None or trials is not None or name is not None:
        plan = plan_of_options(
            name=name,
            weights=weights,
            dataset=dataset,
            data_root=None if data_root is None else str(data_root),
            degradations=_choices(degrade or [], levels),
            degraded_set=None if degraded_set is None else str(degraded_set.resolve()),
            occluder_dir=None if occluder_dir is None else str(occluder_dir),
            probabilities=probabilities,
            batch_size=batch_size,
        )
        planned = load_run(run).launch_plan(plan, options=options, allow=allow)
        with worker_call(planned, f"{run}: the evaluation") as call:
            _print_planned(call, trials, as_json=as_json)
        return
    given = {"levels": levels, "probabilities": probabilities, "occluder_dir": occluder_dir, "batch_size": batch_size}
    if unused := [option for option, value in given.items() if value is not None]:
        raise UserError("only with `degrade` or `trials`", option=unused[0])
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


def _choices(names: Sequence[str], levels: Sequence[str] | None) -> list[Any]:
    if levels is None:
        return [*names]
    if not names:
        raise UserError("only with `degrade`", option="levels")
    return [{"name": name, "levels": [*levels]} for name in names]


def _print_planned(call: "WorkerCall", trials: Path | None, *, as_json: bool) -> None:
    if (row := call.row) is None:
        echo("the first machine has the result")
        return
    if row["corrupt"]:
        echo(f"{len(row['corrupt'])} corrupt images were left out; evaluation.json names them", err=True)
    if trials is not None:
        _copy(Path(row["folder"]) / "trials.parquet", trials)
    if as_json:
        echo_text(json.dumps(row))
        return
    there = "" if row["computed"] else ", complete before"
    echo_text(_accuracies(row["figures"]))
    echo(f"{row['folder']}: {row['images']:,} images{there}")


def _copy(table: Path, path: Path) -> None:
    """Raises UserError."""
    try:
        with replacing(path, durable=True) as aside:
            shutil.copyfile(table, aside)
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror}", option="trials") from error


def _accuracies(rows: Sequence[Mapping[str, Any]]) -> str:
    """A line for each condition and cycle, in percent."""
    from accel_trainer.cli.tables import table

    names = [name for name in ("degradation", "level", "cycle") if rows[0].get(name) not in ("", None)]
    cells = [
        [*(row[name] for name in names), *(f"{100 * row[key]:.2f}" for key in ("value", "low", "high")), row["n"]]
        for row in rows
    ]
    return table((*names, "accuracy (%)", "low", "high", "n"), cells)


def _evaluation(row: Mapping[str, Any]) -> str:
    from accel_trainer.cli.tables import table

    loss = None if row["loss"] is None else f"{row['loss']:.4f}"
    columns = {key: value for key, value in {**row, "loss": loss}.items() if key != "other_inputs"}
    return table(list(columns), [list(columns.values())])
