"""Heartbeats: each runner writes every now and then that it is alive, and what it does; others watch whether it does.

    training_queue/runners/<host>.<boot>-<pid>-<start>.json    written by the runner, with a number that goes up
    training_queue/observed/<host>.<machine>.<user>.json       when that number was last seen to change, by this host

Clocks of machines differ, and may be set: an observer goes by its own, the one that counts from the start of the
machine. Who could write to what was observed could have a living runner taken for a dead one, so each user has a file
that nobody else can write. Of a runner whose process can be seen here nothing needs to be observed.
"""

import math
import os
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from accel_trainer.config.glance import glance
from accel_trainer.core.files import is_private_to_us
from accel_trainer.core.lease import BEAT_S, Owner, is_stale, this_host
from accel_trainer.core.process_space import Life, boot_id, machine_id
from accel_trainer.core.record_store import Count, Line, RecordStore, Seconds, Time, Within
from accel_trainer.core.rename import make_folder
from accel_trainer.queue.layout import ClaimedJob
from accel_trainer.queue.store import QueueStore
from accel_trainer.run.folder import RunFolder
from accel_trainer.run.lock import lock_silence_s


@dataclass(frozen=True)
class RunningClaim:
    """A job that a runner trains: on which GPUs, and since when (in seconds since 1970, by the runner's clock)."""

    devices: tuple[Line, ...]
    started: Time


@dataclass(frozen=True)
class Heartbeat:
    """What a runner reports: a number that goes up, for how many jobs it has places, and in `work` what it
    trains, by the tokens of its claims."""

    host: Line
    sequence: Count
    places: Count = 1
    work: Mapping[str, RunningClaim] = field(default_factory=dict)


@dataclass(frozen=True)
class Observations:
    """By the names of the files of claims: the number last seen of their runner, and since when, by this machine's
    clock, which starts again with each `boot`."""

    boot: str
    seen: Mapping[str, tuple[Annotated[int, Within(-1, 2**53)], Seconds]]


HEARTBEATS, OBSERVATIONS = RecordStore(Heartbeat), RecordStore(Observations)


def runner_of(owner: Owner) -> str:
    """'<host>.<process>' of the runner whose claim this is."""
    return f"{owner.host}.{owner.token.rpartition('-')[0]}"


class HeartbeatWriter:
    """Writes the heartbeat of this process; `beat` is to be called again and again."""

    def __init__(self, queue: QueueStore, places: int, report: Callable[[str | None], None]) -> None:
        """report: is called once with why heartbeats cannot be written, and with None when they can again."""
        owner = Owner.new()
        self._report, self._is_lost = report, False
        self._path = queue.paths.runners / f"{runner_of(owner)}.json"
        self._host, self._places = owner.host, places
        self._sequence, self._beaten = 0, 0.0
        self._work: dict[str, RunningClaim] = {}

    def begin(self, token: str, devices: tuple[str, ...]) -> None:
        """Note a claim whose job is trained from now on."""
        self._work[token] = RunningClaim(devices, time.time())
        self.beat(at_once=True)

    def end(self, token: str) -> None:
        """Note that a claim is over."""
        self._work.pop(token, None)
        self.beat(at_once=True)

    def beat(self, *, at_once: bool = False) -> None:
        """Write the heartbeat if it is time. One that is missed, on a full disk, does not matter for long: others look
        at the locks of run folders, too."""
        if not at_once and time.monotonic() - self._beaten < BEAT_S:
            return
        self._beaten = time.monotonic()
        self._sequence += 1
        heartbeat = Heartbeat(self._host, self._sequence, self._places, self._work)
        try:
            make_folder(self._path.parent)
            HEARTBEATS.write(self._path, heartbeat, durable=False)
        except OSError as error:
            if not self._is_lost:
                self._report(f"{self._path.parent}: {error.strerror}")
            self._is_lost = True
        else:
            if self._is_lost:
                self._report(None)
            self._is_lost = False

    def stop(self) -> None:
        """Remove the heartbeat: the runner ends."""
        with suppress(OSError):
            self._path.unlink()


