"""Whole training loops beside each other: `python benchmarks/run.py --only loop` or `--only startup`.

All contestants train the same resnet18 in turn. Of the same runs come the speed of the steps, of whole epochs, the time
to the first step, and the memory.
"""

import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from contestants import BARE, CONTESTANTS, OURS, Work
from races import Failed, Race, make_data, race
from results import DIFFERENCE, Goal, Section, Values, median_compared, medians

EPOCHS = 5
SPEED_GOAL, EPOCHS_GOAL, START_GOAL_S = 0.98, 1.0, 1.0
# Of the largest process, and of all of them.
TRAINER_MEMORY_GOAL, MEMORY_GOAL = 1.1, 1.15
# A package's version, for the page.
PACKAGES = ("torch", "torchvision", "accelerate", "lightning", "pytorch-accelerated", "transformers")
SAME = f"""\
Everybody trains resnet18 (10 classes) on the bundled digits, 1,347 images of 32x32, for {EPOCHS} epochs in batches of
64, with SGD and momentum, on one CPU thread; validates on 450 images after every epoch; and then saves the weights and
the optimizer, each in its own way. The model notes its steps, and a run with more or fewer steps or images than the
others' does not count. The peers' images are tensors in memory, ready for the model; ours are stored as 8x8 and resized
by the one thread of our loader, beside the one of the training. Progress bars and logs are as each tool has them by
default, written to a file; Lightning's own logger too. Nobody else has a tracker, but for ours in the last line.
All compute with the same kernels of torch; what makes ours faster on a CPU is that the memory which a step has freed
stays for the next one, and SGD in one kernel a parameter."""


def compare(work: Callable[[str], Work], rounds: int, say: Callable[[str], None]) -> "Outcome":
    """All in turn, `rounds` times, and once before that does not count."""
    absent = {one.name: why for one in CONTESTANTS if (why := one.why_not) is not None}
    there = [one for one in CONTESTANTS if one.name not in absent]
    races: dict[str, list[Race]] = {one.name: [] for one in there}
    with tempfile.TemporaryDirectory() as folder:
        task = work(str(make_data(Path(folder))))
        for number in range(rounds + 1):
            for one in list(there):
                try:
                    ran = race(one, task)
                except Failed as failure:
                    say(f"{one.name}: {failure}")
                    absent[one.name] = f"failed: {failure}"
                    there.remove(one)
                    del races[one.name]
                    continue
                say(f"round {number} of {rounds}  {one.name:<44}{_told(ran)}")
                if number:
                    races[one.name].append(ran)
    return Outcome(races, absent)


def _told(ran: Race) -> str:
    speed = f"{ran.steady:7.1f} images/s" if ran.work.num_epochs > 1 else ""
    return f"{speed}  first step after {ran.first_step_s:5.2f} s  {ran.memory.largest_mb:6.0f} MB"


class Outcome:
    """Of every contestant one race for each round; who has none, and why."""

    def __init__(self, races: Mapping[str, Sequence[Race]], absent: Mapping[str, str]) -> None:
        self.races, self.absent = races, absent

    def values(self, of: Callable[[Race], float]) -> Values:
        return {name: [of(one) for one in each] for name, each in self.races.items()}

    def sections(self, *, loop: bool, startup: bool) -> list[Section]:
        found = [self.speed(), self.epochs()] if loop else []
        found += [self.start()] if startup else []
        return [*found, self.memory(), self.all_memory()] if loop else found

    def speed(self) -> Section:
        values = self.values(lambda ran: ran.steady)
        return Section(
            "The training loop",
            f"{SAME}\n\nImages per second from the first to the last step of every epoch after the first.",
            "images/s",
            values,
            BARE,
            digits=1,
            goals=speed_goals(values),
            missing=self.absent,
        )

    def epochs(self) -> Section:
        values = self.values(lambda ran: ran.whole)
        return Section(
            "Whole epochs",
            "Training images per second in the same runs, with the validation and saving between two epochs. What is "
            "saved differs: `accel-train` keeps checksums, the best weights, and waits until the disk has it all, on a "
            "thread while it trains the next epoch.",
            "images/s",
            values,
            BARE,
            digits=1,
            goals=epoch_goals(values),
            missing=self.absent,
        )

    def start(self) -> Section:
        values = self.values(lambda ran: ran.first_step_s)
        return Section(
            "To the first step",
            "Seconds from the command to the start of the first training step, everything imported and built. "
            "Lightning, pytorch-accelerated and the Trainer are started as plain Python scripts, their fastest way; "
            "`accelerate launch` is the command as one types it (`accel-train` starts its module, which takes less).",
            "s",
            values,
            BARE,
            comparison=DIFFERENCE,
            digits=2,
            goals=start_goals(values),
            missing=self.absent,
        )

    def memory(self) -> Section:
        values = self.values(lambda ran: ran.memory.largest_mb)
        return Section(
            "Memory of the trainer",
            "The most that the largest process had resident, by the kernel's own count.",
            "MB",
            values,
            BARE,
            goals=memory_goals(values, TRAINER_MEMORY_GOAL),
            missing=self.absent,
        )

    def all_memory(self) -> Section:
        values = self.values(lambda ran: ran.memory.all_mb)
        return Section(
            "Memory of all processes",
            "The launcher's and all helpers' too, what they share counted once; looked at twice a second.",
            "MB",
            values,
            BARE,
            goals=memory_goals(values, MEMORY_GOAL),
            missing=self.absent,
        )


def _peers(values: Values) -> dict[str, float]:
    """Their medians."""
    ours = {one.name for one in CONTESTANTS if one.is_ours}
    return {name: value for name, value in medians(values).items() if name not in ours}


def speed_goals(values: Values) -> list[Goal]:
    goals = []
    if (ratio := median_compared(values, OURS, BARE)) is not None:
        text = f"`accel-train` at least {SPEED_GOAL} of the bare loop"
        goals.append(Goal(text, ratio, ratio >= SPEED_GOAL))
    peers = {name: value for name, value in _peers(values).items() if name != BARE}
    if OURS in values and peers:
        best = max(peers, key=lambda name: peers[name])
        ratio = statistics.median(values[OURS]) / peers[best]
        goals.append(
            Goal(f"`accel-train` no slower than the fastest peer but the bare loop ({best})", ratio, ratio >= 1)
        )
    return goals


def epoch_goals(values: Values) -> list[Goal]:
    ours = [one.name for one in CONTESTANTS if one.is_ours]
    found = {name: median_compared(values, name, BARE) for name in ours}
    return [
        Goal(f"`{name}` at least {EPOCHS_GOAL} of the bare loop", ratio, ratio >= EPOCHS_GOAL)
        for name, ratio in found.items()
        if ratio is not None
    ]


def start_goals(values: Values) -> list[Goal]:
    more = median_compared(values, OURS, BARE, DIFFERENCE)
    if more is None:
        return []
    return [Goal(f"`accel-train` at most {START_GOAL_S} s after the {BARE}", more, more <= START_GOAL_S)]


def memory_goals(values: Values, most: float) -> list[Goal]:
    peers = _peers(values)
    if OURS not in values or not peers:
        return []
    leanest = min(peers, key=lambda name: peers[name])
    ratio = statistics.median(values[OURS]) / peers[leanest]
    return [Goal(f"`accel-train` at most {most} of the leanest peer ({leanest})", ratio, ratio <= most)]
