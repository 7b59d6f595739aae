"""Every mistake in a parameter is one clear line; every value means what a person would think it means."""

import json
from pathlib import Path
from typing import Any

import pytest

from accel_trainer.config import Job, parse_job
from accel_trainer.config.diff import describe
from accel_trainer.config.fields import transform_parts
from accel_trainer.config.parameters import DEFAULT_SGD, DEFAULT_STEP
from accel_trainer.core.errors import InvalidJob, UserError


def parse(**given: Any) -> Job:
    return parse_job(json.dumps({"architecture": "resnet18", **given}).encode(), "job", where="job.json")


def problems(**given: Any) -> list[str]:
    with pytest.raises(UserError) as caught:
        parse(**given)
    return caught.value.problems


def problem(**given: Any) -> str:
    (line,) = problems(**given)
    assert line.startswith("job.json: ")
    return line.removeprefix("job.json: ")


# -- keys ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"num_epoch": 3}, "num_epoch: unknown key; did you mean 'num_epochs'"),
        ({"Batch_Size": 3}, "Batch_Size: unknown key; did you mean 'batch_size'"),
        ({"zzz": 3}, "zzz: unknown key"),
        ({"batch-size": 3}, "batch-size: unknown key; did you mean 'batch_size'"),
        ({"learning rate": 3}, "learning rate: unknown key"),
        ({"wandb": {"projekt": "x"}}, "wandb.projekt: unknown key; did you mean 'project'?"),
        ({"wandb": {"pro-ject": "x"}}, "wandb.pro-ject: unknown key; did you mean 'project'?"),
        ({"Noise": {"ssnr": 1}}, "Noise.ssnr: unknown key; did you mean 'ssnrs'?"),
        ({"swa": {"start": 2, "swalr": 1}}, "swa.swalr: unknown key; did you mean 'swa_lr'"),
    ],
)
def test_an_unknown_key_is_named_with_the_nearest_one(given: dict[str, Any], said: str) -> None:
    assert problem(**given).startswith(said)


def test_a_job_without_an_architecture_is_refused() -> None:
    for given in ({}, {"architecture": None}):
        with pytest.raises(UserError, match=r"job\.json: architecture: missing"):
            parse_job(json.dumps(given).encode(), "job", where="job.json")


def test_every_mistake_has_a_line_of_its_own() -> None:
    lines = problems(num_epochs=0, batch_size="many", optimiser="SGD")
    assert sorted(line.split(": ")[1] for line in lines) == ["batch_size", "num_epochs", "optimiser"]


