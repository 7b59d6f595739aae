"""NVIDIA's GPUs, as its driver lists them: by its management library, in a process of its own, or else by nvidia-smi.

No launcher touches a GPU itself: a driver that hangs would take it along. Tried with libraries and programs that were
made for tests, not on a GPU.
"""

import json
import logging
import re
import shutil
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from functools import cache
from typing import Any

from accel_trainer.core.launched import DRIVER_VARIABLE, told
from accel_trainer.core.processes import Program
from accel_trainer.core.text import listed
from accel_trainer.core.tools import tool_output
from accel_trainer.launch import pci
from accel_trainer.launch.pci import PciDevice, display_devices

log = logging.getLogger(__name__)

MEBIBYTE = 2**20
# Without a process that keeps it awake, a driver needs about a second for each GPU before it answers.
LIMIT_S = 15.0
# After so long it is said what is waited for.
QUIET_S = 3.0
SMI = "nvidia-smi"
# Where the driver shows what a process may use, relative to the root; and where it lists what it drives, also in a
# container that may use none of it.
NODES = ("dev/nvidiactl", "dev/nvidia[0-9]*")
OF_WINDOWS = "dev/dxg"
DRIVEN = "proc/driver/nvidia/gpus/*"
PCI_VENDOR, DRIVER = "0x10de", "nvidia"
HINT = "repair the driver, after an update of it by a restart of the machine"
NOT_GIVEN = "ask for it: a container by `--gpus all`, a job of Slurm by `--gres=gpu:1`"
NO_DRIVER = "install NVIDIA's driver"


@dataclass(frozen=True)
class Gpu:
    """A GPU, or a MIG device, which is a part of one.

    index: in the order of the bus; of a MIG device the GPU's and its own, 0:1. uuid: as the driver has it. used: which
    part of its memory is taken, 0 to 1; None where that is not known. Of a MIG device also the UUID of its GPU, and its
    instances, of that GPU and of compute.
    """

    index: str
    name: str
    memory: str
    uuid: str = ""
    used: float | None = None
    gpu_uuid: str = ""
    instances: tuple[int, ...] = ()

    @property
    def is_part(self) -> bool:
        """Whether it is a MIG device."""
        return ":" in self.index

    @property
    def visible(self) -> str:
        """How CUDA_VISIBLE_DEVICES names it, in the order of the bus."""
        return self.uuid if self.is_part else self.index

    def __str__(self) -> str:
        return f"{self.index}: {self.name} ({self.memory})"


@dataclass(frozen=True)
class Found:
    """What the driver has answered.

    gpus: what can be used. problem: why GPUs that are there cannot be, and hint: what to do; broken: those that do not
    answer, a line each. cuda: the newest version of CUDA that the driver supports, such as 12.4, where it says so.
    """

    gpus: tuple[Gpu, ...] = ()
    problem: str | None = None
    broken: tuple[str, ...] = ()
    cuda: str | None = None
    hint: str = HINT


@cache
def answer_of_driver() -> Found:
    """What `find_gpus` finds. A command and what it starts (`passed_on`) ask once: what hangs is not waited for again.
    While it lasts, a line says what is waited for."""
    if answer := told(DRIVER_VARIABLE):
        given = json.loads(answer)
        gpus = tuple(Gpu(**{**gpu, "instances": tuple(gpu["instances"])}) for gpu in given["gpus"])
        return Found(**{**given, "gpus": gpus, "broken": tuple(given["broken"])})
    with _said_while_it_lasts():
        return find_gpus()


def passed_on() -> dict[str, str]:
    """What tells the answer to a process that a command starts, in its environment."""
    return {DRIVER_VARIABLE: json.dumps(asdict(answer_of_driver()))}


@contextmanager
def _said_while_it_lasts() -> Iterator[None]:
    words = "waiting for NVIDIA's driver to list its GPUs, for %g s at most (--cpu does without)"
    timer = threading.Timer(QUIET_S, log.warning, (words, LIMIT_S))
    timer.daemon = True
    with suppress(RuntimeError):  # no more threads can be started
        timer.start()
    try:
        yield
    finally:
        timer.cancel()


