"""Validation preprocessing as one function of an image, beside what the loader makes of the same image."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2

from accel_trainer.config import Job
from accel_trainer.data.augment.geometry import MEAN, STD, pixels_of
from accel_trainer.data.batch_plan import BatchPlan, evaluation_batches
from accel_trainer.data.dataset import ImageDataset
from accel_trainer.data.decode import CorruptImage
from accel_trainer.data.loader import ImageReader, Loader
from accel_trainer.data.pack.format import open_packed_split
from accel_trainer.data.pack.split_writer import PackSettings
from accel_trainer.data.pack.writer import pack
from accel_trainer.data.pipeline import ValidationTransform, evaluation_views, training_views
from accel_trainer.data.sources.digits import Digits
from accel_trainer.data.sources.folders import ImageFolder, open_folders

MakeJob = Callable[..., Job]


@pytest.fixture
def photographs(tmp_path: Path) -> ImageFolder:
    """Two classes of JPEGs of several sizes and modes."""
    random = np.random.default_rng(0)
    for number, size in enumerate([(40, 60), (90, 31), (64, 64), (33, 35)]):
        path = tmp_path / "set" / "ab"[number % 2] / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        coarse = Image.fromarray(random.integers(0, 256, (9, 9, 3), np.uint8))
        coarse.resize(size, Image.Resampling.BICUBIC).convert("L" if number == 2 else "RGB").save(path, quality=80)
    return ImageFolder(tmp_path / "set")


def raw_pack(photographs: Path, folder: Path) -> ImageDataset:
    """The same images as pixels in one file."""
    for split in ("train", "val"):
        shutil.copytree(photographs, folder / "both" / split)
    pack(open_folders(folder, "both", ()), "both", folder / "raw.pack", PackSettings(999, "raw"), 1, lambda *_: None)
    return open_packed_split(folder / "raw.pack", "val")


def loaded(job: Job, source: ImageDataset) -> Tensor:
    """What the loader gives of all images of a validation set."""
    reader = ImageReader(source, evaluation_views(job), replace_corrupt=False)
    with Loader(2) as loader:
        batches = loader.batches(reader, evaluation_batches(len(source.labels), 3, rank=0, world_size=1))
        return torch.cat([batch.inputs.on("cpu") for batch in batches])


VIDEO = {"video": True, "architecture": "cornet_rt", "Blur": {"sigmas": [3.0, 1.5, 0.0], "probs": [0.5]}}


@pytest.mark.parametrize("given", [{}, {"criterion": "SimCLRLoss", "num_views": 2}, VIDEO])
def test_transform_of_digits_has_the_bits_of_the_loader(make_job: MakeJob, given: dict[str, Any]) -> None:
    job, digits = make_job(dataset="digits", image_size=20, **given), Digits("val")
    digits.labels = digits.labels[:40]
    transform = ValidationTransform(job)
    expected = loaded(job, digits)
    assert expected.shape[1:] == ((3, 3, 20, 20) if job.video else (3, 20, 20))
    for index in range(40):
        array = digits.read(index).permute(1, 2, 0).numpy()
        assert torch.equal(transform(array, index), expected[index])
        assert torch.equal(transform(digits.read(index), index), expected[index])


@pytest.mark.parametrize("image_size", [16, 224])
def test_transform_of_a_jpeg_has_the_bits_of_the_loader(
    make_job: MakeJob, photographs: ImageFolder, image_size: int
) -> None:
    job = make_job(image_size=image_size)
    transform = ValidationTransform(job)
    for index, expected in enumerate(loaded(job, photographs)):
        path = Path(photographs.describe(index))
        with Image.open(path) as image:
            for form in (path, str(path), image, np.asarray(image)):
                given = transform(form)
                assert given.dtype == torch.float32
                assert given.is_contiguous()
                assert torch.equal(given, expected)


LAB = {"eval_crop": 1.0}
OWN = {"eval_crop": 224 / 232, "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.25, 0.3]}
GRAY = {"mean": 0.5, "std": [0.25]}


@pytest.mark.parametrize(
    ("given", "size", "short_side", "mean", "std"),
    [
        (LAB, 32, 32, MEAN, STD),
        (LAB, 31, 31, MEAN, STD),
        (OWN, 224, 232, [0.5, 0.4, 0.3], [0.2, 0.25, 0.3]),
        (GRAY, 28, 32, [0.5] * 3, [0.25] * 3),
        ({"mean": 0, "std": 1}, 28, 32, [0.0] * 3, [1.0] * 3),
    ],
)
def test_preprocessing_that_a_job_gives_is_that_of_torchvision(
    make_job: MakeJob,
    photographs: ImageFolder,
    given: dict[str, Any],
    size: int,
    short_side: int,
    mean: list[float],
    std: list[float],
) -> None:
    job = make_job(image_size=size, **given)
    crop = v2.Compose([v2.Resize(short_side, antialias=True), v2.CenterCrop(size)])
    transform = ValidationTransform(job)
    for index, images in enumerate(loaded(job, photographs)):
        pixels = photographs.read(index)
        theirs = v2.functional.normalize(v2.functional.to_dtype(crop(pixels), torch.float32, scale=True), mean, std)
        torch.testing.assert_close(images, theirs, rtol=0, atol=2e-5)
        assert torch.equal(transform(pixels), images)


@pytest.mark.parametrize("on_device", [False, True])
@pytest.mark.parametrize("how", ["bicubic", "bicubic-squash", "bilinear-squash"])
def test_validation_resizes_as_the_job_says_whatever_loads_the_images(
    make_job: MakeJob, photographs: ImageFolder, tmp_path: Path, how: str, on_device: bool
) -> None:
    """Of JPEGs and of pixels in a file, of which the kernel would make rows by itself."""
    job = make_job(image_size=24, eval_resize=how)
    by, _, squash = how.partition("-")
    sides = (27, 27) if squash else 27
    resize = v2.Resize(sides, v2.InterpolationMode(by), antialias=True)
    packed = raw_pack(tmp_path / "set", tmp_path)
    for index in range(len(photographs.labels)):
        pixels = photographs.read(index)
        given = Image.fromarray(pixels.permute(1, 2, 0).numpy()) if by == "bicubic" else pixels
        theirs = v2.functional.to_image(v2.CenterCrop(24)(resize(given)))
        ours = ValidationTransform(job)(pixels)
        assert torch.equal(pixels_of(ours), theirs)
        for source in (photographs, packed):
            reader = ImageReader(source, evaluation_views(job, on_device=on_device), replace_corrupt=False)
            indices = np.array([index])
            assert torch.equal(reader(BatchPlan(0, 0, indices, indices)).inputs.on("cpu")[0], ours)


@pytest.mark.parametrize("on_device", [False, True])
@pytest.mark.parametrize("others", [{}, {"transform_type": "contrastive"}, {"randomerase": 0.5}])
def test_training_images_are_normalized_as_the_job_says(
    make_job: MakeJob, others: dict[str, Any], on_device: bool
) -> None:
    plain = {"image_size": 16, "mean": 0, "std": 1, **others}
    indices, digits = np.arange(12), Digits("val")

    def images(**given: Any) -> Tensor:
        views = training_views(make_job(**{**plain, **given}), None, on_device=on_device)
        reader = ImageReader(digits, views, replace_corrupt=False)
        return reader(BatchPlan(1, 0, indices, indices)).inputs.on("cpu")

    own = images(mean=[0.5, 0.4, 0.3], std=[0.2, 0.25, 0.3])
    theirs = v2.functional.normalize(images(), [0.5, 0.4, 0.3], [0.2, 0.25, 0.3])
    is_erased = (own == 0.5) if "randomerase" in others else torch.zeros_like(own, dtype=torch.bool)
    torch.testing.assert_close(own[~is_erased], theirs[~is_erased], rtol=0, atol=1e-5)


def test_images_without_augmentation_are_cropped_as_in_validation(make_job: MakeJob) -> None:
    job = make_job(image_size=16, transform_type="none", eval_crop=1.0, dataset="digits")
    indices, digits = np.arange(6), Digits("val")
    reader = ImageReader(digits, training_views(job, None), replace_corrupt=False)
    images = reader(BatchPlan(1, 0, indices, indices)).inputs.on("cpu")
    assert torch.equal(images, torch.stack([ValidationTransform(job)(digits.read(index)) for index in range(6)]))


def test_transform_leaves_its_input_and_the_number_of_threads(make_job: MakeJob) -> None:
    pixels = torch.randint(0, 256, (3, 30, 40), dtype=torch.uint8)
    before, threads = pixels.clone(), torch.get_num_threads()
    ValidationTransform(make_job(**VIDEO))(pixels)
    assert torch.equal(pixels, before)
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize(
    ("image", "kind", "message"),
    [
        (np.zeros((5, 5, 4), np.uint8), ValueError, r"an array of shape \(5, 5, 4\) and uint8; give"),
        (np.zeros((5, 5, 3)), ValueError, r"an array of shape \(5, 5, 3\) and float64; give"),
        (torch.zeros(5, 5, 3, dtype=torch.uint8), ValueError, r"a tensor of shape \(5, 5, 3\) and torch.uint8; give"),
        (b"bytes", TypeError, "not of type bytes"),
        ("nowhere.png", CorruptImage, "No such file"),
    ],
)
def test_transform_refuses_what_is_no_image_and_lists_what_is(
    make_job: MakeJob, image: Any, kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        ValidationTransform(make_job())(image)
