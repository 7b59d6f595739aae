"""The README's first command."""

import json

import pytest
from helpers import REPOSITORY

# What is added is checked then.
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("unchecked")]


def test_an_example_job_of_the_demo_reaches_98_percent(cli):
    assert cli("add", REPOSITORY / "training_queue/examples/resnet18-digits.json").returncode == 0
    assert cli("run-queue").returncode == 0
    (row,) = json.loads(cli("compare", "models/resnet18/resnet18-digits", "--json").stdout)
    assert row["best"] >= 98
    assert row["parameters"] == 11_181_642
