"""The plugin of Brain-Score, run beside stand-ins for the classes of its package that the plugin calls."""

import json
import re
import shutil
import sys
from collections import OrderedDict, defaultdict
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from accel_trainer import Run, UserError
from accel_trainer.export.areas import times_of
from accel_trainer.export.source import Source
from accel_trainer.run.folder import RunFolder


class Wrapper:
    """Hooks layers by name and runs the model on what the preprocessing gives, as `PytorchWrapper` does."""

    def __init__(self, model: torch.nn.Module, preprocessing: Any, identifier: str, **settings: Any) -> None:
        self.model, self.preprocessing, self.identifier, self.settings = model, preprocessing, identifier, settings

    def activations(self, paths: list[str], layers: list[str]) -> dict[str, np.ndarray]:
        found: dict[str, np.ndarray] = OrderedDict()
        hooks = []
        for name in dict.fromkeys(map(self.module_of, layers)):
            counts: dict[str, int] = defaultdict(int)

            def note(_: Any, inputs: Any, output: torch.Tensor, name: str = name, counts: Any = counts) -> None:
                found[self.key(name, counts[name])] = output.numpy().copy()
                counts[name] += 1

            hooks.append(self.layer(name).register_forward_hook(note))
        with torch.no_grad():
            self.model(torch.from_numpy(self.preprocessing(paths)))
        for hook in hooks:
            hook.remove()
        return found

    def __call__(self, stimuli: list[str], layers: list[str]) -> dict[str, np.ndarray]:
        found = self.activations(stimuli, layers)
        return {layer: found[layer] for layer in layers}

    def layer(self, name: str) -> torch.nn.Module:
        if name != "logits":
            return self.model.get_submodule(name)
        module = self.model
        while module._modules:
            module = module._modules[next(reversed(module._modules))]
        return module

    def module_of(self, layer: str) -> str:
        return layer

    def key(self, name: str, cycle: int) -> str:
        return name


class TemporalWrapper(Wrapper):
    """Names what a layer gives by its cycle."""

    def module_of(self, layer: str) -> str:
        return re.sub(r"-t\d+$", "", layer)

    def key(self, name: str, cycle: int) -> str:
        return f"{name}-t{cycle}"


