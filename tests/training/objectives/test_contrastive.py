"""Contrastive losses are those of the papers, and stay so when a batch is cut over processes."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from ranks import run_two_ranks
from torch import Tensor, nn

from accel_trainer.core.errors import UserError
from accel_trainer.training.knn import capture_representation
from accel_trainer.training.objectives.contrastive import ContrastiveLoss, ContrastiveSums, contrastive_losses
from accel_trainer.zoo import registry

LABELS = torch.tensor([0, 1, 0, 2, 1, 1])


def sums(loss: ContrastiveLoss, embeddings: Tensor, labels: Tensor | None = None, *, views: int = 2) -> ContrastiveSums:
    """Of a batch in one process. labels: of images."""
    images = torch.zeros(len(embeddings) // views, dtype=torch.int64) if labels is None else labels
    ids = loss.ids(images.repeat_interleave(views), views)
    return loss(embeddings, ids, embeddings, ids, first=0, views=views)


def mean(loss: ContrastiveLoss, embeddings: Tensor, labels: Tensor | None = None, *, views: int = 2) -> Tensor:
    result = sums(loss, embeddings, labels, views=views)
    return result.loss_sum / result.num_anchors


def some_embeddings(images: int, views: int, *, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(images * views, 5, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def as_in_the_papers(embeddings: Tensor, ids: list[int], temperature: float, anchors: range) -> float:
    """Equation 1 of Chen et al. 2020 and equation 2 of Khosla et al. 2020, one number at a time."""
    z = [[x / math.sqrt(sum(y * y for y in row)) for x in row] for row in embeddings.tolist()]
    rows = range(len(z))
    losses = []
    for i in anchors:
        exponentials = {
            a: math.exp(sum(x * y for x, y in zip(z[i], z[a], strict=True)) / temperature) for a in rows if a != i
        }
        positives = [p for p in rows if p != i and ids[p] == ids[i]]
        if positives:
            denominator = sum(exponentials.values())
            losses.append(-sum(math.log(exponentials[p] / denominator) for p in positives) / len(positives))
    return sum(losses) / len(losses)


# -- closed forms -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("images", [2, 5, 64])
@pytest.mark.parametrize("temperature", [0.01, 0.07, 1.0])
def test_constant_features_are_a_guess_among_all_others(images: int, temperature: float) -> None:
    loss = ContrastiveLoss("SimCLRLoss", {"temperature": temperature})
    value = mean(loss, torch.full((2 * images, 3), 0.7))
    assert value.item() == pytest.approx(math.log(2 * images - 1), rel=1e-5)


@pytest.mark.parametrize("images", [2, 5, 64])
@pytest.mark.parametrize("temperature", [0.01, 0.07, 1.0])
@pytest.mark.parametrize("criterion", ["SimCLRLoss", "SupConLoss"])
def test_perfect_pairs_of_orthogonal_images_have_the_least_loss(
    criterion: str, images: int, temperature: float
) -> None:
    pairs = 3 * torch.eye(images, dtype=torch.float64).repeat_interleave(2, 0)
    result = sums(ContrastiveLoss(criterion, {"temperature": temperature}), pairs, torch.arange(images))
    expected = math.log1p((2 * images - 2) * math.exp(-1 / temperature))
    assert (result.loss_sum / result.num_anchors).item() == pytest.approx(expected, rel=1e-9, abs=1e-12)
    assert result.num_hits == result.num_anchors == 2 * images


# -- the papers -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("views", [2, 3])
@pytest.mark.parametrize("temperature", [0.05, 0.5])
@pytest.mark.parametrize("mode", ["all", "one"])
@pytest.mark.parametrize("criterion", ["SimCLRLoss", "SupConLoss"])
def test_the_loss_is_that_of_the_papers(criterion: str, mode: str, temperature: float, views: int) -> None:
    loss = ContrastiveLoss(criterion, {"temperature": temperature, "contrast_mode": mode})
    embeddings = some_embeddings(len(LABELS), views)
    images = LABELS.tolist() if criterion == "SupConLoss" else list(range(len(LABELS)))
    ids = [image for image in images for _ in range(views)]
    anchors = range(0, len(ids), views if mode == "one" else 1)
    expected = as_in_the_papers(embeddings, ids, temperature, anchors)
    assert mean(loss, embeddings, LABELS, views=views).item() == pytest.approx(expected, rel=1e-12)
    assert sums(loss, embeddings, LABELS, views=views).num_anchors == len(anchors)


@pytest.mark.parametrize("views", [2, 3])
def test_supervised_with_a_class_for_each_image_is_simclr(views: int) -> None:
    embeddings = some_embeddings(6, views)
    simclr, supcon = ContrastiveLoss("SimCLRLoss", {}), ContrastiveLoss("SupConLoss", {})
    unlike = sums(supcon, embeddings, torch.arange(6) * 7 + 3, views=views)
    torch.testing.assert_close(unlike, sums(simclr, embeddings, views=views), rtol=1e-14, atol=0)


def test_the_base_temperature_scales_the_loss() -> None:
    embeddings = some_embeddings(6, 2)
    plain = ContrastiveLoss("SupConLoss", {"temperature": 0.1})
    scaled = ContrastiveLoss("SupConLoss", {"temperature": 0.1, "base_temperature": 0.4})
    torch.testing.assert_close(mean(scaled, embeddings, LABELS), mean(plain, embeddings, LABELS) / 4)


def test_the_default_temperature_is_007_as_published() -> None:
    embeddings = some_embeddings(6, 2)
    explicit = ContrastiveLoss("SimCLRLoss", {"temperature": 0.07, "contrast_mode": "all"})
    assert mean(ContrastiveLoss("SimCLRLoss", {}), embeddings) == mean(explicit, embeddings)


def test_the_gradient_equals_that_of_finite_differences() -> None:
    for criterion in ("SimCLRLoss", "SupConLoss"):
        loss = ContrastiveLoss(criterion, {"temperature": 0.3})
        embeddings = some_embeddings(6, 3).requires_grad_()
        assert torch.autograd.gradcheck(lambda x, loss=loss: mean(loss, x, LABELS, views=3), embeddings)


# -- anchors without a positive ---------------------------------------------------------------------------------------


def test_an_anchor_without_positives_is_not_counted_but_is_a_negative_of_others() -> None:
    embeddings = some_embeddings(6, 1).requires_grad_()
    loss = ContrastiveLoss("SupConLoss", {})
    result = sums(loss, embeddings, LABELS, views=1)  # class 2 has one image
    assert result.num_anchors == 5
    assert loss.count(LABELS, 1) == 5
    expected = as_in_the_papers(embeddings.detach(), LABELS.tolist(), 0.07, range(6))
    assert (result.loss_sum / result.num_anchors).item() == pytest.approx(expected, rel=1e-12)
    (gradient,) = torch.autograd.grad(result.loss_sum, embeddings)
    assert gradient[3].abs().max() > 0


@pytest.mark.parametrize("rows", [1, 4])
def test_a_batch_without_any_positive_has_neither_loss_nor_gradient(rows: int) -> None:
    embeddings = some_embeddings(rows, 1).requires_grad_()
    result = sums(ContrastiveLoss("SupConLoss", {}), embeddings, torch.arange(rows), views=1)
    (gradient,) = torch.autograd.grad(result.loss_sum, embeddings)
    assert (result.loss_sum, result.num_anchors, result.num_hits) == (0, 0, 0)
    assert torch.equal(gradient, torch.zeros_like(gradient))


@pytest.mark.parametrize("views", [2, 3])
@pytest.mark.parametrize("criterion", ["SimCLRLoss", "SupConLoss"])
def test_views_of_a_single_image_count_neither_as_right_nor_as_wrong(criterion: str, views: int) -> None:
    """The softmax over one other view is 1, whatever the model: a loss of 0, and always right."""
    loss = ContrastiveLoss(criterion, {})
    embeddings = some_embeddings(1, views).requires_grad_()
    result = sums(loss, embeddings, torch.tensor([3]), views=views)
    assert (result.loss_sum, result.num_anchors, result.num_hits) == (0, 0, 0)
    assert loss.count(loss.ids(torch.tensor([3]).repeat_interleave(views), views), views) == 0
    (gradient,) = torch.autograd.grad(result.loss_sum, embeddings)
    assert torch.equal(gradient, torch.zeros_like(gradient))


@pytest.mark.parametrize("views", [1, 2])
def test_a_batch_of_one_class_has_the_loss_of_the_paper_and_not_0(views: int) -> None:
    embeddings, labels = some_embeddings(4, views), torch.full((4,), 2)
    value = mean(ContrastiveLoss("SupConLoss", {}), embeddings, labels, views=views).item()
    assert value == pytest.approx(as_in_the_papers(embeddings, [2] * 4 * views, 0.07, range(4 * views)), rel=1e-12)
    assert value >= math.log(4 * views - 1) > 1


@pytest.mark.parametrize("mode", ["all", "one"])
def test_the_number_of_anchors_of_a_batch_is_that_of_its_parts(mode: str) -> None:
    generator = torch.Generator().manual_seed(0)
    loss = ContrastiveLoss("SupConLoss", {"contrast_mode": mode})
    for views in (1, 2, 3):
        ids = torch.randint(0, 12, (8,), generator=generator).repeat_interleave(views)
        embeddings = some_embeddings(8, views)
        halves = [slice(0, 4 * views), slice(4 * views, None)]
        parts = [
            loss(embeddings[half], ids[half], embeddings, ids, first=half.start, views=views).num_anchors
            for half in halves
        ]
        assert loss.count(ids, views) == sum(parts)


# -- numbers ----------------------------------------------------------------------------------------------------------


def test_a_small_temperature_is_safe_in_single_precision() -> None:
    exact = some_embeddings(64, 2)
    loss = ContrastiveLoss("SimCLRLoss", {"temperature": 0.01})
    embeddings = exact.float().requires_grad_()
    value = mean(loss, embeddings)
    (gradient,) = torch.autograd.grad(value, embeddings)
    assert torch.isfinite(gradient).all()
    torch.testing.assert_close(value.double(), mean(loss, exact), rtol=1e-5, atol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_logits_have_full_precision_under_autocast_and_of_low_embeddings(dtype: torch.dtype) -> None:
    low = some_embeddings(8, 2).to(dtype)
    loss = ContrastiveLoss("SimCLRLoss", {})
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = sums(loss, low).loss_sum
    assert value.dtype == torch.float32
    torch.testing.assert_close(value.double(), sums(loss, low.double()).loss_sum, rtol=1e-5, atol=0)


def test_embeddings_may_have_any_length_and_shape() -> None:
    embeddings = some_embeddings(6, 2)
    loss = ContrastiveLoss("SimCLRLoss", {})
    longer = embeddings * torch.linspace(0.1, 40, 12, dtype=torch.float64)[:, None]
    torch.testing.assert_close(mean(loss, longer.reshape(12, 1, 5, 1)), mean(loss, embeddings))


def test_hits_are_anchors_whose_most_similar_other_row_is_a_positive() -> None:
    angles = torch.tensor([0.0, 10.0, 13.0, 80.0, 170.0, 171.0]).deg2rad()
    rows = torch.stack([angles.cos(), angles.sin()], 1)
    ids = torch.tensor([0, 0, 1, 1, 2, 2])
    scores = contrastive_losses(rows, rows, ids, ids, 0, temperature=0.1)
    assert scores.hits.tolist() == [True, False, False, True, True, True]
    part = contrastive_losses(rows[2:4], rows, ids[2:4], ids, 2, temperature=0.1)
    torch.testing.assert_close(part.losses, scores.losses[2:4])
    assert part.hits.tolist() == [False, True]


# -- mistakes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("criterion", "args", "said"),
    [
        (
            "SimCLRLoss",
            {"temperatur": 0.1},
            "criterion_args.temperatur: SimCLRLoss takes no such argument; did you mean 'temperature'",
        ),
        ("SupConLoss", {"margin": 1}, "it takes temperature, base_temperature, contrast_mode"),
        ("SimCLRLoss", {"temperature": 0}, "criterion_args: SimCLRLoss: temperature: 0 is not a number above 0"),
        ("SimCLRLoss", {"temperature": "cold"}, "temperature: 'cold' is not a number above 0"),
        ("SimCLRLoss", {"temperature": True}, "temperature: True is not a number above 0"),
        ("SimCLRLoss", {"temperature": None}, "temperature: None is not a number above 0"),
        ("SimCLRLoss", {"temperature": math.inf}, "temperature: inf is not a number above 0"),
        ("SupConLoss", {"base_temperature": -1}, "base_temperature: -1 is not a number above 0"),
        ("SupConLoss", {"contrast_mode": "two"}, "contrast_mode: 'two' is not one of all, one"),
        ("SimCLR", {}, "criterion: 'SimCLR' cannot be used here; did you mean 'SimCLRLoss'?"),
    ],
)
def test_a_loss_that_cannot_be_constructed_is_reported(criterion: str, args: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError) as caught:
        ContrastiveLoss(criterion, args)
    assert said in str(caught.value)


# -- several processes ------------------------------------------------------------------------------------------------

# criterion, criterion_args, views, labels of eight images, of which each process has four. Of the last, the processes
# count different numbers of anchors.
CASES: list[tuple[str, dict[str, Any], int, list[int]]] = [
    ("SimCLRLoss", {"temperature": 0.2}, 2, [0] * 8),
    ("SimCLRLoss", {"temperature": 0.2}, 3, [0] * 8),
    ("SupConLoss", {}, 2, [0, 1, 2, 0, 1, 3, 0, 0]),
    ("SupConLoss", {"base_temperature": 1}, 3, [0, 1, 2, 0, 1, 3, 0, 0]),
    ("SupConLoss", {"contrast_mode": "one"}, 2, [0, 1, 2, 0, 1, 3, 0, 0]),
    ("SupConLoss", {}, 1, [0, 1, 2, 0, 1, 3, 0, 0]),
]

COMMON = """
import json
import torch
import torch.distributed as dist
from torch import nn
from accel_trainer.training.objectives.contrastive import ContrastiveLoss
from accel_trainer.training.runtime.ranks import gather_rows

