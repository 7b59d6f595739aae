"""A process that imports what a trainer imports, and reports torch's devices. The part on GPUs was not run on one."""

import json
import warnings
from typing import Any


def probe_torch() -> dict[str, Any]:
    """The version of CUDA or ROCm, each GPU's name and capability, the architectures of the build, MPS, why the kernel
    for images is not used, why JPEGs are decoded whole (null where they are not), warnings."""
    import torch
    import torchvision  # noqa: F401 - of a version that does not fit torch's, this import fails
    from accelerate.commands import launch  # noqa: F401 - what a job is launched with

    from accel_trainer.data import partial_decode
    from accel_trainer.data.native import library

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        gpus = [
            {"name": torch.cuda.get_device_name(i), "capability": list(torch.cuda.get_device_capability(i))}
            for i in range(count)
        ]
    return {
        "cuda": torch.version.cuda,
        "hip": torch.version.hip,
        "gpus": gpus,
        "architectures": torch.cuda.get_arch_list() if count else [],
        "mps": torch.backends.mps.is_available(),
        "kernel": None if library.kernel() is not None else library.state(),
        "partial_jpegs": None if partial_decode.partial_decoder() is not None else partial_decode.state(),
        "warnings": [str(warning.message).split("\n")[0] for warning in caught],
    }


if __name__ == "__main__":
    print(json.dumps(probe_torch()))
