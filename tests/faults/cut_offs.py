"""Trainers that are cut off at random moments of a save, are followed by another machine's, and wake up.

    python tests/faults/cut_offs.py --drive worst_fs --cuts 100 --seed 0

Each round trains several runs at once through one client of a drive. Either each of these trainers is stopped (SIGSTOP)
at a moment of its own, or the client is at a moment of one of them: then a call of each hangs, and is done when the
client goes on, which may be long after the lease has expired. Trainers of another machine follow through another
client. The first ones wake up when these have finished, or while they train.
"""

import argparse
import json
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # as pytest has it
    sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]

from faults import checks
from faults.fork_server import ForkServer
from faults.test_every_event import JOB
from helpers import wait_until
from network.mounts import Mount, server_folder, sshd, worst_fs

from accel_trainer.run.folder import RunFolder
from accel_trainer.run.status import RunState, read_status

# Trains the job of its rank, of those in the first argument, with the faults of the second; nobody is silent for longer
# than the third.
SCRIPT = """
import json, os, sys
import injection, pytest
from helpers import as_another_machine
from accel_trainer.core import lease
from accel_trainer.training import trainer
from accel_trainer.workers import train

class NoPlotter:
    def __init__(self, run): ...
    def start(self): ...
    def draw(self, *, now=False): ...
    def close(self): ...

number = int(sys.argv[0])
trainer.Plotter, lease.STALE_S = NoPlotter, float(sys.argv[3])
as_another_machine(pytest.MonkeyPatch(), os.environ[lease.HOST_VARIABLE])
injection.arm(json.loads(sys.argv[2])[number])
code = train.main([json.loads(sys.argv[1])[number], "--name=job"])
print("exit code", code, flush=True)
sys.exit(code)
"""
ENVIRONMENT = {"ACCELERATE_USE_CPU": "true", "ACCEL_TRAIN_ALLOW_IMPORTS": "tiny_models", "OMP_NUM_THREADS": "1"}
# What a save opens, syncs, renames and removes: in an owner's own folder, and where it appears.
OF_A_SAVE = r"/\.writing-|/resume/|/params/|/performance\.csv"
LEASE_S, NO_LEASE_S = 600.0, 0.0
# For the trainers of one machine, all at once.
PATIENCE_S = 600.0
# Of each log.
MOST_SHOWN = 4000
SLEEPY, AWAKE = "sleepy", "awake"


@dataclass(frozen=True)
class Drive:
    """A folder as its server has it, and as two clients do. client: the process of the near one, where there is one."""

    server: Path
    near: Path
    far: Path
    client: int | None = None

    @classmethod
    def of(cls, near: Mount, far: Mount) -> "Drive":
        """Two clients of one server."""
        return cls(near.server, near.folder, far.folder, near.process.pid)


@dataclass
class Tally:
    """What has become of all cut-offs so far. missed: trainers that were over, or had not begun."""

    cut: int = 0
    missed: int = 0
    wrong: dict[str, list[str]] = field(default_factory=dict)


