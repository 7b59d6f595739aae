"""How a job is launched: which command, in which environment, on which devices."""

import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from accel_trainer.config import Job
from accel_trainer.config.parameters import QueueParameters
from accel_trainer.core.allow_imports import ALLOW_VARIABLE
from accel_trainer.core.child_environment import WORKSPACE, WORKSPACE_VARIABLE
from accel_trainer.core.errors import UserError
from accel_trainer.core.files import cache_folder
from accel_trainer.core.launched import CORES_VARIABLE, GPU_VARIABLE
from accel_trainer.core.network import interface_to
from accel_trainer.core.processes import Program
from accel_trainer.launch.accelerate_config import (
    NO_CONFIG,
    AccelerateConfig,
    ConfigFile,
    MachineUnusable,
    Origin,
    TooFewGpus,
    UnusableHere,
    config_file,
    read_config,
    refuse_other_machines,
)
from accel_trainer.launch.machine import Machine, refuse_parts_together
from accel_trainer.launch.nvidia import Gpu
from accel_trainer.launch.visible import OF_THE_BUS, ORDER_VARIABLE, VISIBLE_VARIABLE

# The same for every launch: no file of `accelerate config` is read, and the job decides of precision and compilation.
# Of the precision that file says it: for an option Accelerate would ask the GPU, which takes memory of it.
BASE_ARGS = ("--config_file", str(NO_CONFIG), "--dynamo_backend", "no")
GLOO_VARIABLE = "GLOO_SOCKET_IFNAME"
# What Accelerate tells Intel's OpenMP, for a single process on the CPU.
ON_CPU = {"KMP_AFFINITY": "granularity=fine,compact,1,0", "KMP_BLOCKTIME": "1"}
# How long torchrun lets ranks save after a signal to stop.
SHUTDOWN_S = 90


@dataclass(frozen=True)
class LaunchOptions:
    """What the user gave on the command line; it goes before everything else. cpu: leave GPUs alone."""

    config: Path | None = None
    num_processes: int | None = None
    gpus: tuple[str, ...] | None = None
    cpu: bool = False

    def argv(self) -> list[str]:
        """The same flags, for another call of accel-train."""
        words = ["--config", str(self.config)] if self.config is not None else []
        words += ["--num-processes", str(self.num_processes)] if self.num_processes is not None else []
        words += ["--gpus", ",".join(self.gpus)] if self.gpus is not None else []
        return [*words, "--cpu"] if self.cpu else words


@dataclass(frozen=True)
class Launch:
    """An `accelerate launch` of a module. `environment` is what is set beside that of everything that is launched."""

    accelerate_args: tuple[str, ...]
    environment: Mapping[str, str]
    num_processes: int
    worker_args: tuple[str, ...] = ()
    machine_rank: int = 0
    worker: Program = Program.TRAIN

    @property
    def becomes_worker(self) -> bool:
        """Whether the launcher does the work itself, as the only process."""
        return self.num_processes == 1

    @property
    def argv(self) -> list[str]:
        """The command line of the launcher."""
        # The module form: the `accelerate` command takes seconds longer to start.
        several = [sys.executable, "-m", "accelerate.commands.launch"]
        launcher = Program.LAUNCH.command() if self.becomes_worker else several
        return [*launcher, *self.accelerate_args, "-m", self.worker, *self.worker_args]

    def beforehand(self, inherited: Mapping[str, str]) -> dict[str, str]:
        """Of what Accelerate sets for a single process that which is read while torch is imported: it has to be in the
        environment before. Where this is not what Accelerate decides, `Program.LAUNCH` starts its process anew."""
        if not self.becomes_worker:
            return {}
        threads = self._option("--num_cpu_threads_per_process", inherited.get("OMP_NUM_THREADS", "1"))
        found = {"OMP_NUM_THREADS": threads}
        if (gpus := self._option("--gpu_ids", "all")) != "all":
            found[VISIBLE_VARIABLE] = gpus
        return {**found, **ON_CPU} if self.is_on_cpu else found

    def _option(self, name: str, otherwise: str) -> str:
        """What an option of Accelerate was given."""
        args = self.accelerate_args
        return args[args.index(name) + 1] if name in args else otherwise

    @property
    def is_on_cpu(self) -> bool:
        """Whether GPUs are left alone; the launch then says how many threads compute."""
        return "ACCELERATE_USE_CPU" in self.environment

    def __str__(self) -> str:
        """The command as one could type it."""
        environment = {"PYTHONSAFEPATH": "1", **self.environment}
        variables = [f"{name}={shlex.quote(value)}" for name, value in environment.items()]
        command = ["accelerate", "launch", *self.accelerate_args, "-m", self.worker, *self.worker_args]
        return " ".join([*variables, shlex.join(command)])


