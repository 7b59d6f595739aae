"""Weights that were not trained here: they answer as by the code that they come from, and stand beside trained runs."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import helpers
import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from tiny_runs import tiny_job
from torch import Tensor, nn
from torchvision import models
from torchvision.io import decode_image
from torchvision.transforms import v2

from accel_trainer import Run, UserError, load_pretrained, load_run, train
from accel_trainer.config import Job
from accel_trainer.config.evaluation import EvaluationPlan
from accel_trainer.data.augment.geometry import CenterCrop, Statistics, pixels_of
from accel_trainer.data.pipeline import validation_crop
from accel_trainer.data.sources.digits import Digits
from accel_trainer.evaluation.anchor import _name
from accel_trainer.evaluation.check import check_plan
from accel_trainer.evaluation.logit_classes import imagenet_wnids, logit_classes
from accel_trainer.measures.sixteen_classes import is_imagenet
from accel_trainer.run.folder import RunFolder
from accel_trainer.training.pretrained.preprocessing import _of_timms_config, preprocessing_of

one_core = pytest.fixture(autouse=True)(helpers.one_core)
WNIDS = ["n01440764", "n02123045", "n03445777"]
PUBLISHED = models.SqueezeNet1_1_Weights.IMAGENET1K_V1


def saved(model: nn.Module, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(model.state_dict(), path)
    return path


def squeezenet(num_classes: int) -> nn.Module:
    torch.manual_seed(num_classes)
    return models.squeezenet1_1(num_classes=num_classes).eval()


@pytest.fixture
def on_digits(tmp_path: Path) -> Run:
    """A model of torchvision with ten logits, by a state dict that plain torch has saved."""
    file = saved(squeezenet(10), tmp_path / "mine.pth")
    return load_pretrained("squeezenet1_1", str(file), dataset="digits", out=tmp_path / "anchor", image_size=32)


@pytest.fixture
def imagenet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Images of three of ImageNet's classes, and weights where torch.hub would have put them."""
    generator = np.random.default_rng(0)
    for wnid in WNIDS:
        folder = tmp_path / "data" / "few" / "val" / wnid
        folder.mkdir(parents=True)
        for number in range(2):
            pixels = generator.integers(0, 256, (240 + 30 * number, 260, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{number}.png")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    saved(squeezenet(1000), tmp_path / "torch" / "hub" / "checkpoints" / Path(PUBLISHED.url).name)
    return tmp_path / "data"


def accuracies(logits: Tensor, labels: Sequence[int]) -> tuple[float, float]:
    """Of the first answer, and of the first five, in percent."""
    top = logits.topk(5).indices == torch.tensor(labels)[:, None]
    return 100 * top[:, 0].double().mean().item(), 100 * top.any(1).double().mean().item()


def test_files_that_are_always_called_alike_are_named_by_their_folders() -> None:
    assert _name("timm:resnet18", None, Path("/hub/resnet18.a1/model.safetensors")) == "resnet18-resnet18.a1"
    assert _name("resnet18", None, Path("/models/mine/params/best.safetensors")) == "resnet18-mine"
    assert _name("resnet18", None, Path("/theirs/net-7.pth")) == "resnet18-net-7"
    assert _name("squeezenet1_1", PUBLISHED, None) == "squeezenet1_1-IMAGENET1K_V1"


def test_the_synsets_are_those_of_imagenet() -> None:
    assert is_imagenet(imagenet_wnids())


def test_a_state_dict_of_plain_torch_answers_and_scores_as_by_torchvision(on_digits: Run) -> None:
    images = Digits("val")
    inputs = torch.stack([on_digits.transform(images.read(index)) for index in range(len(images.labels))])
    with torch.no_grad():
        logits = squeezenet(10)(inputs)
        assert torch.equal(on_digits.model()(inputs), logits)
    scores = on_digits.evaluate().scores
    assert (scores["acc1"], scores["acc5"]) == pytest.approx(accuracies(logits, images.labels.tolist()), abs=1e-9)
    loss = nn.functional.cross_entropy(logits, torch.from_numpy(images.labels))
    assert scores["loss"] == pytest.approx(loss.item(), abs=1e-5)


def test_what_was_not_trained_here_is_a_row_beside_trained_runs(on_digits: Run) -> None:
    before = on_digits.summary
    assert (before.state, before.best, before.epochs, before.num_epochs) == ("pretrained", None, 0, None)
    scores = on_digits.evaluate().scores
    row = load_run(on_digits.path).summary
    assert (row.job, row.state, row.best, row.best_epoch) == ("anchor", "pretrained", scores["acc1"], 0)
    assert row.parameters == sum(parameter.numel() for parameter in squeezenet(10).parameters())
    assert on_digits.status is not None
    assert on_digits.status.best == scores["acc1"]


def timms_checkpoint(folder: Path, **changes: Any) -> Path:
    """As timm and its hub lay out weights, with what their configuration says of images."""
    torch.manual_seed(0)
    model = timm.create_model("test_resnet", num_classes=10).eval()
    folder.mkdir()
    save_file(model.state_dict(), folder / "model.safetensors")
    about = {"input_size": [3, 48, 48], "crop_pct": 0.9, "mean": [0.5] * 3, "std": [0.25] * 3}
    about |= {"interpolation": "bicubic", "num_classes": 10, **changes}
    (folder / "config.json").write_text(
        json.dumps({"architecture": "test_resnet", "num_classes": 10, "pretrained_cfg": about})
    )
    return folder / "model.safetensors"


def on_digits_by(file: Path, out: Path, **settings: Any) -> Run:
    return load_pretrained("timm:test_resnet", str(file), dataset="digits", out=out, **settings)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"crop_mode": "squash"},
        {"interpolation": "bicubic", "crop_pct": 0.57},
        {"interpolation": None, "crop_pct": None, "std": None},
    ],
)
def test_a_checkpoint_of_timm_sees_and_answers_what_it_does_in_timm(tmp_path: Path, changes: dict[str, Any]) -> None:
    file = timms_checkpoint(tmp_path / "test_resnet.mine", **changes)
    run = on_digits_by(file, tmp_path / "anchor")
    model = timm.create_model(f"local-dir:{file.parent}", pretrained=True).eval()
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
    images = Digits("val")
    pictures = [Image.fromarray(images.read(index).permute(1, 2, 0).numpy()) for index in range(9)]
    theirs = torch.stack([transform(picture) for picture in pictures])
    ours = torch.stack([run.transform(picture) for picture in pictures])
    torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-6)
    statistics = Statistics((*run.job.mean,), (*run.job.std,))  # type: ignore[arg-type]
    assert torch.equal(pixels_of(ours, statistics), pixels_of(theirs, statistics))
    with torch.no_grad():
        assert torch.equal(run.model()(ours), model(ours))


