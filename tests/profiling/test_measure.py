"""A few steps of a training, measured in this process."""

import json
import time
from pathlib import Path
from typing import Any

import helpers
import pytest
import torch
from helpers import file_names
from loops import TINY

from accel_trainer.config import Job
from accel_trainer.core.errors import UserError
from accel_trainer.core.spans import Phase
from accel_trainer.data import loader
from accel_trainer.profiling.figures import limit
from accel_trainer.profiling.measure import profile

# Tensors as small as these need no more.
one_core = pytest.fixture(autouse=True)(helpers.one_core)


PAUSE_S = 0.02
SLOW = {"architecture": "tiny_models:Unhurried", "architecture_args": {"pause_s": PAUSE_S}}


def tiny(**changes: Any) -> Job:
    given = {**TINY, "dataset": "digits", "trackers": ["wandb"], "batch_size": 64, "num_workers": 1, "model_dir": "run"}
    return Job.model_validate({**given, **changes})


@pytest.mark.usefixtures("tiny_models")
def test_every_phase_is_measured_and_together_they_are_the_step(tmp_path):
    """Over more steps than an epoch has; and the user's run folder and tracker hear nothing of it."""
    trace = tmp_path / "trace.json"
    job = tiny(**SLOW, class_subset=[0, 1], ema=0.9, gradient_accumulation=2, batch_size=128)
    found = profile(job, tmp_path / "scratch", steps=6, warm_up=2, trace=trace)
    assert found.num_steps == 6
    assert (found.steps_per_epoch, found.images_per_step, found.val_images) == (2, 128, 91)
    absent = {Phase.AUGMENTATION, Phase.SAVING, Phase.LOADING, Phase.READING, Phase.RENDERING}
    assert found.step.keys() == set(Phase) - absent
    assert found.step[Phase.FORWARD] >= 2 * PAUSE_S  # twice in a step, and nowhere else
    assert found.loading.keys() == {Phase.LOADING, Phase.READING, Phase.RENDERING}
    assert {Phase.WAITING, Phase.COPY, Phase.FORWARD, Phase.METRICS} == found.validation.keys()
    assert all(seconds >= 0 for times in (found.step, found.loading, found.validation) for seconds in times.values())
    assert found.saving > 0
    assert not Path("run").exists()
    assert not list(Path.cwd().iterdir())

    events = json.loads(trace.read_text())["traceEvents"]
    spans = [event for event in events if event.get("cat") == "user_annotation"]
    threads = {name: {span["tid"] for span in spans if span["name"] == name} for name in {s["name"] for s in spans}}
    assert len(threads["step"]) == len(threads["loading"]) == 1
    assert threads["forward"] == threads["backward"] == threads["optimizer"] == threads["step"]
    assert threads["saving"] > threads["step"], "the step waits for a copy, which a thread writes"
    assert threads["step"].isdisjoint(threads["loading"])
    # By the same clock: what is loaded is waited for.
    (first, *_) = sorted((span for span in spans if span["name"] == "loading"), key=lambda span: span["ts"])
    (wait, *_) = (span for span in spans if span["name"] == "waiting for images")
    assert wait["ts"] - 1000 < first["ts"] < wait["ts"] + wait["dur"]


@pytest.mark.parametrize("threads", [0, 1])
@pytest.mark.usefixtures("tiny_models")
def test_a_step_that_waits_for_its_images_is_limited_by_loading(tmp_path, monkeypatch, threads):
    """Images that take ten milliseconds each are loaded at a hundred in a second at most."""
    read = loader.ImageReader._pixels

    def slowly(self, *which):
        time.sleep(0.01)
        return read(self, *which)

    monkeypatch.setattr(loader.ImageReader, "_pixels", slowly)
    job = tiny(batch_size=8, num_workers=threads)
    found = profile(job, tmp_path / "scratch", steps=4, warm_up=1, trace=tmp_path / "trace.json")
    assert found.images_per_s_of_threads <= 100
    assert found.images_per_s <= 100
    assert found.fraction(Phase.WAITING) > 0.5
    assert limit(found).startswith("loading limits: the step waits ")


@pytest.mark.usefixtures("tiny_models")
def test_a_profile_uses_the_numbers_that_its_run_has_found(tmp_path):
    job = tiny(batch_size="auto", optimizer_args={"lr": "LRfinder", "momentum": 0.9})
    Path("run").mkdir()
    Path("run/found.json").write_text('{"auto": 32}')
    found = profile(job, tmp_path / "scratch", steps=2, warm_up=1, trace=tmp_path / "trace.json")
    assert found.images_per_step == 32
    assert file_names(Path()) == ["run/found.json"]


@pytest.mark.usefixtures("tiny_models")
def test_a_loss_that_is_not_finite_is_a_mistake_of_the_job(tmp_path, monkeypatch):
    monkeypatch.setattr(loader.ImageReader, "_pixels", lambda self, *which: torch.zeros(3, 8, 8, dtype=torch.uint8))
    job = tiny(architecture="tiny_models:AfraidOfTheDark")
    with pytest.raises(UserError, match="the loss or its gradient was not finite at step"):
        profile(job, tmp_path / "scratch", steps=4, warm_up=1, trace=tmp_path / "trace.json")


@pytest.mark.usefixtures("tiny_models")
def test_a_lack_of_memory_is_one_too(tmp_path):
    job = tiny(architecture="tiny_models:Hungry", architecture_args={"most": 8})
    with pytest.raises(UserError, match="batch_size: 64: out of memory; use a smaller batch_size"):
        profile(job, tmp_path / "scratch", steps=4, warm_up=1, trace=tmp_path / "trace.json")
