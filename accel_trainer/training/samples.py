"""A picture of what the model sees."""

import io

import numpy as np
from PIL import Image
from torchvision.utils import make_grid

from accel_trainer.data.loader import ImageReader
from accel_trainer.data.sampling import TrainSampling
from accel_trainer.runs import RunFolder, write_atomic

ROWS, COLUMNS = 4, 8


def draw_sample_inputs(run: RunFolder, sampling: TrainSampling, read: ImageReader) -> None:
    """sample_train_inputs.png: the first training images of epoch 1, as they are before normalisation."""
    first = next(sampling.micro_batches(epoch=1, rank=0))
    few = first.indices[: ROWS * COLUMNS]
    batch = read(type(first)(first.epoch, first.step, few, few))
    grid = make_grid(batch.images, nrow=COLUMNS, padding=2, pad_value=255)
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(grid.permute(1, 2, 0).numpy())).save(file, "PNG")
    write_atomic(run.sample_inputs, file.getvalue())
