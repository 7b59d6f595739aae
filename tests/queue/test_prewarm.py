"""A trainer that is started before its job's turn comes."""

import asyncio
import os
import signal
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from helpers import trainers_in, wait_until, write_job
from safetensors.torch import load_file

from accel_trainer.config import Job
from accel_trainer.core import processes
from accel_trainer.core.giving_way import GIVE_WAY
from accel_trainer.core.lease import Owner
from accel_trainer.launch.attempt_files import scratch_folder
from accel_trainer.launch.command import Launch, LaunchOptions, plan_launch
from accel_trainer.launch.machine import Machine, this_machine
from accel_trainer.launch.nvidia import Gpu
from accel_trainer.launch.process_group import ProcessGroup
from accel_trainer.launch.protocol import PREWARM, WITH_WANDB
from accel_trainer.queue import prewarm as standby_module
from accel_trainer.queue.control import Pause
from accel_trainer.queue.dependencies import Requirements
from accel_trainer.queue.layout import JobState
from accel_trainer.queue.prewarm import PrewarmedWorker, Prewarmer, RunningAttempt
from accel_trainer.queue.slots import Allocation, Slots
from accel_trainer.queue.store import QueueStore
from accel_trainer.run.folder import RunFolder
from accel_trainer.run.status import RunState, Status, read_status, write_status

CODE = """
import pathlib, sys, time
print("began", flush=True)
if sys.argv[1] == "{STAND_BY}":
    file = pathlib.Path(sys.argv[2])
    while not file.exists():
        time.sleep(0.02)
    print("told", file.read_text())
else:
    print("anew", *sys.argv[1:])
""".replace("{STAND_BY}", PREWARM)


class Stub(Launch):
    """A launcher that only says which words it was given, now or when it has waited for them."""

    @property
    def argv(self) -> list[str]:
        return [sys.executable, "-c", CODE, *self.worker_args]


def begin(standby: PrewarmedWorker, launch: Launch, log: Path, token: str | None = None) -> ProcessGroup:
    async def until_its_end() -> ProcessGroup:
        trainer = await standby.start(launch, token or standby.owner.token, log)
        while trainer.exit_code is None:
            await asyncio.sleep(0.02)
        await trainer.stop()
        await standby.end()
        return trainer

    return asyncio.run(until_its_end())


def test_a_prewarmed_worker_gets_its_job_and_writes_into_its_log(queue: QueueStore) -> None:
    launch = Stub((), {}, 1, ("a.json", "--name=a"))
    standby = PrewarmedWorker(queue, replace(launch, worker_args=("another job",)))
    (before,) = queue.paths.logs.iterdir()
    wait_until(before.read_text)
    log = queue.next_log("a")
    log.write_text("taken over\n")
    assert begin(standby, launch, log).exit_code == 0
    assert log.read_text() == 'began\ntaken over\ntold ["a.json", "--name=a"]\n'
    assert list(queue.paths.logs.iterdir()) == [log]
    assert not scratch_folder(standby.owner.token).exists()


@pytest.mark.parametrize("how", ["of another kind", "died", "stood down", "of another claim"])
def test_an_unexpected_job_or_dead_prewarmed_worker_gets_a_new_trainer(queue: QueueStore, how: str) -> None:
    standby = PrewarmedWorker(queue, Stub((), {"ONE": "1"}, 1))
    launch = Stub((), {"ONE": "2" if how == "of another kind" else "1"}, 1, ("a.json",))
    log = queue.next_log("a")
    if how == "died":
        wait_until(lambda: left(standby))
        processes.send_signal(left(standby), signal.SIGKILL)
        wait_until(lambda: standby.has_died)
    if how == "stood down":  # one of its processes; the others and the launcher are still there
        (scratch_folder(standby.owner.token) / "words.stood-down").touch()
    token = Owner.new().token if how == "of another claim" else None
    assert begin(standby, launch, log, token).exit_code == 0
    assert log.read_text().endswith("began\nanew a.json\n")
    assert list(queue.paths.logs.iterdir()) == [log]


def left(standby: PrewarmedWorker) -> list[int]:
    return processes.pids_with_env("ACCEL_TRAIN_TOKEN", standby.owner.token)


def test_of_who_stood_by_for_nothing_nothing_stays(queue: QueueStore) -> None:
    standby = PrewarmedWorker(queue, Stub((), {}, 1))
    wait_until(lambda: left(standby))
    asyncio.run(standby.end())
    assert not left(standby)
    assert not list(queue.paths.logs.iterdir())
    assert not scratch_folder(standby.owner.token).exists()


# -- when -------------------------------------------------------------------------------------------------------


class Noted:
    """In place of a trainer."""

    began: list[Launch]
    ended: list[Launch]
    has_died = False

    def __init__(self, queue: QueueStore, launch: Launch) -> None:
        self._launch = launch
        self.began.append(launch)

    async def end(self) -> None:
        self.ended.append(self._launch)


