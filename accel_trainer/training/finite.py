"""Whether what training has made is finite."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.optim import Optimizer


class FiniteCheck:
    """Looks at weights, statistics and what the optimizer remembers.

    A loss tells of them only one step later: an infinite gradient spoils the weights in a step whose loss was finite. A
    buffer that was not finite when training began, such as a mask of -inf, is left alone.
    """

    def __init__(self, model: nn.Module, optimizer: Optimizer) -> None:
        self._model, self._optimizer = model, optimizer
        self._masks = {name for name, buffer in model.named_buffers() if not all_finite([buffer])}

    def __call__(self) -> Tensor:
        """On the device, bool (): nobody waits for it."""
        return all_finite(self._tensors())

    def _tensors(self) -> Iterator[Tensor]:
        yield from self._model.parameters()
        yield from (buffer for name, buffer in self._model.named_buffers() if name not in self._masks)
        for remembered in self._optimizer.state.values():
            # Single numbers, such as the count of steps, may lie on the host.
            yield from (value for value in remembered.values() if isinstance(value, Tensor) and value.dim())


def all_finite(tensors: Iterator[Tensor] | list[Tensor]) -> Tensor:
    """Whether every number in tensors of one device is finite; bool ()."""
    # The largest magnitude is not finite if any is not, and takes a fraction of the time of looking at each.
    extremes = [t.detach().abs().amax().isfinite() for t in tensors if t.is_floating_point() and t.numel()]
    return torch.stack(extremes).all() if extremes else torch.tensor(True)