class CutOffs:
    """Cuts trainers off on one drive, and counts. folder: on a disk of this machine, for logs and the run that nobody
    disturbs."""

    def __init__(self, drive: Drive, folder: Path, sleepy: ForkServer, awake: ForkServer) -> None:
        self._drive, self._folder = drive, folder
        self._sleepy, self._awake = sleepy, awake
        self.tally = Tally()
        self._undisturbed, self._moments = self._trace()

    @property
    def can_hang(self) -> bool:
        """Whether there is a client that can be stopped."""
        return self._drive.client is not None

    def _trace(self) -> tuple[Path, range]:
        """The run that nobody disturbs, and the numbers of what it does to files in its saves, from the first on."""
        place, trace = self._folder / "undisturbed", self._folder / "trace"
        self._write_job(place, place)
        look = {"folders": [str(place / "run")], "marker": "/none", "nth": 0, "trace": str(trace)}
        codes = self._train(self._awake, AWAKE, [place], [[look]], LEASE_S)
        assert codes == [0], (self._folder / f"{AWAKE}.txt").read_text()
        events = trace.read_text().splitlines()
        begun = next(number for number, event in enumerate(events) if "config.json" in event)
        first = 1 + sum(bool(re.search(OF_A_SAVE, event)) for event in events[:begun])
        return place / "run", range(first, 1 + sum(bool(re.search(OF_A_SAVE, event)) for event in events))

    def round(self, name: str, chance: random.Random, num_trainers: int, *, hangs: bool, wakes_meanwhile: bool) -> None:
        """Cut some trainers off at once, and look what they have disturbed."""
        drive, server = self._drive, [self._drive.server / name / str(number) for number in range(num_trainers)]
        near, far = ([client / name / str(n) for n in range(num_trainers)] for client in (drive.near, drive.far))
        for number, place in enumerate(server):
            self._write_job(place, near[number])
            self._write_job(place, far[number], "far.json")
        markers = [self._folder / f"{name}-{number}.struck" for number in range(num_trainers)]
        faults = [
            [
                {
                    "folders": [str(place / "run")],
                    "marker": str(marker),
                    "pattern": OF_A_SAVE,
                    "nth": chance.choice(self._moments),
                    "signal": signal.SIGSTOP,
                    "pid": drive.client if hangs else None,
                }
            ]
            for place, marker in zip(near, markers, strict=True)
        ]
        if hangs:  # the first one's moment is that of all
            faults[1:] = [[]] * (num_trainers - 1)
        runs = [RunFolder(place / "run") for place in server]
        sleepers = self._started(self._sleepy, SLEEPY, near, faults, LEASE_S)
        try:
            self._wait(lambda: _are_cut(runs, markers, hangs=hangs) or not sleepers.is_alive())
            are_cut = [
                _is_training(run) and (hangs or marker.exists()) for run, marker in zip(runs, markers, strict=True)
            ]
            successors = self._started(self._awake, AWAKE, far, [[]] * num_trainers, NO_LEASE_S, "far.json")
            if wakes_meanwhile:
                self._wait(lambda: any(map(_is_followed, runs)) or not successors.is_alive())
                self._wake(hangs=hangs)
            successors.join()
            before = [_contents(run.path) for run in runs]
        finally:
            self._wake(hangs=hangs)
            sleepers.join()
        for number, run in enumerate(runs):
            found = self._found_wrong(run) + ([] if _contents(run.path) == before[number] else ["it was changed later"])
            self.tally.cut += are_cut[number]
            self.tally.missed += not are_cut[number]
            what = markers[0 if hangs else number]
            at = what.read_text() if what.exists() else "-"
            if found:
                self.tally.wrong[f"{name}/{number}: {'hang' if hangs else 'stop'} at {at}"] = [*found, self._said()]
        if not self.tally.wrong:
            shutil.rmtree(drive.server / name)
            for log in self._folder.glob("*.txt"):
                log.unlink()

    def _found_wrong(self, run: RunFolder) -> list[str]:
        status = read_status(run)
        is_finished = status is not None and (status.state, status.host) == (RunState.FINISHED, AWAKE)
        found = [] if is_finished else [f"the status is {status}"]
        found += checks.differences(run.path, self._undisturbed)
        states = [path.name for path in run.resume.glob("*")]
        found += [] if len(states) == 1 else [f"resume/ has {states}"]
        return found + checks.duplicates(run.path) + checks.leftovers(run.path)

    def _said(self) -> str:
        return "\n".join(f"{path.name}:\n{path.read_text()[-MOST_SHOWN:]}" for path in self._folder.glob("*.txt"))

    def _wait(self, condition: Callable[[], Any]) -> None:
        wait_until(condition, PATIENCE_S)

    def _wake(self, *, hangs: bool) -> None:
        if hangs and self._drive.client is not None:
            os.kill(self._drive.client, signal.SIGCONT)
        if not hangs:
            for child in self._sleepy.forked:
                os.kill(child, signal.SIGCONT)

    def _write_job(self, folder: Path, place: Path, name: str = "job.json") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(json.dumps({**JOB, "model_dir": str(place / "run")}))

    def _started(self, *args: Any) -> threading.Thread:
        thread = threading.Thread(target=self._train, args=args)
        thread.start()
        return thread

    def _train(
        self,
        server: ForkServer,
        host: str,
        places: Sequence[Path],
        faults: list[list[dict[str, Any]]],
        stale_s: float,
        name: str = "job.json",
    ) -> list[int]:
        words = [json.dumps([str(place / name) for place in places]), json.dumps(faults), str(stale_s)]
        log, here = self._folder / f"{host}.txt", {"ACCEL_TRAIN_HOST": host, **ENVIRONMENT}
        return server.script(SCRIPT, words, log, processes=len(places), **here)


