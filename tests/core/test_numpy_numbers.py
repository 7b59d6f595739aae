"""NumPy's scalars in files of weights become plain numbers; nothing else of NumPy's comes in, and nothing runs."""

import math
import os
import pickle
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from accel_trainer.core.safe_torch import load_tensors

NUMBERS = [
    np.float64(0.1), np.float32(1.5), np.float16(-2.5), np.int64(-5), np.int32(7), np.int8(-1), np.uint8(200),
    np.uint64(2**64 - 1), np.bool_(True), np.bool_(False), np.float64(math.inf), np.array([2.5], dtype=">f8")[0],
    np.array([258], dtype=">i4")[0],
]  # fmt: skip


@pytest.mark.parametrize("is_zip", [True, False])
def test_numbers_of_numpy_become_those_of_python(tmp_path: Path, is_zip: bool) -> None:
    path = tmp_path / "w.pt"
    torch.save({"w": torch.ones(2), "lr": NUMBERS}, path, _use_new_zipfile_serialization=is_zip)
    loaded = load_tensors(path)["lr"]
    assert loaded == [value.item() for value in NUMBERS]
    assert [type(value) for value in loaded] == [type(value.item()) for value in NUMBERS]


def test_the_module_names_of_older_numpy_are_known(tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    torch.save({"lr": np.float64(0.25)}, path, _use_new_zipfile_serialization=False)
    content = path.read_bytes()
    older, newer = b"numpy.core.multiarray", b"numpy._core.multiarray"
    assert older in content or newer in content
    for one, other in ((older, newer), (newer, older)):
        path.write_bytes(content.replace(one, other))
        assert load_tensors(path) == {"lr": 0.25}


@pytest.mark.parametrize(
    "value",
    [
        np.ones(3), np.complex128(1j), np.longdouble(1), np.str_("a"), np.bytes_(b"a"), np.datetime64("2020-01-01"),
        np.void(b"abc"), np.dtype("O"), np.dtype("S1000000000"), np.dtype([("a", "f8")]), np.array(None, dtype=object),
        np.random.default_rng(1), np.load,
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_what_else_numpy_has_is_refused(tmp_path: Path, value: Any) -> None:
    torch.save({"w": torch.ones(2), "x": value}, tmp_path / "w.pt")
    with pytest.raises((ValueError, pickle.UnpicklingError)):
        load_tensors(tmp_path / "w.pt")


class Call:
    """Pickles as the call of a function."""

    def __init__(self, function: Any, *args: Any, state: Any = None) -> None:
        self.call = (function, args) if state is None else (function, args, state)

    def __reduce__(self) -> Any:
        return self.call


SCALAR, DTYPE = type(np.float64(0)).__reduce__(np.float64(0))[0], np.dtype
FLOAT = Call(DTYPE, "f8", False, True)


def marker_calls(marker: str) -> dict[str, Any]:
    return {
        "a call": Call(os.mkdir, marker),
        "a process": Call(subprocess.run, ["mkdir", marker]),
        "a call as the content": Call(SCALAR, FLOAT, Call(os.mkdir, marker)),
        "a call as the type": Call(SCALAR, Call(os.mkdir, marker), b"12345678"),
        "a call as the type's name": Call(DTYPE, Call(os.mkdir, marker)),
        "a call as the state": Call(DTYPE, "f8", state=(3, Call(os.mkdir, marker))),
        "eval": Call(eval, f"__import__('os').mkdir({marker!r})"),
    }


@pytest.mark.parametrize("kind", marker_calls("x"))
@pytest.mark.parametrize("is_zip", [True, False])
def test_no_call_is_made_wherever_it_stands(tmp_path: Path, kind: str, is_zip: bool) -> None:
    marker, path = tmp_path / "marker", tmp_path / "w.pt"
    torch.save({"w": torch.ones(1), "x": marker_calls(str(marker))[kind]}, path, _use_new_zipfile_serialization=is_zip)
    with pytest.raises((ValueError, TypeError, pickle.UnpicklingError)):
        load_tensors(path)
    assert not marker.exists()


@pytest.mark.parametrize(
    "value",
    [
        Call(SCALAR, FLOAT, b"1234"),
        Call(SCALAR, FLOAT, b"1" * 80),
        Call(SCALAR, FLOAT, "12345678"),
        Call(SCALAR, FLOAT),
        Call(SCALAR, "f8", b"12345678"),
        Call(SCALAR, Call(DTYPE, "O8", False, True), [1]),
        Call(SCALAR, Call(DTYPE, "f16", False, True), b"1" * 16),
        Call(DTYPE, "f8" * 10_000),
        Call(DTYPE),
        Call(DTYPE, "f8", state={"format": "1000000000s"}),
        Call(DTYPE, "f8", state=(3, "<<", None)),
        Call(DTYPE, 8),
    ],
    ids=range(12),
)
def test_a_number_that_is_none_is_refused(tmp_path: Path, value: Any) -> None:
    torch.save({"w": torch.ones(1), "x": value}, tmp_path / "w.pt")
    with pytest.raises(ValueError, match="NumPy"):
        load_tensors(tmp_path / "w.pt")


def test_nothing_of_numpy_stays_allowed_after_loading(tmp_path: Path) -> None:
    torch.save({"lr": np.float64(1)}, tmp_path / "w.pt")
    before = set(torch.serialization.get_safe_globals())
    load_tensors(tmp_path / "w.pt")
    assert set(torch.serialization.get_safe_globals()) == before
    with pytest.raises(pickle.UnpicklingError):
        torch.load(tmp_path / "w.pt", weights_only=True)


def test_what_libraries_allow_the_unpickler_does_not_matter(tmp_path: Path) -> None:
    """Accelerate allows NumPy's arrays and types as soon as it is imported."""
    torch.save({"lr": np.float64(0.5)}, tmp_path / "number.pt")
    torch.save({"x": np.ones(2)}, tmp_path / "array.pt")
    rebuild = np.ones(2).__reduce__()[0]
    with torch.serialization.safe_globals([rebuild, np.ndarray, np.dtype, type(np.dtype("f8")), SCALAR, os.mkdir]):
        for _ in range(20):
            assert load_tensors(tmp_path / "number.pt") == {"lr": 0.5}
        with pytest.raises(pickle.UnpicklingError):
            load_tensors(tmp_path / "array.pt")
        torch.save({"x": Call(os.mkdir, str(tmp_path / "marker"))}, tmp_path / "call.pt")
        with pytest.raises(pickle.UnpicklingError):
            load_tensors(tmp_path / "call.pt")
    assert not (tmp_path / "marker").exists()
