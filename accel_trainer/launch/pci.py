"""GPUs and display adapters that are plugged in, as the kernel lists them; also where a container may not use them."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

# Where the system's files are.
ROOT = Path("/")
DEVICES = "sys/bus/pci/devices/*"
# The class of display controllers, of which GPUs without a display are a part.
DISPLAY = "0x03"
# Drivers that hand a device to a virtual machine: here nobody can use it.
GIVEN_AWAY = ("vfio-pci", "pci-stub", "pciback", "xen-pciback")


@dataclass(frozen=True)
class PciDevice:
    """address: such as 0000:01:00.0; driver: that the kernel has bound to it, if any."""

    address: str
    driver: str | None


def display_devices(vendor: str) -> Iterator[PciDevice]:
    """Those of a maker, such as 0x10de, but for those that are a virtual machine's."""
    for folder in sorted(ROOT.glob(DEVICES)):
        if text_of(folder / "vendor") != vendor or not text_of(folder / "class").startswith(DISPLAY):
            continue
        driver = _driver(folder)
        if driver not in GIVEN_AWAY:
            yield PciDevice(folder.name, driver)


def _driver(folder: Path) -> str | None:
    try:
        return (folder / "driver").readlink().name
    except OSError:
        return None


def text_of(file: Path) -> str:
    """What is in a small file of the kernel's; empty where it cannot be read."""
    try:
        return file.read_text(errors="replace").strip()
    except OSError:
        return ""