def make_model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 4)).double()

def images_and_labels(views, labels):
    images = torch.randn(8 * views, 6, generator=torch.Generator().manual_seed(views), dtype=torch.float64)
    return images, torch.tensor(labels).repeat_interleave(views)

def gradient_of(model):
    return torch.cat([parameter.grad.flatten() for parameter in model.parameters()])

def gather_without_gradient(rows):
    parts = [torch.empty_like(rows) for _ in range(2)]
    dist.all_gather(parts, rows.detach())
    return torch.cat(parts)
"""

ON_TWO = """
def distributed_gradient(gather, criterion, args, views, labels):
    model = nn.parallel.DistributedDataParallel(make_model())
    images, labels = images_and_labels(views, labels)
    n = 4 * views
    loss = ContrastiveLoss(criterion, args)
    embeddings = model(images[rank * n : (rank + 1) * n])
    all_ids = loss.ids(gather_rows(labels[rank * n : (rank + 1) * n]), views)
    ids = all_ids[rank * n : (rank + 1) * n]
    sums = loss(embeddings, ids, gather(embeddings), all_ids, first=rank * n, views=views)
    (2 * sums.loss_sum / loss.count(all_ids, views)).backward()
    return gradient_of(model)

gradients = [
    [distributed_gradient(gather, *case) for gather in (gather_rows, gather_without_gradient)]
    for case in json.loads(CASES)
]
torch.save(gradients, f"{folder}/{rank}.pt")
"""


def test_two_processes_have_the_gradient_of_one_with_the_same_global_batch(tmp_path: Path) -> None:
    """And would not without the gradient of the gathered rows: the comparison can fail."""
    run_two_ranks(f"{COMMON}\nCASES = {json.dumps(CASES)!r}\n{ON_TWO}", tmp_path)
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    common: dict[str, Any] = {}
    exec(COMMON, common)
    for (criterion, args, views, labels), ours, others in zip(CASES, first, second, strict=True):
        model = common["make_model"]()
        images, all_labels = common["images_and_labels"](views, labels)
        loss = ContrastiveLoss(criterion, args)
        ids, embeddings = loss.ids(all_labels, views), model(images)
        result = loss(embeddings, ids, embeddings, ids, first=0, views=views)
        (result.loss_sum / result.num_anchors).backward()
        expected = common["gradient_of"](model)
        exact, naive = ours
        torch.testing.assert_close(exact, others[0], rtol=0, atol=1e-10)
        torch.testing.assert_close(exact, expected, rtol=0, atol=1e-10)
        assert (naive - expected).norm() > 0.01 * expected.norm()


# -- representations --------------------------------------------------------------------------------------------------


def last_layer(model: nn.Module) -> nn.Module:
    return [module for module in model.modules() if isinstance(module, nn.Linear)][-1]


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "vit_b_32"])
def test_the_representation_of_torchvisions_models_goes_into_their_output_layer(name: str) -> None:
    model = registry.build(name, {}, num_classes=7, image_size=32).eval()
    with torch.inference_mode(), capture_representation(model) as recorder:
        logits = model(torch.rand(2, 3, 32, 32))
        features = recorder.take()
        assert features.dtype == torch.float32
        torch.testing.assert_close(last_layer(model)(features), logits)


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("cornet_z", {}),
        ("cornet_s", {"head_depth": 2}),
        ("small_cnn", {"head_depth": 3, "head_units": 9}),
        ("cornet_rt", {"return_cycles": "all", "num_heads": 2}),
        ("blt_blt", {}),
    ],
)
def test_the_representation_of_the_zoos_models_is_pooled_and_of_the_last_cycle(name: str, args: dict[str, Any]) -> None:
    model = registry.build(name, args, num_classes=7, image_size=64).eval()
    with torch.inference_mode(), capture_representation(model) as recorder:
        logits = model(torch.rand(2, 3, 64, 64))
        features = recorder.take()
        if args.get("return_cycles") == "all":
            logits = logits[:, -1, 0]
        assert features.shape == (2, model.decoder.heads[0][0].in_features)
        torch.testing.assert_close(model.decoder.heads[0](features), logits)


def test_representations_of_convolutional_outputs_are_averaged_over_positions() -> None:
    model = registry.build("squeezenet1_1", {}, num_classes=7, image_size=64).eval()
    images = torch.rand(2, 3, 64, 64)
    with torch.inference_mode(), capture_representation(model) as recorder:
        model(images)
        torch.testing.assert_close(recorder.take(), model.features(images).mean((2, 3)))


def test_the_representation_of_a_layer_for_each_position_is_averaged_over_positions() -> None:
    model = nn.Sequential(nn.Flatten(2), nn.Linear(4, 7))
    inputs = torch.rand(2, 3, 2, 2)
    with capture_representation(model) as recorder:
        model(inputs)
    torch.testing.assert_close(recorder.take(), inputs.flatten(2).mean(1))


def test_a_representation_belongs_to_one_forward_pass_and_no_hook_stays() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).bfloat16()
    with capture_representation(model) as recorder:
        model(torch.rand(5, 3).bfloat16())
        taken = recorder.take()
        assert taken.shape == (5, 4)
        assert taken.dtype == torch.float32
        assert not taken.requires_grad
        with pytest.raises(RuntimeError, match="has not been called"):
            recorder.take()
    model(torch.rand(5, 3).bfloat16())
    with pytest.raises(RuntimeError, match="has not been called"):
        recorder.take()


def test_a_model_without_layers_has_no_representation() -> None:
    with (
        pytest.raises(UserError, match="architecture: the model has no linear layer"),
        capture_representation(nn.Flatten()),
    ):
        pass
