"""Which augmentations a job has, in which order: that of ORDERS, by the rules of the job.

A training image goes through the steps of that order that its job asks for, and is mixed with another image. A
validation image is resized, center-cropped and normalized.
"""

from collections.abc import Callable
from enum import Enum, auto
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from accel_trainer.config import Job
from accel_trainer.config.fields import transform_parts
from accel_trainer.core.files import expand_home
from accel_trainer.core.mistakes import Mistakes
from accel_trainer.data.augment.blur import ContrastiveBlur, FrameBlur, GaussianBlur
from accel_trainer.data.augment.color import ColorJitter, Grayscale
from accel_trainer.data.augment.effect import Effect, Unchanged
from accel_trainer.data.augment.erase import RandomErase
from accel_trainer.data.augment.geometry import (
    CROP_SCALE,
    WEAK_CROP_SCALE,
    CenterCrop,
    Channels,
    Crop,
    RandomResizedCrop,
    Statistics,
)
from accel_trainer.data.augment.mixing import Mixer
from accel_trainer.data.augment.noise import AddNoise, fourier_field, half_spectrum, modulus_field
from accel_trainer.data.augment.occlusion import Occlude
from accel_trainer.data.augment.policies import POLICIES
from accel_trainer.data.augment.resizing import Filter
from accel_trainer.data.augment.spectrum import ListedSpectrum, Progress, mean_spectrum, read_spectrum
from accel_trainer.data.batch_plan import BatchPlan
from accel_trainer.data.dataset import ImageDataset
from accel_trainer.data.decode import ImageLike, to_pixels
from accel_trainer.data.listing import Input
from accel_trainer.data.native.images import Images
from accel_trainer.data.occluders.listing import OccluderFiles
from accel_trainer.data.rng.draws import DrawRules
from accel_trainer.data.rng.random_fields import normal_field, uniform_field
from accel_trainer.data.shared_work import on_one_core
from accel_trainer.data.views import Augmentations, Views


class Step(Enum):
    """What may be done to a training image between the crop and the mixing with another image."""

    OCCLUSION = auto()
    FLIP = auto()
    POLICY = auto()
    COLOR_JITTER = auto()
    GRAY = auto()
    CONTRASTIVE_BLUR = auto()
    BLUR = auto()
    NOISE = auto()
    NORMALIZATION = auto()
    ERASING = auto()


# What `inputs_of` calls its inputs, and dataset.json.
OCCLUDERS, SPECTRUM = "occluders", "spectrum"

_COLORS = (Step.COLOR_JITTER, Step.GRAY, Step.CONTRASTIVE_BLUR)
# From the version of the rules on that is their key.
ORDERS: dict[int, tuple[Step, ...]] = {
    1: (Step.FLIP, Step.POLICY, *_COLORS, Step.OCCLUSION, Step.BLUR, Step.NOISE, Step.ERASING, Step.NORMALIZATION),
    2: (Step.OCCLUSION, Step.FLIP, Step.POLICY, *_COLORS, Step.BLUR, Step.NOISE, Step.NORMALIZATION, Step.ERASING),
}


def training_views(job: Job, spectrum: Tensor | None, *, on_device: bool = False) -> Views:
    """The views of a job's training images. Raises UserError for files of augmentations that cannot be used.

    spectrum: float32 (3, image_size, image_size), as `training_spectrum` gives it; Fourier noise needs it. on_device:
    effects and normalization are left to the device that trains.
    """
    policy = next((POLICIES[word]() for word in transform_parts(job.transform_type) if word in POLICIES), None)
    augmentations = Augmentations(
        crop=_crop(job),
        policy=policy,
        statistics=statistics_of(job),
        mixer=Mixer(job.image_size, job.cutmix, job.mixup) if job.cutmix or job.mixup else None,
        **_effects(job, spectrum, has_policy=policy is not None),
    )
    rules = DrawRules(job.seed, job.views_per_image, job.view_dependence, job.batch_dependence)
    return Views(augmentations, rules, as_clip=job.video, on_device=on_device)


def statistics_of(job: Job) -> Statistics:
    """Mean and standard deviation by which a job's images are normalized."""
    return Statistics(_channels(job.mean), _channels(job.std))


def _channels(values: list[float]) -> Channels:
    red, green, blue = values
    return red, green, blue


def _effects(job: Job, spectrum: Tensor | None, *, has_policy: bool) -> dict[str, list[Effect]]:
    """The effects of a job in the order of its rules, by the stages of `Augmentations`."""
    stages: dict[str, list[Effect]] = {"before_policy": [], "effects": [], "last_effects": []}
    stage = "before_policy" if has_policy else "effects"
    for step in _order(job):
        if step is Step.POLICY:
            stage = "effects"
        elif step is Step.NORMALIZATION:
            stage = "last_effects"
        elif (effect := _effect(step, job, spectrum)) is not None:
            stages[stage].append(effect)
    return stages


def _order(job: Job) -> tuple[Step, ...]:
    return ORDERS[max(version for version in ORDERS if version <= job.rules)]


def validation_crop(job: Job) -> CenterCrop:
    """How a job's validation images are resized and cropped."""
    by, *words = job.eval_resize.split("-")
    return CenterCrop(job.image_size, job.eval_crop, Filter(by), squash="squash" in words)


def _crop(job: Job) -> Crop:
    base, *words = transform_parts(job.transform_type)
    if base == "none":
        return validation_crop(job)
    return RandomResizedCrop(job.image_size, WEAK_CROP_SCALE if "weak-resize" in words else CROP_SCALE)


