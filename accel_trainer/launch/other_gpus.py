"""GPUs of AMD and Intel: whether the system has one to train on. How many there are, only a config says.

A display adapter in the processor is none; nor is what was handed to a virtual machine. Read from what the kernel shows
of its drivers and of the PCI bus; not tried on such a machine.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from accel_trainer.launch import pci
from accel_trainer.launch.pci import display_devices, text_of

# Nodes of AMD's compute driver: processors, and GPUs with their banks of memory.
KFD, KFD_NODES = "dev/kfd", "sys/class/kfd/kfd/topology/nodes"
# A display adapter in a processor takes less of the machine's memory.
LEAST_MEMORY = 4 * 2**30
# Kinds of memory of a node: the GPU's own, which the processor sees or not.
OWN_MEMORY = ("1", "2")
RENDER = "dev/dri/renderD*"
INTEL = "0x8086"
# Where the display adapter in an Intel processor is; a card has a bus of its own.
IN_PROCESSOR = "0000:00:"


@dataclass(frozen=True)
class OtherMaker:
    """build: what torch is built for that trains on its GPUs, by its name in torch/version.py; platform: what people
    call that. variables: what hides its GPUs from a process."""

    name: str
    build: str
    platform: str
    variables: tuple[str, ...]

    def find(self, builds: Mapping[str, str | None]) -> str | None:
        """Where a GPU of this maker's is seen; None where there is none. builds: what torch was built for: who has
        installed one for this maker's GPUs means that in the processor too."""
        if self.build == "hip":
            return _amd()
        return _intel(is_meant=bool(builds.get(self.build)))


MAKERS = (
    OtherMaker("AMD", "hip", "ROCm", ("HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES")),
    OtherMaker("Intel", "xpu", "XPU", ("ZE_AFFINITY_MASK",)),
)


def _amd() -> str | None:
    nodes = [path for path in (pci.ROOT / KFD_NODES).glob("*") if path.is_dir()]
    if not nodes:
        return f"/{KFD}" if (pci.ROOT / KFD).exists() else None
    found = next((node for node in nodes if _is_gpu(node)), None)
    if found is None:
        return None
    return f"/{KFD}" if (pci.ROOT / KFD).exists() else f"/{KFD_NODES}/{found.name}, and no /{KFD}"


def _is_gpu(node: Path) -> bool:
    """Whether a node can compute, and has a memory of its own; where its memory is not listed, it counts."""
    if _properties(node / "properties").get("simd_count", "0") == "0":
        return False
    banks = [_properties(path) for path in node.glob("mem_banks/*/properties")]
    own = [int(bank.get("size_in_bytes", "0")) for bank in banks if bank.get("heap_type") in OWN_MEMORY]
    return not banks or sum(own) >= LEAST_MEMORY


def _properties(file: Path) -> dict[str, str]:
    words = (line.split() for line in text_of(file).splitlines())
    return {pair[0]: pair[1] for pair in words if len(pair) == 2}


def _intel(*, is_meant: bool) -> str | None:
    device = next(_intel_devices(is_meant=is_meant), None)
    if device is not None:
        return f"PCI {device}"
    node = next(iter(sorted(pci.ROOT.glob(RENDER))), None)
    return f"/{node.relative_to(pci.ROOT)}" if is_meant and node is not None else None


def _intel_devices(*, is_meant: bool) -> Iterator[str]:
    for device in display_devices(INTEL):
        if is_meant or not device.address.startswith(IN_PROCESSOR):
            yield device.address
