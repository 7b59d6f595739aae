"""Two processes come to what one comes to, with the parts of batches that a training gives them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ranks import run_two_ranks
from shares import double_objective, gradient, make_evaluator, make_images, make_model, neighbours
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor

from accel_trainer.config.parameters import CONTRASTIVE
from accel_trainer.data.batch_plan import BatchPlan
from accel_trainer.data.loader import Batch
from accel_trainer.training.objectives.base import percent

WEIGHT = [0.5, 1.0, 2.0, 0.25]
TWO_VIEWS: dict[str, Any] = {"num_views": 2, "primary_metric": "contrastive_acc"}
JOBS: dict[str, dict[str, Any]] = {
    "class weights and label smoothing": {"criterion_args": {"weight": WEIGHT, "label_smoothing": 0.1}},
    "mixed labels": {"cutmix": True, "mixup": True, "criterion_args": {"weight": WEIGHT}},
    "mixed labels of views": {"cutmix": True, "num_views": 2},
    "soft targets": {"criterion": "BCEWithLogitsLoss", "mixup": True, "criterion_args": {"pos_weight": WEIGHT}},
    "all cycles": {"loss_cycle": "uniform", "criterion_args": {"weight": WEIGHT}},
    "the first cycle": {"loss_cycle": 0, "mixup": True},
    "SimCLR": {**TWO_VIEWS, "criterion": "SimCLRLoss"},
    "SupCon": {**TWO_VIEWS, "criterion": "SupConLoss", "criterion_args": {"contrast_mode": "one"}},
    "SimCLR of all cycles": {**TWO_VIEWS, "criterion": "SimCLRLoss", "loss_cycle": "uniform"},
}
CASES = {
    (name, accumulation): {**given, "gradient_accumulation": accumulation}
    for name, given in JOBS.items()
    for accumulation in (1, 2)
}

ON_TWO = f"""
import json
sys.path.insert(0, {str(Path(__file__).parent.parent)!r})
from shares import gradient, neighbours

gradients = [gradient(case, rank, 2) for case in json.loads(CASES)]
torch.save({{"gradients": gradients, "neighbours": neighbours(rank, 2)}}, f"{{folder}}/{{rank}}.pt")
"""


@pytest.fixture(scope="module")
def on_two(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of two processes has found: of all tests at once, since they take long to begin."""
    folder = tmp_path_factory.mktemp("ranks")
    run_two_ranks(f"CASES = {json.dumps(list(CASES.values()))!r}\n{ON_TWO}", folder)
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]} x{case[1]}")
def test_two_processes_have_the_gradient_of_one(on_two: list[dict[str, Any]], case: tuple[str, int]) -> None:
    number = list(CASES).index(case)
    ours, others = (rank["gradients"][number] for rank in on_two)
    alone = gradient(CASES[case], 0, 1)
    assert alone.norm() > 1e-3
    torch.testing.assert_close(ours, alone, rtol=0, atol=1e-10)
    torch.testing.assert_close(others, ours, rtol=0, atol=0)


@pytest.mark.parametrize("name", JOBS)
def test_micro_batches_add_up_to_the_gradient_of_the_whole_batch(name: str) -> None:
    """Not so where views are compared: only those of a micro-batch are."""
    whole, parts = (gradient(CASES[name, accumulation], 0, 1) for accumulation in (1, 2))
    if JOBS[name].get("criterion") in CONTRASTIVE:
        assert (parts - whole).norm() > 1e-3 * whole.norm()
    else:
        torch.testing.assert_close(parts, whole, rtol=0, atol=1e-10)


# -- nearest neighbours -----------------------------------------------------------------------------------------------


def pixels_and_labels(on: Any) -> tuple[np.ndarray, np.ndarray]:
    everything = np.arange(on.num_images)
    batch = on.reader(BatchPlan(0, 0, everything, everything))
    return batch.inputs.on("cpu").flatten(1).numpy(), batch.labels.numpy()


def test_the_test_by_neighbours_is_scikit_learns_on_any_number_of_processes(on_two: list[dict[str, Any]]) -> None:
    """Bank and queries are shared out, the bank of an odd number: one process has one more than the other."""
    job, own = make_images({"class_subset": None, "batch_size": 128}, 1)
    test = own.knn
    (bank, bank_labels), (images, labels) = pixels_and_labels(test.bank), pixels_and_labels(test.val)
    reference = KNeighborsClassifier(
        job.knn_neighbours, metric="cosine", algorithm="brute", weights=lambda distances: np.exp((1 - distances) / 0.07)
    )
    expected = int((reference.fit(bank, bank_labels).predict(images) == labels).sum())
    assert expected < len(labels)
    alone = neighbours(0, 1)
    assert len(bank) % 2
    assert np.array_equal(alone["features"].numpy(), images)
    assert np.array_equal(alone["labels"].numpy(), labels)
    assert alone["hits"].tolist() == [expected, len(labels)]
    shares = [rank["neighbours"] for rank in on_two]
    assert [len(share["labels"]) for share in shares] == [len(labels[::2]), len(labels[1::2])]
    together: Tensor = sum(share["hits"] for share in shares)
    assert together.tolist() == [expected, len(labels)]
    assert test.scores(together.tolist()) == {"knn": percent(expected, len(labels))}


# -- validation of a loss that compares -------------------------------------------------------------------------------

SIMCLR: dict[str, Any] = {**TWO_VIEWS, "criterion": "SimCLRLoss", "batch_size": 24, "transform_type": "contrastive"}


def contrastive_validation(rank: int, world_size: int) -> tuple[Tensor, list[Batch], list[int]]:
    """This process's sums, the batches that it has seen, and the images in them."""
    job, own = make_images(SIMCLR, world_size)
    read, batches, indices = own.val.reader, list[Batch](), list[int]()

    def watched(plan: BatchPlan) -> Batch:
        indices.extend(plan.indices.tolist())
        batches.append(read(plan))
        return batches[-1]

    watched.views = read.views  # type: ignore[attr-defined]
    objective = double_objective(job)
    evaluator = make_evaluator(objective, rank, world_size, prepare=lambda images: images.double())
    on = type(own.val)(**{**vars(own.val), "reader": watched})
    return evaluator.measure(make_model(), on, lambda: False), batches, indices


@pytest.mark.parametrize("world_size", [2, 3, 4])
def test_a_contrastive_validation_is_the_same_on_any_number_of_processes(world_size: int) -> None:
    alone, _, all_indices = contrastive_validation(0, 1)
    ranks = [contrastive_validation(rank, world_size) for rank in range(world_size)]
    torch.testing.assert_close(sum(sums for sums, _, _ in ranks), alone, rtol=1e-12, atol=0)
    assert sorted(index for _, _, indices in ranks for index in indices) == sorted(all_indices)
    num_images = make_images(SIMCLR, 1)[1].val.num_images
    assert sorted(all_indices) == list(range(num_images))
    assert alone[1] == 2 * num_images


def test_a_contrastive_validation_has_the_same_different_views_in_every_epoch() -> None:
    (sums, batches, _), (again, others, _) = contrastive_validation(0, 1), contrastive_validation(0, 1)
    assert torch.equal(sums, again)
    for batch, other in zip(batches, others, strict=True):
        images = batch.inputs.on("cpu")
        assert torch.equal(images, other.inputs.on("cpu"))
        assert ((images[::2] - images[1::2]).flatten(1).abs().amax(1) > 0.01).all()
        assert torch.equal(batch.labels[::2], batch.labels[1::2])
