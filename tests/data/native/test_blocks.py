"""Memory for images that are read together is used again, but never while somebody still has it."""

import numpy as np

from accel_trainer.data.native.images import TOGETHER, Blocks, Images


def test_memory_is_used_again_when_nobody_has_it() -> None:
    blocks = Blocks()
    places = set()
    for _ in range(3):
        block = blocks.empty(1000)
        places.add(block.__array_interface__["data"][0])
        del block
    assert len(places) == 1


def test_memory_that_an_image_of_it_still_uses_is_not_given_to_others() -> None:
    blocks = Blocks()
    block = blocks.empty(12)
    block[:] = np.arange(12)
    each = np.array([2])
    image = Images.packed(block, np.array([0]), each, each)[0]
    before, part = image.clone(), block[3:5]
    del block
    blocks.empty(12)[:] = 99
    assert image.equal(before)
    del image
    blocks.empty(12)[:] = 99
    assert part.tolist() == [3, 4]


def test_more_than_is_read_together_is_possible() -> None:
    assert len(Blocks().empty(TOGETHER + 1)) == TOGETHER + 1
