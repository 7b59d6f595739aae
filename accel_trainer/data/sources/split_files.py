"""The parquet, arrow and image files of a local folder, by split.

The datasets library takes whatever it does not know for training images, and a class called `train` for the split. Here
a file belongs to the split that its name or a folder above it says; what says nothing, or two things, is refused.
"""

import os
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from accel_trainer.config.dataset_names import HF
from accel_trainer.core.errors import UserError
from accel_trainer.core.text import listed
from accel_trainer.data.sources.parts import MAX_NAMED, SHARD, check_parts
from accel_trainer.data.sources.split_names import role_of, roles_in, word_of
from accel_trainer.data.sources.walk import files_below, folders_in, is_folder, require_targets

BUILDERS = {".parquet": "parquet", ".arrow": "arrow"}
IMAGES = "imagefolder"
# What the library itself leaves beside arrow files, and what describes the images of a folder.
_CACHES = re.compile(r"(cache-[0-9a-f]+|tmp)[-_0-9a-z]*\.(arrow|parquet)(\.\w+)*")
_DESCRIPTIONS = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".jp2", ".jfif")
# Other tables and archives, which are not read beside those.
_OTHERS = (".zip", ".tar", ".gz", ".tgz", ".zst", ".7z", ".json", ".jsonl", ".csv", ".tsv")


@dataclass(frozen=True)
class SplitFiles:
    """A builder of the datasets library, and for each split the patterns of its files.

    unread: files and folders beside them that are named as splits are, and of another kind.
    """

    builder: str
    patterns: Mapping[str, Sequence[str]]
    unread: Sequence[str] = ()

    @property
    def files(self) -> dict[str, list[Path]]:
        """The files of each split; of images, the folders."""
        return {name: [Path(_unescaped(one)) for one in patterns] for name, patterns in self.patterns.items()}


def find_splits(root: Path, dataset: str) -> SplitFiles | None:
    """The files of a data set that is a folder, or one file; None where they are of another kind.

    dataset: what to call it in messages. Raises UserError where it is in doubt what is trained on, and OSError.
    """
    found = [root] if root.is_file() else _files_below(root)
    tables = [path for path in found if _is_table(path.relative_to(root) if path != root else PurePath(path.name))]
    if not tables:
        return _image_splits(root, dataset) if root.is_dir() else None
    kinds = sorted({path.suffix.lower() for path in tables})
    if len(kinds) > 1:
        raise UserError(f"'{HF}{dataset}' has files of {' and of '.join(kinds)}", key="dataset", hint="keep one kind")
    by_split = _by_split(root, tables, dataset)
    patterns = {name: [_escaped(path) for path in by_split[name]] for name in by_split}
    return SplitFiles(BUILDERS[kinds[0]], patterns, _unread(root, found, set(tables)))


def _files_below(root: Path) -> list[Path]:
    """Raises OSError; Missing where a link leads nowhere."""
    found = files_below(root, tuple(BUILDERS))
    require_targets(found.nowhere, root)
    return [Path(path) for path in found.paths]


def _unread(root: Path, found: Sequence[Path], tables: Collection[Path]) -> list[str]:
    """What of a folder could be taken for a part of a split and is not read: archives, other tables, folders of
    images."""
    below = [path.relative_to(root) for path in found if path not in tables] if root.is_dir() else []
    others = [path for path in below if _is_other(path.name)]
    images = [path for path in below if path.suffix.lower() in IMAGE_SUFFIXES]
    folders = {f"images in {path.parts[0]}/" for path in images if len(path.parts) > 1 and role_of(path.parts[0])}
    return [*map(str, others), *sorted(folders)]


def _is_other(name: str) -> bool:
    """Whether a file is called as a split, and is a table or an archive that is not read."""
    return name.lower().endswith(_OTHERS) and bool(roles_in(name.partition(".")[0]))


def are_tables(paths: Iterable[Path]) -> list[Path]:
    """Those of files that hold many images each: tables and archives, and no descriptions of image files."""
    suffixes = (*BUILDERS, *_OTHERS)
    return [path for path in paths if path.name.lower().endswith(suffixes) and path.name not in _DESCRIPTIONS]


def _is_table(path: PurePath) -> bool:
    """Whether a file of a folder, by its path below that, has images in it."""
    return (
        path.suffix.lower() in BUILDERS
        and not any(part.startswith("__") for part in path.parts[:-1])
        and not _CACHES.fullmatch(path.name)
        and path.name not in _DESCRIPTIONS
    )