class Commitment(SimpleNamespace):
    """`ModelCommitment` and `CORnetCommitment`: what they were given."""


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder `brainscore_vision/models`, into which plugins are copied."""
    root = ModuleType("brainscore_vision")
    root.model_registry = {}  # type: ignore[attr-defined]
    content: dict[str, dict[str, Any]] = {
        "": {},
        ".models": {},
        ".models.cornet_s": {},
        ".models.cornet_s.helpers": {},
        ".models.cornet_s.helpers.helpers": {
            "CORnetCommitment": Commitment,
            "TemporalPytorchWrapper": TemporalWrapper,
        },
        ".model_helpers": {},
        ".model_helpers.activations": {},
        ".model_helpers.activations.pytorch": {"PytorchWrapper": Wrapper},
        ".model_helpers.brain_transformation": {"ModelCommitment": Commitment},
    }
    place = tmp_path / "models"
    place.mkdir()
    for name, members in content.items():
        module = ModuleType(f"brainscore_vision{name}") if name else root
        vars(module).update(members, __path__=[str(place)] if name == ".models" else [])
        monkeypatch.setitem(sys.modules, f"brainscore_vision{name}", module)
    yield place
    for name in [name for name in sys.modules if name.startswith("brainscore_vision.models.plugin")]:
        del sys.modules[name]


def load_model(models: Path, folder: Path) -> Commitment:
    """What Brain-Score does: it finds the plugin by the line that registers it, imports it, and calls what is there."""
    shutil.copytree(folder, models / "plugin")
    lines = (models / "plugin/__init__.py").read_text().splitlines()
    (registered,) = [line for line in lines if "model_registry['job'] =" in line.replace('"', "'")]
    assert registered
    import_module("brainscore_vision.models.plugin")
    return sys.modules["brainscore_vision"].model_registry["job"]()


def logits_of(run: Run, image: Path, allow: str = "") -> torch.Tensor:
    with torch.inference_mode():
        return run.model(allow=allow)(run.transform(image)[None])


BLT = {"features": [4, 6, 8], "kernel_sizes": [3, 3, 3], "num_cycles": 3}
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "torchvision": ("resnet18", {}),
    "timm": ("timm:test_resnet", {}),
    "zoo": ("cornet_z", {"features": [4] * 4}),
    "last cycle": ("blt_bl", BLT),
    "own": ("tiny_models:NormAndDropout", {}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_plugin_gives_the_trained_model_s_logits_with_its_preprocessing(
    make_run, models, image, tmp_path, monkeypatch, kind: str
) -> None:
    monkeypatch.setenv("ACCEL_TRAIN_ALLOW_IMPORTS", "tiny_models")
    run = make_run(*KINDS[kind], image_size=32)
    run.export(tmp_path / "out", "brain-score", allow="tiny_models")
    if kind != "own":
        monkeypatch.setitem(sys.modules, "accel_trainer", None)  # it needs none of this package
    subject = load_model(models, tmp_path / "out")
    monkeypatch.undo()
    assert (subject.identifier, subject.visual_degrees) == ("job", 8)
    wrapper = subject.activations_model
    assert wrapper.image_size == 32
    assert np.array_equal(wrapper.preprocessing([str(image)])[0], run.transform(image).numpy())
    found = wrapper.activations([str(image)], [*subject.layers, subject.behavioral_readout_layer, "logits"])
    assert np.array_equal(found["logits"], logits_of(run, image, "tiny_models").numpy())
    assert all(layer in found for layer in subject.layers)


def test_layers_of_a_resnet_are_its_blocks_and_behavior_is_read_from_its_pooled_features(make_run, tmp_path) -> None:
    make_run("resnet18", image_size=32).export(tmp_path / "out", "brain-score")
    about = json.loads((tmp_path / "out/brain_score.json").read_text())
    blocks = [f"layer{stage}.{block}" for stage in (1, 2, 3, 4) for block in (0, 1)]
    assert (about["layers"], about["readout"]) == (["conv1", "bn1", *blocks], "avgpool")
    assert (about["regions"], about["times"]) == ({}, {})
    assert not (tmp_path / "out/region_layer_map").exists()


@pytest.mark.parametrize(
    ("architecture", "args", "regions", "cycles"),
    [
        ("cornet_s", {"features": [4] * 4}, {}, [[0], [0, 1], [0, 1, 2, 3], [0, 1]]),
        ("cornet_rt", {"features": [64] * 4, "num_cycles": 5}, {}, [[0, 1, 2, 3, 4], [1, 2, 3, 4], [2, 3, 4], [3, 4]]),
        ("blt_blt", {**BLT, "return_cycles": "all"}, {"V1": "layer1", "IT": "layer3"}, [[0, 1, 2], [0, 1, 2]]),
    ],
)
def test_cycles_of_areas_are_times_after_the_onset(
    make_run, models, image, tmp_path, architecture, args, regions, cycles
) -> None:
    run = make_run(architecture, args, image_size=64)
    run.export(tmp_path / "out", "brain-score", regions=regions)
    subject = load_model(models, tmp_path / "out")
    areas = list(regions) or ["V1", "V2", "V4", "IT"]
    assert list(subject.time_mapping) == areas
    assert [list(subject.time_mapping[area]) for area in areas] == cycles
    wanted = [f"{area}.output-t{cycle}" for area, seen in zip(areas, cycles, strict=True) for cycle in seen]
    assert subject.layers == wanted
    found = subject.activations_model([str(image)], layers=[*wanted, "logits"])
    expected = logits_of(run, image)
    assert np.array_equal(found["logits-t0"], (expected if expected.dim() == 2 else expected[:, -1]).numpy())
    layer = json.loads((tmp_path / "out/region_layer_map/job.json").read_text())["IT"]
    last = run.features([image], [f"{layer}-t{cycles[-1][-1]}"], batch_size=1)
    assert np.array_equal(found[wanted[-1]], *last.values())


def test_the_times_of_cornet_s_are_the_published_ones(make_run) -> None:
    run = make_run("cornet_s", {"features": [4] * 4}, image_size=32)
    source = Source.of(RunFolder(run.path), "best")
    areas = {"V1": "V1", "V2": "V2.output", "V4": "V4.output", "IT": "IT.output"}
    published = {"V1": (50, 100, 1), "V2": (70, 100, 2), "V4": (90, 50, 4), "IT": (100, 100, 2)}
    assert times_of(source, areas) == {
        area: [(cycle, start + cycle * step, start + (cycle + 1) * step) for cycle in range(number)]
        for area, (start, step, number) in published.items()
    }


def test_the_metadata_have_the_fields_of_the_schema(make_run, tmp_path) -> None:
    run = make_run("cornet_z", {"features": [4] * 4}, image_size=32)
    run.export(tmp_path / "out", "brain-score", license="apache-2.0")
    metadata = yaml.safe_load((tmp_path / "out/metadata.yaml").read_text())
    assert (metadata["schema_version"], metadata["domain"]) == ("2.0", "vision")
    entry = metadata["models"]["job"]
    assert entry["model"]["parameter_count"] == sum(one.numel() for one in run.model().parameters())
    assert entry["model"]["input_resolution"] == {"channels": 3, "height": 32, "width": 32}
    assert entry["data"]["training_datasets"] == [{"identifier": "other", "name": "digits", "role": "training"}]
    assert entry["legal"] == {"license": "apache-2.0"}
    assert "torch>=" in (tmp_path / "out/requirements.txt").read_text()


def test_weights_that_are_missing_or_others_are_refused(make_run, models, tmp_path) -> None:
    make_run("cornet_z", {"features": [4] * 4}, image_size=32).export(tmp_path / "out", "brain-score")
    load_model(models, tmp_path / "out")
    plugin = sys.modules["brainscore_vision.models.plugin.model"]
    weights = models / "plugin/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    with pytest.raises(RuntimeError, match="other weights than those"):
        plugin.get_model("job")
    weights.unlink()
    with pytest.raises(RuntimeError, match="hub_repository"):
        plugin.get_model("job")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"regions": {"V3": "V1"}}, "'V3' is none of V1, V2, V4, IT"),
        ({"regions": {"V1": "layer9"}}, "'layer9' is no layer"),
        ({"layers": ["V7"]}, "'V7' is no layer of the model"),
    ],
)
def test_what_is_no_area_and_no_layer(make_run, tmp_path, options, words) -> None:
    run = make_run("cornet_z", {"features": [4] * 4}, image_size=32)
    with pytest.raises(UserError, match=re.escape(words)):
        run.export(tmp_path / "out", "brain-score", **options)
    assert not (tmp_path / "out").exists()
