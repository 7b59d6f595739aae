"""Files of weights from any source. No code that is in them is ever run."""

import pickle
import re
import warnings
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from accel_trainer.config.places import WEIGHT_SUFFIXES
from accel_trainer.core.errors import UserError
from accel_trainer.core.files import read_start
from accel_trainer.core.outage import MachineFailure, StoppedWaiting, is_file, is_folder, persistently
from accel_trainer.core.safe_torch import load_tensors
from accel_trainer.core.text import first_line, listed
from accel_trainer.run.folder import RunFolder, best_of_other_code
from accel_trainer.training.state.checkpoint import load_weights

# Where training scripts put a state dict that they save with other things; the first that holds weights counts.
CONTAINERS = (
    "state_dict", "model_state_dict", "model_state", "model", "net_state_dict", "net", "network", "module", "params",
    "weights",
)  # fmt: skip

MAX_DEPTH = 4


def weights_file(given: Path) -> Path:
    """The file that a user means: a file itself, or the best weights of a run folder or of its params folder.

    Those of other code are `best_040.pt` or the like. Raises UserError that lists what is there instead.
    """
    if is_file(given):
        return given
    run = RunFolder(given)
    if is_folder(given):
        params = run.params if run.has_run or run.params.is_dir() else given
        best = params / run.best_weights.name
        if best.is_file():
            return best
        if (older := best_of_other_code(params)) is not None:
            return older
        if is_file(best):  # what was there before is waited for
            return best
        there = _weights_in(params)
        if params == given and not there:
            raise UserError(f"{given} is no run folder: it has neither {run.config.name} nor weights")
        raise UserError(f"{params} has no {best.name}; there are: {listed(there) or 'none'}")
    there = _weights_in(given.parent)
    raise UserError(f"there is no {given}" + (f"; beside it there are: {listed(there)}" if there else ""))


def _weights_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*") if path.suffix in WEIGHT_SUFFIXES)


def read_weights(path: Path) -> dict[str, Tensor]:
    """The weights in a file of safetensors or of torch.save, by their names there, on the CPU. Raises UserError."""
    if _is_safetensors(path):
        return load_weights(path)
    return extract_state_dict(_unpickle(path, mmap=False), path)


def read_shapes(path: Path) -> dict[str, Tensor]:
    """What `read_weights` gives, without reading the numbers where the format allows that.

    Only shapes are to be used, and whether a tensor is of floating point numbers. Raises UserError.
    """
    if not _is_safetensors(path):
        return extract_state_dict(_unpickle(path, mmap=_is_zip(path)), path)
    try:
        with safe_open(path, framework="pt") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 - it is no dict
            shapes = {name: (part.get_shape(), part.get_dtype()) for name, part in slices.items()}
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path}: cannot be read as weights: {first_line(error)}") from error
    return {name: _without_numbers(*described) for name, described in shapes.items()}


def _without_numbers(shape: list[int], dtype: str) -> Tensor:
    is_floating = dtype.startswith(("F", "BF"))
    return torch.empty(shape, dtype=torch.float32 if is_floating else torch.int64, device="meta")


def _head(path: Path) -> bytes:
    try:
        return persistently(partial(read_start, path, 9), lambda: str(path), may_be_missing=True)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error


def _is_safetensors(path: Path) -> bool:
    """By its content: the length of a JSON object, then the object."""
    head = _head(path)
    return head[8:] == b"{" and int.from_bytes(head[:8], "little") < 2**32


def _is_zip(path: Path) -> bool:
    return _head(path).startswith(b"PK\x03\x04")


def _unpickle(path: Path, *, mmap: bool) -> Any:
    """What torch.save wrote, as far as it is data. Raises UserError."""
    # torch.save writes zip archives, and wrote bare pickles before version 1.6.
    if not (_is_zip(path) or _head(path).startswith(b"\x80")):
        raise UserError(f"{path}: is neither a file of safetensors nor one of torch.save")
    try:
        with warnings.catch_warnings(action="ignore"):
            return persistently(partial(load_tensors, path, mmap=mmap), lambda: str(path), may_be_missing=True)
    except (MachineFailure, StoppedWaiting):
        raise
    except Exception as error:  # a damaged file can fail in every way there is
        raise UserError(f"{path}: {describe_load_error(error)}") from error


def describe_load_error(error: Exception) -> str:
    """Why torch.load failed, in one line."""
    if (refused := re.search(r"GLOBAL (\S+)", str(error))) is not None:
        return (
            f"holds a {refused[1]}, and only tensors and plain data are taken from such a file; if you trust it, load "
            "it once in Python with torch.load(..., weights_only=False) and save its state dict alone: "
            "torch.save(loaded['state_dict'], 'weights.pt'), or loaded.state_dict() of a whole model"
        )
    if isinstance(error, pickle.UnpicklingError):  # its text is about versions of torch, whatever is wrong
        return "cannot be read as weights: it is damaged, or not of torch.save"
    return f"cannot be read as weights: {first_line(error)}"


def extract_state_dict(content: Any, path: Path) -> dict[str, Tensor]:
    """The state dict in what torch.save wrote: it itself, or in a dict under one of the usual names, or under any
    name if it is the only one. Raises UserError."""
    weights = _state_dict(content, path)
    if not weights:
        kind = f"a dict of {listed(map(str, content))}" if isinstance(content, Mapping) else type(content).__name__
        raise UserError(f"{path}: holds no weights, but {kind}; save a model's state_dict()")
    return weights


def _state_dict(content: Any, path: Path, depth: int = 0) -> dict[str, Tensor]:
    # A dict may hold itself.
    if not isinstance(content, Mapping) or depth > MAX_DEPTH:
        return {}
    for key in CONTAINERS:
        if found := _state_dict(content.get(key), path, depth + 1):
            return found
    inner = {key: found for key, value in content.items() if (found := _tensors(value))}
    if len(inner) > 1:
        raise UserError(
            f"{path}: holds several state dicts ({listed(map(str, inner))}); save the one to start from alone"
        )
    return next(iter(inner.values()), _tensors(content))


def _tensors(content: Any) -> dict[str, Tensor]:
    """The tensors of a state dict; nothing if it has no weights, which are floating point numbers."""
    if not isinstance(content, Mapping):
        return {}
    tensors = {
        name: value
        for name, value in content.items()
        if isinstance(name, str) and isinstance(value, Tensor) and value.layout is torch.strided and not value.is_nested
    }
    return tensors if any(value.is_floating_point() for value in tensors.values()) else {}


def plain_names(names: Iterable[str]) -> dict[str, str]:
    """{plain name: name}: without the `module.` of DataParallel and the `_orig_mod.` of torch.compile, however often.

    A name keeps them where another has the plain one already.
    """
    names = list(names)
    plain = {name: name for name in names if _plain(name) == name}
    for name in names:
        plain.setdefault(_plain(name) if _plain(name) not in plain else name, name)
    return plain


def _plain(name: str) -> str:
    # Parts of a model are compiled each by itself, but a `module` inside is somebody's own.
    name = name.replace("_orig_mod.", "")
    while name.startswith("module."):
        name = name.removeprefix("module.")
    return name
