"""The README's first command."""

import json

import pytest
from helpers import REPOSITORY

# What is added is checked then.
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("unchecked")]


def test_an_example_job_of_the_demo_reaches_98_percent(cli):
    assert cli("add", REPOSITORY / "training_queue/examples/small_cnn-digits.json").returncode == 0
    assert cli("run-queue").returncode == 0
    (row,) = json.loads(cli("compare", "models/small_cnn/small_cnn-digits", "--json").stdout)
    assert row["best"] >= 98
    assert row["parameters"] == 94_762
