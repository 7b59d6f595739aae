"""What `accelerate launch` starts for `doctor --deep`, once for each process: all add a number up, which takes each of
them, its device and the way between them. Rank 0 writes what came of it to a file."""

# The parent is watched from the first moment on; torch takes seconds to import.
from accel_trainer.core.processes import die_with_parent, exit_now

if __name__ == "__main__":
    die_with_parent()

import json
import sys
from pathlib import Path

from accel_trainer.core.files import write_atomic


def main(answer: Path) -> None:
    import torch
    from accelerate import PartialState
    from accelerate.utils import parse_flag_from_env

    state = PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU"))
    total = torch.tensor([float(state.process_index + 1)], device=state.device)
    if state.num_processes > 1:
        torch.distributed.all_reduce(total)
    told = {
        "processes": state.num_processes,
        "device": state.device.type,
        "backend": state.backend,
        "sum": total.item(),
    }
    if state.is_main_process:
        write_atomic(answer, json.dumps(told), durable=False)
    state.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
    exit_now(0)