def plan_launch(
    job: Job, flags: LaunchOptions, machine: Machine, worker_args: Sequence[str] = (), worker: Program = Program.TRAIN
) -> Launch:
    """The launch of a job's training, or of another module for it. Flags go before the job's accelerate_config, that
    before the user's own default of `accelerate config`, that before what is there. Raises UserError; UnusableHere
    where no job can be launched, as its file that no job has named cannot be used.
    """
    given = machine.chosen(flags.gpus or ())
    refuse_parts_together(given)
    file = config_file(job.accelerate_config, flags.config)
    if job.num_processes is not None and flags.num_processes is None and flags.gpus is None:
        flags, is_jobs = replace(flags, num_processes=job.num_processes), True
    else:
        is_jobs = False
    launch = _detected(flags, machine) if file is None else _by_config(file, flags, machine)
    if launch.is_on_cpu:
        _refuse_crowd(launch.num_processes, machine)
    elif flags.num_processes is not None:
        _refuse_more_than_gpus(launch.num_processes, given, machine, is_jobs=is_jobs)
    environment = {**launch.environment, "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": str(SHUTDOWN_S)}
    if allowed := os.environ.get(ALLOW_VARIABLE):
        environment[ALLOW_VARIABLE] = allowed  # inherited anyway; here for those who type the printed command
    if job.compile and "TORCHINDUCTOR_CACHE_DIR" not in os.environ:
        # Not among the temporary files of the attempt: the next one needs not compile it again. Without a home it does.
        with suppress(UserError):
            environment["TORCHINDUCTOR_CACHE_DIR"] = str(cache_folder() / "torchinductor")
    environment |= _meeting_place(launch)
    if machine.is_shared:
        environment[CORES_VARIABLE] = str(machine.cores)
    if not launch.is_on_cpu:
        environment |= _of_gpus(launch, given, machine)
        environment |= {} if job.fast_kernels else {WORKSPACE_VARIABLE: WORKSPACE}
    return replace(launch, environment=environment, worker_args=tuple(worker_args), worker=worker)


def _meeting_place(launch: Launch) -> dict[str, str]:
    """The network interface on which several processes meet. By itself gloo takes the address of the machine's own
    name, which may be one that leads nowhere."""
    if launch.num_processes == 1 or GLOO_VARIABLE in os.environ:
        return {}
    args = launch.accelerate_args
    first = args[args.index("--main_process_ip") + 1] if "--main_process_ip" in args else None
    interface = interface_to(first)
    return {} if interface is None else {GLOO_VARIABLE: interface}


def _of_gpus(launch: Launch, given: Sequence[Gpu], machine: Machine) -> dict[str, str]:
    """What shows a launch its GPUs, and has its processes refuse to train on anything else."""
    environment = {}
    chooses_itself = "--gpu_ids" in launch.accelerate_args and "all" not in launch.accelerate_args
    gpus = given or (machine.together if machine.are_named and not chooses_itself else ())
    if gpus:
        environment = {VISIBLE_VARIABLE: ",".join(gpu.visible for gpu in gpus), ORDER_VARIABLE: OF_THE_BUS}
    has_others = machine.has_uncounted or (machine.may_have_other_gpus and launch.num_processes > 1)
    if machine.gpus or machine.has_mps or has_others:
        environment[GPU_VARIABLE] = "1"
    return environment


def _refuse_crowd(count: int, machine: Machine) -> None:
    if not machine.is_shared and count > machine.most_cpu_processes:
        message = f"{count:,} are more than may train on {machine.cores} cores, {machine.most_cpu_processes}"
        raise TooFewGpus(message, key="num_processes")


def _refuse_more_than_gpus(count: int, given: Sequence[Gpu], machine: Machine, *, is_jobs: bool) -> None:
    """Without a GPU for each process, several would be on one. A job that asks for them may be for another machine."""
    there = len(given or machine.together) or int(machine.has_mps)
    if there == 0 or count <= there * machine.nodes.number:
        return
    message = f"{count} processes, and GPUs for {there * machine.nodes.number}: each needs one of its own"
    if is_jobs:
        raise TooFewGpus(message, key="num_processes")
    raise UnusableHere(message, option="num_processes", hint="`cpu` has several processes share the CPU")


def _refuse_unusable(flags: LaunchOptions, config: AccelerateConfig | None, machine: Machine) -> None:
    """Who trains on the CPU where there is a GPU has asked for that. Raises MachineUnusable."""
    on_cpu = flags.cpu or (config is not None and config.use_cpu)
    if on_cpu or machine.unusable is None or (machine.unusable.is_uncounted and config is not None):
        return
    raise MachineUnusable(machine.unusable.message, hint=machine.unusable.hint)


