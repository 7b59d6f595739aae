"""What a run folder holds: the job that was trained, its classes, and its weights. Without torch."""

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from accel_trainer.config import Job, ResolvedJob, job_name, parse_job
from accel_trainer.config.derived import parameters
from accel_trainer.config.parameters import FinetuneParameters
from accel_trainer.core.errors import UserError
from accel_trainer.core.text import first_line, listed
from accel_trainer.run.folder import RunFolder
from accel_trainer.run.records import read_classes, read_config, read_environment
from accel_trainer.run.status import RunState, read_status

# What matters to a training, not to what it has made; the folder may have been moved since.
NOT_NEEDED = parameters(lambda mark: mark.training_only)


def run_job(run: RunFolder) -> Job:
    """The job of a run, whole, as it was trained. Raises UserError."""
    config = dict(read_config(run))
    # What a fine-tuned run has started from was checked then, and may be gone now.
    tuned = {key: config.pop(key) for key in ("finetune", "finetune_args") if config.get(key)}
    job = _parsed(run, config)
    try:
        args = FinetuneParameters.model_validate(tuned.get("finetune_args", {}))
    except ValueError as error:
        raise UserError(f"{run.config}: finetune_args: {first_line(error)}") from error
    return job.model_copy(update={**tuned, "finetune_args": args}) if tuned else job


def trained_job(run: RunFolder) -> ResolvedJob:
    """The job of a run, to evaluate what it has trained. Raises UserError.

    What a version knew less of has its default; what it knew more of is an error.
    """
    config = {key: value for key, value in read_config(run).items() if key not in NOT_NEEDED}
    return _parsed(run, {**config, "trackers": []}).resolve()


def _parsed(run: RunFolder, config: Mapping[str, Any]) -> Job:
    name = job_of(run, read_environment(run))
    return parse_job(json.dumps(config).encode(), name, where=str(run.config))


def job_of(run: RunFolder, environment: Mapping[str, Any]) -> str:
    """The name of the job that was trained; that of the folder where no name of a job is noted."""
    name = environment.get("job")
    with suppress(UserError):
        if isinstance(name, str) and job_name(Path(f"{name}.json")) == name:
            return name
    return run.path.name


def is_anchor(run: RunFolder) -> bool:
    """Whether the folder has weights that were not trained here, and are only evaluated."""
    status = read_status(run)
    return status is not None and status.state is RunState.PRETRAINED


def needs_all_classes(run: RunFolder, job: Job, dataset: str) -> bool:
    """Whether a data set has to have images of all classes of a run: the one that it was trained on."""
    return dataset == job.dataset and not is_anchor(run)


def trained_classes(run: RunFolder) -> list[str]:
    """The names of the classes that a run was trained on, in the order of its logits. Raises UserError."""
    return read_classes(run)


def trained_weights(run: RunFolder, job: Job, word: str) -> Path:
    """The weights of a run that are called 'best', 'final' (the last epoch), 'ema', 'swa', or the number of an epoch.

    Raises UserError that lists what is there.
    """
    named = {
        "best": run.best_weights,
        "final": run.weights(job.num_epochs),
        "ema": run.ema_weights,
        "swa": run.swa_weights,
    }
    is_number = word.isascii() and word.isdigit()
    path = run.weights(int(word)) if is_number else named.get(word)
    there = listed(sorted(path.stem for path in run.params.glob("*.safetensors")), 30) or "none"
    if path is None:
        message = f"{word!r} is neither an epoch's number nor {listed(named)}"
        raise UserError(message, option="weights", hint=f"there are: {there}")
    if not path.is_file():
        message = f"{run.path} has no {word} weights ({path.name})"
        raise UserError(message, option="weights", hint=f"there are: {there}")
    return path
