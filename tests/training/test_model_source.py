"""The source of a model of one's own is part of a run, whether it is in git or not."""

import importlib
import json
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from loops import TINY

from accel_trainer.config import Job
from accel_trainer.core.allow_imports import ALLOW_VARIABLE
from accel_trainer.core.processes import StopRequest
from accel_trainer.run.dataset_record import read_dataset_record
from accel_trainer.run.folder import RunFolder
from accel_trainer.run.status import RunState
from accel_trainer.training.identity.model_source import ModelSource
from accel_trainer.training.reporting import TrainingResult
from accel_trainer.training.session import SessionOptions, train

MODELS = """
from torch import nn
from .layers import WIDTH
import my_lab_tools

class Net(nn.Sequential):
    def __init__(self, num_classes):
        super().__init__(nn.Flatten(), nn.Linear(3 * 8 * 8, WIDTH), nn.Linear(WIDTH, num_classes))
"""
LAZY = """
WIDTH = 4
try:
    from ...above import x
except ImportError:
    pass

def look():
    from my_lab.plots import COLOR
    import my_lab.missing
"""
Begin = Callable[..., TrainingResult]


def forget() -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] in ("my_lab", "my_lab_tools")]:
        del sys.modules[name]


@pytest.fixture
def package(own_environment: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv(ALLOW_VARIABLE, "my_lab,my_lab_tools")
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    folder = own_environment / "my_lab"
    folder.mkdir()
    for name, text in (
        ("my_lab/__init__", ""),
        ("my_lab/models", MODELS),
        ("my_lab/layers", "WIDTH = 4\n"),
        ("my_lab/plots", "COLOR = 1\n"),
        ("my_lab_tools", ""),
    ):
        (own_environment / f"{name}.py").write_text(text)
    yield folder
    forget()


@pytest.fixture
def begin(make_job: Callable[..., Job], tmp_path: Path) -> Begin:
    """Train, each time an epoch more, in a process that has imported the model anew."""

    def start(epochs: int, **given: Any) -> TrainingResult:
        forget()
        run = RunFolder(tmp_path / "run")
        run.create()
        own = {"architecture": "my_lab.models:Net", "architecture_args": {}, "class_subset": [0, 1], "image_size": 8}
        job = make_job(**{**TINY, **own, **given, "num_epochs": epochs})
        return train(job, run, StopRequest(), SessionOptions(cpu=True, prints=False))

    return start


def test_the_modules_of_a_model_are_recorded_and_no_others(begin: Begin, package: Path, tmp_path: Path) -> None:
    begin(1).check()
    record = read_dataset_record(RunFolder(tmp_path / "run"))
    assert record is not None
    assert [one.name for one in record.splits["model"].classes] == [
        "my_lab", "my_lab.layers", "my_lab.models", "my_lab_tools",
    ]  # fmt: skip


def test_another_source_is_refused_with_the_file_that_differs_or_accepted(
    begin: Begin, package: Path, tmp_path: Path
) -> None:
    begin(1).check()
    (package / "plots.py").write_text("COLOR = 2\n")
    begin(2).check()
    (package / "layers.py").write_text("WIDTH = 4  # as before\n")
    refused = begin(3)
    assert refused.state is RunState.INVALID
    assert refused.reason is not None
    assert "architecture: the source of 'my_lab.models:Net' is not what the run in" in refused.reason
    assert "model: 1 file changed (my_lab.layers/layers.py)" in refused.reason
    begin(3, allow_changes=True).check()
    begin(4).check()


def test_a_run_of_an_older_version_is_given_the_record(begin: Begin, package: Path, tmp_path: Path) -> None:
    begin(1).check()
    file = RunFolder(tmp_path / "run").dataset
    record = json.loads(file.read_text())
    del record["splits"]["model"]
    file.write_text(json.dumps(record))
    begin(2).check()
    (package / "layers.py").write_text("WIDTH = 4 + 0\n")
    assert begin(3).state is RunState.INVALID


def test_what_is_imported_only_when_it_is_used_counts_whether_it_was_used_or_not(
    begin: Begin, package: Path, tmp_path: Path
) -> None:
    """A step of the finder, or an earlier training, may have imported it."""
    (package / "layers.py").write_text(LAZY)
    (package / "plots.py").write_text("COLOR = 1\nfrom my_lab import broken\n")
    (package / "broken.py").write_text("1 +\n")
    begin(1).check()
    record = read_dataset_record(RunFolder(tmp_path / "run"))
    assert record is not None
    names = [one.name for one in record.splits["model"].classes]
    assert names == ["my_lab", "my_lab.broken", "my_lab.layers", "my_lab.models", "my_lab.plots", "my_lab_tools"]
    forget()
    (package / "broken.py").write_text("")
    assert begin(2).state is RunState.INVALID
    (package / "broken.py").write_text("1 +\n")
    with pytest.raises(SyntaxError):
        importlib.import_module("my_lab.layers").look()
    source = ModelSource("my_lab.models:Net")
    assert list(source.classes) == names


def test_modules_of_a_zip_are_no_files(package: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "lab.zip", "w") as archive:
        archive.writestr("my_lab_zipped.py", "from my_lab import plots\n")
    monkeypatch.syspath_prepend(str(tmp_path / "lab.zip"))
    monkeypatch.setenv(ALLOW_VARIABLE, "my_lab,my_lab_zipped")
    assert list(ModelSource("my_lab_zipped:Net").classes) == []