def num_processes_wanted(job: QueueParameters, flags: LaunchOptions, machine: Machine | None = None) -> int | None:
    """How many processes, each with a GPU of its own, a job is to have on this machine; None where nobody says.

    machine: that on which it is to be launched, if that is known. Raises UserError; UnusableHere where no job has named
    the file that counts.
    """
    file = config_file(job.accelerate_config, flags.config)
    config = None if file is None else read_config(file)
    if machine is not None:
        _refuse_unusable(flags, config, machine)
    if flags.num_processes is not None:
        return flags.num_processes
    if job.num_processes is not None:
        return job.num_processes
    if file is None or config is None:
        return None
    if machine is not None and file.origin is not Origin.JOB and flags.gpus is None:
        _refuse_missing_gpus(file, config, machine)
    return config.num_processes // config.num_machines


def _by_config(file: ConfigFile, flags: LaunchOptions, machine: Machine) -> Launch:
    config, nodes = read_config(file), machine.nodes
    if flags.cpu:
        config = config.model_copy(update={"use_cpu": True})
    _refuse_unusable(flags, config, machine)
    if nodes.number > 1:  # they were given by the caller; the file's own are of other machines
        config = config.model_copy(update={"num_machines": 1, "machine_rank": 0, "main_process_port": nodes.port})
    refuse_other_machines(file, config)
    is_one_machine = config.num_machines == 1
    count = config.num_processes
    if is_one_machine or flags.num_processes is not None:  # the GPUs of this machine do not show those of the others
        count = _count(flags, count)
    if flags.num_processes is None and flags.gpus is None:
        _refuse_missing_gpus(file, config, machine)
    refuse_uneven(count, nodes.number)
    args = [*BASE_ARGS, "--num_processes", str(count), *nodes.argv(), *config.machine_args]
    if count > 1:
        args.append("--multi_gpu")
    if count > 1 and is_one_machine and nodes.number == 1:
        args += ["--main_process_port", str(config.main_process_port or 0)]  # 0: a free one
    # Of the visible ones, where flags choose; the file's own choice would hide theirs.
    args += ["--gpu_ids", "all" if flags.gpus is not None or config.gpus is None else ",".join(config.gpus)]
    args += ["--debug"] if config.debug else []
    args += ["--enable_cpu_affinity"] if config.enable_cpu_affinity else []
    environment = {}
    if config.use_cpu:
        environment["ACCELERATE_USE_CPU"] = "true"
        args += ["--num_cpu_threads_per_process", str(_threads(machine, count))]
        args += [] if count > 1 else ["--cpu"]
    machine_rank = nodes.rank if is_one_machine else config.machine_rank
    return Launch(tuple(args), environment, count, machine_rank=machine_rank)


def gpus_lacking(job: QueueParameters, flags: LaunchOptions, machine: Machine) -> int | None:
    """How many GPUs the job's own config file asks for, where this machine has fewer. Raises UserError."""
    file = config_file(job.accelerate_config, flags.config)
    is_counted = any(number is not None for number in (flags.num_processes, flags.gpus, job.num_processes))
    if file is None or file.origin is not Origin.JOB or is_counted:
        return None
    config = read_config(file)
    return config.num_processes if _lacks_gpus(config, machine) else None


def _refuse_missing_gpus(file: ConfigFile, config: AccelerateConfig, machine: Machine) -> None:
    if _lacks_gpus(config, machine):
        file.refuse_gpus(config.num_processes, len(machine.together))


def _lacks_gpus(config: AccelerateConfig, machine: Machine) -> bool:
    """Without a GPU for each process, each would train alone, or on another's GPU."""
    count, there = config.num_processes, len(machine.together)
    is_known = bool(there) or not machine.may_have_other_gpus
    if config.distributed_type != "MULTI_GPU" or config.use_cpu or config.num_machines > 1 or machine.nodes.number > 1:
        return False
    return is_known and count > max(1, there)


def _detected(flags: LaunchOptions, machine: Machine) -> Launch:
    """One process for each GPU, or one on the CPU; several on the CPU only when asked for."""
    _refuse_unusable(flags, None, machine)
    devices = 0 if flags.cpu else len(flags.gpus) if flags.gpus is not None else len(machine.together)
    nodes = machine.nodes
    count = _count(flags, max(1, devices) * nodes.number)
    refuse_uneven(count, nodes.number)
    args = [*BASE_ARGS, "--num_processes", str(count)]
    args += nodes.argv() or ["--num_machines", "1"]
    environment = {}
    if count > 1:
        args += ["--multi_gpu"]
    if count > 1 and nodes.number == 1:
        args += ["--main_process_port", "0"]
    if not devices and (flags.cpu or not machine.has_mps):
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
