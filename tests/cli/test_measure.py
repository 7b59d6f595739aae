"""`accel-train measure`: published numbers from published data, and tables of trials as evaluations will write them."""

import csv
import io
import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
from helpers import COMMAND
from measures.oracles import NEEDED, ORACLES, half_unit, human, rows
from typer.testing import CliRunner, Result

from accel_trainer.cli.app import app, with_flags
from accel_trainer.core.errors import UserError
from accel_trainer.measures.corruption_error import ALEXNET_ERRORS
from accel_trainer.measures.sixteen_classes import CATEGORIES, category_indices, is_imagenet
from accel_trainer.measures.trials import Trials
from accel_trainer.measures.trials_file import writing_trials

OCCLUSION = ORACLES / "occlusion" / "human_trials.csv.gz"
CUE_CONFLICT = ORACLES / "error_consistency" / "model" / "cue-conflict.csv.gz"


def run(*words: object) -> Result:
    return CliRunner().invoke(app, ["measure", *map(str, words)])


def measured(*words: object) -> list[dict[str, str]]:
    """The rows of its CSV."""
    ended = run(*words, "--csv")
    assert ended.exit_code == 0, ended.exception
    return list(csv.DictReader(io.StringIO(ended.stdout)))


def found(lines: list[dict[str, str]], metric: str, *keys: str) -> dict[tuple[str, ...], float]:
    return {tuple(line[key] for key in keys): float(line["value"]) for line in lines if line["metric"] == metric}


@NEEDED
@pytest.mark.parametrize(
    ("table", "field"), [("imagenet_c", "corruptions_mce"), ("imagenet_3dcc", "corruptions_mce_3d")]
)
def test_12_published_mces_come_to_two_decimals(table, field):
    lines = measured(ORACLES / f"imagenet_c/{table}_accuracy.csv", "--figure", "mce", "--baseline", "AlexNet")
    mces = found(lines, "mce", "observer")
    published = {row["model"]: row["value"] for row in rows("published/robustbench.csv") if row["field"] == field}
    assert len(published) == len(mces) == 12
    for model, text in published.items():
        assert mces[(model,)] == pytest.approx(float(text), abs=half_unit(text)), model


@NEEDED
def test_alexnets_published_errors_give_what_the_oracle_does_from_them():
    lines = measured(ORACLES / "imagenet_c/imagenet_c_accuracy.csv", "--figure", "mce", "--baseline", "published")
    mces = found(lines, "mce", "observer")
    assert mces[("Standard_R50",)] == pytest.approx(76.367, abs=5e-4)
    assert mces[("Hendrycks2020AugMix",)] == pytest.approx(64.174, abs=5e-4)
    assert mces[("Hendrycks2020Many",)] == pytest.approx(60.048, abs=5e-4)


# Published with the third decimal cut off.
CUT_OFF = {
    ("cifar10", "Diffenderfer2021Winning_Binary_CARD_Deck"),
    ("cifar10", "Diffenderfer2021Winning_LRR_CARD_Deck"),
    ("cifar100", "Diffenderfer2021Winning_LRR"),
    ("cifar100", "Diffenderfer2021Winning_LRR_CARD_Deck"),
}


@NEEDED
@pytest.mark.parametrize(
    ("data", "field", "table", "number"),
    [
        ("imagenet", "corruptions_acc", "imagenet_c", 12),
        ("imagenet", "corruptions_acc_3d", "imagenet_3dcc", 12),
        ("cifar10", "corruptions_acc", "cifar10_c", None),
        ("cifar100", "corruptions_acc", "cifar100_c", None),
    ],
)
def test_published_accuracies_over_corruptions_come_to_two_decimals(data, field, table, number):
    accuracies = found(
        measured(ORACLES / f"imagenet_c/{table}_accuracy.csv", "--figure", "mce"), "corruption_accuracy", "observer"
    )
    published = [row for row in rows("published/robustbench.csv") if (row["dataset"], row["field"]) == (data, field)]
    compared = [row for row in published if (row["model"],) in accuracies and (data, row["model"]) not in CUT_OFF]
    assert number in (None, len(compared))
    assert len(compared) >= 10
    for row in compared:
        got = 100 * accuracies[(row["model"],)]
        assert got == pytest.approx(float(row["value"]), abs=half_unit(row["value"])), row["model"]


