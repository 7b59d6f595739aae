"""The verb `features`: what layers of a trained model give for images."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from accel_trainer.api.trained_run import Run, load_run
from accel_trainer.cli.app import AllowOption, JsonOption, app, echo, echo_text
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
from accel_trainer.representations.layer_names import layer_and_cycle


@app.command()
def features(
    run: RunArgument,
    layers: Annotated[
        str | None,
        typer.Option(
            "--layers",
            help="Such as V1,IT or IT-t2: without a cycle, all cycles of a layer.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder to write; the same again goes on.", show_default=False)
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option(
            "--images", help="Folder of images, at any depth; by default validation images.", show_default=False
        ),
    ] = None,
    as_list: Annotated[
        bool, typer.Option("--list", help="Print all layers with their shapes, and do no more.")
    ] = False,
    pool: Annotated[
        Literal["none", "flatten", "mean"],
        typer.Option("--pool", help="Whole, flattened, or means over height and width."),
    ] = "none",
    file_format: Annotated[
        Literal["npy", "safetensors"], typer.Option("--format", help="A .npy for each layer, or one .safetensors.")
    ] = "npy",
    weights: WeightsOption = "best",
    dataset: Annotated[
        str | None,
        typer.Option("--dataset", help="The data set of the validation images, named as in a job.", show_default=False),
    ] = None,
    data_root: DataRootOption = None,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Images in a forward pass.")] = 64,
    config: ConfigOption = None,
    gpus: GpusOption = None,
    num_processes: ProcessesOption = None,
    cpu: CpuOption = False,
    allow: AllowOption = "",
    as_json: JsonOption = False,
) -> None:
    """Write what layers of a trained model give for images, in each cycle."""
    found = load_run(run)
    if as_list:
        _print_layers(found, allow, as_json=as_json)
        return
    if layers is None or out is None:
        raise UserError("features: name --layers and --out, or --list all layers")
    if images is not None and (dataset is not None or data_root is not None):
        raise UserError("--images: not with --dataset or --data-root")
    arguments = [f"--layer={word.strip()}" for word in layers.split(",")]
    arguments += [f"--out={out}", f"--pool={pool}", f"--format={file_format}", f"--batch-size={batch_size}"]
    given = {"images": images, "dataset": dataset, "data-root": data_root}
    arguments += [f"--{option}={value}" for option, value in given.items() if value is not None]
    options = launch_options(config, num_processes, gpus, cpu=cpu)
    launched = found.launch_features(arguments, weights=weights, options=options, allow=allow)
    with worker_call(launched, f"{run}: the features") as call:
        if call.row is None:
            echo("the first machine has the result")
            return
        echo_text(json.dumps(call.row) if as_json else _written(call.row))


def _print_layers(run: Run, allow: str, *, as_json: bool) -> None:
    from accel_trainer.cli.tables import table

    layers = run.layers(allow=allow)
    if as_json:
        echo_text(json.dumps({name: list(shape) for name, shape in layers.items()}))
        return
    cycles = dict[tuple[str, tuple[int, ...]], list[str]]()
    for name, shape in layers.items():
        layer, cycle = layer_and_cycle(name)
        cycles.setdefault((layer, shape), []).append("" if cycle is None else f"t{cycle}")
    rows = [[layer, _from_to(found), _shape(shape)] for (layer, shape), found in cycles.items()]
    echo_text(table(("layer", "cycles", "shape"), rows))


def _from_to(cycles: list[str]) -> str:
    return cycles[0] if len(cycles) == 1 else f"{cycles[0]} to {cycles[-1]}"


def _shape(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape)) or "1"


def _written(row: Mapping[str, Any]) -> str:
    from accel_trainer.cli.tables import table

    before = row["images"] - row["computed"]
    parts = [f"{row['images']:,} images"]
    parts += [f"{before:,} of them were there before"] if before else []
    parts += [f"{row['corrupt']:,} of them are corrupt, whose features are NaN"] if row["corrupt"] else []
    layers = table(("layer", "shape"), [[name, _shape(tuple(shape))] for name, shape in row["layers"].items()])
    return f"{layers}\n{row['folder']}: {', '.join(parts)}"
