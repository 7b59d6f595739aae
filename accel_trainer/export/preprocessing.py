"""What has to be done to an image before a model sees it, as numbers."""

from dataclasses import asdict, dataclass
from typing import Any, Self

from accel_trainer.config import Job
from accel_trainer.data.augment.geometry import CenterCrop, byte_scale_and_shift
from accel_trainer.data.pipeline import statistics_of

# Above the division that rounds down, whatever the last bits of a share are.
_MIDDLE = 0.5


@dataclass(frozen=True)
class Preprocessing:
    """preprocessing.json. Sizes are in pixels; mean and std are of red, green and blue in 0..1.

    byte_scale, byte_shift: by what the bytes of each channel are multiplied, and what is then added, which comes to the
    same as mean and std but for the last bits. frames: of a clip, None where the model takes images.
    """

    image_size: int
    resize_shorter_side_to: int
    interpolation: str
    antialias: bool
    crop: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    byte_scale: tuple[float, ...]
    byte_shift: tuple[float, ...]
    frames: int | None

    @classmethod
    def of(cls, job: Job) -> Self:
        """That of a job's validation images."""
        crop, statistics = CenterCrop(job.image_size, job.eval_crop), statistics_of(job)
        numbers = byte_scale_and_shift(statistics)
        return cls(
            image_size=job.image_size,
            resize_shorter_side_to=crop.short_side,
            interpolation="bilinear",
            antialias=True,
            crop="center",
            mean=statistics.mean,
            std=statistics.std,
            byte_scale=numbers[:3],
            byte_shift=numbers[3:],
            frames=job.views_per_image if job.video else None,
        )

    def as_record(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)

    @property
    def crop_share(self) -> float:
        """The crop as a share of the resized shorter side, such that `floor(image_size / share)` is that side."""
        share = self.image_size / self.resize_shorter_side_to
        exact = int(self.image_size / share) == self.resize_shorter_side_to
        return share if exact else self.image_size / (self.resize_shorter_side_to + _MIDDLE)
