"""From stored pixels to what a model sees: the same whoever makes it, in the order that the documents give."""

import math
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from itertools import islice
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from cutting import cut_one
from PIL import Image
from safetensors.torch import save_file
from torchvision.transforms import v2

from accel_trainer.config import Job
from accel_trainer.data.augment.blur import ContrastiveBlur, FrameBlur, GaussianBlur
from accel_trainer.data.augment.color import ColorJitter, Grayscale
from accel_trainer.data.augment.erase import RandomErase
from accel_trainer.data.augment.mixing import MixedLabels, mix
from accel_trainer.data.augment.noise import AddNoise, pink_spectrum
from accel_trainer.data.augment.occlusion import Occlude
from accel_trainer.data.batch_plan import BatchPlan, evaluation_batches
from accel_trainer.data.loader import Batch, ImageReader, Loader
from accel_trainer.data.occluders.synthetic import make_occluders
from accel_trainer.data.rng.draws import Draws, Parameters
from accel_trainer.data.views import ViewParameters
from accel_trainer.training.build import TrainingData, training_data

MakeJob = Callable[..., Job]
SIZE = 20
NORMALISE = v2.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
SHARING = [(False, False), (True, False), (False, True), (True, True)]
EVERY_SHARING = pytest.mark.parametrize(("view_dependence", "batch_dependence"), SHARING)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few small occluders, and a spectrum."""
    folder = tmp_path_factory.mktemp("files")
    make_occluders(folder, ["barVert04", "natural"], [40, 70], number=5, size=32, report=lambda _: None)
    half = pink_spectrum(SIZE)
    save_file({"mean_magnitude": torch.cat([half, half[..., 1:-1].flip(-1)], -1)}, folder / "pink.safetensors")
    return folder


Build = Callable[..., TrainingData]


@pytest.fixture
def parts_of(make_job: MakeJob) -> Build:
    def parts(world_size: int = 1, on_device: bool = False, **given: Any) -> TrainingData:
        few = {"architecture": "squeezenet1_1", "dataset": "digits", "batch_size": 32, "image_size": SIZE}
        return training_data(make_job(**{**few, **given}), world_size, augment_on_device=on_device)

    return parts


@pytest.fixture
def everything(files: Path) -> dict[str, Any]:
    """Every augmentation there is, each in some images and not in others."""
    return {
        "transform_type": "contrastive-randaugment",
        "num_views": 2,
        "Occlusion": {
            "occluder_dir": str(files),
            "form": ["barVert04", "natural"],
            "probability": 0.7,
            "visibility": [40, 70],
            "color": ["random", "pink_noise", [10, 200, 30]],
            "random_resize": True,
        },
        "Blur": {"sigmas": [0.7, 3], "probs": [0.3, 0.4]},
        "Noise": {
            "noise_types": ["gaussian", "fourier"],
            "ssnrs": [0.4, 0.8],
            "probs": 0.7,
            "mean_magnitude_path": str(files / "pink.safetensors"),
        },
        "randomerase": "random",
        "cutmix": True,
        "mixup": {"alpha": 0.4},
    }


def plans(parts: TrainingData, epoch: int = 1, rank: int = 0) -> Iterator[BatchPlan]:
    return parts.sampling.micro_batches(epoch, rank)


def first(parts: TrainingData, epoch: int = 1) -> Batch:
    return parts.train_reader(next(plans(parts, epoch)))


def images_of(batch: Batch) -> torch.Tensor:
    return batch.inputs.on("cpu")


def drawn_by(parts: TrainingData, plan: BatchPlan) -> ViewParameters:
    views = parts.train_reader.views
    return views.draw(views.draws(plan, plan.global_indices))


def numbers_of(drawn: ViewParameters) -> dict[str, np.ndarray]:
    """Every array that was drawn."""
    arrays = {"crop": drawn.crop}
    for what in (*drawn.before_policy, drawn.policy, *drawn.effects, *drawn.last_effects):
        if isinstance(what, Parameters):
            arrays |= {f"{type(what).__name__}.{field.name}": getattr(what, field.name) for field in fields(what)}
    return arrays


def same_labels(one: Any, other: Any) -> bool:
    if isinstance(one, MixedLabels):
        return all(torch.equal(getattr(one, name), getattr(other, name)) for name in ("first", "second", "weight"))
    return torch.equal(one, other)


class OneImage:
    """A data set that has the same image over and over."""

    classes = ("only",)

    def __init__(self, count: int = 200) -> None:
        self.labels = np.zeros(count, np.int64)
        self._pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 31, 27), dtype=np.uint8))

    def read(self, index: int) -> torch.Tensor:
        return self._pixels

    def describe(self, index: int) -> str:
        return str(index)


def of_one_image(parts: TrainingData) -> ImageReader:
    return ImageReader(OneImage(2000), parts.train_reader.views, replace_corrupt=True)


# -- order ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "scale", "expected"),
    [
        ({}, (0.08, 1.0), []),
        ({"transform_type": "none"}, None, []),
        ({"transform_type": "none-trivialaugment"}, None, []),
        ({"transform_type": "default-weak-resize"}, (0.8, 1.0), []),
        ({"transform_type": "contrastive"}, (0.08, 1.0), [ColorJitter, Grayscale, ContrastiveBlur]),
        ({"transform_type": "contrastive-no-blur-weak-resize"}, (0.8, 1.0), [ColorJitter, Grayscale]),
        ({"Blur": {"sigmas": 1}, "randomerase": 0}, (0.08, 1.0), [GaussianBlur]),
        ({"Blur": {"sigmas": [1, 2]}, "video": True}, (0.08, 1.0), [FrameBlur]),
        ({"Noise": {"ssnrs": 0.5}, "Blur": {"sigmas": 1}}, (0.08, 1.0), [GaussianBlur, AddNoise]),
    ],
)
def test_a_job_has_the_effects_that_it_names(
    parts_of: Build, given: dict[str, Any], scale: tuple[float, float] | None, expected: list[type]
) -> None:
    views = parts_of(**given).train_reader.views
    assert [type(effect) for effect in views.effects] == expected
    assert getattr(views.crop, "scale", None) == scale


def test_effects_come_in_the_order_of_the_documents(parts_of: Build, everything: dict[str, Any]) -> None:
    parts = parts_of(**everything)
    views = parts.train_reader.views
    assert [type(effect) for effect in views.before_policy] == [Occlude]
    kinds = [ColorJitter, Grayscale, ContrastiveBlur, GaussianBlur, AddNoise]
    assert [type(effect) for effect in views.effects] == kinds
    assert [type(effect) for effect in views.last_effects] == [RandomErase]


@pytest.mark.parametrize("on_device", [False, True])
def test_a_batch_is_cropped_then_altered_by_every_effect_then_normalised_then_mixed(
    parts_of: Build, everything: dict[str, Any], on_device: bool
) -> None:
    parts = parts_of(on_device=on_device, **{**everything, "batch_size": 24})
    read, plan = parts.train_reader, next(plans(parts))
    views, drawn = read.views, drawn_by(parts, plan)
    cropped = []
    for row, index in enumerate(np.repeat(plan.global_indices, 2).tolist()):
        image = cut_one(views.crop, read.source.read(index), drawn.crop[row])[None] / 255
        for effect, parameters in zip(views.before_policy, drawn.before_policy, strict=True):
            image = effect.apply(image, effect.fetch(parameters[row : row + 1]))
        pixels = (image[0] * 255).round().to(torch.uint8)
        cropped.append(views.policy.apply(pixels, drawn.policy[row : row + 1]))
    images = torch.stack(cropped) / 255
    for effect, parameters in zip(views.effects, drawn.effects, strict=True):
        images = effect.apply(images, effect.fetch(parameters))
        assert 0 <= images.min() <= images.max() <= 1 + 1e-6
    images = NORMALISE(images)
    for effect, parameters in zip(views.last_effects, drawn.last_effects, strict=True):
        images = effect.apply(images, effect.fetch(parameters))
    mixed = mix(images, images.roll(2, 0), views.draw_mixing(views.mixer, views.draws(plan, plan.global_indices)))
    torch.testing.assert_close(images_of(read(plan)), mixed, rtol=0, atol=1e-5)


def test_an_erased_box_has_no_noise_and_an_occluder_has(parts_of: Build, everything: dict[str, Any]) -> None:
    """Two steps of the order that can be seen."""
    erased = {"randomerase": 0.25, "Noise": {"ssnrs": 0.5}}
    parts = parts_of(**erased)
    plan = next(plans(parts))
    boxes = drawn_by(parts, plan).last_effects[0].box.tolist()
    grey = torch.full((3, 1, 1), 0.25)
    for image, (top, bottom, left, right) in zip(images_of(parts.train_reader(plan)), boxes, strict=True):
        inside = image[:, top:bottom, left:right]
        torch.testing.assert_close(inside, grey.expand_as(inside), rtol=0, atol=1e-6)
    occlusion = {**everything["Occlusion"], "form": "barVert04", "color": [[0, 0, 255]], "probability": 1}
    counts = []
    for noise in ({}, {"Noise": {"ssnrs": 0.5}}, {"Blur": {"sigmas": 1}}):
        images = images_of(first(parts_of(Occlusion=occlusion, **noise)))
        counts.append(int((images - NORMALISE(torch.tensor([0.0, 0, 1])[:, None, None])).abs().amax(1).lt(1e-5).sum()))
    assert counts[0] > 32 * SIZE**2 * 0.25
    assert counts[1] == 0
    assert counts[2] < counts[0] / 2


# -- whoever makes it -------------------------------------------------------------------------------------------


def global_batches(
    parts: TrainingData, world_size: int, num_threads: int, accumulation: int = 1, steps: int = 2
) -> list[tuple[torch.Tensor, Any, Any]]:
    """Images, labels and global labels of the first batches, put together from those of all processes."""
    of_rank = []
    for rank in range(world_size):
        with Loader(num_threads) as loader:
            of_rank.append(
                list(loader.batches(parts.train_reader, islice(plans(parts, rank=rank), steps * accumulation)))
            )
    wholes = []
    for step in range(steps):
        some = [of_rank[rank][step * accumulation + part] for part in range(accumulation) for rank in range(world_size)]
        assert {batch.step for batch in some} == {step}
        for batch in some:
            assert same_labels(batch.global_labels, some[0].global_labels)
        mixed = [batch.labels for batch in some]
        labels = MixedLabels(
            *(torch.cat([getattr(one, name) for one in mixed]) for name in ("first", "second", "weight"))
        )
        wholes.append((torch.cat([images_of(batch) for batch in some]), labels, some[0].global_labels))
    return wholes


@pytest.mark.parametrize(
    ("world_size", "num_threads", "accumulation", "view_dependence", "batch_dependence"),
    [
        (1, 2, 1, False, False),
        (2, 0, 1, False, False),
        (2, 2, 1, True, False),
        (2, 1, 2, False, False),
        (2, 2, 1, False, True),
        (4, 0, 1, True, True),
    ],
)
def test_batches_have_the_same_bits_on_any_number_of_threads_and_processes(
    parts_of: Build,
    everything: dict[str, Any],
    world_size: int,
    num_threads: int,
    accumulation: int,
    view_dependence: bool,
    batch_dependence: bool,
) -> None:
    job = {**everything, "view_dependence": view_dependence, "batch_dependence": batch_dependence, "batch_size": 16}
    expected = global_batches(parts_of(**job), 1, 0)
    parts = parts_of(world_size, gradient_accumulation=accumulation, **job)
    found = global_batches(parts, world_size, num_threads, accumulation)
    for (images, labels, all_labels), (wanted, wanted_labels, all_wanted) in zip(found, expected, strict=True):
        assert images.shape == (16, 3, SIZE, SIZE)
        assert torch.equal(images, wanted)
        assert same_labels(labels, wanted_labels)
        assert same_labels(all_labels, all_wanted)
        assert same_labels(all_labels, labels)


@pytest.mark.parametrize("num_threads", [0, 1, 2])
def test_whoever_loads_has_one_core_for_it_and_gives_the_others_back(parts_of: Build, num_threads: int) -> None:
    """The last bits of a matrix product depend on their number."""
    parts, cores = parts_of(), []
    torch.set_num_threads(3)

    def load(plan: BatchPlan) -> Batch:
        cores.append(torch.get_num_threads())
        return parts.train_reader(plan)

    with Loader(num_threads) as loader:
        for _ in loader.batches(load, islice(plans(parts), 4)):
            assert torch.get_num_threads() == 3
    assert cores == [1] * 4


@EVERY_SHARING
def test_the_device_makes_the_images_that_the_loader_makes(
    parts_of: Build, everything: dict[str, Any], view_dependence: bool, batch_dependence: bool
) -> None:
    job = {**everything, "view_dependence": view_dependence, "batch_dependence": batch_dependence, "batch_size": 16}
    loader, device = (parts_of(on_device=on_device, **job) for on_device in (False, True))
    for plan in islice(plans(loader), 2):
        ours, theirs = (numbers_of(drawn_by(parts, plan)) for parts in (loader, device))
        assert ours.keys() == theirs.keys()
        for name in ours:
            np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)
        by_loader, by_device = loader.train_reader(plan), device.train_reader(plan)
        assert by_device.inputs.images.dtype == torch.uint8
        assert by_loader.inputs.images.dtype == images_of(by_device).dtype == torch.float32
        torch.testing.assert_close(images_of(by_device), images_of(by_loader), rtol=0, atol=1e-5)
        assert same_labels(by_device.labels, by_loader.labels)


@pytest.mark.parametrize("on_device", [False, True])
def test_asking_twice_gives_the_same_images(parts_of: Build, everything: dict[str, Any], on_device: bool) -> None:
    batch = first(parts_of(on_device=on_device, **everything))
    assert torch.equal(images_of(batch), images_of(batch))


def test_no_global_generator_is_drawn_from_for_views(parts_of: Build, everything: dict[str, Any]) -> None:
    parts, before, numpys = parts_of(**everything), torch.get_rng_state(), np.random.get_state()[1].copy()
    first(parts)
    assert torch.equal(torch.get_rng_state(), before)
    np.testing.assert_array_equal(np.random.get_state()[1], numpys)


def test_epochs_and_seeds_give_different_augmented_views(parts_of: Build, everything: dict[str, Any]) -> None:
    """Also where they show the same images: the order is not all that changes."""
    one, other = parts_of(**everything), parts_of(seed=1, **everything)
    plan = next(plans(one))
    images = images_of(one.train_reader(plan))
    for parts, another in ((one, replace(plan, epoch=2)), (other, plan)):
        different = (images_of(parts.train_reader(another)) - images).abs().amax((1, 2, 3)) > 0.01
        assert different.all()


# -- what is shared ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("on_device", [False, True])
@EVERY_SHARING
def test_views_and_images_are_alike_where_their_draws_are_shared(
    parts_of: Build, everything: dict[str, Any], view_dependence: bool, batch_dependence: bool, on_device: bool
) -> None:
    """Of one image over and over: what is different is the draws."""
    parts = parts_of(
        on_device=on_device,
        view_dependence=view_dependence,
        batch_dependence=batch_dependence,
        **{**everything, "batch_size": 16, "cutmix": None, "mixup": None},
    )
    read = of_one_image(parts)
    batches = [images_of(read(plan)).unflatten(0, (-1, 2)) for plan in islice(plans(parts), 2)]

    def alike(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        return (one - other).abs().amax((-3, -2, -1)) <= (1e-5 if on_device else 0)

    for images in batches:
        assert alike(images[:, 0], images[:, 1]).eq(view_dependence).all()
        assert alike(images[:-1], images[1:]).eq(batch_dependence).all()
    assert not alike(*batches).any()


def test_with_batch_dependence_a_batch_has_one_occluder_one_crop_and_one_colour(
    parts_of: Build, everything: dict[str, Any]
) -> None:
    parts = parts_of(batch_dependence=True, **everything)
    drawn = [numbers_of(drawn_by(parts, plan)) for plan in islice(plans(parts), 12)]
    for name in drawn[0]:
        for batch in drawn:
            rows = batch[name].reshape(16, 2, -1)
            assert (rows == rows[:1]).all(), name
        if drawn[0][name].size and name != "Operations.magnitude_bin":  # RandAugment has but one
            assert len({batch[name][0].tobytes() for batch in drawn}) > 1, name
    for name in ("crop", "JitterParameters.factors", "OcclusionParameters.place", "NoiseParameters.key"):
        assert len({batch[name][0].tobytes() for batch in drawn}) == 12, name


def test_with_batch_dependence_the_batch_is_that_of_all_processes(parts_of: Build, everything: dict[str, Any]) -> None:
    """Of the optimizer step: also over accumulation steps."""
    parts = parts_of(2, batch_dependence=True, gradient_accumulation=2, **everything)
    views = parts.train_reader.views
    crops = {
        views.draw(views.draws(plan, plan.indices)).crop[::2].tobytes()
        for rank in range(2)
        for plan in islice(plans(parts, rank=rank), 2)
    }
    assert len(crops) == 1


@pytest.mark.parametrize("mixing", [{}, {"cutmix": {"per": "image"}}, {"mixup": {"per": "image"}}])
def test_with_view_dependence_all_views_of_an_image_are_identical(
    parts_of: Build, everything: dict[str, Any], mixing: dict[str, Any]
) -> None:
    job = {**everything, "num_views": 3, "batch_size": 30, "view_dependence": True, "cutmix": None, "mixup": None}
    batch = first(parts_of(**{**job, **mixing}))
    images = images_of(batch).unflatten(0, (10, 3))
    assert torch.equal(images, images[:, :1].expand_as(images))
    if mixing:
        assert (batch.labels.weight.view(10, 3) == batch.labels.weight[::3, None]).all()
        assert len(batch.labels.weight.unique()) > 5


@pytest.mark.parametrize("views", [[0], [1], [0, 2]])
def test_an_occluder_of_some_views_leaves_the_others_alone(
    parts_of: Build, everything: dict[str, Any], views: list[int]
) -> None:
    job = {**everything, "num_views": 3, "batch_size": 30, "randomerase": None, "cutmix": None, "mixup": None}
    occlusion = {**job.pop("Occlusion"), "probability": 1.0, "views": views}
    occluded = images_of(first(parts_of(Occlusion=occlusion, **job))).unflatten(0, (10, 3))
    clear = images_of(first(parts_of(**job))).unflatten(0, (10, 3))
    is_changed = (occluded != clear).flatten(2).any(2)
    assert is_changed.eq(torch.tensor([view in views for view in range(3)])).all()


# -- labels -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("on_device", [False, True])
@pytest.mark.parametrize("num_views", [1, 2, 3])
def test_all_views_have_the_label_of_their_image(parts_of: Build, num_views: int, on_device: bool) -> None:
    parts = parts_of(2, on_device, num_views=num_views, batch_size=24)
    plan = next(plans(parts, rank=1))
    batch = parts.train_reader(plan)
    labels = parts.images.train.labels
    assert len(images_of(batch)) == len(batch.labels) == 12
    assert batch.labels.tolist() == np.repeat(labels[plan.indices], num_views).tolist()
    assert batch.global_labels.tolist() == np.repeat(labels[plan.global_indices], num_views).tolist()
    assert batch.labels.dtype == torch.int64


@pytest.mark.parametrize("num_views", [1, 2])
def test_mixed_labels_are_those_of_the_image_and_of_the_one_before(parts_of: Build, num_views: int) -> None:
    parts = parts_of(num_views=num_views, batch_size=24, cutmix={"per": "image"})
    plan = next(plans(parts))
    batch, labels = parts.train_reader(plan), parts.images.train.labels[plan.global_indices]
    assert batch.labels.first.tolist() == np.repeat(labels, num_views).tolist()
    assert batch.labels.second.tolist() == np.repeat(np.roll(labels, 1), num_views).tolist()
    assert len(batch.labels.weight.unique()) > 12


# -- validation -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("on_device", [False, True])
def test_validation_images_are_only_resized_cropped_and_normalised(
    parts_of: Build, everything: dict[str, Any], on_device: bool
) -> None:
    read = parts_of(on_device=on_device, **everything).val.reader
    batch = read(next(evaluation_batches(450, 20, 0, 1)))
    crop = v2.Compose([v2.Resize(int(SIZE * 256 / 224), antialias=True), v2.CenterCrop(SIZE)])
    expected = torch.stack([NORMALISE(crop(read.source.read(index)) / 255) for index in range(20)])
    torch.testing.assert_close(images_of(batch), expected, rtol=0, atol=0.02)
    assert torch.equal(batch.labels, torch.from_numpy(read.source.labels[:20]))


# -- clips ------------------------------------------------------------------------------------------------------

SIGMAS = [2.0, 1.0, 0.4, 0.0]
CLIPS = {"video": True, "Blur": {"sigmas": SIGMAS}, "batch_size": 12}


def blurred(image: torch.Tensor, sigma: float) -> torch.Tensor:
    return v2.functional.gaussian_blur(image, [2 * math.ceil(3 * sigma) + 1] * 2, [sigma] * 2) if sigma else image


@pytest.mark.parametrize("on_device", [False, True])
def test_the_frames_of_a_clip_are_the_same_crop_blurred_by_every_sigma(parts_of: Build, on_device: bool) -> None:
    parts = parts_of(on_device=on_device, **CLIPS)
    clips = images_of(first(parts))
    assert clips.shape == (12, 4, 3, SIZE, SIZE)
    # Normalised images may be blurred as well as others: the weights add up to 1.
    for clip in clips:
        for frame, sigma in zip(clip, SIGMAS, strict=True):
            torch.testing.assert_close(frame, blurred(clip[3], sigma), rtol=0, atol=2e-5)
    single = images_of(first(parts_of(batch_size=12)))
    torch.testing.assert_close(clips[:, 3], single, rtol=0, atol=1e-6)


def test_frames_have_draws_of_their_own_only_where_requested(parts_of: Build) -> None:
    job = {"video": True, "num_views": 3, "batch_size": 12}
    alike, own = (images_of(first(parts_of(**job, **given))) for given in ({}, {"view_dependence": False}))
    assert alike.shape == own.shape == (4, 3, 3, SIZE, SIZE)
    assert torch.equal(alike, alike[:, :1].expand_as(alike))
    assert (own[:, 0] != own[:, 1]).flatten(1).any(1).all()


def test_a_clip_has_one_label_and_its_frames_are_mixed_alike(parts_of: Build) -> None:
    """Frames with crops of their own, too."""
    for given in ({}, {"view_dependence": False}):
        parts = parts_of(mixup=True, **CLIPS, **given)
        plan = next(plans(parts))
        batch, labels = parts.train_reader(plan), parts.images.train.labels[plan.global_indices]
        assert batch.labels.first.tolist() == labels.tolist()
        assert batch.labels.second.tolist() == np.roll(labels, 1).tolist()
        clips, plain = images_of(batch), images_of(first(parts_of(**CLIPS, **given)))
        share = batch.labels.weight[:, None, None, None, None]
        torch.testing.assert_close(clips, share * plain + (1 - share) * plain.roll(1, 0), rtol=0, atol=1e-5)


@pytest.mark.parametrize("on_device", [False, True])
def test_validation_clips_are_built_the_same_way_and_the_same_every_time(parts_of: Build, on_device: bool) -> None:
    read = parts_of(on_device=on_device, **CLIPS).val.reader
    plain = parts_of(batch_size=12).val.reader
    whole = images_of(read(next(evaluation_batches(450, 9, 0, 1))))
    assert whole.shape == (9, 4, 3, SIZE, SIZE)
    torch.testing.assert_close(whole[:, 3], images_of(plain(next(evaluation_batches(450, 9, 0, 1)))))
    for clip in whole:
        for frame, sigma in zip(clip, SIGMAS, strict=True):
            torch.testing.assert_close(frame, blurred(clip[3], sigma), rtol=0, atol=2e-5)


@pytest.mark.parametrize("probs", [1.0, [0.5, 0.25, 1.0, 0.5]])
def test_validation_clips_do_not_depend_on_batches_processes_and_epochs(parts_of: Build, probs: Any) -> None:
    read = parts_of(**{**CLIPS, "Blur": {"sigmas": SIGMAS, "probs": probs}}).val.reader
    whole = images_of(read(next(evaluation_batches(450, 12, 0, 1))))
    in_threes = [images_of(read(plan)) for plan in islice(evaluation_batches(450, 3, 0, 1), 4)]
    assert torch.equal(torch.cat(in_threes), whole)
    by_rank = [images_of(read(next(evaluation_batches(450, 6, rank, 2)))) for rank in range(2)]
    assert torch.equal(torch.stack(by_rank, 1).flatten(0, 1), whole)
    assert torch.equal(images_of(read(next(evaluation_batches(450, 12, 0, 1)))), whole)


@pytest.mark.parametrize("split", ["train", "val"])
def test_frames_are_blurred_with_their_given_probabilities_each(parts_of: Build, split: str) -> None:
    parts = parts_of(**{**CLIPS, "Blur": {"sigmas": [2, 1], "probs": [0.25, 0.75]}})
    reader = parts.train_reader if split == "train" else parts.val.reader
    sigma = reader.views.draw(Draws(0, 1, 0, np.arange(4000), 2)).effects[0].sigma.reshape(-1, 2)
    assert set(sigma[:, 0]) == {0.0, 2.0}
    assert set(sigma[:, 1]) == {0.0, 1.0}
    np.testing.assert_allclose((sigma > 0).mean(0), [0.25, 0.75], atol=4 * 0.43 / math.sqrt(4000))


def test_validation_frames_share_the_draw_of_their_blur_as_training_frames_do(parts_of: Build) -> None:
    parts = parts_of(**{**CLIPS, "Blur": {"sigmas": [2, 1], "probs": 0.5}})
    plan = BatchPlan(0, 0, np.arange(200), np.arange(200))
    for reader in (parts.train_reader, parts.val.reader):
        sigma = reader.views.draw(reader.views.draws(plan, plan.indices)).effects[0].sigma.reshape(-1, 2)
        assert ((sigma[:, 0] > 0) == (sigma[:, 1] > 0)).all()


# -- folders and Hugging Face -----------------------------------------------------------------------------------

CLASSES = ("ant", "bee", "cow")
CORRUPT = ((1, 0), (2, 3), (2, 4))  # class, image


@pytest.fixture(autouse=True)
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets.disable_progress_bars()
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)


@pytest.fixture
def sets(tmp_path: Path) -> Callable[[bool], list[dict[str, Any]]]:
    """The same images as folders and as a Hugging Face data set: what a job says to have them."""

    def write(corrupt: bool) -> list[dict[str, Any]]:
        rng = np.random.default_rng(0)
        features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=list(CLASSES))})
        splits = {}
        for split in ("train", "val"):
            rows: dict[str, list[Any]] = {"image": [], "label": []}
            for label, name in enumerate(CLASSES):
                for number in range(6):
                    path = tmp_path / "sets" / "animals" / split / name / f"{number}.png"
                    path.parent.mkdir(parents=True, exist_ok=True)
                    Image.fromarray(rng.integers(0, 256, (9 + number, 12, 3), dtype=np.uint8)).save(path)
                    if corrupt and (label, number) in CORRUPT:
                        path.write_bytes(path.read_bytes()[:40])
                    rows["image"].append({"bytes": path.read_bytes(), "path": None})
                    rows["label"].append(label)
            splits[split] = datasets.Dataset.from_dict(rows, features)
        datasets.DatasetDict(splits).save_to_disk(str(tmp_path / "saved"))
        return [
            {"dataset": "animals", "data_root": str(tmp_path / "sets")},
            {"dataset": f"hf:{tmp_path / 'saved'}"},
        ]

    return write


@pytest.mark.parametrize(
    ("subset", "corrupt", "on_device"),
    [(None, True, False), (None, True, True), ([2, 0], False, True), ([2, 0], True, False)],
)
def test_folders_and_hugging_face_give_the_same_batches(
    parts_of: Build,
    everything: dict[str, Any],
    sets: Callable[[bool], list[dict[str, Any]]],
    subset: list[int] | None,
    corrupt: bool,
    on_device: bool,
) -> None:
    everything = {**everything, "class_subset": subset, "batch_size": 12}
    folders, hugging_face = (parts_of(on_device=on_device, **everything, **where) for where in sets(corrupt))
    names = list(CLASSES) if subset is None else ["cow", "ant"]
    assert list(folders.images.classes) == list(hugging_face.images.classes) == names
    for plan in plans(folders):
        ours, theirs = folders.train_reader(plan), hugging_face.train_reader(plan)
        assert len(images_of(ours)) == len(ours.labels) == 12
        assert torch.equal(images_of(ours), images_of(theirs))
        assert same_labels(ours.labels, theirs.labels)
    count = len(folders.images.val.labels)
    for plan in evaluation_batches(count, 5, 0, 1):
        ours, theirs = folders.val.reader(plan), hugging_face.val.reader(plan)
        assert torch.equal(images_of(ours), images_of(theirs))
        assert torch.equal(ours.labels, theirs.labels)
    assert folders.train_reader.corrupt == hugging_face.train_reader.corrupt
    assert folders.val.reader.corrupt == hugging_face.val.reader.corrupt
    broken = 0 if not corrupt else 3 if subset is None else 2
    assert len(folders.val.reader.corrupt) == broken


@pytest.mark.parametrize("on_device", [False, True])
def test_a_corrupt_image_of_clips_takes_its_draws_with_it(
    parts_of: Build, sets: Callable[[bool], list[dict[str, Any]]], on_device: bool
) -> None:
    """Blurs stay with their images when others are left out; a batch may have none."""
    clips = {**CLIPS, "Blur": {"sigmas": SIGMAS, "probs": 0.5}, "on_device": on_device}
    whole = parts_of(**clips, **sets(False)[0]).val.reader
    plan = BatchPlan(0, 0, np.arange(18), np.arange(18))
    expected = images_of(whole(plan))
    broken = parts_of(**clips, **sets(True)[0]).val.reader
    batch, lost = broken(plan), [label * 6 + number for label, number in CORRUPT]
    kept = [index for index in range(18) if index not in lost]
    torch.testing.assert_close(images_of(batch), expected[kept], rtol=0, atol=1e-6)
    assert batch.labels.tolist() == (np.array(kept) // 6).tolist()
    nothing = broken(BatchPlan(0, 0, np.array(lost), np.array(lost)))
    assert images_of(nothing).shape == (0, 4, 3, SIZE, SIZE)
    assert len(nothing.labels) == 0


def test_a_corrupt_image_is_replaced_by_its_substitute_in_mixtures_too(
    parts_of: Build, sets: Callable[[bool], list[dict[str, Any]]]
) -> None:
    where = sets(True)[0]
    mixed, plain = parts_of(batch_size=18, mixup=True, **where), parts_of(batch_size=18, **where)
    batch, images = first(mixed), images_of(first(plain))
    share = batch.labels.weight[:, None, None, None]
    torch.testing.assert_close(images_of(batch), share * images + (1 - share) * images.roll(1, 0), rtol=0, atol=1e-5)


# -- odd sizes ----------------------------------------------------------------------------------------------------


@pytest.fixture
def odd(tmp_path: Path, everything: dict[str, Any]) -> dict[str, Any]:
    """Everything, with images whose 3 * 33 * 33 numbers start where memory is not aligned, but for the first."""
    half = pink_spectrum(33)
    save_file({"mean_magnitude": torch.cat([half, half[..., 1:].flip(-1)], -1)}, tmp_path / "odd.safetensors")
    noise = {**everything["Noise"], "mean_magnitude_path": str(tmp_path / "odd.safetensors")}
    transform = {"transform_type": "contrastive-trivialaugment", "image_size": 33, "batch_size": 16}
    return {**everything, **transform, "Noise": noise}


@pytest.mark.parametrize(("world_size", "num_threads"), [(1, 2), (8, 0)])
def test_images_of_odd_sizes_have_the_same_bits_at_any_position(
    parts_of: Build, odd: dict[str, Any], world_size: int, num_threads: int
) -> None:
    expected = global_batches(parts_of(**odd), 1, 0)
    found = global_batches(parts_of(world_size, **odd), world_size, num_threads)
    for (images, labels, _), (wanted, wanted_labels, _) in zip(found, expected, strict=True):
        assert torch.equal(images, wanted)
        assert same_labels(labels, wanted_labels)


def test_the_device_makes_the_images_of_an_odd_size_that_the_loader_makes(parts_of: Build, odd: dict[str, Any]) -> None:
    loader, device = (parts_of(on_device=on_device, **odd) for on_device in (False, True))
    for plan in islice(plans(loader), 2):
        by_loader, by_device = images_of(loader.train_reader(plan)), images_of(device.train_reader(plan))
        torch.testing.assert_close(by_device, by_loader, rtol=0, atol=1e-5)


@pytest.mark.parametrize("size", [7, 9, 11, 33])
def test_a_blurred_image_has_the_same_bits_at_any_position(parts_of: Build, size: int) -> None:
    """A library may multiply otherwise where memory is not aligned: at 8 to 11 pixels Intel's does."""
    parts = parts_of(image_size=size, batch_size=16, Blur={"sigmas": [0.7, 1, 3]})
    images = images_of(of_one_image(parts)(plan := next(plans(parts))))
    for position, index in enumerate(plan.indices):
        alone = of_one_image(parts)(replace(plan, indices=np.array([index])))
        assert torch.equal(images_of(alone)[0], images[position])


@pytest.mark.parametrize("size", [7, 33, 45])
def test_elementwise_effects_give_an_image_the_same_bits_in_any_part(parts_of: Build, files: Path, size: int) -> None:
    """Occluders and boxes are put into many images at once."""
    section = {"occluder_dir": str(files), "form": ["barVert04", "natural"], "visibility": [40], "probability": 0.7}
    parts = parts_of(image_size=size, batch_size=16, Occlusion=section, randomerase="random")
    views = parts.train_reader.views
    drawn = drawn_by(parts, next(plans(parts)))
    room = torch.randint(256, (16, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    together, alone = views.empty(16), views.empty(16)
    assert views._finished_at_once > 1
    views.finish(room.clone(), drawn, together)
    for row in range(16):
        views.finish(room[row : row + 1].clone(), drawn[row : row + 1], alone[row : row + 1])
    assert torch.equal(together, alone)