@pytest.fixture
def noted(monkeypatch: pytest.MonkeyPatch) -> type[Noted]:
    monkeypatch.setattr(Noted, "began", [], raising=False)
    monkeypatch.setattr(Noted, "ended", [], raising=False)
    monkeypatch.setattr(standby_module, "PrewarmedWorker", Noted)
    monkeypatch.setattr(standby_module, "LOOK_EVERY_S", -1.0)
    return Noted


GPU = Machine((Gpu("1", "GPU", "24 GB"),), False, 2)
TWO = Machine((*GPU.gpus, Gpu("2", "GPU", "24 GB")), False, 2)


def outlook(queue: QueueStore, *names: str, **changes: object) -> SimpleNamespace:
    """What was seen of a queue in which these jobs may be run."""
    for name in names:
        write_job(queue.folder / f"{name}.json")
    return outlook_of(queue, **changes)


def outlook_of(queue: QueueStore, **changes: object) -> SimpleNamespace:
    """The same, of a queue as it is."""
    pending = queue.jobs(JobState.PENDING)
    seen = {
        "pending": pending,
        "valid": {job: Requirements() for job in pending},
        "waiting": set(),
        "pause": None,
        "is_checked": True,
        "may_begin": True,
    }
    return SimpleNamespace(**{**seen, **changes})


def running(place: Allocation, eta_s: float | None, said_by: str = "token") -> RunningAttempt:
    run = RunFolder(Path("run"))
    run.create()
    write_status(run, Status(state=RunState.TRAINING, token=said_by, eta_s=eta_s))
    return RunningAttempt(run, "token", place)


def look(
    queue: QueueStore, seen: SimpleNamespace, *attempts: RunningAttempt, is_wanted: bool = True, machine: Machine = GPU
) -> Prewarmer:
    slots = Slots(machine, LaunchOptions(), gpus_per_job=1)
    for attempt in attempts:
        slots.take(attempt.place)
    ahead = Prewarmer(queue, LaunchOptions(), machine, is_wanted=is_wanted)
    asyncio.run(ahead.refresh(seen, slots, attempts))
    return ahead


@pytest.mark.parametrize(
    ("eta_s", "said_by", "expected"), [(5.0, "token", 1), (60.0, "token", 0), (None, "token", 0), (5.0, "old", 0)]
)
def test_it_is_started_when_a_job_is_about_to_end(queue, noted, eta_s, said_by, expected) -> None:
    look(queue, outlook(queue, "b"), running(Allocation(("1",), 2), eta_s, said_by))
    assert [launch.environment["CUDA_VISIBLE_DEVICES"] for launch in noted.began] == ["1"] * expected


def test_it_is_started_while_the_first_jobs_are_checked(queue, noted) -> None:
    seen = outlook(queue, "b", valid={}, is_checked=False, may_begin=False)
    look(queue, seen, machine=TWO)
    write_job(queue.folder / "b.json", num_processes=2)
    look(queue, seen, machine=TWO)
    assert [launch.environment["CUDA_VISIBLE_DEVICES"] for launch in noted.began] == ["1", "1,2"], "as it will be"


def test_it_is_told_to_give_way_where_a_job_runs_and_whether_wandb_is_wanted(queue, noted) -> None:
    ending = running(Allocation(("1",), 2), 5.0)
    checking = {"valid": {}, "is_checked": False, "may_begin": False}
    look(queue, outlook(queue, "b"), ending)
    look(queue, outlook(queue, "b", **checking), machine=TWO)
    write_job(queue.folder / "b.json", trackers=["wandb"])
    look(queue, outlook_of(queue), ending)
    look(queue, outlook_of(queue, **checking), machine=TWO)
    assert [launch.worker_args for launch in noted.began] == [
        (GIVE_WAY,), (), (GIVE_WAY, WITH_WANDB), (WITH_WANDB,),
    ]  # fmt: skip


def test_no_worker_is_prewarmed_without_jobs_in_a_pause_or_unwanted(queue, noted) -> None:
    ending = running(Allocation(("1",), 2), 5.0)
    look(queue, outlook(queue, "b", pause=Pause(None, "me", 0.0, None)), ending)
    look(queue, outlook(queue, "b"), ending, is_wanted=False)
    look(queue, outlook(queue, "b", waiting={"b"}), ending)
    assert not noted.began


def test_it_is_ended_when_another_runner_has_taken_the_last_job(queue, noted) -> None:
    ahead = look(queue, outlook(queue, "b"), running(Allocation(("1",), 2), 5.0))
    asyncio.run(ahead.refresh(outlook(queue, valid={}), Slots(GPU, LaunchOptions()), ()))
    assert noted.ended == noted.began
    assert ahead.owner is None