# -- values --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"num_epochs": 0}, ["num_epochs: 0 ", "greater than or equal to 1"]),
        ({"num_epochs": 10**18}, ["num_epochs: 1000000000000000000 ", "less than or equal to 100000"]),
        ({"num_views": 10**9, "batch_size": 10**9}, ["num_views: 1000000000 ", "less than or equal to 1000"]),
        ({"num_workers": 10**6}, ["num_workers: 1000000 ", "less than or equal to 256"]),
        ({"Blur": {"sigmas": 1e308}}, ["Blur.sigmas.0: 1e+308 ", "less than or equal to 10000"]),
        ({"save_every_minutes": 10**400}, ["save_every_minutes: ", "too large"]),
        ({"num_epochs": "10"}, ['num_epochs: "10" ', "integer"]),
        ({"num_epochs": 10.0}, ["num_epochs: 10.0 ", "integer"]),
        ({"num_epochs": True}, ["num_epochs: true ", "integer"]),
        ({"seed": -1}, ["seed: -1 ", "greater than or equal to 0"]),
        ({"amp": 1}, ["amp: 1 ", "boolean"]),
        ({"amp": "true"}, ['amp: "true" ', "boolean"]),
        ({"checkpoint": -2}, ["checkpoint: -2 ", "greater than or equal to -1"]),
        ({"checkpoint": False}, ["checkpoint: false ", "integer"]),
        ({"clip_grad_norm": 0}, ["clip_grad_norm: 0 ", "greater than 0"]),
        ({"batch_size": "autoo"}, ['batch_size: "autoo" ', "integer or", "did you mean 'auto'?"]),
        ({"batch_size": 0}, ["batch_size: 0 ", "greater than or equal to 1"]),
        ({"mixed_precision": "fp32"}, ['mixed_precision: "fp32" ', "'fp16'", "'bf16'"]),
        ({"wandb": {"mode": "ofline"}}, ['wandb.mode: "ofline" ', "did you mean 'offline'"]),
        ({"optimizer_args": [1]}, ["optimizer_args: [1] "]),
        ({"trackers": "wandb"}, ['trackers: "wandb" ', "list"]),
        ({"wandb": {"tags": ["a", ""]}}, ["wandb.tags", '""', "at least 1 character"]),
        ({"wandb": {"tags": ["x" * 65]}}, ["wandb.tags", "at most 64 characters"]),
        ({"class_subset": []}, ["class_subset: [] ", "at least 1"]),
        ({"class_subset": [3, -1]}, ["class_subset.1: -1 ", "greater than or equal to 0"]),
        ({"class_subset": [3, 1, 3]}, ["class_subset: [3, 1, 3] names a class twice"]),
        ({"architecture": "../escape"}, ['architecture: "../escape" ']),
        *(({"architecture": name}, [f'architecture: "{name}" ']) for name in ("a:", ":b", "a:b:c", "a/b:c", "a:b c")),
        ({"architecture": "resnet18\n"}, ['architecture: "resnet18\\n" ']),
        ({"dataset": ""}, ['dataset: "" ']),
        ({"randomerase": True}, ["randomerase: true "]),
        ({"randomerase": [0, 1]}, ["randomerase: [0, 1] "]),
        ({"cutmix": {"alpha": 0}}, ["cutmix.alpha: 0 ", "greater than 0"]),
        ({"cutmix": 1}, ["cutmix: 1 "]),
        ({"loss_cycle": "uniformly"}, ['loss_cycle: "uniformly" ', "did you mean 'uniform'?"]),
        ({"Noise": {"probs": 1.5}}, ["Noise.probs", "1.5 ", "less than or equal to 1"]),
        ({"Noise": {"probs": [0.1, 0.2]}}, ["Noise: has 2 probs for 1 ssnrs"]),
        ({"Blur": {"sigmas": [1, 2], "probs": [0.1, 0.2, 0.3]}}, ["Blur: has 3 probs for 2 sigmas"]),
        ({"Occlusion": {}}, ["Occlusion.form: missing"]),
        ({"Occlusion": {"form": "bars", "color": [300, 0, 0]}}, ["Occlusion.color", "300, 0, 0", "255"]),
        ({"Occlusion": {"form": "bars", "visibility": 0}}, ["Occlusion.visibility"]),
        ({"Occlusion": {"form": "bars", "visibility": [10, 20], "vis_probs": [1]}}, ["1 vis_probs for 2 visibilities"]),
        ({"swa": {}}, ["swa.start: missing"]),
        ({"optimizer_args": {"lr": "fast"}}, ["optimizer_args.lr: 'fast'", "batch_linear"]),
        ({"transform_type": "defualt"}, ["transform_type: 'defualt'", "default, contrastive, none"]),
        ({"transform_type": "default-sharp"}, ["transform_type: 'default-sharp'"]),
    ],
)
def test_a_wrong_value_is_reported_with_its_key_and_allowed_values(given: dict[str, Any], said: list[str]) -> None:
    line = problem(**given)
    assert all(part in line for part in said), line


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            {"Noise": {"ssnrs": [0.2, 0.4], "probs": [0.5, 0.5, 0.5]}},
            ["Noise: has 3 probs for 2 ssnrs", "Noise: has probs that add up to 1.5"],
        ),
        (
            {"Occlusion": {"form": "mud_splash", "visibility": [40, 80], "vis_probs": [0, 0, 0]}},
            ["Occlusion: has 3 vis_probs for 2 visibilities", "Occlusion: has vis_probs that are all 0"],
        ),
    ],
)
def test_all_that_does_not_fit_in_one_section_is_reported(given: dict[str, Any], said: list[str]) -> None:
    lines = problems(**given)
    assert len(lines) == len(said)
    assert all(words in line for line, words in zip(lines, said, strict=True)), lines


