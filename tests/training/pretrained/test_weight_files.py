"""Weights in the files that people have; and files that are none, or worse."""

import argparse
import json
import os
import pickle
import re
import struct
import zipfile
from collections import OrderedDict
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision import models

from accel_trainer.core.errors import UserError
from accel_trainer.run.folder import RunFolder
from accel_trainer.training.pretrained.transfer import transfer
from accel_trainer.training.pretrained.weight_files import plain_names, read_shapes, read_weights, weights_file


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return models.squeezenet1_1(num_classes=3)


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


def save(path: Path, content: Any, **how: Any) -> Path:
    torch.save(content, path, **how)
    return path


def problem(path: Path) -> str:
    """What is said of a file, which is the same when only shapes are wanted."""
    said = []
    for read in (read_weights, read_shapes):
        with pytest.raises(UserError) as caught:
            read(path)
        (line,) = str(caught.value).splitlines()
        said.append(line)
    # safetensors has its own words for each way of reading.
    assert said[0].split("as weights:")[0] == said[1].split("as weights:")[0]
    return said[0].removeprefix(f"{path}: ")


def described(weights: dict[str, Tensor]) -> dict[str, tuple[torch.Size, bool]]:
    return {name: (value.shape, value.is_floating_point()) for name, value in weights.items()}


# -- what can be read ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin", ".ckpt", ".tar", ".anything"])
@pytest.mark.parametrize("is_zip", [True, False])
def test_a_file_of_torch_save_is_read_whatever_its_ending_and_age(
    model: nn.Module, tmp_path: Path, suffix: str, is_zip: bool
) -> None:
    path = save(tmp_path / f"w{suffix}", model.state_dict(), _use_new_zipfile_serialization=is_zip)
    assert same(read_weights(path), model.state_dict())
    assert described(read_shapes(path)) == described(model.state_dict())


@pytest.mark.parametrize("name", ["w.safetensors", "w.pt"])
def test_safetensors_are_known_by_their_content(tmp_path: Path, name: str) -> None:
    weights = {**models.resnet18(num_classes=3).state_dict(), "half": torch.ones(2, dtype=torch.bfloat16)}
    save_file(weights, tmp_path / name)
    assert same(read_weights(tmp_path / name), weights)
    assert described(read_shapes(tmp_path / name)) == described(weights)
    assert all(value.is_meta for value in read_shapes(tmp_path / name).values())


def test_the_prefixes_of_wrappers_are_left_out(model: nn.Module, tmp_path: Path) -> None:
    plain = {name: value.clone() for name, value in model.state_dict().items()}

    def taken(path: Path) -> bool:
        fresh = deepcopy(model)
        with torch.no_grad():
            for value in fresh.state_dict().values():
                value.zero_()
        transfer(fresh, read_weights(path))
        return same(fresh.state_dict(), plain)

    wrapped = [nn.DataParallel(model), torch.compile(model), nn.DataParallel(torch.compile(nn.DataParallel(model)))]
    for wrapper in wrapped:
        weights = wrapper.state_dict()
        assert not weights.keys() & plain.keys()
        assert taken(save(tmp_path / "w.pt", weights))
    some = {f"module.{name}" if name.startswith("classifier") else name: value for name, value in plain.items()}
    assert taken(save(tmp_path / "w.pt", some))
    save_file({f"module._orig_mod.{name}": value for name, value in plain.items()}, tmp_path / "w.safetensors")
    assert taken(tmp_path / "w.safetensors")


def test_a_compiled_part_of_a_model_is_named_as_if_it_was_not(tmp_path: Path) -> None:
    net = nn.Sequential(OrderedDict(first=nn.Linear(2, 2), module=nn.Linear(2, 2)))
    plain = {name: value.clone() for name, value in net.state_dict().items()}
    net.first = torch.compile(net.first)
    assert "first._orig_mod.weight" in net.state_dict()
    # Nothing but the whole is without its prefix: here both names would become one.
    kept = {"module.weight": plain.pop("module.weight"), "weight": torch.zeros(1)}
    names = plain_names(read_weights(save(tmp_path / "w.pt", {**net.state_dict(), **kept})))
    assert names.keys() == {"first.weight", "first.bias", "bias", *kept}