def test_another_takes_the_place_of_one_that_has_died(queue, noted, monkeypatch) -> None:
    ending = running(Allocation(("1",), 2), 5.0)
    ahead, seen, slots = look(queue, outlook(queue, "b"), ending), outlook(queue, "b"), Slots(GPU, LaunchOptions())
    slots.take(ending.place)
    with monkeypatch.context() as patch:
        patch.setattr(noted, "has_died", True)
        asyncio.run(ahead.refresh(seen, slots, [ending]))
    assert noted.ended == noted.began
    asyncio.run(ahead.refresh(seen, slots, [ending]))
    assert len(noted.began) == 2


# -- for real -----------------------------------------------------------------------------------------------------

SLOW_STEPS = {
    "architecture": "tiny_models:Unhurried",
    "architecture_args": {"pause_s": 0.4},
    "batch_size": 256,
    "num_epochs": 3,
}


def standing_by() -> psutil.Process | None:
    """The training process that has no job yet."""
    at_work = {job.owner.token for job in QueueStore(Path("training_queue")).jobs(JobState.RUNNING)}
    for pid in trainers_in(Path.cwd()):
        with suppress(psutil.Error):
            process = psutil.Process(pid)
            words = process.cmdline()
            if "accelerate.commands.launch" in words or PREWARM not in words:
                continue
            if process.environ()["ACCEL_TRAIN_TOKEN"] not in at_work:
                return process
    return None


@pytest.fixture
def two_jobs(queue: QueueStore, monkeypatch: pytest.MonkeyPatch, unchecked: None, unplotted: None) -> QueueStore:
    monkeypatch.setenv("ACCEL_TRAIN_ALLOW_IMPORTS", "tiny_models")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parents[1]), os.environ["PYTHONPATH"]]))
    for name in ("a", "b"):
        write_job(queue.folder / f"{name}.json", model_dir=f"models/{name}", **SLOW_STEPS)
    return queue


def state_of(name: str) -> str | None:
    said = read_status(RunFolder(Path("models") / name))
    return None if said is None else said.state


@pytest.mark.slow
def test_the_second_job_is_trained_by_a_process_prewarmed_during_the_first(two_jobs: QueueStore, background) -> None:
    runner = background("run-queue")
    wait_until(lambda: state_of("a") == "training")
    process = wait_until(standing_by)
    assert state_of("a") == "training"
    token = process.environ()["ACCEL_TRAIN_TOKEN"]
    assert processes.pids_with_env("ACCEL_TRAIN_TOKEN", token) == [process.pid], "no launcher waits beside it"
    claim = wait_until(lambda: [job for job in two_jobs.jobs(JobState.RUNNING) if job.name == "b"])[0]
    assert claim.owner.token == token
    assert runner.wait(120) == 0
    assert [job.name for job in two_jobs.jobs(JobState.DONE)] == ["a", "b"]
    assert not process.is_running()
    weights = [load_file(f"models/{name}/params/best.safetensors") for name in ("a", "b")]
    assert all(bool((weights[0][name] == weights[1][name]).all()) for name in weights[0]), "whoever trained it"
    assert "finished 3 epochs" in (two_jobs.paths.logs / "b.1.log").read_text()


@pytest.mark.slow
def test_none_stands_by_without_the_others(queue: QueueStore) -> None:
    """One of several processes is told to stop, by whoever: the others could only wait for it."""
    standby = PrewarmedWorker(
        queue, plan_launch(Job(architecture="resnet18"), LaunchOptions(num_processes=2), this_machine())
    )

    def rank_0() -> int | None:
        """Once it has imported torch: it has listened to signals before."""
        for pid in left(standby):
            with suppress(psutil.Error, OSError):
                maps = Path(f"/proc/{pid}/maps").read_text()
                if psutil.Process(pid).environ().get("RANK") == "0" and "libtorch" in maps:
                    return pid
        return None

    processes.send_signal([wait_until(rank_0)], signal.SIGTERM)
    wait_until(lambda: standby.has_died, timeout_s=60)
    asyncio.run(standby.end())
    assert not left(standby)


@pytest.mark.slow
def test_who_stands_by_dies_with_its_runner(two_jobs: QueueStore, background, cli) -> None:
    runner = background("run-queue")
    wait_until(lambda: state_of("a") == "training")
    process = wait_until(standing_by)
    runner.kill()
    runner.wait()
    wait_until(lambda: not process.is_running() or process.status() == psutil.STATUS_ZOMBIE, timeout_s=60)
    assert cli("run-queue").returncode == 0
    assert [job.name for job in two_jobs.jobs(JobState.DONE)] == ["a", "b"]
    assert sorted(path.name.partition(".")[0] for path in two_jobs.paths.logs.iterdir()) == ["a", "a", "b"]
