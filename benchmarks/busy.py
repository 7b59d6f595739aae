"""Training on a busy machine, beside the peers: the sections of the page. `python benchmarks/run.py --only busy`.

Every contestant is started once, on the machine as it is, and stopped when it has made some steps. Then, for each load,
they take turns: one goes on for some seconds, and is stopped again. So nobody imports anything under load.
"""

import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import psutil
from clock import Note, notes
from contestants import BARE, OURS, Contestant, Work, ours, script
from races import Failed, last_line, make_data, unsettled_environment
from results import Goal, Section, Values, median_compared

# Processes that compute, for each core.
LOADS = (0, 1, 2, 4)
WARM_UP_S, MEASURED_S = 1.5, 3.0
# Of who makes so few steps in that time, these are waited for.
LEAST_STEPS, LONGEST_S = 4, 20.0
START_LIMIT_S = 300.0
# It ends with this process, however that ends.
COMPUTE = """
import os
parent = os.getppid()
while os.getppid() == parent:
    for _ in range(10**6):
        pass
"""
QUIET_GOAL, SPINNING_GOAL = 0.98, 10.0
ONE_THREAD, SPINNING = "bare PyTorch loop, one thread", f"{OURS}, threads spinning"
# Nobody's own settings of threads.
THREADS = ("OMP_", "GOMP_", "KMP_", "MKL_", "ACCEL_TRAIN_")
ABOUT = f"""\
Everybody trains small_cnn on the bundled digits, 1,347 images of 32x32, in batches of 64, with SGD and momentum, on as
many threads as there are cores, but for the loop that has one. Beside them {{load}}. Images per second in the
steps of {MEASURED_S:g} seconds, without what is between epochs. `{SPINNING}` is the same program with
GOMP_SPINCOUNT=300000, as libgomp waits by itself, and as all others' threads do."""


@dataclass(frozen=True)
class Entry:
    """A contestant, and variables of its own."""

    contestant: Contestant
    variables: Mapping[str, str]


ENTRIES = (
    Entry(Contestant(BARE, script("bare.py")), {}),
    Entry(Contestant(ONE_THREAD, script("bare.py")), {"OMP_NUM_THREADS": "1"}),
    Entry(Contestant("Lightning", script("with_lightning.py"), "lightning"), {}),
    Entry(Contestant("Hugging Face Trainer", script("with_transformers.py"), "transformers"), {}),
    Entry(Contestant(OURS, ours([]), is_ours=True), {}),
    Entry(Contestant(SPINNING, ours([]), is_ours=True), {"GOMP_SPINCOUNT": "300000"}),
)


class Trained:
    """A contestant's processes, which go on and stop; it is stopped when `Trained(...)` returns. Raises Failed."""

    def __init__(self, entry: Entry, work: Work) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="accel-train-busy-"))
        log = self.folder / "log.txt"
        inherited = {
            name: value for name, value in unsettled_environment(self.folder).items() if not name.startswith(THREADS)
        }
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                entry.contestant.prepare(work, self.folder),
                cwd=self.folder,
                env={**inherited, "CUDA_VISIBLE_DEVICES": "", **entry.variables},
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        try:
            deadline = time.monotonic() + START_LIMIT_S
            while len(self._steps_since(0.0)) <= 2 * work.steps_per_epoch:
                if self._process.poll() is not None:
                    raise Failed(f"exit code {self._process.returncode}: {last_line(log)}")
                if time.monotonic() > deadline:
                    raise Failed(f"made no steps within {START_LIMIT_S:g} s: {last_line(log)}")
                time.sleep(0.1)
            self._signal(signal.SIGSTOP)
        except BaseException:
            self.end()
            raise

    def images_per_s(self) -> float:
        """Of what it trains now, for some seconds. Raises Failed."""
        self._signal(signal.SIGCONT)
        try:
            time.sleep(WARM_UP_S)
            began = time.time()
            while (passed := time.time() - began) < LONGEST_S:
                if passed >= MEASURED_S and len(self._steps_since(began)) > LEAST_STEPS:
                    break
                time.sleep(0.1)
        finally:
            self._signal(signal.SIGSTOP)
        return rate(self._notes_since(began))

    def end(self) -> None:
        """Nothing of it stays."""
        for process in self._processes():
            with suppress(psutil.Error):
                process.kill()
        self._process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _notes_since(self, began: float) -> list[Note]:
        with suppress(FileNotFoundError):
            return [note for note in notes(self.folder / "clock") if note.time >= began]
        return []

    def _steps_since(self, began: float) -> list[Note]:
        return [note for note in self._notes_since(began) if note.is_step]

    def _processes(self) -> list[psutil.Process]:
        with suppress(psutil.Error):
            first = psutil.Process(self._process.pid)
            return [first, *first.children(recursive=True)]
        return []

    def _signal(self, number: signal.Signals) -> None:
        for process in self._processes():
            with suppress(psutil.Error):
                process.send_signal(number)


