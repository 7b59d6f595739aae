"""The weights that a run starts from, listed as a data set is, to notice others in their place."""

import zlib
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from accel_trainer.data.listing import Numbers
from accel_trainer.training.pretrained.transfer import Transfer


class LoadedWeights:
    """What was taken of a file, listed as one image of one class: what was interpolated has other bits on another
    processor, and is left out."""

    def __init__(self, model: nn.Module, transferred: Transfer) -> None:
        self.classes = ["file"]
        self.labels: Numbers = np.zeros(1, np.int64)
        tensors = model.state_dict()
        checksum = 0
        for name in sorted({*transferred.loaded, *transferred.reshaped}):
            if not isinstance(tensors[name], Tensor):  # an extra state
                continue
            content = tensors[name].detach().cpu().contiguous().reshape(-1).view(torch.uint8)
            checksum = zlib.crc32(content.numpy().data, zlib.crc32(name.encode(), checksum))
        self.known_marks = [checksum]

    def names(self, indices: Numbers) -> list[str]:
        """What there is, whatever its file is called."""
        return ["weights"] * len(indices)

    def marks(self, indices: Numbers, is_canceled: Callable[[], bool]) -> Numbers:
        """CRC-32 of the tensors and their names."""
        return np.array(self.known_marks, np.int64)[indices]
