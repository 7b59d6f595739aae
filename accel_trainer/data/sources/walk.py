"""All files below a folder, through links too, each file once.

Data sets are made of others by links. A link to a folder that it lies in would have no end, and one to what the walk
finds anyway would count that twice: both are left out. Files are compared by device and inode. Two links to one file
elsewhere are two files, as stores have it that keep equal content once; so are hard links.
"""

import errno
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from accel_trainer.core.outage import Missing
from accel_trainer.core.text import listed

# What operating systems and archives leave among folders; on a Synology's disk there are small images in it.
SYSTEM_FOLDERS = ("__MACOSX", "@eaDir", "lost+found", "$RECYCLE.BIN", "System Volume Information")
_NOWHERE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
# How many links that lead nowhere are named.
MAX_NAMED = 5
FETCH = "fetch what they lead to (`git annex get`, `dvc pull`), mount the disk that it is on, or remove them"
Identity = tuple[int, int]
"""Device and inode."""


@dataclass(frozen=True)
class Found:
    """Paths, in order, the links that were left out, and the folders that do not count by their names.

    nowhere: links that lead nowhere, in which a folder or an image may be missing. Of files: folders, those that have
    some of them, by what they really are; links, those that count as files of their own; has_files, whether there are
    others.
    """

    paths: Sequence[str]
    left_out: Sequence[str] = ()
    hidden: Sequence[str] = ()
    nowhere: Sequence[str] = ()
    folders: Mapping[Identity, str] = field(default_factory=dict)
    links: Sequence[str] = ()
    has_files: bool = False


def folders_in(folder: Path) -> Found:
    """The folders in a folder, and what links lead to, by name; what is hidden does not count. Raises OSError."""
    with os.scandir(folder) as entries:
        found = sorted(entries, key=lambda entry: entry.name)
    folders = [entry for entry in found if not _is_hidden(entry.name) and is_folder(entry)]
    hidden = [entry.path for entry in found if _is_hidden(entry.name) and entry.is_dir(follow_symlinks=False)]
    left_out = [entry.path for entry in folders if entry.is_symlink() and _leads_up(entry.path)]
    nowhere = [entry.path for entry in found if not _is_hidden(entry.name) and _leads_nowhere(entry)]
    return Found([entry.path for entry in folders if entry.path not in left_out], left_out, hidden, nowhere)


def require_targets(links: Sequence[str], folder: Path) -> None:
    """Raises Missing where some of these links in a folder lead nowhere: a folder, or an image, may be on a disk that
    is away, or was never fetched. Raises OSError."""
    if gone := [link for link in links if not _has_target(link)]:
        names = listed((link.removeprefix(str(folder / "_")[:-1]) for link in gone), MAX_NAMED)
        what = "a link that leads" if len(gone) == 1 else f"{len(gone):,} links that lead"
        raise Missing(f"has {what} nowhere: {names}", folder)


def _has_target(link: str) -> bool:
    try:
        Path(link).stat()
    except OSError as error:
        if error.errno in _NOWHERE:
            return False
        raise
    return True


def _is_hidden(folder: str) -> bool:
    return folder.startswith(".") or folder in SYSTEM_FOLDERS


def files_below(folder: Path, suffixes: tuple[str, ...]) -> Found:
    """The files at any depth, in torchvision's order; what is hidden does not count. Links to one of these files are
    left out where that has one of the suffixes, and those that lead nowhere.

    Raises OSError: what cannot be read is not left out.
    """
    walk = _Walk()
    walk.visit(str(folder))
    walk.follow_links()
    paths, folders = walk.paths(), walk.folders_with(suffixes)
    if not walk.file_links:
        return Found(
            paths, sorted(walk.left_out), nowhere=sorted(walk.nowhere), folders=folders, has_files=bool(folders)
        )
    wanted = [path for path in paths if path.lower().endswith(suffixes)]
    again = set(walk.known_links(wanted))
    return Found(
        [path for path in paths if path not in again],
        sorted([*walk.left_out, *again]),
        nowhere=sorted(walk.nowhere),
        folders=folders,
        links=[path for path in wanted if path in walk.file_links and path not in again],
        has_files=any(path not in walk.file_links for path in wanted),
    )


