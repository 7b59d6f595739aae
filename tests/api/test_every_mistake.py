"""All mistakes of a file are in one answer: some are planted, each of which is found alone."""

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from accel_trainer.api.verdicts import check_job, in_whole_file, make_check
from accel_trainer.core.errors import UserError
from accel_trainer.launch.command import LaunchOptions
from accel_trainer.queue.store import QueueStore

GOOD: dict[str, Any] = {
    "architecture": "cornet_z",
    "dataset": "digits",
    "image_size": 32,
    "batch_size": 64,
    "num_epochs": 8,
    "trackers": [],
    "Noise": {"noise_types": ["fourier"], "ssnrs": [0.5]},
    "scheduler_args": {"step_size": 3},
    "warmup_scheduler": "LinearLR",
    "warmup_scheduler_args": {"total_iters": 2},
}


@dataclass(frozen=True)
class Mistake:
    """at: the place in the job, "swa.start"; value: the wrong one; said: what its line begins with."""

    at: str
    value: Any
    said: str
    hides: tuple[str, ...] = ()
    """Other parameters that are not known, or not looked at, because of it."""


TABLE = (
    Mistake("num_wokers", 3, "num_wokers: unknown key", ("num_workers",)),
    Mistake("num_workers", -1, "num_workers: -1"),
    Mistake("seed", -1, "seed: -1"),
    Mistake("amp", "yes", "amp: "),
    Mistake("transform_type", "nonsense", "transform_type: 'nonsense'"),
    Mistake("class_subset", [1, 1, 2], "class_subset: [1, 1, 2] names a class twice"),
    Mistake("class_subset", [3, 99], "class_subset"),
    Mistake("batch_size", 0, "batch_size: 0"),
    Mistake("primary_metric", "acc9", "primary_metric: 'acc9'", ("criterion",)),
    Mistake("optimizer", "SGDD", "optimizer: 'SGDD'", ("optimizer_args",)),
    Mistake("optimizer_args.momentm", 0.9, "optimizer_args.momentm: SGD takes no such argument"),
    Mistake("optimizer_args.wd", 0.9, "optimizer_args.wd: SGD takes no such argument"),
    Mistake("optimizer_args.nesterov", "no", "optimizer_args: SGD: nesterov is 'no'"),
    Mistake("optimizer_args.dampening", "no", "optimizer_args: SGD: dampening is 'no'"),
    Mistake("optimizer_args.differentiable", True, "optimizer_args.differentiable: SGD cannot take a step with it"),
    Mistake("scheduler", "StepLRR", "scheduler: 'StepLRR'", ("scheduler_args",)),
    Mistake("scheduler_args.stepsize", 3, "scheduler_args.stepsize: StepLR takes no such argument"),
    Mistake("scheduler_args.gamma", "0.1", "scheduler_args: StepLR: gamma is '0.1'"),
    Mistake("scheduler_args", {"stepsize": 3}, "scheduler_args.stepsize: StepLR takes no such argument"),
    Mistake("warmup_scheduler", "LinearRL", "warmup_scheduler: 'LinearRL'", ("warmup_scheduler_args",)),
    Mistake("warmup_scheduler_args.total_iters", 0, "warmup_scheduler_args.total_iters: 0"),
    Mistake("warmup_scheduler_args.start_factor", "x", "warmup_scheduler_args: LinearLR: start_factor is 'x'"),
    Mistake("warmup_scheduler_args.start", 0.1, "warmup_scheduler_args.start: LinearLR takes no such argument"),
    Mistake("criterion", "CrossEntropyLos", "criterion: 'CrossEntropyLos'", ("criterion_args", "primary_metric")),
    Mistake("criterion_args.label_smooth", 0.1, "criterion_args.label_smooth: "),
    Mistake("loss_cycle", 99, "loss_cycle: ", ("architecture", "architecture_args")),
    Mistake("architecture", "cornet_zz", "architecture: no model 'cornet_zz'", ("architecture_args", "loss_cycle")),
    Mistake("architecture", "CORnet-Z", "architecture: 'CORnet-Z' is a name of older files"),
    Mistake("architecture", 5, "architecture: 5", ("architecture_args", "loss_cycle", "pretrained")),
    Mistake("architecture_args.depht", 3, "architecture_args.depht: cornet_z takes no such argument", ("loss_cycle",)),
    Mistake("architecture_args.widht", 3, "architecture_args.widht: cornet_z takes no such argument", ("loss_cycle",)),
    Mistake("Occlusion.occluder_dir", "nowhere", "Occlusion.occluder_dir: "),
    Mistake("Occlusion.probability", 2, "Occlusion.probability: 2"),
    Mistake("Noise.mean_magnitude_path", "nowhere.pt", "Noise.mean_magnitude_path: no file"),
    Mistake("Noise.ssnrs", [], "Noise.ssnrs: []"),
    Mistake("eval_sets", ["nowhere"], "eval_sets: "),
    Mistake("dataset", "nothing", "dataset: no folder", ("class_subset", "data_root")),
    Mistake("swa.start", 9, "swa.start: 9 is after the last epoch"),
    Mistake("swa.anneal_strategy", "log", "swa.anneal_strategy: "),
    Mistake("model_dir", "/dev/null/run", "model_dir: "),
    Mistake("trackers", ["wandbb"], "trackers: no tracker 'wandbb'"),
    Mistake("save_interval", 0, "save_interval: 0"),
    Mistake("cutmix", {"alpha": -1}, "cutmix"),
    Mistake("ema", 2, "ema: 2"),
    Mistake("layer_decay", 0, "layer_decay: 0"),
    Mistake("finetune_args", {"freeze_modules": []}, "finetune_args: given, but finetune is false"),
    Mistake("pretrained", "NOPE_V1", "pretrained: ", ("architecture", "architecture_args", "loss_cycle")),
    Mistake("after", ["job"], "after: "),
    Mistake("lr", 0.1, "lr: unknown key; it belongs into optimizer_args", ("optimizer_args",)),
)


