"""What the kernel says it has killed for memory, on the machine and in the own control group."""

from pathlib import Path

import pytest

from accel_trainer.core.oom_kills import OomKills, oom_kills


def _kernel(folder: Path, group: str, files: dict[str, str]) -> tuple[Path, Path]:
    proc, groups = folder / "proc", folder / "groups"
    (proc / "self").mkdir(parents=True)
    (proc / "vmstat").write_text("nr_free_pages 7\noom_kill 5\npgfault 9\n")
    (proc / "self/cgroup").write_text(f"4:memory:/other\n0::{group}\n")
    groups.mkdir()
    for name, text in files.items():
        (groups / name).parent.mkdir(parents=True, exist_ok=True)
        (groups / name).write_text(text)
    return proc, groups


EVENTS = "low 0\nmax 12\noom 3\noom_kill 2\noom_group_kill 0\n"


@pytest.mark.parametrize(
    ("group", "files", "own"),
    [
        ("/slurm/step_0", {"slurm/step_0/memory.max": "1024\n", "slurm/step_0/memory.events": EVENTS}, 2),
        ("/user/session", {"user/session/memory.max": "max\n", "user/session/memory.events": EVENTS}, 0),
        ("/named/by/the/host", {"memory.max": "1024\n", "memory.events": EVENTS}, 2),
        ("/", {"memory.max": "1024\n", "memory.events": EVENTS}, 2),
        ("/", {}, 0),
    ],
    ids=["limited", "login session", "container of another view", "container", "the machine's root"],
)
def test_kills_in_a_control_group_with_a_limit_of_its_own_are_its_own(tmp_path, group, files, own):
    assert oom_kills(*_kernel(tmp_path, group, files)) == OomKills(machine=5, own=own)


def test_where_the_kernel_says_nothing_nothing_was_killed(tmp_path):
    assert oom_kills(tmp_path, tmp_path) == OomKills(0, 0)


def test_what_was_killed_between_two_looks_is_their_difference():
    assert OomKills(7, 3) - OomKills(5, 3) == OomKills(2, 0)
