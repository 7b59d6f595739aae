"""All processes of a job have the data set that its run began with, or none trains."""

from collections.abc import Callable
from dataclasses import replace

import torch
from accelerate import Accelerator

from accel_trainer.config import Job
from accel_trainer.core.outage import MachineFailure
from accel_trainer.data.dataset import Splits
from accel_trainer.run.folder import RunFolder
from accel_trainer.training.identity.check import DataCheck, check_data, list_data, refusal

_SEEN_BY_RANK_0 = "rank 0 has found another one"


def agree_on_data(
    job: Job, run: RunFolder, images: Splits, accelerator: Accelerator, is_stopped: Callable[[], bool]
) -> DataCheck:
    """What rank 0 finds of the data set that the run began with; on other ranks only whether there are differences,
    which the job then allows.

    All ranks call it. Raises UserError for another data set, and MachineFailure where ranks have different ones: on all
    of them alike.
    """
    is_first = accelerator.is_main_process
    check = check_data(job, run, images, is_stopped) if is_first else list_data(job, images)
    own = [int(check.now.digest_of_names, 16) >> 1, int(bool(check.differences))]
    of_all = accelerator.gather(torch.tensor([own], dtype=torch.int64, device=accelerator.device)).tolist()
    if len({digest for digest, _ in of_all}) > 1:
        raise MachineFailure(f"the processes of this job have different lists of the images of {job.dataset!r}")
    if not any(is_changed for _, is_changed in of_all):
        return check
    differences = check.differences or [_SEEN_BY_RANK_0]
    if not job.allow_changes:
        raise refusal(job, run, differences)
    return replace(check, differences=differences)
