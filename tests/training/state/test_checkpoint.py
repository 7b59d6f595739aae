"""Weights that anybody can load, and states that are whole or not used."""

import errno
import hashlib
import json
import math
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import own_disk, plant_no_file
from loops import trainer_state
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn
from torchvision import models

from accel_trainer.core.errors import UserError
from accel_trainer.run.folder import RunFolder
from accel_trainer.run.performance import PerformanceRow
from accel_trainer.training.state.checkpoint import (
    NotSaved,
    Progress,
    StateStore,
    TrainState,
    load_weights,
    save_weights,
)

MODEL, TRAINER, MANIFEST = "model.safetensors", "trainer.pt", "manifest.json"


# -- weights -----------------------------------------------------------------------------------------------


def test_weights_load_into_a_plain_model_without_this_project(tmp_path: Path) -> None:
    torch.manual_seed(1)
    model = models.squeezenet1_1(num_classes=10)
    save_weights(tmp_path / "w.safetensors", model.state_dict(), epoch="3", architecture="squeezenet1_1")
    plain = models.squeezenet1_1(num_classes=10)
    plain.load_state_dict(load_file(tmp_path / "w.safetensors"), strict=True)
    for name, value in model.state_dict().items():
        assert torch.equal(plain.state_dict()[name], value)
    with safe_open(tmp_path / "w.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt", "epoch": "3", "architecture": "squeezenet1_1"}