def find_gpus() -> Found:
    """All GPUs that this process may use, whatever CUDA_VISIBLE_DEVICES says. A driver that does not answer, or gives
    this process none, is a problem where there is a GPU, and none where there is not."""
    nodes, has_smi = [path for name in NODES for path in pci.ROOT.glob(name)], shutil.which(SMI) is not None
    there = _plugged_in()
    if not (nodes or has_smi or (pci.ROOT / OF_WINDOWS).exists()):
        return _none_of(there)
    try:
        answer: dict[str, Any] = json.loads(tool_output(Program.PROBE_GPUS.command(), LIMIT_S))
    except TimeoutError as error:  # nvidia-smi, which asks the same library, would hang as well
        return Found(problem=f"NVIDIA's driver: {error}") if nodes or there else Found()
    except (OSError, ValueError) as error:  # the library has crashed
        answer = {"error": str(error)}
    if "gpus" in answer:
        return _listed(answer["gpus"], answer["cuda"]) if answer["gpus"] else _none_of(there)
    problem = f"NVIDIA's driver: {answer['error']}" if "error" in answer else "NVIDIA's driver: no libnvidia-ml.so.1"
    if has_smi:
        try:
            found = _listed_by_smi()
            return found if found.gpus else _none_of(there)
        except OSError as error:
            problem = f"{problem}; {SMI}: {error}" if "error" in answer else f"{SMI}: {error}"
            return Found(problem=problem) if nodes or there else Found()
    return Found(problem=f"{problem}, and no {SMI}, but {nodes[0]}") if nodes else _none_of(there)


def _plugged_in() -> list[PciDevice]:
    """GPUs of NVIDIA's that the system sees, also in a container that may not use them."""
    driven = [PciDevice(path.name, DRIVER) for path in sorted(pci.ROOT.glob(DRIVEN))]
    known = {device.address for device in driven}
    return driven + [device for device in display_devices(PCI_VENDOR) if device.address not in known]


def _none_of(there: Sequence[PciDevice]) -> Found:
    """Of GPUs that are plugged in this process has none."""
    if not there:
        return Found()
    if driven := [device.address for device in there if device.driver == DRIVER]:
        return Found(problem=f"none of NVIDIA's ({listed(driven)}) is given to this process", hint=NOT_GIVEN)
    drivers = listed(f"{device.address}: {device.driver or 'none'}" for device in there)
    return Found(problem=f"NVIDIA's driver is not that of the GPU ({drivers})", hint=NO_DRIVER)


def _listed(rows: Iterable[dict[str, Any]], cuda: str | None) -> Found:
    gpus: list[Gpu] = []
    broken: list[str] = []
    for row in rows:
        index = str(row["index"])
        if "error" in row:
            broken.append(f"GPU {index}: {row['error']}")
        elif row["mig"] is None:
            gpus.append(_gpu(index, row))
        elif row["mig"]:
            parts = [_gpu(f"{index}:{part['index']}", part) for part in row["mig"]]
            gpus += [replace(gpu, gpu_uuid=row["uuid"]) for gpu in parts]
        else:
            broken.append(f"GPU {index} is in MIG mode without a device: nvidia-smi mig -cgi ... -C makes one")
    return Found(tuple(gpus), "; ".join(broken) if broken and not gpus else None, tuple(broken), cuda)


def _gpu(index: str, row: dict[str, Any]) -> Gpu:
    total, used = row["total"], row["used"]
    memory = f"{total // MEBIBYTE} MiB" if total else "[N/A]"
    part_used = used / total if total else None
    return Gpu(index, row["name"], memory, row["uuid"], part_used, instances=tuple(row.get("instances", ())))


# -- nvidia-smi -------------------------------------------------------------------------------------------------------

_GPU_LINE = re.compile(r"(\s*\d+\s*),([^,]*),(.*),([^,]*),([^,]*)")
_MIG_LINE = re.compile(r"\s+MIG (.+?)\s+Device\s+(\d+):\s+\(UUID: (MIG-[^)]+)\)")


def _listed_by_smi() -> Found:
    """Raises OSError."""
    query = [SMI, "--query-gpu=index,uuid,name,memory.total,memory.used", "--format=csv,noheader"]
    gpus: list[Gpu] = []
    parts = _parts_by_smi()
    for line in tool_output(query, LIMIT_S).splitlines():
        # A name may have commas in it; a line that is none of a GPU's says that there is none, or what is wrong.
        if (found := _GPU_LINE.fullmatch(line)) is None:
            continue
        index, uuid, name, total, used = (part.strip() for part in found.groups())
        gpus += parts.get(index) or [Gpu(index, name, total, uuid, _fraction(used, total))]
    return Found(tuple(gpus))


def _parts_by_smi() -> dict[str, list[Gpu]]:
    """The MIG devices of each GPU that has some. Their memory is not listed."""
    parts: dict[str, list[Gpu]] = {}
    index = of = ""
    for line in tool_output([SMI, "--list-gpus"], LIMIT_S).splitlines():
        if gpu := re.match(r"GPU (\d+):.*\(UUID: ([^)]+)\)", line):
            index, of = gpu.groups()
        elif part := _MIG_LINE.fullmatch(line):
            name, place, uuid = part.groups()
            parts.setdefault(index, []).append(Gpu(f"{index}:{place}", f"MIG {name}", "[N/A]", uuid, gpu_uuid=of))
    return parts


def _fraction(used: str, total: str) -> float | None:
    numbers = [re.match(r"\d+", text) for text in (used, total)]
    taken, of = (0 if number is None else int(number[0]) for number in numbers)
    return taken / of if of else None
