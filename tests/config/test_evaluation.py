"""What one evaluation is, as JSON says it."""

from typing import Any

import pytest

from accel_trainer.config.evaluation import EvaluationPlan
from accel_trainer.core.errors import InvalidJob


def name_of(**given: Any) -> str:
    return EvaluationPlan.parse(given).folder_name


def test_a_plan_says_what_json_said() -> None:
    given = {"degradations": ["noise", {"name": "blur", "levels": [0, 2.5]}], "probabilities": 5, "weights": None}
    plan = EvaluationPlan.parse(given)
    assert [(choice.name, choice.levels) for choice in plan.degradations] == [("noise", None), ("blur", [0, 2.5])]
    assert (plan.probabilities, plan.weights, plan.dataset, plan.batch_size) == (5, "best", None, None)
    assert EvaluationPlan.parse(plan.model_dump(mode="json")) == plan
    texts = [{"name": "geirhos/contrast", "levels": ["0.5", "c05", "inf"]}]
    assert EvaluationPlan.parse({"degradations": texts}).degradations[0].levels == [0.5, "c05", "inf"]
    assert EvaluationPlan.parse({"weights": 5}) == EvaluationPlan.parse({"weights": "5"})
    assert EvaluationPlan.parse({"degradations": "noise"}) == EvaluationPlan.parse({"degradations": ["noise"]})
    assert EvaluationPlan.parse({"degradations": {"name": "noise", "levels": "none"}}).degradations[0].levels == [
        "none"
    ]


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"weigths": "best"}, "plan.json: weigths: unknown key; did you mean 'weights'?"),
        ({"lr": 1}, "plan.json: lr: unknown key"),
        ({"arch": "resnet18"}, "plan.json: arch: unknown key"),
        ({"degradations": [{"name": "noise", "level": [1]}]}, "plan.json: degradations.0.level: unknown key; did you"),
        ({"degradations": [{"levels": [1]}]}, "plan.json: degradations.0.name: missing"),
        ({"degradations": [{"name": "noise", "levels": []}]}, "plan.json: degradations.0.levels: [] is not allowed"),
        (
            {"degradations": [{"name": "a", "levels": [1, 1.0]}]},
            "plan.json: degradations.0.levels: has one value twice",
        ),
        ({"degradations": [{"name": "a", "levels": True}]}, "plan.json: degradations.0.levels.0: true is not allowed"),
        ({"degradations": ["a", {"name": "a"}]}, "plan.json: degradations: has one value twice: give each once"),
        ({"degradations": [3]}, "plan.json: degradations.0: 3 is not allowed: it should be an object"),
        ({"weights": True}, "plan.json: weights: true is not allowed: it should be a string"),
        ({"probabilities": "some"}, "plan.json: probabilities: \"some\" is not allowed: it should be 'all' or"),
        ({"probabilities": -1}, "plan.json: probabilities: -1 is not allowed"),
        ({"batch_size": 0}, "plan.json: batch_size: 0 is not allowed"),
        ({"name": "../best"}, "plan.json: name: '../best' cannot be a folder's name"),
        ({"name": ".hidden"}, "plan.json: name: '.hidden' cannot be a folder's name"),
        ({"name": "a" * 121}, "plan.json: name: the name of an evaluation may have 120 bytes, not 121"),
        ({"name": ""}, "plan.json: name: '' cannot be a folder's name"),
    ],
)
def test_a_mistake_is_a_line(given: dict[str, Any], line: str) -> None:
    with pytest.raises(InvalidJob) as caught:
        EvaluationPlan.parse(given, "plan.json")
    (problem,) = caught.value.problems
    assert problem.startswith(line)


def test_each_mistake_has_its_line() -> None:
    with pytest.raises(InvalidJob) as caught:
        EvaluationPlan.parse({"batch_size": 0, "wieghts": "best", "name": "a/b"})
    assert len(caught.value.problems) == 3


def test_a_folder_is_called_as_what_it_measures() -> None:
    assert name_of() == "validation"
    assert name_of(data_root="/elsewhere") == "validation"
    assert name_of(weights="5") == "validation-at-5"
    assert name_of(degradations=["noise", "imagenet-c/fog"]) == "noise+imagenet-c-fog"
    assert name_of(degradations=["noise"], dataset="hf:lab/sketches") == "noise-on-sketches"
    assert name_of(degradations=["noise"], name="mine") == "mine"


def test_what_a_name_does_not_say_gives_it_a_digest() -> None:
    plans: list[dict[str, Any]] = [
        {"degradations": ["noise"]},
        {"degradations": ["noise"], "probabilities": 5},
        {"degradations": ["noise"], "batch_size": 8},
        {"degradations": ["noise"], "occluder_dir": "/masks"},
        {"degradations": [{"name": "noise", "levels": [0.5]}]},
        {"degradations": [{"name": "noise", "levels": [0.25]}]},
        {"degradations": ["no ise"]},
        {"degradations": ["no?ise"]},
        {"degradations": ["noise", "b" * 300]},
    ]
    names = [name_of(**given) for given in plans]
    assert len(set(names)) == len(plans)
    assert names[0] == "noise"
    assert all(name.startswith("no") and len(name) < 120 for name in names)
    assert name_of(degradations=[{"name": "noise", "levels": [1]}]) == name_of(
        degradations=[{"name": "noise", "levels": [1.0]}]
    )
