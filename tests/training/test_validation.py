from typing import Any

import pytest
import torch
from shares import double_objective, make_evaluator, make_images, make_model

TWO_VIEWS: dict[str, Any] = {"num_views": 2, "criterion": "SimCLRLoss", "primary_metric": "contrastive_acc"}
CLIPS: dict[str, Any] = {"video": True, "num_views": 3}


@pytest.mark.parametrize(
    ("given", "world_size", "images_per_batch", "examples_per_forward"),
    [
        # As many images in a forward pass as a process is shown in a training step, all its micro-batches.
        ({"batch_size": 48}, 1, 48, 48),
        ({"batch_size": 48}, 4, 12, 12),
        ({"batch_size": 48, "gradient_accumulation": 2}, 4, 12, 12),
        ({"batch_size": 48, "num_views": 2}, 2, 24, 24),
        ({"batch_size": 48, **CLIPS}, 2, 8, 8),
        ({"batch_size": 48, "video": True, "Blur": {"sigmas": [4, 0], "probs": [1, 1]}}, 2, 24, 24),
        # What is compared is as many images as in a forward pass of all processes, whoever has them.
        ({"batch_size": 48, **TWO_VIEWS}, 1, 24, 48),
        ({"batch_size": 48, **TWO_VIEWS}, 4, 24, 12),
        ({"batch_size": 48, **TWO_VIEWS, "gradient_accumulation": 3}, 2, 8, 24),
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
