"""Operations of a training that have no kernel on a CUDA GPU which adds up in one order, found on the meta device.

The list is that of `torch.use_deterministic_algorithms`, of what it refuses there. Nothing of this was run on a GPU.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch.nn.functional as F
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from accel_trainer.config import Job
from accel_trainer.config.doubts import INSTEAD_OF_DETERMINISTIC
from accel_trainer.core.errors import UserError
from accel_trainer.core.text import listed
from accel_trainer.training.meta_model import meta_pass
from accel_trainer.training.objectives.base import Objective

# By the names of torch's operations: what people call them. Of a gradient, only that has no such kernel.
WITHOUT_ORDER = {
    "_adaptive_avg_pool2d_backward": "the gradient of AdaptiveAvgPool2d",
    "_adaptive_avg_pool3d_backward": "the gradient of AdaptiveAvgPool3d",
    "adaptive_max_pool2d_backward": "the gradient of AdaptiveMaxPool2d",
    "adaptive_max_pool3d_backward": "the gradient of AdaptiveMaxPool3d",
    "avg_pool3d_backward": "the gradient of AvgPool3d",
    "fractional_max_pool2d_backward": "the gradient of FractionalMaxPool2d",
    "fractional_max_pool3d_backward": "the gradient of FractionalMaxPool3d",
    "max_unpool2d": "MaxUnpool2d",
    "max_unpool3d": "MaxUnpool3d",
    "upsample_linear1d_backward": "the gradient of a linear interpolation",
    "upsample_bilinear2d_backward": "the gradient of a bilinear interpolation",
    "_upsample_bilinear2d_aa_backward": "the gradient of a bilinear interpolation",
    "upsample_bicubic2d_backward": "the gradient of a bicubic interpolation",
    "_upsample_bicubic2d_aa_backward": "the gradient of a bicubic interpolation",
    "upsample_trilinear3d_backward": "the gradient of a trilinear interpolation",
    "reflection_pad1d_backward": "the gradient of ReflectionPad1d",
    "reflection_pad2d_backward": "the gradient of ReflectionPad2d",
    "reflection_pad3d_backward": "the gradient of ReflectionPad3d",
    "grid_sampler_2d_backward": "the gradient of grid_sample",
    "grid_sampler_3d_backward": "the gradient of grid_sample",
    "nll_loss2d_forward": "NLLLoss of maps",
    "_ctc_loss_backward": "the gradient of CTCLoss",
    "_embedding_bag_backward": "the gradient of EmbeddingBag by max",
    "put": "put_",
    "put_": "put_",
    "histc": "histc",
    "bincount": "bincount with weights",
    "median": "median along a dimension",
    "nanmedian": "median along a dimension",
    "scatter_reduce": "scatter_reduce by prod",
    "scatter_reduce_": "scatter_reduce by prod",
    "index_reduce": "index_reduce",
    "index_reduce_": "index_reduce",
    "resize_": "resize_ of a quantized tensor",
}
_MAX = 2
# Of some operations only certain calls, by their arguments.
ONLY_WHERE: dict[str, Callable[[Mapping[str, Any]], bool]] = {
    "_embedding_bag_backward": lambda given: given["mode"] == _MAX,
    "bincount": lambda given: given.get("weights") is not None,
    "median": lambda given: "dim" in given,
    "nanmedian": lambda given: "dim" in given,
    "scatter_reduce": lambda given: given["reduce"] == "prod",
    "scatter_reduce_": lambda given: given["reduce"] == "prod",
    "resize_": lambda given: bool(given["self"].is_quantized),
}
# It has a kernel with an order, which torch takes only where all that has none is refused.
ATTENTION = "the gradient of attention"


def operations_without_order(job: Job, model: nn.Module, objective: Objective) -> list[str]:
    """What of a forward and a backward pass adds up in any order on a CUDA GPU, in words, each once; what the loss does
    with a model's output has none of these."""
    with _Functions() as called, _Operations() as seen:
        done = meta_pass(model, job, 2)
        done.gradients(objective.trained(done.output))
    attention = [ATTENTION] if called.attention and not job.deterministic else []
    return [*dict.fromkeys(WITHOUT_ORDER[name] for name in seen.names), *attention]


def refuse_without_order(job: Job, operations: list[str]) -> None:
    """Raises UserError where a job must have the same bits every time, and these operations have not."""
    if job.deterministic and operations:
        raise UserError(
            f"{job.architecture} has {listed(operations)}, of which no kernel on a GPU gives the same bits every time",
            key="deterministic",
            hint=INSTEAD_OF_DETERMINISTIC,
        )


class _Operations(TorchDispatchMode):
    """Remembers which operations without an order were called, by their names without overloads."""

    def __init__(self) -> None:
        TorchDispatchMode.__init__(self)
        self.names: list[str] = []

    def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, kwargs = op._opname, kwargs or {}
        if name in WITHOUT_ORDER and (name not in ONLY_WHERE or ONLY_WHERE[name](_arguments(op, args, kwargs))):
            self.names.append(name)
        return op(*args, **kwargs)


def _arguments(op: Any, args: Any, kwargs: Mapping[str, Any]) -> Mapping[str, Any]:
    return {**dict(zip((argument.name for argument in op._schema.arguments), args, strict=False)), **kwargs}


class _Functions(TorchFunctionMode):
    """Remembers whether attention was called: on the meta device it is made of other operations than on a GPU."""

    def __init__(self) -> None:
        TorchFunctionMode.__init__(self)
        self.attention = False

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.attention |= function in (F.scaled_dot_product_attention, F.multi_head_attention_forward)
        return function(*args, **(kwargs or {}))
