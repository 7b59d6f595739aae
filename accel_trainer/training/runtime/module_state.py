"""What of a model is saved: its tensors, and what modules add to them with `get_extra_state`."""

import torch
from torch import Tensor, nn

from accel_trainer.core.errors import UserError

EXTRA_STATE = "_extra_state"
"""Under this name, behind the module's, a state dict has what `get_extra_state` gave."""


def is_extra_state(name: str) -> bool:
    """Whether an entry of a state dict is no parameter or buffer, but what a module adds."""
    return name.rpartition(".")[2] == EXTRA_STATE


def modules_with_extra_state(model: nn.Module) -> list[str]:
    """The names of the modules that have `get_extra_state`."""
    return [name for name, part in model.named_modules() if type(part).get_extra_state is not nn.Module.get_extra_state]


def refuse_unsavable(model: nn.Module, architecture: str) -> None:
    """Raises UserError where a model's state is more than dense tensors, or could not be loaded again."""
    for name in modules_with_extra_state(model):
        part = model.get_submodule(name)
        if type(part).set_extra_state is nn.Module.set_extra_state:
            raise _unsavable(architecture, name, "has get_extra_state and no set_extra_state", "write both, or neither")
    for name, value in model.state_dict().items():
        module = name.rpartition(".")[0]
        if not isinstance(value, Tensor):
            what = f"adds a {type(value).__name__} to its state ({name.rpartition('.')[2]})"
            hint = "weights are saved as tensors: give a tensor from get_extra_state, or register a buffer"
            raise _unsavable(architecture, module, what, hint)
        if value.layout is not torch.strided or value.is_nested:
            raise _unsavable(architecture, name, "is a sparse or nested tensor", "only dense tensors are saved")


def _unsavable(architecture: str, module: str, what: str, hint: str) -> UserError:
    return UserError(f"{architecture}: {module or 'the model itself'} {what}", key="architecture", hint=hint)
