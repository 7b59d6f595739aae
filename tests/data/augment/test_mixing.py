"""Mixtures are those of the papers, with torchvision's boxes, and the same on any number of processes."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torchvision.transforms import v2

from accel_trainer.config import Job
from accel_trainer.config.augmentations import Mixing
from accel_trainer.data.augment.mixing import MixedLabels, Mixer, MixParameters, cut_boxes, mix, one_hot
from accel_trainer.data.batch_plan import evaluation_batches
from accel_trainer.data.loader import Batch
from accel_trainer.data.rng.draws import Draws
from accel_trainer.training.build import training_data

UNLIKELY = 1e-4
MakeJob = Callable[..., Job]


def draws(*indices: int, **others: Any) -> Draws:
    return Draws(**{"seed": 3, "epoch": 1, "step": 5, "indices": np.array(indices), **others})


def cutmix(image_size: int = 32, alpha: float = 1.0) -> Mixer:
    return Mixer(image_size, Mixing(alpha=alpha, per="image"), None)


def mixup(image_size: int = 32, alpha: float = 1.0) -> Mixer:
    return Mixer(image_size, None, Mixing(alpha=alpha, per="image"))


def pictures(count: int, size: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


# -- what is drawn ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("alpha", [0.2, 1.0, 4.0])
def test_shares_of_mixup_are_those_of_a_beta_distribution(alpha: float) -> None:
    drawn = mixup(alpha=alpha).draw(draws(*range(20_000)))
    assert drawn.weight.shape == (20_000,)
    assert not drawn.is_cut.any()
    assert stats.kstest(drawn.weight, stats.beta(alpha, alpha).cdf).pvalue > UNLIKELY


def torchvisions_box(lam: float, r_y: int, r_x: int, size: int) -> tuple[list[int], float]:
    """torchvision.transforms.v2.CutMix.make_params with its random numbers given: top, bottom, left, right, and
    the share that it adjusts lam to."""
    r = 0.5 * math.sqrt(1.0 - lam)
    r_w_half = int(r * size)
    r_h_half = int(r * size)
    x1, y1 = max(r_x - r_w_half, 0), max(r_y - r_h_half, 0)
    x2, y2 = min(r_x + r_w_half, size), min(r_y + r_h_half, size)
    return [y1, y2, x1, x2], 1.0 - (x2 - x1) * (y2 - y1) / (size * size)


@pytest.mark.parametrize("size", [1, 7, 32, 33, 224])
def test_boxes_of_cutmix_equal_those_of_torchvision(size: int) -> None:
    numbers = np.random.default_rng(0).random((500, 3))
    numbers[:4, 0] = [0, 1, 0, 1 - 2**-53]
    numbers[:4, 1:] = [[0, 0], [0.5, 0.5], [0.999, 0.999], [0, 0.999]]
    for box, (lam, y, x) in zip(cut_boxes(numbers[:, 0], numbers[:, 1:], size).tolist(), numbers, strict=True):
        assert box == torchvisions_box(lam, int(y * size), int(x * size), size)[0]


@pytest.mark.parametrize("alpha", [0.2, 1.0, 4.0])
def test_drawn_boxes_are_distributed_as_torchvisions(alpha: float) -> None:
    """By their areas, and by where their edges are."""
    drawn = cutmix(image_size=32, alpha=alpha).draw(draws(*range(5000)))
    rng = np.random.default_rng(1)
    theirs = [
        torchvisions_box(lam, *rng.integers(32, size=2).tolist(), 32) for lam in rng.beta(alpha, alpha, size=5000)
    ]
    assert stats.ks_2samp(drawn.weight, [share for _, share in theirs]).pvalue > UNLIKELY
    for edge in range(4):
        assert stats.ks_2samp(drawn.box[:, edge], [box[edge] for box, _ in theirs]).pvalue > UNLIKELY


@pytest.mark.parametrize("size", [1, 7, 32, 33])
def test_a_box_covers_exactly_what_the_share_leaves(size: int) -> None:
    drawn = cutmix(size).draw(draws(*range(500)))
    assert drawn.is_cut.all()
    top, bottom, left, right = drawn.box.T
    assert (drawn.box >= 0).all()
    assert (drawn.box <= size).all()
    np.testing.assert_array_equal((bottom - top) * (right - left), np.round((1 - drawn.weight) * size**2))
    np.testing.assert_allclose((bottom - top) * (right - left) / size**2, 1 - drawn.weight, rtol=0, atol=1e-15)


def test_the_mixture_of_an_image_is_independent_of_its_batch() -> None:
    for mixer in (cutmix(), mixup(), Mixer(32, Mixing(per="image"), Mixing(per="image"))):
        all_at_once = mixer.draw(draws(4, 9, 0, 7))
        alone = mixer.draw(draws(0))
        for name in ("weight", "box", "is_cut"):
            np.testing.assert_array_equal(getattr(all_at_once[2:3], name), getattr(alone, name))


# -- for a batch ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["cutmix", "mixup"])
def test_by_default_a_batch_has_one_mixture_as_with_torchvision(key: str) -> None:
    mixing = {"cutmix": None, "mixup": None, key: Mixing()}
    mixer = Mixer(32, **mixing)
    drawn = [mixer.draw(draws(*range(4), step=step, num_views=2)) for step in range(2000)]
    for one in drawn:
        assert len(np.unique(one.weight)) == len(np.unique(one.box, axis=0)) == 1
    # One proportion for a batch: torchvision's own, of labels that it mixes, has the same distribution.
    theirs = getattr(v2, {"cutmix": "CutMix", "mixup": "MixUp"}[key])(num_classes=2)
    torch.manual_seed(0)
    images, labels = torch.zeros(2, 3, 32, 32), torch.tensor([0, 1])
    shares = [float(theirs(images, labels)[1][0, 0]) for _ in range(2000)]
    assert stats.ks_2samp([float(one.weight[0]) for one in drawn], shares).pvalue > UNLIKELY


@pytest.mark.parametrize("key", ["cutmix", "mixup"])
def test_a_part_of_a_batch_is_drawn_as_the_whole_one(key: str) -> None:
    mixer = Mixer(32, **{"cutmix": None, "mixup": None, key: Mixing()})
    whole, part = mixer.draw(draws(4, 9, 0, 7)), mixer.draw(draws(7))
    np.testing.assert_array_equal(whole[3:].box, part.box)
    np.testing.assert_array_equal(whole[3:].weight, part.weight)


# -- one of two ---------------------------------------------------------------------------------------------------


def test_each_batch_has_cutmix_or_mixup_with_equal_probability() -> None:
    both = Mixer(32, Mixing(alpha=4.0, per="image"), Mixing(alpha=0.2, per="image"))
    drawn = [both.draw(draws(*range(6), step=step)) for step in range(1000)]
    assert all(len(set(one.is_cut.tolist())) == 1 for one in drawn)
    cuts = [bool(one.is_cut[0]) for one in drawn]
    assert stats.binomtest(sum(cuts), len(cuts)).pvalue > UNLIKELY


def test_each_of_both_has_its_own_alpha() -> None:
    both = Mixer(32, Mixing(alpha=4.0, per="image"), Mixing(alpha=0.2, per="image"))
    for step in range(8):
        ours = draws(*range(2000), step=step)
        drawn = both.draw(ours)
        expected = (cutmix(alpha=4.0) if drawn.is_cut[0] else mixup(alpha=0.2)).draw(ours)
        np.testing.assert_array_equal(drawn.weight, expected.weight)
        np.testing.assert_array_equal(drawn.box, expected.box)


@pytest.mark.parametrize("sharing", [{}, {"view_dependence": True}, {"batch_dependence": True}])
def test_which_of_both_it_is_does_not_depend_on_the_images(sharing: dict[str, bool]) -> None:
    both = Mixer(32, Mixing(per="image"), Mixing(per="image"))
    kinds = [
        {bool(both.draw(draws(*some, step=step, num_views=2, **sharing)).is_cut[0]) for some in ([1], [2, 3], [9])}
        for step in range(20)
    ]
    assert all(len(kind) == 1 for kind in kinds)
    assert {True} in kinds
    assert {False} in kinds


@pytest.mark.parametrize("mixer", [cutmix(), mixup()], ids=["cutmix", "mixup"])
def test_with_batch_dependence_all_images_of_a_batch_have_one_mixture(mixer: Mixer) -> None:
    drawn = [mixer.draw(draws(*range(50), step=step, batch_dependence=True)) for step in range(20)]
    for one in drawn:
        assert len(np.unique(one.weight)) == 1
        assert len(np.unique(one.box, axis=0)) == 1
    assert len({float(one.weight[0]) for one in drawn}) > 15


# -- pixels -------------------------------------------------------------------------------------------------------


def parameters(mixer: Mixer, count: int) -> MixParameters:
    return mixer.draw(draws(*range(count)))


@pytest.mark.parametrize("size", [1, 7, 32, 33])
def test_cutmix_takes_the_other_image_in_the_box_and_nowhere_else(size: int) -> None:
    images, others = pictures(40, size), pictures(40, size, seed=1)
    before = images.clone(), others.clone()
    drawn = parameters(cutmix(size), 40)
    mixed = mix(images, others, drawn)
    for row, (top, bottom, left, right) in enumerate(drawn.box.tolist()):
        expected = images[row].numpy().copy()
        expected[:, top:bottom, left:right] = others[row].numpy()[:, top:bottom, left:right]
        np.testing.assert_array_equal(mixed[row].numpy(), expected)
        is_other = (mixed[row] == others[row]).all(0)
        assert int(is_other.sum()) == round((1 - float(drawn.weight[row])) * size**2)
    assert torch.equal(images, before[0])
    assert torch.equal(others, before[1])


@pytest.mark.parametrize("size", [1, 7, 32, 33])
def test_mixup_is_share_of_the_image_and_the_rest_of_the_other(size: int) -> None:
    images, others = pictures(40, size), pictures(40, size, seed=1)
    before = images.clone(), others.clone()
    drawn = parameters(mixup(size), 40)
    share = drawn.weight[:, None, None, None]
    expected = share * images.numpy().astype(np.float64) + (1 - share) * others.numpy().astype(np.float64)
    np.testing.assert_allclose(mix(images, others, drawn).numpy(), expected, rtol=0, atol=2e-7)
    assert torch.equal(images, before[0])
    assert torch.equal(others, before[1])


@pytest.mark.parametrize("mixer", [cutmix(33), mixup(33)], ids=["cutmix", "mixup"])
def test_an_image_is_mixed_to_the_same_bits_in_any_batch(mixer: Mixer) -> None:
    images, others, drawn = pictures(6, 33), pictures(6, 33, seed=1), parameters(mixer, 6)
    together = mix(images, others, drawn)
    for row in range(6):
        one = slice(row, row + 1)
        assert torch.equal(mix(images[one], others[one], drawn[one]), together[one])


# -- labels -------------------------------------------------------------------------------------------------------


def test_one_hot_labels_of_mixtures_have_class_weights_that_sum_to_one() -> None:
    generator = torch.Generator().manual_seed(0)
    first, second = torch.randint(7, (2, 300), generator=generator)
    share = torch.rand(300, generator=generator)
    share[:2] = torch.tensor([0.0, 1.0])
    targets = one_hot(MixedLabels(first, second, share), 7)
    assert targets.shape == (300, 7)
    expected = np.zeros((300, 7), np.float32)
    np.add.at(expected, (np.arange(300), first.numpy()), share.numpy())
    np.add.at(expected, (np.arange(300), second.numpy()), 1 - share.numpy())
    torch.testing.assert_close(targets, torch.from_numpy(expected))
    torch.testing.assert_close(targets.sum(1), torch.ones(300), rtol=0, atol=2e-7)


def test_one_hot_of_single_labels_is_a_row_of_the_identity() -> None:
    labels = torch.tensor([2, 0, 3, 3])
    np.testing.assert_array_equal(one_hot(labels, 5).numpy(), np.eye(5)[labels])


def test_a_part_of_mixed_labels_has_that_part_of_each() -> None:
    labels = MixedLabels(torch.arange(5), torch.arange(5, 10), torch.arange(5) / 5)
    assert len(labels) == 5
    part = labels[1:3]
    assert (part.first.tolist(), part.second.tolist()) == ([1, 2], [6, 7])
    assert part.weight.tolist() == labels.weight[1:3].tolist()
    assert part.to("meta").second.device.type == part.to("meta").weight.device.type == "meta"


# -- through a reader ---------------------------------------------------------------------------------------------


@pytest.fixture
def make_job() -> MakeJob:
    """Jobs on the digits."""

    def make(**given: Any) -> Job:
        few = {"architecture": "squeezenet1_1", "dataset": "digits", "image_size": 17, "trackers": []}
        return Job.model_validate({**few, "batch_size": 16, **given})

    return make


def first_steps(job: Job, world_size: int = 1, num_steps: int = 2) -> list[list[Batch]]:
    """For each of the first steps of epoch 1 its parts in the order of the global batch."""
    parts = training_data(job, world_size)
    of_rank = [parts.sampling.micro_batches(1, rank) for rank in range(world_size)]
    return [
        [parts.train_reader(next(plans)) for _ in range(job.gradient_accumulation) for plans in of_rank]
        for _ in range(num_steps)
    ]


def mixed(labels: Any) -> MixedLabels:
    assert isinstance(labels, MixedLabels)
    return labels


def same(first: MixedLabels, second: MixedLabels) -> bool:
    return all(torch.equal(getattr(first, name), getattr(second, name)) for name in ("first", "second", "weight"))


EACH: dict[str, Any] = {"per": "image"}
KINDS: dict[str, dict[str, Any]] = {
    "cutmix": {"cutmix": EACH},
    "mixup": {"mixup": {**EACH, "alpha": 0.2}},
    "both": {"cutmix": EACH, "mixup": EACH},
}


@pytest.mark.parametrize(("world_size", "accumulation"), [(1, 2), (2, 1), (2, 2), (4, 1), (4, 2)])
@pytest.mark.parametrize("others", [{}, {"num_views": 2}, {"batch_dependence": True}, {"video": True, "num_views": 2}])
def test_parts_of_a_batch_join_to_the_bits_of_one_process(
    make_job: MakeJob, others: dict[str, Any], world_size: int, accumulation: int
) -> None:
    # By this seed the first batch is cut and the second mixed.
    given = {"cutmix": True, "mixup": True, "seed": 2, **others}
    whole = first_steps(make_job(**given))
    of_parts = first_steps(make_job(**given, gradient_accumulation=accumulation), world_size)
    kinds = []
    for parts, (one,) in zip(of_parts, whole, strict=True):
        assert len(parts) == world_size * accumulation
        assert torch.equal(torch.cat([part.inputs.on("cpu") for part in parts]), one.inputs.on("cpu"))
        labels = [mixed(part.labels) for part in parts]
        together = MixedLabels(*(torch.cat([getattr(x, n) for x in labels]) for n in ("first", "second", "weight")))
        assert same(together, mixed(one.labels))
        for part in parts:
            assert same(mixed(part.global_labels), mixed(one.labels))
        # The shares that boxes leave are whole numbers of pixels.
        pixels = mixed(one.labels).weight.double() * 17**2
        kinds.append(bool((pixels - pixels.round()).abs().max() < 1e-4))
    assert kinds == [True, False]


@pytest.mark.parametrize("num_views", [1, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_each_view_is_mixed_with_the_same_view_of_the_image_before_it(
    make_job: MakeJob, kind: str, num_views: int
) -> None:
    """Pixels and labels both, the first image with the last, compared with the batch that is not mixed."""
    ((plain,),) = first_steps(make_job(num_views=num_views), num_steps=1)
    ((batch,),) = first_steps(make_job(num_views=num_views, **KINDS[kind]), num_steps=1)
    labels = mixed(batch.labels)
    assert labels.first.tolist() == plain.labels.tolist()
    assert labels.second.tolist() == plain.labels.roll(num_views).tolist()
    images, found = plain.inputs.on("cpu"), batch.inputs.on("cpu")
    before, share = images.roll(num_views, 0), labels.weight[:, None, None, None]
    is_own, is_other = ((found == source).all(1).sum((1, 2)) for source in (images, before))
    if bool((is_own + is_other >= 17**2).all()):
        # Every pixel is of one of both; of the other at least as many as the label says (more where both are alike).
        assert kind != "mixup"
        assert (is_other >= ((1 - labels.weight) * 17**2).round()).all()
        assert (is_own >= (labels.weight * 17**2).round()).all()
    else:
        assert kind != "cutmix"
        torch.testing.assert_close(found, share * images + (1 - share) * before, rtol=0, atol=1e-6)


@pytest.mark.parametrize("view_dependence", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_the_frames_of_a_clip_have_one_share_and_one_label(make_job: MakeJob, kind: str, view_dependence: bool) -> None:
    given = {"video": True, "num_views": 4, "view_dependence": view_dependence, "transform_type": "none"}
    ((plain,),) = first_steps(make_job(**given), num_steps=1)
    ((batch,),) = first_steps(make_job(**given, **KINDS[kind]), num_steps=1)
    assert batch.inputs.on("cpu").shape == (4, 4, 3, 17, 17)
    assert len(mixed(batch.labels)) == 4
    assert len(set(mixed(batch.labels).weight.tolist())) == 4
    assert mixed(batch.labels).second.tolist() == plain.labels.roll(1).tolist()
    clips = batch.inputs.on("cpu")
    # Without a random crop the frames are one picture, and stay so where they are mixed alike.
    assert torch.equal(clips, clips[:, :1].expand_as(clips))


@pytest.mark.parametrize("view_dependence", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_with_view_dependence_the_views_of_an_image_have_one_share(
    make_job: MakeJob, kind: str, view_dependence: bool
) -> None:
    for (batch,) in first_steps(make_job(**KINDS[kind], num_views=2, view_dependence=view_dependence)):
        share = mixed(batch.labels).weight.reshape(8, 2)
        views = batch.inputs.on("cpu").unflatten(0, (8, 2))
        assert torch.equal(share[:, 0], share[:, 1]) == view_dependence
        assert torch.equal(views[:, 0], views[:, 1]) == view_dependence


def test_batch_dependence_gives_the_parts_of_a_batch_one_share(make_job: MakeJob) -> None:
    steps = first_steps(make_job(mixup=True, batch_dependence=True), world_size=4, num_steps=3)
    shares = [{x for part in parts for x in mixed(part.labels).weight.tolist()} for parts in steps]
    assert [len(of_step) for of_step in shares] == [1, 1, 1]
    assert len(set.union(*shares)) == 3


def test_another_epoch_gives_other_mixtures_of_images(make_job: MakeJob) -> None:
    parts = training_data(make_job(mixup=True), 1)
    plan = next(parts.sampling.micro_batches(1, 0))
    first, again, later = (mixed(parts.train_reader(one).labels) for one in (plan, plan, replace(plan, epoch=2)))
    assert same(first, again)
    assert not np.isin(first.weight.numpy(), later.weight.numpy()).any()


def test_images_of_the_validation_are_not_mixed(make_job: MakeJob) -> None:
    (plan, *_) = evaluation_batches(450, 16, rank=0, world_size=1)
    batch = training_data(make_job(mixup=True, cutmix=True), 1).val.reader(plan)
    plain = training_data(make_job(), 1).val.reader(plan)
    assert isinstance(batch.labels, torch.Tensor)
    assert batch.labels.tolist() == plain.labels.tolist()
    assert torch.equal(batch.inputs.on("cpu"), plain.inputs.on("cpu"))
