"""Two trainers in one run folder."""

import json
from pathlib import Path

import pytest
from helpers import kill_tree, trainers_in, wait_until, write_job

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("unplotted", "tiny_models")]
UNHURRIED = {"architecture": "tiny_models:Unhurried", "architecture_args": {"pause_s": 0.1}, "image_size": 8}


def has_stepped(run: Path) -> bool:
    try:
        return json.loads((run / "status.json").read_text())["step"] > 0
    except FileNotFoundError:
        return False


def test_a_second_trainer_is_refused_until_the_first_is_killed(cli, background):
    run = Path("run")
    write_job(Path("one.json"), **UNHURRIED, model_dir="run", num_epochs=60)
    write_job(Path("two.json"), **UNHURRIED, model_dir="run", num_epochs=2)
    first = background("train", "one.json")
    wait_until(lambda: list(run.glob(".owner-*")))
    refused = cli("train", "two.json")
    assert refused.returncode == 2
    assert f"another process is training in run: process {first.pid} on " in refused.stdout + refused.stderr
    wait_until(lambda: has_stepped(run))
    kill_tree(first.pid)
    assert list(run.glob(".owner-*"))
    assert cli("train", "two.json").returncode == 0
    assert json.loads((run / "status.json").read_text())["state"] == "finished"
    assert not list(run.glob(".owner-*"))
    assert not trainers_in(Path.cwd())
