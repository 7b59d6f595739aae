"""SIGTERM, Ctrl-C and SIGSTOP to every process of a queue. Each test continues with the job of the test before it."""

import signal
import time
from collections.abc import Iterator

import pytest
from faults import checks
from faults.fork_server import ForkServer
from faults.lab import Lab
from helpers import wait_until

pytestmark = pytest.mark.slow

TERM, INT = signal.SIGTERM, signal.SIGINT
# A step of 0.1 s and saving it, with much to spare.
AT_ONCE_S = 60


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with Lab(tmp_path_factory.mktemp("lab")) as lab:
        lab.add(num_epochs=6)
        yield lab


@pytest.fixture
def training(lab: Lab) -> Lab:
    """The lab while its job trains, in the middle of an epoch, with a state saved in this attempt."""
    if lab.is_over():
        lab.start()
    before = checks.global_step(lab.run())
    lab.wait_for_step(before + 1)
    return lab


@pytest.mark.parametrize("numbers", [[TERM], [INT, INT]], ids=["trainer TERM", "trainer INT twice"])
def test_a_signal_to_the_trainer_ends_the_runner_too(training: Lab, numbers: list[int]) -> None:
    step, process = checks.global_step(training.run()), training.find("worker")
    for number in numbers:
        process.send_signal(number)
    assert training.wait(AT_ONCE_S) == 143
    assert checks.state_of(training.run()) == "preempted"
    assert checks.global_step(training.run()) >= step
    assert training.where() == "pending"
    assert "stopped (told to by somebody else)" in training.output.read_text()
    assert training.orphans() == []


@pytest.mark.parametrize(("number", "exit_code"), [(TERM, 143), (INT, 130)], ids=["TERM", "INT"])
def test_a_stopped_runner_saves_its_job_and_returns_it_to_pending(training: Lab, number: int, exit_code: int) -> None:
    step, began = checks.global_step(training.run()), time.monotonic()
    training.send("runner", number)
    assert training.wait() == exit_code
    assert time.monotonic() - began < AT_ONCE_S
    assert checks.state_of(training.run()) == "preempted"
    assert checks.global_step(training.run()) >= step
    assert training.where() == "pending"
    assert "stop" in training.output.read_text()
    assert training.orphans() == []


def test_ctrl_c_twice_ends_everything_at_once(training: Lab) -> None:
    training.send("runner", INT)
    wait_until(lambda: "stop" in training.output.read_text(), AT_ONCE_S)
    training.send("runner", INT)
    assert training.wait(AT_ONCE_S) == 130
    assert training.where() == "pending"
    assert training.orphans() == []


def test_a_suspended_runner_continues_with_its_trainer(training: Lab) -> None:
    """SIGSTOP and SIGCONT: the trainer trains on meanwhile."""
    runner, step = training.find("runner"), checks.global_step(training.run())
    runner.send_signal(signal.SIGSTOP)
    training.wait_for_step(step + 3)
    runner.send_signal(signal.SIGCONT)
    training.hurry()
    assert training.wait() == 0
    assert training.where() == "done"


def test_after_all_signals_the_weights_equal_an_undisturbed_run(lab: Lab, server: ForkServer) -> None:
    undisturbed = lab.undisturbed(server)
    assert checks.differences(lab.run(), undisturbed) == []
    assert checks.duplicates(lab.run()) == []
    assert lab.orphans() == []
