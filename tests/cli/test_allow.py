"""Packages that are allowed for a queue once and for all."""

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

from helpers import write_job

from accel_trainer.core.allowed_queues import allowed_for
from accel_trainer.queue.store import QueueStore

Cli = Callable[..., subprocess.CompletedProcess[str]]
MODEL = """
from torch import nn


class Tiny(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.output = nn.Linear(3, num_classes)

    def forward(self, images):
        return self.output(images.mean((2, 3)))
"""


def test_what_is_allowed_for_a_queue_holds_for_its_verbs_and_no_other_queue(cli: Cli, queue: QueueStore) -> None:
    Path("my_lab.py").write_text(MODEL)
    job = write_job(Path("mine.json"), architecture="my_lab:Tiny", architecture_args={})
    QueueStore(Path("other")).create()
    refused = cli("validate", job)
    assert refused.returncode == 2
    assert "importing 'my_lab' is not allowed" in refused.stderr
    assert cli("allow", "my_lab").stdout == "jobs of training_queue may import my_lab\n"
    assert cli("validate", job).returncode == 0
    assert cli("validate", job, "--queue", "other").returncode == 2
    assert cli("add", job).returncode == 0
    said = cli("run-queue", "--dry-run")
    assert said.returncode == 0
    assert "jobs may import my_lab (`accel-train allow`)" in said.stderr
    assert cli("allow", "--remove", "my_lab").stdout == "jobs of training_queue may import nothing of yours\n"
    assert cli("validate", job).returncode == 2


def test_the_list_grows_and_shrinks_by_the_real_path_of_the_queue(cli: Cli, queue: QueueStore) -> None:
    Path("link").symlink_to("training_queue")
    assert cli("allow", "a", "b.models").returncode == 0
    assert json.loads(cli("allow", "b.models", "c", "--queue", "link", "--json").stdout) == ["a", "b.models", "c"]
    assert json.loads(cli("allow", "--remove", "a", "--json").stdout) == ["b.models", "c"]
    for words, said in (
        (("x y",), "is not the name of a package"),
        (("--remove", "z"), "'z' is not allowed for"),
        (("--remove",), "name the packages"),
        (("a", "--queue", "nowhere"), "there is no queue in nowhere"),
    ):
        refused = cli("allow", *words)
        assert refused.returncode in (2, 3)
        assert said in refused.stderr
    assert allowed_for(Path("training_queue")) == ["b.models", "c"]
    file = Path(os.environ["HOME"]) / ".config/accel-train/allowed_imports.json"
    assert file.stat().st_mode & 0o077 == 0
    file.write_text("{")
    assert allowed_for(Path("training_queue")) == []


def test_a_file_of_another_user_allows_nothing(cli: Cli, queue: QueueStore, monkeypatch) -> None:
    assert cli("allow", "a").returncode == 0
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    assert allowed_for(Path("training_queue")) == []
