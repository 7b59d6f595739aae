"""Files of settings that wandb obeys: the user's own, and that of the current folder."""

import configparser
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from accel_trainer.core.errors import UserError

# What each run is given, whatever a file says.
GIVEN = frozenset({"mode", "project", "run_id", "run_name", "root_dir", "console", "silent", "init_timeout"})


def refuse_settings_of_others() -> None:
    """wandb obeys settings that it finds in the current folder, and sends the user's key to the server that they name.
    Raises UserError where another user has put them there."""
    for path in (Path(".wandb", "settings"), Path("wandb", "settings")):
        with suppress(OSError):
            owners = {path.lstat().st_uid, path.stat().st_uid, path.parent.stat().st_uid}
            if owners - {0, os.geteuid()}:
                raise UserError(
                    f"{path.absolute()} has settings of wandb that belong to another user",
                    hint="remove the file, or start from another folder",
                )


def settings_obeyed() -> Iterator[tuple[Path, list[str]]]:
    """The files that wandb takes settings from, and the names of these: never their values, of which one may be a
    key. The files are those of `wandb.setup`, which is not asked: it starts a process."""
    own = Path(os.environ.get("WANDB_CONFIG_DIR") or "~/.config/wandb")
    with suppress(RuntimeError):  # there is no home
        own = own.expanduser()
    here = Path(".wandb" if Path(".wandb").exists() else "wandb")
    for file in (own / "settings", here / "settings"):
        if keys := _keys(file):
            yield file.absolute(), keys


def _keys(file: Path) -> list[str]:
    """Those that count, of the one section that wandb reads; none of a file that it cannot read."""
    parser = configparser.ConfigParser(interpolation=None)
    with suppress(configparser.Error, OSError, UnicodeDecodeError):
        parser.read(file)
        return sorted(set(parser.options("default")) - GIVEN)
    return []
