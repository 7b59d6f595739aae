"""Whether there is anything to compare: a loss that has nothing is 0, and every answer is right."""

from accel_trainer.config import Job
from accel_trainer.core.errors import UserError
from accel_trainer.data.batch_plan import TrainBatchPlanner
from accel_trainer.data.dataset import Splits


def check_comparable(job: Job, images: Splits, sampling: TrainBatchPlanner) -> None:
    """Refuse a single class, where classes are told apart, and single images, where those are. Raises UserError."""
    if len(images.classes) < 2 and job.criterion != "SimCLRLoss":
        raise UserError(
            f"there is one class, {images.classes[0]!r}: with {job.criterion} every answer would be right",
            key="dataset" if job.class_subset is None else "class_subset",
            hint="two classes or more can be told apart",
        )
    if not job.is_contrastive:
        return
    if (count := sampling.images_per_step // sampling.accumulation) < 2:
        raise UserError(
            f"{job.criterion} compares images, and there is {count} in each forward pass",
            key="batch_size",
            hint=f"use {2 * sampling.num_views * sampling.accumulation} or more",
        )
    for split, source in {"val": images.val, **images.eval_sets}.items():
        if len(source.labels) < 2:
            raise UserError(
                f"{job.criterion} compares images, and there is 1 to validate on in {split}",
                key="dataset" if split == "val" else "eval_sets",
            )
