"""A run folder from Python: the same model, pixels and numbers as in the training."""

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from tiny_runs import Seen, finish
from torchvision import models

from accel_trainer import Run, UserError, load_run, load_runs
from accel_trainer.data.sources.digits import Digits
from accel_trainer.training.runtime.kernels import in_memory_format, store_weights

VIDEO: dict[str, Any] = {
    "architecture": "cornet_rt",
    "architecture_args": {"features": [32] * 4, "num_cycles": 5, "return_cycles": "all"},
    "image_size": 8,
    "video": True,
    "Blur": {"sigmas": [4, 2, 0], "probs": [1, 1, 1]},
}
KINDS: dict[str, dict[str, Any]] = {
    "torchvision": {"architecture": "squeezenet1_1", "architecture_args": {}, "image_size": 32},
    "zoo": {
        "architecture": "blt_bl",
        "architecture_args": {"features": [4, 6, 8, 5], "kernel_sizes": [5, 3, 3, 1], "num_cycles": 2},
        "channels_last": True,
    },
    "timm": {"architecture": "timm:test_resnet", "architecture_args": {}, "image_size": 32},
    "own": {"architecture": "tiny_models:NormAndDropout", "architecture_args": {"dropout": 0.5}},
    "SimCLR": {"criterion": "SimCLRLoss", "num_views": 2, "architecture_args": {"num_classes": 12}},
    "video": VIDEO,
}


def assert_gives_the_same(run: Run, seen: Seen, weights: str = "best", allow: str = "") -> None:
    """To the bit, where images and weights lie as in the trainer: other kernels may add in another order."""
    model = run.model(weights, allow=allow)
    assert not model.training
    store_weights(run.job, model, torch.device("cpu"))
    assert seen.inputs
    for images, output in zip(seen.inputs, seen.outputs, strict=True):
        with torch.inference_mode():
            assert torch.equal(model(in_memory_format(run.job, images)), output)


# -- the model --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_the_best_model_gives_the_logits_of_the_trainer(tmp_path: Path, seen: Seen, kind: str) -> None:
    run = finish(tmp_path / "run", knn_interval=0, **KINDS[kind])
    assert_gives_the_same(run, seen, allow="tiny_models")
    if kind == "own":
        with pytest.raises(UserError, match="importing 'tiny_models' is not allowed"):
            run.model()


def test_a_fine_tuned_run_gives_its_logits_after_its_parent_is_removed(tmp_path: Path, seen: Seen) -> None:
    finish(tmp_path / "parent")
    seen.inputs.clear()
    seen.outputs.clear()
    child = finish(tmp_path / "parent", class_subset=[3, 4], finetune=True, finetune_args={"finetune_dir": "child"})
    moved = child.path.rename(tmp_path / "elsewhere")
    shutil.rmtree(tmp_path / "parent")
    run = load_run(moved)
    assert_gives_the_same(run, seen)
    assert run.classes == ["3", "4"]
    assert run.job.finetuning is not None


def test_published_weights_for_other_images_keep_their_transform(
    tmp_path: Path, seen: Seen, monkeypatch: pytest.MonkeyPatch
) -> None:
    published = models.googlenet(init_weights=False).state_dict()
    monkeypatch.setattr(models.GoogLeNet_Weights, "get_state_dict", lambda *_, **__: published)
    googlenet = {"architecture": "googlenet", "architecture_args": {}, "image_size": 32}
    run = finish(tmp_path / "run", **googlenet, pretrained="DEFAULT", class_subset=[0, 1])
    assert run.model().transform_input
    assert_gives_the_same(run, seen)


def test_weights_of_every_kind_are_loaded_and_others_are_refused(trained: Run) -> None:
    for name in ("best", "final", "ema", "swa", 0, 1, "2"):
        path = trained.weights(name)
        model = trained.model(name)
        assert all(torch.equal(value, model.state_dict()[key]) for key, value in load_file(path).items()), name
    with pytest.raises(UserError, match="has no 7 weights"):
        trained.model(7)


def test_loading_a_model_leaves_the_generator_and_the_environment_as_they_were(trained: Run) -> None:
    state, environment = torch.get_rng_state(), dict(os.environ)
    trained.model(allow=["tiny_models"])
    assert torch.equal(torch.get_rng_state(), state)
    assert dict(os.environ) == environment


# -- the pixels -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind", [{}, VIDEO, {"image_size": 20, "augment_on": "device"}], ids=["image", "clip", "device"]
)
def test_the_transform_gives_the_pixels_of_the_validation(tmp_path: Path, seen: Seen, kind: dict[str, Any]) -> None:
    run = finish(tmp_path / "run", **kind)
    digits = Digits("val")
    chosen = [index for index, label in enumerate(digits.labels.tolist()) if label in (0, 1, 2)]
    images = [Image.fromarray(digits.read(index).permute(1, 2, 0).numpy()) for index in chosen]
    assert torch.equal(torch.stack([run.transform(image) for image in images]), torch.cat(seen.inputs))


