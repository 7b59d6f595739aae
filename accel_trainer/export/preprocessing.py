"""What has to be done to an image before a model sees it, as numbers."""

from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np

from accel_trainer.config import Job
from accel_trainer.data.augment.geometry import byte_scale_and_shift
from accel_trainer.data.augment.resizing import share_of
from accel_trainer.data.pipeline import frame_blur, statistics_of, validation_crop


@dataclass(frozen=True)
class Preprocessing:
    """preprocessing.json. Sizes are in pixels; mean and std are of red, green and blue in 0..1.

    interpolation: bilinear is torch's for bytes, bicubic is Pillow's; squash: the other side gets that length, too.
    byte_scale, byte_shift: by what the bytes of each channel are multiplied, and what is then added, which comes to the
    same as mean and std but for the last bits. frames: of a clip, None where the model takes images. frame_sigmas: by
    which each frame is blurred, in pixels of the crop, 0 for none; None where none is. frame_probs: in how many of the
    validation's clips each was.
    """

    image_size: int
    resize_shorter_side_to: int
    interpolation: str
    antialias: bool
    squash: bool
    crop: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    byte_scale: tuple[float, ...]
    byte_shift: tuple[float, ...]
    frames: int | None
    frame_sigmas: tuple[float, ...] | None
    frame_probs: tuple[float, ...] | None

    @classmethod
    def of(cls, job: Job) -> Self:
        """That of a job's validation images."""
        crop, statistics = validation_crop(job), statistics_of(job)
        numbers = byte_scale_and_shift(statistics)
        blur = frame_blur(job)
        return cls(
            image_size=job.image_size,
            resize_shorter_side_to=crop.short_side,
            interpolation=crop.filter.value,
            antialias=True,
            squash=crop.squash,
            crop="center",
            mean=statistics.mean,
            std=statistics.std,
            byte_scale=numbers[:3],
            byte_shift=numbers[3:],
            frames=job.views_per_image if job.video else None,
            frame_sigmas=None if blur is None else tuple(np.where(blur.probs > 0, blur.sigmas, 0.0).tolist()),
            frame_probs=None if blur is None else tuple(blur.probs.tolist()),
        )

    def as_record(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)

    @property
    def crop_share(self) -> float:
        """The crop as a share of the resized shorter side, such that `floor(image_size / share)` is that side."""
        return share_of(self.image_size, self.resize_shorter_side_to)
