"""What a step costs beside the model's own work, counted and not timed.

The meta device has shapes and no values: whatever on the host asks for one, as it would wait for a GPU, is an error
there. So a training on it is a training without host synchronisation; and a copy to it that is not non_blocking would
be waited for on a GPU too.
"""

import gc
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from loops import TINY
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from accel_trainer.config import Job
from accel_trainer.data.augment.geometry import normalize, normalized
from accel_trainer.data.loader import Loader
from accel_trainer.data.occluders.synthetic import make_occluders
from accel_trainer.training import build, failures
from accel_trainer.training.loop import TrainingLoop
from accel_trainer.training.meta_model import make_model
from accel_trainer.training.objectives import contrastive
from accel_trainer.zoo import registry

META = torch.device("meta")
STEPS = 3
# Measured: 35 with torch 2.14.
MOST_KERNELS = 45
# What is done on the device beside the model: for each a job that does it.
ON_DEVICE: dict[str, dict[str, Any]] = {
    "as little as there is": {},
    "BatchNorm and dropout": {"architecture": "tiny_models:NormAndDropout"},
    "Adam": {"optimizer": "AdamW", "optimizer_args": {}},
    "accumulation": {"gradient_accumulation": 4},
    "clipping": {"clip_grad_norm": 1.0},
    "a schedule by step": {"schedule_by": "step", "scheduler": "OneCycleLR", "scheduler_args": {"max_lr": 0.1}},
    "ema": {"ema": 0.9},
    "several cycles": {"architecture_args": {"num_cycles": 3}, "loss_cycle": 1},
    "class weights": {"criterion_args": {"weight": [0.5, 2.0], "label_smoothing": 0.1}},
    "a soft loss": {"criterion": "BCEWithLogitsLoss"},
    "SimCLR": {"criterion": "SimCLRLoss", "num_views": 2, "transform_type": "contrastive"},
    "SupCon": {"criterion": "SupConLoss", "num_views": 2, "transform_type": "contrastive"},
    "mixing": {"mixup": True, "cutmix": True},
    "blur": {"Blur": {"sigmas": [1, 2], "probs": [0.5, 0.3]}},
    "Gaussian noise": {"Noise": {"noise_types": "gaussian", "ssnrs": [0.5], "probs": 1}},
    "Fourier noise": {"Noise": {"noise_types": "fourier", "ssnrs": [0.5], "probs": 0.5}},
    "erasing": {"randomerase": 0.5},
    "channels last": {"channels_last": True},
}


class Copies(TorchDispatchMode):
    """Copies between devices, in this thread, that the host waits for."""

    def __init__(self) -> None:
        super().__init__()
        self.waited_for: list[str] = []
        self.number = 0

    def __torch_dispatch__(self, op, types, args=(), kwargs=None):
        made = op(*args, **(kwargs or {}))
        given = [value for value in args[:2] if isinstance(value, Tensor)]
        if "copy" in str(op) and given and isinstance(made, Tensor) and given[-1].device != made.device:
            self.number += 1
            if not ((kwargs or {}).get("non_blocking") or True in args[2:]):
                self.waited_for.append(f"{op} of {tuple(given[-1].shape)}")
        return made


class Factories(TorchFunctionMode):
    """Tensors of numbers of the host that are made on the device, which no dispatch tells of."""

    def __init__(self) -> None:
        super().__init__()
        self.made: list[str] = []

    def __torch_function__(self, function, types, args=(), kwargs=None):
        device = (kwargs or {}).get("device")
        is_factory = function in (torch.tensor, torch.as_tensor, torch.asarray)
        if is_factory and device is not None and torch.device(device) == META:
            self.made.append(f"{function.__name__} on {device}")
        return function(*args, **(kwargs or {}))


