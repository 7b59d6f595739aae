"""Processes: stop requests, owners, and what is found by a variable of the environment."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import psutil
import pytest
from helpers import wait_until

from accel_trainer.core import process_space, processes
from accel_trainer.core.lease import Owner
from accel_trainer.core.processes import StopRequest, children, reap_when_dead

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@pytest.fixture
def usual_handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("usual_handlers")
@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_is_noted_and_the_second_is_urgent(number: signal.Signals) -> None:
    stop = StopRequest()
    stop.listen(*SIGNALS)
    assert not stop
    signal.raise_signal(number)
    assert stop
    assert (stop.signal, stop.is_urgent) == (number, False)
    signal.raise_signal(signal.SIGINT)
    assert (stop.signal, stop.is_urgent) == (number, True)


@pytest.mark.usefixtures("usual_handlers")
def test_signals_that_nohup_ignores_stay_ignored_here() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    stop = StopRequest()
    stop.listen(*SIGNALS)
    signal.raise_signal(signal.SIGHUP)
    assert not stop


def test_processes_are_found_by_their_environment_until_they_are_gone() -> None:
    name, value = "ACCEL_TRAIN_TEST", f"value-{os.getpid()}"
    sleeper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], env={**os.environ, name: value})
    try:
        wait_until(lambda: processes.pids_with_env(name, value) == [sleeper.pid], timeout_s=10)
        assert not processes.pids_with_env(name, "another value")
        assert process_space.start_time(sleeper.pid)
    finally:
        sleeper.kill()
    wait_until(lambda: not processes.pids_with_env(name, value), timeout_s=10)
    assert process_space.start_time(sleeper.pid) == "", "a zombie is no living process"
    sleeper.wait()


def test_every_owner_has_a_token_of_its_own() -> None:
    assert Owner.new() != Owner.new()


def test_who_hangs_when_its_parent_dies_is_killed_after_a_while() -> None:
    child = (
        "import signal, time; from accel_trainer.core.processes import die_with_parent;"
        "signal.signal(signal.SIGTERM, lambda *_: print('asked', flush=True)); die_with_parent(0.3);"
        "print('ready', flush=True); time.sleep(60); time.sleep(60); time.sleep(60)"
    )
    parent = f"import subprocess, sys; print(subprocess.Popen([sys.executable, '-c', {child!r}]).pid, flush=True)"
    with subprocess.Popen(
        [sys.executable, "-c", f"{parent}; input()"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        said = [process.stdout.readline().strip() for _ in range(2)]
        pid = next(int(line) for line in said if line.isdigit())
        process.kill()
        process.wait()
        wait_until(lambda: not process_space.start_time(pid), timeout_s=20)
        assert "asked" in process.stdout.read()


def test_a_child_that_is_killed_is_no_zombie_where_somebody_waits_for_it() -> None:
    before = children()
    child = subprocess.Popen(["sleep", "60"])
    assert children() - before == {child.pid}
    reap_when_dead(child.pid)
    os.kill(child.pid, signal.SIGKILL)
    wait_until(lambda: not psutil.pid_exists(child.pid), timeout_s=10)
    assert child.wait() == 0, "how it ended is known to the one who waited first"
