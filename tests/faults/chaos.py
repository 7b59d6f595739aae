"""Random faults over queues of real small jobs, until every job is done; then everything is compared.

    python tests/faults/chaos.py --schedules 100 --jobs 2     # make chaos
    python tests/faults/chaos.py --schedules 1 --seed 17 --keep

Schedule n is that of seed + n, whatever is run beside it.
"""

import argparse
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

sys.path += [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]

from faults import checks
from faults.fork_server import ForkServer
from faults.lab import Lab
from faults.schedules import (
    KINDS,
    AfterSeconds,
    AtStep,
    Damage,
    Fault,
    KillAtEvent,
    Moment,
    Pause,
    Schedule,
    Signal,
    draw,
)
from helpers import wait_until

# A runner that has nothing to do but what was left of a few short jobs.
LONGEST_S = 240
ZOMBIE_S = 3.0
# How often the runner is started for a fault whose moment does not come.
NUM_TRIES = 3
# Until a trainer is there, or the process that wandb starts.
ROLE_S = 60.0


@dataclass
class Report:
    """What became of a schedule."""

    schedule: Schedule
    struck: list[str] = field(default_factory=list)
    missed: list[str] = field(default_factory=list)
    starts: int = 0
    done: int = 0
    same: int = 0
    retried: int = 0
    differences: list[str] = field(default_factory=list)
    duplicates: list[str] = field(default_factory=list)
    orphans: list[str] = field(default_factory=list)
    zombies: list[str] = field(default_factory=list)
    leftovers: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    seconds: float = 0.0
    folder: Path | None = None

    @property
    def unclean(self) -> list[str]:
        """All that is not as it must be."""
        return [
            *self.problems, *self.differences, *self.duplicates, *self.orphans, *self.zombies, *self.leftovers,
        ]  # fmt: skip

    def cells(self) -> list[str]:
        jobs = len(self.schedule.jobs)
        return [
            str(self.schedule.seed), str(self.schedule.num_processes), str(len(self.struck)), str(self.starts),
            f"{self.done}/{jobs}", f"{self.same}/{jobs}", str(len(self.duplicates)), str(len(self.orphans)),
            str(len(self.zombies)), str(len(self.leftovers)), f"{self.seconds:.0f}",
            "; ".join([*self.struck, *(f"({fault}: too late)" for fault in self.missed)]),
        ]  # fmt: skip


HEADS = ("seed", "processes", "faults", "starts", "done", "same bits", "duplicates", "orphans", "zombies", "leftovers",
         "s", "what")  # fmt: skip


