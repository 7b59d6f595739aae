"""The layout of the hub: timm and transformers give the logits of the trained model, to the bit."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from accel_trainer import Run, UserError, load_export

KNOWN: dict[str, tuple[str, dict[str, Any]]] = {
    "resnet18": ("resnet18", {}),
    "densenet121": ("densenet121", {}),
    "timm": ("timm:test_vit", {}),
    "timm with arguments": ("timm:resnet14t", {"global_pool": "max"}),
}


def expected(run: Run, image: Path, allow: str = "") -> torch.Tensor:
    """What the trained model gives for the image."""
    with torch.inference_mode():
        return run.model(allow=allow)(run.transform(image)[None])


@pytest.mark.parametrize("known", KNOWN)
def test_the_card_s_examples_give_the_trained_model_s_logits(make_run, run_card, image, tmp_path, known: str) -> None:
    architecture, args = KNOWN[known]
    run = make_run(architecture, args, image_size=64)
    written = run.export(tmp_path / "out")
    assert written.checks == {"timm": 0.0}
    found = run_card(tmp_path / "out")
    assert list(found) == ["With timm", "With transformers", "With accel-train"]
    logits = expected(run, image)
    assert torch.equal(found["With timm"]["logits"], logits)
    assert torch.equal(found["With transformers"]["logits"], logits)
    assert torch.equal(found["With accel-train"]["output"], logits)
    assert list(found["With transformers"]["model"].config.id2label.values()) == run.classes


def test_timms_own_preprocessing_is_the_runs_to_a_level(make_run, image, tmp_path) -> None:
    run = make_run("resnet18", image_size=32, eval_crop=0.95, mean=[0.5, 0.4, 0.3], std=[0.2, 0.3, 0.25])
    run.export(tmp_path / "out")
    model = timm.create_model(f"local-dir:{tmp_path / 'out'}", pretrained=True)
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
    with Image.open(image) as opened:
        theirs = transform(opened)
    std = torch.tensor(run.job.std).view(3, 1, 1)
    levels = (theirs - run.transform(image)).mul(255 * std).abs()
    assert theirs.shape == (3, 32, 32)
    assert levels.max() < 1.01


@pytest.mark.parametrize("share", [0.875, 0.95, 224 / 232, 0.33, 1.0])
@pytest.mark.parametrize("size", [8, 29, 32, 224])
def test_timms_share_of_the_crop_comes_to_the_same_side(trained: Run, size: int, share: float) -> None:
    from accel_trainer.export.preprocessing import Preprocessing

    found = Preprocessing.of(trained.job.model_copy(update={"image_size": size, "eval_crop": share}))
    assert int(size / found.crop_share) == found.resize_shorter_side_to == int(size / share + 1e-6)


@pytest.mark.parametrize(
    ("architecture", "args", "why"),
    [
        ("small_cnn", {"features": [4, 4, 4]}, "timm has no small_cnn"),
        ("blt_bl", {"features": [4, 6], "kernel_sizes": [3, 3], "num_cycles": 2}, "timm has no blt_bl"),
        ("efficientnet_b0", {}, "timm's efficientnet_b0 is another network"),
        ("tiny_models:NormAndDropout", {}, "timm has no tiny_models:NormAndDropout"),
    ],
)
def test_what_timm_has_not_says_why_and_is_loaded_by_this_package(
    make_run, run_card, image, tmp_path, monkeypatch, architecture, args, why
) -> None:
    monkeypatch.setenv("ACCEL_TRAIN_ALLOW_IMPORTS", "tiny_models")
    run = make_run(architecture, args)
    written = run.export(tmp_path / "out", allow="tiny_models")
    assert why in written.notes[0]
    assert why in (tmp_path / "out/README.md").read_text()
    found = run_card(tmp_path / "out")
    assert list(found) == ["With accel-train"]
    assert torch.equal(found["With accel-train"]["output"], expected(run, image, "tiny_models"))
    assert "pretrained_cfg" not in json.loads((tmp_path / "out/config.json").read_text())


def test_an_export_of_embeddings_names_no_classes(make_run, run_card, tmp_path) -> None:
    run = make_run(
        "resnet18",
        {"num_classes": 12},
        criterion="SimCLRLoss",
        num_views=2,
        image_size=32,
        primary_metric="contrastive_acc",
    )
    run.export(tmp_path / "out")
    config = json.loads((tmp_path / "out/config.json").read_text())
    assert config["num_classes"] == 12
    assert "label_names" not in config
    found = run_card(tmp_path / "out")
    assert torch.equal(found["With timm"]["logits"], found["With accel-train"]["output"])


def test_an_export_is_opened_without_the_run(make_run, image, tmp_path) -> None:
    run = make_run("small_cnn", {"features": [4, 4, 4]})
    logits, transform = expected(run, image), run.transform
    pixels = transform(np.full((9, 9, 3), 7, np.uint8))
    run.export(tmp_path / "out")
    run.path.rename(tmp_path / "gone")
    export = load_export(tmp_path / "out")
    assert (export.format, export.classes) == ("hf", ["2", "0", "1"])
    assert torch.equal(export.transform(np.full((9, 9, 3), 7, np.uint8)), pixels)
    with torch.inference_mode():
        assert torch.equal(export.model()(export.transform(image)[None]), logits)
    with pytest.raises(UserError, match="no export"):
        load_export(tmp_path / "gone")
