from importlib.resources import files

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from accel_trainer.config import Job
from accel_trainer.core.errors import UserError
from accel_trainer.data.dataset import ClassSubset
from accel_trainer.data.open import open_images, with_classes
from accel_trainer.data.sources.digits import Digits

# -- the bundled digits ------------------------------------------------------------------------------------------


def pixels_of(source: Digits) -> np.ndarray:
    return np.stack([source.read(index).numpy() for index in range(len(source.labels))])


def test_the_bundled_digits_are_those_of_scikit_learn() -> None:
    """Each image and its label once, in one of the splits; brightness 0..16 is stretched to 0..255."""
    theirs = load_digits()
    expected = np.round(theirs.images * 255 / 16).astype(np.uint8)
    ours = np.concatenate([pixels_of(Digits(split)) for split in ("train", "val")])
    labels = np.concatenate([Digits(split).labels for split in ("train", "val")])
    assert ours.shape == (1797, 3, 8, 8)
    assert (ours == ours[:, :1]).all()
    rows = [np.column_stack([y, x.reshape(1797, -1)]) for y, x in ((theirs.target, expected), (labels, ours[:, 0]))]
    np.testing.assert_array_equal(*(row[np.lexsort(row.T)] for row in rows))


def test_the_splits_are_disjoint_and_have_every_class_in_proportion() -> None:
    train, val = Digits("train"), Digits("val")
    assert (len(train.labels), len(val.labels)) == (1347, 450)
    share = np.bincount(val.labels) / (np.bincount(train.labels) + np.bincount(val.labels))
    np.testing.assert_allclose(share, 0.25, atol=0.005)
    with files("accel_trainer.data.sources").joinpath("digits.npz").open("rb") as file, np.load(file) as stored:
        assert sorted([*stored["train"], *stored["val"]]) == list(range(1797))


def test_digits_are_classes_zero_to_nine_in_eight_bits() -> None:
    source = Digits("val")
    assert list(source.classes) == list("0123456789")
    assert source.labels.dtype == np.int64
    assert source.read(0).dtype == torch.uint8
    assert source.describe(7) == "digits val 7"


# -- some classes only ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chosen", [[7], [3, 8], [8, 3], [9, 0, 5, 1]])
def test_labels_of_a_subset_are_counted_in_the_order_given(chosen: list[int]) -> None:
    whole, subset = Digits("val"), ClassSubset(Digits("val"), chosen)
    assert list(subset.classes) == [str(digit) for digit in chosen]
    of_whole = [i for i, label in enumerate(whole.labels) if label in chosen]
    assert [chosen[label] for label in subset.labels] == whole.labels[of_whole].tolist()
    for index in (0, len(of_whole) // 2, len(of_whole) - 1):
        assert torch.equal(subset.read(index), whole.read(of_whole[index]))
        assert subset.describe(index) == whole.describe(of_whole[index])


def test_a_class_that_does_not_exist_is_reported() -> None:
    with pytest.raises(UserError, match="class_subset: no class 10, 12; there are 10, from 0"):
        ClassSubset(Digits("val"), [3, 10, 12])


def test_a_job_gets_its_subset_in_both_splits() -> None:
    images = open_images(Job(architecture="resnet18", dataset="digits", class_subset=[4, 2]))
    assert list(images.classes) == list(images.val.classes) == ["4", "2"]
    for source, whole in ((images.train, Digits("train")), (images.val, Digits("val"))):
        assert np.bincount(source.labels).tolist() == [(whole.labels == 4).sum(), (whole.labels == 2).sum()]


# -- the classes of another data set -------------------------------------------------------------------------------


def test_classes_are_found_by_name_whatever_their_order() -> None:
    whole = ClassSubset(Digits("val"), [8, 3, 5])
    source = with_classes(whole, ["3", "9", "5", "8"], "digits")
    assert [source.classes[label] for label in source.labels] == [whole.classes[label] for label in whole.labels]
    assert torch.equal(source.read(7), whole.read(7))


def test_images_of_other_classes_are_refused_or_left_out() -> None:
    with pytest.raises(UserError, match="'digits' has classes that training has not: 1, 2, 3, 4, 5 and 4 more; it has"):
        with_classes(Digits("val"), ["0"], "digits")
    left = with_classes(Digits("val"), ["0"], "digits", leave_out_others=True)
    assert len(left.labels) == (Digits("val").labels == 0).sum()
    with pytest.raises(UserError, match="'digits' has no validation images of cat"):
        with_classes(Digits("val"), ["cat"], "digits", leave_out_others=True)
