"""What the queue relies on of a file system, tried in a temporary folder in it, with real processes.

Network drives guarantee less than local disks. The trials are between processes of one machine; between machines the
file server decides, which cannot be tried from one of them. Each trial takes its own empty folder and raises OSError
where the file system does.
"""

import os
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from accel_trainer.core.exclusive_move import move_own
from accel_trainer.core.files import sync_folder
from accel_trainer.core.machine_errors import is_scarce, told
from accel_trainer.core.rename import rename_noreplace
from accel_trainer.doctor.feature_trials import MOVE_QUEUE, case, links, locks, names
from accel_trainer.doctor.findings import MORE_OF_IT, Finding, ok, problem, warning
from accel_trainer.doctor.race import HelperFailed, race, start_helper

NUM_ROUNDS, LIMIT_S = 300, 1.5
NUM_LISTINGS, NUM_READS = 5, 20
# What is slower than this is a warning: until another process sees a file, until it is synced, between the clocks.
SLOW_LISTING_S, LISTING_LIMIT_S, SLOW_SYNC_S, CLOCK_TOLERANCE_S = 1.0, 5.0, 1.0, 5.0
# For so long a client may remember what was, with the usual settings of NFS.
LONGEST_CACHE_S = 65.0
HELP_WITH_CACHES = (
    "mount it with shorter caches: sshfs `-o dir_cache=no,attr_timeout=0,entry_timeout=0`, NFS "
    "`lookupcache=positive,actimeo=3` (or `noac`, slow), SMB `actimeo=1`; docs/machines.md says more"
)


def rename_replaces(folder: Path) -> Finding:
    """A reader sees the old file or the new one: everything here is written aside and renamed."""
    target = folder / "target"
    target.write_bytes(_content(0))

    def read(connection: Connection) -> None:
        missing = broken = looks = 0
        errors: Counter[str] = Counter()
        connection.send("ready")
        while not connection.poll():
            looks += 1
            try:
                read = target.read_bytes()
            except FileNotFoundError:
                missing += 1
                continue
            except OSError as error:
                errors[error.strerror or str(error)] += 1
                continue
            broken += len(set(read)) != 1 or len(read) != len(_content(0))
        connection.send((looks, missing, broken, errors))

    began, number = time.monotonic(), 0
    with start_helper(read) as reader:
        reader.receive()
        while number < NUM_ROUNDS and time.monotonic() - began < LIMIT_S:
            number += 1
            aside = folder / "aside"
            aside.write_bytes(_content(number))
            os.replace(aside, target)  # noqa: PTH105 - the call that is tried
        reader.send("enough")
        looks, missing, broken, errors = reader.receive()
    if _read(target) != _content(number) or (folder / "aside").exists():
        return problem("a rename over a file does not replace it", MOVE_QUEUE)
    if missing or broken:
        return problem(
            "replacing is not atomic: "
            f"while a rename replaces a file, others see none ({missing} of {looks} looks) or half of it ({broken}): "
            "what a queue reads just then, such as a pause or a sign of life, counts as missing for that moment",
            MOVE_QUEUE,
        )
    if errors:
        found = ", ".join(f"{what}: {number} of {looks:,} looks" for what, number in errors.items())
        return warning(
            f"while a rename replaces a file, reading it fails ({found}); what a queue reads is then read again",
            "nothing has to be done; docs/machines.md says which mounts do so",
        )
    return ok(f"replaces a file at once: {number} renames, {looks:,} looks of another process")


def _read(path: Path) -> bytes:
    """The content of a file, of which reading may fail now and then."""
    for _ in range(NUM_READS):
        with suppress(OSError):
            return path.read_bytes()
    return path.read_bytes()


def _content(number: int) -> bytes:
    return bytes([number % 256]) * 8192


def claims(folder: Path, other: Path | None = None) -> Finding:
    """Two processes rename one file, each to a name of its own, as runners do that claim the same job.

    other: the same folder, as another client has it, where the second process does so.
    """
    places = (folder, other or folder)

    def target(racer: int, number: int) -> Path:
        return places[racer] / f"{number}@{racer}.json"

    def claim(racer: int, number: int) -> _Try:
        try:
            os.rename(places[racer] / f"{number}.json", target(racer, number))  # noqa: PTH104 - the call that is tried
        except OSError as error:
            shown = os.path.lexists(target(racer, number))
            return _Try(shown, error.strerror, shown or target(racer, number).name in _names(places[racer]))
        return _Try(True, None, True)

    def prepare(number: int) -> None:
        (folder / f"{number}.json").touch()
        for place in set(places):
            _wait_until_shown(place / f"{number}.json")

    tries = race(claim, prepare, NUM_ROUNDS, LIMIT_S)
    here = _names(folder)
    left = [sum(target(racer, number).name in here for racer in range(2)) for number in range(len(tries))]
    return _assess_claims(tries, left)


@dataclass(frozen=True)
class _Try:
    """One process's try to claim a file: whether its client shows it the file, the error of the call, and whether the
    file is in the listing."""

    won: bool
    error: str | None
    listed: bool


def _names(folder: Path) -> set[str]:
    return set(os.listdir(folder))  # noqa: PTH208 - only names


def _wait_until_shown(path: Path) -> None:
    until = time.monotonic() + LONGEST_CACHE_S
    while not os.path.lexists(path) and time.monotonic() < until:
        time.sleep(0.0005)


