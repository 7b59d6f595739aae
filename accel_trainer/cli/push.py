"""The verb `push`: an export, uploaded to the Hugging Face hub. Nothing else uploads one."""

import re
from pathlib import Path
from typing import Annotated

import typer

from accel_trainer.api.push_export import push_export, upload_of
from accel_trainer.cli.app import app, count_of, echo, echo_text
from accel_trainer.core.errors import UserError

_REPOSITORY = re.compile(r"[\w.-]{1,96}/[\w.-]{1,96}", re.ASCII)


@app.command()
def push(
    folder: Annotated[Path, typer.Argument(help="Folder that `export` has written.", show_default=False)],
    repository: Annotated[str, typer.Argument(help="Of the hub, such as my-lab/birds.", show_default=False)],
    private: Annotated[bool, typer.Option("--private", help="A new repository is seen by its owners only.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be uploaded, and do no more.")] = False,
) -> None:
    """Upload an exported model to the Hugging Face hub."""
    if not _REPOSITORY.fullmatch(repository):
        raise UserError(f"{repository!r} is no repository such as my-lab/birds")
    upload = upload_of(folder)
    from accel_trainer.cli.tables import table

    echo_text(table(("file", "bytes"), [list(row) for row in upload.files.items()]))
    for name in upload.left:
        echo(f"not uploaded, since no export has written it: {name}")
    what = f"{count_of(len(upload.files), 'file')}, {sum(upload.files.values()) / 1e6:,.1f} MB"
    if dry_run:
        visibility = "private" if private else "public"
        echo(f"would upload {what} to {repository} ({visibility}, if it is new); nothing was sent")
        return
    echo(f"{what} are at {push_export(upload, repository, is_private=private)}")
