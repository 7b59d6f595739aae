"""Trials of degraded images that are read from disk, as they are published."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import helpers
import numpy as np
import pytest
from accelerate.state import AcceleratorState, GradientState, PartialState
from tiny_runs import finish

from accel_trainer.config.evaluation import EvaluationPlan
from accel_trainer.core.errors import UserError
from accel_trainer.data.sources.digits import Digits
from accel_trainer.degradations.registry import find_degradations
from accel_trainer.degradations.render import render
from accel_trainer.evaluation.check import check_plan
from accel_trainer.evaluation.run_plan import EvaluationStopped, Measured, run_plan
from accel_trainer.measures.accuracy import accuracy
from accel_trainer.measures.trials import Trials
from accel_trainer.measures.trials_file import read_trials
from accel_trainer.report.compare import compare
from accel_trainer.run.folder import RunFolder

one_core = pytest.fixture(autouse=True)(helpers.one_core)
LEVELS = (1, 3)


@pytest.fixture(autouse=True)
def on_cpu(monkeypatch: pytest.MonkeyPatch, no_plots: None) -> Iterator[None]:
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    yield
    for state in (AcceleratorState, GradientState, PartialState):
        state._reset_state()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    folder = tmp_path_factory.mktemp("run") / "run"
    finish(folder, name="plain", num_epochs=2, batch_size=32, transform_type="none", image_size=32, class_subset=None)
    return RunFolder(folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Digits, whose classes are called as severities are, as ImageNet-C is laid out."""
    out = tmp_path_factory.mktemp("set") / "digits-c"
    fog, contrast = find_degradations(["imagenet-c/fog", "imagenet-c/contrast"])
    conditions = [one.condition(level) for one in (contrast, fog) for level in LEVELS]
    render(Digits("val"), conditions, out, size=32, crop=0.875, num_threads=2)
    return out


def stored(folder: Path, **given: object) -> EvaluationPlan:
    return EvaluationPlan.parse({"degraded_set": str(folder), **given})


def numbers(measured: Measured) -> dict[tuple[str, ...], tuple[float, int]]:
    figures = accuracy(read_trials(measured.folder.trials))
    return {tuple(one.cell.levels.values()): (one.value, one.n) for one in figures}


def in_order(trials: Trials) -> np.ndarray:
    columns = (trials.image, trials.condition("level"), trials.condition("degradation"))
    return np.lexsort([column.values() for column in columns])


def test_a_set_on_disk_has_the_trials_of_the_same_images_made_here(run: RunFolder, folder: Path) -> None:
    choices = [{"name": f"imagenet-c/{name}", "levels": list(LEVELS)} for name in ("contrast", "fog")]
    made = run_plan(run, EvaluationPlan.parse({"degradations": choices}))
    read = run_plan(run, stored(folder))
    assert read.folder.path.name.startswith("digits-c")
    assert numbers(read) == numbers(made)
    assert len(numbers(read)) == 4
    own, theirs = read_trials(read.folder.trials), read_trials(made.folder.trials)
    assert own.conditions.keys() == theirs.conditions.keys()
    assert own.probabilities is not None
    assert theirs.probabilities is not None
    assert np.array_equal(own.probabilities[in_order(own)], theirs.probabilities[in_order(theirs)])
    # Figures such as mCE find their columns, as of images that are made here.
    for column in ("benchmark", "corruption", "severity"):
        found = (np.array(one.condition(column).values())[in_order(one)].tolist() for one in (own, theirs))
        assert next(found) == next(found)


def test_one_that_was_ended_goes_on_and_one_that_is_whole_is_only_read(run: RunFolder, folder: Path) -> None:
    undisturbed = run_plan(run, stored(folder, name="undisturbed", batch_size=50))
    looks = iter([False] * 4 + [True] * 100)
    with pytest.raises(EvaluationStopped):
        run_plan(run, stored(folder, name="ended", batch_size=50), is_stopped=lambda: next(looks))
    whole = run_plan(run, stored(folder, name="ended", batch_size=50))
    total = 4 * len(Digits("val").labels)
    assert 0 < whole.computed < total
    assert whole.folder.trials.read_bytes() == undisturbed.folder.trials.read_bytes()
    assert run_plan(run, stored(folder, name="ended", batch_size=50)).computed == 0


