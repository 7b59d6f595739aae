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
from accel_trainer.core.outage import MachineFailure
from accel_trainer.launch.protocol import ERROR_PREFIX


def main(answer: Path) -> None:
    """Add up the ranks (from 1) of all processes; rank 0 writes {processes, device, backend, sum} as JSON to a file."""
    import torch
    from accelerate import PartialState
    from accelerate.utils import parse_flag_from_env

    from accel_trainer.training.runtime.gpu import refuse_missing_gpu

    if not (cpu := parse_flag_from_env("ACCELERATE_USE_CPU")):
        refuse_missing_gpu()
    state = PartialState(cpu=cpu)
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
    try:
        main(Path(sys.argv[1]))
    except MachineFailure as failure:
        print(f"{ERROR_PREFIX}{failure}", file=sys.stderr)
        exit_now(1)
    exit_now(0)
