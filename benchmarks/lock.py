"""For how long loading holds the interpreter's lock: `python benchmarks/lock.py`.

While a thread holds the lock, no other thread of the process runs any Python: neither those of the loader, nor the one
that trains. So the time for which it is held for a row bounds how many rows a process can load, whatever the cores.

The CPU clock of each thread interrupts it about 250 times a second of its own time (at the system's ticks), and a
handler in C asks whether it holds the lock just then (PyGILState_Check). The share of these looks is the share of the
CPU time in which the lock is held; times the CPU time of the pass, by its rows, it is the time held for a row. Nothing
is wrapped or slowed down; functions of PyTorch and NumPy, which let go of the lock in their middle, count as far as
they hold it; and CPU time counts no waiting for the lock, nor for a core that others have.

Rows are those of a raw pack: crops of 224, as normalized floats.
"""

import argparse
import ctypes
import math
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from loading import BATCH, SIZE, prepared
from page import section_text
from results import Column, Goal, Section, Values, medians

from accel_trainer.config import Job
from accel_trainer.data.batch_plan import TrainBatchPlanner
from accel_trainer.data.dataset import ImageDataset
from accel_trainer.data.loader import ImageReader, Loader
from accel_trainer.data.occluders.synthetic import make_occluders
from accel_trainer.data.pipeline import training_views

SOURCE = Path(__file__).with_name("lock_held.c")
THREADS = (1, 2, 4, 8)
NUM_IMAGES = 256
SECONDS, INTERVAL_NS = 2.0, 1_000_000
# At most so many microseconds a row.
GOALS = {"raw pack": 20.0, "with occluders": 40.0, "with RandAugment": 100.0}
# More threads that load no less than this share of what fewer did are level: as much as rates differ between rounds.
LEVEL = 0.95
ABOUT = f"""\
Microseconds of CPU time for which the lock is held, for a row (a crop of {SIZE} of a raw pack, as normalized floats, in
batches of {BATCH}): alone, with occluders in front of 8 of 10 (masks of 256 pixels, half of them with a texture), and
with RandAugment. Each thread's CPU clock interrupts it and looks whether it holds the lock; rows/s are those of the
same passes, which stop rising where there are no more cores."""


@dataclass(frozen=True)
class Looks:
    """How often threads were looked at, and how often they held the lock."""

    seen: int
    held: int

    def us_a_row(self, cpu_s: float, rows: int) -> float:
        """Microseconds in which the lock was held, of so much CPU time for so many rows."""
        return 1e6 * cpu_s * self.held / self.seen / rows if self.seen else math.nan


class Watch:
    """Looks at threads. Raises OSError where there is no C compiler, or the system has no such clocks."""

    def __init__(self, folder: Path) -> None:
        compiler = shutil.which("cc")
        if compiler is None or sys.platform != "linux":
            raise OSError("it takes Linux and a C compiler")
        library = folder / "lock_held.so"
        flags = ["-O2", "-shared", "-fPIC", "-o", str(library), str(SOURCE), "-lrt"]
        subprocess.run([compiler, *flags], check=True)
        self._library = ctypes.CDLL(str(library))

    def __call__(self, act: Callable[[], None]) -> Looks:
        """What was seen of all threads that there are while this is done."""
        threads = [thread.native_id for thread in threading.enumerate() if thread.native_id is not None]
        ids, found = (ctypes.c_int * len(threads))(*threads), (ctypes.c_long * 2)()
        check = ctypes.cast(ctypes.pythonapi.PyGILState_Check, ctypes.c_void_p)
        try:
            if self._library.watch(check, ids, len(threads), ctypes.c_long(INTERVAL_NS)) != 0:
                raise OSError("there are no clocks of threads' CPU time")
            act()
        finally:
            self._library.unwatch(found)
        return Looks(*found)


@dataclass(frozen=True)
class Measured:
    """Of a pass: microseconds with the lock held for a row, and rows a second."""

    us_a_row: float
    rows_per_s: float