@NEEDED
def test_17_published_error_consistencies_of_people_come_to_five_decimals():
    published = {row["dataset"]: row["kappa"] for row in rows("published/human_error_consistency.csv")}
    published["all"] = published.pop("MEAN_OF_17")
    lines = measured(*(human(name) for name in published if name != "all"), "--figure", "consistency")
    kappas = found(lines, "mean_error_consistency", "benchmark")
    assert len(kappas) == len(published) == 18
    for name, text in published.items():
        assert kappas[(name,)] == pytest.approx(float(text), abs=half_unit(text)), name


@NEEDED
def test_conditions_left_out_are_said_and_can_be_kept():
    left_out = run(human("high-pass"), "--figure", "consistency")
    assert left_out.stderr == "high-pass: left out, as published: 0.4, 0.45, 0.55, inf\n"
    kept = measured(human("high-pass"), "--figure", "consistency-of-pairs", "--all-conditions")
    assert {line["condition"] for line in kept} == {"inf", "3", "1.5", "1", "0.7", "0.55", "0.45", "0.4"}
    assert len(kept) == 8 * 6


@NEEDED
def test_error_consistency_of_models_with_people_is_that_of_the_same_pictures():
    lines = measured(CUE_CONFLICT, "--figure", "consistency", "--against", human("cue-conflict"))
    kappas = found(lines, "mean_error_consistency", "observer")
    assert kappas[("resnet50-torchvision",)] == pytest.approx(0.0674, abs=5e-5)
    with_itself = ORACLES / "error_consistency" / "model" / "edge.csv.gz"
    lines = measured(with_itself, "--figure", "consistency-of-pairs", "--against", with_itself)
    assert {float(line["value"]) for line in lines if line["observer"] == line["other"]} == {1.0}


@NEEDED
def test_3_published_shape_biases_come_to_a_tenth_of_a_percent():
    biases = found(measured(CUE_CONFLICT, "--figure", "shape-bias"), "shape_bias", "observer")
    published = rows("published/shape_bias.csv")
    assert len(published) == 3
    for row in published:
        text = row["shape_bias_percent"]
        assert 100 * biases[(row["model"],)] == pytest.approx(float(text), abs=half_unit(text))


@NEEDED
def test_60_published_bounds_of_noise_ceilings_come_to_1e_12():
    choice = ("--by", "occluder_class,occluder_color", "--without", "occluder_class=none")
    lines = measured(OCCLUSION, "--figure", "noise-ceiling", *choice)
    bounds = found(lines, "noise_ceiling_lower", "observer"), found(lines, "noise_ceiling_upper", "observer")
    published = rows("published/noise_ceiling.csv")
    assert [len(bound) for bound in bounds] == [len(published)] * 2 == [30, 30]
    for row in published:
        for bound, column in zip(bounds, ("lwr", "upr"), strict=True):
            assert bound[(row["subject"],)] == pytest.approx(float(row[column]), abs=1e-12)


@NEEDED
def test_18_published_thresholds_come_exactly_and_ours_are_where_the_curve_crosses():
    lines = measured(OCCLUSION, "--figure", "thresholds", "--pool")
    keys = ("occluder_class", "occluder_color")
    theirs, ours = found(lines, "threshold_50_published", *keys), found(lines, "threshold_50", *keys)
    means = found(lines, "mean_accuracy", *keys)
    published = [row for row in rows("published/robustness_curves.csv") if row["subject"] == "group"]
    assert len([row for row in published if row["occluder_color"] in ("black", "white")]) == 18
    for row in published:
        is_pooled = row["occluder_class"] in ("all", "artificial")
        key = ("all", "all") if is_pooled else (row["occluder_class"], row["occluder_color"])
        assert theirs[key] == pytest.approx(float(row["threshold_50"]), abs=1e-9)
        assert means[key] == pytest.approx(float(row["mean"]), abs=1e-9)
        assert ours[key] == pytest.approx(theirs[key], abs=0.0011)


