"""A machine's NVIDIA driver as far as anybody sees it: a library, nvidia-smi, device files, the PCI bus."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from accel_trainer.launch import pci

SOURCE = Path(__file__).with_name("fake_nvml.c")
COMPILER = shutil.which("cc")
# What nvidia-smi prints of the machines of fake_nvml.c.
HEALTHY = """
case "$1" in
--list-gpus) echo "GPU 0: NVIDIA A100 (UUID: GPU-8f6a)"; echo "GPU 1: NVIDIA A100 (UUID: GPU-8f6b)" ;;
*) echo "0, GPU-8f6a, NVIDIA A100, 32768 MiB, 0 MiB"; echo "1, GPU-8f6b, NVIDIA A100, 32768 MiB, 16384 MiB" ;;
esac
"""
MIG = """
case "$1" in
--list-gpus) cat <<'END'
GPU 0: NVIDIA A100 (UUID: GPU-8f6a)
  MIG 3g.20gb     Device  0: (UUID: MIG-00-c0ffee)
  MIG 3g.20gb     Device  2: (UUID: MIG-02-c0ffee)
GPU 1: NVIDIA A100 (UUID: GPU-8f6b)
END
;;
*) echo "0, GPU-8f6a, NVIDIA A100, 32768 MiB, 0 MiB"; echo "1, GPU-8f6b, NVIDIA A100, 32768 MiB, 16384 MiB" ;;
esac
"""
FAILING = "echo 'NVIDIA-SMI has failed because it could not communicate with the NVIDIA driver.'; exit 9"
HANGING = "sleep 60; exit 0"
NO_DEVICES = "echo 'No devices were found'"


def compiled(folder: Path) -> Path:
    """The folder with the library; skips the test where there is no C compiler."""
    if COMPILER is None:
        pytest.skip("no C compiler")
    subprocess.run([COMPILER, "-shared", "-fPIC", "-o", folder / "libnvidia-ml.so.1", SOURCE], check=True)
    return folder


class FakeDriver:
    """library: the folder with fake_nvml. Without a call there is nothing of a driver."""

    def __init__(self, root: Path, patch: pytest.MonkeyPatch, library: Path) -> None:
        self.root, self._patch, self._library = root, patch, library
        (root / "bin").mkdir(parents=True)
        for tool in ("cat", "sleep", "sh"):
            (root / "bin" / tool).symlink_to(shutil.which(tool) or "/nowhere")
        patch.setattr(pci, "ROOT", root)
        patch.setenv("PATH", str(root / "bin"))
        patch.setenv("LD_LIBRARY_PATH", str(root))

    def nvml(self, machine: str) -> None:
        self._patch.setenv("LD_LIBRARY_PATH", f"{self._library}:{os.environ['LD_LIBRARY_PATH']}")
        self._patch.setenv("FAKE_NVML", machine)

    def smi(self, script: str) -> None:
        tool = self.root / "bin" / "nvidia-smi"
        tool.write_text(f"#!/bin/sh\n{script}\n")
        tool.chmod(0o755)

    def nodes(self) -> None:
        (self.root / "dev").mkdir()
        for name in ("nvidia0", "nvidia1", "nvidiactl"):
            (self.root / "dev" / name).touch()

    def plugged_in(
        self, vendor: str = "0x10de", address: str = "0000:01:00.0", kind: str = "0x030200", driver: str | None = None
    ) -> None:
        """A device on the PCI bus, and the driver that the kernel has bound to it."""
        device = self.root / "sys/bus/pci/devices" / address
        device.mkdir(parents=True)
        (device / "vendor").write_text(f"{vendor}\n")
        (device / "class").write_text(f"{kind}\n")
        if driver is not None:
            (device / "driver").symlink_to(f"../../../bus/pci/drivers/{driver}")

    def kfd(self, *, memory: int, has_node: bool = True, number: int = 1) -> None:
        """AMD's compute driver, with a processor and a GPU of so many bytes of its own."""
        if has_node:
            (self.root / "dev").mkdir(exist_ok=True)
            (self.root / "dev/kfd").touch()
        for node, (units, kind, size) in enumerate([(0, 0, 2**36), (304 if number else 0, 1, memory)]):
            bank = self.root / f"sys/class/kfd/kfd/topology/nodes/{node}/mem_banks/0"
            bank.mkdir(parents=True)
            (bank.parent.parent / "properties").write_text(f"cpu_cores_count 8\nsimd_count {units}\n")
            (bank / "properties").write_text(f"heap_type {kind}\nsize_in_bytes {size}\nflags 0\n")