def test_a_long_value_is_cut_short() -> None:
    assert len(problem(num_epochs="9" * 10_000)) < 200


@pytest.mark.parametrize(
    "key",
    [
        "model_dir", "data_root", "dataset", "pretrained", "finetune_args.starting_params",
        "finetune_args.finetune_dir", "Noise.mean_magnitude_path", "Occlusion.occluder_dir",
        "eval_sets", "hf: in dataset", "hf: in eval_sets",
    ],
)  # fmt: skip
@pytest.mark.parametrize(
    "value", ["../x", "a/../../x", "..", "a\nb", "a\x00b", "a\x1b[2J", "a\u202eb", "x" * 256, "é" * 128, "a/" * 2500]
)
def test_paths_that_climb_hide_or_are_too_long_are_refused(key: str, value: str) -> None:
    given: dict[str, Any] = {
        "finetune_args.starting_params": {"finetune": True, "finetune_args": {"starting_params": value}},
        "finetune_args.finetune_dir": {
            "finetune": True, "finetune_args": {"starting_params": "./w.pt", "finetune_dir": value}
        },
        "Noise.mean_magnitude_path": {"Noise": {"noise_types": "fourier", "mean_magnitude_path": value}},
        "Occlusion.occluder_dir": {"Occlusion": {"form": "bars", "occluder_dir": value}},
        "eval_sets": {"eval_sets": [value]},
        "hf: in dataset": {"dataset": f"hf:{value}"},
        "hf: in eval_sets": {"eval_sets": [f"hf:{value}"]},
    }.get(key, {key: value})  # fmt: skip
    line = problem(**given)
    assert line.startswith(f"{key.removeprefix('hf: in ')}: ")
    assert line.isprintable()
    assert len(line) < 200


@pytest.mark.parametrize(("key", "before"), [("model_dir", ""), ("data_root", ""), ("dataset", "hf:")])
def test_the_home_of_nobody_is_refused(key: str, before: str) -> None:
    assert problem(**{key: f"{before}~nobody-of-that-name/x"}).startswith(f"{key}: ")


@pytest.mark.parametrize(
    "given",
    [
        {f"key{n}": 1 for n in range(15_000)},
        {"after": [1] * 40_000},
        {"Blur": {"sigmas": ["x"] * 30_000}},
        {"eval_sets": [f"{n % 12_000}" for n in range(24_000)]},
        {"class_subset": [0] * 60_000},
    ],
    ids=["unknown keys", "wrong types", "wrong numbers", "names twice", "classes twice"],
)
def test_ten_thousand_mistakes_are_reported_in_a_few_lines(given: dict[str, Any]) -> None:
    """And at once: the process that runs a queue reads every job itself."""
    with pytest.raises(UserError) as caught:
        parse(**given)
    assert len(caught.value.problems) <= 21
    assert all(len(line) < 1100 for line in caught.value.problems)
    assert len(caught.value.problems) < 20 or caught.value.problems[-1].endswith("and more mistakes")


def test_a_run_folder_must_have_a_name() -> None:
    assert problem(model_dir="").startswith("model_dir: ")


def test_a_dataset_is_a_folder_below_data_root() -> None:
    assert "set data_root to '/data/sets'" in problem(dataset="/data/sets/imagenet")
    assert parse(dataset="hf:/data/sets/imagenet").dataset == "hf:/data/sets/imagenet"