@NEEDED
def test_the_sixteen_categories_are_the_published_lists():
    facts = json.loads((ORACLES / "facts/sixteen_classes.json").read_text())
    ours = {name: list(indices) for name, indices in category_indices().items()}
    assert ours == {name: entry["indices"] for name, entry in facts["categories"].items()}
    synsets = tuple((ORACLES / "facts/imagenet_synsets.txt").read_text().split())
    assert is_imagenet(synsets)
    assert not is_imagenet(synsets[1:])


@NEEDED
def test_trials_of_an_imagenet_model_get_mce_and_the_sixteen_categories(tmp_path):
    synsets = tuple((ORACLES / "facts/imagenet_synsets.txt").read_text().split())
    path = tmp_path / "trials.parquet"
    probabilities = np.random.default_rng(0).dirichlet(np.full(1000, 0.01), 600).astype(np.float32)
    of_some_category = [i for indices in category_indices().values() for i in indices]
    truth = [synsets[i] for i in [*range(20), *of_some_category * 3][:600]]
    response = [synsets[i] for i in probabilities.argmax(1)]
    levels = [(name, str(s)) for name in ALEXNET_ERRORS for s in range(1, 6)] * 8
    names, severities = zip(*levels, strict=True)
    trials = Trials.of(
        map(str, range(600)), truth, response, observer="net", classes=synsets, probabilities=probabilities,
        conditions={"corruption": names, "severity": severities},
    )  # fmt: skip
    with writing_trials(path) as add:
        add(trials)
    metrics = {line["metric"] for line in measured(path, "--figure", "mce")}
    assert metrics == {"corruption_accuracy", "ce", "mce"}  # relative to images themselves, which are not there
    mapped = measured(path, "--figure", "confusion", "--sixteen-classes", "--by", "")
    where = {synsets[i]: name for name, indices in category_indices().items() for i in indices}
    means = np.stack([probabilities[:, list(indices)].mean(1) for indices in category_indices().values()], 1)
    expected = {
        (where[one], CATEGORIES[means[row].argmax()]) for row, one in enumerate(truth) if one in where
    }  # fmt: skip
    assert {(line["true_class"], line["response"]) for line in mapped} == expected
    unnormalised = {line["metric"] for line in measured(path, "--figure", "mce", "--sixteen-classes", "--pool")}
    assert unnormalised == {"corruption_accuracy", "unnormalised_error"}


def table_of_trials(folder: Path) -> Path:
    path = folder / "trials.parquet"
    levels = np.repeat(["0", "1", "2", "3", "4", "5"], 10)
    right = np.arange(60) % 10 < 8 - levels.astype(int)
    both = np.where(right[:, None], [0.9, 0.1], [0.2, 0.8]).astype(np.float32)
    with writing_trials(path) as add:
        for cycle in (0, 1):
            add(
                Trials.of(
                    [f"{i % 10}.png" for i in range(60)],
                    ["a"] * 60,
                    np.where(right, "a", "b"),
                    observer="net",
                    cycle=cycle,
                    classes=("a", "b"),
                    probabilities=both,
                    conditions={"benchmark": "blur", "corruption": "blur", "severity": levels},
                )
            )
    return path


