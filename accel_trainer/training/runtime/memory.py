"""How much memory this process has taken."""

import resource
import sys

import torch


def peak_memory(device: torch.device) -> int:
    """The most bytes that it has had at once: of tensors on a CUDA device; elsewhere of the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
