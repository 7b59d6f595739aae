"""ImageNet's classes as the 16 categories that people chose among (Geirhos et al., 2018)."""

import hashlib
from dataclasses import replace
from functools import cache

import numpy as np
from numpy.typing import NDArray

from accel_trainer.core.errors import UserError
from accel_trainer.measures.factor import Factor
from accel_trainer.measures.trials import Trials

# Which of ImageNet's 1,000 classes, in the order of their synsets, are of which category: the published lists.
_INDICES = {
    "airplane": "404",
    "bear": "294-297",
    "bicycle": "444 671",
    "bird": "8 10-16 18-20 22-24 80-83 87-96 98-100 127-133 135-145",
    "boat": "472 554 625 814 914",
    "bottle": "440 720 737 898-899 901 907",
    "car": "436 511 817",
    "cat": "281-286",
    "chair": "423 559 765 857",
    "clock": "409 530 892",
    "dog": "152-191 193-203 205-226 228-241 243-250 252-257 259 261-263 265-268",
    "elephant": "385-386",
    "keyboard": "508 878",
    "knife": "499",
    "oven": "766",
    "truck": "555 569 656 675 717 734 864 867",
}
CATEGORIES = tuple(_INDICES)

# Of the 1,000 synsets (n01440764, ...), sorted, with a line feed between two.
_IMAGENET_SHA256 = "385e0240499426c022b773be1ae4da780f057b89c9694c7f47199f62746b6edd"


@cache
def is_imagenet(classes: tuple[str, ...]) -> bool:
    """These are the 1,000 classes of ImageNet-1k by their synsets, in the order that all models have them in."""
    return hashlib.sha256("\n".join(classes).encode()).hexdigest() == _IMAGENET_SHA256


@cache
def category_indices() -> dict[str, tuple[int, ...]]:
    """The ImageNet classes of each category: 207 in all, none twice; the other 793 are of none."""
    return {name: tuple(i for word in ranges.split() for i in _range(word)) for name, ranges in _INDICES.items()}


def _range(word: str) -> range:
    first, _, last = word.partition("-")
    return range(int(first), int(last or first) + 1)


def sixteen_probabilities(probabilities: NDArray[np.floating]) -> NDArray[np.float64]:
    """(n, 1000) probabilities of ImageNet's classes to (n, 16): the mean over the classes of each category.

    They do not sum to 1: the classes of no category are left out, and a category of many classes counts no more.
    """
    values = np.asarray(probabilities)
    means = [values[:, list(indices)].mean(1, dtype=np.float64) for indices in category_indices().values()]
    return np.stack(means, 1)


def to_sixteen_classes(trials: Trials) -> Trials:
    """Trials of an ImageNet model as trials of the 16 categories: the response is the one with the largest mean
    probability.

    The true class may be a synset or already a category; trials of other classes are left out. Raises UserError where
    the classes are not ImageNet's, or their probabilities are not all there.
    """
    if not is_imagenet(trials.classes):
        raise UserError(
            "the 16 categories are made of ImageNet's 1,000 classes (n01440764, ...), and these trials have others"
        )
    if trials.probabilities is None or trials.top_classes is not None:
        raise UserError("the 16 categories need the probabilities of all 1,000 classes")
    truth = dict(zip(CATEGORIES, CATEGORIES, strict=True))
    for name, indices in category_indices().items():
        truth |= {trials.classes[index]: name for index in indices}
    rows = trials.true_class.is_in(truth)
    kept = trials.without_probabilities().select(rows)
    means = sixteen_probabilities(trials.probabilities[rows])
    response = Factor(means.argmax(1).astype(np.int32), CATEGORIES)
    places = {name: place for place, name in enumerate(CATEGORIES)}
    table = np.array([places[truth[name]] if name in truth else 0 for name in kept.true_class.levels], np.int32)
    true_class = Factor(table[kept.true_class.codes], CATEGORIES)
    return replace(
        kept,
        true_class=true_class,
        response=response,
        correct=true_class.codes == response.codes,
        classes=CATEGORIES,
        probabilities=means.astype(np.float32),
        entropy=None,
    )
