"""A queue from Python."""

import json
import os
from pathlib import Path

import pytest
from helpers import write_job
from tiny_runs import tiny_job

from accel_trainer import Job, Queue, UserError
from accel_trainer.config import read_job
from accel_trainer.launch.command import LaunchOptions


def test_a_job_is_added_as_a_file_of_the_given_parameters(tmp_path: Path) -> None:
    queue = Queue(tmp_path / "queue")
    job = tiny_job(tmp_path / "run", name="mine")
    path = queue.add(job)
    assert path == tmp_path / "queue/mine.json"
    assert read_job(path).completed() == job.completed()
    assert "momentum" not in path.read_text(), "no defaults"
    assert [(row.job, row.state) for row in queue.jobs()] == [("mine", "pending")]


def test_a_job_file_is_added_as_it_is(tmp_path: Path) -> None:
    file = write_job(tmp_path / "quick.json")
    path = Queue(tmp_path / "queue").add(file)
    assert path.read_bytes() == file.read_bytes()


def test_what_is_in_the_queue_is_added_again_only_by_force(tmp_path: Path) -> None:
    queue = Queue(tmp_path / "queue")
    queue.add(tiny_job(tmp_path / "run", name="mine"))
    with pytest.raises(UserError, match="a job 'mine' is pending in the queue"):
        queue.add(tiny_job(tmp_path / "run", name="mine", seed=1))
    with pytest.raises(UserError, match="the same as 'mine', which is pending"):
        queue.add(tiny_job(tmp_path / "run", name="other"))
    queue.add(tiny_job(tmp_path / "run", name="mine", seed=1), force=True)
    assert json.loads((queue.folder / "mine.json").read_text())["seed"] == 1


def test_two_jobs_in_one_run_folder_are_refused_unless_one_waits(tmp_path: Path) -> None:
    queue = Queue(tmp_path / "queue")
    queue.add(tiny_job(tmp_path / "run", name="first"))
    (tmp_path / "link").symlink_to(tmp_path / "run")
    with pytest.raises(
        UserError, match=r"model_dir: .*/link is the run folder of 'first' too, which is pending in the"
    ):
        queue.add(tiny_job(tmp_path / "link", name="second", seed=1))
    queue.add(tiny_job(tmp_path / "run", name="second", seed=1, after=["first"]))
    queue.add(tiny_job(tmp_path / "run", name="third", seed=2, after=["second"]))
    with pytest.raises(UserError, match="the run folder of 'first' too"):
        queue.add(tiny_job(tmp_path / "run", name="fourth", seed=3))
    queue.add(tiny_job(tmp_path / "run", name="fourth", seed=3), force=True)
    queue.add(tiny_job(tmp_path / "elsewhere", name="fifth", seed=4))
    assert len(queue.jobs()) == 5


def test_a_job_that_cannot_be_trained_is_refused(tmp_path: Path) -> None:
    queue = Queue(tmp_path / "queue")
    with pytest.raises(UserError, match="no model 'small_cnm'"):
        queue.add(tiny_job(tmp_path / "run", architecture="small_cnm"))
    with pytest.raises(UserError, match="may not contain '/'"):
        queue.add(Job(architecture="small_cnn", name="a/b"))
    unchecked = tiny_job(tmp_path / "run").model_copy(update={"num_epochs": -1})
    with pytest.raises(UserError, match="num_epochs"):
        queue.add(unchecked)
    assert queue.jobs() == []


def test_checking_a_job_gives_its_size_and_adds_nothing(tmp_path: Path) -> None:
    queue = Queue(tmp_path / "queue")
    summary = queue.check(tiny_job(tmp_path / "run", name="mine"))
    assert (summary["architecture"], summary["classes"], summary["num_epochs"]) == ("small_cnn", 3, 1)
    assert queue.check(write_job(tmp_path / "file.json"))["classes"] > 0
    with pytest.raises(UserError, match=r"mine: .*no model 'small_cnm'"):
        queue.check(tiny_job(tmp_path / "run", name="mine", architecture="small_cnm"))
    assert not queue.folder.exists()


def test_a_queue_checks_jobs_for_the_launch_of_its_options(tmp_path: Path) -> None:
    job = tiny_job(tmp_path / "run", name="mine", batch_size=7)
    Queue(tmp_path / "queue").check(job)
    with pytest.raises(UserError, match="mine: batch_size"):
        Queue(tmp_path / "queue", LaunchOptions(num_processes=2)).check(job)


def test_a_model_of_ones_own_is_allowed_for_one_call(tmp_path: Path) -> None:
    queue, before = Queue(tmp_path / "queue"), dict(os.environ)
    job = tiny_job(tmp_path / "run", architecture="tiny_models:NormAndDropout", architecture_args={})
    with pytest.raises(UserError, match="is not allowed"):
        queue.add(job)
    queue.add(job, allow=["tiny_models"])
    assert dict(os.environ) == before


def test_what_only_a_device_decides_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    queue = Queue(tmp_path / "queue")
    job = tiny_job(
        tmp_path / "run",
        name="mine",
        architecture="alexnet",
        architecture_args={},
        image_size=64,
        optimizer="Adam",
        optimizer_args={"capturable": True},
        deterministic=True,
    )
    summary = queue.check(job)
    assert [warning.partition(":")[0] for warning in summary["warnings"]] == [
        "optimizer_args.capturable",
        "deterministic",
    ]
    assert "AdaptiveAvgPool2d" in summary["warnings"][1]
    assert not {"rates", "on_cpu", "without_order"} & summary.keys()
