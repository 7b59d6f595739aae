"""What the queue relies on of a file system, tried in a temporary folder in it, with real processes.

Network drives guarantee less than local disks. The trials are between processes of one machine; between machines the
file server decides, which cannot be tried from one of them. Each trial takes its own empty folder and raises OSError
where the file system does.
"""

import fcntl
import os
import time
import unicodedata
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

from accel_trainer.config.file_names import MAX_NAME_BYTES
from accel_trainer.core.exclusive_move import move_own
from accel_trainer.core.files import sync_folder
from accel_trainer.core.lease import Owner
from accel_trainer.core.rename import rename_noreplace
from accel_trainer.doctor.findings import Finding, ok, problem, warning
from accel_trainer.doctor.race import race, start_helper

NUM_ROUNDS, LIMIT_S = 300, 1.5
NUM_LISTINGS = 5
# What is slower than this is a warning: until another process sees a file, until it is synced, between the clocks.
SLOW_LISTING_S, LISTING_LIMIT_S, SLOW_SYNC_S, CLOCK_TOLERANCE_S = 1.0, 5.0, 1.0, 5.0
MOVE_QUEUE = "keep the queue on a local disk, or on NFS (mounted hard)"


def rename_replaces(folder: Path) -> Finding:
    """A reader sees the old file or the new one: everything here is written aside and renamed."""
    target = folder / "target"
    target.write_bytes(_content(0))

    def read(connection: Connection) -> None:
        missing = broken = looks = 0
        connection.send("ready")
        while not connection.poll():
            looks += 1
            try:
                read = target.read_bytes()
            except FileNotFoundError:
                missing += 1
                continue
            broken += len(set(read)) != 1 or len(read) != len(_content(0))
        connection.send((looks, missing, broken))

    began, number = time.monotonic(), 0
    with start_helper(read) as reader:
        reader.receive()
        while number < NUM_ROUNDS and time.monotonic() - began < LIMIT_S:
            number += 1
            aside = folder / "aside"
            aside.write_bytes(_content(number))
            os.replace(aside, target)  # noqa: PTH105 - the call that is tried
        reader.send("enough")
        looks, missing, broken = reader.receive()
    if target.read_bytes() != _content(number) or (folder / "aside").exists():
        return problem("a rename over a file does not replace it", MOVE_QUEUE)
    if missing or broken:
        return problem(
            f"while a rename replaces a file, others see none ({missing} of {looks} looks) or half of it ({broken})",
            MOVE_QUEUE,
        )
    return ok(f"replaces a file at once: {number} renames, {looks:,} looks of another process")


def _content(number: int) -> bytes:
    return bytes([number % 256]) * 8192


def claims(folder: Path) -> Finding:
    """Two processes rename one file, each to a name of its own, as runners do that claim the same job."""

    def source(number: int) -> Path:
        return folder / f"{number}.json"

    def target(racer: int, number: int) -> Path:
        return folder / f"{number}@{racer}.json"

    def claim(racer: int, number: int) -> tuple[bool, str | None]:
        """(whether this process got the file, the error of the call)"""
        try:
            os.rename(source(number), target(racer, number))  # noqa: PTH104 - the call that is tried
        except OSError as error:
            return os.path.lexists(target(racer, number)), error.strerror
        return True, None

    tries = race(claim, lambda number: source(number).touch(), NUM_ROUNDS, LIMIT_S)
    here = set(os.listdir(folder))  # noqa: PTH208 - only names
    left = [sum(target(racer, number).name in here for racer in range(2)) for number in range(len(tries))]
    num_won = [sum(won for won, _ in both) for both in tries]
    if twice := sum(max(claimed, files) > 1 for claimed, files in zip(num_won, left, strict=True)):
        return problem(f"two processes both got one job, in {twice} of {len(tries)} races", MOVE_QUEUE)
    if lost := [both for both, files in zip(tries, left, strict=True) if files == 0]:
        reason = next((error for both in lost for _, error in both if error is not None), "the file is lost")
        return problem(
            f"of two processes that claimed a job neither got it ({reason}), in {len(lost)} races", MOVE_QUEUE
        )
    if odd := [error for both in tries for won, error in both if won and error is not None]:
        return ok(
            f"one of two processes won each of {len(tries)} races; {len(odd)} renames succeeded and reported an error "
            f"({odd[0]}), which does no harm: the file's name decides"
        )
    return ok(f"one of two processes won each of {len(tries)} races for a file")


def moves(folder: Path) -> Finding:
    """Two processes each move a file of their own to one name, as where two jobs of a name come to one state."""
    own, targets = folder / "own", folder / "targets"
    own.mkdir()
    targets.mkdir()

    def source(racer: int, number: int) -> Path:
        return own / f"{number}@{racer}.json"

    def move(racer: int, number: int) -> bool:
        try:
            move_own(source(racer, number), targets / f"{number}.json")
        except FileExistsError:
            return False
        return True

    def prepare(number: int) -> None:
        for racer in range(2):
            source(racer, number).write_text(str(racer))

    tries = race(move, prepare, NUM_ROUNDS, LIMIT_S)
    for number, won in enumerate(tries):
        here = [racer for racer in range(2) if os.path.lexists(source(racer, number))]
        what = (targets / f"{number}.json").read_text() if any(won) else ""
        if sum(won) != 1 or what != str(won.index(True)) or here != [won.index(False)]:
            return problem("of two processes that moved a file to one name, not just one could", MOVE_QUEUE)
    return ok(f"one of two processes won each of {len(tries)} races for a name, by {_way(own, targets)}")


