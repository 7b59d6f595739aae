"""The splits of a Hugging Face dataset, each opened by itself.

The library gives all splits the types of the first: a label that is 0 in one and 0 in another, with other names behind
them, would be one class. So each is loaded alone, and files of one split have to agree.
"""

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePath
from typing import Any

from accel_trainer.config.dataset_names import HF, split_configuration, with_configuration
from accel_trainer.core.errors import UserError
from accel_trainer.core.files import expand_home
from accel_trainer.core.outage import Missing, persistently
from accel_trainer.core.text import did_you_mean, first_line, listed
from accel_trainer.data.sources.part_labels import arrow_reader, check_alike
from accel_trainer.data.sources.parts import check_parts
from accel_trainer.data.sources.split_files import BUILDERS, IMAGE_SUFFIXES, IMAGES, SplitFiles, are_tables, find_splits
from accel_trainer.data.sources.split_names import choose_splits, describe_splits, role_of
from accel_trainer.data.sources.walk import FETCH, files_below

# It looks for files in the current folder; newer versions of the library refuse it themselves.
READERS_OF_PICKLES = ("pandas",)
# Bytes at the beginning and the end of a table, where parquet has its index.
EDGE = 2**16
# Of a folder that `save_to_disk` of several splits, or of one, has written.
_SPLITS_SAVED, _SPLIT_SAVED = "dataset_dict.json", "state.json"


@dataclass(frozen=True)
class LoadedSplits:
    """Splits of the datasets library; train is val's where it was not wanted. description: of all there are."""

    train: Any
    val: Any
    description: str


@dataclass(frozen=True)
class _Available:
    """Splits that can be loaded, by name, and how many images each has; unread: what is beside them."""

    load: Mapping[str, Callable[[], Any]]
    count: Callable[[str], int]
    unread: Sequence[str] = ()


def load_splits(name: str, *, needs_train: bool = True, label_column: str | None = None) -> LoadedSplits:
    """Those to train and validate on, by hub id or path; waits while a disk or a network is away.

    label_column: where the labels are, if that is known; files of one split have to agree on it. Raises UserError.
    """
    try:
        load = partial(_load, name, needs_train=needs_train, label_column=label_column)
        return persistently(load, lambda: f"{HF}{name}", may_be_missing=True)
    except Missing as error:
        if Path(str(error.filename)).exists():  # with links that lead nowhere
            raise UserError(f"'{HF}{name}' {error.strerror}", key="dataset", hint=FETCH) from error
        raise _not_found(name, str(error.strerror)) from error


def _not_found(name: str, why: str) -> UserError:
    if Path(_place(name)[0]).exists():
        return UserError(f"'{HF}{name}' is here, but cannot be read as a data set: {why}", key="dataset")
    return UserError(
        f"'{HF}{name}' is neither a folder here nor a data set that the hub gives out: {why}", key="dataset"
    )


def _load(name: str, *, needs_train: bool, label_column: str | None) -> LoadedSplits:
    """Raises Missing where something could not be reached, else UserError."""
    import datasets

    datasets.disable_progress_bars()
    place, configuration = _place(name)
    try:
        available = _available(place, configuration, name, label_column)
        use = choose_splits(list(available.load), name, needs_train=needs_train)
        val = available.load[use.val]()
        train = val if use.train is None else available.load[use.train]()
        loaded = {use.val: val} | ({} if use.train is None else {use.train: train})
        counts = {one: len(loaded[one]) if one in loaded else available.count(one) for one in available.load}
    except (UserError, Missing):
        raise
    except Exception as error:  # the library raises a great many kinds
        if _is_of_the_system(error):
            raise Missing(first_line(error), f"{HF}{name}") from error
        raise _not_found(name, _reason(error)) from error
    unread = f"; not read, since it is of another kind: {listed(available.unread)}" if available.unread else ""
    return LoadedSplits(train, val, describe_splits(counts, use) + unread)


def _reason(error: BaseException) -> str:
    """The first line of what has caused an error; the library's own says only what it was doing."""
    return first_line(error) if error.__cause__ is None else _reason(error.__cause__)


