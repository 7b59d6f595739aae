"""The thread that writes what is saved, and the copy that it writes."""

import logging
import threading
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn

from accel_trainer.training.state import background
from accel_trainer.training.state.background import HostMemory, SaveThread


def content() -> dict[str, Any]:
    weight, last = torch.arange(6.0).reshape(2, 3), torch.zeros(3, 4, 5, 5).to(memory_format=torch.channels_last)
    return {
        "model": OrderedDict(weight=weight, tied=weight.detach(), last=last),
        "optimizer": {"state": {0: {"step": torch.tensor(3.0), "nested": [torch.ones(2), (torch.ones(1), 0.1)]}}},
        "schedule": {"rates": [0.1, 0.2]},
    }


# -- the copy ----------------------------------------------------------------------------------------------------------


def test_a_copy_stays_as_it_is_whatever_becomes_of_the_original() -> None:
    original = content()
    copy = HostMemory().copy(original)
    assert repr(copy) == repr(content())
    original["model"]["weight"].add_(1)
    original["optimizer"]["state"][0]["nested"][1][0].add_(1)
    original["optimizer"]["state"][0]["step"].add_(1)
    original["schedule"]["rates"].append(0.3)
    assert repr(copy) == repr(content())


def test_a_copy_has_the_layout_of_the_original_and_one_tensor_for_each_memory() -> None:
    copy = HostMemory().copy(content())
    model = copy["model"]
    assert type(model) is OrderedDict
    assert model["last"].is_contiguous(memory_format=torch.channels_last)
    assert model["tied"] is model["weight"]
    assert not any(tensor.requires_grad for tensor in model.values())


def test_views_of_one_memory_that_mean_other_numbers_are_copied_apart_and_nothing_is_recorded() -> None:
    original = nn.Parameter(torch.randn(4, dtype=torch.complex64))
    one, conjugate, negative = HostMemory().copy([original, original.conj(), original.conj().imag])
    assert torch.equal(one, original)
    assert torch.equal(conjugate, original.conj())
    assert torch.equal(negative, original.conj().imag)
    assert one.grad_fn is None


def test_memory_is_used_again_and_given_up_where_it_does_not_fit() -> None:
    memory, original = HostMemory(), content()
    needed = memory.bytes_for(original)
    assert needed == 4 * (6 + 300 + 1 + 2 + 1)
    pointers = [tensor.data_ptr() for tensor in background._tensors(memory.copy(original))]
    assert memory.bytes_for(original) == 0
    assert [tensor.data_ptr() for tensor in background._tensors(memory.copy(original))] == pointers
    original["model"]["last"] = torch.zeros(7)
    assert memory.copy(original)["model"]["last"].equal(torch.zeros(7))
    assert memory.bytes_for(content()) == 4 * (300 - 7)
    memory.release()
    assert memory.bytes_for(content()) == needed


# -- the thread --------------------------------------------------------------------------------------------------------


class Disk:
    """Takes what is written when it is told to."""

    def __init__(self) -> None:
        self.begun, self.may_go_on = threading.Event(), threading.Event()
        self.threads: list[int] = []
        self.written: list[Any] = []
        self.fails = False

    def write(self, content: Any) -> None:
        self.begun.set()
        assert self.may_go_on.wait(30)
        if self.fails:
            raise OSError("full")
        self.threads.append(threading.get_ident())
        self.written.append(repr(content))


@pytest.fixture
def disk() -> Iterator[Disk]:
    disk = Disk()
    yield disk
    disk.may_go_on.set()


def test_what_is_saved_is_of_the_moment_and_written_by_another_thread(disk: Disk) -> None:
    weight, thread = torch.zeros(3), SaveThread()
    with thread.running():
        thread.save([weight], disk.write, waits=False)
        assert disk.begun.wait(30)
        weight.add_(1)
        thread.check()
        assert disk.written == []
        disk.may_go_on.set()
        thread.save([weight], disk.write, waits=False)  # once the first is written
        assert disk.written[0] == repr([torch.zeros(3)])
    assert disk.written == [repr([torch.zeros(3)]), repr([torch.ones(3)])]
    assert threading.get_ident() not in disk.threads
    assert [one.name for one in threading.enumerate() if one.name.startswith("saving")] == []


