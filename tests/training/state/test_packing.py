"""Files of weights that are written in pieces are those of the safetensors library."""

import importlib.util
import json
from itertools import permutations

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from accel_trainer.training.state import packing
from accel_trainer.training.state.packing import NAMES, packed


def of_library(weights: dict[str, Tensor], about: dict[str, str] | None = None) -> bytes:
    """What the library writes, with the keys of its header in order."""
    file = safetensors.torch.save({name: value.contiguous().clone() for name, value in weights.items()}, metadata=about)
    start = 8 + int.from_bytes(file[:8], "little")
    header = json.dumps(json.loads(file[8:start]), sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + file[start:]


def numbers(dtype: torch.dtype, count: int = 3) -> Tensor:
    return (torch.arange(count) % 2).to(dtype)


def test_tensors_of_all_types_are_laid_out_as_the_library_does() -> None:
    by_type = {f"{number:02d}": numbers(dtype) for number, dtype in enumerate(NAMES)}
    reverse = {f"{number:02d}": numbers(dtype) for number, dtype in enumerate(reversed(NAMES))}
    for weights in (by_type, reverse):
        assert b"".join(packed(weights)) == of_library(weights)


@pytest.mark.parametrize("names", [*permutations(["b", "a.é", "A"])])
def test_the_order_of_names_makes_no_difference(names: tuple[str, ...]) -> None:
    weights = {name: torch.full((2, 3), float(ord(name[0]))) for name in names}
    about = {"format": "pt", "epoch": "3", "é": '"'}
    assert b"".join(packed(weights, about)) == of_library(dict(sorted(weights.items())), about)


@pytest.mark.parametrize(
    "tensor",
    [
        torch.tensor(3.0),
        torch.zeros(0, 4),
        torch.arange(24.0).reshape(1, 2, 3, 4).to(memory_format=torch.channels_last),
        torch.arange(6).reshape(2, 3).T,
        torch.ones(()).expand(3),
        torch.tensor([1 + 2j]).conj(),
        nn.Parameter(torch.ones(2)),
    ],
    ids=["a number", "empty", "channels last", "transposed", "expanded", "conjugate", "parameter"],
)
def test_tensors_of_any_shape_are_written_as_they_are(tensor: Tensor) -> None:
    file = b"".join(packed({"w": tensor}))
    assert file == of_library({"w": tensor.detach().resolve_conj()})
    assert torch.equal(safetensors.torch.load(file)["w"], tensor)


def test_tensors_that_are_one_memory_are_written_each() -> None:
    tensor = torch.rand(3)
    assert safetensors.torch.load(b"".join(packed({"a": tensor, "b": tensor})))["b"].equal(tensor)


def test_what_lies_in_order_is_not_copied() -> None:
    tensor = torch.zeros(1000)
    _, piece = packed({"w": tensor})
    tensor[0] = 1
    assert bytes(piece[:4]) == torch.ones(1).numpy().tobytes()


def test_torch_that_lacks_a_type_has_no_name_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """float8_e8m0fnu came with torch 2.7."""
    with monkeypatch.context() as patch:
        patch.delattr(torch, "float8_e8m0fnu")
        spec = importlib.util.find_spec(packing.__name__)
        assert spec is not None
        assert spec.loader is not None
        older = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(older)
    assert list(older.NAMES) == [dtype for dtype in NAMES if dtype is not torch.float8_e8m0fnu]