class Chaos:
    """One schedule in a lab."""

    def __init__(self, schedule: Schedule, lab: Lab) -> None:
        self.schedule, self.lab = schedule, lab
        self.report = Report(schedule, folder=lab.folder)
        self._events = [(fault, self._arming(fault.what)) for fault in schedule.faults if _is_event(fault)]
        self._damaged: set[Path] = set()
        self._excuses = 0

    @property
    def names(self) -> list[str]:
        return [kind.replace(" ", "-") for kind in self.schedule.jobs]

    def run(self, server: ForkServer) -> Report:
        began = time.monotonic()
        for name, kind in zip(self.names, self.schedule.jobs, strict=True):
            self.lab.add(name, **KINDS[kind])
        undisturbed = {name: self.lab.undisturbed(server, name) for name in self.names}
        zombies = _ZombieWatch(self.lab)
        with zombies:
            for fault in self.schedule.faults:
                if not _is_event(fault):
                    self._inject(fault)
            self._finish()
        self._judge(undisturbed)
        self.report.zombies = sorted(zombies.lasting)
        self.report.seconds = time.monotonic() - began
        return self.report

    # -- faults ----------------------------------------------------------------------------------------------------

    def _inject(self, fault: Fault) -> None:
        for _ in range(NUM_TRIES):
            self._start_if_needed()
            self._wait(fault.when)
            if isinstance(fault.what, Damage):
                with suppress(TimeoutError):
                    wait_until(lambda: self.lab.is_over() or self._damageable(), LONGEST_S)
            if not self.lab.is_over() and self._strike(fault.what):
                self.report.struck.append(str(fault))
                self._excuses += 1
                return
        self.report.missed.append(str(fault))

    def _wait(self, when: Moment) -> None:
        """For the moment, or until it cannot come any more."""
        match when:
            case AtStep(step):
                wait_until(lambda: self.lab.is_over() or self._step() >= step, LONGEST_S)
            case AfterSeconds(seconds):
                with suppress(TimeoutError):
                    wait_until(self.lab.is_over, seconds)

    def _step(self) -> int:
        """Of the job that trains."""
        training = [name for name in self.names if self.lab.where(name) == "running"]
        return max((checks.global_step(self.lab.run(name)) for name in training), default=0)

    def _strike(self, what: Signal | Pause | KillAtEvent | Damage) -> bool:
        """Whether there was anything to strike at."""
        match what:
            case Signal("tree"):
                return self.lab.kill_all()
            case Signal(role, rank, number):
                with suppress(TimeoutError):  # it may be about to start
                    wait_until(lambda: self.lab.is_over() or self.lab.processes(role, rank), ROLE_S)
                return _send(self.lab.processes(role, rank)[:1], number)
            case Pause(seconds):
                paused = self.lab.processes("runner")
                _send(paused, signal.SIGSTOP)
                time.sleep(seconds)
                return _send(paused, signal.SIGCONT)
            case Damage(is_cut, file):
                self.lab.kill_all()
                return self._damage(is_cut, file)
            case KillAtEvent():
                raise AssertionError("it strikes by itself")

    def _damageable(self) -> Path | None:
        """A newest state that has one before it: a run whose only state is broken is refused, as it should be."""
        for name in self.names:
            states = sorted((self.lab.run(name) / "resume").glob("[0-9]*-*"))
            if self.lab.where(name) != "done" and len(states) >= 2 and not self._damaged & set(states):
                return states[-1]
        return None

    def _damage(self, is_cut: bool, file: str) -> bool:
        if (state := self._damageable()) is None:
            return False
        path = state / file
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content[: len(content) // 2] if is_cut else content)
        self._damaged.add(state)
        return True

    def _arming(self, what: object) -> dict[str, object]:
        assert isinstance(what, KillAtEvent)
        return self.lab.fault(what.role, nth=what.nth, signal=signal.SIGKILL)

    # -- what a user does --------------------------------------------------------------------------------------------

    def _start_if_needed(self) -> None:
        if not self.lab.is_over():
            return
        self._note_events()
        for name in self.names:
            if self.lab.where(name) == "failed" and self._excuses > 0:
                self._excuses -= 1
                self.report.retried += 1
                self.lab.retry(name)
        if not self._is_done():
            self.report.starts += 1
            self.lab.start("--retry-after", "0.1", faults=[armed for _, armed in self._events])

    def _finish(self) -> None:
        """Start the runner again and again until nothing is left to be done."""
        self.lab.hurry()
        for _ in range(len(self.schedule.faults) + 2):
            self._start_if_needed()
            if self._is_done():
                break
            assert self.lab.runner is not None
            self.lab.wait(LONGEST_S)
        self._note_events()

    def _note_events(self) -> None:
        """Faults that struck by themselves since we looked."""
        for fault, armed in [*self._events]:
            if Path(str(armed["marker"])).exists():
                self._events.remove((fault, armed))
                self._excuses += 1
                self.report.struck.append(f"{fault} ({self._moment(armed)})")

    def _moment(self, armed: dict[str, object]) -> str:
        """What the process was about to do."""
        text = Path(str(armed["marker"])).read_text()
        return text.replace(f"{self.lab.folder}/", "")

    def _is_done(self) -> bool:
        return all(self.lab.where(name) == "done" for name in self.names)

    def _judge(self, undisturbed: dict[str, Path]) -> None:
        report, lab = self.report, self.lab
        report.missed += [str(fault) for fault, _ in self._events]
        report.orphans = lab.orphans()
        report.leftovers = lab.leftovers()
        for name in self.names:
            run = lab.run(name)
            if lab.where(name) != "done":
                report.problems.append(f"{name} is {lab.where(name)}")
                continue
            report.done += 1
            found = checks.differences(run, undisturbed[name])
            report.same += not found
            report.differences += [f"{name}: {line}" for line in found]
            report.duplicates += [f"{name}: {line}" for line in checks.duplicates(run)]
            if len(ids := checks.wandb_ids(run)) > 1:
                report.problems.append(f"{name}: {len(ids)} ids in wandb")


class _ZombieWatch:
    """Looks for children of the runner that are dead for a while and not waited for."""

    def __init__(self, lab: Lab) -> None:
        self._lab, self._over = lab, threading.Event()
        self._since: dict[int, float] = {}
        self.lasting: set[str] = set()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(1):
            now, dead = time.monotonic(), {}
            for parent in self._lab.processes():
                with suppress(psutil.Error):
                    if parent.status() == psutil.STATUS_STOPPED:
                        dead = {}
                        break
                    zombies = [child for child in parent.children() if child.status() == psutil.STATUS_ZOMBIE]
                    dead |= {
                        child.pid: (now, f"{child.name()}, zombie of {' '.join(parent.cmdline()[2:5])} ({parent.pid})")
                        for child in zombies
                    }
            self._since = {pid: self._since.get(pid, now) for pid in dead}
            self.lasting |= {dead[pid][1] for pid, since in self._since.items() if now - since > ZOMBIE_S}


def _is_event(fault: Fault) -> bool:
    return isinstance(fault.what, KillAtEvent)


def _send(processes: Sequence[psutil.Process], number: int) -> bool:
    """Whether any of them was still there."""
    struck = False
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(number)
            struck = True
    return struck


def run_schedule(schedule: Schedule, folder: Path, server: ForkServer, *, plots: bool = True) -> Report:
    """Run a schedule in a fresh folder. What goes wrong with the running itself is a problem like others. plots:
    curves are drawn, too."""
    with Lab(folder, num_processes=schedule.num_processes, plots=plots) as lab:
        chaos = Chaos(schedule, lab)
        try:
            return chaos.run(server)
        except Exception as error:  # whatever it is: the other schedules are run all the same
            chaos.report.problems.append("".join(traceback.format_exception(error)).rstrip())
            return chaos.report


# -- the program -----------------------------------------------------------------------------------------------------


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--schedules", type=int, default=10, help="how many")
    parser.add_argument("--seed", type=int, default=0, help="of the first")
    parser.add_argument("--jobs", type=int, default=1, help="schedules at once, each on a core of its own")
    parser.add_argument("--small", action="store_true", help="one job and one or two faults each, as in the tests")
    parser.add_argument("--keep", action="store_true", help="keep the folders of clean schedules too")
    args = parser.parse_args()
    schedules = [draw(args.seed + number, is_small=args.small) for number in range(args.schedules)]
    _print_row(HEADS)
    reports = []
    for report in _reports(schedules, args.jobs):
        reports.append(report)
        _print_row(report.cells())
        for line in report.unclean:
            print(f"      ! {line}", flush=True)
        assert report.folder is not None
        if report.unclean or args.keep:
            print(f"      kept in {report.folder}", flush=True)
        else:
            shutil.rmtree(report.folder)
    dirty = [report.schedule.seed for report in reports if report.unclean]
    struck = sum(len(report.struck) for report in reports)
    print(f"{len(reports)} schedules, {struck} faults, {sum(r.done for r in reports)} jobs done, {len(dirty)} unclean")
    return 1 if dirty else 0


def _reports(schedules: Sequence[Schedule], at_once: int) -> Iterator[Report]:
    """Reports as they come."""
    cores = sorted(os.sched_getaffinity(0))
    own = threading.local()
    free = [cores[number % len(cores)] for number in range(at_once)]

    def begin() -> None:
        os.sched_setaffinity(0, {free.pop()})  # of this thread, and of all that it starts
        own.server = ForkServer()

    def run(schedule: Schedule) -> Report:
        return run_schedule(schedule, Path(tempfile.mkdtemp(prefix=f"chaos-{schedule.seed}-")), own.server)

    with ThreadPoolExecutor(at_once, initializer=begin) as pool:
        for future in as_completed([pool.submit(run, schedule) for schedule in schedules]):
            yield future.result()


def _print_row(cells: Sequence[str]) -> None:
    widths = (5, 9, 6, 6, 5, 9, 10, 7, 7, 9, 4, 0)
    print("  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)), flush=True)


if __name__ == "__main__":
    sys.exit(main())
