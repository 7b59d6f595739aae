"""What is known of processes in real namespaces: of containers, of renamed machines, of others' processes in /proc."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest
from helpers import wait_until

from accel_trainer.core.lease import Owner, this_host
from accel_trainer.core.process_space import Life
from accel_trainer.core.processes import pids_with_env

# A container of this machine, of its host name and image.
CONTAINER = ("--pid", "--mount", "--mount-proc", "--fork", "--kill-child=SIGKILL")
# Says who it is, and lives until its input ends.
LIVE = "from accel_trainer.core.lease import Owner; import sys; print(Owner.new().token, flush=True); sys.stdin.read()"
# Says what is known of others.
ASK = """
import sys
from accel_trainer.core.lease import Owner
print(*(Owner(sys.argv[1], token).life().name for token in sys.argv[2:]))
"""
# Says what is known of its child while that lives, when it has been killed, and then of another that has its id.
ASK_OF_CHILD = f"""
import os, subprocess, sys
from accel_trainer.core.lease import Owner, this_host
def child():
    return subprocess.Popen([sys.executable, "-c", {LIVE!r}], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
first = child()
token = first.stdout.readline().strip()
lives = Owner(this_host(), token).life().name
first.kill()
first.wait()
ended = Owner(this_host(), token).life().name
def reused():
    if not os.access("/proc/sys/kernel/ns_last_pid", os.W_OK):
        return "-"
    with open("/proc/sys/kernel/ns_last_pid", "w") as file:
        file.write(str(first.pid - 1))
    second = child()
    second.stdout.readline()
    if second.pid != first.pid:
        return "-"
    return Owner(this_host(), token).life().name
print(lives, ended, reused())
"""


@cache
def why_not() -> str | None:
    if shutil.which("unshare") is None or shutil.which("setpriv") is None:
        return "no unshare or setpriv"
    tried = subprocess.run(["unshare", *CONTAINER, "--uts", "true"], capture_output=True, text=True)
    return f"no namespaces here: {tried.stderr.strip()}" if tried.returncode else None


@pytest.fixture(autouse=True)
def _needs_namespaces() -> None:
    if (reason := why_not()) is not None:
        pytest.skip(reason)


def within(options: tuple[str, ...], before: str, code: str, *arguments: str) -> list[str]:
    """A command line that runs Python in namespaces, after some words of a shell."""
    return ["unshare", *options, "sh", "-ec", f'{before}\nexec "$@"', "sh", sys.executable, "-c", code, *arguments]


def asked(command: list[str]) -> list[str]:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@contextmanager
def living(command: list[str]) -> Iterator[str]:
    """The token of a process that lives until the body ends."""
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.kill()


def test_of_two_containers_of_one_machine_and_name_neither_takes_the_others_processes_for_dead() -> None:
    ask = within(CONTAINER, "", ASK, this_host())
    with living(within(CONTAINER, "", LIVE)) as theirs, living([sys.executable, "-c", LIVE]) as outside:
        assert asked([*ask, theirs, outside]) == ["UNKNOWN", "UNKNOWN"]
        assert Owner(this_host(), theirs).life() is Life.UNKNOWN
        assert Owner(this_host(), outside).life() is Life.ALIVE
    assert asked([*ask, outside]) == ["UNKNOWN"]
    assert Owner(this_host(), outside).life() is Life.DEAD


@pytest.mark.parametrize(
    ("before", "known"),
    [
        ("", ("ALIVE", "DEAD", "DEAD")),
        # Of others' processes only whether there are any with an id; of one's own all, but for those hidden from root.
        ("mount -t proc -o hidepid=2 proc /proc", ("ALIVE", "DEAD", "DEAD")),
        # A /proc with the ids of other processes, none, and one without what names the boot.
        ("umount /proc", ("UNKNOWN", "DEAD", "UNKNOWN")),
        ("mount -t tmpfs none /proc", ("UNKNOWN", "UNKNOWN", "UNKNOWN")),
        ("mount -t tmpfs none /proc/sys/kernel/random", ("UNKNOWN", "UNKNOWN", "UNKNOWN")),
        # A host name or machine id of one's own changes nothing.
        ("hostname elsewhere", ("ALIVE", "DEAD", "DEAD")),
        (
            "echo 0123456789abcdef0123456789abcdef > $FILE; mount --bind $FILE /etc/machine-id",
            ("ALIVE", "DEAD", "DEAD"),
        ),
        (": > $FILE; mount --bind $FILE /etc/machine-id", ("ALIVE", "DEAD", "DEAD")),
    ],
    ids=["own", "hidepid", "others' /proc", "no /proc", "no boot id", "renamed", "other machine id", "no machine id"],
)
def test_in_a_container_its_own_processes_are_known_where_they_can_be_seen(
    tmp_path: Path, before: str, known: tuple[str, ...]
) -> None:
    if "machine-id" in before and not Path("/etc/machine-id").exists():
        pytest.skip("there is no /etc/machine-id to mount over")
    prepared = f"FILE={tmp_path / 'id'}\n{before}"
    found = asked(within((*CONTAINER, "--uts"), prepared, ASK_OF_CHILD))
    assert [now for now, expected in zip(found, known, strict=True) if now not in (expected, "-")] == [], found


def test_of_another_users_process_that_is_hidden_only_its_end_is_known() -> None:
    """hidepid, as on shared machines: it is not there in /proc, and kill says EPERM."""
    hidden = "mount -t proc -o hidepid=2 proc /proc"
    somebody = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--")
    command = within(("--mount",), hidden, ASK, this_host())
    ask = [*command[: command.index(sys.executable)], *somebody, *command[command.index(sys.executable) :]]
    with living([sys.executable, "-c", LIVE]) as token:
        assert asked([*ask, token]) == ["UNKNOWN"]
        assert Owner(this_host(), token).life() is Life.ALIVE
    assert asked([*ask, token]) == ["DEAD"]


def test_in_a_proc_of_others_no_process_is_taken_for_ones_own() -> None:
    """Its ids are those of other processes here, which a signal would meet."""
    sweep = "from accel_trainer.core.processes import pids_with_env; print(pids_with_env('MARK', 'mine'))"
    with subprocess.Popen(["sleep", "60"], env={**os.environ, "MARK": "mine"}) as sleeper:
        wait_until(lambda: pids_with_env("MARK", "mine") == [sleeper.pid])
        assert asked(within(CONTAINER, "umount /proc", sweep)) == ["[]"]
        assert asked(within(CONTAINER, "mount -t tmpfs none /proc", sweep)) == ["[]"]
        sleeper.kill()


def test_a_machine_that_is_renamed_knows_its_processes_of_before() -> None:
    with living([sys.executable, "-c", LIVE]) as token:
        renamed = within(("--uts",), "hostname renamed", ASK, this_host())
        assert asked([*renamed, token]) == ["ALIVE"]
    assert asked([*renamed, token]) == ["DEAD"]
