"""Which tensor of a file is which of a model: by name, without the prefixes that wrappers give."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import accumulate, product

from torch import Tensor

from accel_trainer.core.errors import UserError
from accel_trainer.training.pretrained.layouts import other_names
from accel_trainer.training.pretrained.weight_files import plain_names

Tensors = Mapping[str, Tensor]
# What code for training calls the model in it; nested in any order.
PREFIX_PARTS = frozenset({"module", "_orig_mod", "backbone", "encoder", "model", "net", "encoder_q"})
MAX_CANDIDATES, MAX_DEPTH = 64, 4


@dataclass(frozen=True)
class Match:
    """The tensors of a file by the names that they have in the model.

    names: {name in the model: name in the file}, in the model's order. left_out: what the names in the file begin with,
    `module.` and `_orig_mod.` too; put_before: what those in the model begin with. parameters: how many numbers of the
    model's parameters would fit.
    """

    names: Mapping[str, str]
    left_out: str
    put_before: str
    parameters: int


class Matcher:
    """Finds the names of a file in a model.

    own: the tensors of the model; sizes: how many numbers each of its parameters has; fits: whether a tensor of the
    file can be taken for the one of a name.
    """

    def __init__(
        self, own: Tensors, sizes: Mapping[str, int], file: Tensors, fits: Callable[[str, Tensor], bool]
    ) -> None:
        self._own, self._sizes, self._fits = plain_names(own), sizes, fits
        self._names = plain_names(file)
        self._file = {plain: file[name] for plain, name in self._names.items()}
        self._order = {name: place for place, name in enumerate(own)}

    def best(self) -> Match:
        """With the prefixes with which most fits; with none, where that is as good.

        Raises UserError where two sets of weights fit alike.
        """
        pairs = product(_prefixes(self._file, _known), _prefixes(self._own, _known))
        matches = [self.match(*pair) for pair in pairs]
        best = max(matches, key=lambda match: match.parameters)  # the first of those that are alike
        if best.left_out or best.put_before:
            for other in matches:
                if other.parameters == best.parameters > 0 and self._sources(other) != self._sources(best):
                    names = " and ".join(repr(match.left_out or match.put_before) for match in (best, other))
                    raise UserError(f"there are two sets of weights that fit alike, by {names}; save one of them alone")
        return best

    def _sources(self, match: Match) -> list[tuple[str, str]]:
        return [(own, name) for own, name in match.names.items() if own in self._sizes]

    def unknown_prefixes(self, least: int) -> list[str]:
        """Prefixes that are none of wrappers, without which at least so many numbers of parameters would fit."""
        prefixes = [prefix for prefix in _prefixes(self._file, _any) if prefix]
        return [prefix for prefix in prefixes if self.match(prefix, "").parameters >= max(least, 1)]

    def match(self, left_out: str, put_before: str) -> Match:
        """The names without one prefix and with another; a name that does not begin so is taken as it is where the
        model has nothing else for that place."""
        found: dict[str, str] = {}
        rest = []
        for name in self._file:
            target = None
            if name.startswith(left_out):
                target = self._find(put_before + name.removeprefix(left_out))
            if target is None:
                rest.append(name)
            else:
                found.setdefault(target, name)
        for name in rest:
            if (target := self._find(name)) is not None:
                found.setdefault(target, name)
        plain = dict(sorted(found.items(), key=lambda pair: self._order[pair[0]]))
        fitting = sum(self._sizes.get(own, 0) for own, name in plain.items() if self._fits(own, self._file[name]))
        names = {own: self._names[name] for own, name in plain.items()}
        return Match(names, self._whole_prefix(plain.values(), left_out), put_before, fitting)

    def _whole_prefix(self, taken: Iterable[str], left_out: str) -> str:
        """What names in the file begin with, wrappers too, where their plain names begin with a prefix."""
        rests = {name: name.removeprefix(left_out) for name in taken if name.startswith(left_out)}
        prefixes = Counter(
            self._names[name].removesuffix(rest) for name, rest in rests.items() if self._names[name].endswith(rest)
        )
        return max(prefixes, key=lambda prefix: prefixes[prefix], default=left_out)

    def _find(self, name: str) -> str | None:
        return next((self._own[known] for known in (name, *other_names(name)) if known in self._own), None)


def _prefixes(names: Iterable[str], is_prefix: Callable[[str], bool]) -> list[str]:
    """ "" and what names begin with, in parts that all pass; the shortest first."""
    found = {"": None}
    for name in names:
        for parts in accumulate(name.split(".")[:-1][:MAX_DEPTH], "{}.{}".format):
            if not is_prefix(parts.rpartition(".")[2]):
                break
            found[f"{parts}."] = None
    return sorted(found, key=lambda prefix: prefix.count("."))[:MAX_CANDIDATES]


def _known(part: str) -> bool:
    return part in PREFIX_PARTS


def _any(part: str) -> bool:
    return True