def _way(own: Path, targets: Path) -> str:
    """How `move_own` moves files here."""
    (own / "a").touch()
    try:
        rename_noreplace(own / "a", targets / "a")
    except OSError:
        try:
            os.link(own / "a", targets / "b")
        except OSError:
            return "folders"
        return "hard links"
    return "renames that replace nothing"


def exclusive_creation(folder: Path) -> Finding:
    """Two processes create one file with O_EXCL, as trainers do that start in the same run folder."""

    def create(racer: int, number: int) -> bool:
        try:
            os.close(os.open(folder / str(number), os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        except FileExistsError:
            return False
        return True

    tries = race(create, lambda _: None, NUM_ROUNDS, LIMIT_S)
    if twice := sum(all(both) for both in tries):
        return problem(f"two processes both created one file (O_EXCL), in {twice} of {len(tries)} races", MOVE_QUEUE)
    if lost := sum(not any(both) for both in tries):
        return problem(f"a file that did not exist was refused (O_EXCL), in {lost} of {len(tries)} races", MOVE_QUEUE)
    return ok(f"one of two processes won each of {len(tries)} races to create a file")


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


def clock(folder: Path) -> Finding:
    """Time stamps are set by the file server's clock; that of a job's file identifies it, and a rename must keep it."""
    path, moved = folder / "a", folder / "b"
    before = time.time()
    path.write_text("")
    after = time.time()
    stamp = path.stat().st_mtime_ns
    path.rename(moved)
    if moved.stat().st_mtime_ns != stamp:
        return problem("a rename changes the time stamp of a file, by which a job's retries are counted", MOVE_QUEUE)
    apart = stamp / 1e9 - (before + after) / 2
    offset = f"{abs(apart):.1f} s {'behind' if apart < 0 else 'ahead of'} this machine's"
    if abs(apart) > CLOCK_TOLERANCE_S + (after - before):
        return warning(f"the file server's is {offset}", "synchronize both by NTP (timedatectl set-ntp true)")
    return ok(f"the file server's is {offset}" if abs(apart) >= 0.1 else "the file server's is this machine's")


def visibility(folder: Path) -> Finding:
    """How long it takes until another process finds a new file in its folder."""

    def watch(connection: Connection) -> None:
        while True:
            name = connection.recv()
            until = time.monotonic() + LISTING_LIMIT_S
            while name not in os.listdir(folder) and time.monotonic() < until:  # noqa: PTH208 - only names
                time.sleep(0.0005)
            connection.send(time.monotonic())

    delays = []
    with start_helper(watch) as watcher:
        for number in range(NUM_LISTINGS):
            watcher.send(f"{number}.json")
            aside = folder / ".aside"
            aside.write_text("{}")
            aside.replace(folder / f"{number}.json")
            renamed = time.monotonic()
            delays.append(max(0.0, watcher.receive(2 * LISTING_LIMIT_S) - renamed))
            if delays[-1] > LISTING_LIMIT_S / 2:
                break
    longest = max(delays)
    if longest > SLOW_LISTING_S:
        or_later = " or later" if longest > LISTING_LIMIT_S / 2 else ""
        return warning(
            f"another process sees a new file after {longest:.1f} s{or_later}",
            "jobs start later, which does no harm; mount with a shorter actimeo to see them sooner",
        )
    return ok(f"another process sees a new file after {longest * 1000:.0f} ms")


def syncing(folder: Path) -> Finding:
    """How long fsync takes, by which a saved state survives a power failure."""
    path = folder / "a"
    began = time.monotonic()
    try:
        with path.open("wb") as file:
            file.write(_content(1))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return problem(f"fsync has failed: {error.strerror}; no state of a training could be saved", MOVE_QUEUE)
    sync_folder(folder)
    took = time.monotonic() - began
    if took > SLOW_SYNC_S:
        return warning(f"fsync takes {took:.1f} s", "trainings wait for it at every save; use a faster disk")
    return ok(f"fsync takes {took * 1000:.0f} ms")


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


TRIALS: dict[str, Callable[[Path], Finding]] = {
    "rename": rename_replaces,
    "claims": claims,
    "moves": moves,
    "creation": exclusive_creation,
    "links": links,
    "clock": clock,
    "listing": visibility,
    "sync": syncing,
    "names": names,
    "case": case,
    "locks": locks,
}


def run_trial(trial: Callable[[Path], Finding], folder: Path) -> Finding:
    """Run a trial in a new folder. An error of the file system is a problem that is found."""
    try:
        folder.mkdir()
        return trial(folder)
    except OSError as error:
        return problem(f"the trial has failed: {error.strerror or error}", MOVE_QUEUE)
