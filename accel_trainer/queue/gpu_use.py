"""GPUs that others use, as NVIDIA's management library (NVML) tells. Not run on a GPU: tested with a stand-in."""

from typing import Any

from accel_trainer.core.errors import UserError
from accel_trainer.core.text import first_line

# A GPU on which nobody is has some memory taken by the driver.
FREE_BELOW = 0.05


class GpuUse:
    """Looks at the memory of GPUs. Raises UserError where NVML is not there, or has no such GPU."""

    def __init__(self, free_below: float = FREE_BELOW) -> None:
        """A GPU counts as free while less than this part of its memory is taken, 0 to 1."""
        self._free_below = free_below
        try:
            import pynvml
        except ImportError as error:
            raise UserError(
                "--wait-free needs NVIDIA's management library: pip install nvidia-ml-py; or leave --wait-free out"
            ) from error
        self._nvml: Any = pynvml
        try:
            pynvml.nvmlInit()
        except pynvml.NVMLError as error:
            raise UserError(
                f"--wait-free: NVIDIA's management library does not answer: {first_line(error)}; leave --wait-free out"
            ) from error

    def occupied(self, gpus: list[str]) -> set[str]:
        """Those of these GPUs, by index in the order of the bus, whose memory somebody uses."""
        return {gpu for gpu in gpus if self._part_taken(gpu) >= self._free_below}

    def _part_taken(self, gpu: str) -> float:
        try:
            memory = self._nvml.nvmlDeviceGetMemoryInfo(self._nvml.nvmlDeviceGetHandleByIndex(int(gpu)))
        except self._nvml.NVMLError as error:
            raise UserError(f"--wait-free: GPU {gpu} cannot be looked at: {first_line(error)}") from error
        return float(memory.used / memory.total)