def _by_split(root: Path, paths: Sequence[Path], dataset: str) -> dict[str, list[Path]]:
    by_split, unknown, configurations = dict[str, list[Path]](), list[PurePath](), set[PurePath]()
    for path in paths:
        below = path.relative_to(root) if path != root else PurePath(path.name)
        name = _split_of(below, dataset)
        if name is None:
            unknown.append(below)
            continue
        by_split.setdefault(name, []).append(path)
        configurations.add(_configuration(below))
    if not by_split and role_of(root.name) is not None:  # the folder is a split itself
        check_parts(_as_split(root.name), unknown, dataset)
        return {_as_split(root.name): list(paths)}
    if unknown:
        raise UserError(
            f"'{HF}{dataset}' has files whose split is not known: {listed(map(str, unknown), MAX_NAMED)}"
            f"{_beside(by_split)}",
            key="dataset",
            hint="name them as train-00000-of-00001 and validation-00000-of-00001, or put them in folders train and "
            "validation",
        )
    if len(configurations) > 1:
        names = sorted(map(str, configurations))
        raise UserError(
            f"'{HF}{dataset}' has several configurations: {listed(names, MAX_NAMED)}",
            key="dataset",
            hint=f"name one of them, as '{HF}{dataset.rstrip('/')}/{names[-1]}'",
        )
    for name, files in by_split.items():
        check_parts(name, [path.relative_to(root) if path != root else PurePath(path.name) for path in files], dataset)
    return by_split


def _beside(by_split: Mapping[str, Sequence[Path]]) -> str:
    known = listed(f"{name} ({len(files)})" for name, files in by_split.items())
    return f", beside files of {known}" if known else ""


def _split_of(path: PurePath, dataset: str) -> str | None:
    """The split of a file by its path in the data set, None where that is not known. Raises UserError where its name
    says one thing and a folder another."""
    shard = SHARD.fullmatch(path.stem)
    stem = shard["name"] if shard else path.stem
    roles = roles_in(stem)
    of_folders = [(folder, role) for folder in path.parts[:-1] if (role := role_of(folder)) is not None]
    if len(roles | {role for _, role in of_folders}) > 1:
        raise UserError(f"'{HF}{dataset}': {path} names more than one split", key="dataset", hint="rename it")
    if of_folders:
        return _as_split(of_folders[0][0])
    if roles:
        return word_of(stem) if role_of(stem) else next(iter(roles)).value
    return _as_split(stem) if shard else None


def _configuration(path: PurePath) -> PurePath:
    """The folder of a configuration that a file is of: what is above the folder of its split."""
    for above, folder in enumerate(path.parts[:-1]):
        if role_of(folder) is not None:
            return PurePath(*path.parts[:above])
    return path.parent


# -- folders of images ------------------------------------------------------------------------------------------------


def _image_splits(root: Path, dataset: str) -> SplitFiles | None:
    """The folders of splits, which may lie in folders that have nothing else in them; None where there are none."""
    folder = root
    while True:
        folders = [Path(path) for path in folders_in(folder).paths if not Path(path).name.startswith("__")]
        with os.scandir(folder) as entries:
            files = [entry.name for entry in entries if not is_folder(entry)]
        if any(name in _DESCRIPTIONS for name in files):
            return None  # it says of which split an image is
        if any(role_of(path.name) for path in folders):
            break
        if len(folders) != 1 or any(roles_in(PurePath(name).stem) for name in files):
            return None
        folder = folders[0]
    if not any(has_images(path) for path in folders if role_of(path.name)):
        return None
    by_name: dict[str, Path] = {}
    for path in folders:
        if (name := _as_split(path.name)) in by_name:
            raise UserError(
                f"'{HF}{dataset}' has folders {by_name[name].name} and {path.name}", key="dataset", hint="rename one"
            )
        by_name[name] = path
    patterns = {name: [f"{_escaped(path)}/**"] for name, path in by_name.items()}
    return SplitFiles(
        IMAGES, patterns, [str((folder / name).relative_to(root)) for name in sorted(files) if _is_other(name)]
    )


def has_images(folder: Path) -> bool:
    """Whether there is any image below a folder."""
    below = os.walk(folder, followlinks=True)
    return any(name.lower().endswith(IMAGE_SUFFIXES) for _, _, names in below for name in names)


def _as_split(folder: str) -> str:
    """A folder's name as the library allows one for a split."""
    return re.sub(r"\W", "_", folder.lower() if role_of(folder) else folder)


# -- patterns ---------------------------------------------------------------------------------------------------------


def _escaped(path: Path) -> str:
    """A path as a pattern that fits nothing else."""
    return re.sub(r"([*?[])", r"[\1]", str(path.absolute()))


def _unescaped(pattern: str) -> str:
    return re.sub(r"\[([*?[])\]", r"\1", pattern.removesuffix("/**"))
