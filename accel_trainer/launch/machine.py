"""The machine that trains: its GPUs, its cores, and the others that train the same job with it."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from accel_trainer.core.child_environment import tool_environment
from accel_trainer.core.errors import UserError
from accel_trainer.core.processes import usable_cores
from accel_trainer.core.text import first_line


@dataclass(frozen=True)
class Gpu:
    """A GPU as nvidia-smi lists it: index (CUDA_VISIBLE_DEVICES takes it), name, and memory with its unit."""

    index: str
    name: str
    memory: str

    def __str__(self) -> str:
        return f"{self.index}: {self.name} ({self.memory})"


@dataclass(frozen=True)
class Nodes:
    """Machines that train one job together, and which of them this is. The first one's address and port are for all."""

    number: int = 1
    rank: int = 0
    address: str = ""
    port: int = 0

    def argv(self) -> list[str]:
        """What passes them to accelerate; nothing where there is one."""
        if self.number == 1:
            return []
        place = ["--main_process_ip", self.address, "--main_process_port", str(self.port)]
        return ["--num_machines", str(self.number), "--machine_rank", str(self.rank), "--same_network", *place]


# On a CPU so many processes may train together: each takes a GB of memory, and shares the cores.
LEAST_PROCESSES, PROCESSES_PER_CORE = 8, 4


@dataclass(frozen=True)
class Machine:
    """The devices that are there.

    is_shared: the cores are a part of those that this process may use. may_have_other_gpus: there may be GPUs that are
    not listed, such as AMD's, or NVIDIA's where nvidia-smi is not there.
    """

    gpus: tuple[Gpu, ...]
    has_mps: bool
    cores: int
    nodes: Nodes = Nodes()
    is_shared: bool = False
    may_have_other_gpus: bool = False

    @property
    def most_cpu_processes(self) -> int:
        """How many processes may train together on the CPUs of all nodes."""
        return max(LEAST_PROCESSES, PROCESSES_PER_CORE * self.cores) * self.nodes.number

    def share(self, cores: int) -> "Machine":
        """What a job sees that has only so many of the cores."""
        return replace(self, cores=cores, is_shared=self.is_shared or cores < self.cores)

    def refuse_missing(self, gpus: Collection[str]) -> None:
        """Raises UserError for a GPU that is not there, naming those that are."""
        there = [gpu.index for gpu in self.gpus]
        if missing := [index for index in gpus if index not in there]:
            found = f"there are {', '.join(there)}" if there else "no GPU was found on this machine"
            raise UserError(f"no GPU {', '.join(missing)}", option="gpus", hint=found)


# Of the drivers of AMD, NVIDIA, Habana, Ascend, Cambricon and Moore Threads.
GPU_DEVICES = (
    "/dev/kfd",
    "/dev/nvidiactl",
    "/dev/nvidia0",
    "/dev/accel",
    "/dev/davinci_manager",
    "/dev/cambricon_ctl",
    "/dev/mtgpu.0",
)


@cache
def this_machine() -> Machine:
    """Looks without torch: the process that starts trainers must not touch a GPU."""
    has_mps = sys.platform == "darwin" and os.uname().machine == "arm64"
    return Machine(tuple(_gpus()), has_mps, usable_cores(), may_have_other_gpus=any(map(os.path.exists, GPU_DEVICES)))


_GPU_LINE = re.compile(r"(\s*\d+\s*),([^,]*),(.*),([^,]*)")


def _gpus() -> list[Gpu]:
    """NVIDIA's GPUs, in the order of the bus; only those that CUDA_VISIBLE_DEVICES leaves, where it is set."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if not (tool := shutil.which("nvidia-smi")):
        return []
    query = [tool, "--query-gpu=index,uuid,name,memory.total", "--format=csv,noheader"]
    try:
        answer = subprocess.run(
            query, capture_output=True, text=True, errors="replace", timeout=30, check=True, env=tool_environment()
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    gpus = []
    for line in answer.strip().splitlines():
        # A name may have commas in it; a line that is none of a GPU's says that there is none, or what is wrong.
        if (found := _GPU_LINE.fullmatch(line)) is None:
            continue
        index, uuid, name, memory = (part.strip() for part in found.groups())
        if visible is None or any(word in (index, uuid) for word in visible.split(",")):
            gpus.append(Gpu(index, name, memory))
    return gpus


# A GPU on which nobody is has some memory taken by the driver.
FREE_BELOW = 0.05


class GpuMemory:
    """Looks at the memory of GPUs. Raises UserError where NVML is not there, or has no such GPU."""

    def __init__(self, free_below: float = FREE_BELOW) -> None:
        """A GPU counts as free while less than this part of its memory is taken, 0 to 1."""
        self._free_below = free_below
        try:
            import pynvml
        except ImportError as error:
            hint = "or leave `wait_free` out"
            raise UserError(
                "`wait_free` needs NVIDIA's management library: pip install nvidia-ml-py", hint=hint
            ) from error
        self._nvml: Any = pynvml
        try:
            pynvml.nvmlInit()
        except pynvml.NVMLError as error:
            message = f"NVIDIA's management library does not answer: {first_line(error)}"
            raise UserError(message, option="wait_free", hint="leave `wait_free` out") from error

    def occupied(self, gpus: list[str]) -> set[str]:
        """Those of these GPUs, by index in the order of the bus, whose memory somebody uses."""
        return {gpu for gpu in gpus if self._part_taken(gpu) >= self._free_below}

    def _part_taken(self, gpu: str) -> float:
        try:
            memory = self._nvml.nvmlDeviceGetMemoryInfo(self._nvml.nvmlDeviceGetHandleByIndex(int(gpu)))
        except self._nvml.NVMLError as error:
            with suppress(self._nvml.NVMLError):
                self._nvml.nvmlInit()  # a driver that was reset knows this process no more
            raise UserError(f"GPU {gpu} cannot be looked at: {first_line(error)}", option="wait_free") from error
        return float(memory.used / memory.total) if memory.total else 1.0  # its share is not known
