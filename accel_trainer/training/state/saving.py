"""What a run saves, and when."""

from pathlib import Path

from torch import nn

from accel_trainer.config import ResolvedJob
from accel_trainer.run.folder import RunFolder
from accel_trainer.training.state.checkpoint import save_weights


class EpochWeights:
    """The weights that are saved at the end of an epoch: those of every `save_interval`-th epoch and of the last one,
    the best ones, the newest exponential average and, in the end, the stochastic one."""

    def __init__(self, job: ResolvedJob, run: RunFolder) -> None:
        self._run, self._architecture = run, job.architecture
        self._interval, self._last = job.save_interval, job.num_epochs

    def save(
        self, epoch: int, *, is_best: bool, model: nn.Module, ema: nn.Module | None, swa: nn.Module | None
    ) -> None:
        """On rank 0. swa: the finished average, after the last epoch."""
        if epoch == self._last or (self._interval is not None and epoch % self._interval == 0):
            self._write(self._run.weights(epoch), epoch, model)
        if is_best:
            self._write(self._run.best_weights, epoch, model)
        if ema is not None:
            self._write(self._run.ema_weights, epoch, ema)
        if epoch == self._last and swa is not None:
            self._write(self._run.swa_weights, epoch, swa)

    def _write(self, path: Path, epoch: int, model: nn.Module) -> None:
        self._run.check_owner()
        save_weights(path, model.state_dict(), epoch=str(epoch), architecture=self._architecture)
