"""What follows from what was measured."""

import json
from dataclasses import replace
from typing import Any

import pytest

from accel_trainer.core.spans import Phase
from accel_trainer.profiling.figures import Profile, Setting, limit

SETTING = Setting("cpu", 1, 2, 2, "float32", channels_last=False, compile=False, augments_on_device=False)
STEP = {Phase.WAITING: 0.001, Phase.FORWARD: 0.04, Phase.BACKWARD: 0.05, Phase.OPTIMIZER: 0.009}
PROFILE = Profile(
    job="job",
    setting=SETTING,
    num_steps=50,
    images_per_step=64,
    images_per_batch=64,
    step=STEP,
    validation={Phase.FORWARD: 0.04},
    loading={Phase.LOADING: 0.0001, Phase.READING: 0.0008, Phase.RENDERING: 0.0001},
    saving=1.0,
    steps_per_epoch=1000,
    val_images=6400,
)


def changed(setting: dict[str, Any] | None = None, **changes: Any) -> Profile:
    return replace(PROFILE, setting=replace(SETTING, **(setting or {})), **changes)


def test_rates_and_an_epoch_follow_from_phases():
    assert PROFILE.step_s == pytest.approx(0.1)
    assert PROFILE.images_per_s == pytest.approx(640)
    assert PROFILE.images_per_s_of_model == pytest.approx(64 / 0.099)
    assert PROFILE.images_per_s_of_threads == pytest.approx(2 / 0.001)
    assert PROFILE.epoch == pytest.approx({"training": 100, "validation": 4, "saving": 1})
    two = changed({"num_processes": 2})
    assert two.images_per_process == 32
    assert two.images_per_s_of_threads == pytest.approx(4 / 0.001)
    assert two.epoch["validation"] == pytest.approx(2)


def test_a_row_is_plain_and_can_be_read_back():
    row = json.loads(json.dumps(PROFILE.as_row()))
    assert Profile.from_row(row) == PROFILE
    assert row["limit"] == limit(PROFILE)
    assert row["images_per_s"] == pytest.approx(640)


WAITS = {**STEP, Phase.WAITING: 0.062, Phase.FORWARD: 0.014, Phase.BACKWARD: 0.015}
SHOWS = {Phase.LOADING: 0.0001, Phase.READING: 0.0002, Phase.RENDERING: 0.0007}


@pytest.mark.parametrize(
    ("profile", "said"),
    [
        (
            changed(),
            "the model limits: forward and backward take 90% of a step, images are waited for 1% of the time; "
            "compile or channels_last or a GPU may help",
        ),
        (changed({"device": "cuda", "compile": True}), "mixed_precision or channels_last may help"),
        (
            changed({"device": "cuda", "compile": True, "channels_last": True, "precision": "bf16"}),
            "another GPU or a smaller image_size may help",
        ),
        (
            changed({"cores": 8}, step=WAITS),
            "loading limits: the step waits 62% of the time for images; 2 threads give 2,000 images/s, the model could "
            "take 1,684; more threads (num_workers 8) or `accel-train pack` may help",
        ),
        (changed({"threads": 1, "cores": 1}, step=WAITS), "1 thread gives 1,000 images/s"),
        (changed(step=WAITS, loading=SHOWS), "fewer augmentations, or a smaller image_size may help"),
        (changed({"device": "cuda"}, step=WAITS, loading=SHOWS), 'augment_on "device" may help'),
        (
            changed(step={**STEP, Phase.OPTIMIZER: 0.1}),
            "the optimizer limits: it takes 52% of a step; a larger batch_size has fewer steps",
        ),
        (changed(step={**STEP, Phase.AUGMENTATION: 0.2}), 'augment_on "loader" moves it to the threads'),
        (changed(step={**STEP, Phase.STEP: 0.2}), "what surrounds the model in every step limits: it takes 67%"),
        (changed(val_images=640000), "the validation limits: it takes 80% of an epoch; fewer validation images"),
        (changed(saving=300), "saving limits: it takes 74% of an epoch; a faster disk for model_dir helps"),
        (changed(saving=300, steps_per_epoch=50), "epochs are short for such a model"),
    ],
)
def test_a_sentence_names_the_limit_and_what_may_help(profile, said):
    assert said in limit(profile)
