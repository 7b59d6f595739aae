"""What is wrong with a machine is said once, fittingly for each verb, and no job is called wrong for it."""

import os
import re
from pathlib import Path

import pytest
from helpers import write_job
from launch.fake_driver import HANGING
from typer.testing import CliRunner

from accel_trainer.cli import app
from accel_trainer.launch import nvidia


@pytest.fixture
def broken_default(own_environment) -> Path:
    path = Path.home() / ".cache/huggingface/accelerate/default_config.yaml"
    path.parent.mkdir(parents=True)
    path.write_text("distributed_type: FSDP\nfsdp_config: {fsdp_version: 2}\n")
    return path


def test_the_queue_is_left_as_it_is_with_code_3(broken_default, forked_cli):
    for name in "ab":
        write_job(Path(f"training_queue/{name}.json"))
    done = forked_cli("run-queue")
    assert done.returncode == 3
    assert done.stderr.count("error: ") == 1
    assert f"{broken_default}: distributed_type: 'FSDP' is not supported" in done.stderr
    assert {path.name for path in Path("training_queue").glob("*.json")} == {"a.json", "b.json"}
    assert not any(Path("training_queue/failed").iterdir())


def test_an_option_is_refused_before_anything_is_claimed(own_environment, forked_cli):
    Path("c.yaml").write_text("distributed_type: 'NO'\nmpirun_config: {rdzv_endpoint: 'x:1'}\n")
    write_job(Path("training_queue/a.json"))
    done = forked_cli("run-queue", "--config", "c.yaml")
    assert done.returncode == 2
    assert done.stderr.startswith("error: --config c.yaml: mpirun_config: ") or "--config: c.yaml" in done.stderr
    assert Path("training_queue/a.json").exists()


def test_a_job_that_reaches_for_torchruns_options_is_refused_by_name(own_environment, forked_cli):
    Path("c.yaml").write_text("distributed_type: 'NO'\nmpirun_config: {rdzv_endpoint: 'x:1'}\n")
    write_job(Path("training_queue/a.json"), accelerate_config="c.yaml")
    done = forked_cli("run-queue")
    assert done.returncode == 1
    assert "mpirun_config" in Path("training_queue/failed/a.reason.txt").read_text()


def test_a_job_is_valid_and_can_be_added_whatever_the_machines_default_is(broken_default, cli):
    job = write_job(Path("a.json"))
    done = cli("validate", str(job))
    assert done.returncode == 0
    assert done.stderr.count("warning: no job can be launched on this machine: ") == 1
    assert cli("add", str(job)).returncode == 0


def test_train_ends_with_code_3_before_it_makes_a_folder(broken_default, forked_cli):
    done = forked_cli("train", str(write_job(Path("a.json"))))
    assert done.returncode == 3
    assert str(broken_default) in done.stderr
    assert not Path("models").exists()


def test_more_processes_than_a_cpu_can_bear_are_refused_before_a_folder_is_made(own_environment, forked_cli):
    job = write_job(Path("a.json"), num_processes=1024, batch_size=1024)
    for words in (("train", job), ("train", "--num-processes", "1024", write_job(Path("b.json"), batch_size=1024))):
        done = forked_cli(*words)
        assert (done.returncode, done.stdout) == (2, "")
        assert re.fullmatch(r"error: num_processes: 1,024 are more than may train on \d+ cores, \d+\n", done.stderr)
    assert not Path("models").exists()


def test_a_driver_that_hangs_is_asked_once_by_validate_and_all_that_it_starts(own_environment, tmp_path, monkeypatch):
    monkeypatch.setattr(nvidia, "LIMIT_S", 1.0)
    tool, asked = tmp_path / "bin" / "nvidia-smi", tmp_path / "asked"
    tool.parent.mkdir()
    tool.write_text(f"#!/bin/sh\necho asked >> {asked}\n{HANGING}\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tool.parent), prepend=os.pathsep)
    nvidia.answer_of_driver.cache_clear()
    try:
        done = CliRunner().invoke(app, ["validate", str(write_job(Path("a.json")))])
    finally:
        nvidia.answer_of_driver.cache_clear()
    assert done.exit_code == 0, done.output
    assert "training images" in done.output
    assert asked.read_text().split() == ["asked"]
