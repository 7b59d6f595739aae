"""How a job is launched: which command, in which environment, on which devices."""

import os
import shlex
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from accel_trainer.config import Job
from accel_trainer.core.allow_imports import ALLOW_VARIABLE
from accel_trainer.core.errors import UserError
from accel_trainer.core.files import read_bytes
from accel_trainer.core.processes import CORES_VARIABLE, Program
from accel_trainer.core.text import first_line
from accel_trainer.launch.machine import Machine

# How long torchrun lets ranks save after a signal to stop.
SHUTDOWN_S = 90


@dataclass(frozen=True)
class LaunchOptions:
    """What the user said on the command line; it goes before everything else."""

    config: Path | None = None
    num_processes: int | None = None
    gpus: tuple[str, ...] | None = None

    def argv(self) -> list[str]:
        """The same flags, for another call of accel-train."""
        words = ["--config", str(self.config)] if self.config is not None else []
        words += ["--num-processes", str(self.num_processes)] if self.num_processes is not None else []
        words += ["--gpus", ",".join(self.gpus)] if self.gpus is not None else []
        return words


@dataclass(frozen=True)
class Launch:
    """An `accelerate launch` of a module. `environment` is what is set beside the inherited one."""

    accelerate_args: tuple[str, ...]
    environment: Mapping[str, str]
    num_processes: int
    worker_args: tuple[str, ...] = ()
    machine_rank: int = 0
    worker: Program = Program.TRAIN

    @property
    def argv(self) -> list[str]:
        """The command line of the launcher."""
        # The module form: the `accelerate` command takes seconds longer to start.
        launcher = [sys.executable, "-m", "accelerate.commands.launch"]
        return [*launcher, *self.accelerate_args, "-m", self.worker, *self.worker_args]

    def __str__(self) -> str:
        """The command as one could type it."""
        variables = [f"{name}={shlex.quote(value)}" for name, value in self.environment.items()]
        command = ["accelerate", "launch", *self.accelerate_args, "-m", self.worker, *self.worker_args]
        return " ".join([*variables, shlex.join(command)])