class Tied(nn.Module):
    """Two layers with one weight, a convolution in channels-last memory, BatchNorm with its integer count."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
        self.second.weight = self.first.weight
        self.conv = nn.Conv2d(3, 8, 3).to(memory_format=torch.channels_last)
        self.norm = nn.BatchNorm2d(8).half()


def test_weights_that_are_equal_are_the_same_bytes_in_every_file(tmp_path: Path) -> None:
    """The order of a hash map is drawn anew for each: among 20 files with 6 keys two orders are all but certain."""
    weights = {"é.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.ones(3, dtype=torch.float64)}
    about = {name: name.upper() for name in ("epoch", "architecture", "b", "c", "d")}

    for number in range(20):
        save_weights(tmp_path / f"{number}", weights, **about)

    assert len({(tmp_path / f"{number}").read_bytes() for number in range(20)}) == 1
    loaded = load_file(tmp_path / "0")
    assert loaded.keys() == weights.keys()
    assert all(torch.equal(loaded[name], weights[name]) for name in weights)
    with safe_open(tmp_path / "0", "pt") as file:
        assert file.metadata() == {"format": "pt", **about}


@pytest.mark.parametrize("store", ["weights", "state"])
def test_tied_and_channels_last_weights_are_saved(run: RunFolder, store: str) -> None:
    values = Tied().state_dict()
    if store == "weights":
        save_weights(run.best_weights, values)
        loaded = load_weights(run.best_weights)
    else:
        StateStore(run).save(TrainState(Progress(), values, trainer_state(), 1))
        loaded = dict(newest(run).model)
    assert loaded.keys() == values.keys()
    for name, value in values.items():
        assert loaded[name].dtype == value.dtype
        assert torch.equal(loaded[name], value)
    Tied().load_state_dict(loaded, strict=True)


def test_saving_does_not_touch_the_model(tmp_path: Path) -> None:
    model = Tied()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    save_weights(tmp_path / "w.safetensors", model.state_dict())
    assert model.conv.weight.is_contiguous(memory_format=torch.channels_last)
    assert model.second.weight is model.first.weight
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("content", [None, b"", b"\x00" * 100, b"PK\x03\x04 a pickle"])
def test_weights_that_cannot_be_read_are_the_users_error(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "w.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=r"w\.safetensors: cannot be read as weights"):
        load_weights(path)


@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
def test_weights_that_are_no_file_are_not_waited_for(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "w.safetensors"
    plant_no_file(path, kind)
    with pytest.raises(UserError, match=r"w\.safetensors: cannot be read as weights: it is no file"):
        load_weights(path)


# -- states --------------------------------------------------------------------------------------------------


def state(epoch: int, **more: Any) -> TrainState:
    progress = Progress(epoch=epoch, global_step=10 * epoch, **more)
    return TrainState(progress, {"w": torch.full((3,), float(epoch))}, trainer_state(), 1)


def newest(run: RunFolder) -> TrainState:
    found = StateStore(run).newest()
    assert found is not None
    return found


def folder_of(run: RunFolder, epoch: int) -> Path:
    (folder,) = run.resume.glob(f"*{10 * epoch}-*{epoch}")
    return folder


@pytest.fixture
def two_states(run: RunFolder) -> RunFolder:
    for epoch in (1, 2):
        StateStore(run).save(state(epoch))
    return run


def tensors_in(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    values = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else []
    return [tensor for item in values for tensor in tensors_in(item)]


@pytest.mark.parametrize(
    "make", [lambda p: torch.optim.AdamW(p, lr=0.1), lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9)]
)
def test_a_state_is_read_to_the_bit_as_it_was_written(
    run: RunFolder, make: Callable[[Any], torch.optim.Optimizer]
) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    optimizer = make(model.parameters())
    for _ in range(3):
        optimizer.zero_grad()
        model(torch.randn(2, 3, 8, 8)).square().mean().backward()
        optimizer.step()
    progress = Progress(
        epoch=2, step=3, global_step=23, epoch_seconds=1.1, best=100 / 3, best_epoch=1,
        history=[PerformanceRow(1, "val", {"loss": 0.1 + 0.2, "acc1": math.nan}, 0.1, 2 / 3, 0.7)],
    )  # fmt: skip
    trainer = trainer_state(optimizer=optimizer.state_dict(), sums=torch.rand(2, 5, dtype=torch.float64))
    StateStore(run).save(TrainState(progress, model.state_dict(), trainer, num_processes=2))
    read = newest(run)
    assert repr(read.progress) == repr(progress)  # NaN is not equal to itself
    assert read.num_processes == 2
    for name, value in model.state_dict().items():
        assert torch.equal(read.model[name], value)
    assert read.trainer.optimizer["param_groups"] == trainer.optimizer["param_groups"]
    written = tensors_in(trainer.as_record())
    assert len(written) > 3
    assert all(torch.equal(*pair) for pair in zip(tensors_in(read.trainer.as_record()), written, strict=True))


def test_the_two_newest_states_are_kept(run: RunFolder) -> None:
    for epoch in range(1, 12):
        StateStore(run).save(state(epoch))
    assert sorted(path.name for path in run.resume.iterdir()) == [folder_of(run, e).name for e in (10, 11)]
    assert newest(run).progress.epoch == 11
    StateStore(run).keep_only_newest()
    assert [path.name for path in run.resume.iterdir()] == [folder_of(run, 11).name]
    assert newest(run).progress.epoch == 11


def test_the_end_of_an_epoch_comes_after_its_last_step(run: RunFolder) -> None:
    last_step = state(2, step=10)
    StateStore(run).save(last_step)
    StateStore(run).save(TrainState(Progress(epoch=3, global_step=20), last_step.model, last_step.trainer, 1))
    assert newest(run).progress.epoch == 3


def test_a_run_without_states_has_none(run: RunFolder) -> None:
    assert StateStore(run).newest() is None
    run.resume.mkdir()
    assert StateStore(run).newest() is None
    StateStore(run).keep_only_newest()


@pytest.mark.parametrize(("epoch", "found"), [(0, False), (1, True), (2, True), (3, False)])
def test_the_state_of_an_epoch_is_found_while_it_is_there(two_states: RunFolder, epoch: int, found: bool) -> None:
    at_epoch = StateStore(two_states).at_epoch(epoch)
    assert (at_epoch is not None) == found
    assert at_epoch is None or at_epoch.progress.epoch == epoch


def test_a_state_within_an_epoch_is_not_that_of_the_epoch(run: RunFolder) -> None:
    StateStore(run).save(state(2, step=3))
    assert StateStore(run).at_epoch(2) is None


# -- damage ----------------------------------------------------------------------------------------------------


def sign(folder: Path, manifest: dict[str, Any]) -> None:
    """Write a manifest whose checksum is right."""
    manifest.pop("checksum", None)
    manifest["checksum"] = hashlib.sha256(json.dumps(manifest).encode()).hexdigest()
    (folder / MANIFEST).write_text(json.dumps(manifest))


def damage(folder: Path, how: str) -> None:
    model, trainer, manifest = (folder / name for name in (MODEL, TRAINER, MANIFEST))
    match how:
        case "model cut short":
            model.write_bytes(model.read_bytes()[:-4])
        case "model empty":
            model.write_bytes(b"")
        case "one bit of the model":
            content = bytearray(model.read_bytes())
            content[-1] ^= 1
            model.write_bytes(content)
        case "trainer altered":
            content = bytearray(trainer.read_bytes())
            content[len(content) // 2] ^= 1
            trainer.write_bytes(content)
        case "no model":
            model.unlink()
        case "no trainer":
            trainer.unlink()
        case "no manifest":
            manifest.unlink()
        case "a digit of the manifest":
            manifest.write_text(manifest.read_text().replace('"global_step": 20', '"global_step": 21'))
        case "a path out of the folder":
            listed = json.loads(manifest.read_text())
            listed["sha256"]["../../x"] = listed["sha256"][MODEL]
            sign(folder, listed)
        case "model a pipe" | "trainer a pipe" | "manifest a pipe":
            path = folder / {"model": MODEL, "trainer": TRAINER, "manifest": MANIFEST}[how.split()[0]]
            path.unlink()
            os.mkfifo(path)
        case "model without end" | "trainer without end" | "manifest without end":
            path = folder / {"model": MODEL, "trainer": TRAINER, "manifest": MANIFEST}[how.split()[0]]
            path.unlink()
            path.symlink_to("/dev/null")
        case "progress of other types":
            sign(folder, {**json.loads(manifest.read_text()), "progress": {"epoch": "two", "history": 5}})
        case "progress of no version":
            sign(folder, {**json.loads(manifest.read_text()), "progress": ["epoch"]})
        case "manifest cut short":
            manifest.write_bytes(manifest.read_bytes()[:-9])
        case _:
            manifest.write_text(how)


@pytest.mark.parametrize(
    "how",
    [
        "model cut short", "model empty", "one bit of the model", "trainer altered",
        "no model", "no trainer", "no manifest", "manifest cut short", "a digit of the manifest",
        "a path out of the folder",
        "model a pipe", "trainer a pipe", "manifest a pipe",
        "model without end", "trainer without end", "manifest without end",
        "progress of other types", "progress of no version", "[" * 100_000,
        "", "[]", "{}", "\x00", '{"sha256": {}}', '{"progress": {}, "num_processes": 1, "sha256": "none"}',
    ],
)  # fmt: skip
def test_a_damaged_state_is_named_and_the_one_before_it_used(
    two_states: RunFolder, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    damage(folder_of(two_states, 2), how)
    assert newest(two_states).progress.epoch == 1
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert str(folder_of(two_states, 2)) in record.getMessage()


def test_without_a_whole_state_there_is_none(two_states: RunFolder) -> None:
    for epoch in (1, 2):
        damage(folder_of(two_states, epoch), "model cut short")
    assert StateStore(two_states).newest() is None


def test_a_damaged_state_is_replaced_when_its_step_comes_again(two_states: RunFolder) -> None:
    damage(folder_of(two_states, 2), "no model")
    StateStore(two_states).save(state(2))
    assert newest(two_states).progress.epoch == 2


class Malicious:
    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.trace),)


@pytest.fixture
def trap(two_states: RunFolder, tmp_path: Path) -> Path:
    """A folder that is made when the newest state executes code; its checksums are right, as whoever can write
    the one can write the other."""
    folder = folder_of(two_states, 2)
    torch.save({"optimizer": Malicious(tmp_path / "executed")}, folder / TRAINER)
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["sha256"][TRAINER] = hashlib.sha256((folder / TRAINER).read_bytes()).hexdigest()
    sign(folder, manifest)
    return tmp_path / "executed"


def test_reading_a_state_never_executes_code_from_it(two_states: RunFolder, trap: Path) -> None:
    with suppress(Exception):
        StateStore(two_states).newest()
    assert not trap.exists()
    torch.load(folder_of(two_states, 2) / TRAINER, weights_only=False)
    assert trap.exists()  # it would have


def test_a_state_that_would_execute_code_gives_way_to_the_one_before_it(
    two_states: RunFolder, trap: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert newest(two_states).progress.epoch == 1
    (said,) = (record.getMessage() for record in caplog.records)
    assert "trainer.pt holds more than plain data, which could run code" in said
    assert "weights_only" not in said, "nobody is told how to run it all the same"


FAILING_CALLS = [
    *(f"training.state.checkpoint.{call}" for call in ("packed", "torch.save", "_write", "_sha256", "Path.replace")),
    *(f"core.files.{call}" for call in ("sync_folder", "os.fsync")),
]


@pytest.mark.parametrize("failing", FAILING_CALLS)
def test_an_interrupted_save_leaves_the_states_as_they_were(
    two_states: RunFolder, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(f"accel_trainer.{failing}", fail)
        with pytest.raises(NotSaved, match="No space left on device") as caught:
            StateStore(two_states).save(state(3))
    assert (caught.value.step, caught.value.filename) == (30, str(two_states.resume))
    assert sorted(two_states.resume.iterdir()) == [folder_of(two_states, epoch) for epoch in (1, 2)]
    assert newest(two_states).progress.epoch == 2


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[RunFolder]:
    """A run on a disk of 64 KB."""
    with own_disk(tmp_path / "disk", "size=64k") as disk:
        run = RunFolder(disk / "run")
        run.create()
        yield run


@pytest.mark.parametrize("numbers", [4000, 9000, 20_000])
def test_a_full_disk_leaves_the_states_as_they_were(small_disk: RunFolder, numbers: int) -> None:
    StateStore(small_disk).save(state(1))
    for _ in range(2):
        trainer = trainer_state(optimizer={"m": torch.zeros(9000)})
        large = TrainState(Progress(epoch=2, global_step=20), {"w": torch.zeros(numbers)}, trainer, 1)
        with pytest.raises(NotSaved, match="No space left on device"):
            StateStore(small_disk).save(large)
    assert [path.name for path in small_disk.resume.iterdir()] == [folder_of(small_disk, 1).name]
    StateStore(small_disk).save(state(2))
    assert newest(small_disk).progress.epoch == 2


# -- two whole states are kept -----------------------------------------------------------------------------------------


def gone_on(run: RunFolder) -> StateStore:
    """The states of a run that goes on from the newest whole one."""
    store = StateStore(run)
    store.go_on_from(newest(run).progress)
    return store


def kept(run: RunFolder) -> list[int]:
    """Global steps of the states, oldest first."""
    return sorted(int(path.name.partition("-")[0]) for path in run.resume.iterdir())


def at_step(step: int) -> TrainState:
    return TrainState(Progress(epoch=1, step=step, global_step=step), {"w": torch.zeros(1)}, trainer_state(), 1)


@pytest.mark.parametrize("step", [15, 20, 25])
def test_a_damaged_state_costs_no_whole_one(two_states: RunFolder, step: int) -> None:
    """Wherever the run that goes on from the state before it is saved next."""
    damage(folder_of(two_states, 2), "model cut short")
    store = gone_on(two_states)
    store.save(at_step(step))
    assert kept(two_states) == [10, step]
    store.save(at_step(step + 1))
    assert kept(two_states) == [step, step + 1]
    assert newest(two_states).progress.step == step + 1


def test_a_run_that_begins_anew_keeps_none_of_its_damaged_states(two_states: RunFolder) -> None:
    for epoch in (1, 2):
        damage(folder_of(two_states, epoch), "model cut short")
    store = StateStore(two_states)
    store.go_on_from(Progress())
    for step in (5, 15):
        store.save(at_step(step))
    assert kept(two_states) == [5, 15]


def test_damaged_states_stay_until_there_is_another(two_states: RunFolder) -> None:
    damage(folder_of(two_states, 2), "model cut short")
    gone_on(two_states)
    assert kept(two_states) == [10, 20]


@pytest.mark.parametrize("is_dangling", [False, True])
def test_a_link_among_the_states_is_no_state(
    two_states: RunFolder, caplog: pytest.LogCaptureFixture, is_dangling: bool
) -> None:
    elsewhere = two_states.path / "elsewhere"
    folder_of(two_states, 2).rename(elsewhere)
    link = two_states.resume / "000000020-0002"
    link.symlink_to(two_states.path / "nowhere" if is_dangling else elsewhere)
    assert newest(two_states).progress.epoch == 1
    assert is_dangling or f"the state {link} is not whole (it is a link)" in caplog.text
    gone_on(two_states).save(state(2))
    assert newest(two_states).progress.epoch == 2
    assert (elsewhere / MODEL).exists(), "only the link is removed"


def test_what_a_killed_save_has_left_is_ignored_and_cleaned_up(two_states: RunFolder) -> None:
    left_over = two_states.resume / ".0123abcd.tmp"
    left_over.mkdir()
    (left_over / MODEL).write_bytes(b"half")
    assert newest(two_states).progress.epoch == 2
    StateStore(two_states).save(state(3))
    assert not left_over.exists()


def test_a_link_among_the_states_is_none_and_nothing_behind_it_is_deleted(
    two_states: RunFolder, tmp_path: Path
) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "file").touch()
    for name in ("000000000-0000", "999999999-9999"):
        (two_states.resume / name).symlink_to(tmp_path / "elsewhere")
    for epoch in (3, 4, 5):
        StateStore(two_states).save(state(epoch))
    StateStore(two_states).keep_only_newest()
    assert newest(two_states).progress.epoch == 5
    assert (tmp_path / "elsewhere" / "file").exists()


def test_a_foreign_file_among_the_states_costs_no_state(two_states: RunFolder) -> None:
    (two_states.resume / "notes.txt").write_text("do not delete")
    StateStore(two_states).save(state(3))
    StateStore(two_states).keep_only_newest()
    assert newest(two_states).progress.epoch == 3
    assert (two_states.resume / "notes.txt").exists()
