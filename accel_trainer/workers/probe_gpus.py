"""A process that asks NVIDIA's driver for its GPUs, by its management library (NVML), and prints the answer as JSON.

The library may hang, or crash, where the driver is broken: so whoever wants to know calls this, with a time limit, and
touches no GPU itself. Nothing but Python's own modules is imported: every launch waits for it.

What is called and what it answers: NVIDIA, NVML API Reference Guide. Tried with a library that was made for tests, not
with NVIDIA's.
"""

import ctypes
import json
import sys
from collections.abc import Iterator
from typing import Any

LIBRARY = "libnvidia-ml.so.1"
TEXT_BYTES = 96
# Of nvml.h: what a GPU without MIG answers to questions about it, and an empty place for a MIG device.
NOT_SUPPORTED, NOT_FOUND = 3, 6
Handle = ctypes.c_void_p


class Memory(ctypes.Structure):
    """nvmlMemory_t, in bytes."""

    _fields_ = [("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong)]


class NvmlError(Exception):
    """A function of the library has failed, with this code."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class Nvml:
    """The library, initialized. Raises OSError where there is none, and NvmlError."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL(LIBRARY)
        self._library.nvmlErrorString.restype = ctypes.c_char_p
        self._call("nvmlInit_v2")

    def cuda(self) -> str | None:
        """The newest version of CUDA that the driver supports, such as 12.4; None where it does not say."""
        number = ctypes.c_int()
        try:
            self._call("nvmlSystemGetCudaDriverVersion_v2", ctypes.byref(number))
        except (AttributeError, NvmlError):
            return None
        return f"{number.value // 1000}.{number.value % 1000 // 10}"

    def gpus(self) -> Iterator[dict[str, Any]]:
        """Each GPU; of one that does not answer its index, and what is wrong."""
        for index in range(self._number("nvmlDeviceGetCount_v2")):
            try:
                gpu = self._handle("nvmlDeviceGetHandleByIndex_v2", ctypes.c_uint(index))
                yield {"index": index, **self._about(gpu), "mig": self._mig_devices(gpu)}
            except NvmlError as error:
                yield {"index": index, "error": str(error)}

    def _about(self, device: Handle) -> dict[str, Any]:
        memory = Memory()
        try:
            self._call("nvmlDeviceGetMemoryInfo", device, ctypes.byref(memory))
        except NvmlError as error:
            if error.code != NOT_SUPPORTED:  # as of a GPU without a memory of its own
                raise
        names = {"uuid": self._text("nvmlDeviceGetUUID", device), "name": self._text("nvmlDeviceGetName", device)}
        return {**names, "total": memory.total, "used": memory.used}

    def _mig_devices(self, gpu: Handle) -> list[dict[str, Any]] | None:
        """The devices that a GPU is divided into; None where it is one device itself."""
        if not self._is_divided(gpu):
            return None
        devices = []
        for place in range(self._number("nvmlDeviceGetMaxMigDeviceCount", gpu)):
            try:
                device = self._handle("nvmlDeviceGetMigDeviceHandleByIndex", gpu, ctypes.c_uint(place))
            except NvmlError as error:
                if error.code != NOT_FOUND:
                    raise
                continue
            instances = [self._number(f"nvmlDeviceGet{kind}InstanceId", device) for kind in ("Gpu", "Compute")]
            devices.append({"index": place, **self._about(device), "instances": instances})
        return devices

    def _is_divided(self, gpu: Handle) -> bool:
        now, after_restart = ctypes.c_uint(), ctypes.c_uint()
        try:
            self._call("nvmlDeviceGetMigMode", gpu, ctypes.byref(now), ctypes.byref(after_restart))
        except NvmlError as error:
            if error.code != NOT_SUPPORTED:
                raise
        except AttributeError:  # a library that is older than MIG
            return False
        return now.value == 1

    def _text(self, function: str, device: Handle) -> str:
        text = ctypes.create_string_buffer(TEXT_BYTES)
        self._call(function, device, text, ctypes.c_uint(TEXT_BYTES))
        return text.value.decode(errors="replace")

    def _number(self, function: str, *arguments: Any) -> int:
        number = ctypes.c_uint()
        self._call(function, *arguments, ctypes.byref(number))
        return number.value

    def _handle(self, function: str, *arguments: Any) -> Handle:
        handle = Handle()
        self._call(function, *arguments, ctypes.byref(handle))
        return handle

    def _call(self, function: str, *arguments: Any) -> None:
        code = getattr(self._library, function)(*arguments)
        if code != 0:
            raise NvmlError(code, self._library.nvmlErrorString(code).decode(errors="replace"))


def answer() -> dict[str, Any]:
    """{cuda, gpus}; or {error}, where the driver does not answer; or {}, where there is no library."""
    try:
        nvml = Nvml()
    except OSError:
        return {}
    except (AttributeError, NvmlError) as error:
        return {"error": str(error)}
    try:
        return {"cuda": nvml.cuda(), "gpus": list(nvml.gpus())}
    except (AttributeError, NvmlError) as error:
        return {"error": str(error)}


if __name__ == "__main__":
    json.dump(answer(), sys.stdout)