def with_mistakes(mistakes: list[Mistake]) -> dict[str, Any]:
    job = json.loads(json.dumps(GOOD))
    for mistake in mistakes:
        *outer, last = mistake.at.split(".")
        place = job
        for name in outer:
            place = place.setdefault(name, {})
        place[last] = mistake.value
    for section, needed in (("Occlusion", {"form": "mud_splash"}), ("swa", {"start": 4})):
        if section in job:
            job[section] = {**needed, **job[section]}
    return job


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> Callable[[dict[str, Any]], list[str]]:
    """What is wrong with a job, in lines."""
    folder = tmp_path_factory.mktemp("jobs")
    path, queue, check = folder / "job.json", QueueStore(folder / "queue"), make_check(LaunchOptions())

    def look(given: dict[str, Any]) -> list[str]:
        path.write_text(json.dumps({"model_dir": str(folder / "run"), **given}))
        try:
            in_whole_file(path, lambda job: check_job(job, check, queue))
        except UserError as error:
            return [line.removeprefix(f"{path}: ") for line in error.problems]
        return []

    return look


Lines = Callable[[dict[str, Any]], list[str]]


def test_the_job_without_mistakes_has_none(lines: Lines) -> None:
    assert lines(with_mistakes([])) == []


@pytest.mark.parametrize("mistake", TABLE, ids=lambda mistake: f"{mistake.at}={mistake.value}")
def test_each_mistake_alone_has_a_line(lines: Lines, mistake: Mistake) -> None:
    (line,) = lines(with_mistakes([mistake]))
    assert line.startswith(mistake.said)


def test_nothing_is_said_of_a_model_that_stands_in_for_one_that_is_not_known(lines: Lines) -> None:
    of_another = {
        "architecture_args": {"return_cycles": "all"},
        "finetune": True,
        "finetune_args": {"starting_params": "./nowhere", "freeze_modules": ["V1"]},
        "loss_cycle": 2,
        "video": True,
        "Blur": {"sigmas": [2, 1]},
    }
    (line,) = lines({**GOOD, **of_another, "architecture": ["cornet_rt"]})
    assert line.startswith("architecture: ")


def independent(chosen: list[Mistake]) -> bool:
    """Whether no one of them is in the same place as another, or hides it."""
    for n, one in enumerate(chosen):
        for other in chosen[:n]:
            if one.at.startswith(other.at) or other.at.startswith(one.at) or _hidden(one, other) or _hidden(other, one):
                return False
    return True


def _hidden(one: Mistake, by: Mistake) -> bool:
    """A wrong value in a section hides what the others of that section mean together."""
    top, other = one.at.partition(".")[0], by.at.partition(".")[0]
    return top in by.hides or (top == other and not top.endswith("_args"))


@pytest.mark.parametrize("number", [2, 3, 4, 5])
def test_all_mistakes_of_a_file_are_in_one_answer(lines: Lines, number: int) -> None:
    generator, tried = random.Random(number), 0
    while tried < 40:
        chosen = generator.sample(TABLE, number)
        if not independent(chosen):
            continue
        tried += 1
        found = lines(with_mistakes(chosen))
        for mistake in chosen:
            assert any(line.startswith(mistake.said) for line in found), (mistake, chosen, found)
        assert len(found) == number, (chosen, found)
