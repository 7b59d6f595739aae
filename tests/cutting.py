"""One row of one image, as a crop cuts it."""

import numpy as np
import torch

from accel_trainer.data.augment.geometry import Crop, cut
from accel_trainer.data.native.images import Images


def cut_one(crop: Crop, image: torch.Tensor, numbers: np.ndarray) -> torch.Tensor:
    """uint8 (3, height, width) to uint8 (3, image_size, image_size). numbers: of one row of the crop's draws."""
    images, out = Images.of([image]), torch.empty(1, 3, crop.image_size, crop.image_size, dtype=torch.uint8)
    cut(images, crop.cuts(images, numbers[None]), out)
    return out[0]
