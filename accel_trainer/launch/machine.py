"""The machine that trains: its GPUs, its cores, and the others that train the same job with it."""

import os
import re
import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

from accel_trainer.core.errors import UserError
from accel_trainer.core.processes import usable_cores
from accel_trainer.launch.nvidia import Found, Gpu, answer_of_driver
from accel_trainer.launch.other_gpus import MAKERS
from accel_trainer.launch.visible import OF_THE_BUS, ORDER_VARIABLE, VISIBLE_VARIABLE, by_uuid, hides_all, visible_gpus


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
class Unusable:
    """Why GPUs that are there are none to train on, and what to do. is_uncounted: they are of a kind that only a config
    can count."""

    message: str
    hint: str
    is_uncounted: bool = False


@dataclass(frozen=True)
class Machine:
    """The devices that are there.

    is_shared: the cores are a part of those that this process may use. may_have_other_gpus: there may be GPUs that are
    not listed, such as AMD's, or NVIDIA's where no driver answers. unusable: why nothing may be trained on a GPU here
    although there is one. are_named: whether a launch has to name the GPUs, as CUDA would not see just these by itself.
    """

    gpus: tuple[Gpu, ...]
    has_mps: bool
    cores: int
    nodes: Nodes = Nodes()
    is_shared: bool = False
    may_have_other_gpus: bool = False
    unusable: Unusable | None = None
    are_named: bool = False

    @property
    def has_uncounted(self) -> bool:
        """Whether there is a GPU that torch was built for and that is not listed: a config says how many there are."""
        return self.unusable is not None and self.unusable.is_uncounted

    @property
    def most_cpu_processes(self) -> int:
        """How many processes may train together on the CPUs of all nodes."""
        return max(LEAST_PROCESSES, PROCESSES_PER_CORE * self.cores) * self.nodes.number

    @property
    def together(self) -> tuple[Gpu, ...]:
        """The GPUs that one job has which names none: all that are whole, or one MIG device."""
        whole = tuple(gpu for gpu in self.gpus if not gpu.is_part)
        return whole or self.gpus[:1]

    def share(self, cores: int) -> "Machine":
        """What a job sees that has only so many of the cores."""
        return replace(self, cores=cores, is_shared=self.is_shared or cores < self.cores)

    def chosen(self, names: Collection[str]) -> tuple[Gpu, ...]:
        """GPUs by their indices, such as 0, or 0:1 for a MIG device, or by beginnings of their UUIDs. Raises UserError
        for one that is not there, naming those that are."""
        gpus = {name: self._named(name) for name in names}
        if missing := [name for name, gpu in gpus.items() if gpu is None]:
            there = [gpu.index for gpu in self.gpus]
            found = f"there are {', '.join(there)}" if there else "no GPU was found on this machine"
            if self.unusable is not None and not there:
                found = f"{self.unusable.message}; {self.unusable.hint}"
            raise UserError(f"no GPU {', '.join(missing)}", option="gpus", hint=found)
        found_gpus = [gpu for gpu in gpus.values() if gpu is not None]
        if len(set(found_gpus)) < len(found_gpus):
            raise UserError("a GPU is named twice", option="gpus")
        return tuple(found_gpus)

    def _named(self, name: str) -> Gpu | None:
        if name.startswith(("GPU-", "MIG-")):
            return by_uuid(self.gpus, name)
        return next((gpu for gpu in self.gpus if gpu.index == name), None)


def refuse_parts_together(gpus: Sequence[Gpu]) -> None:
    """Raises UserError for MIG devices that are to train one job: NCCL connects none."""
    if len(gpus) > 1 and any(gpu.is_part for gpu in gpus):
        names = ", ".join(gpu.index for gpu in gpus)
        raise UserError(f"{names}: MIG devices cannot train a job together", option="gpus", hint="name one of them")


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
INSTALL = "https://pytorch.org/get-started/locally"
ON_CPU = "or train on the CPU by `cpu`"


def this_machine(*, cpu: bool = False) -> Machine:
    """Looks without torch: the process that starts trainers must not touch a GPU. cpu: as one that has no GPU."""
    if cpu:
        return Machine((), has_mps=False, cores=usable_cores())
    has_mps = sys.platform == "darwin" and os.uname().machine == "arm64"
    visible, found = os.environ.get(VISIBLE_VARIABLE), answer_of_driver()
    gpus = found.gpus if visible is None else visible_gpus(found.gpus, visible)
    return Machine(
        gpus,
        has_mps,
        usable_cores(),
        may_have_other_gpus=any(map(os.path.exists, GPU_DEVICES)),
        unusable=_unusable(found, gpus, visible, torch_builds()),
        are_named=_are_named(found.gpus, gpus, visible),
    )


def _are_named(there: Sequence[Gpu], gpus: Sequence[Gpu], visible: str | None) -> bool:
    if visible is None:
        return [gpu.visible for gpu in gpus] != [str(index) for index in range(len(gpus))]
    # By itself CUDA counts the fastest first: of different GPUs, a number of the user's is not one of the bus.
    is_of_the_bus = os.environ.get(ORDER_VARIABLE) == OF_THE_BUS or not visible[:1].isdigit()
    return is_of_the_bus or len({gpu.name for gpu in there}) == 1


def _unusable(
    found: Found, gpus: Sequence[Gpu], visible: str | None, builds: dict[str, str | None] | None
) -> Unusable | None:
    if visible is not None and hides_all(visible):
        return None
    if gpus:
        if builds is not None and not any(builds.values()):
            install = f"install torch for CUDA ({INSTALL})"
            return Unusable(f"{len(gpus)} of NVIDIA's GPUs, and torch was built without CUDA", f"{install}, {ON_CPU}")
        return None
    if found.problem is not None:
        return Unusable(f"GPUs that are there cannot be used: {found.problem}", f"{found.hint}, {ON_CPU}")
    if found.gpus:
        message = f"{VISIBLE_VARIABLE}={visible!r} shows none of the GPUs, {', '.join(map(str, found.gpus))}"
        return Unusable(message, f"unset it or name GPUs that are there, {ON_CPU}")
    return _other_makers(builds)


def _other_makers(builds: dict[str, str | None] | None) -> Unusable | None:
    """Of GPUs that are not NVIDIA's, unless they are hidden on purpose."""
    without: Unusable | None = None
    for maker in MAKERS:
        if any(hides_all(os.environ.get(name, "0")) for name in maker.variables):
            continue
        if (place := maker.find(builds or {})) is None:
            continue
        if builds is None or builds.get(maker.build):
            message = f"a GPU of {maker.name}'s is there ({place}), and only NVIDIA's are counted"
            return Unusable(message, f"name a `config` from accelerate_configs/, {ON_CPU}", is_uncounted=True)
        message = f"a GPU of {maker.name}'s is there ({place}), and torch was built without {maker.platform}"
        without = without or Unusable(message, f"install torch for {maker.platform} ({INSTALL}), {ON_CPU}")
    return without


def torch_builds() -> dict[str, str | None] | None:
    """For which version of `cuda`, `hip` and `xpu` the torch that is installed was built, without importing it; None
    where that is not known."""
    try:
        spec = find_spec("torch")
        text = "" if spec is None or spec.origin is None else Path(spec.origin).with_name("version.py").read_text()
    except (ImportError, OSError, ValueError):
        return None
    found = dict(re.findall(r"^(cuda|hip|xpu)\b[^=\n]*=\s*(.+)$", text, re.MULTILINE))
    return {name: None if value == "None" else value.strip("'\"") for name, value in found.items()} or None