@pytest.mark.parametrize(
    ("changes", "settings", "line"),
    [
        (
            {"interpolation": "lanczos"},
            {"eval_resize": "bicubic"},
            "resizes by 'lanczos'; there are bilinear, bicubic, ",
        ),
        ({"crop_mode": "border"}, {"eval_resize": "bicubic-squash"}, "resizes by 'bicubic-border'"),
        ({"crop_pct": 1.15}, {"eval_crop": 1.0}, "crops 1.15 of the shorter side, which is more"),
    ],
)
def test_preprocessing_that_there_is_not_is_refused_unless_another_is_asked_for(
    tmp_path: Path, changes: dict[str, Any], settings: dict[str, Any], line: str
) -> None:
    file = timms_checkpoint(tmp_path / "mine", **changes)
    with pytest.raises(UserError, match=line):
        on_digits_by(file, tmp_path / "anchor")
    run = on_digits_by(file, tmp_path / "anchor", **settings)
    assert {key: getattr(run.job, key) for key in settings} == settings


def test_an_export_is_evaluated_as_its_run(on_digits: Run, tmp_path: Path) -> None:
    """Of every format that has weights: what it says of images is read, whoever has written it."""
    on_digits.evaluate()
    file = saved(squeezenet(10), tmp_path / "again.pth")
    settings = {"image_size": 40, "eval_crop": 40 / 47, "mean": [0.5] * 3, "eval_resize": "bicubic-squash"}
    own = load_pretrained("squeezenet1_1", str(file), dataset="digits", out=tmp_path / "own", **settings)
    own.export(tmp_path / "export", "torchvision")
    weights = str(tmp_path / "export" / "model.safetensors")
    again = load_pretrained("squeezenet1_1", weights, dataset="digits", out=tmp_path / "again")
    image = Digits("val").read(5)
    assert torch.equal(again.transform(image), own.transform(image))
    assert again.evaluate().scores == own.evaluate().scores