def _place(name: str) -> tuple[str, str | None]:
    """A path, with the home folder in it, or hub id, and the configuration that is named behind it."""
    if Path(whole := str(expand_home(name))).exists():
        return whole, None
    before, configuration = split_configuration(name)
    return (path if Path(path := str(expand_home(before))).exists() else before), configuration


def describe_files(path: Path, name: str) -> str | None:
    """Which splits the tables or images of a folder are, with their counts, by what files say without being converted;
    None for data sets of another kind. Raises UserError, and OSError."""
    if _says_itself(path) or any((path / one).exists() for one in (_SPLITS_SAVED, _SPLIT_SAVED)):
        return None
    if any(path.glob(f"*/{_SPLIT_SAVED}")) or (files := find_splits(path, name)) is None:
        return None
    counts = {split: sum(_count(one, files.builder) for one in paths) for split, paths in files.files.items()}
    return describe_splits(counts, choose_splits(list(counts), name))


def _is_of_the_system(error: BaseException | None) -> bool:
    """Whether an error, or what has caused it, is one of a disk or a network."""
    return error is not None and (isinstance(error, OSError) or _is_of_the_system(error.__cause__ or error.__context__))


def _available(place: str, configuration: str | None, name: str, label_column: str | None) -> _Available:
    """A hub id, a folder of `save_to_disk`, a folder of images, or a folder or file of parquet or arrow."""
    import datasets

    path = Path(place)
    if not path.exists():
        return _opened(_load_dataset(_hub_id(place), configuration, name))
    # The absolute path: a bare word can be one of the library's own readers, of which some unpickle.
    folder = str(path.absolute())
    if configuration is not None and not _says_itself(path):
        hint = f"name the folder of one, as '{HF}{place}/{configuration}'"
        raise UserError(f"'{HF}{place}' lists no configurations in a README.md", key="dataset", hint=hint)
    if (path / _SPLITS_SAVED).exists():
        return _opened(datasets.load_from_disk(str(path)))
    if (path / _SPLIT_SAVED).exists():
        saved = datasets.load_from_disk(str(path))
        return _opened({path.name if role_of(path.name) else str(saved.split or path.name): saved})
    if path.is_dir() and (saved := sorted(path.glob(f"*/{_SPLIT_SAVED}"))):
        return _opened({file.parent.name: datasets.load_from_disk(str(file.parent)) for file in saved})
    if _says_itself(path):
        _check_described(folder, configuration, name, label_column)
        return _opened(_load_dataset(folder, configuration, name, _cache_of(_all_files(path))))
    if (files := find_splits(path, name)) is not None:
        return _of_files(files, name, label_column)
    _check_joined(folder, name)
    return _opened(datasets.load_dataset(folder, cache_dir=_cache_of(_all_files(path))))


def _all_files(path: Path) -> list[Path]:
    return [path] if path.is_file() else [Path(one) for one in files_below(path, ()).paths]


def _cache_of(paths: Iterable[Path]) -> str:
    """Where the library keeps what it makes of exactly these files. By itself it goes by their paths and times, and
    gives what it has made of another file that had the time which this one was given."""
    import datasets

    digest = hashlib.blake2b(digest_size=16)
    for path in paths:
        about = path.stat()
        what = f"{path.absolute()}\0{about.st_size} {about.st_mtime_ns} {about.st_ctime_ns}\0"
        digest.update(what.encode(errors="surrogateescape"))
        if path.suffix.lower() in BUILDERS:  # some disks have no time of change but the one that can be set
            with path.open("rb") as file:
                digest.update(file.read(EDGE))
                file.seek(max(0, about.st_size - EDGE))
                digest.update(file.read(EDGE))
    return str(Path(datasets.config.HF_DATASETS_CACHE) / "accel-train" / digest.hexdigest())


def _load_dataset(place: str, configuration: str | None, name: str, cache: str | None = None) -> Any:
    """What the library makes of a hub id, or of a folder that says itself what it has."""
    import datasets

    try:
        if cache is None:
            return datasets.load_dataset(place, configuration)
        return datasets.load_dataset(place, configuration, cache_dir=cache)
    except ValueError as error:
        raise _no_configuration(place, configuration) or error from error


