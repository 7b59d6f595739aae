"""What two clients of one file server see of each other, tried by two mounts of the same folder.

What the queue needs is decided by the file server. What a client remembers of it, and for how long, only delays what
is seen elsewhere: here it is measured. Each trial takes a folder as one client has it, and as the other has it.
"""

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path

from accel_trainer.doctor.filesystem_trials import (
    HELP_WITH_CACHES,
    LONGEST_CACHE_S,
    SLOW_LISTING_S,
    claims,
    exclusive_creation,
    moves,
    run_trial,
)
from accel_trainer.doctor.findings import Check, Finding, ok, problem, warning
from accel_trainer.doctor.race import start_helper

POLL_S = 0.02
OLD, NEW = "old", "new"
# What the other client is asked to see, after it was made to remember the opposite.
SIGHTS: dict[str, Callable[[Path], bool]] = {
    "a new file in a listing": lambda folder: "listed" in os.listdir(folder),  # noqa: PTH208 - only names
    "a file that it had found missing": lambda folder: os.path.lexists(folder / "made"),
    "new content of a file": lambda folder: (folder / "content").read_text() == NEW,
    "that a file is gone": lambda folder: not os.path.lexists(folder / "gone"),
}


def client_checks(scratch: Path, other_scratch: Path) -> Iterator[Check]:
    """The checks of two clients, in a folder as each of them has it."""
    yield Check("other client", lambda: is_same_folder(scratch, other_scratch))
    trials: dict[str, Callable[[Path, Path], Finding]] = {
        "claims of two": claims,
        "moves of two": moves,
        "creation of two": exclusive_creation,
        "caches": caches,
        "stamps of two": stamps,
        "locks of two": locks,
    }
    for name, trial in trials.items():
        yield Check(name, _check(trial, scratch / name, other_scratch / name))


def _check(trial: Callable[[Path, Path], Finding], folder: Path, other: Path) -> Callable[[], Finding]:
    def tried(own: Path) -> Finding:
        _wait_for(other)
        return trial(own, other)

    return lambda: run_trial(tried, folder)


def is_same_folder(folder: Path, other: Path) -> Finding:
    """Whether another mount has a folder that was just made here."""
    took = _wait_for(other)
    if took is None:
        return problem(
            f"{other.parent} does not have what is written here, also after {LONGEST_CACHE_S:.0f} s",
            "give the same folder, as another mount has it",
        )
    if folder.parent.stat().st_dev == other.parent.stat().st_dev:
        return warning(
            f"{other.parent} is of the same mount: what one client remembers the other does, too",
            "mount the folder a second time (of NFS with `-o nosharecache`), as another machine would",
        )
    return ok(f"{other.parent} is another mount of this folder, and shows a new one after {took:.1f} s")


def _wait_for(path: Path) -> float | None:
    """Seconds until a client shows a file; None if it does not."""
    began = time.monotonic()
    while not os.path.lexists(path):
        if time.monotonic() - began > LONGEST_CACHE_S:
            return None
        time.sleep(POLL_S)
    return time.monotonic() - began


def caches(folder: Path, other: Path) -> Finding:
    """For how long the other client goes on seeing what was."""
    for name in ("content", "gone"):
        (folder / name).write_text(OLD)

    def watch(connection: Connection) -> None:
        _remember(other)
        connection.send("ready")
        began = connection.recv()
        seen: dict[str, float] = {}
        while len(seen) < len(SIGHTS) and time.monotonic() - began < LONGEST_CACHE_S:
            for what in SIGHTS.keys() - seen.keys():
                with suppress(OSError):
                    if SIGHTS[what](other):
                        seen[what] = time.monotonic() - began
            time.sleep(POLL_S)
        connection.send(seen)

    with start_helper(watch) as watcher:
        watcher.receive(LONGEST_CACHE_S)
        for name in ("listed", "made"):
            (folder / name).touch()
        (folder / "aside").write_text(NEW)
        (folder / "aside").replace(folder / "content")
        (folder / "gone").unlink()
        watcher.send(time.monotonic())
        seen: dict[str, float] = watcher.receive(LONGEST_CACHE_S + 10)
    return _assess(seen)


def _remember(folder: Path) -> None:
    """Have this client ask for all that it may remember."""
    for name in ("content", "gone"):
        _wait_for(folder / name)
        with suppress(OSError):
            (folder / name).read_text()
    os.path.lexists(folder / "made")
    os.listdir(folder)  # noqa: PTH208 - only names


def _assess(seen: dict[str, float]) -> Finding:
    times = [f"{what} after {seen[what]:.1f} s" for what in SIGHTS if what in seen]
    times += [f"{what} not within {LONGEST_CACHE_S:.0f} s" for what in SIGHTS if what not in seen]
    message = f"another client sees {', '.join(times)}"
    longest = max(seen.get(what, LONGEST_CACHE_S) for what in SIGHTS)
    if longest > SLOW_LISTING_S:
        or_longer = "" if len(seen) == len(SIGHTS) else " or longer"
        return warning(
            f"{message}: it remembers for {longest:.0f} s{or_longer}; jobs start, "
            "and are held, canceled and shown, so much later; none is lost or run twice for that",
            HELP_WITH_CACHES,
        )
    return ok(message)


def stamps(folder: Path, other: Path) -> Finding:
    """Whether both clients give one file the same time."""
    (folder / "a").touch()
    _wait_for(other / "a")
    ours, theirs = (folder / "a").stat().st_mtime_ns, (other / "a").stat().st_mtime_ns
    if ours == theirs:
        return ok("both clients give a file the same time")
    if ours // 10**9 == theirs // 10**9:
        return ok("one client gives times in whole seconds, the other in parts of them")
    return warning(
        f"two clients give one file times that are {abs(ours - theirs) / 1e9:.1f} s apart",
        "synchronize the clocks of the machines and the server by NTP (timedatectl set-ntp true)",
    )


def locks(folder: Path, other: Path) -> Finding:
    """flock between clients, on which nothing in a queue relies."""
    (folder / "lock").touch()
    _wait_for(other / "lock")
    needs_none = "the queue needs none"
    with (folder / "lock").open("r+") as one, (other / "lock").open("r+") as two:
        try:
            fcntl.flock(one, fcntl.LOCK_EX | fcntl.LOCK_NB)
            fcntl.flock(two, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return ok("flock of one client keeps the other out")
        except OSError as error:
            return ok(f"no flock here ({error.strerror}); {needs_none}")
    return ok(f"locks are local: flock of one client does not keep the other out; {needs_none}")