def plan_launch(
    job: Job, flags: LaunchOptions, machine: Machine, worker_args: Sequence[str] = (), worker: Program = Program.TRAIN
) -> Launch:
    """The launch of a job's training, or of another module for it. Flags go before the job's accelerate_config, that
    before the user's own default of `accelerate config`, that before what is there. Raises UserError.
    """
    machine.refuse_missing(flags.gpus or ())
    path = _config_path(job, flags)
    if job.num_processes is not None and flags.num_processes is None and flags.gpus is None:
        flags = replace(flags, num_processes=job.num_processes)
    launch = _detected(flags, machine) if path is None else _by_config(path, read_config(path), flags, machine)
    environment = {**launch.environment, "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": str(SHUTDOWN_S)}
    if allowed := os.environ.get(ALLOW_VARIABLE):
        environment[ALLOW_VARIABLE] = allowed  # inherited anyway; here for those who type the printed command
    if job.compile and "TORCHINDUCTOR_CACHE_DIR" not in os.environ:
        # Not among the temporary files of the attempt: the next one needs not compile it again.
        environment["TORCHINDUCTOR_CACHE_DIR"] = str(Path(tempfile.gettempdir()) / f"torchinductor_{os.getuid()}")
    if machine.is_shared:
        environment[CORES_VARIABLE] = str(machine.cores)
    if flags.gpus is not None:
        environment |= {"CUDA_VISIBLE_DEVICES": ",".join(flags.gpus), "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    return replace(launch, environment=environment, worker_args=tuple(worker_args), worker=worker)


def num_processes_wanted(job: Job, flags: LaunchOptions) -> int | None:
    """How many processes, each with a GPU of its own, a job is to have on this machine; None where nobody says.
    Raises UserError."""
    if flags.num_processes is not None:
        return flags.num_processes
    if job.num_processes is not None:
        return job.num_processes
    if (path := _config_path(job, flags)) is None:
        return None
    content = read_config(path)
    return integer(path, content, "num_processes", 1) // integer(path, content, "num_machines", 1)


def _config_path(job: Job, flags: LaunchOptions) -> Path | None:
    if flags.config is not None:
        return flags.config
    if job.accelerate_config is not None:
        return Path(job.accelerate_config).expanduser()
    return users_default()


def _by_config(path: Path, content: Mapping[str, Any], flags: LaunchOptions, machine: Machine) -> Launch:
    refuse_unknown_type(path, content)
    nodes = machine.nodes
    if nodes.number > 1:  # they were given by the caller; the file's own are of other machines
        content = {**content, "num_machines": 1, "machine_rank": 0, "main_process_port": nodes.port}
    is_one_machine = integer(path, content, "num_machines", 1) == 1
    count = integer(path, content, "num_processes", 1)
    if is_one_machine or flags.num_processes is not None:  # the GPUs of this machine tell nothing of the others'
        count = _count(flags, count)
    refuse_uneven(count, nodes.number)
    args = ["--config_file", str(path), "--num_processes", str(count), "--dynamo_backend", "no", *nodes.argv()]
    if content["distributed_type"] in ONE_PROCESS and count > 1:
        args.append("--multi_gpu")
    if count > 1 and is_one_machine and not content.get("main_process_port"):
        args += ["--main_process_port", "0"]  # a free one
    if flags.gpus is not None:
        args += ["--gpu_ids", "all"]  # of the visible ones; the file's own choice would hide our flag
    environment = {}
    if content.get("use_cpu"):
        environment["ACCELERATE_USE_CPU"] = "true"
        args += ["--num_cpu_threads_per_process", str(_threads(machine, count))]
    machine_rank = nodes.rank if is_one_machine else integer(path, content, "machine_rank", 0, least=0)
    return Launch(tuple(args), environment, count, machine_rank=machine_rank)


def _detected(flags: LaunchOptions, machine: Machine) -> Launch:
    """One process for each GPU, or one on the CPU; several on the CPU only when asked for."""
    devices = len(flags.gpus) if flags.gpus is not None else len(machine.gpus)
    nodes = machine.nodes
    count = _count(flags, max(1, devices) * nodes.number)
    refuse_uneven(count, nodes.number)
    args = ["--num_processes", str(count), "--mixed_precision", "no", "--dynamo_backend", "no"]
    args += nodes.argv() or ["--num_machines", "1"]
    environment = {}
    if count > 1:
        args += ["--multi_gpu"]
    if count > 1 and nodes.number == 1:
        args += ["--main_process_port", "0"]
    if not devices and not machine.has_mps:
        environment["ACCELERATE_USE_CPU"] = "true"
        args += ["--num_cpu_threads_per_process", str(_threads(machine, count))]
        args += [] if count > 1 else ["--cpu"]
    return Launch(tuple(args), environment, count, machine_rank=nodes.rank)


def refuse_uneven(num_processes: int, num_nodes: int) -> None:
    """Every node has as many processes as the others. Raises UserError."""
    if num_processes % num_nodes:
        raise UserError(f"num_processes: {num_processes} do not divide over {num_nodes} nodes")


def _threads(machine: Machine, count: int) -> int:
    """The cores of each process, of so many on all nodes."""
    return max(1, machine.cores * machine.nodes.number // count)


def _count(flags: LaunchOptions, otherwise: int) -> int:
    if flags.num_processes is not None:
        return flags.num_processes
    return len(flags.gpus) if flags.gpus is not None else otherwise


# Unquoted, YAML reads NO as false.
ONE_PROCESS = ("NO", False)
MULTI_GPU_TYPES = ("MULTI_GPU", "MULTI_NPU", "MULTI_MLU", "MULTI_MUSA", "MULTI_XPU", "MULTI_HPU")
MAX_CONFIG, MAX_CONFIG_DEPTH = 64 * 1024, 10


def users_default() -> Path | None:
    """The file that `accelerate config` writes, if there is one."""
    cache_home = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser()
    home = Path(os.environ.get("HF_HOME", cache_home / "huggingface")).expanduser()
    path = home / "accelerate" / "default_config.yaml"
    return path if path.is_file() else None


def read_config(path: Path) -> Mapping[str, Any]:
    """A YAML of `accelerate config`. Raises UserError."""
    import yaml

    try:
        text = read_bytes(path, MAX_CONFIG)
        _refuse_what_grows(path, text)
        content = yaml.safe_load(text)
    except OSError as error:
        raise UserError(f"accelerate_config: {path} cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(f"accelerate_config: {path} is not YAML: {first_line(error)}") from error
    if isinstance(content, dict) and content.get("compute_environment", "LOCAL_MACHINE") != "LOCAL_MACHINE":
        raise UserError(f"accelerate_config: {path}: compute_environment may only be LOCAL_MACHINE")
    if not isinstance(content, dict) or "distributed_type" not in content:
        raise UserError(f"accelerate_config: {path} has no distributed_type: it is not a file of `accelerate config`")
    return content


def _refuse_what_grows(path: Path, text: bytes) -> None:
    """A few aliases can stand for billions of values, and PyYAML takes minutes over a small file that is deep."""
    import yaml

    depth = 0
    for event in yaml.parse(text):
        if isinstance(event, yaml.AliasEvent):
            raise UserError(f"accelerate_config: {path}: write out what its aliases (*name) stand for")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_CONFIG_DEPTH:
            raise UserError(f"accelerate_config: {path} is nested too deeply")


def refuse_unknown_type(path: Path, content: Mapping[str, Any]) -> None:
    """What the training loop is made for: one process, or a copy of the model in each of several."""
    kind = content["distributed_type"]
    if kind == "MULTI_CPU":
        raise UserError(
            f"accelerate_config: {path}: with distributed_type MULTI_CPU, accelerate starts one process; "
            "for several on the CPU use MULTI_GPU with use_cpu: true, as accelerate_configs/multi_cpu.yaml"
        )
    if kind not in (*ONE_PROCESS, *MULTI_GPU_TYPES):
        raise UserError(
            f"accelerate_config: {path}: distributed_type {kind} is not supported; it is NO or "
            f"{', '.join(MULTI_GPU_TYPES)}"
        )


def integer(path: Path, content: Mapping[str, Any], key: str, default: int, least: int = 1) -> int:
    """A whole number of a config. Raises UserError."""
    value = content.get(key)
    value = default if value is None else value
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise UserError(f"accelerate_config: {path}: {key}: {value!r} is not an integer of {least} or more")
    return value
