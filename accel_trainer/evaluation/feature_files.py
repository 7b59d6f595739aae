"""Where features of many images are written: files of their whole size from the beginning, row by row, by several
processes, and what of it is done.

A folder of features has `features.json`, which says what they are, and either `<layer>/features.npy` with
`<layer>/file_names.txt` for each layer, or `features.safetensors` with `file_names.txt`.
"""

import errno
import io
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt

from accel_trainer.core.errors import UserError
from accel_trainer.core.files import read_json, write_atomic
from accel_trainer.core.text import one_line
from accel_trainer.evaluation.rows_on_disk import CORRUPT, DONE, FLUSH_EVERY_S, write_all
from accel_trainer.representations.feature_folder import DESCRIPTION, NAMES, NPY, SAFETENSORS, folder_of_layer

Format = Literal["npy", "safetensors"]
FLOAT = np.dtype("<f4")
PROGRESS = "progress"


@dataclass(frozen=True)
class _Part:
    """Where the rows of a layer are in a file."""

    path: Path
    start: int
    row_bytes: int


def _npy_header(shape: tuple[int, ...]) -> bytes:
    header = io.BytesIO()
    np.lib.format.write_array_header_2_0(header, {"descr": FLOAT.str, "fortran_order": False, "shape": shape})
    return header.getvalue()


