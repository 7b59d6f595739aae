import json
from pathlib import Path
from typing import Any

import pytest

from accel_trainer.config import EvaluationJob, Job, parse_job
from accel_trainer.config.evaluation import EvaluationPlan
from accel_trainer.config.schema import BEGIN, END, json_schema, parameter_table, with_table

REPOSITORY = Path(__file__).parents[2]
EXAMPLES = sorted((REPOSITORY / "training_queue" / "examples").glob("*.json"))
WHOLE = json_schema()
SCHEMA = WHOLE["$defs"]["Training"]
EVALUATION = WHOLE["$defs"]["Evaluation"]
PARAMETERS = [name for name in SCHEMA["properties"] if name not in ("$schema", "base")]
OF_TRAINING, OF_EVALUATION = parameter_table().split("### Evaluation")
TYPES: dict[str, Any] = {
    "null": type(None),
    "boolean": bool,
    "integer": int,
    "number": (int, float),
    "string": str,
    "array": list,
    "object": dict,
}


def allows(schema: dict[str, Any], value: Any) -> bool:
    """Whether a JSON schema allows a value, as far as types, words and keys go."""
    if "$ref" in schema:
        return allows(WHOLE["$defs"][schema["$ref"].rpartition("/")[2]], value)
    if "anyOf" in schema:
        return any(allows(part, value) for part in schema["anyOf"])
    if "const" in schema or "enum" in schema:
        return value in schema.get("enum", [schema.get("const")]) and isinstance(value, str)
    kind = schema["type"]
    if not isinstance(value, TYPES[kind]) or (kind in ("integer", "number") and isinstance(value, bool)):
        return False
    if kind == "array":
        return all(allows(schema["items"], item) for item in value)
    if kind == "object" and "properties" in schema:
        known = schema["properties"]
        return set(value) <= set(known) and all(allows(known[key], item) for key, item in value.items())
    return True


def unknown(schema: dict[str, Any], job: dict[str, Any]) -> list[str]:
    return [key for key, value in job.items() if not allows(schema["properties"].get(key, {"enum": []}), value)]


def test_the_schema_is_for_whole_job_files() -> None:
    assert json.loads(json.dumps(WHOLE)) == WHOLE
    assert WHOLE["anyOf"] == [{"$ref": "#/$defs/Training"}, {"$ref": "#/$defs/Evaluation"}]
    assert SCHEMA["anyOf"] == [{"required": ["architecture"]}, {"required": ["base"]}]
    assert SCHEMA["additionalProperties"] is False
    assert set(SCHEMA["properties"]) == set(Job.model_fields) - {"name"} | {"$schema", "base"}


def test_the_schema_of_an_evaluation_is_that_of_its_parser() -> None:
    assert EVALUATION["anyOf"] == [{"required": ["evaluate"]}, {"required": ["base"]}]
    assert EVALUATION["additionalProperties"] is False
    job = EvaluationJob.parse({"evaluate": "models/x/a", "degradations": ["noise"], "weights": "final"}, "e")
    assert unknown(EVALUATION, job.completed()) == []
    assert EVALUATION["properties"].keys() == job.completed().keys() | {"$schema", "base"}
    assert all(f"| `{name}` |" in OF_EVALUATION for name in EvaluationPlan.model_fields)
    assert unknown(EVALUATION, {"weights": 3}) == []
    assert unknown(EVALUATION, {"weights": [3], "num_epochs": 2, "degradations": [3]}) == [
        "weights",
        "num_epochs",
        "degradations",
    ]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_the_examples_and_their_completed_jobs_follow_the_schema(path: Path) -> None:
    given = json.loads(path.read_text())
    assert unknown(SCHEMA, given) == []
    completed = parse_job(path.read_bytes(), path.stem, where=str(path)).completed()
    assert unknown(SCHEMA, completed) == []
    assert {key: completed[key] for key in given} == given


def test_the_published_schema_has_examples_of_jobs() -> None:
    assert len(EXAMPLES) >= 3


@pytest.mark.parametrize(
    "job",
    [
        {"num_epoch": 3},
        {"num_epochs": "3"},
        {"num_epochs": True},
        {"batch_size": "all"},
        {"wandb": {"mode": "on"}},
        {"wandb": {"projekt": "x"}},
    ],
)
def test_the_schema_refuses_what_the_parser_refuses(job: dict[str, Any]) -> None:
    assert unknown(SCHEMA, job) == list(job)


@pytest.mark.parametrize(
    "job",
    [
        {"batch_size": "auto"},
        {"wandb": None},
        {"wandb": {"project": None}},
        {"cutmix": False},
        {"cutmix": True},
        {"mixup": {"alpha": 1}},
        {"randomerase": False},
        {"randomerase": [0, 0, 0]},
        {"swa": False},
        {"Noise": {"noise_types": "gaussian", "probs": 0.5}},
        {"Occlusion": {"form": "bars", "color": "random"}},
    ],
)
def test_the_schema_allows_what_the_parser_allows(job: dict[str, Any]) -> None:
    assert unknown(SCHEMA, job) == []


def test_names_are_proposed_and_others_allowed() -> None:
    schema = json_schema({"optimizer": ["SGD", "AdamW"]})
    assert schema["$defs"]["Training"]["properties"]["optimizer"] == {
        **SCHEMA["properties"]["optimizer"],
        "examples": ["SGD", "AdamW"],
    }


@pytest.mark.parametrize("name", PARAMETERS)
def test_every_parameter_is_described_and_may_be_null(name: str) -> None:
    definition = SCHEMA["properties"][name]
    assert definition["description"].strip()
    assert allows(definition, None) == (name != "architecture")


@pytest.mark.parametrize("name", WHOLE["$defs"])
def test_every_part_of_an_object_is_described(name: str) -> None:
    for definition in WHOLE["$defs"][name]["properties"].values():
        assert definition["description"].strip()


@pytest.mark.parametrize("name", PARAMETERS)
def test_the_table_has_every_parameter_once(name: str) -> None:
    rows = [line for line in OF_TRAINING.splitlines() if line.startswith(f"| `{name}` |")]
    assert len(rows) == 1


def test_every_row_of_the_table_has_three_cells() -> None:
    rows = [line.replace("\\|", "") for line in OF_TRAINING.splitlines() if line.startswith("|")]
    assert {row.count("|") for row in rows} == {4}


def test_the_table_goes_between_its_marks_and_nothing_else_changes() -> None:
    text = f"before\n{BEGIN}\nold\n{END}\nafter\n"
    made = with_table(text)
    assert made == f"before\n{BEGIN}\n{parameter_table()}\n{END}\nafter\n"
    assert with_table(made) == made
