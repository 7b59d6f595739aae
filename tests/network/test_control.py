"""Verbs on jobs that another machine has just moved, while this one remembers where they were."""

from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import write_job
from network.mounts import Mount
from typer.testing import CliRunner

from accel_trainer.cli import app
from accel_trainer.queue.layout import JobState
from accel_trainer.queue.store import QueueStore

pytestmark = pytest.mark.slow
OLD = {"attr_s": 30, "entry_s": 30, "listing_s": 30, "remember_s": 30, "negative_s": 2}
VERBS = {
    "rm": (["rm", "a"], "a is running; cancel it first", 2),
    "move": (["move", "a", "--to", "other"], "a is running; hold it first", 2),
    "hold": (["hold", "a", "--no-wait"], "a: is asked to stop, to be held", 0),
    "cancel": (["cancel", "a", "--no-wait"], "a: is asked to stop, to be canceled", 0),
    "release": (["release", "a"], "a is running, not held", 2),
    "retry": (["retry", "a"], "a is running; only what has failed can be tried again", 2),
}
WHERE = {"release": JobState.HELD, "retry": JobState.FAILED}


@pytest.fixture
def clients(mount: Callable[..., Mount]) -> list[Mount]:
    return [mount("one", **OLD), mount("other", **OLD)]


def prepare(clients: list[Mount], verb: str) -> tuple[QueueStore, QueueStore]:
    """The queue at both machines, when the first remembers a job where the second has just claimed it."""
    queues = [QueueStore(client.folder / "training_queue") for client in clients]
    queues[0].create()
    state = WHERE.get(verb, JobState.PENDING)
    write_job(clients[0].server / "training_queue" / ("" if state is JobState.PENDING else state) / "a.json")
    for queue in queues:
        (job,) = queue.everywhere() if state is not JobState.PENDING else queue.jobs(state)
    assert queues[0].find("a").state is state
    assert (queues[0].folder / job.path.relative_to(queues[1].folder)).exists()
    if state is not JobState.PENDING:
        path = queues[1].release(job) if state is JobState.HELD else queues[1].retry(job)
        job = next(one for one in queues[1].jobs(JobState.PENDING) if one.path == path)
    assert queues[1].claim(job) is not None
    return queues[0], queues[1]


@pytest.mark.parametrize("verb", VERBS)
def test_of_a_job_that_another_machine_has_just_taken_a_verb_says_so(
    clients: list[Mount], verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(clients, verb)
    monkeypatch.chdir(clients[0].folder)
    words, text, code = VERBS[verb]
    done = CliRunner().invoke(app, words)
    assert text in done.output
    assert done.exit_code == code
    server = QueueStore(clients[0].server / "training_queue")
    assert [job.name for job in server.claims()] == ["a"], "nothing was done to it"


def test_a_job_is_added_beside_one_of_its_name_that_another_machine_has_taken(
    clients: list[Mount], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(clients, "add")
    file = write_job(tmp_path / "a.json", num_epochs=7)
    monkeypatch.chdir(clients[0].folder)
    done = CliRunner().invoke(app, ["add", str(file)])
    assert (done.exit_code, "a job 'a' is running in the queue" in done.output) == (2, True)
    done = CliRunner().invoke(app, ["add", "--force", str(file)])
    assert done.exit_code == 0, done.output
    server = QueueStore(clients[0].server / "training_queue")
    assert [job.name for job in server.claims()] == ["a"]
    assert [job.path.read_bytes() for job in server.jobs(JobState.PENDING)] == [file.read_bytes()]


def test_who_holds_a_job_that_ends_meanwhile_elsewhere_is_told_what_became_of_it(
    clients: list[Mount], monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = prepare(clients, "hold")
    (claim,) = there.claims()
    here.look_anew()
    assert [job.name for job in here.claims()] == ["a"]
    there.finish(claim, JobState.DONE)
    monkeypatch.chdir(clients[0].folder)
    done = CliRunner().invoke(app, ["hold", "a"])
    assert "a" in done.output
    assert "done" in done.output
    assert "Traceback" not in done.output
