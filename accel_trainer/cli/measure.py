"""The verb `measure`: figures from tables of trials, of models and of people."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from accel_trainer.cli.app import JsonOption, app, echo
from accel_trainer.cli.figures import CsvOption, print_figures
from accel_trainer.core.errors import UserError

if TYPE_CHECKING:
    from accel_trainer.measures.measure import Measure

LEVELS = "COLUMN=LEVEL[,LEVEL...]"


@app.command()
def measure(
    files: Annotated[
        list[Path],
        typer.Argument(help="Tables of trials: Parquet, or CSV (.gz) as people's were published.", show_default=False),
    ],
    figure: Annotated[
        str,
        typer.Option(
            "--figure",
            help="accuracy, class-accuracy, confusion, calibration, mce, consistency, consistency-of-pairs, "
            "correlation, noise-ceiling, thresholds, shape-bias or reaction-time.",
        ),
    ] = "accuracy",
    against: Annotated[
        list[Path] | None,
        typer.Option(
            "--against", help="Trials of those to compare with, such as people; may be given again.", show_default=False
        ),
    ] = None,
    by: Annotated[
        str | None,
        typer.Option(
            "--by", help="Conditions that figures are of, such as benchmark,level; all by default.", show_default=False
        ),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option("--only", metavar=LEVELS, help="Only the trials of these levels.", show_default=False),
    ] = None,
    without: Annotated[
        list[str] | None,
        typer.Option("--without", metavar=LEVELS, help="No trials of these levels.", show_default=False),
    ] = None,
    benchmark: Annotated[
        str | None,
        typer.Option("--benchmark", help="The data set of published files; by default their name.", show_default=False),
    ] = None,
    pool: Annotated[bool, typer.Option("--pool", help="All observers as one, called group.")] = False,
    sixteen_classes: Annotated[
        bool, typer.Option("--sixteen-classes", help="An ImageNet model's answers as the 16 categories.")
    ] = False,
    baseline: Annotated[
        str | None,
        typer.Option(
            "--baseline",
            help="Of mce: an observer, published (AlexNet's errors on ImageNet-C) or none.",
            show_default="published, where the classes are ImageNet's",
        ),
    ] = None,
    over: Annotated[
        str | None,
        typer.Option("--over", help="Of thresholds: the condition in 0..1.", show_default="visibility, or ssnr"),
    ] = None,
    chance: Annotated[
        float | None,
        typer.Option("--chance", help="Of thresholds: accuracy at 0.", show_default="1 over the classes", min=0, max=1),
    ] = None,
    entropy: Annotated[
        float | None,
        typer.Option("--entropy", help="Of reaction-time: the threshold, in nats.", show_default=False, min=0),
    ] = None,
    all_conditions: Annotated[
        bool, typer.Option("--all-conditions", help="Of consistency: also those that the publication leaves out.")
    ] = False,
    as_csv: CsvOption = False,
    as_json: JsonOption = False,
) -> None:
    """Compute figures from trials of models and people: accuracies, mCE, error consistency, thresholds."""
    from accel_trainer.measures.measure import Settings
    from accel_trainer.measures.measure import measure as measured_of

    settings = Settings(
        by=None if by is None else [word.strip() for word in by.split(",") if word.strip()],
        only=_levels(only, "only"),
        without=_levels(without, "without"),
        benchmark=benchmark,
        pool=pool,
        sixteen_classes=sixteen_classes,
        baseline=baseline,
        over=over,
        chance=chance,
        entropy=entropy,
        all_conditions=all_conditions,
    )
    measured = measured_of(files, _measure(figure), settings, against or ())
    for note in measured.notes:
        echo(note, err=True)
    print_figures(measured.figures, as_csv=as_csv, as_json=as_json)


def _measure(name: str) -> "Measure":
    from accel_trainer.core.text import did_you_mean, listed
    from accel_trainer.measures.measure import Measure

    known = [str(one) for one in Measure]
    if name not in known:
        near = did_you_mean(name, known) or f"; there are: {listed(known)}"
        raise UserError(f"{name!r} is no figure{near}", option="figure")
    return Measure(name)


def _levels(words: Sequence[str] | None, option: str) -> dict[str, list[str]]:
    """{"visibility": ["0.1", "0.2"]} of ["visibility=0.1,0.2"]."""
    found = dict[str, list[str]]()
    for word in words or ():
        name, equals, levels = word.partition("=")
        if not (name and equals and levels):
            raise UserError(f"{word!r} is not {LEVELS}", option=option)
        found.setdefault(name, []).extend(levels.split(","))
    return found