def _flips_occluders(job: Job) -> bool:
    """Whether occluders come before the flip. The crop flips all the same, pixels of 8 bits, which costs less, and the
    occluder of a flipped image is flipped where it is read: that comes to the same bits."""
    base, *_ = transform_parts(job.transform_type)
    order = _order(job)
    return base != "none" and order.index(Step.OCCLUSION) < order.index(Step.FLIP)


def _effect(step: Step, job: Job, spectrum: Tensor | None) -> Effect | None:
    """What a step does to the images of a job; None where the job has it not, and for the flip, which the crop does."""
    base, *words = transform_parts(job.transform_type)
    is_contrastive = base == "contrastive"
    match step:
        case Step.OCCLUSION if job.Occlusion is not None and job.Occlusion.occludes:
            flips = _flips_occluders(job)
            return Occlude(job.Occlusion, job.image_size, gray_noise=job.rules >= 2, flips_with_crop=flips)
        case Step.COLOR_JITTER if is_contrastive:
            return ColorJitter()
        case Step.GRAY if is_contrastive:
            return Grayscale()
        case Step.CONTRASTIVE_BLUR if is_contrastive and "no-blur" not in words:
            return ContrastiveBlur()
        case Step.BLUR if job.Blur is not None and job.Blur.is_drawn:
            return (FrameBlur if job.video else GaussianBlur)(job.Blur.sigmas, job.Blur.probs)
        case Step.NOISE if job.Noise is not None and job.Noise.is_drawn:
            is_real = job.Noise.fourier_part == "real"
            amplitudes = half_spectrum(spectrum) if spectrum is not None and is_real else spectrum
            field = fourier_field if is_real else modulus_field
            return AddNoise(job.Noise.noise_types, job.Noise.ssnrs, job.Noise.probs, amplitudes, field)
        case Step.ERASING if job.randomerase is not None:
            # In pixels of 0..1, before normalization, as the value then was.
            return RandomErase(job.image_size, job.randomerase, uniform_field if job.rules < 2 else normal_field)
        case _ if job.rules < 2 and _is_idle(step, job):
            return Unchanged()
        case _:
            return None


def _is_idle(step: Step, job: Job) -> bool:
    """Whether a job has a step that never does anything. By the first rules such a step too made floats of images, and
    floats are normalized to other last bits."""
    return {Step.OCCLUSION: job.Occlusion, Step.BLUR: job.Blur, Step.NOISE: job.Noise}.get(step) is not None


def frame_blur(job: Job) -> FrameBlur | None:
    """What is done to the frames of validation clips, if anything."""
    return FrameBlur(job.Blur.sigmas, job.Blur.probs) if job.video and job.Blur is not None else None


def evaluation_views(job: Job, *, on_device: bool = False) -> Views:
    """The views of a job's validation images: one, by the center crop; or the frames of a clip, blurred as in
    training, each image with the same draws in every epoch.
    """
    blur = frame_blur(job)
    augmentations = Augmentations(
        validation_crop(job),
        effects=[] if blur is None else [blur],
        statistics=statistics_of(job),
    )
    rules = DrawRules(job.seed, job.views_per_image if job.video else 1, job.view_dependence)
    return Views(augmentations, rules, as_clip=job.video, on_device=on_device)


class ValidationTransform:
    """The validation preprocessing of a job as one function of an image, with the bits that the loader gives on a CPU.

    The image is resized and center-cropped (`CenterCrop`), by the job's `eval_crop` and `eval_resize`, and normalized
    by its `mean` and `std`; a job with `video` makes a clip of it, whose frames are blurred as in training. Of a
    contrastive job it is the preprocessing of the nearest-neighbor test: one view, without augmentation.
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
        views.render(Images.of([pixels]), drawn, rendered)
        return rendered if views.as_clip else rendered[0]


def training_spectrum(
    job: Job, train: Callable[[], ImageDataset], progress: Progress = lambda done, total: None
) -> Tensor | None:
    """The mean Fourier amplitudes of a job's training images, float32 (3, image_size, image_size); None where no noise
    needs them.

    Read from Noise.mean_magnitude_path where the job has one, else measured by `mean_spectrum`; only then are the
    images opened. Raises UserError.
    """
    if job.Noise is None or not job.Noise.needs_spectrum:
        return None
    path = _spectrum_path(job)
    return mean_spectrum(job, train(), progress) if path is None else read_spectrum(path, job.image_size)


def inputs_of(job: Job, views: Views, spectrum: Tensor | None) -> dict[str, Input]:
    """What the training images of a job are augmented with that comes from files: `occluders` and `spectrum`.

    views, spectrum: of `training_views` and `training_spectrum`.
    """
    found: dict[str, Input] = {}
    for effect in views.all_effects:
        if isinstance(effect, Occlude):
            found[OCCLUDERS] = OccluderFiles(effect.forms)
    if spectrum is not None:
        found[SPECTRUM] = ListedSpectrum(spectrum, is_measured=_spectrum_path(job) is None)
    return found


def check_augmentations(job: Job) -> None:
    """Find what is wrong with the files of augmentations, without measuring anything. Raises UserError."""
    mistakes = Mistakes()
    if job.Noise is not None and job.Noise.needs_spectrum and (path := _spectrum_path(job)) is not None:
        mistakes.of(lambda: read_spectrum(path, job.image_size))
    in_place_of_it = torch.ones(3, job.image_size, job.image_size)
    mistakes.of(lambda: training_views(job, in_place_of_it))
    mistakes.raise_found()


def _spectrum_path(job: Job) -> Path | None:
    path = None if job.Noise is None else job.Noise.mean_magnitude_path
    return None if path is None else expand_home(path)
