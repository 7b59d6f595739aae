"""The verb `export`: a trained model in the forms in which others load it."""

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from accel_trainer.api.trained_run import load_run
from accel_trainer.cli.app import AllowOption, JsonOption, app, echo, echo_text
from accel_trainer.cli.launching import WeightsOption
from accel_trainer.core.errors import UserError


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="Run folder.", show_default=False)],
    folder: Annotated[Path, typer.Argument(help="Folder to write; of others nothing is overwritten.")],
    file_format: Annotated[
        Literal["hf", "torchvision", "onnx", "torch-export"],
        typer.Option("--format", help="hf: for timm, transformers and the Hugging Face hub."),
    ] = "hf",
    weights: WeightsOption = "best",
    license_: Annotated[
        str | None,
        typer.Option("--license", help="For the card, as the hub names it, such as apache-2.0.", show_default=False),
    ] = None,
    cycles: Annotated[
        Literal["last", "all"],
        typer.Option(
            "--cycles", help="Of which cycles an onnx or torch-export graph of a recurrent model gives logits."
        ),
    ] = "last",
    allow: AllowOption = "",
    as_json: JsonOption = False,
) -> None:
    """Write a trained model so that others can load it: weights, preprocessing, classes and a model card."""
    if cycles != "last" and file_format not in ("onnx", "torch-export"):
        raise UserError("--cycles: only with --format onnx or torch-export")
    written = load_run(run).export(folder, file_format, weights=weights, license=license_, cycles=cycles, allow=allow)
    if as_json:
        echo_text(json.dumps(written.as_row()))
        return
    from accel_trainer.cli.tables import table

    rows = [[name, f"{size / 1e6:,.1f} MB"] for name, size in written.files.items()]
    echo_text(table(("file", "size"), rows))
    for what, difference in written.checks.items():
        echo(f"{what}: differs by {difference:.1e} at most from the trained model")
    for note in written.notes:
        echo(note)
    echo(f"{folder}: README.md says how to load it")
