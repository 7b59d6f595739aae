"""The guard of tests that hang, in a pytest of its own."""

import os
import re
import subprocess
import sys
from pathlib import Path

import psutil
from helpers import REPOSITORY, wait_until

GUARDED = """
import hang_guard
hang_guard.GRACE_S = 1.0
"""
# A child that has a child, writes something, and ends only when it is killed.
START = """
import subprocess, sys, threading, time
import pytest
CHILD = '''
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print("so far", child.pid, flush=True)
time.sleep(600)
'''
WORDS = [sys.executable, "-c", CHILD]
"""


def run_pytest(folder: Path, tests: str, *words: str) -> "subprocess.CompletedProcess[str]":
    (folder / "conftest.py").write_text(GUARDED)
    (folder / "pytest.ini").write_text("[pytest]\naddopts = -q -p no:cacheprovider\ntimeout = 1\n")
    (folder / "test_it.py").write_text(START + tests)
    known = {**os.environ, "PYTHONPATH": str(REPOSITORY / "tests"), "PYTEST_ADDOPTS": ""}
    command = [sys.executable, "-m", "pytest", "-p", "hang_guard", *words, str(folder)]
    return subprocess.run(command, cwd=folder, env=known, capture_output=True, text=True)


def has_ended(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def grandchildren(output: str) -> set[int]:
    """The processes that children of tests have started, by what the children have written."""
    return {int(pid) for pid in re.findall(r"so far (\d+)", output)}


WAITS = """
def test_reads():
    subprocess.run(WORDS, capture_output=True)

def test_does_not_read():
    subprocess.Popen(WORDS, stdout=subprocess.PIPE).wait()

def test_into_a_file():
    subprocess.Popen(WORDS, stdout=open("log.txt", "w")).wait()

def test_next():
    pass
"""


def test_a_test_that_waits_for_a_process_fails_with_its_output(tmp_path: Path) -> None:
    done = run_pytest(tmp_path, WAITS)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "3 failed, 1 passed" in done.stdout
    failure = r"Timeout: it hangs, for more than 1 s\nE +process \d+ of (?s:.*?)its stdout:\nE +so far \d+\n"
    assert len(re.findall(failure, done.stdout)) == 3, done.stdout
    started = grandchildren(done.stdout)
    assert len(started) == 3
    wait_until(lambda: all(map(has_ended, started)), 10)


# Nothing of it can be interrupted by an exception: one is raised already, or comes too early.
FIXTURE = """
@pytest.fixture
def waiting():
    yield
    print(subprocess.Popen(WORDS, stdout=subprocess.PIPE).pid)
    never = threading.Event()
    while True:
        try:
            never.wait()
        except BaseException:
            pass

def test_hangs(waiting):
    assert False

def test_next():
    pass
"""


def test_a_fixture_that_cannot_be_interrupted_ends_its_process(tmp_path: Path) -> None:
    done = run_pytest(tmp_path, FIXTURE, "-n", "1")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "test_it.py::test_hangs hangs, for more than 2 s\nprocess " in done.stderr
    assert " in waiting\n" in done.stderr
    started = grandchildren(done.stderr)
    assert len(started) == 1
    wait_until(lambda: all(map(has_ended, started)), 10)
    assert "crashed while running 'test_it.py::test_hangs'" in done.stdout
    assert "1 passed" in done.stdout