def _are_cut(runs: Sequence[RunFolder], markers: Sequence[Path], *, hangs: bool) -> bool:
    if hangs:
        return markers[0].exists()
    return all(marker.exists() or _is_over(run) for run, marker in zip(runs, markers, strict=True))


def _is_over(run: RunFolder) -> bool:
    return (status := read_status(run)) is not None and status.state is RunState.FINISHED


def _is_training(run: RunFolder) -> bool:
    """Whether it was begun, and is not over."""
    return run.has_run and not _is_over(run) and bool(run.locks())


def _is_followed(run: RunFolder) -> bool:
    return (status := read_status(run)) is not None and status.host == AWAKE and status.epoch > 0


def _contents(run: Path) -> dict[str, bytes]:
    return {str(path.relative_to(run)): path.read_bytes() for path in run.rglob("*") if path.is_file()}


# -- by hand -----------------------------------------------------------------------------------------------------------


@contextmanager
def mounted(kind: str) -> Iterator[Drive]:
    """Two clients of a drive, with what they remember by default."""
    with ExitStack() as stack:
        if kind == "sshfs":
            daemon = stack.enter_context(sshd())
            near, far = (stack.enter_context(daemon.mount(name)) for name in ("near", "far"))
        else:
            server = stack.enter_context(server_folder())
            seeds = {"near": 0, "far": 1}
            near, far = (stack.enter_context(worst_fs(server, name, **WORST, seed=seeds[name])) for name in seeds)
        yield Drive.of(near, far)


# Of each client: what it remembers, for how many seconds, and which part of the answers it loses.
WORST = {"attr_s": 2, "entry_s": 2, "negative_s": 1, "listing_s": 2, "lost_replies": 0.02, "lost_only": "/run/"}


def rounds(cut_offs: CutOffs, cuts: int, seed: int, num_trainers: int) -> Iterator[Tally]:
    """Half of the cut-offs by SIGSTOP, half by hanging calls, where they can hang; of each, half wake up while they are
    followed."""
    number = 0
    while cut_offs.tally.cut < cuts:
        chance = random.Random(f"{seed} {number}")
        kind = {"hangs": cut_offs.can_hang and number % 2 == 1, "wakes_meanwhile": number // 2 % 2 == 1}
        cut_offs.round(f"{seed}-{number}", chance, num_trainers, **kind)
        yield cut_offs.tally
        number += 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--drive", choices=["worst_fs", "sshfs"], default="worst_fs")
    parser.add_argument("--cuts", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--at-once", type=int, default=4, help="trainers that are cut off in one round")
    args = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="cut-offs-", dir="/tmp") as folder,
        ForkServer(PATIENCE_S) as sleepy,
        ForkServer(PATIENCE_S) as awake,
        mounted(args.drive) as drive,
    ):
        cut_offs = CutOffs(drive, Path(folder), sleepy, awake)
        for tally in rounds(cut_offs, args.cuts, args.seed, args.at_once):
            missed = f"{tally.missed} were over, or had not begun"
            print(f"{tally.cut} cut off ({missed}), {len(tally.wrong)} disturbed", flush=True)
            if tally.wrong:
                print(json.dumps(tally.wrong, indent=2).replace("\\n", "\n"))
                sys.exit(1)


if __name__ == "__main__":
    main()
