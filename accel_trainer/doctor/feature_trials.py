"""Which names, links and locks a file system has, of what the queue relies on or can do without. Trials as those of
`filesystem_trials`."""

import fcntl
import os
import unicodedata
from multiprocessing.connection import Connection
from pathlib import Path

from accel_trainer.config.file_names import MAX_NAME_BYTES
from accel_trainer.core.lease import Owner
from accel_trainer.doctor.findings import Finding, ok, problem, warning
from accel_trainer.doctor.race import start_helper

MOVE_QUEUE = "keep the queue on a local disk, or on NFS (mounted hard)"


def links(folder: Path) -> Finding:
    """Hard links, which must not replace an existing file, and symbolic links. Nothing here needs either."""
    one, other = folder / "one", folder / "other"
    for path in (one, other):
        path.write_text(path.name)
    notes = []
    try:
        os.link(one, other)
        return problem("link() has replaced an existing file", MOVE_QUEUE)
    except FileExistsError:
        notes.append("link() replaces nothing")
    except OSError as error:
        notes.append(f"no hard links ({error.strerror}), which nothing here needs")
    if other.read_text() != "other":
        return problem("link() has reported an error and replaced an existing file", MOVE_QUEUE)
    try:
        (folder / "symbolic").symlink_to("one")
        is_kept = (folder / "symbolic").is_symlink() and (folder / "symbolic").read_text() == "one"
        notes.append("symbolic links are kept" if is_kept else "symbolic links do not point where they should")
    except OSError as error:
        notes.append(f"no symbolic links ({error.strerror}), which nothing here needs")
    return ok("; ".join(notes))


def names(folder: Path) -> Finding:
    """Which names of files are kept: those of jobs, and the longest that is made of one, that of a claim."""
    composed = unicodedata.normalize("NFC", "Größe-é")
    longest = "c" * len(f"{'n' * MAX_NAME_BYTES}@{'h' * 64}.{Owner.new().token}.json")
    lost = []
    kinds = {
        "spaces": "two words",
        "punctuation": "it's & so on #1, 50% ~ [x]",
        "colons and the like": 'a:b*c?d"e<f>g|h',
        "accents": composed,
        "composed and decomposed accents as two names": unicodedata.normalize("NFD", composed),
        f"{MAX_NAME_BYTES} bytes": "ü" * (MAX_NAME_BYTES // 2),
        f"{len(longest)} bytes (the name of a claim)": longest,
        "255 bytes": "n" * 255,
    }
    for what, name in kinds.items():
        if not _is_kept(folder, name):
            lost.append(what)
    if lost and lost != ["255 bytes"]:
        is_harmful = any("claim" in what for what in lost)
        give = problem if is_harmful else warning
        return give(
            f"not kept in names: {', '.join(lost)}", MOVE_QUEUE if is_harmful else "give jobs plain, short names"
        )
    return ok(f"kept as they are, up to {len(longest) if lost else 255} bytes")


def _is_kept(folder: Path, name: str) -> bool:
    """Whether a file of exactly this name can exist, beside those of the others."""
    try:
        (folder / name).touch(exist_ok=False)
    except OSError:
        return False
    return name in os.listdir(folder)  # noqa: PTH208 - only names


def case(folder: Path) -> Finding:
    """Whether names that differ in case only are two names."""
    (folder / "job").write_text("")
    if (folder / "JOB").exists():
        return warning("'job' and 'JOB' are one name here", "give jobs names that differ in more than case")
    return ok("'job' and 'JOB' are two names")


def locks(folder: Path) -> Finding:
    """flock, on which nothing in a queue relies: on network drives it often holds within one machine only."""
    path = folder / "lock"

    def attempt(connection: Connection) -> None:
        with path.open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                connection.send(False)
            else:
                connection.send(True)

    needs_none = "the queue needs none"
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:
            return ok(f"no flock here ({error.strerror}); {needs_none}")
        with start_helper(attempt) as other:
            if other.receive():
                return ok(f"flock does not keep another process out; {needs_none}")
    return ok("flock keeps another process out")