@pytest.mark.parametrize(
    "around",
    [
        lambda weights: {"state_dict": weights},
        lambda weights: {"model": weights, "epoch": torch.tensor(3), "best": 0.5},
        lambda weights: {"model_state_dict": weights, "loss": 1.0},
        lambda weights: {"params": weights},
        lambda weights: {"network": OrderedDict(weights)},
        lambda weights: {"model": {"state_dict": weights}},
        lambda weights: {"my_own_name": weights, "epoch": torch.tensor(3.0), "rng": {"cpu": torch.get_rng_state()}},
        lambda weights: {**weights, "epoch": 3, "names": ["a"], 5: torch.ones(1)},
    ],
)
def test_weights_are_found_among_other_things(model: nn.Module, tmp_path: Path, around: Any) -> None:
    assert same(read_weights(save(tmp_path / "w.pt", around(model.state_dict()))), model.state_dict())


def test_a_checkpoint_with_its_optimizer_and_scheduler_is_read(model: nn.Module, tmp_path: Path) -> None:
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.zeros(2, 3, 32, 32)).sum().backward()
    optimizer.step()
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 3)
    whole = {"optimizer": optimizer.state_dict(), "scheduler": scheduler.state_dict(), "model": model.state_dict()}
    assert same(read_weights(save(tmp_path / "w.pt", whole)), model.state_dict())
    assert "holds no weights" in problem(save(tmp_path / "o.pt", {"optimizer": whole["optimizer"]}))


# -- what cannot ---------------------------------------------------------------------------------------------


class Malicious:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize("is_zip", [True, False])
def test_nothing_in_a_file_is_run(tmp_path: Path, is_zip: bool) -> None:
    marker = tmp_path / "marker"
    content = {"state_dict": {"w": torch.ones(1)}, "extra": Malicious(marker)}
    path = save(tmp_path / "w.pt", content, _use_new_zipfile_serialization=is_zip)
    assert problem(path).startswith("holds a posix.mkdir, and only tensors and plain data are taken")
    assert not marker.exists()
    torch.load(path, weights_only=False)  # it would have
    assert marker.exists()


def test_what_is_refused_is_named_with_a_way_out(tmp_path: Path) -> None:
    said = problem(save(tmp_path / "w.pt", {"state_dict": {"w": torch.ones(1)}, "args": argparse.Namespace(lr=1)}))
    assert "argparse.Namespace" in said
    assert "torch.load(..., weights_only=False)" in said
    assert "torch.nn.modules.linear.Linear" in problem(save(tmp_path / "w.pt", nn.Linear(2, 2)))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({}, "holds no weights, but a dict of "),
        ({"epoch": 3}, "holds no weights, but a dict of epoch"),
        ({"steps": torch.tensor(3)}, "holds no weights, but a dict of steps"),
        ({"w": torch.ones(2, 2).to_sparse()}, "holds no weights, but a dict of w"),
        (torch.ones(3), "holds no weights, but Tensor"),
        ([torch.ones(3)], "holds no weights, but list"),
        ({"g": {"w": torch.ones(1)}, "d": {"w": torch.ones(1)}}, "holds several state dicts (g, d)"),
    ],
)
def test_a_file_without_weights_is_refused(tmp_path: Path, content: Any, said: str) -> None:
    assert problem(save(tmp_path / "w.pt", content)).startswith(said)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_a_file_of_nested_tensors_is_refused(tmp_path: Path) -> None:
    content = {"w": torch.nested.nested_tensor([torch.ones(2)])}
    assert problem(save(tmp_path / "w.pt", content)).startswith("holds no weights, but a dict of w")


def test_a_dict_that_holds_itself_has_an_end(tmp_path: Path) -> None:
    content: dict[str, Any] = {}
    content["model"] = content
    assert problem(save(tmp_path / "w.pt", content)).startswith("holds no weights")


