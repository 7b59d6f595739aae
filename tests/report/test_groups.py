"""Means, intervals and tests of groups of runs, beside pandas' and SciPy's."""

import itertools
import json
import random

import pandas as pd
import pytest
from helpers import said_by
from scipy import stats

from accel_trainer.config import Job
from accel_trainer.core.text import flatten
from accel_trainer.report.columns import find_column
from accel_trainer.report.compare import Comparison
from accel_trainer.report.groups import differences, estimate, find_group, grouped, other_differences


def run(architecture: str, seed: int, lr: float, best: float | None, **changes: object) -> Comparison:
    job = Job(architecture=architecture, name="a", seed=seed, optimizer_args={"lr": lr}, **changes)
    return Comparison(
        job=f"{architecture}-{seed}-{lr}", architecture=architecture, parameters=1, state="finished", epochs=3,
        num_epochs=3, metric="acc1", best=best, best_epoch=3, images_per_s=10.0, seconds=1.0,
        settings=flatten(json.loads(json.dumps(job.completed()))),
    )  # fmt: skip


@pytest.fixture
def runs() -> list[Comparison]:
    numbers = random.Random(1)
    axes = itertools.product(["resnet18", "vgg11"], range(4), [0.1, 0.05])
    return [run(name, seed, lr, numbers.gauss(90 if name == "vgg11" else 92, 1.5)) for name, seed, lr in axes]


def test_groups_have_the_mean_and_sd_of_pandas(runs: list[Comparison]) -> None:
    frame = pd.DataFrame(
        [{"architecture": r.architecture, "lr": r.settings["optimizer_args.lr"], "best": r.best} for r in runs]
    )
    theirs = frame.groupby(["architecture", "lr"])["best"].agg(["count", "mean", "std"])
    best = find_column("best", runs, "metric")
    groups = grouped(runs, ["architecture", "lr"])
    assert [tuple(group.levels.values()) for group in groups] == list(theirs.index)
    for group, (count, mean, sd) in zip(groups, theirs.itertuples(index=False), strict=True):
        own = estimate(group.values(best))
        assert own.n == count == 4
        assert own.mean == pytest.approx(mean, rel=1e-12)
        assert own.sd == pytest.approx(sd, rel=1e-12)
        low, high = stats.t.interval(0.95, count - 1, mean, stats.sem(group.values(best)))
        assert (own.low, own.high) == (pytest.approx(low, rel=1e-9), pytest.approx(high, rel=1e-9))


def test_all_but_seed_finds_what_differs_by_itself(runs: list[Comparison]) -> None:
    groups = grouped(runs, ["all-but-seed"])
    assert [(group.levels, len(group.runs)) for group in groups] == [
        ({"architecture": name, "optimizer_args.lr": lr}, 4) for name in ("resnet18", "vgg11") for lr in (0.05, 0.1)
    ]
    assert not any(map(other_differences, groups))
    # How a run is carried out makes no other group.
    urgent = [run("vgg11", seed, 0.1, 90.0, priority=seed) for seed in range(3)]
    assert len(grouped(urgent, ["all-but-seed"])) == 1
    (mixed, *_) = grouped(runs, ["architecture"])
    assert other_differences(mixed) == ["optimizer_args.lr"]


def test_groups_with_the_same_seeds_are_compared_in_pairs(runs: list[Comparison]) -> None:
    chosen = [one for one in runs if one.settings["optimizer_args.lr"] == 0.1]
    best = find_column("best", runs, "metric")
    first, second = grouped(chosen, ["architecture"])
    (own,) = differences([first, second], first, best)
    theirs = stats.ttest_rel(second.values(best), first.values(best))
    low, high = theirs.confidence_interval(0.95)
    assert own.n == 4
    assert own.test == "paired by seed, n = 4"
    assert own.p == pytest.approx(theirs.pvalue, rel=1e-9)
    assert (own.low, own.high) == (pytest.approx(low, rel=1e-9), pytest.approx(high, rel=1e-9))


def test_other_seeds_are_compared_by_welch(runs: list[Comparison]) -> None:
    best = find_column("best", runs, "metric")
    chosen = [one for one in runs if one.settings["optimizer_args.lr"] == 0.1][:-1]
    first, second = grouped(chosen, ["architecture"])
    (own,) = differences([first, second], second, best)
    theirs = stats.ttest_ind(first.values(best), second.values(best), equal_var=False)
    low, high = theirs.confidence_interval(0.95)
    assert own.n is None
    assert own.p == pytest.approx(theirs.pvalue, rel=1e-9)
    assert (own.low, own.high) == (pytest.approx(low, rel=1e-9), pytest.approx(high, rel=1e-9))


def test_the_p_values_of_several_groups_are_holms() -> None:
    numbers = random.Random(3)
    means = {"alexnet": 80.0, "resnet18": 80.8, "vgg11": 81.5, "vgg13": 83.0}
    runs = [run(name, seed, 0.1, numbers.gauss(mean, 1)) for name, mean in means.items() for seed in range(5)]
    best = find_column("best", runs, "metric")
    groups = grouped(runs, ["architecture"])
    own = [one.p for one in differences(groups, groups[0], best)]
    raw = [stats.ttest_rel(group.values(best), groups[0].values(best)).pvalue for group in groups[1:]]
    order = sorted(range(3), key=lambda place: raw[place])
    expected, largest = {}, 0.0
    for rank, place in enumerate(order):
        largest = expected[place] = max(largest, min(1.0, raw[place] * (3 - rank)))
    assert own == [pytest.approx(expected[place], rel=1e-9) for place in range(3)]


@pytest.mark.parametrize("values", [[], [90.0], [90.0, 90.0]])
def test_few_or_equal_values_have_no_p(values: list[float]) -> None:
    runs = [run("vgg11", seed, 0.1, value) for seed, value in enumerate(values)]
    runs += [run("resnet18", seed, 0.1, 90.0) for seed in range(2)] + [run("vgg11", 9, 0.1, None)]
    best = find_column("best", runs, "metric")
    groups = grouped(runs, ["architecture"])
    assert estimate(groups[1].values(best)).n == len(values)
    assert [one.p for one in differences(groups, groups[0], best)] == [None]


def test_a_group_is_found_by_what_distinguishes_it(runs: list[Comparison]) -> None:
    groups = grouped(runs, ["architecture", "lr"])
    assert find_group("0.1, vgg11", groups).name == "vgg11, 0.1"
    assert "'vgg11' may be vgg11, 0.05, vgg11, 0.1" in said_by(find_group, "vgg11", groups)
    assert "did you mean 'vgg11, 0.1'" in said_by(find_group, "vgg1, 0.1", groups)