def _assess_claims(tries: list[tuple[_Try, _Try]], left: list[int]) -> Finding:
    """left: in how many names each file is found in the end."""
    races = f"{len(tries)} races"
    num_won = [sum(one.won for one in both) for both in tries]
    if twice := sum(max(claimed, files) > 1 for claimed, files in zip(num_won, left, strict=True)):
        return problem(f"two processes both got one job, in {twice} of {races}", MOVE_QUEUE)
    if lost := [both for both, files in zip(tries, left, strict=True) if files == 0]:
        reason = next((one.error for both in lost for one in both if one.error is not None), "the file is lost")
        return problem(
            f"of two processes that claimed a job neither got it ({reason}), in {len(lost)} races", MOVE_QUEUE
        )
    if nobodys := [both for both, won in zip(tries, num_won, strict=True) if won == 0]:
        denied = next(one.error for both in nobodys for one in both)
        if not all(any(one.listed for one in both) for both in nobodys):
            return problem(
                f"in {len(nobodys)} of {races} a job was moved and neither process could know that it has it: the "
                f"answer was lost ({denied}), and the client denies that the file is there: such a job stays in "
                "running/ until its runner finds it there or ends",
                HELP_WITH_CACHES,
            )
        return warning(
            f"answers are lost and names remembered: in {len(nobodys)} of {races} the winner's rename reported an "
            f"error ({denied}), and only the listing shows that it has the job: its runner waits for the file",
            HELP_WITH_CACHES,
        )
    if odd := [one.error for both in tries for one in both if one.won and one.error is not None]:
        return ok(
            f"one of two processes won each of {races}; {len(odd)} renames succeeded and reported an error "
            f"({odd[0]}), which does no harm: the file's name decides"
        )
    return ok(f"one of two processes won each of {races} for a file")


def moves(folder: Path, other: Path | None = None) -> Finding:
    """Two processes each move a file of their own to one name, as where two jobs of a name come to one state.

    other: as of `claims`.
    """
    own, targets, places = folder / "own", folder / "targets", (folder, other or folder)
    own.mkdir(exist_ok=True)
    targets.mkdir(exist_ok=True)

    def source(racer: int, number: int) -> Path:
        return own / f"{number}@{racer}.json"

    def move(racer: int, number: int) -> bool:
        place = places[racer]
        try:
            move_own(place / own.name / source(racer, number).name, place / targets.name / f"{number}.json")
        except FileExistsError:
            return False
        return True

    def prepare(number: int) -> None:
        for racer, place in enumerate(places):
            source(racer, number).write_text(str(racer))
            _wait_until_shown(place / own.name / source(racer, number).name)

    tries = race(move, prepare, NUM_ROUNDS, LIMIT_S)
    for number, won in enumerate(tries):
        here = [racer for racer in range(2) if os.path.lexists(source(racer, number))]
        what = (targets / f"{number}.json").read_text() if any(won) else ""
        if sum(won) != 1 or what != str(won.index(True)) or here != [won.index(False)]:
            return problem("of two processes that moved a file to one name, not just one could", MOVE_QUEUE)
    return ok(f"one of two processes won each of {len(tries)} races for a name, by {_way(own, targets)}")


def _way(own: Path, targets: Path) -> str:
    """How `move_own` moves files here, and what is refused."""
    (own / "a").touch()
    try:
        rename_noreplace(own / "a", targets / "a")
    except OSError as refused:
        try:
            os.link(own / "a", targets / "b")
        except OSError as error:
            return f"folders (RENAME_NOREPLACE: {refused.strerror}; hard links: {error.strerror})"
        return f"hard links (RENAME_NOREPLACE: {refused.strerror})"
    return "renames that replace nothing"


def exclusive_creation(folder: Path, other: Path | None = None) -> Finding:
    """Two processes create one file with O_EXCL, as trainers do that start in the same run folder.

    other: as of `claims`.
    """
    places = (folder, other or folder)

    def create(racer: int, number: int) -> tuple[bool, str | None]:
        """Whether this process created it, and the words of an error that is not the usual one."""
        try:
            os.close(os.open(places[racer] / str(number), os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        except FileExistsError:
            return False, None
        except PermissionError as error:
            if not os.path.lexists(places[racer] / str(number)):
                raise
            return False, error.strerror
        return True, None

    answers = race(create, lambda _: None, NUM_ROUNDS, LIMIT_S)
    tries = [(one[0], two[0]) for one, two in answers]
    if twice := sum(all(both) for both in tries):
        return problem(f"two processes both created one file (O_EXCL), in {twice} of {len(tries)} races", MOVE_QUEUE)
    if lost := sum(not any(both) for both in tries):
        return problem(f"a file that did not exist was refused (O_EXCL), in {lost} of {len(tries)} races", MOVE_QUEUE)
    other_words = next((words for both in answers for _, words in both if words is not None), None)
    note = "" if other_words is None else f"; the other one is told {other_words!r}, which counts as that"
    return ok(f"one of two processes won each of {len(tries)} races to create a file{note}")


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
            f"jobs start later, which does no harm; to see them sooner {HELP_WITH_CACHES}",
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


def _make(folder: Path) -> None:
    """A new folder, also where the answer of the server to that is lost."""
    try:
        folder.mkdir()
    except FileExistsError:
        if not folder.is_dir() or os.listdir(folder):  # noqa: PTH208 - only names
            raise


def run_trial(trial: Callable[[Path], Finding], folder: Path) -> Finding:
    """Run a trial in a new folder. An error of the file system is a problem that is found."""
    try:
        _make(folder)
        return trial(folder)
    except OSError as error:
        if is_scarce(error):
            return problem(f"cannot be tried: {told(error)}", MORE_OF_IT)
        return problem(f"the trial has failed: {told(error)}", MOVE_QUEUE)
    except HelperFailed as error:
        return problem(f"the trial has failed: {error}", MOVE_QUEUE)
