"""Fixtures of network drives and machines, for tests of every room. Where one is not possible, tests are skipped with
the reason, or fail where ACCEL_TRAIN_NEED_FUSE=1 says that it has to be."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache

import pytest
from network.machines import Machine, machine, why_no_machine
from network.mounts import Mount, Server, server_folder, sshd, why_no_fuse, why_no_sshfs, worst_fs

NEEDED_VARIABLE = "ACCEL_TRAIN_NEED_FUSE"


@pytest.fixture
def drive() -> Iterator[Server]:
    """A server's folder, for `mount`."""
    need(why_no_fuse)
    with server_folder() as server:
        yield server


@pytest.fixture
def mount(drive: Server) -> Iterator[Callable[..., Mount]]:
    """Mounts clients of `worst_fs`: `mount("one", attr_s=30)`."""
    with ExitStack() as stack:
        yield lambda name, **options: stack.enter_context(worst_fs(drive, name, **options))


@pytest.fixture
def mount_sshfs() -> Iterator[Callable[..., Mount]]:
    """Mounts clients of sshfs: `mount_sshfs("one", "cache=no")`; default caches without options."""
    need(why_no_sshfs)
    with ExitStack() as stack:
        daemon = stack.enter_context(sshd())
        yield lambda name, *options: stack.enter_context(daemon.mount(name, *options))


@pytest.fixture
def machines() -> Iterator[Callable[..., Machine]]:
    """Starts machines: `machines("grey", {mount.folder: path})`. Mount first."""
    need(why_no_machine)
    with ExitStack() as stack:
        yield lambda *args: stack.enter_context(machine(*args))


def need(why_not: Callable[[], str | None]) -> None:
    """Skip the test, or fail, where something keeps us from what it needs."""
    if (reason := _reason(why_not)) is None:
        return
    if os.environ.get(NEEDED_VARIABLE) == "1":
        pytest.fail(f"{NEEDED_VARIABLE} is set, and there is no network drive: {reason}")
    pytest.skip(f"no network drive here: {reason}")


@pytest.fixture
def on_one_core() -> Iterator[None]:
    """What this process starts keeps to one core, so that a trainer has one thread, as those of a `ForkServer` have:
    the number of threads changes the last bits of sums."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    yield
    os.sched_setaffinity(0, cores)


@cache
def _reason(why_not: Callable[[], str | None]) -> str | None:
    return why_not()