def test_the_same_images_elsewhere_are_the_same_evaluation_and_others_are_not(
    run: RunFolder, folder: Path, tmp_path: Path
) -> None:
    first = run_plan(run, stored(folder, name="moved"))
    copy = shutil.copytree(folder, tmp_path / "copy")
    assert run_plan(run, stored(copy, name="moved")).computed == 0
    some = next(copy.rglob("*.png"))
    some.write_bytes(some.read_bytes() + b" ")
    with pytest.raises(UserError, match="other images; give"):
        run_plan(run, stored(copy, name="moved"))
    assert first.record.complete


def test_quantities_of_a_set_are_those_of_degradations_that_are_made_here(run: RunFolder, tmp_path: Path) -> None:
    names = ["noise/gaussian", "imagenet-c/fog"]
    chosen = [one.condition(level) for one, level in zip(find_degradations(names), (0.4, 3), strict=True)]
    chosen += [one.condition("none") for one in find_degradations(names)]
    render(Digits("val"), chosen, tmp_path / "set", size=32, crop=0.875, num_threads=2)
    trials = read_trials(run_plan(run, stored(tmp_path / "set", probabilities=0)).folder.trials)
    cells = [cell.levels for cell, _ in trials.cells(["degradation", "level", "ssnr", "corruption", "severity"])]
    assert sorted(tuple(levels.values()) for levels in cells) == [
        ("imagenet-c/fog", "3", "", "fog", "3"),
        ("imagenet-c/fog", "none", "", "fog", "0"),
        ("noise/gaussian", "0.4", "0.4", "", ""),
        ("noise/gaussian", "none", "1", "", ""),
    ]


def test_compare_has_the_run_on_its_own_images_alone(run: RunFolder, folder: Path, tmp_path: Path) -> None:
    run = RunFolder(shutil.copytree(run.path, tmp_path / "run", ignore=shutil.ignore_patterns("evaluations")))
    own = EvaluationPlan.parse({"degradations": [{"name": "imagenet-c/fog", "levels": [3]}], "name": "own"})
    accuracy_of_own = 100 * float(read_trials(run_plan(run, own).folder.trials).correct.mean())
    run_plan(run, stored(folder, name="published"))
    assert compare([run])[0].degraded == {"imagenet-c/fog": pytest.approx(accuracy_of_own)}


def test_a_corrupt_image_is_left_out_and_named_with_its_condition(run: RunFolder, folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(folder, tmp_path / "copy")
    some = sorted((copy / "imagenet-c/fog/3").rglob("*.png"))[0]
    some.write_bytes(b"no image")
    found = run_plan(run, stored(copy, name="corrupt"))
    assert found.record.corrupt == [some.relative_to(copy).as_posix()]
    assert sorted(n for _, n in numbers(found).values()) == [449, 450, 450, 450]


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"degradations": ["blur"]}, "`degraded_set` has degraded images, and `degradations` makes them: give one"),
        ({"dataset": "digits"}, "`degraded_set` takes the place of the images of `dataset`: give one"),
    ],
)
def test_two_that_say_which_images_are_shown_are_a_mistake(folder: Path, given: dict[str, object], line: str) -> None:
    assert line in helpers.said_by(lambda: stored(folder, **given))


def test_a_set_that_is_none_is_found_before_the_gpu_is(run: RunFolder, folder: Path, tmp_path: Path) -> None:
    assert check_plan(stored(folder), run)["conditions"] == 4
    assert check_plan(stored(folder), run)["images"] == 450
    assert "no such folder" in helpers.said_by(check_plan, stored(tmp_path / "nowhere"), run)
    copy = shutil.copytree(folder, tmp_path / "copy")
    shutil.move(copy / "imagenet-c/fog/1/3", copy / "imagenet-c/fog/1/three")
    assert "three" in helpers.said_by(check_plan, stored(copy), run)
