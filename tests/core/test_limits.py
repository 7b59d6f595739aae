"""What a container or Slurm leaves of a machine, by trees of control groups as kernels of both kinds show them."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from accel_trainer.core import limits, processes
from accel_trainer.core.launched import CORES_VARIABLE, TOKEN_VARIABLE
from accel_trainer.core.processes import usable_cores

GIGABYTE = 10**9
V2_MOUNT = "30 23 0:26 {root} {folder} rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate"
V1_CPU = "32 31 0:29 {root} {folder} rw,relatime - cgroup cgroup rw,cpu,cpuacct"
V1_MEMORY = "35 31 0:32 {root} {folder} rw,relatime - cgroup cgroup rw,memory"
OTHERS = "23 1 0:20 / / rw - ext4 /dev/sda rw\n31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755"

Tree = Callable[..., None]


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tree:
    """Lays out control groups: the lines of /proc/self/cgroup, mounts as (line, folder, root), and files."""

    def make(membership: str, mounts: list[tuple[str, str, str]], files: dict[str, str]) -> None:
        for name, content in files.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(f"{content}\n")
        where = {folder: f"{tmp_path}/{folder}".replace(" ", r"\040") for _, folder, _ in mounts}
        lines = [line.format(root=root, folder=where[folder]) for line, folder, root in mounts]
        (tmp_path / "cgroup").write_text(membership)
        (tmp_path / "mountinfo").write_text("\n".join([OTHERS, *lines]))
        monkeypatch.setattr(limits, "MEMBERSHIP", tmp_path / "cgroup")
        monkeypatch.setattr(limits, "MOUNTS", tmp_path / "mountinfo")

    return make


@pytest.fixture(autouse=True)
def eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes.os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    for name in (CORES_VARIABLE, "SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_CPUS_PER_TASK", "SLURM_CPUS_ON_NODE"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("membership", "mounts", "files", "quota", "cores"),
    [
        ("0::/\n", [(V2_MOUNT, "cg", "/")], {}, None, 8),
        ("0::/\n", [(V2_MOUNT, "cg", "/")], {"cg/cpu.max": "max 100000"}, None, 8),
        ("0::/\n", [(V2_MOUNT, "cg", "/")], {"cg/cpu.max": "250000 100000"}, 2.5, 2),
        ("0::/\n", [(V2_MOUNT, "cg", "/")], {"cg/cpu.max": "50000 100000"}, 0.5, 1),
        ("0::/\n", [(V2_MOUNT, "cg", "/")], {"cg/cpu.max": "1600000 100000"}, 16.0, 8),
        # Nested: of a slice, of a service in it, of which the one above is the smaller.
        (
            "0::/user.slice/job.service\n",
            [(V2_MOUNT, "cg", "/")],
            {"cg/user.slice/cpu.max": "300000 100000", "cg/user.slice/job.service/cpu.max": "500000 100000"},
            3.0,
            3,
        ),
        (
            "0::/user.slice/job.service\n",
            [(V2_MOUNT, "cg", "/")],
            {"cg/user.slice/cpu.max": "max 100000", "cg/user.slice/job.service/cpu.max": "400000 100000"},
            4.0,
            4,
        ),
        # A container that sees the host's names, and of the tree only its own part.
        ("0::/docker/4f\n", [(V2_MOUNT, "cg", "/docker/4f")], {"cg/cpu.max": "200000 100000"}, 2.0, 2),
        ("0::/../..\n", [(V2_MOUNT, "cg", "/")], {"cg/cpu.max": "200000 100000"}, 2.0, 2),
        # Version 1, and both kinds at once, of which the controller is with the first.
        (
            "4:cpu,cpuacct:/job\n0::/job\n",
            [(V1_CPU, "cpu,cpuacct", "/"), (V2_MOUNT, "unified", "/")],
            {"cpu,cpuacct/job/cpu.cfs_quota_us": "150000", "cpu,cpuacct/job/cpu.cfs_period_us": "100000"},
            1.5,
            1,
        ),
        (
            "4:cpu,cpuacct:/job\n",
            [(V1_CPU, "a b", "/")],
            {"a b/cpu.cfs_quota_us": "600000", "a b/cpu.cfs_period_us": "100000", "a b/job/cpu.cfs_quota_us": "-1"},
            6.0,
            6,
        ),
        ("4:cpuset:/job\n", [(V1_CPU, "c", "/")], {"c/cpu.cfs_quota_us": "1", "c/cpu.cfs_period_us": "1"}, None, 8),
        ("", [(V2_MOUNT, "cg", "/")], {"cg/cpu.max": "many few"}, None, 8),
        ("0::/\n", [(V2_MOUNT, "cg", "/")], {"cg/cpu.max": "many few"}, None, 8),
        ("0::/\n", [(V2_MOUNT, "cg", "/")], {"cg/cpu.max": "100000 0"}, None, 8),
    ],
)
def test_a_quota_of_any_group_above_is_one_of_cores(
    tree: Tree, membership: str, mounts: list[tuple[str, str, str]], files: dict[str, str], quota: float, cores: int
) -> None:
    tree(membership, mounts, files)
    assert (limits.cpu_quota(), usable_cores()) == (quota, cores)


def test_without_control_groups_all_cores_are_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MEMBERSHIP", tmp_path / "none")
    monkeypatch.setattr(limits, "MOUNTS", tmp_path / "none")
    assert (limits.cpu_quota(), limits.memory_limit(), usable_cores()) == (None, None, 8)


@pytest.mark.parametrize(
    ("variables", "cores"),
    [
        ({"SLURM_CPUS_ON_NODE": "3"}, 8),  # left over in a shell
        ({"SLURM_JOB_ID": "7", "SLURM_CPUS_ON_NODE": "3"}, 3),
        ({"SLURM_JOB_ID": "7", "SLURM_CPUS_ON_NODE": "64"}, 8),
        ({"SLURM_JOB_ID": "7", "SLURM_CPUS_ON_NODE": "6", "SLURM_CPUS_PER_TASK": "2"}, 6),  # a script of three tasks
        ({"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0", "SLURM_CPUS_ON_NODE": "6", "SLURM_CPUS_PER_TASK": "2"}, 2),
        ({"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0", "SLURM_CPUS_ON_NODE": "6"}, 6),
        ({"SLURM_JOB_ID": "7", "SLURM_CPUS_ON_NODE": "four"}, 8),
        ({"SLURM_JOB_ID": "7", "SLURM_CPUS_ON_NODE": "4", CORES_VARIABLE: "2", TOKEN_VARIABLE: "live"}, 2),
    ],
)
def test_the_cores_that_slurm_has_given_are_those_there_are(
    tree: Tree, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], cores: int
) -> None:
    tree("", [], {})
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert usable_cores() == cores


@pytest.mark.parametrize(
    ("membership", "mounts", "files", "limit", "free"),
    [
        ("0::/\n", [(V2_MOUNT, "cg", "/")], {"cg/memory.max": "max"}, None, 60),
        (
            "0::/\n",
            [(V2_MOUNT, "cg", "/")],
            {"cg/memory.max": "8000000000", "cg/memory.current": "3000000000"},
            8,
            5,
        ),
        # A cache of files that were not read lately is given back.
        (
            "0::/\n",
            [(V2_MOUNT, "cg", "/")],
            {
                "cg/memory.max": "8000000000",
                "cg/memory.current": "7000000000",
                "cg/memory.stat": "anon 1\ninactive_file 4000000000",
            },
            8,
            5,
        ),
        (
            "0::/\n",
            [(V2_MOUNT, "cg", "/")],
            {"cg/memory.max": "9000000000", "cg/memory.high": "6000000000", "cg/memory.current": "1000000000"},
            6,
            5,
        ),
        # The group above is nearly full, though this one is not.
        (
            "0::/slice/job\n",
            [(V2_MOUNT, "cg", "/")],
            {
                "cg/slice/memory.max": "20000000000",
                "cg/slice/memory.current": "18000000000",
                "cg/slice/job/memory.max": "16000000000",
                "cg/slice/job/memory.current": "1000000000",
            },
            16,
            2,
        ),
        (
            "9:memory:/job\n",
            [(V1_MEMORY, "m", "/")],
            {
                "m/memory.limit_in_bytes": "9223372036854771712",
                "m/job/memory.limit_in_bytes": "4000000000",
                "m/job/memory.usage_in_bytes": "3500000000",
                "m/job/memory.stat": "total_inactive_file 500000000",
            },
            4,
            1,
        ),
        ("9:memory:/\n", [(V1_MEMORY, "m", "/")], {"m/memory.limit_in_bytes": "9223372036854771712"}, None, 60),
        (
            "0::/\n",
            [(V2_MOUNT, "cg", "/")],
            {"cg/memory.max": "1000000000", "cg/memory.current": "2000000000"},
            1,
            0,
        ),
    ],
)
def test_memory_is_what_every_group_above_leaves(
    tree: Tree,
    monkeypatch: pytest.MonkeyPatch,
    membership: str,
    mounts: list[tuple[str, str, str]],
    files: dict[str, str],
    limit: int | None,
    free: int,
) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(total=64 * 10**9, available=60 * 10**9))
    tree(membership, mounts, files)
    assert limits.memory_limit() == (None if limit is None else limit * GIGABYTE)
    assert limits.available_memory() == free * GIGABYTE


@pytest.mark.parametrize(
    ("files", "left"),
    [
        ({}, None),
        ({"cg/job/pids.max": "max", "cg/job/pids.current": "3"}, None),
        ({"cg/job/pids.max": "100", "cg/job/pids.current": "30"}, 70),
        ({"cg/job/pids.max": "100", "cg/job/pids.current": "30", "cg/pids.max": "50", "cg/pids.current": "45"}, 5),
        ({"cg/job/pids.max": "10", "cg/job/pids.current": "30"}, 0),
    ],
)
def test_the_threads_that_are_left_are_those_of_every_group_above(
    tree: Tree, files: dict[str, str], left: int | None
) -> None:
    tree("0::/job\n", [(V2_MOUNT, "cg", "/")], files)
    assert limits.tasks_left() == left
