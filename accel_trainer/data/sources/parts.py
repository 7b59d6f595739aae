"""Whether the files of one split are the parts of one table, by their names.

The datasets library joins all files with `train` among the words of their names: a copy, an older version or a smaller
selection that lies beside a table is trained on too, without a word.
"""

import re
from collections.abc import Iterable, Sequence
from pathlib import PurePath

from accel_trainer.config.dataset_names import HF
from accel_trainer.core.errors import UserError
from accel_trainer.core.text import listed

# One of several files, as the library numbers them; earlier versions of it put a digest behind.
SHARD = re.compile(r"(?P<name>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})(-[0-9a-f]{16})?")
_NUMBER = re.compile(r"\d+")
MAX_NAMED = 8

Numbers = tuple[int, ...]


def check_parts(split: str, paths: Iterable[PurePath], dataset: str) -> None:
    """Refuse a split of several files that are not all parts of one table, and all of them.

    paths: below the folder of the data set. Parts lie in one folder and have the same name but for one number, which
    counts from 0 or 1: `train-00000-of-00002`, `train_0`, `part-0001`. Raises UserError.
    """
    ordered = sorted(paths)
    parts: dict[str, list[Numbers]] = {}
    for path in ordered:
        name, numbers = _without_numbers(path)
        parts.setdefault(name, []).append(numbers)
    if len(parts) > 1 or not _is_one_range(next(iter(parts.values()))):
        _check_complete(split, ordered, dataset)
        raise UserError(
            f"'{HF}{dataset}': the {len(ordered)} files of split {split} are not the parts of one table: "
            f"{listed(map(str, ordered), MAX_NAMED)}",
            key="dataset",
            hint=f"keep one of them there; or number those that belong together, as "
            f"{split}-00000-of-{len(ordered):05d}; or list in a README.md which are meant (docs/data.md)",
        )
    _check_complete(split, ordered, dataset)


def _without_numbers(path: PurePath) -> tuple[str, Numbers]:
    """What parts of one table have in common, and their numbers."""
    if shard := SHARD.fullmatch(path.stem):
        return str(path.parent / f"{shard['name']}-of-{shard['count']}"), (int(shard["number"]),)
    return str(path.parent / _NUMBER.sub("*", path.stem)), tuple(map(int, _NUMBER.findall(path.stem)))


def _is_one_range(numbers: Sequence[Numbers]) -> bool:
    """Whether files differ in one number, each in another, which counts from 0 or 1; of shards any may be missing."""
    if len(numbers) == 1:
        return True
    varying = [sorted(values) for values in zip(*numbers, strict=True) if len(set(values)) > 1]
    return len(varying) == 1 and varying[0] in (list(range(len(numbers))), list(range(1, len(numbers) + 1)))


def _check_complete(split: str, paths: Iterable[PurePath], dataset: str) -> None:
    """Refuse a split whose files say that there are more of them."""
    there: dict[tuple[str, int], set[int]] = {}
    for path in paths:
        if match := SHARD.fullmatch(path.stem):
            there.setdefault((match["name"], int(match["count"])), set()).add(int(match["number"]))
    for (_, count), numbers in there.items():
        if missing := sorted(set(range(count)) - numbers):
            raise UserError(
                f"'{HF}{dataset}': of the {count} files of split {split} {len(missing)} are missing, "
                f"{missing[0]:05d}-of-{count:05d} the first",
                key="dataset",
            )
