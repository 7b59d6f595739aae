"""Which splits of a data set are trained and validated on, by their names. What is in doubt is refused."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum

from accel_trainer.config.dataset_names import HF
from accel_trainer.core.errors import UserError
from accel_trainer.core.text import listed


class Role(StrEnum):
    """What a split is for. Those of a test are validated on where there are no others."""

    TRAIN = "train"
    VALIDATION = "validation"
    TEST = "test"


# Those of the datasets library. In messages the commonest comes first.
NAMES = {
    Role.TRAIN: ("train", "training"),
    Role.VALIDATION: ("val", "validation", "valid", "dev"),
    Role.TEST: ("test", "testing", "eval", "evaluation"),
}
_ROLES = {name: role for role, names in NAMES.items() for name in names}
# Between the words of a name, and around them: also those of the library.
_SEPARATORS = "[-._ 0-9]"
_NUMBERED = re.compile(rf"(?P<name>[a-z]+){_SEPARATORS}*")


def role_of(name: str) -> Role | None:
    """The role of a split, or of a folder, by its whole name: `train`, `Validation`, `train2017`. `test tube` has
    none."""
    match = _NUMBERED.fullmatch(name.lower())
    return _ROLES.get(match["name"]) if match else None


def word_of(name: str) -> str:
    """A name that has a role without its numbers and in small letters: `train` of `Train2017`."""
    return name.lower().rstrip("-._ 0123456789")


def roles_in(name: str) -> set[Role]:
    """The roles that the words of a file's name have: one in `cifar10-train`, two in `train_val`."""
    return {_ROLES[word] for word in re.split(_SEPARATORS, name.lower()) if word in _ROLES}


@dataclass(frozen=True)
class SplitUse:
    """Names of splits: that to train on, None where it is not wanted, and that to validate on."""

    train: str | None
    val: str


def choose_splits(splits: Collection[str], dataset: str, *, needs_train: bool = True) -> SplitUse:
    """Which of these are used. Raises UserError where there is none, or more than one, that it could be."""
    train = _only(splits, (Role.TRAIN,), dataset) if needs_train else None
    return SplitUse(train, _only(splits, (Role.VALIDATION, Role.TEST), dataset))


def _only(splits: Collection[str], roles: tuple[Role, ...], dataset: str) -> str:
    """The one split with the first of these roles that any has."""
    for role in roles:
        if len(found := [name for name in splits if role_of(name) is role]) == 1:
            return found[0]
        if found:
            what = "trained" if role is Role.TRAIN else "validated"
            raise UserError(
                f"'{HF}{dataset}' has more than one split that could be {what} on: {listed(found)}",
                key="dataset",
                hint="keep one of them, or join them",
            )
    wanted = " or ".join(name for role in roles for name in (("test",) if role is Role.TEST else NAMES[role]))
    raise UserError(f"'{HF}{dataset}' has no split {wanted}; it has {listed(splits) or 'none'}", key="dataset")


def describe_splits(counts: Mapping[str, int], use: SplitUse) -> str:
    """Each split with its count and use: "train (4 images, trained on), test (3, validated on), extra (2, not
    used)"."""
    uses = {use.val: "validated on"} | ({} if use.train is None else {use.train: "trained on"})
    ordered = sorted(counts, key=lambda name: (name != use.train, name != use.val))
    words = [
        f"{name} ({counts[name]:,}{' images' if position == 0 else ''}, {uses.get(name, 'not used')})"
        for position, name in enumerate(ordered)
    ]
    return listed(words)