# -- null, false and zero -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in Job.model_fields if name not in ("architecture", "name")])
def test_null_stands_for_a_parameter_that_is_absent(name: str) -> None:
    assert parse(**{name: None}) == parse()


def test_null_means_absent_in_objects_too() -> None:
    assert parse(wandb={"project": None, "tags": None}) == parse()


@pytest.mark.parametrize("name", ["cutmix", "mixup", "randomerase", "swa"])
def test_false_turns_an_augmentation_of_a_job_off(name: str) -> None:
    assert parse(**{name: False}) == parse()


@pytest.mark.parametrize("value", [0, 0.0, [0, 0, 0], "random"])
def test_erasing_with_zero_is_not_off(value: Any) -> None:
    assert parse(randomerase=value).randomerase == value


@pytest.mark.parametrize("value", [True, {}, {"alpha": 0.5}, {"alpha": None}])
def test_mixing_with_or_without_an_alpha_is_not_off(value: Any) -> None:
    cutmix = parse(cutmix=value).cutmix
    assert cutmix is not None
    assert cutmix.alpha == (0.5 if value == {"alpha": 0.5} else 1.0)


@pytest.mark.parametrize("value", [-1, 0, 1, None])
def test_a_checkpoint_of_zero_is_a_value(value: int | None) -> None:
    checkpoint = parse(checkpoint=value).checkpoint
    assert checkpoint == value
    assert (checkpoint is None) == (value is None)


def test_a_loss_cycle_of_zero_is_a_value() -> None:
    assert parse(loss_cycle=0).loss_cycle == 0


# -- defaults ------------------------------------------------------------------------------------------------


def test_a_silent_job_is_the_classic_recipe() -> None:
    job = parse()
    assert (job.dataset, job.num_views, job.transform_type, job.image_size) == ("ILSVRC2012", 1, "default", 224)
    assert (job.num_epochs, job.criterion, job.amp, job.seed) == (100, "CrossEntropyLoss", True, 0)
    assert (job.optimizer, job.optimizer_args) == ("SGD", {"lr": 0.05, "momentum": 0.9, "weight_decay": 1e-4})
    assert (job.scheduler, job.scheduler_args) == ("StepLR", {"step_size": 30, "gamma": 0.1})
    assert job.trackers == ["wandb"]


@pytest.mark.parametrize(
    ("kind", "given", "expected"),
    [
        ("optimizer", {}, DEFAULT_SGD),
        ("optimizer", {"optimizer": "SGD"}, DEFAULT_SGD),
        ("optimizer", {"optimizer": None}, DEFAULT_SGD),
        ("optimizer", {"optimizer": "AdamW"}, {}),
        ("optimizer", {"optimizer": "AdamW", "optimizer_args": None}, {}),
        ("optimizer", {"optimizer_args": {}}, DEFAULT_SGD),
        ("optimizer", {"optimizer_args": {"lr": 1}}, {**DEFAULT_SGD, "lr": 1}),
        ("scheduler", {}, DEFAULT_STEP),
        ("scheduler", {"scheduler": "StepLR"}, DEFAULT_STEP),
        ("scheduler", {"scheduler": "ExponentialLR"}, {}),
        ("scheduler", {"scheduler": "ExponentialLR", "scheduler_args": {"gamma": 0.9}}, {"gamma": 0.9}),
    ],
)
def test_only_the_default_optimizer_and_scheduler_have_default_arguments(
    kind: str, given: dict[str, Any], expected: dict[str, Any]
) -> None:
    assert getattr(parse(**given), f"{kind}_args") == expected


def test_the_run_folder_follows_from_architecture_and_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert parse().run_path == Path("models/resnet18/job")
    assert parse(architecture="my_lab.models:Outer.Net").run_path == Path("models/my_lab.models.Outer.Net/job")
    assert parse(architecture="timm:vit_tiny").run_path == Path("models/timm.vit_tiny/job")
    assert parse(model_dir="~/runs/a").run_path == tmp_path / "runs" / "a"
    assert parse(model_dir="/runs/a").run_path == Path("/runs/a")


