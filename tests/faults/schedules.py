"""Random faults over random jobs, all of it drawn from a seed."""

import random
import signal
from dataclasses import dataclass
from typing import Any, assert_never

KILL = "kill -9"
# What the jobs of a schedule are; all take three epochs of eight steps.
KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "averaged": {"ema": 0.9, "swa": {"start": 2, "swa_lr": 0.02}},
    "mixed": {"cutmix": True, "gradient_accumulation": 2, "num_workers": 0, "retries": 9},
    "contrastive": {"criterion": "SimCLRLoss", "num_views": 2, "batch_size": 64, "primary_metric": "contrastive_acc"},
    "seldom saved": {"save_every_minutes": 10, "scheduler": "ExponentialLR", "scheduler_args": {"gamma": 0.7}},
    "tracked": {"trackers": ["wandb"]},
}
NUM_STEPS = 24
LONGEST_WAIT_S = 8.0
# Things that the worker of even the job which is saved least does to files, and the runner.
LAST_EVENT = {"worker": 110, "runner": 12}

DAMAGED_FILES = ("model.safetensors", "trainer.pt", "manifest.json")


@dataclass(frozen=True)
class AtStep:
    """When some job has saved this step."""

    step: int

    def __str__(self) -> str:
        return f"at step {self.step}"


@dataclass(frozen=True)
class AfterSeconds:
    seconds: float

    def __str__(self) -> str:
        return f"after {self.seconds:.1f} s"


Moment = AtStep | AfterSeconds


@dataclass(frozen=True)
class Signal:
    """To the process in a role, or all of them: the tree."""

    role: str
    rank: int | None
    number: int

    def __str__(self) -> str:
        rank = "" if self.rank is None else f" {self.rank}"
        return f"{KILL if self.number == signal.SIGKILL else signal.Signals(self.number).name} {self.role}{rank}"


@dataclass(frozen=True)
class Pause:
    """SIGSTOP of the runner, and SIGCONT after a while."""

    seconds: float

    def __str__(self) -> str:
        return f"SIGSTOP runner for {self.seconds:.1f} s"


@dataclass(frozen=True)
class KillAtEvent:
    """kill -9 of a process by itself, at the n-th thing that it does to files."""

    role: str
    nth: int

    def __str__(self) -> str:
        return f"{KILL} {self.role} at file event {self.nth}"


@dataclass(frozen=True)
class Damage:
    """kill -9 of everything; then a file of the newest state is cut short, or one of its bytes altered."""

    is_cut: bool
    file: str

    def __str__(self) -> str:
        return f"{'truncated' if self.is_cut else 'altered'} {self.file}"


@dataclass(frozen=True)
class Fault:
    what: Signal | Pause | KillAtEvent | Damage
    when: Moment

    def __str__(self) -> str:
        match self.what:
            case KillAtEvent():
                return str(self.what)
            case Signal() | Pause() | Damage():
                return f"{self.what} {self.when}"
            case _:
                assert_never(self.what)


@dataclass(frozen=True)
class Schedule:
    seed: int
    num_processes: int
    jobs: tuple[str, ...]
    faults: tuple[Fault, ...]


def draw(seed: int, *, is_small: bool = False) -> Schedule:
    """The schedule of a seed; a small one has one job and one or two faults."""
    rng = random.Random(f"schedule {seed}")
    num_processes = 2 if seed % (5 if is_small else 2) == 1 else 1
    jobs = tuple(rng.sample(list(KINDS), 1 if is_small else rng.randint(1, 3)))
    num_faults = rng.randint(1, 2) if is_small else rng.randint(1, 4)
    faults = (Fault(_draw_what(rng, num_processes, "tracked" in jobs), _draw_when(rng)) for _ in range(num_faults))
    return Schedule(seed, num_processes, jobs, tuple(faults))


def _draw_what(rng: random.Random, num_processes: int, is_tracked: bool) -> Signal | Pause | KillAtEvent | Damage:
    worker = ("worker", rng.randrange(num_processes))
    match rng.choices(["kill", "signal", "pause", "event", "damage"], weights=[5, 3, 1, 3, 2])[0]:
        case "kill":
            others = [("runner", None), *_launcher(num_processes), ("tree", None), ("plotter", None)]
            role, rank = rng.choice([*others, worker, *([("wandb", None)] if is_tracked else [])])
            return Signal(role, rank, signal.SIGKILL)
        case "signal":
            role, rank = rng.choice([("runner", None), *_launcher(num_processes), worker])
            return Signal(role, rank, rng.choice([signal.SIGTERM, signal.SIGINT]))
        case "pause":
            return Pause(rng.uniform(0.2, 3))
        case "event":
            role = rng.choice(["worker", "worker", "runner"])
            return KillAtEvent(role, rng.randint(1, LAST_EVENT[role]))
        case "damage":
            return Damage(rng.random() < 0.5, rng.choice(DAMAGED_FILES))
        case kind:
            raise AssertionError(kind)


def _launcher(num_processes: int) -> list[tuple[str, None]]:
    """The process that has launched several; a single one has none."""
    return [("launcher", None)] if num_processes > 1 else []


def _draw_when(rng: random.Random) -> Moment:
    if rng.random() < 0.7:
        return AtStep(rng.randint(1, NUM_STEPS))
    return AfterSeconds(rng.uniform(0, LONGEST_WAIT_S))
