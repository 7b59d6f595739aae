"""Averages of a model's weights: exponential over steps (EMA), and of the ends of epochs (SWA)."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from copy import deepcopy
from itertools import chain
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, get_swa_avg_fn, get_swa_multi_avg_fn

from accel_trainer.training.optim.parameter_groups import train_mode
from accel_trainer.training.runtime.module_state import modules_with_extra_state


class Averages:
    """Averages of the plain model: no wrapper's names are in them.

    Averages are of floating point numbers. Counts, flags and what modules keep beside tensors are those of the newest
    model: there is no mean of them.

    ema_decay: of the moving average, and swa_start: the first epoch of the mean; None for no such average.
    """

    def __init__(self, model: nn.Module, *, ema_decay: float | None, swa_start: int | None) -> None:
        self._all: dict[str, AveragedModel] = {}
        if ema_decay is not None:
            # BatchNorm's statistics too: those of the newest step would not fit the weights.
            update = _copying_others(get_ema_multi_avg_fn(ema_decay))
            self._all["ema"] = AveragedModel(model, multi_avg_fn=update, use_buffers=True)
        if swa_start is not None:
            self._all["swa"] = AveragedModel(model, multi_avg_fn=_copying_others(_take_into_mean))
            self._swa_start = swa_start
        self._with_extra_state = modules_with_extra_state(model)
        self._ema, self._swa = self._all.get("ema"), self._all.get("swa")

    def to(self, device: torch.device) -> Self:
        """Move the averages to a device."""
        for average in self._all.values():
            average.module.to(device)
        return self

    @property
    def ema(self) -> nn.Module | None:
        """The model with the moving average of its weights."""
        return None if self._ema is None else self._ema.module

    def after_step(self, model: nn.Module) -> None:
        """Update the moving average after an optimizer step: decay * average + (1 - decay) * weights.

        Polyak and Juditsky 1992.
        """
        if self._ema is None:
            return
        if self._ema.n_averaged == 0:  # which lies on the host
            self._ema.update_parameters(model)
        else:
            _update_average(self._ema, model)
        self._copy_extra_states(self._ema.module, model)

    def after_epoch(self, epoch: int, model: nn.Module) -> None:
        """Update the SWA mean with the weights at the end of an epoch. Izmailov et al. 2018."""
        if self._swa is not None and epoch >= self._swa_start:
            self._swa.update_parameters(model)
            self._copy_extra_states(self._swa.module, model)

    def swa_after(self, epoch: int, model: nn.Module) -> nn.Module | None:
        """The model with the mean of the ends of epochs, this one included; the mean itself is not updated.

        Its BatchNorm statistics are those of the newest weights: see `update_batch_norm`.
        """
        if self._swa is None or epoch < self._swa_start:
            return None
        averaged = deepcopy(self._swa)
        averaged.update_parameters(model)
        self._copy_extra_states(averaged.module, model)
        return averaged.module

    def _copy_extra_states(self, average: nn.Module, model: nn.Module) -> None:
        for name in self._with_extra_state:
            average.get_submodule(name).set_extra_state(deepcopy(model.get_submodule(name).get_extra_state()))

    def state_dict(self) -> dict[str, Any]:
        """The state of each average by its name, "ema" or "swa"."""
        return {name: average.state_dict() for name, average in self._all.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load averages that `state_dict` gave; one that is missing starts with the next step or epoch."""
        for name, average in self._all.items():
            if name in state:
                average.load_state_dict(state[name])


Tensors = tuple[Tensor, ...] | list[Tensor]
Update = Callable[[Tensors, Tensors, Any], None]
"""Takes the newest tensors into their averages, all of one type, given the number of models so far."""


def _copying_others(update: Update) -> Update:
    """An update that copies what is not of floating point numbers, which torch's truncate or cannot handle."""

    @torch.no_grad()
    def update_or_copy(averages: Tensors, newest: Tensors, num_averaged: Any) -> None:
        if averages[0].is_floating_point() or averages[0].is_complex():
            update(averages, newest, num_averaged)
        else:
            torch._foreach_copy_(averages, newest)

    return update_or_copy


def _take_into_mean(averages: Tensors, newest: Tensors, num_averaged: Any) -> None:
    """What AveragedModel does by itself: all at once on a GPU, one after the other on a CPU."""
    if averages[0].is_cuda:
        get_swa_multi_avg_fn()(averages, newest, num_averaged)
        return
    of_one = get_swa_avg_fn()
    for average, new in zip(averages, newest, strict=True):
        average.copy_(of_one(average, new, num_averaged))


def _update_average(average: AveragedModel, model: nn.Module) -> None:
    """What its `update_parameters` does after the first time, without the copying of its count of models to the device,
    for which the host would wait in every step."""
    by_type: dict[torch.dtype, tuple[list[Tensor], list[Tensor]]] = {}
    for own, new in zip(_tensors(average.module), _tensors(model), strict=True):
        olds, news = by_type.setdefault(own.dtype, ([], []))
        olds.append(own)
        news.append(new)
    update: Any = average.multi_avg_fn  # set for every moving average
    for olds, news in by_type.values():
        update(olds, news, average.n_averaged)
    average.n_averaged += 1


def _tensors(model: nn.Module) -> Iterator[Tensor]:
    return chain(model.parameters(), model.buffers())


def update_batch_norm(model: nn.Module, inputs: Iterable[Tensor], frozen: Iterable[str] = ()) -> list[Tensor]:
    """Replace BatchNorm statistics by their means over these batches, as torch's `update_bn` does, but for those in
    frozen modules; the tensors that were renewed. A model that has none to renew looks at no batch."""
    train_mode(model, frozen)
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.training]
    norms = [norm for norm in norms if norm.track_running_stats]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a mean of all batches alike
    if norms:
        for batch in inputs:
            model(batch)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    return [t for norm in norms for t in (norm.running_mean, norm.running_var) if t is not None]
