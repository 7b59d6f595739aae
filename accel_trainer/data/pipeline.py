"""Which augmentations a job has, in which order: the order of the lines in `training_views` and `_effects`.

A training image is cropped and resized, changed by a policy such as RandAugment, changed by effects, normalized, and
mixed with another image, of all this what its job asks for. A validation image is resized, center-cropped and
normalized.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from accel_trainer.config import Job
from accel_trainer.config.fields import transform_parts
from accel_trainer.data.augment.blur import ContrastiveBlur, FrameBlur, GaussianBlur
from accel_trainer.data.augment.color import ColorJitter, Grayscale
from accel_trainer.data.augment.effect import Effect
from accel_trainer.data.augment.erase import RandomErase
from accel_trainer.data.augment.geometry import CROP_SCALE, WEAK_CROP_SCALE, CenterCrop, Crop, RandomResizedCrop
from accel_trainer.data.augment.mixing import Mixer
from accel_trainer.data.augment.noise import AddNoise, half_spectrum
from accel_trainer.data.augment.occlusion import Occlude
from accel_trainer.data.augment.policies import POLICIES
from accel_trainer.data.augment.spectrum import Progress, mean_spectrum, read_spectrum
from accel_trainer.data.batch_plan import BatchPlan
from accel_trainer.data.dataset import ImageDataset
from accel_trainer.data.decode import ImageLike, to_pixels
from accel_trainer.data.rng.draws import DrawRules
from accel_trainer.data.shared_work import on_one_core
from accel_trainer.data.views import Augmentations, Views


def training_views(job: Job, spectrum: Tensor | None, *, on_device: bool = False) -> Views:
    """The views of a job's training images. Raises UserError for files of augmentations that cannot be used.

    spectrum: float32 (3, image_size, image_size), as `training_spectrum` gives it; Fourier noise needs it. on_device:
    effects and normalization are left to the device that trains.
    """
    base, *words = transform_parts(job.transform_type)
    augmentations = Augmentations(
        crop=_crop(base, job.image_size, is_weak="weak-resize" in words),
        policy=next((POLICIES[word]() for word in words if word in POLICIES), None),
        effects=_effects(job, spectrum),
        mixer=Mixer(job.image_size, job.cutmix, job.mixup) if job.cutmix or job.mixup else None,
    )
    rules = DrawRules(job.seed, job.views_per_image, job.view_dependence, job.batch_dependence)
    return Views(augmentations, rules, as_clip=job.video, on_device=on_device)


def _crop(base: str, image_size: int, *, is_weak: bool) -> Crop:
    if base == "none":
        return CenterCrop(image_size)
    return RandomResizedCrop(image_size, WEAK_CROP_SCALE if is_weak else CROP_SCALE)


def _effects(job: Job, spectrum: Tensor | None) -> list[Effect]:
    """In the order in which they are applied."""
    base, *words = transform_parts(job.transform_type)
    effects: list[Effect] = []
    if base == "contrastive":
        effects += [ColorJitter(), Grayscale()]
        if "no-blur" not in words:
            effects.append(ContrastiveBlur())
    if job.Occlusion is not None:
        effects.append(Occlude(job.Occlusion, job.image_size))
    if job.Blur is not None:
        blur = FrameBlur if job.video else GaussianBlur
        effects.append(blur(job.Blur.sigmas, job.Blur.probs))
    if job.Noise is not None:
        half = None if spectrum is None else half_spectrum(spectrum)
        effects.append(AddNoise(job.Noise.noise_types, job.Noise.ssnrs, job.Noise.probs, half))
    if job.randomerase is not None:
        effects.append(RandomErase(job.image_size, job.randomerase))
    return effects


def evaluation_views(job: Job, *, on_device: bool = False) -> Views:
    """The views of a job's validation images: one, by the center crop; or the frames of a clip, blurred as in
    training, each image with the same draws in every epoch.
    """
    blur = [FrameBlur(job.Blur.sigmas, job.Blur.probs)] if job.video and job.Blur is not None else []
    rules = DrawRules(job.seed, job.views_per_image if job.video else 1, job.view_dependence)
    return Views(Augmentations(CenterCrop(job.image_size), effects=blur), rules, as_clip=job.video, on_device=on_device)


class ValidationTransform:
    """The validation preprocessing of a job as one function of an image, with the bits that the loader gives on a CPU.

    The image is resized and center-cropped (`CenterCrop`) and normalized by ImageNet's statistics; a job with `video`
    makes a clip of it, whose frames are blurred as in training. Of a contrastive job it is the preprocessing of the
    nearest-neighbor test: one view, without augmentation.
    """

    def __init__(self, job: Job) -> None:
        self._views = evaluation_views(job)

    def __call__(self, image: ImageLike, index: int = 0) -> Tensor:
        """float32 (3, image_size, image_size), or (frames, 3, image_size, image_size) where the job has `video`.

        image: a path, a PIL image of any mode, a uint8 array (height, width, 3) or (height, width), or a uint8 tensor
        (3, height, width). index: the number of the image in its data set, which decides the frames that are blurred
        where Blur.probs is below 1. Raises CorruptImage for a file or a PIL image that cannot be decoded, and
        ValueError for an array or a tensor of another shape or dtype.
        """
        return on_one_core(partial(self._render, to_pixels(image), index))

    def _render(self, pixels: Tensor, index: int) -> Tensor:
        views, indices = self._views, np.array([index])
        drawn = views.draw(views.draws(BatchPlan(epoch=0, step=0, indices=indices, global_indices=indices), indices))
        rendered = torch.empty(views.num_views, 3, views.image_size, views.image_size)
        views.render(pixels, drawn, rendered)
        return rendered if views.as_clip else rendered[0]


def training_spectrum(
    job: Job, train: Callable[[], ImageDataset], progress: Progress = lambda done, total: None
) -> Tensor | None:
    """The mean Fourier amplitudes of a job's training images, float32 (3, image_size, image_size); None where no noise
    needs them.

    Read from Noise.mean_magnitude_path where the job has one, else measured by `mean_spectrum`; only then are the
    images opened. Raises UserError.
    """
    if not _has_fourier_noise(job):
        return None
    path = _spectrum_path(job)
    return mean_spectrum(job, train(), progress) if path is None else read_spectrum(path, job.image_size)


def check_augmentations(job: Job) -> None:
    """Find what is wrong with the files of augmentations, without measuring anything. Raises UserError."""
    spectrum = torch.ones(3, job.image_size, job.image_size)  # in place of one that would be measured
    if _has_fourier_noise(job) and (path := _spectrum_path(job)) is not None:
        spectrum = read_spectrum(path, job.image_size)
    training_views(job, spectrum)


def _has_fourier_noise(job: Job) -> bool:
    return job.Noise is not None and "fourier" in job.Noise.noise_types


def _spectrum_path(job: Job) -> Path | None:
    path = None if job.Noise is None else job.Noise.mean_magnitude_path
    return None if path is None else Path(path).expanduser()
