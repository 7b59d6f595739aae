"""What a preview says was drawn for an image is what was done to it."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional as V

from accel_trainer.config import Job
from accel_trainer.data.drawn_words import drawn_words
from accel_trainer.data.native.images import Images
from accel_trainer.data.occluders.synthetic import make_occluders
from accel_trainer.data.pipeline import training_views

SIZE = 24
FULL = {
    "transform_type": "contrastive",
    "randomerase": 0,
    "Blur": {"sigmas": [0.5, 2]},
    "Noise": {"ssnrs": [0.5], "probs": [0.5]},
}


def words_of(changes: dict[str, Any], sizes: list[tuple[int, int] | None], **plan: int) -> list[list[str]]:
    job = Job.model_validate({"architecture": "resnet18", "image_size": SIZE, **changes})
    views = training_views(job, None)
    draws = views.rules.draws(plan.get("epoch", 1), 0, np.arange(len(sizes)))
    return drawn_words(views, views.draw(draws), sizes)


def test_the_box_and_the_flip_are_those_of_the_pixels() -> None:
    job = Job.model_validate({"architecture": "resnet18", "image_size": SIZE})
    views = training_views(job, None)
    pixels = [torch.from_numpy(np.random.default_rng(n).integers(0, 256, (3, 60, 80), np.uint8)) for n in range(8)]
    drawn = views.draw(views.rules.draws(1, 0, np.arange(8)))
    room = torch.empty(8, 3, SIZE, SIZE, dtype=torch.uint8)
    training_views(job, None, on_device=True).cut(Images.of(pixels), drawn, room)
    found = drawn_words(views, drawn, [(60, 80)] * 8)
    assert {"flipped" in words for words in found} == {True, False}
    for image, words, seen in zip(pixels, found, room, strict=True):
        width, height, left, top = map(
            int, words[0].replace("crop ", "").replace(" at ", ",").replace("x", ",").split(",")
        )
        expected = V.resize(image[:, top : top + height, left : left + width], [SIZE, SIZE], antialias=True)
        expected = V.horizontal_flip(expected) if "flipped" in words else expected
        assert (expected.int() - seen.int()).abs().max() <= 1


def test_every_effect_has_its_words_in_the_order_of_the_pipeline() -> None:
    found = words_of(FULL, [(60, 80)] * 64)
    kinds = ["crop", "flipped", "brightness", "saturation", "gray", "blur", "gaussian noise", "erased"]
    for words in found:
        places = [next(place for place, kind in enumerate(kinds) if word.startswith(kind)) for word in words]
        assert places == sorted(places)
    assert {kind for kind in kinds for words in found for word in words if word.startswith(kind)} == set(kinds)


@pytest.mark.parametrize(("policy", "count"), [("randaugment", 2), ("trivialaugment", 1), ("augmix", 4)])
def test_policies_name_their_operations(policy: str, count: int) -> None:
    found = words_of({"transform_type": f"none-{policy}"}, [(60, 80)] * 64)
    assert {len(words) for words in found} == {count}
    assert any("Rotate" in word for words in found for word in words)
    if policy == "randaugment":
        assert {word for words in found for word in words if "Rotate" in word} <= {"Rotate 9", "Rotate -9"}


def test_an_occluder_has_its_form_and_visibility(tmp_path: Path) -> None:
    forms = ["barHorz08", "mudSplash"]
    make_occluders(tmp_path, forms, [20, 60], number=2, size=16, report=lambda line: None)
    section = {"occluder_dir": str(tmp_path), "form": forms, "probability": 0.8}
    found = words_of({"transform_type": "none", "Occlusion": section}, [(60, 80)] * 64)
    expected = {f"{form} {level}%" for form, level in itertools.product(forms, (20, 60))}
    assert {word for words in found for word in words} == expected
    assert {len(words) for words in found} == {0, 1}


def test_of_an_image_that_cannot_be_decoded_no_crop_is_said() -> None:
    known, unknown = words_of({}, [(60, 80), None])
    assert known
    assert unknown == []