# -- what else a run has ------------------------------------------------------------------------------------------


def test_a_run_has_its_job_classes_status_history_and_summary(trained: Run) -> None:
    assert trained.classes == ["2", "0", "1"]
    assert trained.job.model_dump(include={"architecture", "num_epochs", "ema"}) == {
        "architecture": "small_cnn",
        "num_epochs": 2,
        "ema": 0.9,
    }
    assert trained.status is not None
    assert (trained.status.state, trained.status.epoch) == ("finished", 2)
    assert [(row["epoch"], row["split"]) for row in trained.history] == [
        (1, "train"), (1, "val"), (1, "val_ema"), (2, "train"), (2, "val"), (2, "val_ema"), (2, "val_swa")
    ]  # fmt: skip
    best = max(row["acc1"] for row in trained.history if row["split"] == "val")
    assert (trained.summary.best, trained.summary.state) == (best, "finished")
    assert "finished" in repr(trained)


def test_the_history_is_a_frame_where_pandas_is(trained: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pandas")
    frame = trained.history.to_frame()
    assert frame[frame.split == "val"].acc1.tolist() == [r["acc1"] for r in trained.history if r["split"] == "val"]
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(UserError, match="needs pandas"):
        trained.history.to_frame()


def test_a_run_is_measured_in_this_process_and_on_other_images(trained: Run, tmp_path: Path) -> None:
    found = trained.evaluate(weights="final")
    (row,) = [row for row in trained.history if (row["epoch"], row["split"]) == (2, "val")]
    assert found.scores["acc1"] == pytest.approx(row["acc1"], rel=1e-6)
    with pytest.raises(UserError, match="elsewhere"):
        trained.evaluate("elsewhere", data_root=tmp_path)


def test_a_run_is_measured_under_degradations(trained: Run) -> None:
    found = trained.evaluate(degradations=[{"name": "blur", "levels": [0, 8]}], probabilities=1, weights="final")
    assert list(trained.evaluations()) == [found.path.name]
    assert (found.computed, found.record.complete, repr(found)) == (
        270,
        True,
        f"MeasuredEvaluation({str(found.path)!r})",
    )
    by_level = found.trials.groupby("level", observed=True).correct.mean()
    scores = trained.evaluate(weights="final").scores
    assert 100 * by_level["0"] == pytest.approx(scores["acc1"], abs=1e-9)
    assert "probabilities" not in found.trials
    assert found.table().probabilities is not None
    summary = found.summary[found.summary.metric == "accuracy"].set_index("level")
    assert summary.value.to_dict() == by_level.to_dict()
    assert (summary.low < summary.value).all()
    assert [axes.get_title() for axes in found.plot().axes] == ["blur"]
    as_they_are = trained.evaluate(degradations=[])
    assert as_they_are.path.name == "validation"
    with pytest.raises(UserError, match="no image was degraded"):
        as_they_are.plot()
    with pytest.raises(UserError, match="`batch_size`: only with `degradations`"):
        trained.evaluate(batch_size=3)  # type: ignore[call-overload]


def test_a_run_may_be_moved_and_runs_are_found_below_a_folder(trained: Run, tmp_path: Path) -> None:
    for name in ("b", "a", "a/tuned", "a/previous/1"):
        shutil.copytree(trained.path, tmp_path / "models/net" / name)
    runs = load_runs(tmp_path / "models")
    assert [str(run.path.relative_to(tmp_path / "models/net")) for run in runs] == ["a", "a/tuned", "b"]
    assert runs[0].model() is not None
    assert runs[0].job == trained.job


def test_load_runs_finds_a_run_and_those_fine_tuned_inside_its_folder(tmp_path: Path) -> None:
    parent = tmp_path / "parent"
    for run in (parent / "b", parent / "a", parent / "previous" / "1"):
        run.mkdir(parents=True)
        (run / "config.json").write_text("{}")
    (parent / "logs").mkdir()
    assert [run.path for run in load_runs(parent)] == [parent / "a", parent / "b"]
    (parent / "config.json").write_text("{}")
    assert [run.path for run in load_runs(parent)] == [parent, parent / "a", parent / "b"]


def test_a_folder_without_a_run_is_refused(tmp_path: Path, trained: Run) -> None:
    for load in (load_run, load_runs):
        with pytest.raises(UserError, match="is not a run folder"):
            load(tmp_path)
    damaged = shutil.copytree(trained.path, tmp_path / "damaged")
    (damaged / "config.json").write_text(json.dumps({"architecture": 7}))
    with pytest.raises(UserError, match="architecture"):
        load_run(damaged).model()