def _safetensors_header(shapes: Mapping[str, tuple[int, ...]]) -> bytes:
    """As the format has it: the length of the JSON, and the JSON, which spaces fill up to eight bytes."""
    entries, end = dict[str, Any](), 0
    for name, shape in shapes.items():
        begin, end = end, end + _size(shape)
        entries[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(entries).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _size(shape: tuple[int, ...]) -> int:
    return FLOAT.itemsize * int(np.prod(shape, dtype=np.int64))


@contextmanager
def _errors_named(folder: Path) -> Iterator[None]:
    """An error of the disk becomes a line that names the path. Raises UserError."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{error.filename or folder}: {error.strerror}", option="out") from error


@dataclass
class FeatureFiles:
    """The files of some layers' features. shapes: float32, of one image, by the name of the layer and cycle."""

    folder: Path
    shapes: Mapping[str, tuple[int, ...]]
    names: Sequence[str]
    format: Format
    _description: Mapping[str, Any] = field(default_factory=dict)
    _open: dict[Path, int] = field(default_factory=dict)
    _resources: ExitStack = field(default_factory=ExitStack)
    _waiting: dict[int, bytes] = field(default_factory=dict)
    _flushed: float = 0.0

    # -- by one process, first ------------------------------------------------------------------------------------

    def prepare(self, description: Mapping[str, Any]) -> None:
        """Make what is not there: all files, with room for all rows. description: what the features are of. Raises
        UserError where the folder has those of something else, or the disk no room."""
        self._description = description
        with _errors_named(self.folder):
            self._prepare()

    def _prepare(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / DESCRIPTION
        if path.exists():
            self._require_same(read_json(path))
            if self.is_complete or (self.folder / PROGRESS).exists():
                return
        elif others := sorted(entry.name for entry in self.folder.iterdir()):
            raise UserError(f"{self.folder} is not empty: it has {others[0]}", option="out")
        self._describe(is_complete=False)
        for file, (header, size) in self._files().items():
            file.parent.mkdir(parents=True, exist_ok=True)
            self._allocate(file, header, size)
        for place in self._folders_of_names():
            write_atomic(place / NAMES, "".join(f"{one_line(name)}\n" for name in self.names))
        write_atomic(self.folder / PROGRESS, bytes(len(self.names)).decode())

    def _require_same(self, there: Any) -> None:
        own = json.loads(json.dumps(self._content(is_complete=False)))
        if not isinstance(there, dict):
            there = {}
        if differ := sorted(key for key in own.keys() - {"complete", "corrupt"} if there.get(key) != own[key]):
            raise UserError(
                f"{self.folder} has features of something else: other {', '.join(differ)}",
                option="out",
                hint="name another folder, or remove this one",
            )

    def _allocate(self, file: Path, header: bytes, size: int) -> None:
        with file.open("wb") as opened:
            opened.write(header)
            opened.flush()
            try:
                os.posix_fallocate(opened.fileno(), 0, len(header) + size)
            except OSError as error:
                if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
                    file.unlink()
                    raise OSError(error.errno, f"no room for {size / 1e6:,.1f} MB: {error.strerror}", file) from error
                opened.truncate(len(header) + size)
            os.fsync(opened.fileno())

    def finish(self, corrupt: Sequence[str]) -> None:
        """All rows are written. Raises UserError where the disk does not take that."""
        with _errors_named(self.folder):
            self._describe(is_complete=True, corrupt=corrupt)
            (self.folder / PROGRESS).unlink(missing_ok=True)

    def _describe(self, *, is_complete: bool, corrupt: Sequence[str] = ()) -> None:
        content = self._content(is_complete=is_complete, corrupt=corrupt)
        write_atomic(self.folder / DESCRIPTION, json.dumps(content, indent=2) + "\n")

    def _content(self, *, is_complete: bool, corrupt: Sequence[str] = ()) -> dict[str, Any]:
        return {
            **self._description,
            "format": self.format,
            "num_images": len(self.names),
            "layers": {name: list(shape) for name, shape in self.shapes.items()},
            "complete": is_complete,
            "corrupt": list(corrupt),
        }

    # -- where what is --------------------------------------------------------------------------------------------

    def _files(self) -> dict[Path, tuple[bytes, int]]:
        """All files of features, with their beginnings, and how many bytes come after."""
        whole = {name: (len(self.names), *shape) for name, shape in self.shapes.items()}
        if self.format == "npy":
            return {self._npy(name): (_npy_header(shape), _size(shape)) for name, shape in whole.items()}
        return {self._safetensors: (_safetensors_header(whole), sum(map(_size, whole.values())))}

    def _npy(self, name: str) -> Path:
        return self.folder / folder_of_layer(name) / NPY

    @property
    def _safetensors(self) -> Path:
        return self.folder / SAFETENSORS

    def _folders_of_names(self) -> list[Path]:
        return [self._npy(name).parent for name in self.shapes] if self.format == "npy" else [self.folder]

    def _parts(self) -> dict[str, _Part]:
        files, parts, start = self._files(), dict[str, _Part](), 0
        for name, shape in self.shapes.items():
            if self.format == "npy":
                path, start = self._npy(name), 0
            else:
                path = self._safetensors
            parts[name] = _Part(path, len(files[path][0]) + start, _size(shape))
            start += _size((len(self.names), *shape))
        return parts

    @property
    def is_complete(self) -> bool:
        """Whether all rows are there."""
        try:
            return bool(read_json(self.folder / DESCRIPTION).get("complete"))
        except FileNotFoundError:
            return False

    @property
    def corrupt(self) -> int:
        """How many images are corrupt, once it is complete."""
        return len(read_json(self.folder / DESCRIPTION)["corrupt"])

    # -- by every process, then -----------------------------------------------------------------------------------

    def states(self) -> npt.NDArray[np.uint8]:
        """For each image TODO, DONE or CORRUPT, uint8 (images,)."""
        return np.frombuffer((self.folder / PROGRESS).read_bytes(), dtype=np.uint8)

    def __enter__(self) -> Self:
        self._flushed = time.monotonic()
        for path in (*self._files(), self.folder / PROGRESS):
            self._open[path] = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
            self._resources.callback(os.close, self._open[path])
        self._located = self._parts()
        return self

    def write(self, start: int, rows: Mapping[str, npt.NDArray[np.float32]], is_corrupt: npt.NDArray[np.bool_]) -> None:
        """The rows of some images, from one on: float32 (n, *shape) of every layer; bool (n,). Raises UserError where
        the disk does not take them."""
        with _errors_named(self.folder):
            for name, values in rows.items():
                part = self._located[name]
                place = part.start + start * part.row_bytes
                write_all(
                    self._open[part.path], np.ascontiguousarray(values, FLOAT).reshape(-1).view(np.uint8).data, place
                )
        self._waiting[start] = np.where(is_corrupt, CORRUPT, DONE).astype(np.uint8).tobytes()
        if time.monotonic() - self._flushed >= FLUSH_EVERY_S:
            self.flush()

    def flush(self) -> None:
        """What was written is on the disk, and then it is noted that it was. Raises UserError as `write`."""
        with _errors_named(self.folder):
            self._flush()

    def _flush(self) -> None:
        progress = self.folder / PROGRESS
        for path, descriptor in self._open.items():
            if path != progress:
                os.fdatasync(descriptor)
        for start, states in self._waiting.items():
            os.pwrite(self._open[progress], states, start)
        os.fdatasync(self._open[progress])
        self._waiting.clear()
        self._flushed = time.monotonic()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._resources.close()
        self._open.clear()
