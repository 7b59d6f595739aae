"""Launched by `accelerate launch` for `doctor --deep`: an all-reduce over all processes, whose result rank 0 writes.

The right sum proves that each process, its device and the connection between them work.
"""

# The parent is watched from the first moment on; torch takes seconds to import.
from accel_trainer.core.processes import die_with_parent, exit_now

if __name__ == "__main__":
    die_with_parent()

import json
import sys
from pathlib import Path

from accel_trainer.core.files import write_atomic


def main(answer: Path) -> None:
    """Add up the ranks (from 1) of all processes; rank 0 writes {processes, device, backend, sum} as JSON to a file."""
    import torch
    from accelerate import PartialState
    from accelerate.utils import parse_flag_from_env

    state = PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU"))
    total = torch.tensor([float(state.process_index + 1)], device=state.device)
    if state.num_processes > 1:
        torch.distributed.all_reduce(total)
    result = {
        "processes": state.num_processes,
        "device": state.device.type,
        "backend": state.backend,
        "sum": total.item(),
    }
    if state.is_main_process:
        write_atomic(answer, json.dumps(result), durable=False)
    state.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
    exit_now(0)
