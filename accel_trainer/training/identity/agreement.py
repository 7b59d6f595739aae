"""All processes of a job have the data that its run began with, or none trains."""

from collections.abc import Callable
from dataclasses import replace

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from accel_trainer.config import Job
from accel_trainer.core.outage import MachineFailure
from accel_trainer.core.text import listed
from accel_trainer.run.folder import RunFolder
from accel_trainer.training.identity.check import DataCheck, RunData, check_data, digests_on_each_rank, list_data
from accel_trainer.training.identity.differences import refusal


def agree_on_data(
    job: Job,
    run: RunFolder,
    data: RunData,
    accelerator: Accelerator,
    is_stopped: Callable[[], bool],
    *,
    goes_on: bool = False,
) -> DataCheck:
    """What is found of the data that the run began with. Where that differs, rank 0 knows in what, and tells the
    others; the job then allows it.

    goes_on: as for `check_data`. All ranks call it. Raises UserError for other data, and MachineFailure where ranks
    have different ones: on all of them alike.
    """
    is_first = accelerator.is_main_process
    check = check_data(job, run, data, is_stopped, goes_on=goes_on) if is_first else list_data(job, data)
    # Of masks the contents are known where they were read.
    reads = is_stopped if accelerator.num_processes > 1 else None
    digests = digests_on_each_rank(check, data, reads)
    own = [*(int(digest, 16) >> 1 for digest in digests.values()), int(bool(check.differences))]
    of_all = accelerator.gather(torch.tensor([own], dtype=torch.int64, device=accelerator.device))
    if unlike := [split for split, column in zip(digests, of_all.T, strict=False) if len(column.unique()) > 1]:
        raise MachineFailure(f"the processes of this job have different data of {job.dataset!r}: {listed(unlike)}")
    if not of_all[:, -1].any():
        return check
    (differences,) = broadcast_object_list([list(check.differences)])
    if not job.allow_changes:
        raise refusal(job, run, differences)
    return replace(check, differences=differences)