def test_a_table_of_trials_is_measured_by_condition_and_cycle(tmp_path):
    path = table_of_trials(tmp_path)
    lines = measured(path)
    assert found(lines, "accuracy", "severity", "cycle") == {
        (str(s), str(cycle)): pytest.approx((8 - s) / 10) for s in range(6) for cycle in (0, 1)
    }
    chosen = measured(path, "--only", "severity=0,1.0", "--without", "severity=0", "--by", "severity")
    assert [(line["severity"], line["cycle"], line["n"]) for line in chosen] == [("1", "0", "10"), ("1", "1", "10")]
    assert json.loads(run(path, "--json").stdout)[0] == {
        "observer": "net", "other": "", "benchmark": "blur", "corruption": "blur", "severity": "0", "layer": "",
        "cycle": 0, "metric": "accuracy", "value": 0.8, "low": pytest.approx(0.4902, abs=1e-4),
        "high": pytest.approx(0.9433, abs=1e-4), "n": 10,
    }  # fmt: skip
    in_words = subprocess.run(
        [*COMMAND, "measure", str(path), "--by", "benchmark"], check=True, capture_output=True, text=True
    )
    assert in_words.stdout.splitlines() == [
        "observer  benchmark  cycle  metric    value    low      high      n",
        "net       blur           0  accuracy  0.55000  0.42492  0.66906  60",
        "net       blur           1  accuracy  0.55000  0.42492  0.66906  60",
    ]


def test_two_files_of_one_model_under_one_condition_are_not_taken_for_one(tmp_path):
    path = table_of_trials(tmp_path)
    other = path.rename(tmp_path / "other.parquet")
    path = table_of_trials(tmp_path)
    error = with_flags(str(run(path, other).exception))
    assert error == (
        f"{path} and {other} both have trials of 'net' (blur, blur, 0); measure them one by one, or --pool them"
    )
    assert [line["n"] for line in measured(path, other, "--by", "benchmark", "--pool")] == ["120", "120"]


def test_errors_of_classes_that_are_not_imagenets_are_called_unnormalised(tmp_path):
    lines = measured(table_of_trials(tmp_path), "--figure", "mce")
    assert {line["metric"] for line in lines} == {
        "corruption_accuracy", "unnormalised_error", "unnormalised_relative_error"
    }  # fmt: skip
    assert found(lines, "unnormalised_error", "cycle") == {("0",): pytest.approx(50), ("1",): pytest.approx(50)}
    assert found(lines, "unnormalised_relative_error", "cycle")[("0",)] == pytest.approx(30)


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["--figure", "acuracy"], "--figure: 'acuracy' is no figure; did you mean 'accuracy' or 'class-accuracy'?"),
        (["--only", "severity=9"], "--only: no trial has severity '9'; there are: 0, 1, 2, 3, 4, 5"),
        (["--without", "severety=1"], "trials have no condition 'severety'; did you mean 'severity'?"),
        (["--only", "severity"], "--only: 'severity' is not COLUMN=LEVEL"),
        (["--figure", "mce", "--baseline", "published"], "--baseline: AlexNet's errors are over ImageNet's classes"),
        (["--figure", "mce", "--baseline", "nett"], "--baseline: no observers are called 'nett'; did you mean 'net'?"),
        (["--figure", "correlation"], "--against: correlations are with others"),
        (["--figure", "reaction-time"], "--entropy: reaction times need a threshold"),
        (["--figure", "thresholds"], "--over: trials have no condition visibility or ssnr"),
        (["--figure", "shape-bias"], "the texture of image '0.png' is not known"),
        (["--sixteen-classes"], "the 16 categories are made of ImageNet's 1,000 classes"),
        (["--against", "trials.parquet"], "--against: accuracy compares with nobody"),
        (["nothing.csv"], "nothing.csv"),
    ],
)
def test_what_cannot_be_measured_is_one_line(tmp_path, monkeypatch, words, error):
    monkeypatch.chdir(tmp_path)
    ended = run(table_of_trials(tmp_path).name, *words)
    assert isinstance(ended.exception, UserError)
    (line,) = ended.exception.problems
    assert error in with_flags(line)


def test_reaction_times_are_of_the_first_sure_cycle(tmp_path):
    lines = measured(table_of_trials(tmp_path), "--figure", "reaction-time", "--entropy", "0.4", "--by", "severity")
    assert found(lines, "reaction_time", "severity") == {(str(s),): pytest.approx((2 + s) / 10) for s in range(6)}
