"""Which weights are saved at the end of an epoch."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from accel_trainer.config import Job
from accel_trainer.run.folder import RunFolder
from accel_trainer.training.state.saving import EpochWeights


class Asked(nn.Linear):
    """Counts how often its weights are collected."""

    count = 0

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        type(self).count += 1
        return super().state_dict(*args, **kwargs)


@pytest.mark.parametrize("writes", [True, False])
def test_weights_are_collected_only_where_they_are_written(
    make_job: Callable[..., Job], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writes: bool
) -> None:
    monkeypatch.setattr(Asked, "count", 0)
    run, model, ema = RunFolder(tmp_path), Asked(2, 2), Asked(2, 2)
    weights = EpochWeights(make_job(num_epochs=2, save_interval=1).resolve(), run, writes=writes)
    files = weights.due(1, is_best=True, model=model, ema=ema, swa=None)
    assert [file.path for file in files] == ([run.weights(1), run.best_weights, run.ema_weights] if writes else [])
    assert Asked.count == len(files)
