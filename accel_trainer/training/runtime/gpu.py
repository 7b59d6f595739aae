"""Whether torch sees the GPU that a process was launched for. Not run on a GPU."""

import os

import torch

from accel_trainer.core.launched import GPU_VARIABLE
from accel_trainer.core.outage import MachineFailure
from accel_trainer.core.text import first_line

HINT = "make `python -c 'import torch; torch.zeros(1).cuda()'` work, or train on the CPU by `cpu`"


def refuse_missing_gpu() -> None:
    """Raises MachineFailure where this process was launched to train on a GPU of its own, and torch sees none for each
    process here: what would be trained on the CPU instead would take weeks."""
    if os.environ.get(GPU_VARIABLE) != "1":
        return
    wanted, seen = int(os.environ.get("LOCAL_WORLD_SIZE") or 1), 0
    if torch.accelerator.is_available():
        seen = torch.accelerator.device_count()
    if seen >= wanted:
        return
    what = "a GPU" if wanted == 1 else f"{wanted} GPUs"
    raise MachineFailure(f"launched for {what}, and torch sees {seen or 'none'}: {_reason(seen)}", hint=HINT)


def _reason(seen: int) -> str:
    """What torch says of it."""
    version = torch.version
    if seen:
        return "another program's setting, or the driver, hides the others"
    if not any((version.cuda, version.hip, version.xpu)):
        return f"torch {torch.__version__} was built without CUDA"
    try:
        torch.cuda.init()
    except (AssertionError, RuntimeError) as error:
        return first_line(error)
    return "none is available to it"