@pytest.mark.parametrize("name", ["w.safetensors", "w.pt"])
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is neither a file of safetensors nor one of torch.save"),
        (b"<!DOCTYPE html>", "is neither"),
        (b"version https://git-lfs.github.com/spec/v1", "is neither"),
        (b"PK\x03\x04, but no archive", "cannot be read as weights"),
        (b"\x80\x02 no pickle", "cannot be read as weights"),
        (struct.pack("<Q", 50) + b'{"w":', "cannot be read as weights"),
    ],
)
def test_a_file_that_is_something_else_is_refused(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(content)
    assert problem(tmp_path / name).startswith(said)


@pytest.mark.parametrize("name", ["w.safetensors", "w.pt"])
def test_half_a_file_of_weights_is_refused(model: nn.Module, tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if path.suffix == ".pt":
        torch.save(model.state_dict(), path)
    else:
        save_file(model.state_dict(), path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert problem(path).startswith("cannot be read as weights")


# -- which file is meant --------------------------------------------------------------------------------------


def test_a_run_folder_and_its_params_folder_mean_the_best_weights(run: RunFolder) -> None:
    run.best_weights.touch()
    run.weights(7).touch()
    assert weights_file(run.path) == weights_file(run.params) == weights_file(run.best_weights) == run.best_weights
    assert weights_file(run.weights(7)) == run.weights(7)


def test_missing_weights_are_reported_with_those_that_exist(run: RunFolder, tmp_path: Path) -> None:
    def said(path: Path) -> str:
        with pytest.raises(UserError) as caught:
            weights_file(path)
        return str(caught.value)

    assert said(run.path) == f"{run.params} has no best.safetensors; there are: none"
    run.weights(7).touch()
    run.weights(0).touch()
    assert said(run.path) == f"{run.params} has no best.safetensors; there are: 000.safetensors, 007.safetensors"
    assert said(run.params) == said(run.path)
    assert said(run.weights(8)) == (
        f"there is no {run.weights(8)}; beside it there are: 000.safetensors, 007.safetensors"
    )
    assert said(tmp_path / "no" / "w.pt") == f"there is no {tmp_path / 'no' / 'w.pt'}"
    (tmp_path / "empty").mkdir()
    assert said(tmp_path / "empty").endswith("is no run folder: it has neither config.json nor weights")


@pytest.fixture
def other_run(tmp_path: Path, model: nn.Module) -> RunFolder:
    """A run as other code leaves it: DataParallel's names, and NumPy's numbers in the state of the optimizer."""
    folder = RunFolder(tmp_path / "other")
    folder.params.mkdir(parents=True)
    (folder.path / "args.json").write_text('{"architecture": "squeezenet1_1", "checkpoint": 43}')
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    optimizer.param_groups[0]["lr"] = np.float64(0.001)
    scheduler = {"best": np.float32(0.5), "last_epoch": np.int64(43)}
    for name, shift in (("000", 0.0), ("043", 1.0), ("best_9", 2.0), ("best_040", 3.0)):
        weights = {f"module.{key}": value + shift for key, value in model.state_dict().items()}
        whole = {"model": weights, "optimizer": optimizer.state_dict(), "scheduler": scheduler}
        torch.save({**whole, "swa_model": {"n_averaged": torch.tensor(3), **weights}}, folder.params / f"{name}.pt")
    return folder


def test_a_run_folder_of_other_code_means_its_best_weights(other_run: RunFolder, model: nn.Module) -> None:
    best = other_run.params / "best_040.pt"
    assert weights_file(other_run.path) == weights_file(other_run.params) == weights_file(best) == best
    assert weights_file(other_run.params / "043.pt").name == "043.pt"
    for name, shift in (("best_040", 3.0), ("043", 1.0)):
        expected = {f"module.{key}": value + shift for key, value in model.state_dict().items()}
        assert same(read_weights(other_run.params / f"{name}.pt"), expected)
        assert described(read_shapes(other_run.params / f"{name}.pt")) == described(expected)


def test_a_run_folder_of_other_code_without_best_weights_lists_what_it_has(other_run: RunFolder) -> None:
    for path in other_run.params.glob("best_*.pt"):
        path.unlink()
    (other_run.params / "best_model.pt").touch()
    with pytest.raises(
        UserError, match=r"params has no best\.safetensors; there are: 000\.pt, 043\.pt, best_model\.pt"
    ):
        weights_file(other_run.path)


# -- files made to do harm --------------------------------------------------------------------------------------


def safetensors(header: bytes | dict[str, Any], data: bytes = bytes(16), length: int | None = None) -> bytes:
    """A file of safetensors with this header, whatever it says."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def entry(start: int, end: int, shape: list[int] | None = None, dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": [4] if shape is None else shape, "data_offsets": [start, end]}


ENTRY = b'"w":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}'


@pytest.mark.parametrize(
    "content",
    [
        safetensors({"w": entry(0, 16)}, length=2**31),
        safetensors({"w": entry(0, 16)}, length=2**63),
        safetensors({"w": entry(0, 16)}, length=2**64 - 1),
        safetensors({"w": entry(0, 16), "v": entry(8, 24)}, bytes(24)),
        safetensors({"w": entry(0, 16), "v": entry(0, 16)}),
        safetensors({"w": entry(0, 10**12, [10**12 // 4])}),
        safetensors({"w": entry(16, 0)}),
        safetensors({"w": entry(16, 32)}, bytes(32)),
        safetensors({"w": entry(0, 16)}, bytes(64)),
        safetensors({"w": entry(0, 16, [2**62, 4])}),
        safetensors({"w": entry(0, 16, [-4])}),
        safetensors({"w": entry(0, 16, dtype="PICKLE")}),
        safetensors(b"{" + ENTRY + b"," + ENTRY.replace(b"4", b"2").replace(b"16", b"8") + b"}"),
        safetensors(b'{"w":' + b"[" * 100_000),
        safetensors(b"{" + b" " * 101_000_000 + b"}"),
        safetensors({"w": entry(0, 16), "__metadata__": {"epoch": 5}}),
        b"<!DOCTYPE html><html>" * 10,
    ],
    ids=[
        "header longer than the file", "header of 2^63 bytes", "header of 2^64 bytes", "overlapping",
        "twice the same bytes", "beyond the end", "backwards", "a hole", "a tail", "too large to multiply", "negative",
        "unknown type", "a name twice", "nested", "header of 100 MB", "metadata of another type", "HTML",
    ],
)  # fmt: skip
def test_safetensors_with_a_false_header_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(content)
    assert re.match("cannot be read as weights|is neither a file of safetensors", problem(path))


def test_a_type_that_torch_does_not_have_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(safetensors({"w": entry(0, 2, dtype="F4")}, bytes(2)))
    with pytest.raises(UserError, match="cannot be read as weights"):
        read_weights(path)


def test_a_pickle_is_none_the_better_for_its_name(tmp_path: Path) -> None:
    path, marker = tmp_path / "w.safetensors", tmp_path / "marker"
    torch.save({"state_dict": {"w": torch.ones(1)}, "extra": Malicious(marker)}, path)
    with pytest.raises(UserError):
        read_weights(path)
    path.write_bytes(pickle.dumps(Malicious(marker)))
    with pytest.raises(UserError):
        read_weights(path)
    assert not marker.exists()


def test_an_archive_that_is_small_only_while_it_is_packed_is_refused(tmp_path: Path) -> None:
    plain, path = save(tmp_path / "plain.pt", {"w": torch.ones(4)}), tmp_path / "w.pt"
    with zipfile.ZipFile(plain) as old, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        for part in old.infolist():
            new.writestr(part.filename, bytes(10_000_000) if "/data/" in part.filename else old.read(part))
    assert problem(path).startswith("cannot be read as weights: a compressed archive, of 10,00")


def test_names_that_are_commands_to_a_terminal_are_written_out(model: nn.Module, tmp_path: Path) -> None:
    evil = "a\n../../\x1b[2Jb"
    path = save(tmp_path / "w.pt", {evil: torch.ones(1), "g": {"w": torch.ones(1)}, "d": {evil: torch.ones(1)}})
    assert problem(path).isprintable()
    with pytest.raises(UserError) as caught:
        transfer(model, {evil: torch.ones(1)})
    assert str(caught.value).isprintable()
