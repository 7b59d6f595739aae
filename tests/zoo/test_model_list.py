"""What can be named, beside what torchvision and the papers publish."""

import pytest
from torchvision import models

from accel_trainer.core.errors import UserError
from accel_trainer.zoo import registry
from accel_trainer.zoo.registry import ModelEntry, catalogue


def entries(family: str) -> dict[str, ModelEntry]:
    return {entry.name: entry for entry in catalogue(family)}


@pytest.mark.parametrize(
    ("family", "name", "parameters"),
    [
        ("resnet", "resnet18", 11_689_512),
        ("alexnet", "alexnet", 61_100_840),
        ("vision_transformer", "vit_b_16", 86_567_656),
        ("regnet", "regnet_y_400mf", 4_344_144),
    ],
)
def test_the_numbers_are_those_that_torchvision_publishes(family: str, name: str, parameters: int) -> None:
    assert entries(family)[name] == ModelEntry(name, family, "torchvision", "images", parameters)
    assert models.get_model_weights(name).DEFAULT.meta["num_params"] == parameters


def test_what_the_zoo_takes_and_how_large_it_is() -> None:
    found = [(e.name, e.takes, e.parameters) for family in ("CORnet", "blt", "small") for e in catalogue(family)]
    assert found == [
        ("cornet_z", "images", 2_071_656),
        ("cornet_r", "both", 5_208_936),
        ("cornet_rt", "both", 5_208_936),
        ("cornet_s", "images", 53_416_616),
        ("cornet_s_plus", "images", 71_138_684),
        ("cornet_s_custom", "images", 54_011_688),
        ("blt_b", "images", 11_037_768),
        ("blt_bl", "both", 28_870_920),
        ("blt_bt", "both", 37_528_840),
        ("blt_blt", "both", 55_302_408),
        ("small_cnn", "images", 222_472),
    ]
    assert all(entry.source == "zoo" for entry in catalogue("blt"))
    assert [name for name, _, _ in found] == list(registry.ZOO)


def test_models_of_video_clips_are_marked_as_such() -> None:
    found = entries("video.resnet")
    assert {entry.takes for entry in found.values()} == {"clips"}
    assert found.keys() == {"mc3_18", "r2plus1d_18", "r3d_18"}


def test_every_model_has_a_family_and_unknown_families_are_reported() -> None:
    with pytest.raises(UserError, match="no 'cornett'; did you mean 'cornet'") as caught:
        catalogue("cornett")
    families = str(caught.value).partition("there are ")[2].split(", ")
    assert len(families) == len(set(families)) > 20
    assert {"cornet", "blt", "small", "resnet", "convnext", "video.swin_transformer"} <= set(families)