def test_all_that_timm_publishes_is_preprocessed_as_by_timm_or_refused() -> None:
    refused, count = set(), 0
    for name in timm.list_pretrained():
        about = timm.get_pretrained_cfg(name).to_dict()
        try:
            found = _of_timms_config(about, name)
            assert found is not None
            job = Job(architecture="resnet18", **found.parameters({}))
        except UserError:
            refused.add(name.partition("_")[0])
            continue
        crop = validation_crop(job)
        theirs = timm.data.create_transform(**timm.data.resolve_data_config(pretrained_cfg=about), normalize=False)
        resize = theirs.transforms[0]
        is_squash = not isinstance(resize.size, int)
        assert (crop.short_side, crop.squash) == (max(resize.size) if is_squash else resize.size, is_squash), name
        assert crop.filter == resize.interpolation.value, name
        count += 1
    assert count > 1000
    assert refused <= {"volo", "vit", "deepseek"}  # more than there is; images of 1024 x 768; borders


def test_published_weights_score_as_by_their_own_transforms_on_some_of_their_classes(
    imagenet: Path, tmp_path: Path
) -> None:
    run = load_pretrained("squeezenet1_1", dataset="few", data_root=imagenet, out=tmp_path / "anchor", batch_size=4)
    assert run.job.pretrained == "IMAGENET1K_V1"
    assert run.classes == list(imagenet_wnids())
    files = sorted((imagenet / "few" / "val").glob("*/*.png"))
    labels = [imagenet_wnids().index(file.parent.name) for file in files]
    published = PUBLISHED.transforms()
    resize, crop = v2.Resize(published.resize_size, antialias=True), v2.CenterCrop(published.crop_size)
    scale, normalize = v2.ToDtype(torch.float32, scale=True), v2.Normalize(published.mean, published.std)
    transform = v2.Compose([resize, crop, scale, normalize])
    inputs = torch.stack([transform(decode_image(str(file))) for file in files])
    torch.testing.assert_close(torch.stack([run.transform(file) for file in files]), inputs, rtol=0, atol=2e-6)
    with torch.no_grad():
        logits = squeezenet(1000)(inputs)
    found = run.evaluate()
    assert (found.scores["acc1"], found.scores["acc5"]) == accuracies(logits, labels)
    assert found.images == len(files)
    assert found.scores["loss"] == pytest.approx(
        nn.functional.cross_entropy(logits, torch.tensor(labels)).item(), abs=1e-4
    )


@pytest.mark.usefixtures("no_plots")
def test_degraded_images_features_and_the_queue_take_the_folder_as_a_run(on_digits: Run) -> None:
    measured = on_digits.evaluate(degradations=[{"name": "noise/gaussian", "levels": ["none", 0.5]}])
    (neutral, _) = measured.as_row()["figures"]
    assert 100 * neutral["value"] == pytest.approx(on_digits.evaluate().scores["acc1"], abs=1e-6)
    assert load_run(on_digits.path).summary.degraded.keys() == {"noise/gaussian"}
    features = on_digits.features([Digits("val").read(0)], ["classifier"])
    assert len(features["classifier"]) == 1
    about = check_plan(EvaluationPlan(degradations=["blur"]), RunFolder(on_digits.path))
    assert about["images"] == len(Digits("val").labels)


