"""The doctor at several machines at once, each of which is a client of its own of one drive: none is misled by what the
others try there, and each names what its own client does."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from faults.site.injection import ROUNDS_VARIABLE, UNPROBED_VARIABLE
from network.machines import Machine
from network.mounts import Mount
from network.test_runner_races import environment

pytestmark = pytest.mark.slow
# What is said of torch is not looked at.
QUICK = {ROUNDS_VARIABLE: "30", UNPROBED_VARIABLE: "1"}
Said = Mapping[str, Mapping[str, Any]]


def said_at_once(clients: Mapping[str, Mount], machines: Callable[..., Machine], tmp_path: Path) -> dict[str, Said]:
    """What the doctor finds at each machine, of the queue as its client has it, and as that of the last one has it."""
    shared, second = tmp_path / "shared", tmp_path / "second"
    for folder in (shared, second):
        folder.mkdir()
    far = list(clients.values())[-1]
    (far.server / "training_queue").mkdir()
    started = {}
    for name, client in list(clients.items())[:-1]:
        host = machines(name, {client.folder: shared, far.folder: second})
        words = ("doctor", "--json", "--with", second / "training_queue")
        started[name] = host.start(*words, cwd=shared, **environment(tmp_path, name, **QUICK))
    said = {}
    for name, process in started.items():
        output, _ = process.communicate(timeout=250)
        assert process.returncode in (0, 1), output
        said[name] = {row["check"]: row for row in json.loads(output[output.index("[") :])}
    assert [path.name for path in (far.server / "training_queue").iterdir()] == [], "nothing is left there"
    return said


def test_doctors_at_once_name_what_each_client_does(
    mount: Callable[..., Mount], machines: Callable[..., Machine], tmp_path: Path
) -> None:
    clients = {
        "grey": mount("one"),
        "rey": mount("other", clock_s=100, negative_s=20, lost_replies=0.7, lost_only="/claims/"),
        "far": mount("far", attr_s=2, entry_s=2, listing_s=2),
    }
    said = said_at_once(clients, machines, tmp_path)
    assert said["grey"]["claims"]["grade"] == "ok", said["grey"]
    assert said["grey"]["clock"]["grade"] == "ok", said["grey"]
    assert "answers are lost" in said["rey"]["claims"]["said"], said["rey"]
    assert "ahead of this machine's" in said["rey"]["clock"]["said"], said["rey"]
    for found in said.values():
        assert "remembers for" in found["caches"]["said"], found
        assert "docs/machines.md" in found["caches"]["fix"], found
        assert "locks are local" in found["locks of two"]["said"], found
        assert found["claims of two"]["grade"] == "ok", found


def test_doctors_at_once_on_sshfs_find_its_caches_and_no_harm(
    mount_sshfs: Callable[..., Mount], machines: Callable[..., Machine], tmp_path: Path
) -> None:
    clients = {name: mount_sshfs(name) for name in ("grey", "rey", "far")}
    for found in said_at_once(clients, machines, tmp_path).values():
        assert "it remembers for 2" in found["caches"]["said"], found
        assert "dir_cache=no" in found["caches"]["fix"], found
        assert "locks are local" in found["locks of two"]["said"], found
        for name in ("claims", "claims of two", "moves", "clock"):
            assert found[name]["grade"] == "ok", (name, found)
