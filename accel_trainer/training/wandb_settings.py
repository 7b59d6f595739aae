"""Files of settings that wandb obeys: the user's own, and that of the current folder."""

import configparser
import grp
import os
import pwd
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from accel_trainer.core.errors import UserError

# What each run is given, whatever a file says.
GIVEN = frozenset({"mode", "project", "run_id", "run_name", "root_dir", "console", "silent", "init_timeout"})


def refuse_settings_of_others() -> None:
    """wandb obeys settings that it finds in the user's own folder of settings and in the current one, and sends the
    user's key to the server that they name. Raises UserError where another user has put them there, or may have."""
    for path in (_own(), Path(".wandb", "settings"), Path("wandb", "settings")):
        with suppress(OSError):
            real = path.resolve(strict=True)
            about = {place: place.stat() for place in (real, real.parent, path.parent, path.parent.parent)}
            elsewhere = "" if path.is_absolute() else ", or start from another folder"
            owners = {path.lstat().st_uid, path.parent.lstat().st_uid, *(one.st_uid for one in about.values())}
            if owners - {0, os.geteuid()}:
                raise UserError(
                    f"{path.absolute()} has settings of wandb that belong to another user",
                    hint=f"remove the file{elsewhere}",
                )
            for place, one in about.items():
                if _others_may_write(one):
                    raise UserError(
                        f"{path.absolute()} has settings of wandb that others may have written: so says the mode of "
                        f"{place.absolute()}, {stat.filemode(one.st_mode)}",
                        hint=f"read the file, then `chmod go-w`; or remove it{elsewhere}",
                    )


def _own() -> Path:
    """The user's own file."""
    own = Path(os.environ.get("WANDB_CONFIG_DIR") or "~/.config/wandb", "settings")
    with suppress(RuntimeError):  # there is no home
        return own.expanduser()
    return own


def _others_may_write(about: os.stat_result) -> bool:
    """Whether other users may write to a file, or replace what is in a folder."""
    if stat.S_ISDIR(about.st_mode) and about.st_mode & stat.S_ISVTX:
        return False  # each only what is theirs
    if about.st_mode & stat.S_IWOTH:
        return True
    return bool(about.st_mode & stat.S_IWGRP) and not _is_private_group(about.st_gid)


def _is_private_group(group: int) -> bool:
    """Whether a group is this user's own, as many systems give everybody one: of the same name, and without others."""
    try:
        account, about = pwd.getpwuid(os.geteuid()), grp.getgrgid(group)
    except KeyError:  # no such user or group, in containers
        return False
    return (account.pw_gid, account.pw_name) == (group, about.gr_name) and not set(about.gr_mem) - {account.pw_name}


def settings_obeyed() -> Iterator[tuple[Path, list[str]]]:
    """The files that wandb takes settings from, and the names of these: never their values, of which one may be a
    key. The files are those of `wandb.setup`, which is not asked: it starts a process."""
    here = Path(".wandb" if Path(".wandb").exists() else "wandb")
    for file in (_own(), here / "settings"):
        if keys := _keys(file):
            yield file.absolute(), keys


def _keys(file: Path) -> list[str]:
    """Those that count, of the one section that wandb reads; none of a file that it cannot read."""
    parser = configparser.ConfigParser(interpolation=None)
    with suppress(configparser.Error, OSError, UnicodeDecodeError):
        parser.read(file)
        return sorted(set(parser.options("default")) - GIVEN)
    return []