def test_the_same_again_is_the_same_folder_and_anything_else_is_refused(on_digits: Run, tmp_path: Path) -> None:
    file, out = tmp_path / "mine.pth", on_digits.path
    scores = on_digits.evaluate().scores

    def again(**changes: Any) -> Run:
        given: dict[str, Any] = {"pretrained": str(file), "dataset": "digits", "out": out, "image_size": 32, **changes}
        return load_pretrained("squeezenet1_1", **given)

    assert again().summary.best == scores["acc1"]
    with pytest.raises(UserError, match=r"weights evaluated otherwise \(eval_crop was 0.875, is 1.0\); give another"):
        again(eval_crop=1.0)
    with pytest.raises(UserError, match="the same for other classes"):
        again(classes=list("abcdefghij"))
    torch.manual_seed(1)
    saved(models.squeezenet1_1(num_classes=10), file)
    with pytest.raises(UserError, match="has other weights; give another folder with `out`"):
        again()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
    with pytest.raises(UserError, match="holds weights that were not trained here, to be evaluated; choose another"):
        train(tiny_job(out), cpu=True, progress=False)


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"lr": 0.1}, "lr cannot be set for weights that are only evaluated"),
        ({"imagesize": 32}, "imagesize cannot be set .*; did you mean 'image_size'"),
        ({"classes": ["a"]}, "`classes`: 1 names for 10 logits"),
        ({"dataset": "nowhere"}, "nowhere"),
        ({"architecture": "resnet18"}, "pretrained: .*mine.pth: nothing fits ResNet"),
        ({"pretrained": "IMAGENET1K_V7"}, "pretrained: torchvision has no weights 'IMAGENET1K_V7' for squeezenet1_1"),
    ],
)
def test_what_cannot_be_evaluated_is_said_before_anything_is_written(
    tmp_path: Path, given: dict[str, Any], line: str
) -> None:
    file = saved(squeezenet(10), tmp_path / "mine.pth")
    whole: dict[str, Any] = {"architecture": "squeezenet1_1", "pretrained": str(file), "dataset": "digits"}
    with pytest.raises(UserError, match=line):
        load_pretrained(**{**whole, "image_size": 32, "out": tmp_path / "anchor", **given})
    assert not (tmp_path / "anchor").exists()


def test_weights_that_do_not_fill_the_model_are_refused(tmp_path: Path) -> None:
    weights = squeezenet(10).state_dict()
    weights.pop("classifier.1.bias")
    torch.save(weights, tmp_path / "part.pth")
    with pytest.raises(UserError, match=r"leaves 1 of the model.s tensors random: classifier\.1\.bias"):
        load_pretrained(
            "squeezenet1_1", str(tmp_path / "part.pth"), dataset="digits", image_size=32, out=tmp_path / "a"
        )


CATEGORIES = [f"kind {number}" for number in range(999)] + ["kind 0"]


@pytest.mark.parametrize(
    ("own", "first", "how"),
    [
        (WNIDS, "n01440764", "by their synsets, of which the images are of 3"),
        (sorted(map(str, range(1000))), "0", "by their numbers"),
        (sorted(f"{number:04}" for number in range(1000)), "0000", "by their numbers"),
        ([f"{name}, Latin" for name in CATEGORIES[:999]] + ["Kind 0"], "kind 0, Latin", "by their names, in order"),
        (["Kind 7", "kind 3, Latin"], "n01440764", "by their names, of which the images are of 2"),
    ],
)
def test_classes_of_imagenet_are_found_by_what_folders_are_called(own: list[str], first: str, how: str) -> None:
    found = logit_classes(1000, own, "images", CATEGORIES)
    assert (len(found.names), found.names[0]) == (1000, first)
    assert how in found.how
    numbers = {"Kind 7": 7, "kind 3, Latin": 3, "n01440764": 0, "999": 999, "0999": 999}
    for name in set(own) & numbers.keys():
        assert found.names.index(name) == numbers[name]


@pytest.mark.parametrize(
    ("count", "own", "line"),
    [
        (1000, ["cat", "dog"], "the weights answer with 1,000 classes, and 'images' has 2 (cat, dog)"),
        (1000, [str(number) for number in range(10)], "the weights answer with 1,000 classes, and 'images' has 10"),
        (1000, ["kind 0"], "the weights answer with 1,000 classes"),  # there are two of that name
        (1000, [f"class {number}" for number in range(1000)], "the weights answer with kind 0, kind 1, kind 2"),
        (10, ["cat", "dog"], "`classes` may name a file with the names of all 10 logits"),
    ],
)
def test_classes_that_cannot_be_told_are_not_guessed(count: int, own: list[str], line: str) -> None:
    with pytest.raises(UserError) as refused:
        logit_classes(count, own, "images", CATEGORIES)
    assert line in str(refused.value)


def test_the_crops_of_all_that_torchvision_publishes_are_those_of_a_job() -> None:
    published = [weights for name in models.list_models(module=models) for weights in models.get_model_weights(name)]
    kinds = set()
    for weights in published:
        found, transform = preprocessing_of("resnet18", weights, None), weights.transforms()
        assert found is not None
        assert CenterCrop(found.image_size, found.eval_crop).short_side == transform.resize_size[0], weights
        kinds.add(Job(architecture="resnet18", **found.parameters({})).eval_resize)
    assert len(published) > 100
    assert kinds == {"bilinear", "bicubic"}
