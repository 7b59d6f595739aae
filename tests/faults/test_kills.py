"""kill -9 of every process of a queue. Each test continues with the job of the test before it."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from faults import checks
from faults.fork_server import ForkServer
from faults.lab import Lab
from helpers import wait_until

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A job on two processes."""
    with Lab(tmp_path_factory.mktemp("lab"), num_processes=2) as lab:
        lab.add()
        yield lab


@pytest.fixture
def training(lab: Lab) -> Lab:
    """The lab while its job trains, with a state saved in this attempt."""
    if lab.is_over():
        lab.start()
    lab.wait_for_step(checks.global_step(lab.run()) + 1)
    return lab


def test_the_trainer_of_a_killed_launcher_saves_and_is_launched_again(training: Lab) -> None:
    ranks = training.processes("worker")
    assert len(ranks) == 2
    training.send("launcher", signal.SIGKILL)
    wait_until(lambda: not any(rank.is_running() for rank in ranks), 30)
    wait_until(lambda: training.processes("worker"), 60)
    assert training.where() == "running"


def test_when_one_rank_is_killed_the_others_end_and_the_job_fails(training: Lab) -> None:
    training.send("worker", signal.SIGKILL, rank=1)
    assert training.wait() == 1
    assert training.where() == "failed"
    assert (training.queue / "failed/job.reason.txt").read_text()
    assert training.orphans() == []
    training.retry()


def test_the_trainer_of_a_killed_runner_saves_and_ends(training: Lab) -> None:
    training.send("runner", signal.SIGKILL)
    assert training.orphans() == []
    assert training.where() == "running"
    assert checks.state_of(training.run()) == "preempted"


def test_the_next_runner_resumes_a_job_whose_every_process_was_killed(lab: Lab, server: ForkServer) -> None:
    """And so is that of the killed runner, before."""
    lab.start()
    lab.wait_for_step(checks.global_step(lab.run()) + 1)
    lab.kill_all()
    assert lab.orphans() == []
    assert lab.where() == "running"
    lab.hurry()
    lab.start()
    assert lab.wait() == 0
    assert "its runner died" in lab.output.read_text()
    assert lab.where() == "done"
    assert checks.differences(lab.run(), lab.undisturbed(server)) == []
    assert checks.duplicates(lab.run()) == []


def test_a_job_outlives_the_processes_of_its_plots_and_of_wandb(tmp_path: Path, server: ForkServer) -> None:
    with Lab(tmp_path / "lab", plots=True) as lab:
        lab.add(num_epochs=2, trackers=["wandb"])
        lab.start()
        lab.send("plotter", signal.SIGKILL)
        lab.wait_for_step(2)
        wait_until(lambda: "wandb: offline" in (lab.run() / "log.txt").read_text())  # it has started
        lab.send("wandb", signal.SIGKILL)
        assert lab.wait() == 0
        assert checks.differences(lab.run(), lab.undisturbed(server)) == []
        assert lab.orphans() == []
        assert len(checks.wandb_ids(lab.run())) == 1
        assert (lab.run() / "log.txt").read_text().count("wandb is gone (") == 1


def test_nothing_is_left_in_temporary_folders_and_shared_memory(lab: Lab) -> None:
    """Of all that this job went through."""
    assert lab.leftovers() == []
