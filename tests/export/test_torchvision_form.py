"""Weights for torchvision's own models."""

import pytest
import torch


@pytest.mark.parametrize(
    ("architecture", "changes"),
    [("resnet18", {"image_size": 32}), ("googlenet", {"image_size": 64})],
)
def test_torchvision_loads_them_strictly(make_run, run_card, image, tmp_path, architecture, changes) -> None:
    run = make_run(architecture, **changes)
    run.export(tmp_path / "out", "torchvision")
    found = run_card(tmp_path / "out")["With torchvision"]
    with torch.inference_mode():
        assert torch.equal(found["logits"], run.model()(run.transform(image)[None]))


def test_models_of_clips_take_what_torchvision_gives_them(make_run, run_card, image, tmp_path) -> None:
    run = make_run("mc3_18", image_size=16, video=True, num_views=2)
    run.export(tmp_path / "out", "torchvision")
    found = run_card(tmp_path / "out")["With torchvision"]
    with torch.inference_mode():
        assert torch.equal(found["logits"], run.model()(run.transform(image)[None]))
