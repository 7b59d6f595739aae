"""Write the bundled digits as the tensors that accel-train makes of them: `python make_data.py FILE`."""

import sys

import torch

from accel_trainer.config import Job
from accel_trainer.data.batch_plan import evaluation_batches
from accel_trainer.training.build import training_data


def main() -> None:
    job = Job(architecture="resnet18", dataset="digits", image_size=32, transform_type="none")
    images = training_data(job, world_size=1)
    made = {}
    for split, read in (("train", images.train_reader), ("val", images.val.reader)):
        number = len(read.source.labels)
        (plan,) = evaluation_batches(number, number, 0, 1)
        batch = read(plan)
        made[split] = (batch.inputs.on("cpu"), batch.labels)
    torch.save(made, sys.argv[1])


if __name__ == "__main__":
    main()
