"""What a run saves, and when."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from accel_trainer.config import ResolvedJob
from accel_trainer.run.folder import RunFolder
from accel_trainer.training.state.background import SaveThread
from accel_trainer.training.state.checkpoint import StateStore, TrainerState, TrainState, save_weights


def nothing() -> None:
    """All that there is to write beside a state."""


@dataclass(frozen=True)
class WeightsFile:
    """Weights that are saved: where, and after which epoch."""

    path: Path
    epoch: int
    weights: Mapping[str, Tensor]


@dataclass(frozen=True)
class Save:
    """What is saved at once, in the order in which it is written. The state makes an epoch final: a process that is
    killed before repeats the epoch, and all that was written for it is written again, the same.

    tell: the trackers what was measured; record: what a run that goes on from the state has to know beside it;
    show: to people what is final.
    """

    weights: Sequence[WeightsFile]
    tell: Callable[[], None]
    record: Callable[[], None]
    state: TrainState
    show: Callable[[], None]


class Saver:
    """Writes what a run saves, on rank 0, on a thread while it trains."""

    def __init__(self, job: ResolvedJob, run: RunFolder, states: StateStore) -> None:
        self._run, self._states, self._architecture = run, states, job.architecture
        self._thread = SaveThread()
        self.running, self.check, self.wait = self._thread.running, self._thread.check, self._thread.wait

    def save(self, save: Save, *, waits: bool) -> None:
        """Write it all, once what was saved before is written. waits: for the end; else this returns when there is a
        copy, and `check`, the next save or the end of `running` raises what has gone wrong."""
        state = save.state
        content = (state.model, vars(state.trainer), [file.weights for file in save.weights])

        def write(content: tuple[Any, Any, Any]) -> None:
            model, trainer, weights = content
            copied = replace(state, model=model, trainer=TrainerState(**trainer))
            files = [replace(file, weights=one) for file, one in zip(save.weights, weights, strict=True)]
            self._write(replace(save, weights=files, state=copied))

        self._thread.save(content, write, waits=waits)

    def _write(self, save: Save) -> None:
        for file in save.weights:
            about = {"epoch": str(file.epoch), "architecture": self._architecture}
            save_weights(file.path, file.weights, run=self._run, **about)
        save.tell()
        save.record()
        self._states.save(save.state)
        save.show()


class EpochWeights:
    """The weights that are saved at the end of an epoch: those of every `save_interval`-th one, of those in which
    degraded images are measured, and of the last one,
    the best ones, the newest exponential average and, in the end, the stochastic one. writes: whether this process is
    the one that writes them; the others collect none."""

    def __init__(self, job: ResolvedJob, run: RunFolder, *, writes: bool) -> None:
        self._run, self._writes = run, writes
        self._last = job.num_epochs
        self._intervals = [job.save_interval, job.degradation_interval if job.degradations else None]

    def due(
        self, epoch: int, *, is_best: bool, model: nn.Module, ema: nn.Module | None, swa: nn.Module | None
    ) -> list[WeightsFile]:
        """In the order in which they are written. swa: the finished average, after the last epoch."""
        if not self._writes:
            return []
        files: list[tuple[Path, nn.Module]] = []
        if epoch == self._last or any(interval and epoch % interval == 0 for interval in self._intervals):
            files.append((self._run.weights(epoch), model))
        if is_best:
            files.append((self._run.best_weights, model))
        if ema is not None:
            files.append((self._run.ema_weights, ema))
        if epoch == self._last and swa is not None:
            files.append((self._run.swa_weights, swa))
        return [WeightsFile(path, epoch, part.state_dict()) for path, part in files]