# -- parameters that must fit together --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"criterion": "SimCLRLoss", "num_views": 1}, "num_views: SimCLRLoss compares views"),
        (
            {"criterion": "SimCLRLoss", "num_views": 2, "batch_size": 2},
            "batch_size: SimCLRLoss compares images: 2 is few",
        ),
        (
            {"criterion": "SupConLoss", "num_views": 3, "batch_size": 3},
            "batch_size: SupConLoss compares images: 3 is fewer than two of them in 3 views; use 6 or more",
        ),
        (
            {"criterion": "SimCLRLoss", "num_views": 2, "batch_size": 8, "gradient_accumulation": 4},
            "batch_size: SimCLRLoss compares images: 8 is fewer than two of them in 2 views, 4 times for each step",
        ),
        ({"primary_metric": "acc"}, "primary_metric: 'acc' is not measured with CrossEntropyLoss; it is one of acc1"),
        ({"primary_metric": "MSELoss"}, "primary_metric: 'MSELoss' is not measured"),
        ({"criterion": "SimCLRLoss", "num_views": 2, "primary_metric": "acc1"}, "primary_metric: 'acc1' is not"),
        ({"finetune": True}, "finetune: nothing to start from"),
        ({"finetune": True, "finetune_args": {"freeze_modules": ["conv1"]}}, "finetune: nothing to start from"),
        ({"finetune_args": {"freeze_modules": ["conv1"]}}, "finetune_args: given, but finetune is false"),
        ({"after": ["first", "job"]}, "after: names the job itself"),
        ({"after": ["first.json"]}, "after: 'first.json': the name of a job is that of its file without .json"),
        ({"after": ["training_queue/first"]}, "after: 'training_queue/first' is not the name of a job"),
        ({"after": [""]}, "after: '' is not the name of a job"),
        ({"finetune": True, "finetune_args": {"starting_params": "job"}}, "finetune_args.starting_params: names the"),
        ({"finetune": True, "finetune_args": {"starting_params": ""}}, "finetune_args.starting_params: may not be"),
        ({"warmup_scheduler_args": {"total_iters": 5}}, "warmup_scheduler_args: given, but there is no"),
        ({"num_epochs": 10, "swa": {"start": 11}}, "swa.start: 11 is after the last epoch (10)"),
        ({"num_views": 2, "batch_size": 255}, "batch_size: 255 images cannot be 2 views each"),
        ({"num_views": 3}, "batch_size: 256 images cannot be 3 views each; use 255 or 258"),
        ({"num_views": 9, "batch_size": 4}, "batch_size: 4 images cannot be 9 views each; use 9"),
        (
            {"transform_type": "defualt"},
            "transform_type: 'defualt' is not known; it is one of default",
        ),
        ({"transform_type": "default-no-blurr"}, "transform_type: 'default-no-blurr' is not known"),
        ({"transform_type": "default-augmix-augmix"}, "transform_type: 'default-augmix-augmix' is not known"),
        ({"transform_type": "none-weak-resize"}, "transform_type: 'none-weak-resize': 'none' has neither"),
        ({"transform_type": "none-no-blur"}, "transform_type: 'none-no-blur': 'none' has neither"),
        ({"transform_type": "default-augmix-randaugment"}, "transform_type: 'default-augmix-randaugment': use one of"),
        ({"video": True}, "num_views: a video has 2 or more frames"),
        ({"video": True, "Blur": {"sigmas": 3}}, "num_views: a video has 2 or more frames"),
        (
            {"video": True, "num_views": 2, "Blur": {"sigmas": [4, 2, 1]}},
            "num_views: 2, but Blur has 3 sigmas, one for each frame; remove it",
        ),
        ({"Occlusion": {"form": "a", "views": [0, 1]}}, "Occlusion.views: no view 1; there are 1, from 0"),
        ({"Noise": {"ssnrs": [0.2, 0.4], "probs": [0.7, 0.7]}}, "Noise: has probs that add up to 1.4"),
        ({"Blur": {"sigmas": [1, 2], "probs": [0.7, 0.7]}}, "Blur: has probs that add up to 1.4"),
        ({"Noise": {"ssnrs": [0.2, 0.4], "probs": [0.1, 0.2, 0.3]}}, "Noise: has 3 probs for 2 ssnrs"),
        ({"criterion": "SimCLRLoss", "num_views": 2, "cutmix": True}, "cutmix: mixes labels, and SimCLRLoss has none"),
        ({"criterion": "SupConLoss", "num_views": 2, "video": True}, "video: SupConLoss compares views of an image"),
        ({"randomerase": 255}, "randomerase: 255 is not allowed"),
        ({"randomerase": [0, 0, 255]}, "randomerase: [0, 0, 255] is not allowed"),
        ({"randomerase": 1.5, "rules": 1}, "randomerase: 1.5 is no brightness from 0 to 1"),
        ({"randomerase": [0, 0, -0.5], "rules": 1}, "randomerase: [0.0, 0.0, -0.5] is no brightness from 0 to 1"),
        ({"eval_crop": 0}, "eval_crop: 0 is not allowed"),
        ({"eval_crop": 1.1}, "eval_crop: 1.1 is not allowed"),
        ({"mean": [0.5, 0.5]}, "mean: has 2 numbers: give one for red, green and blue each, or one for all"),
        ({"mean": [123.7, 0.5, 0.4]}, "mean.0: 123.7 is not allowed"),
        ({"std": 0}, "std.0: 0 is not allowed"),
        ({"std": [0.2, 0.2, 58.4]}, "std.2: 58.4 is not allowed"),
        ({"augment_on": "gpu"}, 'augment_on: "gpu" is not allowed'),
        ({"image_column": "img"}, "image_column: only an 'hf:' data set has columns"),
        ({"label_column": "cls", "dataset": "digits"}, "label_column: only an 'hf:' data set has columns"),
    ],
)
def test_a_contradiction_between_parameters_is_reported(given: dict[str, Any], said: str) -> None:
    assert problem(**given).startswith(said)


