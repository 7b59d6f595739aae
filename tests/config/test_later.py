"""What has no code yet is refused, never accepted and ignored."""

import json
from typing import Any

import pytest

from accel_trainer.config import parse_job
from accel_trainer.config.later import NOT_YET
from accel_trainer.errors import UserError

# A setting of each, with what it needs beside it to be free of contradictions.
SETTINGS: dict[str, dict[str, Any]] = {
    "priority": {"priority": -1},
    "retries": {"retries": 1},
    "time_limit": {"time_limit": 60},
}


def problems(**given: Any) -> list[str]:
    with pytest.raises(UserError) as caught:
        parse_job(json.dumps({"architecture": "resnet18", **given}).encode(), "job", where="job.json")
    return caught.value.problems


@pytest.mark.parametrize("name", NOT_YET)
def test_a_parameter_without_code_is_refused_by_name(name: str) -> None:
    said = [line for line in problems(**SETTINGS[name]) if line.startswith(f"job.json: {name}: ")]
    assert len(said) == 1
    assert "not available in this version yet" in said[0]


def test_a_contradiction_is_told_before_what_is_not_there_yet() -> None:
    (line,) = problems(num_views=2, batch_size=255, priority=1)
    assert line.startswith("job.json: batch_size: 255 images cannot be 2 views each; use 254 or 256")