def rate(seen: Sequence[Note]) -> float:
    """Images per second from each step to the next one, where nothing is between them. Raises Failed."""
    steps = [
        (after.num_images, after.time - before.time)
        for before, after in pairwise(seen)
        if before.is_step and after.is_step
    ]
    if not steps:
        raise Failed("made no steps")
    return sum(images for images, _ in steps) / sum(seconds for _, seconds in steps)


@contextmanager
def background(number: int) -> Iterator[None]:
    """Processes that compute, in this one's session: to the kernel they are somebody else's than any contestant."""
    busy: list[subprocess.Popen[bytes]] = []
    try:
        for _ in range(number):
            busy.append(subprocess.Popen([sys.executable, "-c", COMPUTE]))
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


def sections(rounds: int, say: Callable[[str], None]) -> list[Section]:
    """One for each load; all in turn."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    absent = {one.contestant.name: why for one in ENTRIES if (why := one.contestant.why_not) is not None}
    with ExitStack() as started:
        data = make_data(Path(started.enter_context(tempfile.TemporaryDirectory())))
        work = Work(str(data), num_epochs=10_000, model_class="ClockedSmallCNN")
        trained: dict[str, Trained] = {}
        for one in ENTRIES:
            if (name := one.contestant.name) in absent:
                continue
            try:
                trained[name] = Trained(one, work)
                started.callback(trained[name].end)
            except Failed as failure:
                absent[name] = f"failed: {failure}"
            say(f"{name}: {absent.get(name, 'is ready')}")
        return [_section(load, cores, _measured(trained, load * cores, rounds, say), absent) for load in LOADS]


def _measured(trained: Mapping[str, Trained], number: int, rounds: int, say: Callable[[str], None]) -> Values:
    values: dict[str, list[float]] = {name: [] for name in trained}
    with background(number):
        for turn in range(rounds):
            for name, one in trained.items():
                values[name].append(one.images_per_s())
                say(f"{number} others  round {turn + 1} of {rounds}  {name:<34}{values[name][-1]:9.1f} images/s")
    return values


def _section(load: int, cores: int, values: Values, absent: Mapping[str, str]) -> Section:
    others = f"{load * cores} processes that do nothing but compute" if load else "nobody else computes"
    title = f"With {load} other process{'es' if load > 1 else ''} for each core" if load else "On all cores, alone"
    about = ABOUT.format(load=others)
    return Section(title, about, "images/s", values, BARE, digits=1, goals=goals(load, values), missing=absent)


def goals(load: int, values: Values) -> list[Goal]:
    """What is to be reached beside so many processes for each core."""
    if OURS not in values:
        return []
    found, peers = [], {name: statistics.median(each) for name, each in values.items() if name not in (OURS, SPINNING)}
    if peers:
        best = max(peers, key=lambda name: peers[name])
        ratio = statistics.median(values[OURS]) / peers[best]
        found.append(Goal(f"`{OURS}` never behind the best of the others ({best})", ratio, ratio >= 1))
    if load in (0, max(LOADS)) and (ratio_to := median_compared(values, OURS, SPINNING)) is not None:
        least = SPINNING_GOAL if load else QUIET_GOAL
        found.append(Goal(f"`{OURS}` at least {least:g} times `{SPINNING}`", ratio_to, ratio_to >= least))
    return found
