"""Names of the files of jobs, and of such as look like those and are none: what each of them is, and what to do."""

import os
import re
from pathlib import Path

from accel_trainer.core.errors import InvalidJob

MAX_NAME_BYTES = 120

# What programs that synchronize folders call the second version of a file: Dropbox and Nextcloud (in several
# languages), Seafile, Syncthing, ownCloud, Resilio.
_CONFLICTED_COPY = re.compile(
    r"\([^()]*(conflicted copy|conflicting copy|case conflict|sfconflict|copie en conflit|in konflikt stehende kopie"
    r"|copia en conflicto|copia in conflitto|cópia em conflito|競合コピー|冲突副本)[^()]*\)"
    r"|\.sync-conflict-\d{8}|_conflict-\d{8}-\d{6}|\.conflict$",
    re.IGNORECASE,
)
_BACKUPS = ("~", ".bak", ".orig", ".old", ".save")
_UNFINISHED = (".part", ".partial", ".tmp", ".crdownload", ".filepart")
_SWAP_FILE = re.compile(r"\.?(.+\.json)\.sw[a-p]", re.IGNORECASE)
_OTHER_FORMATS = (".yaml", ".yml", ".toml", ".json5", ".jsonc", ".hjson")
_MANY_IN_ONE = (".jsonl", ".ndjson")


def job_name(path: Path) -> str:
    """The name of a job, from its file's. Raises InvalidJob for one that could mislead a person or a file system."""
    name = path.name.removesuffix(".json")
    if (why := why_no_job(path.name)) is not None:
        raise InvalidJob(why, where=path)
    if not name or path.suffix != ".json":
        raise InvalidJob("a job file's name ends in .json", where=path)
    if not name.isprintable() or ".." in name or "\\" in name:
        raise InvalidJob("a job's name may not contain control characters, '..' or '\\'", where=repr(str(path)))
    if name.startswith((".", "-")):
        raise InvalidJob(f"a job's name may not begin with {name[0]!r}", where=path)
    if (num_bytes := len(os.fsencode(name))) > MAX_NAME_BYTES:
        raise InvalidJob(f"a job's name may have {MAX_NAME_BYTES} bytes, not {num_bytes}", where=path)
    return name


def is_conflicted_copy(name: str) -> bool:
    """Whether a file is the second version of another that two people, or two machines, have changed at once."""
    if "(" not in name and "conflict" not in name.lower():  # of nearly all names; queues are long
        return False
    return _CONFLICTED_COPY.search(name.removesuffix(".json")) is not None


def why_no_job(name: str) -> str | None:
    """What a file of this name is that may be meant as a job, and what to do; None for a job's, and for any other."""
    if name.endswith(".json"):
        return _CONFLICT_HINT if not name.startswith(".") and is_conflicted_copy(name) else None
    if (swap := _SWAP_FILE.fullmatch(name)) is not None:
        return f"an editor has {swap[1]} open: save it and close it there, or remove what it has left"
    if name.startswith("."):
        return None
    lower = name.lower().rstrip()
    stem = name.rpartition(".")[0]
    inner = lower.removesuffix(".txt")
    if inner.endswith(".json"):
        return f"a job file's name ends in .json; rename it to {name[: len(inner) - len('.json')]}.json"
    for endings, what in ((_BACKUPS, "a copy that an editor has kept"), (_UNFINISHED, "a file that is being copied")):
        for ending in endings:
            if lower.endswith(f".json{ending}"):
                return f"it looks like {what}; if it is a job, rename it to {name[: -len(ending)]}"
    if lower.endswith(_OTHER_FORMATS):
        return f"the name of a job file ends in .json; if this is one, write it, as JSON, to {stem}.json"
    if lower.endswith(_MANY_IN_ONE):
        return "a job is a JSON file of its own; write each line into one, whose name ends in .json"
    return None


_CONFLICT_HINT = (
    "a copy made where a file was changed in two places at once: keep one of the two, under the name of the job"
)
