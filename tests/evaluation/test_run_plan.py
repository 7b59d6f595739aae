"""Trials of trained models under degradations: exact where nothing is degraded, the same however they are measured."""

import errno
import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import helpers
import numpy as np
import pytest
from accelerate.state import AcceleratorState, GradientState, PartialState
from PIL import Image
from ranks import launched, run_two_ranks
from scipy.special import log_softmax
from tiny_runs import finish

from accel_trainer.config.evaluation import EvaluationPlan
from accel_trainer.core.errors import UserError
from accel_trainer.data.occluders.synthetic import make_occluders
from accel_trainer.data.sources.digits import Digits
from accel_trainer.degradations.registry import find_degradations
from accel_trainer.evaluation import answer_files
from accel_trainer.evaluation.accuracy import evaluate
from accel_trainer.evaluation.answer_files import AnswerFiles
from accel_trainer.evaluation.check import check_plan
from accel_trainer.evaluation.conditions import conditions_of
from accel_trainer.evaluation.run_plan import EvaluationStopped, Measured, run_plan
from accel_trainer.measures.accuracy import accuracy
from accel_trainer.measures.consistency import error_consistency
from accel_trainer.measures.factor import Factor
from accel_trainer.measures.measure import Measure, Settings, measure
from accel_trainer.measures.trials import Trials
from accel_trainer.measures.trials_file import read_trials, trial_blocks
from accel_trainer.run.evaluations import EvaluationFolder
from accel_trainer.run.folder import RunFolder
from accel_trainer.run.lock import Owner, acquire
from accel_trainer.run.performance import read_performance
from accel_trainer.training.runtime import accelerator as runtime

one_core = pytest.fixture(autouse=True)(helpers.one_core)

LEARNT: dict[str, Any] = {"num_epochs": 2, "batch_size": 32, "transform_type": "none", "save_interval": 1}
RECURRENT: dict[str, Any] = {
    "architecture": "blt_bl",
    "architecture_args": {"features": [4, 6, 8, 5], "kernel_sizes": [5, 3, 3, 1], "num_cycles": 3},
    "batch_size": 32,
}
NOISE = [{"name": "noise/gaussian", "levels": [1, 0.6, 0.2]}, "blur"]


@pytest.fixture(autouse=True)
def on_cpu(monkeypatch: pytest.MonkeyPatch, no_plots: None) -> Iterator[None]:
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    yield
    for state in (AcceleratorState, GradientState, PartialState):
        state._reset_state()


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, RunFolder]:
    """Runs of two architectures, one of them recurrent. Evaluations are added to them."""
    folder = tmp_path_factory.mktemp("runs")
    every = RECURRENT["architecture_args"] | {"return_cycles": "all"}
    finish(folder / "plain", name="plain", **LEARNT)
    finish(folder / "recurrent", name="recurrent", **{**RECURRENT, "architecture_args": every})
    return {name: RunFolder(folder / name) for name in ("plain", "recurrent")}


@pytest.fixture(scope="module")
def occluders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("occluders")
    make_occluders(folder, ["mud_splash", "vertical_bars_04"], [20, 60], number=3, size=32, report=lambda line: None)
    return folder


def plan(*degradations: Any, **given: Any) -> EvaluationPlan:
    return EvaluationPlan.parse({"degradations": list(degradations), **given})


def table(measured: Measured) -> Trials:
    return read_trials(measured.folder.trials)


def chosen(trials: Trials, **levels: str) -> Trials:
    for name, level in levels.items():
        trials = trials.select(trials.condition(name).is_in([level]))
    return trials


def files_of(folder: EvaluationFolder) -> dict[str, bytes]:
    names = ("trials.parquet", "summary.csv", "evaluation.json", "curves.png", "curves.pdf", "curves.svg")
    return {name: (folder.path / name).read_bytes() for name in names if (folder.path / name).exists()}


def problems(run: RunFolder, of: EvaluationPlan) -> list[str]:
    with pytest.raises(UserError) as caught:
        run_plan(run, of)
    return caught.value.problems


# -- what is not degraded -------------------------------------------------------------------------------------


