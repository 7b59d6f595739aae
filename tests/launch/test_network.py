"""Processes on two machines find each other, whatever the machines call themselves."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from accel_trainer.config import Job
from accel_trainer.core.network import interface_to
from accel_trainer.launch.command import LaunchOptions, plan_launch
from accel_trainer.launch.machine import Machine

CPU = Machine((), has_mps=False, cores=2)
JOB = Job(architecture="resnet18")
RANK = """
import json, os, sys
import torch
import torch.distributed as dist
rank, port = int(sys.argv[1]), sys.argv[2]
from accel_trainer.config import Job
from accel_trainer.launch.command import LaunchOptions, plan_launch
from accel_trainer.launch.machine import Machine, Nodes
machine = Machine((), False, 2, Nodes(2, rank, "10.77.0.1", int(port)))
os.environ |= plan_launch(Job(architecture="resnet18"), LaunchOptions(num_processes=2), machine).environment
from datetime import timedelta
dist.init_process_group(
    "gloo", init_method=f"tcp://10.77.0.1:{port}", rank=rank, world_size=2, timeout=timedelta(seconds=30)
)
total = torch.tensor([rank + 1.0])
dist.all_reduce(total)
print(json.dumps({"interface": os.environ.get("GLOO_SOCKET_IFNAME"), "sum": total.item()}))
dist.destroy_process_group()
"""
# As Debian's installer writes it.
HOSTS = "127.0.0.1 localhost\n127.0.1.1 lab\n"


@pytest.fixture
def namespaces() -> Iterator[list[str]]:
    """Two machines with a cable between them: 10.77.0.1 and 10.77.0.2."""
    if os.getuid() != 0 or shutil.which("ip") is None or shutil.which("unshare") is None:
        pytest.skip("only root makes network namespaces")
    names = [f"accel{os.getpid()}{letter}" for letter in "ab"]
    ends = [f"v{os.getpid() % 10**6}{letter}" for letter in "ab"]
    try:
        for name in names:
            if subprocess.run(["ip", "netns", "add", name], capture_output=True).returncode:
                pytest.skip("network namespaces are not allowed here")
        subprocess.run(["ip", "link", "add", ends[0], "type", "veth", "peer", "name", ends[1]], check=True)
        for number, (name, end) in enumerate(zip(names, ends, strict=True), 1):
            subprocess.run(["ip", "link", "set", end, "netns", name], check=True)
            inside = ["ip", "-n", name]
            subprocess.run([*inside, "addr", "add", f"10.77.0.{number}/24", "dev", end], check=True)
            for device in ("lo", end):
                subprocess.run([*inside, "link", "set", device, "up"], check=True)
        yield names
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True)


def test_two_machines_that_call_themselves_127_0_1_1_train_together(
    namespaces: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("GLOO_SOCKET_IFNAME", "TORCH_GLOO_LAZY_INIT"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "hosts").write_text(HOSTS)
    shell = f"mount --bind {tmp_path}/hosts /etc/hosts && hostname lab && exec " + '"$@"'
    worker = [sys.executable, "-c", RANK]
    ranks = [
        subprocess.Popen(
            [*f"ip netns exec {name} unshare --mount --uts sh -c".split(), shell, "sh", *worker, str(rank), "29517"],
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank, name in enumerate(namespaces)
    ]
    answers = [json.loads(rank.communicate(timeout=120)[0].splitlines()[-1]) for rank in ranks]
    assert [answer["sum"] for answer in answers] == [3.0, 3.0]
    assert all(answer["interface"].startswith("v") for answer in answers)


def test_processes_of_one_machine_meet_on_the_loopback_interface(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GLOO_SOCKET_IFNAME", raising=False)
    launch = plan_launch(JOB, LaunchOptions(num_processes=2), CPU)
    assert launch.environment["GLOO_SOCKET_IFNAME"] == interface_to(None)
    assert interface_to(None) in ("lo", "lo0")
    assert "GLOO_SOCKET_IFNAME" not in plan_launch(JOB, LaunchOptions(), CPU).environment, "one meets nobody"
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "ib0")
    assert "GLOO_SOCKET_IFNAME" not in plan_launch(JOB, LaunchOptions(num_processes=2), CPU).environment


def test_an_address_that_nobody_knows_leaves_it_to_gloo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("accel_trainer.core.network.ANYWHERE", "no such host.invalid")
    assert interface_to("no such host.invalid") is None