@pytest.mark.parametrize(
    ("given", "parent"),
    [
        ("first", "first"),
        ("v1.2 of mine", "v1.2 of mine"),
        ("models/resnet18/first", None),
        ("./first", None),
        ("~/first", None),
        ("best.safetensors", None),
        ("old.pt", None),
        ("old.pth", None),
    ],
)
def test_a_single_word_to_start_from_is_the_name_of_a_job(given: str, parent: str | None) -> None:
    job = parse(finetune=True, finetune_args={"starting_params": given, "freeze_modules": ["conv1"]})
    assert job.parent_job == parent


@pytest.mark.parametrize(("path", "text"), [("models/a", "models/a"), ("/models/a", "/models/a"), ("a", "./a")])
def test_a_path_takes_the_place_of_a_name_and_is_none_itself(path: str, text: str) -> None:
    named = parse(finetune=True, finetune_args={"starting_params": "first", "freeze_modules": ["conv1"]})
    job = named.starting_from(Path(path))
    assert job.parent_job is None
    assert job.completed()["finetune_args"] == {**named.completed()["finetune_args"], "starting_params": text}
    assert named.incompatible_diff(job.completed()).keys() == {"finetune_args"}


def test_a_job_without_fine_tuning_has_no_parent() -> None:
    assert parse().parent_job is None
    assert parse(finetune=True, after=["first"]).parent_job is None, "the one before it may make its run folder"


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        (0.4, [40]),
        (40, [40]),
        ([0.1, 0.25, 1.0], [10, 25, 100]),
        ([10, 100], [10, 100]),
        (1, [100]),
        ("all", "all"),
    ],
)
def test_visibility_is_a_percentage_or_a_share(given: Any, meant: Any) -> None:
    job = parse(Occlusion={"form": "bars", "visibility": given})
    assert job.Occlusion is not None
    assert job.Occlusion.visibility == meant
    assert parse(Occlusion=job.completed()["Occlusion"]).Occlusion == job.Occlusion


