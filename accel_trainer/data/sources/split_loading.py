"""The splits of a Hugging Face dataset, each opened by itself.

The library gives all splits the types of the first: a label that is 0 in one and 0 in another, with other names behind
them, would be one class. So each is loaded alone, and files of one split have to agree.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from accel_trainer.core.errors import UserError
from accel_trainer.core.files import expand_home
from accel_trainer.core.outage import Missing, persistently
from accel_trainer.core.text import first_line, listed
from accel_trainer.data.sources.split_files import IMAGE_SUFFIXES, IMAGES, SplitFiles, find_splits
from accel_trainer.data.sources.split_names import choose_splits, describe_splits, role_of
from accel_trainer.data.sources.walk import files_below

# It looks for files in the current folder; newer versions of the library refuse it themselves.
READERS_OF_PICKLES = ("pandas",)
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
    """Splits that can be loaded, by name, and how many images each has."""

    load: Mapping[str, Callable[[], Any]]
    count: Callable[[str], int]


def load_splits(name: str, *, needs_train: bool = True) -> LoadedSplits:
    """Those to train and validate on, by hub id or path; waits while a disk or a network is away. Raises UserError."""
    try:
        load = partial(_load, name, needs_train=needs_train)
        return persistently(load, lambda: f"hf:{name}", may_be_missing=True)
    except Missing as error:
        raise _not_found(name, str(error.strerror)) from error


def _not_found(name: str, why: str) -> UserError:
    return UserError(
        f"'hf:{name}' is neither a folder here nor a data set that the hub gives out: {why}", key="dataset"
    )


def _load(name: str, *, needs_train: bool) -> LoadedSplits:
    """Raises Missing where something could not be reached, else UserError."""
    import datasets

    datasets.disable_progress_bars()
    path = expand_home(name)
    try:
        available = _available(path, name)
        use = choose_splits(list(available.load), name, needs_train=needs_train)
        val = available.load[use.val]()
        train = val if use.train is None else available.load[use.train]()
        loaded = {use.val: val} | ({} if use.train is None else {use.train: train})
        counts = {one: len(loaded[one]) if one in loaded else available.count(one) for one in available.load}
    except UserError:
        raise
    except Exception as error:  # the library raises a great many kinds
        if _is_of_the_system(error):
            raise Missing(first_line(error), f"hf:{name}") from error
        raise _not_found(name, first_line(error)) from error
    return LoadedSplits(train, val, describe_splits(counts, use))


def _is_of_the_system(error: BaseException | None) -> bool:
    """Whether an error, or what has caused it, is one of a disk or a network."""
    return error is not None and (isinstance(error, OSError) or _is_of_the_system(error.__cause__ or error.__context__))


def _available(path: Path, name: str) -> _Available:
    """A hub id, a folder of `save_to_disk`, a folder of images, or a folder or file of parquet or arrow."""
    import datasets

    if (path / _SPLITS_SAVED).exists():
        return _opened(datasets.load_from_disk(str(path)))
    if (path / _SPLIT_SAVED).exists():
        saved = datasets.load_from_disk(str(path))
        return _opened({path.name if role_of(path.name) else str(saved.split or path.name): saved})
    if path.is_dir() and (saved := sorted(path.glob(f"*/{_SPLIT_SAVED}"))):
        return _opened({file.parent.name: datasets.load_from_disk(str(file.parent)) for file in saved})
    if not path.exists():
        return _opened(datasets.load_dataset(_hub_id(name)))
    # The absolute path: a bare word can be one of the library's own readers, of which some unpickle.
    folder = str(path.absolute())
    if _says_itself(path):
        _check_described(folder, name)
    elif (files := find_splits(path, name)) is not None:
        return _of_files(files, name)
    return _opened(datasets.load_dataset(folder))


def _hub_id(name: str) -> str:
    """Raises ValueError."""
    if name in READERS_OF_PICKLES:
        raise ValueError("it is a reader of the datasets library, whose files can hold code")
    return name


def _opened(splits: Mapping[str, Any]) -> _Available:
    """Splits that the library has opened already."""
    return _Available({str(name): partial(splits.__getitem__, name) for name in splits}, lambda name: len(splits[name]))


def _of_files(files: SplitFiles, dataset: str) -> _Available:
    import datasets

    def load(split: str) -> Any:
        if files.builder != IMAGES:
            _check_alike(files.files[split], dataset)
        return datasets.load_dataset(files.builder, data_files={split: list(files.patterns[split])}, split=split)

    return _Available(
        {split: partial(load, split) for split in files.patterns},
        lambda split: sum(_count(path, files.builder) for path in files.files[split]),
    )


def _count(path: Path, builder: str) -> int:
    """How many images are in a file, or in a folder of images."""
    if builder == IMAGES:
        return sum(one.lower().endswith(IMAGE_SUFFIXES) for one in files_below(path, IMAGE_SUFFIXES).paths)
    if builder == "parquet":
        from pyarrow import parquet

        return int(parquet.read_metadata(path).num_rows)
    with _arrow_reader(path) as reader:
        return sum(batch.num_rows for batch in reader)


def _arrow_reader(path: Path) -> Any:
    """The batches of an arrow file, as a stream or as a file of its own format."""
    import pyarrow

    content = pyarrow.memory_map(str(path))
    try:
        return pyarrow.ipc.open_stream(content)
    except pyarrow.ArrowInvalid:
        return pyarrow.ipc.open_file(content).to_reader()


def _check_alike(paths: Sequence[Path], dataset: str) -> None:
    """Refuse files of one split that have other names behind the numbers of a column: the library takes those of the
    first file for all. Raises UserError."""
    first: dict[str, tuple[Path, list[str]]] = {}
    for path in paths:
        for column, names in _class_names(path).items():
            where, known = first.setdefault(column, (path, names))
            if names != known:
                raise UserError(
                    f"'hf:{dataset}': {where.name} and {path.name} have other names for the numbers of the column "
                    f"{column!r}: {listed(known, 4)}, and {listed(names, 4)}",
                    key="dataset",
                )


def _class_names(path: Path) -> dict[str, list[str]]:
    """The names of the classes of each ClassLabel in a file."""
    import datasets
    from pyarrow import parquet

    if path.suffix.lower() == ".parquet":
        schema = parquet.read_schema(path)
    else:
        with _arrow_reader(path) as reader:
            schema = reader.schema
    features = datasets.Features.from_arrow_schema(schema)
    return {column: list(one.names) for column, one in features.items() if isinstance(one, datasets.ClassLabel)}


# -- folders that say themselves what they have -----------------------------------------------------------------------


def _says_itself(folder: Path) -> bool:
    """Whether the README of a data set lists its configurations, as the hub's have it."""
    readme = folder / "README.md"
    if not readme.is_file():
        return False
    from datasets.utils.metadata import MetadataConfigs
    from huggingface_hub import DatasetCard

    return bool(MetadataConfigs.from_dataset_card_data(DatasetCard.load(readme).data))


def _check_described(folder: str, dataset: str) -> None:
    """`_check_alike` of all files that the library would read as one data set."""
    import datasets

    builder = datasets.load_dataset_builder(folder)
    if builder.name.split("_")[0] in ("parquet", "arrow"):
        _check_alike([Path(path) for paths in (builder.config.data_files or {}).values() for path in paths], dataset)
