"""Weights that were not trained here are exported as what they are."""

from pathlib import Path

import pytest
import torch
import yaml
from torchvision import models

from accel_trainer import Run, load_pretrained


@pytest.fixture(scope="module")
def anchor(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("anchor")
    torch.manual_seed(0)
    torch.save(models.squeezenet1_1(num_classes=10).state_dict(), folder / "theirs.pth")
    run = load_pretrained(
        "squeezenet1_1", str(folder / "theirs.pth"), dataset="digits", out=folder / "run", image_size=32
    )
    run.evaluate()
    return run


def test_a_card_claims_no_training(anchor: Run, run_card, image: Path, tmp_path: Path) -> None:
    anchor.export(tmp_path / "out", "torchvision")
    found = run_card(tmp_path / "out")["With torchvision"]
    with torch.inference_mode():
        assert torch.equal(found["logits"], anchor.model()(anchor.transform(image)[None]))
    text = (tmp_path / "out/README.md").read_text()
    assert "with the weights `theirs.pth`, which accel-train" in text
    assert "has not trained, only evaluated on digits" in text
    assert "trained on digits" not in text
    assert "## Training" not in text
    assert str(anchor.path.parent) not in text


def test_a_plugin_of_brain_score_claims_none_either(anchor: Run, tmp_path: Path) -> None:
    anchor.export(tmp_path / "out", "brain-score")
    (entry,) = yaml.safe_load((tmp_path / "out/metadata.yaml").read_text())["models"].values()
    assert "data" not in entry
    assert entry["training"] == {"preprocessing": "shorter side 36 (bilinear), center crop 32"}