def test_trials_of_images_as_they_are_have_the_accuracy_of_the_training(runs: dict[str, RunFolder]) -> None:
    run = runs["plain"]
    for weights, epoch in (("final", 2), ("1", 1), ("best", None)):
        trials = table(run_plan(run, plan(weights=weights)))
        (found,) = accuracy(trials)
        assert (found.n, found.cell.observer) == (135, "plain" if weights == "best" else f"plain@{weights}")
        assert found.cell.levels == {"benchmark": "digits"}
        assert 100 * trials.correct.sum() / len(trials) == evaluate(run, weights).scores["acc1"]
        logged = [row.scores["acc1"] for row in read_performance(run) if (row.epoch, row.split) == (epoch, "val")]
        assert [float(f"{100 * found.value:.8g}")] * len(logged) == logged
    assert found.value > 0.6, "it has learnt something"


def test_a_recurrent_model_has_a_row_for_each_cycle(runs: dict[str, RunFolder]) -> None:
    run = runs["recurrent"]
    trials = table(run_plan(run, plan(probabilities=2)))
    found = [(figure.cell.cycle, 100 * figure.value) for figure in accuracy(trials)]
    scores = evaluate(run).scores
    assert found == [(cycle, scores[f"acc1_cycle{cycle}"]) for cycle in range(3)]
    assert trials.image.values()[:4] == [trials.image.levels[0]] * 3 + [trials.image.levels[1]]
    assert trials.top_classes is not None
    assert trials.probabilities is not None
    assert trials.probabilities.shape == (405, 2)
    assert (trials.top_classes[:, 0] == [trials.classes.index(word) for word in trials.response.values()]).all()
    assert (trials.probabilities[:, 0] >= trials.probabilities[:, 1]).all()
    path = run_plan(run, plan(probabilities=2)).folder.trials
    figures = measure([path], Measure.REACTION_TIME, Settings(entropy=0.5)).figures
    (time,) = [figure.value for figure in figures if figure.metric == "reaction_time"]
    assert 0 <= time <= 2


def test_the_neutral_level_of_each_degradation_is_the_validation(runs: dict[str, RunFolder], occluders: Path) -> None:
    run = runs["plain"]
    as_they_are = table(run_plan(run, plan()))
    names = ["noise", "blur", "occlusion/mud_splash", "geirhos"]
    trials = table(run_plan(run, plan(*names, name="neutral", occluder_dir=str(occluders))))
    for degradation in find_degradations(["noise", "blur", "geirhos"]):
        own = chosen(trials, degradation=degradation.name, level=degradation.condition(degradation.neutral).level_text)
        assert own.response.values() == as_they_are.response.values()
        np.testing.assert_array_equal(own.probabilities, as_they_are.probabilities)
        np.testing.assert_array_equal(own.entropy, as_they_are.entropy)
    own = chosen(trials, degradation="occlusion/mud_splash", visibility="1")
    np.testing.assert_array_equal(own.probabilities, as_they_are.probabilities)
    degraded = chosen(trials, degradation="occlusion/mud_splash", visibility="0.2")
    assert not np.array_equal(degraded.probabilities, as_they_are.probabilities)


def test_probabilities_and_entropy_are_those_of_the_logits(runs: dict[str, RunFolder]) -> None:
    from accel_trainer.api.trained_run import Run

    run = Run(runs["plain"].path)
    trials = table(run_plan(runs["plain"], plan()))
    digits, model, transform = Digits("val"), run.model(), run.transform
    assert trials.probabilities is not None
    assert trials.entropy is not None
    for row in (0, 50, 134):
        label, number = trials.image.values()[row].split("/")
        assert label == str(digits.labels[int(number)]) == trials.true_class.values()[row]
        logits = model(transform(digits.read(int(number)))[None]).detach().numpy()[0]
        logs = log_softmax(logits.astype(float))
        np.testing.assert_allclose(trials.probabilities[row], np.exp(logs), rtol=1e-5)
        assert trials.entropy[row] == pytest.approx(-(np.exp(logs) * logs).sum(), rel=1e-5)


# -- the same however it is measured --------------------------------------------------------------------------


