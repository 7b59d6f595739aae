import threading

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from accel_trainer.data import shared_work
from accel_trainer.data.augment.geometry import RandomResizedCrop
from accel_trainer.data.batch_plan import TrainBatchPlanner
from accel_trainer.data.loader import READY_AHEAD, ImageReader, Loader
from accel_trainer.data.shared_work import Buffers
from accel_trainer.data.sources.digits import Digits
from accel_trainer.data.views import Augmentations, Views

SHAPE = (4, 3, 300, 300)


@pytest.fixture
def own() -> Buffers:
    return Buffers()


def place(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_a_buffer_is_like_any_tensor(own: Buffers, dtype: torch.dtype) -> None:
    for _ in range(2):  # new and used
        tensor = own.empty((8, *SHAPE[1:]), dtype)
        assert tensor.shape == (8, *SHAPE[1:])
        assert tensor.dtype == dtype
        assert tensor.is_contiguous()
        assert place(tensor) % 64 == 0  # as torch's own: the last bits of a product may depend on it
        del tensor


def test_memory_is_used_again_when_nobody_uses_it(own: Buffers) -> None:
    first = own.empty(SHAPE, torch.float32)
    where = place(first)
    del first
    assert place(own.empty(SHAPE, torch.float32)) == where


def test_memory_is_not_used_again_while_a_part_of_it_is(own: Buffers) -> None:
    whole = own.empty(SHAPE, torch.float32)
    where, part = place(whole), whole[2:3].flatten()
    del whole
    other = own.empty(SHAPE, torch.float32)
    assert place(other) != where
    del part
    assert place(own.empty(SHAPE, torch.float32)) == where


def test_memory_that_a_backward_pass_needs_is_kept_for_it(own: Buffers) -> None:
    weight = torch.ones(2, 3, 3, 3, requires_grad=True)
    images = own.empty(SHAPE, torch.float32).fill_(1)
    loss = F.conv2d(images, weight).sum()
    del images
    own.empty(SHAPE, torch.float32).fill_(100)
    loss.backward()
    assert weight.grad is not None
    torch.testing.assert_close(weight.grad, torch.full_like(weight, 4.0 * 298 * 298))


def test_other_sizes_take_the_place_of_spare_memory(own: Buffers) -> None:
    for number in range(20):
        own.empty((4 + number, *SHAPE[1:]), torch.float32)
        assert len(own._spare) <= 1


def test_in_a_process_that_uses_cuda_torch_is_asked_for_pinned_memory(
    own: Buffers, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(shared_work.torch, "empty", lambda shape, **more: asked.append((shape, more)))
    own.empty(SHAPE, torch.uint8)
    assert asked == [(SHAPE, {"dtype": torch.uint8, "pin_memory": True})]


def test_threads_never_share_memory_for_their_batches(own: Buffers) -> None:
    wrong = []

    def use(mark: int) -> None:
        for _ in range(50):
            tensor = own.empty((1, 3, 600, 600), torch.uint8).fill_(mark)
            if not (tensor == mark).all():
                wrong.append(mark)

    threads = [threading.Thread(target=use, args=(mark,)) for mark in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert len(own._spare) <= 2 * len(threads)  # the next one is there before the last one goes


@pytest.mark.parametrize("num_threads", [0, 1, 3])
def test_memory_does_not_grow_with_the_epochs(monkeypatch: pytest.MonkeyPatch, num_threads: int) -> None:
    """New memory is asked for once for each batch that can be under way."""
    made = []
    real = torch.empty
    monkeypatch.setattr(
        shared_work.torch, "empty", lambda *words, **more: (made.append(words), real(*words, **more))[1]
    )
    source = Digits("train")
    read = ImageReader(source, Views(Augmentations(RandomResizedCrop(48))), replace_corrupt=True)
    sampling = TrainBatchPlanner(len(source.labels), 64, accumulation=1, world_size=1, seed=0)
    with Loader(num_threads) as loader:
        for epoch in range(3):
            for batch in loader.batches(read, sampling.micro_batches(epoch, rank=0)):
                assert batch.inputs.images.isfinite().all()
    assert 1 <= len(made) <= READY_AHEAD + 4  # with the one that is looked at, and one that a thread has not let go yet


def test_a_batch_that_is_kept_stays_as_it_was() -> None:
    source = Digits("train")
    read = ImageReader(source, Views(Augmentations(RandomResizedCrop(48))), replace_corrupt=True)
    sampling = TrainBatchPlanner(len(source.labels), 64, accumulation=1, world_size=1, seed=0)
    with Loader(2) as loader:
        kept = list(loader.batches(read, sampling.micro_batches(1, rank=0)))
    for batch, plan in zip(kept, sampling.micro_batches(1, rank=0), strict=True):
        assert torch.equal(batch.inputs.images, read(plan).inputs.images)
    assert len({place(batch.inputs.images) for batch in kept}) == len(kept)
    assert np.isfinite(kept[0].inputs.images.numpy()).all()


def test_released_memory_is_not_kept_even_when_it_comes_back_later(own: Buffers) -> None:
    used, spare = own.empty(SHAPE, torch.float32), own.empty(SHAPE, torch.float32)
    del spare
    own.release()
    assert not own._spare
    del used
    assert not own._spare


@pytest.mark.parametrize("num_threads", [0, 2])
def test_a_loader_that_was_left_keeps_no_memory_of_its_batches(num_threads: int) -> None:
    source = Digits("train")
    read = ImageReader(source, Views(Augmentations(RandomResizedCrop(48))), replace_corrupt=True)
    sampling = TrainBatchPlanner(len(source.labels), 64, accumulation=1, world_size=1, seed=0)
    with Loader(num_threads) as loader:
        batches = loader.batches(read, sampling.micro_batches(1, rank=0))
        first, second = next(batches), next(batches)
        del second
        batches.close()
        assert loader._buffers._spare
    assert not loader._buffers._spare
    assert first.inputs.images.isfinite().all()
    del first
    assert not loader._buffers._spare
