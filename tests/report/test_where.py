import pytest
from helpers import said_by
from report.test_groups import run

from accel_trainer.report.columns import in_order_of
from accel_trainer.report.compare import Comparison
from accel_trainer.report.where import chosen

RUNS = [
    run("resnet18", 0, 0.1, 91.0),
    run("resnet18", 1, 0.05, 93.0),
    run("vgg11", 2, 0.05, None, scheduler_args={"step_size": 10, "gamma": 0.1}),
]


def seeds(runs: list[Comparison]) -> list[int]:
    return [one.settings["seed"] for one in runs]


@pytest.mark.parametrize(
    ("conditions", "found"),
    [
        (["lr=0.05"], [1, 2]),
        (["lr = 5e-2"], [1, 2]),
        (["optimizer_args.lr>0.05"], [0]),
        (["lr>=0.05", "architecture=resnet18"], [0, 1]),
        (["architecture=vgg11,alexnet"], [2]),
        (["architecture!=vgg11,alexnet"], [0, 1]),
        (["best>92"], [1]),  # what is not there is no number
        (["best=null"], [2]),
        (["best!=null"], [0, 1]),
        (["step_size<20"], [2]),
        (["job~vgg*"], [2]),
        (["job~*-0.1"], [0]),
        (["seed=0,2"], [0, 2]),
        (["deterministic=false"], [0, 1, 2]),
        (['trackers=["wandb"]'], [0, 1, 2]),
        (['architecture="vgg11"'], [2]),
        (["state=finished", "seed<=0"], [0]),
        ([], [0, 1, 2]),
        (["lr=0.2"], []),
    ],
)
def test_all_conditions_hold_of_what_is_chosen(conditions: list[str], found: list[int]) -> None:
    assert seeds(chosen(RUNS, conditions)) == found


@pytest.mark.parametrize(
    ("condition", "line"),
    [
        ("lr", "`where`: 'lr' is no condition; such as lr>=0.1"),
        ("=3", "is no condition"),
        ("lr=", "is no condition"),
        ("lr>much", "'lr>much': 'much' is no number"),
        ("archtecture=vgg11", "no run has 'archtecture'; did you mean 'architecture'?"),
    ],
)
def test_what_is_no_condition_is_one_line(condition: str, line: str) -> None:
    assert line in said_by(chosen, RUNS, [condition])


def test_runs_are_sorted_by_several_columns_and_what_is_missing_is_last() -> None:
    assert seeds(in_order_of(RUNS, ["-best"])) == [1, 0, 2]
    assert seeds(in_order_of(RUNS, ["best"])) == [0, 1, 2]
    assert seeds(in_order_of(RUNS, ["lr", "-seed"])) == [2, 1, 0]
    assert "`sort`: no run has 'bset'; did you mean 'best'" in said_by(in_order_of, RUNS, ["bset"])
    assert seeds(in_order_of(RUNS, [])) == [0, 1, 2]
