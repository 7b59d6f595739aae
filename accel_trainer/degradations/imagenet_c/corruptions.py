"""The 15 corruptions of ImageNet-C and the four extra ones, as degradations."""

from collections.abc import Callable

from accel_trainer.degradations.degradation import Degradation, Pixels
from accel_trainer.degradations.imagenet_c import blurring, digital, value_noise, weather
from accel_trainer.degradations.imagenet_c.severity import SEVERITIES, Constants, constants
from accel_trainer.degradations.imagenet_c.spatter import spatter
from accel_trainer.degradations.keyed_numbers import KeyedNumbers

Corrupt = Callable[[Pixels, Constants, KeyedNumbers], Pixels]
BENCHMARK: dict[str, Corrupt] = {
    "gaussian_noise": value_noise.gaussian_noise,
    "shot_noise": value_noise.shot_noise,
    "impulse_noise": value_noise.impulse_noise,
    "defocus_blur": blurring.defocus_blur,
    "glass_blur": blurring.glass_blur,
    "motion_blur": blurring.motion_blur,
    "zoom_blur": blurring.zoom_blur,
    "snow": weather.snow,
    "frost": weather.frost,
    "fog": weather.fog,
    "brightness": digital.brightness,
    "contrast": digital.contrast,
    "elastic_transform": digital.elastic_transform,
    "pixelate": digital.pixelate,
    "jpeg_compression": digital.jpeg_compression,
}
"""What the mean corruption error is of."""
EXTRA: dict[str, Corrupt] = {
    "speckle_noise": value_noise.speckle_noise,
    "gaussian_blur": blurring.gaussian_blur,
    "spatter": spatter,
    "saturate": digital.saturate,
}


def _degradation(name: str, corrupt: Corrupt) -> Degradation:
    def apply(image: Pixels, severity: float, numbers: KeyedNumbers) -> Pixels:
        return corrupt(image, constants(name, len(image), severity), numbers)

    return Degradation(f"imagenet-c/{name}", "severity", SEVERITIES, 0.0, apply)


CORRUPTIONS = tuple(_degradation(name, corrupt) for name, corrupt in (BENCHMARK | EXTRA).items())