def test_two_models_see_the_same_pixels_and_agree_with_themselves(runs: dict[str, RunFolder]) -> None:
    one, other = (run_plan(runs[name], plan(*NOISE, name="same")) for name in ("plain", "recurrent"))
    assert one.record.degraded_sha256 == other.record.degraded_sha256
    assert one.record.conditions == other.record.conditions
    assert len(set(one.record.conditions.values())) == len(one.record.conditions) - 1  # two are neutral
    trials = table(one).without_probabilities()
    twin = replace(trials, observer=Factor.constant("twin", len(trials)))
    kappas = [f.value for f in error_consistency(Trials.joined([trials, twin]), by=["degradation", "level"])]
    assert kappas == [1.0] * 9


@pytest.mark.parametrize("threads", [0, 2])
@pytest.mark.parametrize("batch_size", [None, 50])
def test_threads_and_batches_change_no_pixel(
    runs: dict[str, RunFolder], monkeypatch: pytest.MonkeyPatch, threads: int, batch_size: int | None
) -> None:
    expected = run_plan(runs["plain"], plan(*NOISE, name="same"))
    monkeypatch.setattr(runtime, "loader_threads", lambda job: threads)
    found = run_plan(runs["plain"], plan(*NOISE, name=f"by-{threads}-{batch_size}", batch_size=batch_size))
    assert found.record.conditions == expected.record.conditions
    if batch_size is None:
        assert files_of(found.folder)["trials.parquet"] == files_of(expected.folder)["trials.parquet"]


TWO = """
from accel_trainer.config.evaluation import EvaluationPlan
from accel_trainer.evaluation.run_plan import run_plan
from accel_trainer.run.folder import RunFolder
from pathlib import Path
import json
given = json.loads(Path(folder, "plan.json").read_text())
measured = run_plan(RunFolder(Path(Path(folder, "run").read_text())), EvaluationPlan.parse(given))
Path(folder, f"computed-{rank}").write_text(str(measured.computed))
"""


def test_two_processes_write_the_same_table(runs: dict[str, RunFolder], tmp_path: Path) -> None:
    expected = run_plan(runs["plain"], plan(*NOISE, name="same"))
    (tmp_path / "plan.json").write_text(json.dumps({"degradations": NOISE, "name": "two"}))
    (tmp_path / "run").write_text(str(runs["plain"].path))
    run_two_ranks(launched(TWO), tmp_path)
    folder = EvaluationFolder(runs["plain"].evaluations / "two")
    assert [(tmp_path / f"computed-{rank}").read_text() for rank in (0, 1)] == [str(135 * 8)] * 2
    for name in ("trials.parquet", "summary.csv"):
        assert files_of(folder)[name] == files_of(expected.folder)[name]
    again = run_plan(runs["plain"], plan(*NOISE, name="two"))
    assert again.computed == 0
    assert again.record.conditions == expected.record.conditions


@pytest.mark.parametrize("flush_every_s", [0.0, 100.0])
def test_an_evaluation_that_was_ended_is_gone_on_with(
    runs: dict[str, RunFolder], monkeypatch: pytest.MonkeyPatch, flush_every_s: float
) -> None:
    """Ended after some batches, in the middle of a write, and while the table is written."""
    run = runs["plain"]
    expected = run_plan(run, plan(*NOISE, name="same"))
    monkeypatch.setattr(answer_files, "FLUSH_EVERY_S", flush_every_s)
    write, flush, computed = AnswerFiles.write, AnswerFiles.flush, []
    for ends_in in (0, 1, 13, 39):
        calls = [0]

        def ending(files: AnswerFiles, *args: Any, calls: list[int] = calls, last: int = ends_in) -> bool:
            calls[0] += 1
            if calls[0] > last:
                os.pwrite(files._open["answers"], b"half a row", (args[0] * 135 + args[1]) * files._row_bytes)
                raise KeyboardInterrupt
            return write(files, *args)

        name = f"ended-{ends_in}-{flush_every_s}"
        with monkeypatch.context() as patch:
            patch.setattr(AnswerFiles, "write", ending)
            patch.setattr(AnswerFiles, "flush", flush if flush_every_s == 0 else lambda files: None)
            with pytest.raises(KeyboardInterrupt):
                run_plan(run, plan(*NOISE, name=name))
        again = run_plan(run, plan(*NOISE, name=name))
        computed.append(135 * 8 - again.computed)
        assert again.record.degraded_sha256 == expected.record.degraded_sha256
        assert files_of(again.folder)["trials.parquet"] == files_of(expected.folder)["trials.parquet"]
        assert sorted(helpers.file_names(again.folder.path)) == sorted(files_of(expected.folder))
    assert computed == ([0, 32, 416, 1073] if flush_every_s == 0 else [0] * 4)  # nothing is noted before it is there


