"""The verb `export`: a trained model in the forms in which others load it."""

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from accel_trainer.api.trained_run import load_run
from accel_trainer.cli.app import AllowOption, JsonOption, app, echo, echo_text
from accel_trainer.cli.launching import RunArgument, WeightsOption
from accel_trainer.core.errors import UserError


@app.command()
def export(
    run: RunArgument,
    folder: Annotated[Path, typer.Argument(help="Folder to write; of others nothing is overwritten.")],
    file_format: Annotated[
        Literal["hf", "torchvision", "onnx", "torch-export", "brain-score"],
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
    layers: Annotated[
        str | None,
        typer.Option("--layers", help="Of brain-score: those that it chooses from, such as layer1,layer2."),
    ] = None,
    region: Annotated[
        list[str] | None,
        typer.Option("--region", help="Of brain-score, for each area: V1=layer1.", metavar="AREA=LAYER"),
    ] = None,
    allow: AllowOption = "",
    as_json: JsonOption = False,
) -> None:
    """Write a trained model so that others can load it: weights, preprocessing, classes and a model card."""
    if cycles != "last" and file_format not in ("onnx", "torch-export"):
        raise UserError("--cycles: only with --format onnx or torch-export")
    if (layers or region) and file_format != "brain-score":
        raise UserError("--layers and --region: only with --format brain-score")
    written = load_run(run).export(
        folder,
        file_format,
        weights=weights,
        license=license_,
        cycles=cycles,
        layers=_words(layers),
        regions=_regions(region or []),
        allow=allow,
    )
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


def _words(text: str | None) -> list[str]:
    return [] if text is None else [word.strip() for word in text.split(",") if word.strip()]


def _regions(given: list[str]) -> dict[str, str]:
    """{"V1": "layer1"} of V1=layer1. Raises UserError."""
    parts = [(word, *word.partition("=")) for word in given]
    if wrong := [word for word, area, _, layer in parts if not area or not layer]:
        raise UserError(f"--region: {wrong[0]!r} is not such as V1=layer1")
    return {area: layer for _, area, _, layer in parts}
