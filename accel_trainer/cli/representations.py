"""The verbs `rdm` and `rsa`: how unlike images are to a model, and how like that is to brains and people."""

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from accel_trainer.cli.app import JsonOption, app, echo, echo_text
from accel_trainer.cli.figures import CsvOption, print_figures
from accel_trainer.core.errors import UserError
from accel_trainer.core.files import expand_path


@app.command()
def rdm(
    features: Annotated[Path, typer.Argument(help="Folder that `features` has written.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", help="Folder to write, which is new.", show_default=False)],
    distance: Annotated[
        Literal["pearson", "spearman", "euclidean", "squared-euclidean", "crossnobis"],
        typer.Option("--distance", help="Between two patterns: 1 - r, 1 - rho, or as it is called."),
    ] = "pearson",
    layers: Annotated[
        str | None,
        typer.Option("--layers", help="Such as V1,IT or IT-t2; all by default.", show_default=False),
    ] = None,
    by: Annotated[
        str | None,
        typer.Option(
            "--by",
            metavar="class|FILE.csv",
            help="What is one condition: the images of a folder, or those of a table with the columns image, condition "
            "and perhaps partition; each image by default.",
            show_default=False,
        ),
    ] = None,
    noise: Annotated[
        bool, typer.Option("--noise", help="Of crossnobis: estimate the covariance of noise, shrunk.")
    ] = False,
    as_table: Annotated[bool, typer.Option("--csv", help="Write rdm.csv too, a square with names.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Write dissimilarity matrices of features, by layer and cycle, as rsatoolbox reads them."""
    from accel_trainer.cli.tables import table
    from accel_trainer.representations.dissimilarity import Distance
    from accel_trainer.representations.layer_names import layer_and_cycle
    from accel_trainer.representations.write_rdms import BY_CLASS, RdmSettings, write_rdms

    words = None if layers is None else [word.strip() for word in layers.split(",")]
    grouping = by if by is None or by == BY_CLASS else expand_path(by)
    written = write_rdms(features, out, RdmSettings(Distance(distance), words, grouping, noise, as_table))
    if written.left_out:
        echo(f"{written.left_out:,} corrupt images are left out", err=True)
    if as_json:
        echo_text(json.dumps(written.as_row()))
        return
    rows = [[layer, "" if cycle is None else f"t{cycle}"] for layer, cycle in map(layer_and_cycle, written.layers)]
    echo_text(table(("layer", "cycle"), rows))
    echo_text(f"{out}: {distance} between {written.conditions:,} conditions, of {written.images:,} images")


@app.command()
def rsa(
    models: Annotated[
        list[Path],
        typer.Argument(
            help="Matrices of models: folders of `rdm`, .npy, .csv, or .h5 of rsatoolbox.", show_default=False
        ),
    ],
    against: Annotated[
        list[Path],
        typer.Option(
            "--against",
            help="Matrices of the subjects of a group: such a file, or a folder of them; may be given again.",
            show_default=False,
        ),
    ],
    similarity: Annotated[
        str,
        typer.Option(
            "--similarity", help="spearman, kendall-tau-a, pearson, cosine, whitened-cosine; several with commas."
        ),
    ] = "spearman",
    samples: Annotated[
        int, typer.Option("--samples", min=0, help="Of the bootstrap over conditions; 0 for no intervals.")
    ] = 1000,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of these samples.")] = 0,
    as_csv: CsvOption = False,
    as_json: JsonOption = False,
) -> None:
    """Compare matrices of models, by layer and cycle, with those of brains or people, and with their noise ceiling."""
    from accel_trainer.core.text import did_you_mean, listed
    from accel_trainer.representations.rsa import RsaSettings
    from accel_trainer.representations.rsa import rsa as figures_of
    from accel_trainer.representations.similarity import Similarity

    words, known = [word.strip() for word in similarity.split(",")], [str(one) for one in Similarity]
    if unknown := [word for word in words if word not in known]:
        near = did_you_mean(unknown[0], known) or f"; there are: {listed(known)}"
        raise UserError(f"{unknown[0]!r} is no similarity{near}", option="similarity")
    settings = RsaSettings([Similarity(word) for word in words], samples, seed)
    print_figures(figures_of(models, against, settings), as_csv=as_csv, as_json=as_json)
