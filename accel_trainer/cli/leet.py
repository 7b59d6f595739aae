"""The verb `leet`: runs of several folders in wandb's terminal browser, without a network."""

import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from accel_trainer.cli.app import app, count_of, echo, echo_text
from accel_trainer.cli.run_rows import RunsArgument
from accel_trainer.core.child_environment import child_environment
from accel_trainer.core.errors import UserError
from accel_trainer.run.find import runs_below


@app.command()
def leet(
    runs: RunsArgument,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", help="Only gather the runs, as links in this folder, for `wandb leet FOLDER`.", show_default=False
        ),
    ] = None,
) -> None:
    """Browse what Weights & Biases has of runs on this disk, in the terminal: wandb's own `wandb leet`.

    Each attempt at a run is one of its entries. Nothing is uploaded and nothing in the run folders changes.
    """
    found = [folder for path in runs for run in runs_below(path) for folder in sorted(run.path.glob("wandb/*run-*-*"))]
    if not found:
        raise UserError(
            f"no runs of wandb in {', '.join(map(str, runs))}", hint="jobs log there with the tracker wandb"
        )
    if out is not None:
        _gather(found, out)
        echo_text(f"{count_of(len(found), 'run')} in {out}; see them with: wandb leet {out}")
        return
    with TemporaryDirectory(prefix="accel-train-leet-") as folder:
        _gather(found, Path(folder))
        # Offline it sends nothing about how it is used, either.
        environment = child_environment() | {"WANDB_MODE": "offline"}
        code = subprocess.run([sys.executable, "-m", "wandb", "leet", folder], env=environment).returncode
        raise typer.Exit(code)


def _gather(found: list[Path], out: Path) -> None:
    """Links to wandb's folders, each by its own name. Raises UserError."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        for folder in found:
            link = out / folder.name
            if not link.is_symlink():
                link.symlink_to(folder.resolve(), target_is_directory=True)
            elif link.resolve() != folder.resolve():
                echo(f"{folder}: another run is {link} already", err=True)
    except OSError as error:
        raise UserError(f"{error.filename or out}: {error.strerror}", option="out") from error