@pytest.mark.parametrize("waits", [True, False])
def test_who_has_to_wait_writes_it(disk: Disk, waits: bool) -> None:
    """And so does everybody while there is no thread."""
    thread = SaveThread()
    disk.may_go_on.set()
    if waits:
        with thread.running():
            thread.save([torch.zeros(1)], disk.write, waits=True)
    else:
        thread.save([torch.zeros(1)], disk.write, waits=False)
    assert disk.threads == [threading.get_ident()]


def test_where_the_system_gives_no_memory_for_a_copy_it_is_written_at_once(
    disk: Disk, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(*args: Any, **settings: Any) -> None:
        raise RuntimeError("CUDA error: out of memory\nand more")

    caplog.set_level(logging.INFO)
    disk.may_go_on.set()
    thread = SaveThread()
    with thread.running():
        with monkeypatch.context() as patch:
            patch.setattr(torch, "empty_like", refuses)
            thread.save([torch.zeros(1)], disk.write, waits=False)
        assert disk.threads == [threading.get_ident()]
        thread.save([torch.zeros(1)], disk.write, waits=False)
    assert len(set(disk.threads)) == 2
    assert caplog.messages == ["the training waits while it is saved: for a copy, CUDA error: out of memory"]


def test_an_error_of_the_thread_is_raised_once_at_the_next_look(disk: Disk) -> None:
    thread = SaveThread()
    disk.fails = True
    disk.may_go_on.set()
    with thread.running():
        thread.save([], disk.write, waits=False)
        saving = thread._saving
        assert saving is not None
        assert isinstance(saving.exception(30), OSError)
        with pytest.raises(OSError, match="full"):
            thread.check()
        thread.check()
        thread.save([], disk.write, waits=False)
        with pytest.raises(OSError, match="full"):
            thread.save([], disk.write, waits=False)
    with pytest.raises(OSError, match="full"), thread.running():
        thread.save([], disk.write, waits=False)


def test_another_error_waits_for_the_thread_and_hides_nothing(disk: Disk, caplog: pytest.LogCaptureFixture) -> None:
    thread = SaveThread()
    with pytest.raises(ZeroDivisionError), thread.running():  # noqa: PT012 - that is the point
        thread.save([1], disk.write, waits=False)
        threading.Timer(0.05, disk.may_go_on.set).start()
        raise ZeroDivisionError
    assert disk.written == ["[1]"]
    disk.fails = True
    with pytest.raises(ZeroDivisionError), thread.running():  # noqa: PT012
        thread.save([1], disk.write, waits=False)
        raise ZeroDivisionError
    assert [record.getMessage() for record in caplog.records] == ["what was being saved meanwhile was not: full"]


def test_where_there_is_no_memory_for_a_copy_the_training_waits(
    disk: Disk, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    weight, thread = torch.zeros(25 * 10**6), SaveThread()
    caplog.set_level(logging.INFO)
    disk.may_go_on.set()
    with thread.running():
        monkeypatch.setattr(background, "available_memory", lambda: 199_000_000)
        thread.save([weight], disk.write, waits=False)
        thread.save([weight], disk.write, waits=False)
        assert disk.threads == [threading.get_ident()] * 2
        monkeypatch.setattr(background, "available_memory", lambda: 200_000_000)
        thread.save([weight], disk.write, waits=False)
        thread.wait()
        monkeypatch.setattr(background, "available_memory", lambda: 0)
        thread.save([weight], disk.write, waits=False)  # there is the memory of the one before
    assert threading.get_ident() not in disk.threads[2:]
    (said,) = (record.getMessage() for record in caplog.records)
    assert said == "the training waits while it is saved: for a copy, 0.1 GB, there is too little memory (0.2 GB)"