def measure(read: ImageReader, threads: int, watch: Watch, seconds: float) -> Measured:
    """Over as many epochs as take that long, after one that does not count, in which all threads start."""
    planner = TrainBatchPlanner(len(read.source.labels), BATCH, accumulation=1, world_size=1, seed=0)
    epochs, rows = count(), 0
    with Loader(threads) as loader:

        def epoch() -> Iterator[int]:
            for batch in loader.batches(read, planner.micro_batches(next(epochs), rank=0)):
                yield len(batch.inputs.images)

        def load() -> None:
            nonlocal rows
            until = time.perf_counter() + seconds
            while time.perf_counter() < until:
                rows += sum(epoch())

        sum(epoch())
        cpu_s, wall_s = time.process_time(), time.perf_counter()
        looks = watch(load)
        cpu_s, wall_s = time.process_time() - cpu_s, time.perf_counter() - wall_s
    return Measured(looks.us_a_row(cpu_s, rows), rows / wall_s)


def readers(images: ImageDataset, occluders: Path) -> dict[str, ImageReader]:
    """One for each of GOALS."""
    forms = ["barVert04", "natural"]
    given = {
        "raw pack": {},
        "with occluders": {"Occlusion": {"occluder_dir": str(occluders), "form": forms, "probability": 0.8}},
        "with RandAugment": {"transform_type": "default-randaugment"},
    }
    jobs = {
        name: Job.model_validate({"architecture": "resnet18", "image_size": SIZE, **own}) for name, own in given.items()
    }
    return {name: ImageReader(images, training_views(job, None), replace_corrupt=True) for name, job in jobs.items()}


@contextmanager
def prepared_readers(num_images: int) -> Iterator[dict[str, ImageReader]]:
    """Of a raw pack of so many photographs."""
    with tempfile.TemporaryDirectory() as folder:
        make_occluders(Path(folder), ["barVert04", "natural"], [40, 60, 80], number=20, size=256, report=lambda _: None)
        yield readers(prepared(num_images)[2].train, Path(folder))


def label(kind: str, threads: int) -> str:
    return f"{kind}, {threads} thread{'s' if threads > 1 else ''}"


def goals(held: Values, rates: Values, threads: Sequence[int] = THREADS) -> list[Goal]:
    """The longest time for each kind, whatever the number of threads; and that no more threads load less than fewer."""
    us, rows = medians(held), medians(rates)
    found = []
    for kind, at_most in GOALS.items():
        longest = max(us[label(kind, number)] for number in threads)
        found.append(Goal(f"{kind}: at most {at_most:g} µs a row", longest, longest <= at_most))
    for kind in GOALS:
        each = [rows[label(kind, number)] for number in threads]
        worst = min(rate / max(each[: place + 1]) for place, rate in enumerate(each))
        text = f"{kind}: more threads load at least {LEVEL:g} of what fewer do"
        found.append(Goal(text, worst, worst >= LEVEL))
    return found


def section(rounds: int, say: Callable[[str], None], threads: Sequence[int] = THREADS) -> Section:
    """All in turn."""
    held: dict[str, list[float]] = {label(kind, number): [] for kind in GOALS for number in threads}
    rates: dict[str, list[float]] = {name: [] for name in held}
    first = label(next(iter(GOALS)), threads[0])
    with tempfile.TemporaryDirectory() as folder:
        try:
            watch = Watch(Path(folder))
        except OSError as error:
            return Section("The interpreter's lock", ABOUT, "µs a row", {}, first, missing={"accel-train": str(error)})
        with prepared_readers(NUM_IMAGES) as made:
            for round_ in range(rounds):
                for kind, read in made.items():
                    for number in threads:
                        found = measure(read, number, watch, SECONDS)
                        say(f"round {round_ + 1} of {rounds}  {label(kind, number):<32}{found.us_a_row:7.1f} µs a row")
                        held[label(kind, number)].append(found.us_a_row)
                        rates[label(kind, number)].append(found.rows_per_s)
    columns = [Column("rows/s", rates)]
    found_goals = goals(held, rates, threads)
    return Section(
        "The interpreter's lock", ABOUT, "µs a row", held, first, digits=1, goals=found_goals, columns=columns
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="how often each is measured (%(default)s)")
    options = parser.parse_args()
    print(section_text(section(options.rounds, lambda line: print(line, file=sys.stderr, flush=True))))


if __name__ == "__main__":
    main()
