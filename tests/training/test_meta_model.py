from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from accel_trainer.config import Job
from accel_trainer.config.rules import changes_for
from accel_trainer.core.errors import UserError
from accel_trainer.training import meta_model as meta_model_module
from accel_trainer.training.meta_model import cycles_of, make_model, meta_model
from accel_trainer.zoo import registry

MakeJob = Callable[..., Job]

pytestmark = pytest.mark.usefixtures("tiny_models")

SMALL: dict[str, Any] = {"features": [32] * 4, "num_cycles": 4}


@pytest.mark.parametrize(
    "given",
    [
        {"architecture": "tiny_models:NormAndDropout"},
        {"architecture": "shufflenet_v2_x0_5"},
        {"architecture": "cornet_rt", "architecture_args": {**SMALL, "return_cycles": "all"}},
    ],
    ids=lambda given: given["architecture"],
)
def test_to_count_its_cycles_changes_neither_a_model_nor_what_is_drawn_next(
    make_job: MakeJob, given: dict[str, Any]
) -> None:
    job = make_job(**given)
    torch.manual_seed(3)
    model = make_model(job, 10)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    places = {name: value.data_ptr() for name, value in model.state_dict().items()}
    drawn = torch.get_rng_state()
    assert cycles_of(job, model, 10) == (4 if "cornet" in job.architecture else 1)
    assert torch.equal(torch.get_rng_state(), drawn)
    after = model.state_dict()
    assert all(torch.equal(value, before[name]) for name, value in after.items())
    assert {name: value.data_ptr() for name, value in after.items()} == places
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())
    assert all(module.training for module in model.modules())


class Noted(TorchDispatchMode):
    """What torch is asked for on the device."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.add(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


def test_to_count_cycles_no_batch_norm_is_computed(make_job: MakeJob, monkeypatch: pytest.MonkeyPatch) -> None:
    job = make_job(architecture="shufflenet_v2_x0_5", image_size=64)
    model = make_model(job, 10)
    with Noted() as fast:
        assert cycles_of(job, model, 10) == 1
    monkeypatch.setattr(meta_model_module, "_NormsByShape", nullcontext)
    with Noted() as whole:
        assert cycles_of(job, model, 10) == 1
    assert "native_batch_norm" in whole.names
    assert fast.names <= whole.names - {"native_batch_norm"} | {"new_empty", "empty_like", "clone"}


@pytest.mark.parametrize("given", [{}, {"affine": False}, {"track_running_stats": False}], ids=str)
@pytest.mark.parametrize("shape", [(2, 6), (2, 6, 5), (2, 6, 5, 4), (2, 6, 3, 5, 4)], ids=len)
def test_a_batch_norm_by_shape_gives_what_it_gives(given: dict[str, Any], shape: tuple[int, ...]) -> None:
    kinds: dict[int, Any] = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}
    with torch.device("meta"), torch.no_grad():
        norm, images = kinds[len(shape)](6, **given), torch.zeros(shape)
        for form in (images, images.transpose(0, -1).contiguous().transpose(0, -1)):
            whole = norm(form)
            with meta_model_module._NormsByShape():
                found = norm(form)
            assert (found.shape, found.stride(), found.dtype) == (whole.shape, whole.stride(), whole.dtype)
        with meta_model_module._NormsByShape(), pytest.raises((ValueError, RuntimeError)):
            norm(torch.zeros(2, 7, *shape[2:]))  # as without it


@pytest.mark.parametrize(
    ("given", "num_cycles"),
    [
        ({"architecture": "squeezenet1_1"}, 1),
        ({"architecture": "regnet_y_400mf"}, 1),
        ({"architecture": "cornet_rt", "architecture_args": SMALL}, 1),
        ({"architecture": "cornet_rt", "architecture_args": {**SMALL, "return_cycles": "all"}}, 4),
        ({"architecture": "cornet_rt", "architecture_args": {**SMALL, "return_cycles": "all", "num_heads": 2}}, 4),
        ({"architecture": "tiny_models:Cycles", "architecture_args": {"num_cycles": 4}}, 4),
        ({"architecture": "cornet_s_plus", "architecture_args": {"F": [8] * 4, "out_channels": 3}}, 3),
        ({"architecture": "cornet_s_plus", "architecture_args": {"F": [8] * 4, "out_channels": 10}}, 10),
    ],
    ids=str,
)
def test_a_model_on_paper_has_as_many_cycles_as_the_real_one(
    make_job: MakeJob, given: dict[str, Any], num_cycles: int
) -> None:
    job = make_job(**given)
    on_paper, cycles = meta_model(job, 10, 8)
    model = make_model(job, 10)
    assert cycles == cycles_of(job, model, 10) == num_cycles
    assert {name: t.shape for name, t in on_paper.state_dict().items()} == {
        name: t.shape for name, t in model.state_dict().items()
    }


@pytest.mark.parametrize("architecture", ["cornet_r", "cornet_rt"])
def test_by_the_first_rules_a_recurrent_cornet_has_the_bits_of_then(make_job: MakeJob, architecture: str) -> None:
    """The constructor drew torch's weights, then Xavier's for the layers in their order."""

    def weights(**given: Any) -> dict[str, torch.Tensor]:
        torch.manual_seed(5)
        return make_model(make_job(architecture=architecture, architecture_args=SMALL, **given), 10).state_dict()

    torch.manual_seed(5)
    expected = registry.build(architecture, SMALL, num_classes=10, image_size=32)
    assert all(torch.equal(value, weights()[name]) for name, value in expected.state_dict().items())
    for layer in expected.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    then = weights(rules=1)
    assert all(torch.equal(value, then[name]) for name, value in expected.state_dict().items())
    (change,) = changes_for(make_job(architecture=architecture, channels_last=False), 1)
    assert "CORnet-R and -RT start with" in change.what
    assert not changes_for(make_job(architecture="cornet_s", channels_last=False), 1)


def test_a_model_of_clips_is_shown_clips(make_job: MakeJob) -> None:
    clips = {"architecture": "cornet_rt", "architecture_args": SMALL, "video": True, "num_views": 3, "batch_size": 48}
    assert meta_model(make_job(**clips), 10, 8)[1] == 1
    with pytest.raises(UserError, match=r"video: squeezenet1_1 does not take clips of 3 frames"):
        meta_model(make_job(**{**clips, "architecture": "squeezenet1_1", "architecture_args": {}}), 10, 8)


def test_embeddings_may_have_any_size_and_logits_may_not(make_job: MakeJob) -> None:
    job = make_job(
        architecture="tiny_models:NormAndDropout",
        architecture_args={"num_classes": 5},
        criterion="SimCLRLoss",
        num_views=2,
        primary_metric="contrastive_acc",
    )
    model = make_model(job, 10)
    assert isinstance(model.decoder, nn.Linear)
    assert (model.decoder.out_features, cycles_of(job, model, 10)) == (5, 1)
    classifying = make_job(architecture="tiny_models:NormAndDropout")
    with pytest.raises(UserError, match="gives 5 logits, but there are 10 classes"):
        cycles_of(classifying, model, 10)
