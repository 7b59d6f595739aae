"""A pipe in place of any file that a verb reads: nobody waits for its other end.

Which files those are is not listed here: the files that a verb opens are seen by a hook of the interpreter.
"""

import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from helpers import QUICK_JOB, wait_until

from accel_trainer import Job
from accel_trainer.cli import main
from accel_trainer.cli.verbs import MODULES
from accel_trainer.core.lease import Owner, this_host
from accel_trainer.core.process_space import machine_id
from accel_trainer.queue.control import ControlAction, Pauses, Requests
from accel_trainer.queue.heartbeat import HEARTBEATS, OBSERVATIONS, Heartbeat, Observations, runner_of
from accel_trainer.queue.layout import JobState
from accel_trainer.queue.retries import Retries
from accel_trainer.queue.slurm.reconcile import Record, Records
from accel_trainer.queue.store import QueueStore
from accel_trainer.run.folder import RunFolder
from accel_trainer.run.status import RankError, RunState, Status, write_rank_error, write_status

LIMIT_S = 20.0
VERBS = (
    "status", "logs done", "compare runs/done", "reclaim", "wait done", "hold pending", "hold running --no-wait",
    "release held", "cancel held", "cancel running --no-wait", "retry failed", "rm failed", "move pending --to other",
    "pause", "resume", "show training_queue/pending.json", "add other.json --force",
    "sweep other.json --set seed=1,2 --add", "run-queue --dry-run",
)  # fmt: skip


@pytest.fixture
def folder(own_environment: Path) -> Path:
    """A queue with a job in every state and a record of every kind, and the run of the one that is done."""
    queue = QueueStore(Path("training_queue"))
    queue.create()
    QueueStore(Path("other")).create()
    for name in ("pending", "held", "running", "slurm", "done", "failed"):
        content = json.dumps({**QUICK_JOB, "model_dir": str(own_environment / "runs" / name)}).encode()
        queue.add(name, content)
    Path("other.json").write_bytes(content)
    Retries(queue).add(queue.find("pending"), 1, "why")
    queue.hold(queue.find("held"))
    queue.finish(queue.find("failed"), JobState.FAILED, "why")
    elsewhere = Owner("elsewhere", "machine_boot-1-1-word")
    claimed = queue.claim(queue.find("running"), elsewhere)
    on_slurm = queue.claim(queue.find("slurm"), Owner.of_cluster("cluster"))
    assert claimed is not None
    assert on_slurm is not None
    Records(queue).write(on_slurm.token, Record("user", 1))
    Requests(queue).put(claimed, ControlAction.HOLD)
    Pauses(queue).add(None)
    for record, store, path in (
        (Heartbeat("elsewhere", 1), HEARTBEATS, queue.paths.runners / f"{runner_of(elsewhere)}.json"),
        (Observations("boot", {}), OBSERVATIONS, queue.paths.observed / f"{this_host()}.{machine_id()}.json"),
    ):
        path.parent.mkdir()
        store.write(path, record)
    queue.paths.moves.mkdir()
    (queue.paths.moves / "abcd.json").write_text("{}")
    queue.next_log("done").write_text("a line\n")
    run = RunFolder(Path("runs/done"))
    run.create()
    run.config.write_text(json.dumps(Job.model_validate({**QUICK_JOB, "model_dir": str(run.path)}).completed()))
    write_status(run, Status(state=RunState.FINISHED, token="t", epoch=2))
    write_rank_error(run, 1, RankError("t", "why"))
    for path in (run.environment, run.classes, run.log):
        path.write_text("{}")
    run.performance.write_text("epoch,split\n")
    queue.finish(queue.find("done"), JobState.DONE)
    return own_environment


def in_a_process(act: Callable[[], Any]) -> bool:
    """Whether it ends by itself."""
    if (pid := os.fork()) == 0:
        output = os.open(os.devnull, os.O_RDWR)
        for descriptor in range(3):
            os.dup2(output, descriptor)
        try:
            act()
        finally:
            os._exit(0)
    try:
        wait_until(lambda: os.waitpid(pid, os.WNOHANG)[0], LIMIT_S)
    except TimeoutError:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        return False
    return True


def restored(folder: Path, before: dict[Path, bytes]) -> None:
    for path in [path for path in folder.rglob("*") if not path.is_dir() and path not in before]:
        path.unlink()
    for path, content in before.items():
        if not path.is_file() or path.read_bytes() != content:
            path.unlink(missing_ok=True)
            path.write_bytes(content)


def files_in(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def verb(folder: Path, forked_checks: None, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    for module in set(MODULES.values()):
        import_module(f"accel_trainer.cli.{module}")  # once, and not in each process

    def run(words: str) -> None:
        monkeypatch.setattr(sys, "argv", ["accel-train", *words.split()])
        main()

    return run


def opened_by(act: Callable[[], Any], folder: Path) -> Iterator[Path]:
    """The files in a folder that are opened, and were there before."""
    note, before = folder.parent / "opened", files_in(folder)

    def watched() -> None:
        file = os.open(note, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)

        def hook(event: str, args: tuple[Any, ...]) -> None:
            if event == "open" and isinstance(args[0], str | bytes | os.PathLike):
                os.write(file, os.fsencode(args[0]) + b"\n")

        sys.addaudithook(hook)
        act()

    in_a_process(watched)
    paths = {folder / os.fsdecode(line) for line in note.read_bytes().splitlines()}
    restored(folder, before)
    yield from sorted(paths & before.keys())


def test_a_pipe_in_the_place_of_any_file_that_a_verb_reads_blocks_none(
    folder: Path, verb: Callable[[str], None]
) -> None:
    before, tried, hung = files_in(folder), set(), []
    for words in VERBS:
        for path in opened_by(lambda words=words: verb(words), folder):
            tried.add(str(path.relative_to(folder).parent))
            path.unlink()
            os.mkfifo(path)
            if not in_a_process(lambda words=words: verb(words)):
                hung.append(f"{words}: {path.relative_to(folder)}")
            path.unlink(missing_ok=True)
            restored(folder, before)
    assert hung == []
    states, records = ("done", "failed", "running"), ("requests", "retries", "paused", "runners", "observed", "moves")
    expected = {f"training_queue/{name}" for name in (*states, *records, "slurm", "logs")} | {"runs/done"}
    assert expected - tried == set()
