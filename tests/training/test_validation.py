import math
from typing import Any

import pytest
import tiny_models
import torch
from shares import SIZE, double_objective, make_evaluator, make_images, make_model
from torch import Tensor, nn

from accel_trainer.training.build import make_objective

TWO_VIEWS: dict[str, Any] = {"num_views": 2, "criterion": "SimCLRLoss", "primary_metric": "contrastive_acc"}
CLIPS: dict[str, Any] = {"video": True, "num_views": 3}


@pytest.mark.parametrize(
    ("given", "world_size", "images_per_batch", "examples_per_forward"),
    [
        # As many images in a forward pass as in one of training, of a micro-batch.
        ({"batch_size": 48}, 1, 48, 48),
        ({"batch_size": 48}, 4, 12, 12),
        ({"batch_size": 48, "gradient_accumulation": 2}, 4, 6, 6),
        ({"batch_size": 48, "gradient_accumulation": 4}, 1, 12, 12),
        ({"batch_size": 48, "gradient_accumulation": 2, **CLIPS}, 2, 4, 4),
        # By the first rules, all micro-batches of a step: last bits of the loss depend on it.
        ({"batch_size": 48, "gradient_accumulation": 4, "rules": 1}, 1, 48, 48),
        ({"batch_size": 48, **TWO_VIEWS, "gradient_accumulation": 3, "rules": 1}, 2, 8, 24),
        ({"batch_size": 48, "num_views": 2}, 2, 24, 24),
        ({"batch_size": 48, **CLIPS}, 2, 8, 8),
        ({"batch_size": 48, "video": True, "Blur": {"sigmas": [4, 0], "probs": [1, 1]}}, 2, 24, 24),
        # What is compared is as many images as in a forward pass of all processes, whoever has them.
        ({"batch_size": 48, **TWO_VIEWS}, 1, 24, 48),
        ({"batch_size": 48, **TWO_VIEWS}, 4, 24, 12),
        ({"batch_size": 48, **TWO_VIEWS, "gradient_accumulation": 3}, 2, 8, 8),
    ],
    ids=str,
)
def test_a_validation_shows_as_many_images_at_once_as_training_does(
    given: dict[str, Any], world_size: int, images_per_batch: int, examples_per_forward: int
) -> None:
    _, own = make_images(given, world_size)
    assert (own.val.images_per_batch, own.val.examples_per_forward) == (images_per_batch, examples_per_forward)
    batch = own.val.reader(next(own.val.batches(world_size - 1, world_size)))
    assert len(batch.inputs.on("cpu")) == images_per_batch * (2 if own.val.is_contrastive else 1)


class Counting(nn.Module):
    """Notes how many examples each forward pass has; of a clip it takes the mean."""

    def __init__(self) -> None:
        super().__init__()
        self.model, self.passes = tiny_models.Cycles(4, SIZE), list[int]()

    def forward(self, images: Tensor) -> Tensor:
        self.passes.append(len(images))
        return self.model(images if images.dim() == 4 else images.mean(1))


@pytest.mark.parametrize("given", [{}, CLIPS, {"num_views": 2}, TWO_VIEWS], ids=["images", "clips", "views", "SimCLR"])
@pytest.mark.parametrize("accumulation", [1, 4])
def test_no_forward_pass_of_a_validation_is_larger_than_those_of_training(
    given: dict[str, Any], accumulation: int
) -> None:
    """Nor smaller, but for the last of a batch or of the images. The bank of the neighbors alike."""
    job, own = make_images({"batch_size": 48, **given, "gradient_accumulation": accumulation}, 1)
    model = Counting()
    evaluator = make_evaluator(make_objective(job, 4, 1, cycle_axis=1), 0, 1)
    in_training = len(own.train_reader(next(own.sampling.micro_batches(1, 0))).inputs.on("cpu"))
    assert in_training == (16 if job.video else 48) // accumulation
    for images in (own.val, own.knn.bank):
        model.passes.clear()
        evaluator.measure(model, images, lambda: False)
        assert max(model.passes) == in_training
        each = job.num_views if images.is_contrastive else 1
        assert sum(model.passes) == images.num_images * each
        assert len(model.passes) <= math.ceil(sum(model.passes) / in_training) + 1


def test_what_is_shown_in_several_forward_passes_is_what_is_shown_in_one() -> None:
    job, own = make_images({"batch_size": 48, **TWO_VIEWS}, 1)
    model, objective = make_model(), double_objective(job)
    model.train()

    def measured(examples_per_forward: int) -> torch.Tensor:
        on = type(own.val)(**{**vars(own.val), "examples_per_forward": examples_per_forward})
        evaluator = make_evaluator(objective, 0, 1, prepare=lambda images: images.double())
        return evaluator.measure(model, on, lambda: False)

    torch.testing.assert_close(measured(10), measured(48), rtol=1e-12, atol=0)
    assert not model.training
