"""Finding, loading and trying the compiled kernel."""

import ctypes
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

MODULE = "accel_trainer.data.native._kernel"
VERSION = 4
COMPILED = "compiled"
# What its functions give where the system has no memory for them, and of a box that is not in its image.
NO_MEMORY, OUTSIDE = -1, -4
_ADDRESS, _COUNT = ctypes.c_void_p, ctypes.c_int64


class UnusableKernel(Exception):
    """A library that cannot be used; the text says why."""


class Kernel:
    """The functions of a compiled kernel.c, which release the interpreter's lock. Raises UnusableKernel."""

    def __init__(self, path: Path) -> None:
        try:
            library = ctypes.CDLL(str(path))
            version = library.kernel_version()
        except (OSError, AttributeError) as error:
            raise UnusableKernel(f"it cannot be loaded: {error}") from error
        if version != VERSION:
            raise UnusableKernel(f"it is version {version}, not {VERSION}: install accel-train again")
        self.may_use_vectors = True
        self.random_crops = _typed(library.kernel_random_crops, None, _ADDRESS, _COUNT, _COUNT, *[_ADDRESS] * 3)
        self.cut = _typed(
            library.kernel_cut, ctypes.c_int, _ADDRESS, _COUNT, _COUNT, _ADDRESS, _COUNT, _ADDRESS, _ADDRESS, _COUNT
        )
        self.read = _typed(library.kernel_read, ctypes.c_int, ctypes.c_int, _ADDRESS, _COUNT)
        self.will_need = _typed(library.kernel_will_need, None, ctypes.c_int, _ADDRESS, _COUNT)
        self.cut_stored = _typed(
            library.kernel_cut_stored,
            ctypes.c_int,
            *(ctypes.c_int, _ADDRESS, _COUNT, _COUNT, _ADDRESS, _COUNT, _ADDRESS, _ADDRESS, _COUNT),
        )
        self.random = _typed(library.kernel_random, None, _ADDRESS, _COUNT, _ADDRESS, _COUNT, _COUNT, _COUNT, _ADDRESS)
        self.find_stored = _typed(
            library.kernel_find_stored,
            ctypes.c_int,
            *(_ADDRESS, _COUNT, _ADDRESS, _COUNT, _ADDRESS, _COUNT, _ADDRESS, _ADDRESS),
        )
        self.make_rows = _typed(library.kernel_make_rows, _COUNT, _ADDRESS)
        self.operate = _typed(
            library.kernel_operate, ctypes.c_int, _ADDRESS, _COUNT, _COUNT, _COUNT, _ADDRESS, _COUNT, _COUNT
        )
        self.occlude = _typed(
            library.kernel_occlude,
            ctypes.c_int,
            *(_ADDRESS, _COUNT, _COUNT, _ADDRESS, _COUNT, _ADDRESS, _ADDRESS, _ADDRESS, _COUNT),
        )
        self.normalize = _typed(library.kernel_normalize, None, _ADDRESS, _COUNT, _COUNT, _ADDRESS, _ADDRESS)
        self.know_jpeg_library = _typed(library.kernel_know_jpeg_library, ctypes.c_int, _ADDRESS)
        self.jpeg_sizes = _typed(library.kernel_jpeg_sizes, None, _ADDRESS, _COUNT)
        self.cut_jpegs = _typed(
            library.kernel_cut_jpegs,
            ctypes.c_int,
            *(_ADDRESS, _ADDRESS, _COUNT, _COUNT, _ADDRESS, _COUNT, _ADDRESS, _ADDRESS, _ADDRESS, _COUNT),
        )
        library.kernel_prepare()


def _typed(function: Any, result: Any, *arguments: Any) -> Callable[..., Any]:
    function.restype, function.argtypes = result, list(arguments)
    typed: Callable[..., Any] = function
    return typed


def kernel() -> Kernel | None:
    """The compiled kernel; None where there is none, or where it gives other bits than torch."""
    return _loaded()[0]


def state() -> str:
    """`COMPILED`, or why the kernel is not used."""
    return _loaded()[1]


@cache
def _loaded() -> tuple[Kernel | None, str]:
    path = compiled_file()
    if path is None:
        return None, "not compiled"
    try:
        found = Kernel(path)
        _try(found)
    except UnusableKernel as error:
        return None, str(error)
    return found, COMPILED


def compiled_file() -> Path | None:
    """Where the library is, if it was compiled when accel-train was installed."""
    found = find_spec(MODULE)
    return None if found is None or found.origin is None else Path(found.origin)


def _try(found: Kernel) -> None:
    """Resize an image up and down. Raises UnusableKernel where torch gives other pixels."""
    from accel_trainer.data.native import calls  # it is made of kernels

    if not calls.agrees_with_torch(found):
        raise UnusableKernel("this torch resizes to other pixels")