@pytest.mark.parametrize("visibility", [0, -0.5, 101, 2.5, True, [10, "x"], [], "some", 0.004])
def test_what_is_no_visibility_is_refused(visibility: Any) -> None:
    assert problem(Occlusion={"form": "bars", "visibility": visibility}).startswith("Occlusion.visibility")


@pytest.mark.parametrize("words", ["contrastive-no-blur-weak-resize", "contrastive-weak-resize-no-blur"])
def test_words_of_a_transform_may_come_in_any_order(words: str) -> None:
    base, *more = transform_parts(parse(transform_type=words).transform_type)
    assert (base, sorted(more)) == ("contrastive", ["no-blur", "weak-resize"])


def test_sigmas_give_the_frames_and_clips_count_num_views_per_batch() -> None:
    job = parse(video=True, Blur={"sigmas": [16, 8, 4, 2, 1, 0]}, batch_size=128)
    assert (job.views_per_image, job.num_views, job.view_dependence) == (6, 1, True)
    assert parse(video=True, num_views=4, view_dependence=False).view_dependence is False
    assert parse(video=True, num_views=4).views_per_image == 4
    assert parse(num_views=2, Blur={"sigmas": [1, 2, 3]}).views_per_image == 2


def test_the_probabilities_of_a_clips_frames_are_their_own() -> None:
    assert parse(video=True, Blur={"sigmas": [4, 2], "probs": [1, 1]}).Blur is not None


def test_a_job_file_as_labs_have_them_is_a_job() -> None:
    """Shares for visibilities with 1.0 among them, empty sections, nulls, whole numbers where there may be others."""
    job = parse(
        Occlusion={
            "color": "random",
            "form": ["barAll04", "mudSplash"],
            "occluder_dir": "/labs/occluders",
            "probability": 1,
            "views": [0],
            "visibility": [0.1, 0.5, 1.0],
            "vis_probs": [0.2, 0.3, 0.5],
        },
        Noise={
            "noise_types": ["fourier", "gaussian"],
            "probs": 0.8,
            "ssnrs": [0.2, 0.4],
            "mean_magnitude_path": "m.pt",
        },
        architecture_args={},
        batch_dependence=False,
        checkpoint=0,
        cutmix=None,
        mixup=False,
        randomerase=False,
        finetune=False,
        finetune_args={},
        num_views=1,
        swa=None,
        save_interval=None,
        transform_type="contrastive-no-blur-weak-resize",
        video=False,
        view_dependence=False,
    )
    assert job.finetune_args is None
    assert job.cutmix is job.mixup is job.randomerase is None


@pytest.mark.parametrize("metric", ["acc1", "acc5", "CrossEntropyLoss"])
def test_the_direction_of_a_metric_is_known(metric: str) -> None:
    assert parse(primary_metric=metric).higher_is_better == (metric != "CrossEntropyLoss")


# -- the same run or another --------------------------------------------------------------------------------------


def test_a_completed_job_is_a_job_file_of_the_same_job() -> None:
    job = parse(optimizer="AdamW", class_subset=[3, 1], wandb={"tags": ["a"]}, model_dir="runs/a", checkpoint=0)
    completed = json.loads(json.dumps(job.completed()))
    assert parse_job(json.dumps(completed).encode(), "job", where="config.json") == job