def test_one_that_is_asked_to_stop_keeps_what_it_has(runs: dict[str, RunFolder]) -> None:
    seen = list[tuple[int, int]]()
    own = plan("blur", name="stopped")

    def note(done: int, total: int) -> None:
        seen.append((done, total))

    with pytest.raises(EvaluationStopped):
        run_plan(runs["plain"], own, on_progress=note, is_stopped=lambda: len(seen) == 7)
    assert seen == [(32 * done, 135 * 6) for done in range(1, 8)]
    assert run_plan(runs["plain"], own).computed == 135 * 6 - 32 * 7


def test_memory_does_not_grow_with_the_images(runs: dict[str, RunFolder], tmp_path: Path) -> None:
    source, peaks = Digits("val"), []
    for count in (200, 500, 5000):  # the first warms up
        for label in "201":
            (tmp_path / str(count) / "val" / label).mkdir(parents=True)
        index = next(i for i, label in enumerate(source.labels.tolist()) if label == 2)
        image = tmp_path / str(count) / "val" / "2" / "0.png"
        Image.fromarray(source.read(index).permute(1, 2, 0).numpy()).save(image)
        for number in range(1, count):
            os.link(image, image.parent.parent / "201"[number % 3] / f"{number}.png")
        Path("/proc/self/clear_refs").write_text("5")  # the peak counts from now on
        blur = {"name": "blur", "levels": [0, 2]}
        run_plan(runs["plain"], plan(blur, dataset=str(count), data_root=str(tmp_path)))
        lines = Path("/proc/self/status").read_text().splitlines()
        peaks.append(next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")))
    assert peaks[2] < 1.05 * peaks[1]


# -- the folder -----------------------------------------------------------------------------------------------


@pytest.mark.plots
def test_a_folder_says_what_it_has(runs: dict[str, RunFolder]) -> None:
    measured = run_plan(runs["plain"], plan(*NOISE, name="drawn"))
    record = json.loads((measured.folder.path / "evaluation.json").read_text())
    assert record["complete"]
    assert record["plan"]["degradations"][0] == {"name": "noise/gaussian", "levels": [1, 0.6, 0.2]}
    assert record["versions"].keys() == {"accel-train", "torch", "torchvision", "numpy", "scipy", "python"}
    assert list(record["conditions"]) == [
        *("noise/gaussian/1", "noise/gaussian/0.6", "noise/gaussian/0.2"),
        *("blur/0", "blur/1", "blur/2", "blur/4", "blur/8", "blur/16"),
    ]
    header, *rows = (measured.folder.path / "summary.csv").read_text().splitlines()
    assert header == "observer,other,benchmark,degradation,level,ssnr,layer,cycle,metric,value,low,high,n"
    assert Counter(row.split(",")[8] for row in rows) == {"accuracy": 9, "expected_calibration_error": 9}
    assert (measured.folder.path / "curves.pdf").read_bytes().startswith(b"%PDF")
    assert not list((runs["plain"].evaluations / "validation").glob("curves.*"))


def test_something_else_of_that_name_is_refused(runs: dict[str, RunFolder]) -> None:
    run_plan(runs["plain"], plan(*NOISE, name="same"))
    (line,) = problems(runs["plain"], plan("blur", name="same", weights="1"))
    path = runs["plain"].evaluations / "same"
    assert line == (
        f"{path} has an evaluation of something else: other conditions, degradations, weights; "
        "give another `name`, or remove it"
    )


def test_a_folder_that_another_process_writes_is_refused(runs: dict[str, RunFolder]) -> None:
    place = RunFolder(runs["plain"].evaluations / "taken")
    place.path.mkdir(parents=True)
    lock = acquire(place, Owner.new(), end_leftovers=lambda token: None, say=print)
    (line,) = problems(runs["plain"], plan("blur", name="taken"))
    assert line.startswith(f"another process is writing {place.path}: process {os.getpid()} on ")
    assert line.endswith("wait for its end, or give another `name`")
    lock.release()
    assert run_plan(runs["plain"], plan("blur", name="taken")).record.complete


def test_a_disk_without_room_is_a_line(runs: dict[str, RunFolder], monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", full)
        (line,) = problems(runs["plain"], plan("blur", name="full"))
    place = runs["plain"].evaluations / "full" / "unfinished"
    assert line.startswith(f"{place}: no room for 0.0 MB of answers: No space left on device")
    assert line.endswith("fewer `probabilities` need less, such as 5")
    for call in ("pwrite", "fdatasync"):
        with monkeypatch.context() as patch:
            patch.setattr(os, call, full)
            (line,) = problems(runs["plain"], plan("blur", name=call))
            assert "No space left on device" in line
    assert run_plan(runs["plain"], plan("blur", name="full")).computed == 135 * 6


# -- figures of it --------------------------------------------------------------------------------------------


def test_thresholds_are_of_the_degradations_with_visibilities(runs: dict[str, RunFolder], occluders: Path) -> None:
    own = plan(
        "occlusion/mud_splash", "occlusion/vertical_bars_04", "noise", "blur", occluder_dir=str(occluders), name="both"
    )
    path = run_plan(runs["plain"], own).folder.trials
    found = measure([path], Measure.THRESHOLDS).figures
    cells = {figure.cell.levels.get("degradation") for figure in found}
    assert cells == {"occlusion/mud_splash", "occlusion/vertical_bars_04", "all"}
    over_noise = measure([path], Measure.THRESHOLDS, Settings(over="ssnr")).figures
    assert {figure.cell.levels.get("degradation") for figure in over_noise} == {
        "noise/gaussian",
        "noise/fourier",
        "all",
    }
    blocks = trial_blocks(path, probabilities=False)
    plain = {f.cell.levels["level"]: f.value for f in accuracy(blocks) if f.cell.levels["degradation"] == "blur"}
    assert plain["0"] == evaluate(runs["plain"]).scores["acc1"] / 100


# -- images that cannot be read, and mistakes -----------------------------------------------------------------


def test_where_no_image_can_be_decoded_is_a_line_and_nothing_is_left(
    runs: dict[str, RunFolder], tmp_path: Path
) -> None:
    broken = tmp_path / "broken" / "val" / "0" / "a.jpg"
    broken.parent.mkdir(parents=True)
    broken.write_bytes(b"no image")
    own = plan("blur", dataset="broken", data_root=str(tmp_path))
    assert problems(runs["plain"], own) == ["no image of broken can be decoded: 0/a.jpg"]
    Image.new("RGB", (9, 9), (200, 30, 5)).save(broken)
    assert run_plan(runs["plain"], own).record.corrupt == []


def test_levels_are_in_the_order_of_their_strength_however_they_are_given() -> None:
    def names(name: str, *levels: Any) -> list[str]:
        found = conditions_of(plan({"name": name, "levels": list(levels)}), "digits").shown
        return [shown.columns["level"] for shown in found]

    assert names("blur", 16, 0, 4, 1) == ["0", "1", "4", "16"]
    assert names("geirhos/high-pass", 0.4, 3, "none", "inf") == ["none", "inf", "3", "0.4"]
    assert names("noise/gaussian", 0.2, 0.9, 1) == ["1", "0.9", "0.2"]


def test_levels_are_numbers_or_called_as_they_are_published() -> None:
    def names(*levels: Any) -> list[str]:
        own = plan({"name": "geirhos/contrast", "levels": list(levels)})
        return [shown.name for shown in conditions_of(own, "digits").shown]

    assert names("c05", 0.5, "0.2", "none") == [f"geirhos/contrast/{level}" for level in ("none", "c50", "0.2", "c05")]
    line = helpers.said_by(names, "much")
    assert line.startswith("`levels`: geirhos/contrast: no level much (contrast); there are numbers from 0 to 1, and")


def test_a_folder_with_another_plan_is_found_before_the_gpu_is(runs: dict[str, RunFolder], tmp_path: Path) -> None:
    run = runs["plain"]
    run_plan(run, plan("blur", name="checked", batch_size=32))
    assert check_plan(plan("blur", name="checked"), run)["conditions"] == 6
    for other, keys in (
        (plan("noise", name="checked"), "degradations"),
        (
            plan("blur", name="checked", weights="final", probabilities=2, batch_size=8),
            "batch_size, probabilities, weights",
        ),
    ):
        line = helpers.said_by(check_plan, other, run)
        assert f"an evaluation of something else: other {keys}; give another" in line


def test_the_digest_of_all_images_does_not_depend_on_the_order_of_degradations(runs: dict[str, RunFolder]) -> None:
    one, other = (run_plan(runs["plain"], plan(*names)).record for names in (NOISE, NOISE[::-1]))
    assert one.degraded_sha256 == other.degraded_sha256
    assert one.conditions == other.conditions


@pytest.mark.parametrize("other", [{"eval_crop": 0.5}, {"eval_resize": "bicubic"}])
def test_other_preprocessing_is_another_evaluation(
    runs: dict[str, RunFolder], tmp_path: Path, other: dict[str, Any]
) -> None:
    run = RunFolder(shutil.copytree(runs["plain"].path, tmp_path / "run"))
    shutil.rmtree(run.evaluations, ignore_errors=True)
    run_plan(run, plan("blur"))
    run.config.write_text(json.dumps(json.loads(run.config.read_text()) | other))
    (line,) = problems(run, plan("blur"))
    assert "something else: other preprocessing; " in line


def test_a_corrupt_image_is_left_out_and_named(runs: dict[str, RunFolder], tmp_path: Path) -> None:
    source = Digits("val")
    for index, label in enumerate(source.labels.tolist()):
        if label in (0, 1, 2):
            path = tmp_path / "other" / "val" / str(label) / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(source.read(index).permute(1, 2, 0).numpy()).save(path)
    broken = sorted((tmp_path / "other" / "val" / "0").iterdir())[3]
    broken.write_bytes(b"no image")
    given = {"dataset": "other", "data_root": str(tmp_path)}
    measured = run_plan(runs["plain"], plan("blur", **given))
    assert measured.record.corrupt == [f"0/{broken.name}"]
    assert measured.record.images == 135
    trials = table(measured)
    assert len(trials) == 134 * 6
    assert f"0/{broken.name}" not in trials.image.levels
    undegraded = chosen(trials, level="0")
    scores = evaluate(runs["plain"], dataset="other", data_root=tmp_path)
    assert (scores.images, scores.corrupt) == (134, 1)
    assert 100 * undegraded.correct.sum() / len(undegraded) == scores.scores["acc1"]


def test_mistakes_are_a_line_each(runs: dict[str, RunFolder], tmp_path: Path) -> None:
    run = runs["plain"]
    lines = problems(
        run, plan("nois", {"name": "noise", "levels": [0.5, 1.5]}, {"name": "geirhos/rotation", "levels": [45]})
    )
    assert lines[0].startswith("`degrade`: no degradation 'nois'; there are noise, blur, geirhos, ")
    assert "did you mean 'noise'" in lines[0]
    assert lines[1] == (
        "`levels`: noise/gaussian: no level 1.5 (signal / (signal + noise)); there are numbers from 0 to 1, and none"
    )
    assert lines[-1].startswith("`levels`: geirhos/rotation: no level 45 (degrees, counterclockwise); there are 0, 90")
    (line,) = problems(run, plan("occlusion", occluder_dir=str(tmp_path / "gone")))
    assert str(tmp_path / "gone") in line
    (line,) = problems(run, plan(weights="9"))
    assert line.startswith("`weights`: ")
    assert not (run.evaluations / "validation-at-9").exists()


def test_embeddings_have_no_trials(tmp_path: Path) -> None:
    finish(tmp_path / "run", criterion="SupConLoss", num_views=2, transform_type="contrastive", batch_size=64)
    (line,) = problems(RunFolder(tmp_path / "run"), plan("noise"))
    assert line.startswith("SupConLoss has trained embeddings, which answer with no class: there are no trials of ")
