"""The model as Brain-Score runs it. What it is called, its layers and their areas are in brain_score.json beside this
file; so are the checksum of its weights, and the repository of the Hugging Face hub that they may be loaded from."""

import hashlib
import importlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from brainscore_vision.model_helpers.activations.pytorch import PytorchWrapper
from brainscore_vision.model_helpers.brain_transformation import ModelCommitment
from safetensors.torch import load_file
from torch import Tensor, nn

from .preprocessing import preprocess

HERE = Path(__file__).parent
WEIGHTS = "model.safetensors"


def about() -> Any:
    """The content of brain_score.json."""
    return json.loads((HERE / "brain_score.json").read_text())


def get_model(identifier: str) -> Any:
    """The model with its preprocessing, as Brain-Score asks it for activations."""
    wrapper = PytorchWrapper(identifier=identifier, model=_model(), preprocessing=preprocess_files)
    wrapper.image_size = about()["image_size"]
    return wrapper


def get_layers(identifier: str) -> list[str]:
    """The layers from which Brain-Score chooses."""
    return list(about()["layers"])


def get_bibtex(identifier: str) -> str:
    """How the model is to be cited: to be filled in by its authors."""
    return ""


def commitment(identifier: str) -> Any:
    """The model as a subject of experiments: its layers stand for areas, where that was said, in each cycle for a time
    after the onset of an image, if the model has cycles."""
    known = about()
    if known["times"]:
        return _temporal(identifier, known)
    return ModelCommitment(
        identifier=identifier,
        activations_model=get_model(identifier),
        layers=get_layers(identifier),
        behavioral_readout_layer=known["readout"],
        region_layer_map=known["regions"] or None,
        visual_degrees=known["visual_degrees"],
    )


def _temporal(identifier: str, known: Any) -> Any:
    """With the helpers by which CORnet-S is scored in time."""
    from brainscore_vision.models.cornet_s.helpers.helpers import CORnetCommitment, TemporalPytorchWrapper

    class Wrapper(TemporalPytorchWrapper):  # type: ignore[misc]
        """Behavior is read from `logits`, which here have a cycle: there is one."""

        def __call__(self, stimuli: Any, layers: Sequence[str], *args: Any, **kwargs: Any) -> Any:
            named = ["logits-t0" if layer == "logits" else layer for layer in layers]
            return super().__call__(stimuli, *args, layers=named, **kwargs)

    times = {area: {cycle: (start, end) for cycle, start, end in rows} for area, rows in known["times"].items()}
    layers = [f"{area}.output-t{cycle}" for area, cycles in times.items() for cycle in cycles]
    model = Tapped(_model(), known["regions"], known["cycle_axis"])
    wrapper = Wrapper(identifier=identifier, model=model, preprocessing=preprocess_files, separate_time=True)
    wrapper.image_size = known["image_size"]
    return CORnetCommitment(
        identifier=identifier,
        activations_model=wrapper,
        layers=layers,
        time_mapping=times,
        behavioral_readout_layer=layers[-1],
        visual_degrees=known["visual_degrees"],
    )


def preprocess_files(paths: Sequence[str]) -> Any:
    """float32 (images, 3, image_size, image_size), with the bits of the validation of the model's training."""
    return np.stack([preprocess(path).numpy() for path in paths])


class Tapped(nn.Module):
    """A model whose layers can be read by the names of areas: `V1.output` has what the layer gives, in each cycle.

    It gives logits (batch, classes): those of the last cycle.
    """

    def __init__(self, model: nn.Module, layers: dict[str, str], cycle_axis: int) -> None:
        super().__init__()
        for area, layer in layers.items():
            tap = nn.ModuleDict({"output": nn.Identity()})
            self.add_module(area, tap)
            model.get_submodule(layer).register_forward_hook(_tapping(tap))
        self.model, self.cycle_axis = model, cycle_axis
        self.logits = nn.Identity()  # Brain-Score takes the last module for the output layer

    def forward(self, images: Tensor) -> Tensor:
        """Images (batch, 3, height, width) to logits."""
        output = self.model(images)
        last: Tensor = self.logits(output if output.dim() == 2 else output.select(self.cycle_axis, -1))
        return last


def _tapping(tap: nn.ModuleDict) -> Any:
    def hook(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        tapped: Tensor = tap["output"](output)
        return tapped

    return hook


def _model() -> nn.Module:
    known = about()
    name, arguments = known["architecture"], known["arguments"]
    model: nn.Module
    match known["source"]:
        case "torchvision":
            from torchvision import models

            model = models.get_model(name, weights=None, **arguments)
        case "timm":
            import timm

            model = timm.create_model(name, pretrained=False, **arguments)
        case "zoo":
            module = importlib.import_module(f"{__package__}.zoo.{known['module']}")
            model = module.MODELS[name](**arguments)
        case _:
            from accel_trainer import load_export

            return load_export(HERE).model(allow=known["allow"]).eval()
    model.load_state_dict(load_file(_weights(known)))
    return model.eval().requires_grad_(False)


def _weights(known: Any) -> Path:
    """The file beside this one, or that of the hub. Raises RuntimeError for other weights than were exported."""
    path = HERE / WEIGHTS
    if not path.is_file():
        if known["hub_repository"] is None:
            raise RuntimeError(f"{path} is missing: put it there, or name its hub_repository in brain_score.json")
        from huggingface_hub import hf_hub_download

        path = Path(hf_hub_download(known["hub_repository"], WEIGHTS))
    if hashlib.sha256(path.read_bytes()).hexdigest() != known["weights_sha256"]:
        raise RuntimeError(f"{path} has other weights than those that were exported")
    return path
