"""What a trainer is told when it is started."""

from pathlib import Path

import pytest
from helpers import write_job

from accel_trainer.config import Job
from accel_trainer.runs import RunFolder
from accel_trainer.training import worker


@pytest.mark.parametrize(
    ("words", "expected"), [([], "parent"), (["--starting-params=models/resnet18/parent"], "models/resnet18/parent")]
)
def test_the_name_of_a_job_to_start_from_is_replaced_by_the_path_that_the_queue_says(monkeypatch, words, expected):
    monkeypatch.setattr(worker.StopRequest, "listen", lambda *_: None)
    given: list[Job] = []

    def train(job: Job, run: RunFolder, *_: object) -> int:
        given.append(job)
        return 0

    monkeypatch.setattr(worker, "_train_and_tell", train)
    file = write_job(Path("child.json"), finetune=True, finetune_args={"starting_params": "parent"})
    assert worker.main([str(file), "--name=child", *words]) == 0
    assert given[0].finetune_args.starting_params == expected