def _no_configuration(place: str, configuration: str | None) -> UserError | None:
    """Which configurations there are, where that is what was not said, or was not right."""
    import datasets

    names = datasets.get_dataset_config_names(place)
    if configuration in names or (configuration is None and len(names) == 1):
        return None
    hint = f"name one of them, as {with_configuration(place, names[0])!r}"
    if configuration is None:
        return UserError(f"'{HF}{place}' has several configurations: {listed(names)}", key="dataset", hint=hint)
    near = did_you_mean(configuration, names)
    message = f"'{HF}{place}' has no configuration {configuration!r}; it has {listed(names)}{near}"
    return UserError(message, key="dataset", hint=hint)


def _hub_id(name: str) -> str:
    """Raises ValueError."""
    if name in READERS_OF_PICKLES:
        raise ValueError("it is a reader of the datasets library, whose files can hold code")
    return name


def _opened(splits: Mapping[str, Any]) -> _Available:
    """Splits that the library has opened already."""
    return _Available({str(name): partial(splits.__getitem__, name) for name in splits}, lambda name: len(splits[name]))


def _of_files(files: SplitFiles, dataset: str, label_column: str | None) -> _Available:
    import datasets

    def load(split: str) -> Any:
        cache = None  # images are read where they are
        if files.builder != IMAGES:
            check_alike(files.files[split], dataset, label_column)
            cache = _cache_of(files.files[split])
        data_files = {split: list(files.patterns[split])}
        return datasets.load_dataset(files.builder, data_files=data_files, split=split, cache_dir=cache)

    return _Available(
        {split: partial(load, split) for split in files.patterns},
        lambda split: sum(_count(path, files.builder) for path in files.files[split]),
        files.unread,
    )


def _count(path: Path, builder: str) -> int:
    """How many images are in a file, or in a folder of images."""
    if builder == IMAGES:
        return sum(one.lower().endswith(IMAGE_SUFFIXES) for one in files_below(path, IMAGE_SUFFIXES).paths)
    if builder == "parquet":
        from pyarrow import parquet

        return int(parquet.read_metadata(path).num_rows)
    with arrow_reader(path) as reader:
        return sum(batch.num_rows for batch in reader)


# -- folders that say themselves what they have -----------------------------------------------------------------------


def _says_itself(folder: Path) -> bool:
    """Whether the README of a data set lists its configurations, as the hub's have it. Raises OSError, and UserError
    where it cannot be read: it may say which files are meant."""
    readme = folder / "README.md"
    if not readme.is_file():
        return False
    from datasets.utils.metadata import MetadataConfigs
    from huggingface_hub import DatasetCard

    try:
        return bool(MetadataConfigs.from_dataset_card_data(DatasetCard.load(readme).data))
    except OSError:
        raise
    except Exception as error:  # YAML, Unicode, and whatever the library expects of the values in it
        hint = "the part between the lines of --- is YAML in UTF-8: correct it, or take the file away"
        raise UserError(f"{readme} cannot be read: {_in_one_line(error)}", key="dataset", hint=hint) from error


def _in_one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def _check_described(folder: str, configuration: str | None, dataset: str, label_column: str | None) -> None:
    """`check_alike` of all files that the library would read as one data set. Raises UserError."""
    import datasets

    try:
        builder = datasets.load_dataset_builder(folder, configuration)
    except ValueError as error:
        raise _no_configuration(folder, configuration) or error from error
    if builder.name.split("_")[0] in ("parquet", "arrow"):
        paths = [Path(path) for files in (builder.config.data_files or {}).values() for path in files]
        check_alike(paths, dataset, label_column)


def _check_joined(folder: str, dataset: str) -> None:
    """Refuse files that the library would join to one split though they are not parts of one. Raises UserError."""
    import datasets

    for split, paths in (datasets.load_dataset_builder(folder).config.data_files or {}).items():
        if tables := are_tables(Path(path) for path in paths):
            check_parts(str(split), [PurePath(os.path.relpath(path, folder)) for path in tables], dataset)