class LockObserver:
    """When the owners of claims have last touched the locks of their run folders. A runner that cannot write its
    heartbeats, as on a disk that is full for them alone, is alive all the same, and nobody could train there."""

    def __init__(self) -> None:
        self._seen: dict[Path, tuple[float, float | None]] = {}

    def silence_s(self, job: ClaimedJob, without_heartbeat_s: float) -> float:
        """How long neither a heartbeat came from the owner nor its lock was touched. The lock is looked at as often as
        it would be touched. Where the time there cannot be measured, the owner may have touched it just now."""
        now = time.monotonic()
        looked, age_s = self._seen.get(job.path, (-math.inf, None))
        if now - looked > BEAT_S:
            looked, age_s = self._seen[job.path] = now, _lock_age_s(job)
        return without_heartbeat_s if age_s is None else min(without_heartbeat_s, age_s + now - looked)


def _lock_age_s(job: ClaimedJob) -> float | None:
    if (glimpse := glance(job.path, job.name)) is None:
        return None
    try:
        return lock_silence_s(RunFolder(glimpse.run_path), job.owner.has_started)
    except OSError:
        return 0.0


class HeartbeatObserver:
    """What is known on this host of the queue's runners."""

    def __init__(self, queue: QueueStore) -> None:
        name = f"{this_host()}.{machine_id()}.{os.geteuid()}.json"
        self._runners, self._notes = queue.paths.runners, queue.paths.observed / name
        self._known: dict[str, tuple[int, float]] | None = None
        self._locks = LockObserver()

    def heartbeats(self) -> dict[str, Heartbeat]:
        """The heartbeats of runners, by `runner_of` their claims. One that is damaged counts as none."""
        found = ((path.stem, HEARTBEATS.read(path)) for path in self._runners.glob("[!.]*.json"))
        return {name: heartbeat for name, heartbeat in found if heartbeat is not None}

    def silence_s(self, running: Iterable[ClaimedJob]) -> dict[str, float]:
        """How long nothing was heard of each claim whose process cannot be seen here, by its file's name.

        Takes note for the next time.
        """
        others = {job.path.name: job for job in running if _is_observed(job.owner)}
        if not others:
            return {}
        before = self._read_notes() if self._known is None else self._known
        now, heartbeats = time.monotonic(), self.heartbeats()
        notes: dict[str, tuple[int, float]] = {}
        for name, job in others.items():
            heartbeat = heartbeats.get(runner_of(job.owner))
            sequence = -1 if heartbeat is None else heartbeat.sequence
            known = before.get(name)
            notes[name] = known if known is not None and known[0] == sequence else (sequence, now)
        self._known = notes
        if notes != before:
            with suppress(OSError):
                make_folder(self._notes.parent)
                OBSERVATIONS.write(self._notes, Observations(boot_id(), notes), durable=False, is_private=True)
        silences = {name: now - since for name, (_, since) in notes.items()}
        # The rest of the truth costs more, and matters only then.
        return {name: self._locks.silence_s(others[name], s) if is_stale(s) else s for name, s in silences.items()}

    def has_living_runner(self) -> bool:
        """Whether any runner of the queue seems to be at work: its process is here and lives, or, where that cannot be
        seen, its heartbeat is from the last minutes by the clock of the files."""
        for path in self._runners.glob("[!.]*.json"):
            host, _, process = path.stem.rpartition(".")
            with suppress(OSError):
                match Owner(host, process).life():
                    case Life.ALIVE:
                        return True
                    case Life.UNKNOWN if not is_stale(time.time() - path.stat().st_mtime):
                        return True
        return False

    def remove_dead(self) -> None:
        """Remove what runners of this machine have left that were killed."""
        for path in self._runners.glob("[!.]*.json"):
            host, _, process = path.stem.rpartition(".")
            if Owner(host, process).is_dead():
                path.unlink(missing_ok=True)

    def _read_notes(self) -> dict[str, tuple[int, float]]:
        """Those of this user since this machine was started: its clock begins again then."""
        content, now = OBSERVATIONS.read(self._notes), time.monotonic()
        if content is None or not boot_id() or content.boot != boot_id() or not is_private_to_us(self._notes):
            return {}
        return {name: (number, since) for name, (number, since) in content.seen.items() if 0 <= since <= now}


def _is_observed(owner: Owner) -> bool:
    """Whether only heartbeats show that it is alive."""
    return owner.cluster is None and owner.life() is Life.UNKNOWN
