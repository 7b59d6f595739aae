"""Runs to export: one that was trained, and such with other architectures in its place, whose weights are random."""

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save
from tiny_runs import finish
from torch import nn

from accel_trainer import Run, load_run
from accel_trainer.core.allow_imports import imports_allowed
from accel_trainer.run.folder import RunFolder
from accel_trainer.run.load import trained_job
from accel_trainer.training.meta_model import make_model


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Only to be read."""
    return finish(tmp_path_factory.mktemp("trained") / "run")


MakeRun = Callable[..., Run]


@pytest.fixture
def make_run(trained: Run, tmp_path: Path) -> MakeRun:
    """Gives a run of another architecture: `make_run("resnet18", image_size=32)`."""

    def make(architecture: str, args: dict[str, Any] | None = None, *, name: str = "made", **changes: Any) -> Run:
        folder = RunFolder(tmp_path / name)
        shutil.copytree(trained.path, folder.path)
        config = json.loads(folder.config.read_text())
        config |= {"architecture": architecture, "architecture_args": args or {}, **changes}
        folder.config.write_text(json.dumps(config))
        with imports_allowed("tiny_models"), torch.random.fork_rng():
            torch.manual_seed(1)
            model = make_model(trained_job(folder), 3)
            with_statistics(model)
        folder.best_weights.write_bytes(save(model.state_dict(), metadata={"epoch": "1"}))
        return load_run(folder.path)

    return make


def with_statistics(model: nn.Module) -> None:
    """BatchNorms that are not those of a new model, so that another order of layers gives other logits."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """Noise of 50 x 41 pixels, which is resized and cropped."""
    path = tmp_path / "noise.png"
    Image.fromarray(np.random.default_rng(3).integers(0, 256, (41, 50, 3), np.uint8)).save(path)
    return path


RunCard = Callable[..., dict[str, dict[str, Any]]]


@pytest.fixture
def run_card(image: Path, monkeypatch: pytest.MonkeyPatch) -> RunCard:
    """Runs the examples of an export's card in its folder, as a reader would; the names of each, by its heading."""

    def run(folder: Path) -> dict[str, dict[str, Any]]:
        text = (folder / "README.md").read_text()
        found = {}
        shutil.copyfile(image, folder / "image.png")
        with monkeypatch.context() as there:
            there.chdir(folder)
            there.syspath_prepend(str(folder))
            for heading, code in re.findall(r"^### ([^\n]*)\n\n```python\n(.*?)```", text, re.M | re.S):
                there.delitem(__import__("sys").modules, "preprocessing", raising=False)
                names: dict[str, Any] = {}
                exec(compile(code, f"{folder.name}: {heading}", "exec"), names)
                found[heading] = names
        os.remove(folder / "image.png")  # noqa: PTH107
        return found

    return run


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, Any]]]:
    """What the hub was asked."""
    found: list[tuple[str, dict[str, Any]]] = []

    class Hub:
        endpoint = "https://hub"

        def create_repo(self, repository: str, **given: Any) -> None:
            found.append(("create", {"repository": repository, **given}))

        def upload_folder(self, **given: Any) -> None:
            found.append(("upload", given))

    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    return found
