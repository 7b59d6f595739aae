"""What one process of several does with its share of a job's images. Models are those of tests/tiny_models.py."""

from collections.abc import Callable
from contextlib import nullcontext
from itertools import islice
from types import SimpleNamespace
from typing import Any

import tiny_models
import torch
from torch import Tensor, nn

from accel_trainer.config import Job
from accel_trainer.data.loader import Loader
from accel_trainer.training.build import TrainingData, make_objective, training_data
from accel_trainer.training.objectives.base import Objective
from accel_trainer.training.validation import Evaluator

SIZE = 8


def make_images(given: dict[str, Any], world_size: int) -> tuple[Job, TrainingData]:
    """The images of a job on four of the digits, whose model is made by who asks."""
    few: dict[str, Any] = {"architecture": "small_cnn", "dataset": "digits", "image_size": SIZE, "trackers": []}
    job = Job.model_validate({**few, "class_subset": [0, 1, 2, 3], "batch_size": 16, **given})
    return job, training_data(job, world_size)


def make_model(num_cycles: int = 1) -> nn.Module:
    """In double precision, with four outputs, the same every time."""
    torch.manual_seed(0)
    return tiny_models.Cycles(4, SIZE, num_cycles).double()


def double_objective(job: Job, num_cycles: int = 1) -> Objective:
    objective = make_objective(job, 4, num_cycles, cycle_axis=1)
    if isinstance(loss := getattr(objective, "_loss", None), nn.Module):
        loss.double()  # class weights
    return objective


def gradient(given: dict[str, Any], rank: int, world_size: int, *, step: int = 1) -> Tensor:
    """All gradients after one step of an epoch, (n,), as the loop and Accelerate make them.

    With several processes each calls it, and they have the same."""
    job, own = make_images(given, world_size)
    num_cycles = 3 if job.loss_cycle is not None else 1
    model, objective = make_model(num_cycles), double_objective(job, num_cycles)
    shared = nn.parallel.DistributedDataParallel(model) if world_size > 1 else None
    accumulation = own.sampling.accumulation
    plans = islice(own.sampling.micro_batches(1, rank, first_step=step), accumulation)
    for number, plan in enumerate(plans, start=1):
        batch = own.train_reader(plan)
        is_last = number == accumulation
        with nullcontext() if shared is None or is_last else shared.no_sync():
            output = (shared or model)(batch.inputs.on("cpu").double())
            judged = objective.compute(output, batch, is_shared=True)
            (judged.loss * (world_size * accumulation) / accumulation).backward()
    return torch.cat([parameter.grad.flatten() for parameter in model.parameters() if parameter.grad is not None])


def make_evaluator(
    objective: Objective, rank: int, world_size: int, prepare: Callable[[Tensor], Tensor] = lambda images: images
) -> Evaluator:
    accelerator: Any = SimpleNamespace(
        device=torch.device("cpu"), process_index=rank, num_processes=world_size, autocast=nullcontext
    )
    return Evaluator(accelerator, Loader(0), objective, prepare)


def neighbours(rank: int, world_size: int) -> dict[str, Tensor]:
    """The images themselves as their representation: this process's share of the queries, and its hits."""
    job, own = make_images({"class_subset": None, "batch_size": 128}, world_size)
    torch.manual_seed(0)
    model = tiny_models.Pixels(10, SIZE)
    evaluator = make_evaluator(make_objective(job, 10, 1, cycle_axis=1), rank, world_size)
    features, labels = own.knn.queries(model, evaluator, lambda: False)
    hits = own.knn.hits(model, (features, labels), evaluator, lambda: False)
    return {"features": features, "labels": labels, "hits": hits}
