"""A process that imports what a trainer imports, and reports torch's devices. The part on GPUs was not run on one."""

import json
import warnings
from typing import Any

from accel_trainer.launch.command import users_default


def probe_torch() -> dict[str, Any]:
    """The version of CUDA or ROCm, each GPU's name and capability, the architectures of the build, MPS, warnings, and
    what Accelerate reports of the user's default config (None if nothing)."""
    import torch
    import torchvision  # noqa: F401 - of a version that does not fit torch's, this import fails
    from accelerate.commands import launch  # noqa: F401 - what a job is launched with

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
        "warnings": [str(warning.message).split("\n")[0] for warning in caught],
        "config_error": None if (path := users_default()) is None else _config_error(str(path)),
    }


def _config_error(path: str) -> str | None:
    """The error with which Accelerate refuses a file of `accelerate config`, if it does."""
    from accelerate.commands.config.config_args import load_config_from_file

    try:
        load_config_from_file(path)
    except Exception as error:
        return str(error).split("\n")[0] or type(error).__name__
    return None


if __name__ == "__main__":
    print(json.dumps(probe_torch()))
