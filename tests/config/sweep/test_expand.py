"""One job and values for some of its parameters become many: their content, run folders, groups, and names."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from helpers import said_by

from accel_trainer.config import Job, job_name, parse_job
from accel_trainer.config.file_names import MAX_NAME_BYTES
from accel_trainer.config.sweep.axes import grid, parse_axes
from accel_trainer.config.sweep.expand import MAX_TAG, Base, SweptJob, check_sweep_name, job_names, swept_jobs
from accel_trainer.core.errors import UserError

BASE: dict[str, Any] = {"architecture": "resnet18", "dataset": "digits"}


def swept(*words: str, sweep: str = "base", **given: Any) -> list[SweptJob]:
    base = Base({**BASE, **given}, "base", "base.json")
    return swept_jobs(base, sweep, grid(parse_axes(words)))


def jobs(*words: str, **given: Any) -> list[Job]:
    return [job.job for job in swept(*words, **given)]


def contents(*words: str, **given: Any) -> list[dict[str, Any]]:
    return [json.loads(job.content) for job in swept(*words, **given)]


def names(*words: str, sweep: str = "base") -> list[str]:
    return job_names(sweep, grid(parse_axes(words)))


# -- content -----------------------------------------------------------------------------------------------------


def test_a_file_of_a_sweep_has_the_base_with_its_own_values() -> None:
    found = swept("seed=1,2", "image_size=32", description="a base")
    assert [job.settings for job in found] == [{"seed": 1, "image_size": 32}, {"seed": 2, "image_size": 32}]
    for job in found:
        assert {**json.loads(job.content), "wandb": None} == {
            **BASE, "description": "a base", "image_size": 32, "seed": job.settings["seed"], "wandb": None
        }  # fmt: skip
        assert parse_job(job.content, job.name, "x") == job.job
        assert job.content.endswith(b"\n")


def test_the_same_again_is_the_same_to_the_byte() -> None:
    words = ("optimizer_args.lr=0.1,0.2", "Noise.ssnrs=[0.5],[0.25,0.75]")
    assert swept(*words, Noise={"probs": [0.5]}) == swept(*words, Noise={"probs": [0.5]})


def test_the_base_is_left_as_it_is() -> None:
    given: dict[str, Any] = {"optimizer_args": {"lr": 1}, "wandb": {"tags": ["mine"]}}
    swept("optimizer_args.lr=0.1,0.2", **given)
    assert given == {"optimizer_args": {"lr": 1}, "wandb": {"tags": ["mine"]}}


def test_a_value_inside_an_object_leaves_the_others_in_it() -> None:
    given = {"optimizer_args": {"lr": 1, "momentum": 0.5}}
    assert [job.optimizer_args for job in jobs("optimizer_args.lr=0.1,0.2", **given)] == [
        {"lr": 0.1, "momentum": 0.5, "weight_decay": 1e-4},
        {"lr": 0.2, "momentum": 0.5, "weight_decay": 1e-4},
    ]


@pytest.mark.parametrize("given", [{}, {"optimizer_args": None}, {"optimizer": None}, {"optimizer": "SGD"}])
def test_one_inside_an_object_that_is_absent_leaves_its_defaults(given: dict[str, Any]) -> None:
    """Or a sweep of the learning rate would be one without momentum too."""
    (job,) = jobs("optimizer_args.lr=0.1", "scheduler_args.gamma=0.5", **given)
    default = Job(architecture="resnet18")
    assert job.optimizer_args == {**default.optimizer_args, "lr": 0.1}
    assert job.scheduler_args == {**default.scheduler_args, "gamma": 0.5}
    assert default.optimizer_args["lr"] == 0.05


def test_those_defaults_are_of_the_optimizer_that_the_job_has() -> None:
    found = jobs("optimizer_args.lr=0.1", "optimizer=SGD,AdamW")
    assert [job.optimizer_args for job in found] == [{"lr": 0.1, "momentum": 0.9, "weight_decay": 1e-4}, {"lr": 0.1}]


@pytest.mark.parametrize("given", [True, False, None, {}])
def test_what_may_be_true_becomes_an_object(given: Any) -> None:
    found = jobs("cutmix.alpha=0.5,2", cutmix=given)
    assert [job.cutmix.alpha for job in found if job.cutmix is not None] == [0.5, 2]


def test_null_in_an_axis_stands_for_the_default() -> None:
    off, on = jobs('swa=null,{"start": 3}', swa={"start": 2})
    assert (off.swa, on.swa and on.swa.start) == (None, 3)


def test_what_the_base_lacks_may_vary() -> None:
    combinations = grid(parse_axes(["architecture=resnet18,vgg11"]))
    found = swept_jobs(Base({"dataset": "digits"}, "base", "base.json"), "base", combinations)
    assert [job.job.architecture for job in found] == ["resnet18", "vgg11"]


# -- mistakes ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "given", "said"),
    [
        (["seed=0,-1"], {}, "base.json with seed=-1: seed: -1 is not allowed"),
        (["lr=1,2"], {}, "base.json with lr=1 (and 1 more): lr: unknown key; it belongs into optimizer_args"),
        (["num_epoch=1"], {}, "base.json with num_epoch=1: num_epoch: unknown key; did you mean 'num_epochs'"),
        (
            ["num_views=1,2", "batch_size=32,33"],
            {},
            "base.json with num_views=2, batch_size=33: batch_size: 33 images cannot be 2 views each",
        ),
        (["Noise.ssnr=0.1"], {}, "Noise.ssnr: unknown key; did you mean 'ssnrs'?"),
        (["name=x"], {}, "name: a job has the name of its file"),
        (["dataset.x=1"], {}, "base.json with dataset.x=1: dataset: digits is no object {...} in which x could be set"),
        (["seed=1"], {"wandb": 5}, "base.json with seed=1: wandb: 5 is not allowed"),
        (["seed=1"], {"wandb": {"tags": "mine"}}, 'wandb.tags: "mine" is not allowed'),
        (["seed=1"], {"finetune": True, "finetune_args": [1]}, "finetune_args: [1] is not allowed"),
        (["seed=1"], {"model_dir": 5}, "model_dir: 5 is not allowed"),
        (["seed=1"], {"model_dir": ""}, "model_dir: may not be empty"),
    ],
)
def test_a_mistake_names_the_first_combination_that_has_it(words: list[str], given: dict[str, Any], said: str) -> None:
    assert said in said_by(lambda: swept(*words, **given))


def test_each_mistake_has_a_line_and_a_sea_of_them_an_end() -> None:
    with pytest.raises(UserError) as caught:
        swept("seed=-1,0,-2")
    assert [line.split(" is not")[0] for line in caught.value.problems] == [
        "base.json with seed=-1: seed: -1",
        "base.json with seed=-2: seed: -2",
    ]
    with pytest.raises(UserError) as caught:
        swept("seed=" + ",".join(str(-number) for number in range(1, 100)))
    assert len(caught.value.problems) == 21


# -- run folders -------------------------------------------------------------------------------------------------


def test_by_default_the_folder_has_the_jobs_name() -> None:
    assert [str(job.run_path) for job in jobs("seed=0,1")] == [
        "models/resnet18/base-seed0",
        "models/resnet18/base-seed1",
    ]


def test_a_folder_that_is_given_has_one_for_each_job_inside() -> None:
    found = contents("seed=0,1", model_dir="~/runs/x/")
    assert [content["model_dir"] for content in found] == ["~/runs/x/base-seed0", "~/runs/x/base-seed1"]
    swept_too = jobs("seed=0,1", "model_dir=a,b")
    assert [str(job.run_path) for job in swept_too] == [
        "a/base-seed0-model_dir_a", "b/base-seed0-model_dir_b", "a/base-seed1-model_dir_a", "b/base-seed1-model_dir_b"
    ]  # fmt: skip


FINETUNED: list[tuple[dict[str, Any], str, str | None]] = [
    # What is given; the run folder of seed 0; where its weights come from.
    ({}, "models/resnet18/base/finetune/base-seed0", "models/resnet18/base"),
    ({"model_dir": "parent"}, "parent/finetune/base-seed0", "parent"),
    ({"model_dir": "parent", "finetune_args": {"finetune_dir": "tuned"}}, "parent/tuned/base-seed0", "parent"),
    (
        {"model_dir": "mine", "finetune_args": {"starting_params": "other/best.pt"}},
        "mine/finetune/base-seed0",
        "other/best.pt",
    ),
    (
        {"finetune_args": {"starting_params": "other/best.pt", "freeze_modules": ["fc"]}},
        "models/resnet18/base-seed0/finetune",
        "other/best.pt",
    ),
]


@pytest.mark.parametrize(("given", "folder", "start"), FINETUNED)
def test_fine_tuned_jobs_have_one_start_and_a_folder_each(given: dict[str, Any], folder: str, start: str) -> None:
    for parent in ("models/resnet18/base", "parent"):
        Path(parent, "params").mkdir(parents=True)
    first, second = jobs("seed=0,1", finetune=True, **given)
    assert (str(first.run_path), str(first.starting_path)) == (folder, start)
    assert first.run_path != second.run_path
    assert first.starting_path == second.starting_path
    assert first.finetuning is not None
    assert first.finetuning.freeze_modules == given.get("finetune_args", {}).get("freeze_modules", [])


def test_a_sweep_may_start_from_the_job_that_it_is_made_from() -> None:
    found = jobs("finetune_args.starting_params=base", "finetune=true", "seed=0,1")
    assert {job.parent_job for job in found} == {"base"}
    assert len({job.run_path for job in found}) == 2


# -- Weights & Biases --------------------------------------------------------------------------------------------


def test_jobs_of_a_sweep_are_a_group_with_a_tag_for_each_value() -> None:
    (job, _) = jobs("optimizer_args.lr=0.1", "seed=0,1", sweep="search", wandb={"project": "p", "tags": ["mine"]})
    assert (job.wandb.project, job.wandb.group, job.wandb.job_type) == ("p", "search", "sweep")
    assert job.wandb.tags == ["mine", "search", "lr=0.1", "seed=0"]


def test_a_group_of_ones_own_is_set_in_the_sweep() -> None:
    assert {job.wandb.group for job in jobs("seed=0,1", wandb={"group": "g"})} == {"base"}
    assert {job.wandb.group for job in jobs("seed=0,1", "wandb.group=g")} == {"g"}
    assert {job.wandb.job_type for job in jobs("seed=0,1", wandb={"job_type": "pilot"})} == {"pilot"}
    assert [job.wandb.tags for job in jobs('wandb.tags=["a"],["b","base"]')] == [
        ["a", "base", 'tags=["a"]'],
        ["b", "base", 'tags=["b", "base"]'],
    ]


def test_tags_fit_the_limit_of_wandb_and_still_distinguish_values() -> None:
    wandb = pytest.importorskip("wandb")
    long = "x" * 100
    found = jobs(f"description={long}1,{long}2", sweep="s" * 90)
    tags = [tag for job in found for tag in job.wandb.tags]
    assert {len(tag) for tag in tags} == {MAX_TAG}
    assert len(set(tags)) == 3  # the sweep's, and one for each value
    wandb.Settings(run_tags=found[0].wandb.tags)
    with pytest.raises(ValueError, match="64"):
        wandb.Settings(run_tags=["x" * (MAX_TAG + 1)])


# -- names -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["optimizer_args.lr=0.1,1e-5", "seed=2"], ["base-lr0.1-seed2", "base-lr1e-05-seed2"]),
        (["optimizer=AdamW", "amp=true", "swa=null"], ["base-optimizer_AdamW-amp_true-swa_null"]),
        (["Noise.probs=0.5", "Blur.probs=1"], ["base-Noise.probs0.5-Blur.probs1"]),
        (["Noise.ssnrs=[0.2,0.4]"], ["base-ssnrs0.2_0.4"]),
        (["loss_cycle=-1,1"], ["base-loss_cycle-1", "base-loss_cycle1"]),
        (["architecture_args.v2=5,50"], ["base-v2_5", "base-v2_50"]),
        (["transform_type=contrastive-no-blur"], ["base-transform_type_contrastive-no-blur"]),
    ],
)
def test_names_of_swept_jobs_are_readable_by_people(words: list[str], expected: list[str]) -> None:
    assert names(*words) == expected


HOSTILE = (
    ["a=x/y,x:y,x_y", "b=1"],
    ["a=../..,..,.,/"],
    ['a="x y","x\\ty","x\\ny","*","~2","@",""'],
    ['a=0.1,"0.1",[0.1]'],
    ['a={},{"b":1},{"b":2},[],[[1],[2,3]],[[1,2],[3]]'],
    ["a=Form,form,FORM"],
    ["a=é,e\u0301,数据集"],
    ["a=x-b1,x", "b=2,1-b2"],
    [f"a={'x' * 200}1,{'x' * 200}2"],
    [f"a={'数' * 40}1,{'数' * 40}2", f"b={'é' * 40},c", "c=[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19]"],
    [f"{'k' * 60}{letter}=1" for letter in "abcd"],
    ["a/b.c/d=1", "x y=2"],
)


@pytest.mark.parametrize(
    "sweep", ["base", "b" * MAX_NAME_BYTES, "é" * (MAX_NAME_BYTES // 2)], ids=["short", "long", "bytes"]
)
@pytest.mark.parametrize("words", HOSTILE, ids=range(len(HOSTILE)))
def test_names_of_swept_jobs_are_valid_files_and_all_different(words: list[str], sweep: str) -> None:
    found = names(*words, sweep=sweep)
    assert len({name.casefold() for name in found}) == len(found)
    for name in found:
        assert job_name(Path(f"{name}.json")) == name
        assert not set(name) & set("/\\:*?\"'<>| ~@$&;()[]{}\t\n")
        assert len(os.fsencode(name)) <= MAX_NAME_BYTES
        Path(f"{name}.json").touch()
    assert len(list(Path().iterdir())) == len(found)


def test_more_values_later_leave_the_names_as_they_are() -> None:
    """Or the jobs that are trained already would be trained again."""
    few = names("a=x/y,1", 'b={"c":1}', f"d={'x' * 50}1")
    assert set(few) < set(names("a=x_y,x/y,1,2", 'b={"c":1},{"c":2}', f"d={'x' * 50}1,{'x' * 50}2"))


@pytest.mark.parametrize("name", ["", "a/b", "../x", ".x", "-x", "a\nb", "x" * (MAX_NAME_BYTES + 1)])
def test_a_sweep_has_a_name_that_jobs_may_have(name: str) -> None:
    line = said_by(check_sweep_name, name)
    assert "begins the names of job files" in line or "a job's name may" in line


def folders(words: Sequence[str], given: Mapping[str, Any]) -> list[str]:
    return [str(job.run_path) for job in jobs(*words, **given)]


@pytest.mark.parametrize("given", [{}, {"model_dir": "m"}, *({"finetune": True, **given} for given, *_ in FINETUNED)])
def test_no_two_jobs_ever_share_a_run_folder(given: dict[str, Any]) -> None:
    for parent in ("models/resnet18/base", "parent", "m"):
        Path(parent, "params").mkdir(parents=True)
    found = folders(["description=x/y,x_y,X_Y,x:y", "seed=1,11", "ema=0.1,0.11"], given)
    assert len({path.casefold() for path in found}) == len(found) == 16
