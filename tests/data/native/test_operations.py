"""The kernel's operations of policies give the bytes that torchvision gives."""

from itertools import product
from typing import Any

import numpy as np
import pytest
import torch

from accel_trainer.data.augment import operation_tables
from accel_trainer.data.augment.operation_tables import OperationTables, operates_as_torch, table_of
from accel_trainer.data.augment.policies import AugMix, RandAugment, TrivialAugment, apply_to_all
from accel_trainer.data.native import library, pixels
from accel_trainer.data.native.library import Kernel
from accel_trainer.data.rng.draws import Draws

POLICIES: list[Any] = [RandAugment(), TrivialAugment(), AugMix()]
SIZES = [(1, 1), (1, 9), (9, 1), (2, 5), (3, 3), (17, 33), (64, 64), (8, 8), (16, 32), (40, 131)]
WHOLE = [(64, 64), (8, 8), (16, 32)]


def pictures(height: int, width: int) -> torch.Tensor:
    """Noise, dark noise, few levels, and one level: uint8 (4, 3, height, width)."""
    noise = torch.from_numpy(np.random.default_rng(height + width).integers(0, 256, (3, height, width), dtype=np.uint8))
    return torch.stack([noise, noise // 3, noise // 100 * 90, torch.full_like(noise, 77)])


@pytest.mark.parametrize("policy", POLICIES[:2], ids=["RandAugment", "TrivialAugment"])
@pytest.mark.parametrize("size", SIZES)
def test_every_operation_gives_the_bytes_of_torch(compiled: Kernel, policy: Any, size: tuple[int, int]) -> None:
    for operation, which_bin, sign in product(policy.operations.values(), (0, 4, 9, 20, 22, 30), (1, -1)):
        magnitude = sign * operation.magnitude(which_bin, policy.num_bins, size)
        if magnitude < 0 and not operation.signed:
            continue
        table, images = table_of(operation, magnitude, size), pictures(*size)
        if operation.kind == pixels.CONTRAST and size not in WHOLE:
            assert table is None  # torch rounds what its vectors leave over in another way
            continue
        assert table is not None
        expected = torch.stack([operation.change(image, magnitude) for image in images])
        pixels.operate(compiled, images, np.array([[table.step]] * len(images)))
        assert torch.equal(images, expected), (operation, magnitude)


@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: type(policy).__name__)
@pytest.mark.parametrize("max_bytes", [2**26, 20_000, 0], ids=["all tables", "a few", "none that moves"])
def test_a_policy_alters_images_together_as_one_by_one(
    compiled: Kernel, policy: Any, max_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operation_tables, "_MAX_BYTES", max_bytes)
    monkeypatch.setattr(policy, "_tables", OperationTables(tuple(policy.operations.values()), policy.num_bins))
    monkeypatch.setattr(library, "_loaded", lambda: (compiled, library.COMPILED))
    images = torch.cat([pictures(23, 34)] * 12)
    drawn = policy.draw(Draws(3, 1, 0, np.arange(len(images))))
    expected = torch.stack([policy.apply(image, drawn[row : row + 1]) for row, image in enumerate(images)])
    for _ in range(2):  # with tables that are made, and that are there
        ours = images.clone()
        apply_to_all(policy, ours, policy.prepare(drawn, (23, 34)))
        assert torch.equal(ours, expected)


def test_an_image_whose_sum_is_rounded_is_left_to_torch() -> None:
    contrast = RandAugment().operations["Contrast"]
    assert table_of(contrast, 0.5, (256, 256)) is not None
    assert table_of(contrast, 0.5, (256, 512)) is None


def test_a_kernel_of_other_bytes_is_found_out(compiled: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    assert operates_as_torch.__wrapped__(compiled)
    monkeypatch.setattr(compiled, "operate", lambda *_: 0)
    assert not operates_as_torch.__wrapped__(compiled)


def test_what_would_be_read_or_written_beside_images_is_refused(compiled: Kernel) -> None:
    images = torch.zeros(2, 3, 4, 5, dtype=torch.uint8)
    with pytest.raises(ValueError, match="from nowhere"):
        pixels.moved(np.array([0, 3, 1], np.int32) + 1)
    with pytest.raises(ValueError, match="from nowhere"):
        pixels.moved(np.array([-1], np.int32))
    with pytest.raises(ValueError, match="levels"):
        pixels.by_level(np.zeros(255, np.uint8))
    with pytest.raises(ValueError, match="steps"):
        pixels.operate(compiled, images, np.zeros((1, 1, 2), np.int64))
    with pytest.raises(ValueError, match="contiguous"):
        pixels.operate(compiled, images[:, :, :, :4], np.zeros((2, 1, 2), np.int64))
    with pytest.raises(ValueError, match="contiguous"):
        pixels.operate(compiled, images.float(), np.zeros((2, 1, 2), np.int64))