@pytest.mark.parametrize(
    "change",
    [
        {"num_epochs": 7},
        {"num_workers": 0},
        {"model_dir": "elsewhere"},
        {"data_root": "/elsewhere"},
        {"save_interval": 3},
        {"checkpoint": 0},
        {"description": "new"},
        {"trackers": []},
        {"wandb": {"mode": "offline"}},
        {"save_every_minutes": 1.5},
        {"augment_on": "loader"},
        {"knn_interval": 3},
        {"allow_changes": True},
    ],
)
def test_what_does_not_change_the_training_leaves_it_the_same_run(change: dict[str, Any]) -> None:
    assert parse(**change).incompatible_diff(parse().completed()) == {}


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        ({"batch_size": 128}, {"batch_size": (256, 128)}),
        ({"seed": 1}, {"seed": (0, 1)}),
        ({"optimizer_args": {"lr": 1.0}}, {"optimizer_args": (DEFAULT_SGD, {**DEFAULT_SGD, "lr": 1.0})}),
        ({"dataset": "digits"}, {"dataset": ("ILSVRC2012", "digits")}),
        ({"amp": False}, {"amp": (True, False)}),
    ],
)
def test_what_changes_the_training_makes_it_another_run(change: dict[str, Any], difference: dict[str, Any]) -> None:
    assert parse(**change).incompatible_diff(parse().completed()) == difference


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"description": "new", "model_dir": "elsewhere", "checkpoint": 0, "allow_changes": True}, ""),
        ({"num_epochs": 7, "save_interval": 2}, "num_epochs 100 -> 7, save_interval absent -> 2"),
        ({"data_root": "/elsewhere"}, 'data_root "~/Datasets" -> "/elsewhere"'),
        (
            {"optimizer_args": {"lr": 1.0, "momentum": 0.9}},
            "optimizer_args.lr 0.05 -> 1.0",
        ),
        ({"Blur": {"sigmas": [1], "probs": 0.5}}, 'Blur absent -> {"sigmas": [1.0], "probs": [0.5]}'),
        ({"wandb": {"tags": ["a"]}}, 'wandb.tags [] -> ["a"]'),
    ],
)
def test_changes_are_described_in_the_terms_of_a_job_file(change: dict[str, Any], told: str) -> None:
    assert describe(parse(**change).diff(parse().completed())) == told


def test_a_job_made_in_python_raises_the_lines_of_a_job_file():
    with pytest.raises(InvalidJob) as caught:
        Job(architecture="resnet18", num_epoch=3, batch_size=-1)
    lines = caught.value.problems
    assert "num_epoch: unknown key; did you mean 'num_epochs' or 'num_processes'?" in lines
    assert [problem.key for problem in caught.value.details] == ["num_epoch", "batch_size"]


@pytest.mark.parametrize(
    ("key", "given", "is_drawn", "comes"),
    [
        ("Blur", {"sigmas": [1, 2], "probs": 0}, False, False),
        ("Blur", {"sigmas": [0], "probs": 1}, True, False),
        ("Blur", {"sigmas": [0, 2], "probs": [1, 0]}, True, False),
        ("Blur", {"sigmas": [0, 2]}, True, True),
        ("Noise", {"ssnrs": [0.5], "probs": [0]}, False, False),
        ("Noise", {"ssnrs": [1.0]}, True, False),
        ("Noise", {"ssnrs": [1.0, 0.5], "probs": [0, 0.5]}, True, True),
    ],
)
def test_whether_an_effect_is_drawn_and_whether_it_then_does_something(
    key: str, given: dict[str, Any], is_drawn: bool, comes: bool
) -> None:
    section = getattr(parse(**{key: given}), key)
    assert (section.is_drawn, section.comes) == (is_drawn, comes)


@pytest.mark.parametrize(
    ("given", "needed"),
    [({"noise_types": "fourier"}, True), ({"noise_types": "fourier", "probs": 0}, False), ({}, False)],
)
def test_a_spectrum_is_needed_for_fourier_noise_that_is_drawn(given: dict[str, Any], needed: bool) -> None:
    noise = parse(Noise=given).Noise
    assert noise is not None
    assert noise.needs_spectrum is needed
