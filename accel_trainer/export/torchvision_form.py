"""Weights that torchvision's own models load."""

from pathlib import Path

from accel_trainer.core.errors import UserError
from accel_trainer.export.form import ExportOptions, Form, Use
from accel_trainer.export.source import WEIGHTS, Source
from accel_trainer.zoo import registry


def write_torchvision(source: Source, folder: Path, options: ExportOptions) -> Form:
    """model.safetensors with torchvision's names. Raises UserError for an architecture that torchvision has not."""
    name = source.architecture
    if not registry.is_of_torchvision(name):
        raise UserError(
            f"torchvision has no {name!r}",
            option="format",
            hint="the format hf holds every architecture, and says how to load it",
        )
    source.save_weights(folder)
    notes = []
    inputs = source.input_of_use
    if registry.takes_only_clips(name):
        inputs += ".transpose(1, 2)"
        notes = ["torchvision's models of clips take (batch, 3, frames, height, width)."]
    code = f"""\
import torch
from preprocessing import preprocess
from safetensors.torch import load_file
from torchvision import models

model = models.get_model({name!r}, weights=None, {keywords(source)})
model.load_state_dict(load_file({WEIGHTS!r}))
model.eval()
with torch.inference_mode():
    logits = model({inputs})
"""
    return Form("torchvision", [Use("With torchvision", code)], tags=["torchvision"], notes=notes)


def keywords(source: Source) -> str:
    """The arguments of the architecture's builder, as in a call."""
    return ", ".join(f"{name}={value!r}" for name, value in source.arguments.items())
