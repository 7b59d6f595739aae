"""All files below a folder, through links too, each file once.

Data sets are made of others by links. A link to a folder that it lies in would have no end, and one to what the walk
finds anyway would count that twice: both are left out. Files are compared by device and inode. Two links to one file
elsewhere are two files, as stores have it that keep equal content once; so are hard links.
"""

import errno
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

# What operating systems and archives leave among folders; on a Synology's disk there are small images in it.
SYSTEM_FOLDERS = ("__MACOSX", "@eaDir", "lost+found", "$RECYCLE.BIN", "System Volume Information")
Identity = tuple[int, int]
"""Device and inode."""


@dataclass(frozen=True)
class Found:
    """Paths, in order, the links that were left out, and the folders that do not count by their names.

    nowhere: links that lead nowhere, in which a folder may be missing.
    """

    paths: Sequence[str]
    left_out: Sequence[str] = ()
    hidden: Sequence[str] = ()
    nowhere: Sequence[str] = ()


def folders_in(folder: Path) -> Found:
    """The folders in a folder, and what links lead to, by name; what is hidden does not count. Raises OSError."""
    with os.scandir(folder) as entries:
        found = sorted(entries, key=lambda entry: entry.name)
    folders = [entry for entry in found if not _is_hidden(entry.name) and is_folder(entry)]
    hidden = [entry.path for entry in found if _is_hidden(entry.name) and entry.is_dir(follow_symlinks=False)]
    left_out = [entry.path for entry in folders if entry.is_symlink() and _leads_up(entry.path)]
    nowhere = [entry.path for entry in found if not _is_hidden(entry.name) and _leads_nowhere(entry)]
    return Found([entry.path for entry in folders if entry.path not in left_out], left_out, hidden, nowhere)


def _is_hidden(folder: str) -> bool:
    return folder.startswith(".") or folder in SYSTEM_FOLDERS


def files_below(folder: Path, suffixes: tuple[str, ...]) -> Found:
    """The files at any depth, in torchvision's order; what is hidden does not count. Links to one of these files are
    left out where that has one of the suffixes.

    Raises OSError: what cannot be read is not left out.
    """
    walk = _Walk()
    walk.visit(str(folder))
    walk.follow_links()
    paths = walk.paths()
    again = set(walk.known_links(path for path in paths if path.lower().endswith(suffixes)))
    return Found([path for path in paths if path not in again], sorted([*walk.left_out, *again]))


@dataclass
class _Walk:
    """First through all that is really there, then through links, by their paths: of two ways to one folder the one
    without a link counts."""

    names: dict[str, list[str]] = field(default_factory=dict)
    file_links: dict[str, Identity] = field(default_factory=dict)
    folder_links: list[str] = field(default_factory=list)
    visited: set[Identity] = field(default_factory=set)
    left_out: list[str] = field(default_factory=list)

    def visit(self, top: str) -> None:
        """Note all that is below without following a link, but for folders that were visited."""
        waiting = [top]
        while waiting:
            parent = waiting.pop()
            if (identity := _identity(Path(parent).stat())) in self.visited:
                continue
            self.visited.add(identity)
            names = self.names[parent] = []
            with os.scandir(parent) as entries:
                for entry in entries:
                    if entry.name.startswith("."):
                        continue
                    if not is_folder(entry):
                        names.append(entry.name)
                        if entry.is_symlink():
                            self.file_links |= _identity_of_target(entry)
                    elif entry.name in SYSTEM_FOLDERS:
                        continue
                    elif entry.is_symlink():
                        self.folder_links.append(entry.path)
                    else:
                        waiting.append(entry.path)

    def follow_links(self) -> None:
        """Visit what links lead to, and the links that are there in turn."""
        while self.folder_links:
            links, self.folder_links = sorted(self.folder_links), []
            for link in links:
                if _identity(Path(link).stat()) in self.visited or _leads_up(link):
                    self.left_out.append(link)
                else:
                    self.visit(link)

    def paths(self) -> list[str]:
        """All files."""
        return [f"{parent}/{name}" for parent in sorted(self.names) for name in sorted(self.names[parent])]

    def known_links(self, paths: Iterable[str]) -> Iterator[str]:
        """The links to those of these files that are no links themselves."""
        if self.file_links:
            known = {_identity(os.lstat(path)) for path in paths if path not in self.file_links}
            yield from (link for link, identity in self.file_links.items() if identity in known)


def _identity(about: os.stat_result) -> Identity:
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
        return {entry.path: _identity(entry.stat())}
    except FileNotFoundError:
        return {}
    except OSError as error:
        if error.errno == errno.ELOOP:
            return {}
        raise


def _leads_up(link: str) -> bool:
    """Whether a link leads to a folder that it lies in, by its path or really."""
    target, folder = _identity(Path(link).stat()), Path(link).parent
    ways = (folder.absolute(), folder.resolve())
    return any(target == _identity(above.stat()) for way in ways for above in (way, *way.parents))
