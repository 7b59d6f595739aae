"""Which classes the logits of a model are of that was not trained here: by the names that a data set gives its own."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from accel_trainer.core.errors import UserError
from accel_trainer.core.text import listed
from accel_trainer.data.dataset import normal_form

IMAGENET = 1000
# By which the classes of other data sets are told apart from ImageNet's.
EXAMPLE = "n01440764"


@dataclass(frozen=True)
class LogitClasses:
    """names: of all logits, in their order, as the data set writes them; how: in words, how they were found."""

    names: tuple[str, ...]
    how: str


@cache
def imagenet_wnids() -> tuple[str, ...]:
    """The synsets of ImageNet-1k, in the order of the logits of all models: n01440764, n01443537, ..."""
    return tuple(Path(__file__).with_name("imagenet_wnids.txt").read_text().split())


def logit_classes(
    count: int, own: Sequence[str], dataset: str, categories: Sequence[str] = (), given: Sequence[str] | None = None
) -> LogitClasses:
    """The classes of `count` logits.

    own: those of the data set, in its order; categories: what published weights say of theirs, in the order of the
    logits; given: the names of all logits, where somebody knows them. Raises UserError where it is not clear which
    logit is which class.
    """
    if given is not None:
        return _given(count, given)
    if count == IMAGENET:
        for rule in (_by_wnid, _by_number, _by_category):
            if (found := rule(own, categories)) is not None:
                return found
    if count != len(own):
        raise UserError(_other_count(count, own, dataset), key="dataset", hint=_hint(count))
    if categories and _first_words(own) != _first_words(categories):
        there, here = listed(categories, 3), listed(own, 3)
        message = f"the weights answer with {there}, and {dataset!r} has the classes {here}"
        raise UserError(message, key="dataset", hint=_hint(count))
    if count == IMAGENET:
        message = f"the classes of {dataset!r} are not named as ImageNet's are ({listed(own, 3)}), nor numbered"
        raise UserError(message, key="dataset", hint=_hint(count))
    return LogitClasses(tuple(own), f"the {count} classes of {dataset}, in their order ({listed(own, 3)})")


def _given(count: int, names: Sequence[str]) -> LogitClasses:
    if len(names) != count:
        raise UserError(f"{len(names)} names for {count} logits", option="classes")
    if len({normal_form(name) for name in names}) < count:
        raise UserError("a name is there twice", option="classes")
    return LogitClasses(tuple(names), f"the {count} classes that were given")


def _by_wnid(own: Sequence[str], categories: Sequence[str]) -> LogitClasses | None:
    """Folders n01440764, ...: all 1,000 or some of them."""
    if not set(own) <= set(imagenet_wnids()):
        return None
    which = "" if len(own) == IMAGENET else f", of which the images are of {len(own)}"
    return LogitClasses(imagenet_wnids(), f"ImageNet's 1,000 by their synsets{which}")


def _by_number(own: Sequence[str], categories: Sequence[str]) -> LogitClasses | None:
    """Folders 0 to 999, with zeros before them or not: their order by name would be 0, 1, 10, 100."""
    numbers = {int(name): name for name in own if name.isascii() and name.isdigit() and len(name) <= len("0999")}
    if sorted(numbers) != list(range(IMAGENET)) or len(own) != IMAGENET:
        return None
    return LogitClasses(tuple(numbers[number] for number in range(IMAGENET)), "ImageNet's 1,000 by their numbers")


def _by_category(own: Sequence[str], categories: Sequence[str]) -> LogitClasses | None:
    """Names such as "tench" or "tench, Tinca tinca": all in order, or some that are of one class each."""
    if len(categories) != IMAGENET:
        return None
    first = _first_words(categories)
    words = _first_words(own)
    if words == first:
        return LogitClasses(tuple(own), "ImageNet's 1,000 by their names, in order")
    places = {name: place for place, name in enumerate(first) if first.count(name) == 1}
    if not set(words) <= places.keys() or len(set(words)) < len(words):
        return None
    # The others are of no image; their synsets tell apart what is called alike.
    names = list(imagenet_wnids())
    for word, name in zip(words, own, strict=True):
        names[places[word]] = name
    return LogitClasses(tuple(names), f"ImageNet's 1,000 by their names, of which the images are of {len(own)}")


def _first_words(names: Sequence[str]) -> list[str]:
    return [normal_form(name).partition(",")[0].strip().casefold() for name in names]


def _other_count(count: int, own: Sequence[str], dataset: str) -> str:
    return f"the weights answer with {count:,} classes, and {dataset!r} has {len(own):,} ({listed(own, 3)})"


def _hint(count: int) -> str:
    imagenet = f"; ImageNet's are folders such as {EXAMPLE}, all or some of them" if count == IMAGENET else ""
    return f"`classes` may name a file with the names of all {count:,} logits, a line each, in their order{imagenet}"
