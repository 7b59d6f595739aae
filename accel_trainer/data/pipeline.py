"""Which augmentations a job has, in which order."""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor

from accel_trainer.config import Job, ResolvedJob
from accel_trainer.config.fields import transform_words
from accel_trainer.data.augment.blur import ContrastiveBlur, FrameBlur, GaussianBlur
from accel_trainer.data.augment.color import ColorJitter, Grayscale
from accel_trainer.data.augment.effect import Effect
from accel_trainer.data.augment.erase import RandomErase
from accel_trainer.data.augment.geometry import CROP_SCALE, WEAK_CROP_SCALE, CenterCrop, RandomResizedCrop, Transform
from accel_trainer.data.augment.mixing import Mixer
from accel_trainer.data.augment.noise import AddNoise, half_spectrum
from accel_trainer.data.augment.occlusion import Occlude
from accel_trainer.data.augment.policies import POLICIES
from accel_trainer.data.augment.spectrum import Progress, mean_spectrum
from accel_trainer.data.batch_plan import BatchPlan, TrainBatchPlanner, batch_sizes
from accel_trainer.data.dataset import ImageDataset, Splits
from accel_trainer.data.decode import ImageLike, to_pixels
from accel_trainer.data.loader import ImageReader
from accel_trainer.data.shared_work import on_one_core
from accel_trainer.data.views import Views


def training_views(job: Job, spectrum: Tensor | None, *, on_device: bool = False) -> Views:
    """The views of a job's training images. Raises UserError.

    spectrum: the mean spectrum of the images, which Fourier noise needs.
    """
    base, *words = transform_words(job.transform_type)
    policies = [POLICIES[word]() for word in words if word in POLICIES]
    return Views(
        _transform(base, job.image_size, is_weak="weak-resize" in words),
        image_size=job.image_size,
        seed=job.seed,
        policy=policies[0] if policies else None,
        effects=_effects(job, spectrum),
        mixer=Mixer(job.image_size, job.cutmix, job.mixup) if job.cutmix or job.mixup else None,
        num_views=job.views_per_image,
        view_dependence=job.view_dependence,
        batch_dependence=job.batch_dependence,
        as_clip=job.video,
        on_device=on_device,
    )


def evaluation_views(job: Job, *, on_device: bool = False) -> Views:
    """The views of a job's validation images: one, by the centre crop; or the frames of a clip, blurred as in
    training, each image with the same draws in every epoch.
    """
    return Views(
        CenterCrop(job.image_size),
        image_size=job.image_size,
        seed=job.seed,
        effects=[FrameBlur(job.Blur.sigmas, job.Blur.probs)] if job.video and job.Blur is not None else [],
        num_views=job.views_per_image if job.video else 1,
        view_dependence=job.view_dependence,
        as_clip=job.video,
        on_device=on_device,
    )


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


def needs_spectrum(job: Job) -> bool:
    return job.Noise is not None and "fourier" in job.Noise.noise_types


def _transform(base: str, image_size: int, *, is_weak: bool) -> Transform:
    if base == "none":
        return CenterCrop(image_size)
    return RandomResizedCrop(image_size, WEAK_CROP_SCALE if is_weak else CROP_SCALE)


def _effects(job: Job, spectrum: Tensor | None) -> list[Effect]:
    """In the order in which they are applied."""
    base, *words = transform_words(job.transform_type)
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


def _training_reader(
    job: Job, train: ImageDataset, progress: Progress, *, augment_on_device: bool = False
) -> ImageReader:
    views = views_in_training(job, lambda: train, progress, augment_on_device=augment_on_device)
    return ImageReader(train, views, replace_corrupt=True)


def views_in_training(
    job: Job,
    train: Callable[[], ImageDataset],
    progress: Progress = lambda done, total: None,
    *,
    augment_on_device: bool,
) -> Views:
    """How a job sees its training images, which are opened only if their spectrum is wanted. Raises UserError."""
    spectrum = mean_spectrum(job, train(), progress) if needs_spectrum(job) else None
    return training_views(job, spectrum, on_device=augment_on_device)


def possible_batch_sizes(job: Job, images: Splits, world_size: int) -> list[int]:
    """Those that "auto" chooses from, smallest first."""
    return batch_sizes(len(images.train.labels), job.num_views, world_size, job.gradient_accumulation)


def make_sampling(job: ResolvedJob, images: Splits, world_size: int) -> TrainBatchPlanner:
    return TrainBatchPlanner(
        num_images=len(images.train.labels),
        batch_size=job.batch_size,
        accumulation=job.gradient_accumulation,
        world_size=world_size,
        seed=job.seed,
        num_views=job.num_views,
    )
