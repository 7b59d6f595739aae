"""Signs of life: each runner says every now and then that it lives, and what it does; others watch whether it does.

    training_queue/runners/<host>.<boot>-<pid>-<start>.json    written by the runner, with a number that goes up
    training_queue/observed/<host>.<machine>.json              when that number was last seen to change, by this host

Clocks of machines differ, and may be set: an observer goes by its own, the one that counts from the start of the
machine. Of a runner on this machine nothing needs to be observed, since it is known whether its process lives.
"""

import json
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from accel_trainer.core.files import read_json, write_atomic
from accel_trainer.core.lease import BEAT_S, Owner, boot_id, machine_id, this_host
from accel_trainer.queue.layout import ClaimedJob
from accel_trainer.queue.store import QueueStore


@dataclass(frozen=True)
class RunningClaim:
    """A job that a runner is at: on which GPUs, and since when (in seconds since 1970, by the runner's clock)."""

    devices: tuple[str, ...]
    started: float


@dataclass(frozen=True)
class Heartbeat:
    """What a runner says of itself. `work` has the tokens of its claims."""

    host: str
    sequence: int
    places: int = 1
    work: Mapping[str, RunningClaim] = field(default_factory=dict)


def runner_of(owner: Owner) -> str:
    """'<host>.<process>' of the runner whose claim this is."""
    return f"{owner.host}.{owner.token.rpartition('-')[0]}"


class HeartbeatWriter:
    """That of this process; to be called again and again."""

    def __init__(self, queue: QueueStore, places: int) -> None:
        owner = Owner.new()
        self._path = queue.runners / f"{runner_of(owner)}.json"
        self._host, self._places = owner.host, places
        self._sequence, self._beaten = 0, 0.0
        self._work: dict[str, RunningClaim] = {}

    def begin(self, token: str, devices: tuple[str, ...]) -> None:
        self._work[token] = RunningClaim(devices, time.time())
        self.beat(at_once=True)

    def end(self, token: str) -> None:
        self._work.pop(token, None)
        self.beat(at_once=True)

    def beat(self, *, at_once: bool = False) -> None:
        """A beat that is missed, on a full disk, does not matter."""
        if not at_once and time.monotonic() - self._beaten < BEAT_S:
            return
        self._beaten = time.monotonic()
        self._sequence += 1
        pulse = Heartbeat(self._host, self._sequence, self._places, self._work)
        with suppress(OSError):
            self._path.parent.mkdir(exist_ok=True)
            write_atomic(self._path, json.dumps(asdict(pulse)) + "\n", durable=False)

    def stop(self) -> None:
        with suppress(OSError):
            self._path.unlink()


class HeartbeatObserver:
    """What is known on this host of the queue's runners."""

    def __init__(self, queue: QueueStore) -> None:
        self._runners, self._notes = queue.runners, queue.observed / f"{this_host()}.{machine_id()}.json"

    def pulses(self) -> dict[str, Heartbeat]:
        """What runners have said of themselves, by `runner_of` their claims."""
        found = ((path.stem, _read_pulse(path)) for path in self._runners.glob("[!.]*.json"))
        return {name: pulse for name, pulse in found if pulse is not None}

    def silence_s(self, running: Iterable[ClaimedJob]) -> dict[str, float]:
        """How long nothing was heard of each other host's claim, by its file's name. Takes note for the next time."""
        others = {job.path.name: job for job in running if _is_observed(job.owner)}
        if not others:
            return {}
        now, pulses, before = time.monotonic(), self.pulses(), self._read_notes()
        notes: dict[str, tuple[int, float]] = {}
        for name, job in others.items():
            pulse = pulses.get(runner_of(job.owner))
            sequence = -1 if pulse is None else pulse.sequence
            known = before.get(name)
            notes[name] = known if known is not None and known[0] == sequence else (sequence, now)
        if notes != before:
            with suppress(OSError):
                self._notes.parent.mkdir(exist_ok=True)
                write_atomic(self._notes, json.dumps({"boot": boot_id(), "seen": notes}) + "\n", durable=False)
        return {name: now - since for name, (_, since) in notes.items()}

    def remove_dead(self) -> None:
        """Remove what runners of this machine have left that were killed."""
        for path in self._runners.glob(f"{this_host()}.*.json"):
            if Owner(this_host(), path.stem.removeprefix(f"{this_host()}.")).is_dead():
                path.unlink(missing_ok=True)

    def _read_notes(self) -> dict[str, tuple[int, float]]:
        """Those since this machine was started: its clock begins anew then."""
        with suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
            content = read_json(self._notes)
            if content["boot"] == boot_id():
                now = time.monotonic()
                return {name: (int(n), min(float(since), now)) for name, (n, since) in content["seen"].items()}
        return {}


def _is_observed(owner: Owner) -> bool:
    """Whether only signs of life can tell of it: a process of this machine can be seen, of a cluster Slurm be asked."""
    return owner.cluster is None and not owner.is_here


def _read_pulse(path: Path) -> Heartbeat | None:
    with suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
        content: dict[str, Any] = read_json(path)
        work = {
            str(token): RunningClaim(tuple(map(str, said["devices"])), float(said["started"]))
            for token, said in content["work"].items()
        }
        return Heartbeat(str(content["host"]), int(content["sequence"]), int(content["places"]), work)
    return None