@pytest.fixture
def make_meta_loop(make_loop: Callable[..., TrainingLoop], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Loops whose model and augmentations are on the meta device, and whose images are loaded on the host."""

    def on_meta(*args: Any, make: Callable[..., Any]) -> Any:
        with META:
            return make(*args)

    def augmented_there(*args: Any, make: Callable[..., Any], **given: Any) -> Any:
        return make(*args, **{**given, "augment_on_device": True})

    monkeypatch.setattr(Accelerator, "device", property(lambda self: META))
    monkeypatch.setattr(build, "make_model", partial(on_meta, make=build.make_model))
    monkeypatch.setattr(build, "training_data", partial(augmented_there, make=build.training_data))
    monkeypatch.setattr(contrastive.torch, "autocast", lambda *args, **given: nullcontext())
    for kept in (normalize, normalized):  # their numbers are there from the first time on
        kept(torch.empty(1, 3, 1, 1, device=META))
    monkeypatch.setattr(failures, "FiniteCheck", lambda *parts: None)  # looks for values, when it is made

    def make(folder: Path, **given: Any) -> TrainingLoop:
        made = make_loop(folder, **{**TINY, "architecture": "tiny_models:Cycles", "batch_size": 32, **given})
        made.reporter.is_due = lambda: False
        return made

    return make


@contextmanager
def nothing_waited_for() -> Iterator[None]:
    with Factories() as factories, Copies() as copies:
        yield
    assert copies.waited_for == []
    assert factories.made == []
    assert copies.number > 0  # the images themselves


def take_steps(loop: TrainingLoop, number: int) -> None:
    loop.step.train_mode()
    loop.take_steps(islice(loop.parts.sampling.micro_batches(1, 0), number * loop.parts.sampling.accumulation))
    assert loop.progress.step == number


@pytest.mark.parametrize("given", ON_DEVICE.values(), ids=ON_DEVICE.keys())
@pytest.mark.usefixtures("tiny_models")
def test_the_host_never_waits_in_a_step_or_a_validation_batch(make_meta_loop, tmp_path, given):
    loop = make_meta_loop(tmp_path / "run", **given)
    with nothing_waited_for():
        take_steps(loop, STEPS)
        loop.evaluator.measure(loop.plain_model, loop.parts.val, lambda: False)


@pytest.mark.usefixtures("tiny_models")
@pytest.mark.parametrize("probability", [1, 0.5])
@pytest.mark.parametrize("form", [["barHorz04", "natural"], "mudSplash"])
def test_the_host_does_not_wait_for_occluders(make_meta_loop, tmp_path, form, probability):
    """With a texture of their own, or of a colour or noise."""
    make_occluders(tmp_path / "masks", ["barHorz04", "natural", "mudSplash"], [50], number=4, size=16, report=str)
    given = {"form": form, "visibility": 0.5, "probability": probability, "color": ["random", "pink_noise"]}
    loop = make_meta_loop(tmp_path / "run", Occlusion={**given, "occluder_dir": str(tmp_path / "masks")})
    with nothing_waited_for():
        take_steps(loop, STEPS)


@pytest.mark.usefixtures("tiny_models")
def test_what_would_be_waited_for_is_noticed(make_meta_loop, tmp_path):
    loop = make_meta_loop(tmp_path / "run")
    loop.reporter.is_due = lambda: True  # reads the scores; once a second, and not in every step
    with pytest.raises(RuntimeError, match="meta"):
        take_steps(loop, 1)
    numbers = torch.zeros(3)
    with Copies() as copies, Factories() as factories:
        numbers.to(META)
        numbers.to(META, non_blocking=True)
        torch.empty(3, device=META).copy_(numbers)
        torch.empty(3, device=META).copy_(numbers, non_blocking=True)
        torch.tensor([1, 2, 3], device=META)
    assert (len(copies.waited_for), copies.number, len(factories.made)) == (2, 4, 1)
    with pytest.raises(NotImplementedError):
        torch.zeros(3, device=META).cpu()


@pytest.mark.usefixtures("tiny_models")
@pytest.mark.parametrize("name", ["Adam", "AdamW"])
def test_the_host_does_not_wait_for_counts_of_a_run_that_was_begun_on_a_cpu(make_meta_loop, tmp_path, name):
    """There the optimizer was fused, and had counted its steps beside the parameters."""
    loop = make_meta_loop(tmp_path / "run", optimizer=name, optimizer_args={"lr": 0.01})
    parameters = [torch.nn.Parameter(torch.zeros(p.shape)) for p in loop.plain_model.parameters()]
    before = getattr(torch.optim, name)(parameters, lr=0.01, fused=True)
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    before.step()
    loop.optimizer.load_state_dict(before.state_dict())
    counts = [kept["step"] for kept in loop.optimizer.state.values()]
    assert {count.device.type for count in counts} == {"cpu"}
    assert counts == [1] * len(parameters)
    with nothing_waited_for():
        take_steps(loop, STEPS)


# -- architectures ---------------------------------------------------------------------------------------------------

# Images of 64 pixels, but for those that are cut down further.
SIZES = {"inception_v3": 299, "maxvit_t": 224, "mvit_v1_b": 224, "mvit_v2_s": 224, "s3d": 224, "vit_h_14": 224}


def pass_on_meta(model: torch.nn.Module, inputs: Tensor) -> None:
    """Forward and backward in training; what asks for a value is an error, and copies from the host are noticed."""
    with Factories() as factories, Copies() as copies:
        output = model.train()(inputs)
        outputs = [part for part in (output if isinstance(output, tuple) else [output]) if part is not None]
        torch.stack([part.float().sum() for part in outputs]).sum().backward()
    assert copies.waited_for == []
    assert factories.made == []


def on_meta_device(name: str) -> tuple[torch.nn.Module, Tensor]:
    """An architecture there, and two images or clips."""
    is_clip, size = registry.takes_only_clips(name), SIZES.get(name, 64)
    clip = {"video": True, "num_views": 16} if is_clip else {}
    job = Job(architecture=name, dataset="digits", image_size=size, trackers=[], **clip)
    try:
        with META:
            model = make_model(job, 10)
    except NotImplementedError:
        assert name.startswith("regnet_")  # they are built with numbers in tensors, once
        model = make_model(job, 10).to(META)
    return model, torch.zeros(2, *((16,) if is_clip else ()), 3, size, size, device=META)


def layers_of(model: torch.nn.Module) -> frozenset[tuple[type, frozenset[str]]]:
    """The classes of layers, each with what it has: models that have the same ones run the same code."""
    return frozenset((type(layer), frozenset(_parts(layer))) for layer in model.modules())


def _parts(layer: torch.nn.Module) -> Iterator[str]:
    for kind in (layer._parameters, layer._buffers, layer._modules):
        yield from (name.rstrip("0123456789") for name, part in kind.items() if part is not None)


FAMILIES = sorted({name.split("_")[0].rstrip("0123456789") for name in registry.names()})


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_no_architecture_makes_the_host_wait(family, monkeypatch):
    """Of those that are made of the same layers, of more or fewer of them, the one with the fewest."""
    for initialize in (
        "kaiming_normal_",
        "kaiming_uniform_",
        "normal_",
        "trunc_normal_",
        "uniform_",
        "xavier_uniform_",
    ):
        monkeypatch.setattr(torch.nn.init, initialize, lambda tensor, *args, **given: tensor)  # takes long, on a host
    kinds: dict[Any, tuple[int, torch.nn.Module, Tensor]] = {}
    for name in (name for name in registry.names() if name.split("_")[0].rstrip("0123456789") == family):
        model, inputs = on_meta_device(name)
        layers, number = layers_of(model), len(list(model.modules()))
        if layers not in kinds or number < kinds[layers][0]:
            kinds[layers] = number, model, inputs
    for _, model, inputs in kinds.values():
        pass_on_meta(model, inputs)
        assert any(parameter.grad is not None for parameter in model.parameters())


class Asking(torch.nn.Linear):
    """Asks for a value in one of the ways in which that is done."""

    def __init__(self, ask: Callable[[Tensor], object]) -> None:
        super().__init__(3, 3, device=META)
        self.ask = ask

    def forward(self, images: Tensor) -> Tensor:
        output = super().forward(images)
        self.ask(output)
        return output


@pytest.mark.parametrize(
    "ask",
    [
        lambda output: output.sum().item(),
        lambda output: output.nonzero(),
        lambda output: output[output > 0],
        lambda output: bool(output.sum() > 0),
        lambda output: output.tolist(),
        lambda output: torch.tensor([1.0], device=META),
        lambda output: torch.ones(3).to(META),
    ],
)
def test_an_architecture_that_asks_for_a_value_is_noticed(ask):
    with pytest.raises((RuntimeError, NotImplementedError, AssertionError)):
        pass_on_meta(Asking(ask), torch.zeros(2, 3, device=META))
    pass_on_meta(Asking(lambda output: output.shape), torch.zeros(2, 3, device=META))


# -- allocations ----------------------------------------------------------------------------------------------------


class Calls(TorchDispatchMode):
    """Operations that this thread has called, views apart, and those that made a tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.number = self.made = 0

    def __torch_dispatch__(self, op, types, args=(), kwargs=None):
        made = op(*args, **(kwargs or {}))
        self.number += not op.is_view
        self.made += not op.is_view and not op._schema.is_mutable
        return made


def test_every_step_takes_as_much_as_the_one_before(make_loop, tmp_path, monkeypatch):
    """No step makes more tensors than the one before it, or leaves one behind."""
    monkeypatch.setenv("ACCEL_TRAIN_ALLOW_IMPORTS", "tiny_models")
    given = {**TINY, "batch_size": 32, "transform_type": "none", "optimizer": "AdamW", "optimizer_args": {}}
    loop = make_loop(tmp_path / "run", **given, ema=0.9, clip_grad_norm=1.0)
    loop.reporter.is_due = lambda: False
    loop.loader = Loader(0)
    seen: list[tuple[int, int, int]] = []
    decide = loop.agreement.at_step

    def at_step(*wishes: Any) -> Any:
        gc.collect()
        seen.append((calls.number, calls.made, sum(issubclass(type(thing), Tensor) for thing in gc.get_objects())))
        return decide(*wishes)

    loop.agreement.at_step = at_step
    with Calls() as calls:
        take_steps(loop, 7)
    kernels, made, alive = zip(*seen, strict=True)
    # The first makes what the optimizer keeps, the second is the first to use the average.
    assert len({after - before for before, after in pairwise(kernels[2:])}) == 1
    assert len({after - before for before, after in pairwise(made[2:])}) == 1
    assert len(set(alive[2:])) == 1


def kernels_of(act: Callable[[], object]) -> int:
    with Calls() as calls:
        act()
    return calls.number


def test_a_step_calls_few_kernels_beside_those_of_the_model(make_loop, tmp_path, monkeypatch):
    """Against the same model in a loop of five lines. It is scores, sums, and the look for what is not finite."""
    monkeypatch.setenv("ACCEL_TRAIN_ALLOW_IMPORTS", "tiny_models")
    loop = make_loop(tmp_path / "run", **{**TINY, "batch_size": 32})
    loop.reporter.is_due = lambda: False
    model, optimizer = loop.plain_model, loop.optimizer
    take_steps(loop, 1)
    batch = loop.parts.train_reader(next(loop.parts.sampling.micro_batches(1, 0)))

    def plain() -> None:
        F.cross_entropy(model(batch.inputs.images), batch.labels).backward()
        optimizer.step()
        optimizer.zero_grad()

    model.forward = type(model).forward.__get__(model)  # without what Accelerate wraps around it
    bare = kernels_of(plain)
    loop.progress.step = 0
    ours = kernels_of(partial(take_steps, loop, 1))
    print("KERNELS", bare, ours)
    assert bare < ours <= bare + MOST_KERNELS


def test_the_validation_calls_no_more_kernels_than_a_forward_pass_of_training(make_loop, tmp_path, monkeypatch):
    """For a batch as large or larger: it is no slower for each image."""
    monkeypatch.setenv("ACCEL_TRAIN_ALLOW_IMPORTS", "tiny_models")
    loop = make_loop(tmp_path / "run", **TINY)
    val, sampling = loop.parts.val, loop.parts.sampling
    assert val.images_per_batch >= sampling.images_per_forward
    batches = math.ceil(val.num_images / val.images_per_batch)
    batch = loop.parts.train_reader(next(sampling.micro_batches(1, 0)))
    loop.step.train_mode()

    def forward() -> None:
        loop.objective.compute(loop.plain_model(batch.inputs.images), batch, is_shared=True)

    training = kernels_of(forward)
    validation = kernels_of(lambda: loop.evaluator.measure(loop.plain_model, val, lambda: False))
    assert validation <= batches * (training + 1) + 1  # the adding up
