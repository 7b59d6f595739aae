"""What a job starts from, in its training and on paper."""

import hashlib
import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState, PartialState
from helpers import said_by
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torchvision import models
from torchvision.models import densenet

from accel_trainer.config import Job
from accel_trainer.core.processes import StopRequest
from accel_trainer.data.loader import Loader
from accel_trainer.run.folder import RunFolder
from accel_trainer.run.status import RunState, Status
from accel_trainer.training.build import build, make_model
from accel_trainer.training.check import JobChecker
from accel_trainer.training.loop import TrainingLoop
from accel_trainer.training.pretrained.starting_weights import load_starting_weights
from accel_trainer.training.reporting import Reporter, TrainingResult
from accel_trainer.training.resume import resume
from accel_trainer.training.session import train
from accel_trainer.training.state.starting_point import Fresh
from accel_trainer.training.tracking import RunAbout, Tracking

MakeJob = Callable[..., Job]

pytestmark = pytest.mark.usefixtures("sessions_in_caplog")


def copy(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


SMALL: dict[str, Any] = {"architecture": "small_cnn", "architecture_args": {"features": [4, 8, 8]}, "image_size": 8}


@pytest.fixture
def parent(tmp_path: Path, make_job: MakeJob) -> RunFolder:
    """A trained run of a small model for ten classes, far from any initialization."""
    run = RunFolder(tmp_path / "parent")
    run.create()
    run.config.write_text("{}")
    model = make_model(make_job(**SMALL), 10)
    torch.manual_seed(1)
    with torch.no_grad():
        for value in model.state_dict().values():
            value.add_((torch.rand(value.shape) * 0.1).to(value.dtype))
    save_file(model.state_dict(), run.best_weights)
    return run


@pytest.fixture
def finetuned(make_job: MakeJob, parent: RunFolder) -> Callable[..., Job]:
    """A job that fine-tunes the parent for two classes."""

    def make(freeze: list[str] | None = None, starting_params: str | None = None, **given: Any) -> Job:
        args = {"freeze_modules": freeze or [], "starting_params": starting_params}
        few = {**SMALL, "class_subset": [3, 5], "num_epochs": 1, "batch_size": 64}
        few["optimizer_args"] = {"lr": 0.01, "momentum": 0.9, "weight_decay": 0.1}
        return make_job(**{**few, "model_dir": str(parent.path), "finetune": True, "finetune_args": args, **given})

    return make


@pytest.fixture
def fresh_accelerate() -> Iterator[None]:
    yield
    for state in (AcceleratorState, GradientState, PartialState):
        state._reset_state()


def finish(job: Job) -> RunFolder:
    """Train a job to its end in this process."""
    run = RunFolder(job.run_path)
    run.create()
    assert train(job, run, StopRequest()) == TrainingResult(RunState.FINISHED)
    return run


def test_frozen_modules_stay_as_they_are_to_the_last_bit(
    finetuned: Callable[..., Job], tmp_path: Path, fresh_accelerate: None
) -> None:
    job = finetuned(freeze=["layer1", "layer2.0"])
    run = RunFolder(tmp_path / "run")
    run.create()
    parts = build(job, world_size=1)
    load_starting_weights(job, parts.model)
    before = copy(parts.model)
    accelerator, reporter = Accelerator(cpu=True), Reporter(run, Status(state=RunState.STARTING), writes=True)
    with Loader(1) as loader:
        loop = TrainingLoop(job, run, parts, accelerator, loader, StopRequest(), reporter)
        resume(loop, Fresh())
        loop.train(Tracking(accelerator, job, run, RunAbout("id")), plotter=None)
    assert loop.progress.global_step >= 3
    for name, value in parts.model.state_dict().items():
        is_frozen = name.startswith(("layer1.", "layer2.0."))
        assert torch.equal(value, before[name]) == is_frozen, name


def test_a_fine_tuning_run_starts_from_the_best_of_its_parent(
    finetuned: Callable[..., Job], parent: RunFolder, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    best = load_file(parent.best_weights)
    job = finetuned(freeze=["layer1"])
    run = finish(job)
    assert run.path == parent.path / "finetune"
    start = load_file(run.weights(0))
    initial = build(job, world_size=1).model.state_dict()
    for name, value in start.items():
        assert torch.equal(value, initial[name] if name.startswith("decoder.") else best[name])
    report = json.loads(run.starting_params.read_text())
    assert report["source"] == str(parent.best_weights)
    assert [name.split(".")[0] for name in report["skipped"]] == ["decoder", "decoder"]
    assert report["frozen"] == ["layer1"]
    (line,) = (line for line in caplog.messages if line.startswith("starting from"))
    assert line.startswith(
        f"starting from {parent.best_weights}: 18 of the model's 20 tensors loaded, 1,012 of its 1,030"
    )
    assert "frozen: layer1" in caplog.messages
    trained = load_file(run.best_weights)
    assert torch.equal(trained["layer1.0.weight"], best["layer1.0.weight"])
    assert not torch.equal(trained["layer2.0.weight"], best["layer2.0.weight"])

    # What is there goes on, and needs its parent no more; checkpoint 0 goes back to the same start.
    save_file({name: value + 1 for name, value in best.items()}, parent.best_weights)
    finish(finetuned(freeze=["layer1"], num_epochs=2))
    assert all(torch.equal(value, start[name]) for name, value in load_file(run.weights(0)).items())
    again = finish(finetuned(freeze=["layer1"], checkpoint=0))
    assert all(torch.equal(value, start[name]) for name, value in load_file(again.weights(0)).items())


def test_another_run_and_an_old_file_can_be_started_from(
    finetuned: Callable[..., Job], parent: RunFolder, tmp_path: Path
) -> None:
    best = load_file(parent.best_weights)
    old = tmp_path / "checkpoint.pth.tar"
    torch.save({"state_dict": {f"module.{name}": value for name, value in best.items()}, "epoch": 90}, old)
    for given in (parent.path, parent.params, parent.best_weights, old):
        job = finetuned(starting_params=str(given), model_dir=str(tmp_path / "new"))
        model = make_model(job, 2)
        result = load_starting_weights(job, model)
        assert len(result.loaded) == 18
        assert torch.equal(model.state_dict()["layer3.1.running_mean"], best["layer3.1.running_mean"])
        assert JobChecker()(job, world_size=1).classes == 2


# -- on paper -----------------------------------------------------------------------------------------------------


def test_what_cannot_be_started_from_is_found_on_paper(
    finetuned: Callable[..., Job], parent: RunFolder, tmp_path: Path
) -> None:
    def said(**given: Any) -> str:
        return said_by(JobChecker(), finetuned(**given), 1)

    assert JobChecker()(finetuned(freeze=["layer1"]), world_size=1).classes == 2
    missing = tmp_path / "no.pt"
    assert said(starting_params=str(missing)) == f"finetune_args.starting_params: there is no {missing}"
    assert said(freeze=["V1"]).startswith("finetune_args.freeze_modules: SmallCNN has no module 'V1'")
    save_file({"other.weight": torch.ones(3)}, parent.best_weights)
    assert said().startswith(f"finetune: {parent.best_weights}: nothing fits SmallCNN: there are other.weight")
    torch.save({"model": {"other.weight": torch.ones(3)}}, tmp_path / "w.pt")
    assert "nothing fits SmallCNN" in said(starting_params=str(tmp_path / "w.pt"))
    parent.best_weights.unlink()
    assert said() == f"finetune: {parent.params} has no best.safetensors; there are: none"


def test_weights_that_are_still_to_be_trained_are_passed_over_on_paper(finetuned: Callable[..., Job]) -> None:
    job = finetuned(starting_params="pretraining_job")
    assert JobChecker()(job, world_size=1).classes == 2
    # When it is to start they must be there.
    assert "there is no pretraining_job" in said_by(load_starting_weights, job, make_model(job, 2))


def test_a_run_that_has_begun_needs_its_parent_no_more(finetuned: Callable[..., Job], parent: RunFolder) -> None:
    parent.best_weights.unlink()
    job = finetuned()
    assert "no best.safetensors" in said_by(JobChecker(), job, 1)
    run = RunFolder(job.run_path)
    run.create()
    run.config.write_text("{}")
    assert JobChecker()(job, world_size=1).classes == 2


# -- published weights --------------------------------------------------------------------------------------------


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> nn.Module:
    """A squeezenet of 1000 classes that is published on this machine, as A."""
    model = models.squeezenet1_1()
    path = tmp_path / "squeezenet.pth"
    torch.save(model.state_dict(), path)
    path = path.rename(tmp_path / f"squeezenet-{hashlib.sha256(path.read_bytes()).hexdigest()[:8]}.pth")
    content = models.Weights(url=path.as_uri(), transforms=lambda: None, meta={})
    wrong = path.with_name("squeezenet-00000000.pth")
    wrong.write_bytes(path.read_bytes())

    class Published(models.WeightsEnum):
        A = content
        DAMAGED = models.Weights(url=wrong.as_uri(), transforms=lambda: None, meta={})

    monkeypatch.setattr(models, "get_model_weights", lambda name: Published)
    return model


def test_published_weights_are_downloaded_once_and_loaded(
    make_job: MakeJob, published: nn.Module, capsys: pytest.CaptureFixture[str]
) -> None:
    job = make_job(pretrained="A")
    for _ in range(2):
        model = make_model(job, 10)
        result = load_starting_weights(job, model)
        assert list(result.skipped) == ["classifier.1.weight", "classifier.1.bias"]
        assert torch.equal(model.features[0].weight, published.features[0].weight)
    assert capsys.readouterr().out.count("Downloading") == 1
    assert JobChecker()(job, world_size=1).classes == 10


def test_a_download_that_is_not_what_was_published_is_refused(make_job: MakeJob, published: nn.Module) -> None:
    job = make_job(pretrained="DAMAGED")
    assert "invalid hash value" in said_by(load_starting_weights, job, make_model(job, 10))


def test_without_a_network_the_file_that_is_wanted_is_named(make_job: MakeJob, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(*_: Any, **__: Any) -> None:
        raise URLError("Name or service not known")

    monkeypatch.setattr(torch.hub, "urlopen", no_network)
    job = make_job(pretrained="IMAGENET1K_V1")
    url = models.SqueezeNet1_1_Weights.IMAGENET1K_V1.url
    file = Path(torch.hub.get_dir()) / "checkpoints" / Path(url).name
    said = said_by(load_starting_weights, job, make_model(job, 10))
    assert said.startswith(f"pretrained: SqueezeNet1_1_Weights.IMAGENET1K_V1: {url} cannot be downloaded (<urlopen")
    assert said.endswith(f"put that file at {file}, or give pretrained the path of a file")
    # A file that is put there is taken, but not for its name alone.
    torch.save(models.squeezenet1_1().state_dict(), file)
    assert len(load_starting_weights(job, make_model(job, 10)).loaded) == 50
    file.write_text("<html>")
    assert said_by(load_starting_weights, job, make_model(job, 10)).startswith(f"pretrained: {file}: cannot be read")


@pytest.mark.parametrize(
    ("architecture", "pretrained", "said"),
    [
        (
            "resnet18",
            "IMAGENET1K_V9",
            "torchvision has no weights 'IMAGENET1K_V9' for resnet18; it has IMAGENET1K_V1, ",
        ),
        ("cornet_s", "DEFAULT", "torchvision has no weights for cornet_s; instead of 'DEFAULT' give the path"),
        ("resnet18", "no/such", "there is no no/such"),
        ("resnet18", "weights.pth", "there is no weights.pth"),
    ],
)
def test_published_weights_that_there_are_not_are_refused_on_paper(
    make_job: MakeJob, architecture: str, pretrained: str, said: str
) -> None:
    job = make_job(architecture=architecture, pretrained=pretrained)
    assert said_by(JobChecker(), job, 1).startswith(f"pretrained: {said}")


@pytest.mark.parametrize("architecture", ["resnet18", "cornet_z"])
def test_pretrained_takes_a_path_for_any_architecture(
    make_job: MakeJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, architecture: str
) -> None:
    source = make_model(make_job(architecture=architecture, seed=1), 20)
    save_file(source.state_dict(), tmp_path / "plain_name")
    monkeypatch.chdir(tmp_path)
    job = make_job(architecture=architecture, pretrained="plain_name")
    assert JobChecker()(job, world_size=1).classes == 10
    result = load_starting_weights(job, make_model(job, 10))
    assert len(result.skipped) == 2
    assert not result.missing
    assert not result.frozen


def test_a_densenet_as_it_is_published_is_loaded_as_torchvision_loads_it(
    make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = models.densenet121()
    for value in new.state_dict().values():
        value.copy_(torch.rand(value.shape) * 10)

    def published(*_: Any, **__: Any) -> dict[str, Tensor]:
        parts = ("norm1", "norm2", "conv1", "conv2")
        names = {name: name for name in new.state_dict()}
        for part in parts:
            names = {k: v.replace(f".{part}.", f".{part[:-1]}.{part[-1]}.") for k, v in names.items()}
        # They are older than BatchNorm's counters, too.
        weights = {k: v for k, v in copy(new).items() if "num_batches" not in k}
        return {names[k] if "denselayer" in k else k: v for k, v in weights.items()}

    monkeypatch.setattr(models.DenseNet121_Weights, "get_state_dict", published)
    assert "features.denseblock1.denselayer1.norm.1.weight" in published()
    expected = densenet.densenet121(weights="DEFAULT").state_dict()
    model = models.densenet121(num_classes=10)
    job = make_job(architecture="densenet121", pretrained="DEFAULT")
    result = load_starting_weights(job, model)
    assert list(result.skipped) == ["classifier.weight", "classifier.bias"]
    assert not result.unused
    assert all("num_batches" in name for name in result.missing)
    assert all(torch.equal(v, expected[n]) for n, v in model.state_dict().items() if "classifier" not in n)


def test_models_whose_published_weights_want_other_images_transform_them(make_job: MakeJob) -> None:
    def transforms(**given: Any) -> bool:
        job = make_job(architecture="googlenet", image_size=64, **given)
        with torch.device("meta"):
            return bool(make_model(job, 10).transform_input)

    assert transforms(pretrained="DEFAULT")
    assert not transforms()
    assert not transforms(pretrained="weights.pt")
    assert not transforms(pretrained="DEFAULT", architecture_args={"transform_input": False})


def test_a_pretrained_run_has_its_new_layers_from_the_seed(make_job: MakeJob, published: nn.Module) -> None:
    job = make_job(pretrained="A", num_epochs=1, class_subset=[0, 1], batch_size=128)
    run = finish(job)
    plain = build(make_job(class_subset=[0, 1], batch_size=128), world_size=1).model.state_dict()
    for name, value in load_file(run.weights(0)).items():
        expected = plain if name.startswith("classifier") else published.state_dict()
        assert torch.equal(value, expected[name])
    assert json.loads(run.starting_params.read_text())["source"].endswith("Published.A")
