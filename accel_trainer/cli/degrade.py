"""The verb `degrade`: degraded images listed, drawn, and written as a set of files."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from accel_trainer.cli.app import SOME_FAILED, JsonOption, app, count_of, echo, echo_text, write_file
from accel_trainer.config import Job
from accel_trainer.core.errors import Problem, UserError
from accel_trainer.core.files import expand_home_if_any
from accel_trainer.core.outage import waiting_out_until_interrupted
from accel_trainer.core.processes import usable_cores
from accel_trainer.core.text import listed

if TYPE_CHECKING:
    from accel_trainer.data.dataset import ImageDataset
    from accel_trainer.degradations.degradation import Condition
    from accel_trainer.degradations.registry import Resources

# As in a job.
DATA_ROOT = Path(Job.model_fields["data_root"].default)
EVAL_CROP: float = Job.model_fields["eval_crop"].default


@app.command(several=("--degrade", "--levels"))
def degrade(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            help="Degradations, such as noise imagenet-c/fog; all but occlusion if none.", show_default=False
        ),
    ] = None,
    more: Annotated[
        list[str] | None,
        typer.Option("--degrade", metavar="NAME...", help="The same, as of evaluate.", show_default=False),
    ] = None,
    as_list: Annotated[bool, typer.Option("--list", help="Print them with their levels, and do no more.")] = False,
    levels: Annotated[
        list[str] | None,
        typer.Option(
            "--levels",
            metavar="LEVEL...",
            help="Such as 1 3 5, of all of these; by default the published ones.",
            show_default=False,
        ),
    ] = None,
    images: Annotated[
        Path | None, typer.Option("--images", help="Folder of <class>/<image>.", show_default=False)
    ] = None,
    dataset: Annotated[
        str | None, typer.Option("--dataset", help="Validation images of it, named as in a job.", show_default=False)
    ] = None,
    data_root: Annotated[Path, typer.Option("--data-root", help="Where data set folders are.")] = DATA_ROOT,
    size: Annotated[int, typer.Option("--size", min=1, help="Height and width of the images in pixels.")] = 224,
    crop: Annotated[
        float, typer.Option("--crop", min=0.01, max=1, help="Share of the shorter side that is cropped.")
    ] = EVAL_CROP,
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder to write; the same again goes on.", show_default=False)
    ] = None,
    sheet: Annotated[
        Path | None, typer.Option("--sheet", help="PNG to write, of the first image.", show_default=False)
    ] = None,
    occluder_dir: Annotated[
        Path | None, typer.Option("--occluder-dir", help="Masks of occlusion, as in a job.", show_default=False)
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Degrade images: list the degradations, draw one image under each, or write all images as a set of files."""
    from accel_trainer.degradations.registry import Resources

    resources = Resources() if occluder_dir is None else Resources(occluder_dir=occluder_dir)
    chosen = [*(more or []), *(names or [])]
    if as_list:
        _print_list(chosen, as_json=as_json)
        return
    if out is None and sheet is None:
        raise UserError("degrade: name a folder to write with --out or a picture with --sheet, or --list all")
    if (images is None) == (dataset is None):
        raise UserError("degrade: name either --images or --dataset")
    conditions = _conditions(chosen, levels, resources)
    with waiting_out_until_interrupted():
        source = _open(images, dataset, data_root)
        if sheet is not None:
            _draw(source, conditions, sheet, size, crop)
        if out is not None:
            _write(source, conditions, out, size, crop, as_json=as_json)


def _print_list(names: Sequence[str], *, as_json: bool) -> None:
    from accel_trainer.cli.tables import table
    from accel_trainer.degradations.registry import described

    rows = described(names)
    if as_json:
        echo_text(json.dumps(rows, indent=2))
        return
    folder = "as the folder of masks has"
    cells = [
        [row["name"], row["what"], ", ".join(row["levels"]) or folder, row["neutral"], row["source"]] for row in rows
    ]
    echo_text(table(("name", "level is", "levels", "neutral", "source"), cells))


def _conditions(names: Sequence[str], levels: Sequence[str] | None, resources: "Resources") -> "list[Condition]":
    from accel_trainer.degradations.registry import default_names, find_degradations

    try:
        found = find_degradations(names or default_names(), resources)
    except UserError as error:
        raise UserError(*map(_of_option, error.details)) from error
    if levels is None:
        return [condition for one in found for condition in one.conditions()]
    return [one.condition_called(word) for one in found for word in levels]


def _of_option(problem: Problem) -> Problem:
    return replace(problem, key=None, option="occluder_dir") if problem.key == "Occlusion.occluder_dir" else problem


def _open(images: Path | None, dataset: str | None, data_root: Path) -> "ImageDataset":
    from accel_trainer.data.open import open_data_set
    from accel_trainer.data.sources.folders import ImageFolder

    if images is not None:
        return ImageFolder(images)
    return open_data_set(str(dataset), expand_home_if_any(data_root).absolute(), None, None).val


def _draw(source: "ImageDataset", conditions: "Sequence[Condition]", path: Path, size: int, crop: float) -> None:
    from accel_trainer.data.decode import CorruptImage
    from accel_trainer.degradations.contact_sheet import as_png, contact_sheet
    from accel_trainer.degradations.render import cropped
    from accel_trainer.degradations.stored_sets import image_ids

    try:
        image = cropped(source, 0, size, crop)
    except CorruptImage as error:
        raise UserError(f"{source.describe(0)}: {error}") from error
    write_file(path, as_png(contact_sheet(image, conditions, image_ids(source)[0])))
    echo(f"wrote {path}")


def _write(
    source: "ImageDataset", conditions: "Sequence[Condition]", out: Path, size: int, crop: float, *, as_json: bool
) -> None:
    """Exit code 1 where an image is corrupt."""
    from accel_trainer.cli.progress import preparation_bar
    from accel_trainer.degradations.render import render

    with preparation_bar("degrading") as progress:
        done = render(source, conditions, out, size=size, crop=crop, num_threads=usable_cores(), progress=progress)
    if as_json:
        row = {"folder": str(out), "images": done.images, "conditions": done.conditions, "written": done.written}
        echo_text(json.dumps({**row, "corrupt": list(done.corrupt)}))
    else:
        before = done.images * done.conditions - done.written
        were = f", {before:,} of them were there before" if before else ""
        what = f"{count_of(done.images, 'image')} under {count_of(done.conditions, 'condition')}"
        echo(f"{out}: {what}{were}")
    if done.corrupt:
        echo(f"error: corrupt images are left out: {listed(done.corrupt, 5)}", err=True)
        raise typer.Exit(SOME_FAILED)
