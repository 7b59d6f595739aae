"""A launch of one process is `accelerate launch`, in one process: the same environment, module and arguments."""

import logging
import os
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import accelerate.commands.launch as accelerate_launch
import pytest

from accel_trainer.config import Job
from accel_trainer.launch.command import Launch, LaunchOptions, plan_launch
from accel_trainer.launch.machine import Machine
from accel_trainer.launch.nvidia import Gpu
from accel_trainer.workers import launch as launch_module

CPU = Machine((), has_mps=False, cores=3)
GPU = Machine((Gpu("1", "A100", "40 GiB"),), has_mps=False, cores=8, are_named=True)
MAC = Machine((), has_mps=True, cores=8)
ARGS = ["a b.json", "--name=a"]


class Started(Exception):
    """What was started: command line, without Python, and environment."""

    def __init__(self, command: list[str], environment: dict[str, str]) -> None:
        super().__init__(command)
        self.command, self.environment = command, environment


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Any:
    """What main() starts that is given a command line of Accelerate's and an environment."""

    def child(command: list[str], env: dict[str, str]) -> None:
        raise Started(command[1:], env)

    def here(module: str, *, run_name: str, alter_sys: bool) -> None:
        assert (run_name, alter_sys) == ("__main__", True)
        raise Started(["-m", module, *sys.argv[1:]], dict(os.environ))

    def ask_gpu(*_: object) -> None:
        pytest.fail("a process that waits for its job touches no GPU")

    monkeypatch.setattr(accelerate_launch, "is_bf16_available", ask_gpu)
    monkeypatch.setattr(accelerate_launch, "simple_launcher", accelerate_launch.simple_launcher)  # and back again

    monkeypatch.setattr(subprocess, "Popen", child)
    monkeypatch.setattr(runpy, "run_module", here)
    monkeypatch.setattr(os, "execvpe", lambda file, command, env: child([file, "replaced", *command[1:]], env))

    def started(main: Any, args: tuple[str, ...], environment: dict[str, str]) -> Started:
        monkeypatch.setattr(sys, "argv", ["launch", *args])
        before = dict(os.environ)
        set_environment(environment)
        try:
            main()
        except Started as what:
            return what
        finally:
            set_environment(before)
        raise AssertionError("nothing was started")

    return started


def set_environment(environment: dict[str, str]) -> None:
    os.environ.clear()
    os.environ |= environment


def planned(machine: Machine, tmp_path: Path, config: str | None = None, **options: Any) -> Launch:
    if config is not None:
        (tmp_path / "config.yaml").write_text(config)
        options["config"] = tmp_path / "config.yaml"
    return plan_launch(Job(architecture="resnet18"), LaunchOptions(**options), machine, ARGS)


@pytest.mark.parametrize(
    ("machine", "config", "options"),
    [
        (CPU, None, {}),
        (GPU, None, {}),
        (GPU, None, {"gpus": ("1",)}),
        (GPU, None, {"cpu": True}),
        (MAC, None, {}),
        (GPU, "distributed_type: 'NO'\ngpu_ids: '1'\nnum_processes: 1\n", {}),
        (GPU, "distributed_type: 'NO'\ngpu_ids: all\nnum_processes: 1\ndebug: true\nmixed_precision: bf16\n", {}),
        (CPU, "distributed_type: 'NO'\nuse_cpu: true\nnum_processes: 1\nenable_cpu_affinity: true\n", {}),
    ],
    ids=["cpu", "gpu", "chosen gpu", "cpu where a gpu is", "mac", "gpu of a config", "debug", "affinity"],
)
@pytest.mark.parametrize("shell", [{}, {"OMP_NUM_THREADS": "5", "KMP_BLOCKTIME": "9"}], ids=["plain", "tuned"])
def test_the_trainer_finds_what_accelerate_launch_gives(
    start: Any, tmp_path: Path, machine: Machine, config: str | None, options: dict[str, Any], shell: dict[str, str]
) -> None:
    launch = planned(machine, tmp_path, config, **options)
    inherited = {"PATH": os.environ["PATH"], "HOME": os.environ["HOME"], **shell, **launch.environment}
    args = (*launch.accelerate_args, "-m", launch.worker, *launch.worker_args)
    reference = start(accelerate_launch.main, args, inherited)
    assert reference.command == ["-m", "accel_trainer.workers.train", *ARGS]
    assert reference.environment["OMP_NUM_THREADS"]
    handlers = logging.getLogger().handlers[:]
    found = start(launch_module.main, args, {**inherited, **launch.beforehand(inherited)})
    assert found.command == reference.command, "torch was imported in vain"
    assert found.environment == reference.environment
    assert logging.getLogger().handlers == handlers


def test_a_process_that_has_imported_torch_with_other_variables_begins_anew(start: Any, tmp_path: Path) -> None:
    launch = planned(CPU, tmp_path)
    args = (*launch.accelerate_args, "-m", launch.worker, *launch.worker_args)
    found = start(launch_module.main, args, {"PATH": os.environ["PATH"], **launch.environment})
    assert found.command == ["replaced", "-m", "accel_trainer.workers.train", *ARGS]
    assert found.environment["OMP_NUM_THREADS"] == "3"
    script = start(launch_module.main, (*launch.accelerate_args, "script.py", "1"), {"PATH": os.environ["PATH"]})
    assert script.command == ["replaced", "script.py", "1"]