@dataclass
class _Walk:
    """First through all that is really there, then through links, by their paths: of two ways to one folder the one
    without a link counts."""

    names: dict[str, list[str]] = field(default_factory=dict)
    file_links: dict[str, Identity] = field(default_factory=dict)
    folder_links: list[str] = field(default_factory=list)
    visited: set[Identity] = field(default_factory=set)
    left_out: list[str] = field(default_factory=list)
    nowhere: list[str] = field(default_factory=list)
    identities: dict[str, Identity] = field(default_factory=dict)

    def visit(self, top: str) -> None:
        """Note all that is below without following a link, but for folders that were visited."""
        waiting = [top]
        while waiting:
            parent = waiting.pop()
            if (identity := identity_of(Path(parent).stat())) in self.visited:
                continue
            self.visited.add(identity)
            self.identities[parent] = identity
            names = self.names[parent] = []
            with os.scandir(parent) as entries:
                for entry in entries:
                    if entry.name.startswith("."):
                        continue
                    if not is_folder(entry):
                        if not entry.is_symlink() or self._note_link(entry):
                            names.append(entry.name)
                    elif entry.name in SYSTEM_FOLDERS:
                        continue
                    elif entry.is_symlink():
                        self.folder_links.append(entry.path)
                    else:
                        waiting.append(entry.path)

    def _note_link(self, entry: os.DirEntry[str]) -> bool:
        """Whether a link leads to a file."""
        if target := _identity_of_target(entry):
            self.file_links |= target
        else:
            self.nowhere.append(entry.path)
        return bool(target)

    def follow_links(self) -> None:
        """Visit what links lead to, and the links that are there in turn."""
        while self.folder_links:
            links, self.folder_links = sorted(self.folder_links), []
            for link in links:
                if identity_of(Path(link).stat()) in self.visited or _leads_up(link):
                    self.left_out.append(link)
                else:
                    self.visit(link)

    def paths(self) -> list[str]:
        """All files."""
        return [f"{parent}/{name}" for parent in sorted(self.names) for name in sorted(self.names[parent])]

    def folders_with(self, suffixes: tuple[str, ...]) -> dict[Identity, str]:
        """The folders in which there are files with one of these suffixes."""
        return {
            self.identities[folder]: folder
            for folder, names in self.names.items()
            if any(name.lower().endswith(suffixes) for name in names)
        }

    def known_links(self, paths: Iterable[str]) -> Iterator[str]:
        """The links to those of these files that are no links themselves."""
        if self.file_links:
            known = {identity_of(os.lstat(path)) for path in paths if path not in self.file_links}
            yield from (link for link, identity in self.file_links.items() if identity in known)


def identity_of(about: os.stat_result) -> Identity:
    """What a file or folder really is, whatever its path."""
    return about.st_dev, about.st_ino


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a folder, or leads to one. Raises OSError where it is not known."""
    try:
        return entry.is_dir()
    except OSError as error:
        if error.errno == errno.ELOOP:  # a link to itself
            return False
        raise


def _leads_nowhere(entry: os.DirEntry[str]) -> bool:
    return entry.is_symlink() and not _identity_of_target(entry)


def _identity_of_target(entry: os.DirEntry[str]) -> dict[str, Identity]:
    """{path of a link: what it leads to}; nothing for a link that leads nowhere."""
    try:
        return {entry.path: identity_of(entry.stat())}
    except OSError as error:
        if error.errno in _NOWHERE:
            return {}
        raise


def _leads_up(link: str) -> bool:
    """Whether a link leads to a folder that it lies in, by its path or really."""
    target, folder = identity_of(Path(link).stat()), Path(link).parent
    ways = (folder.absolute(), folder.resolve())
    return any(target == identity_of(above.stat()) for way in ways for above in (way, *way.parents))
