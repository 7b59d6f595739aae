"""An evaluation on Weights & Biases: a run of the job type `evaluate`, in the group of the training."""

import csv
import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from accel_trainer.config import Job
from accel_trainer.config.dataset_names import last_part
from accel_trainer.core.blocks import open_text
from accel_trainer.core.text import first_line
from accel_trainer.evaluation.accuracy import Evaluation
from accel_trainer.run.evaluations import (
    MAX_SUMMARY,
    EvaluationFolder,
    mean_accuracies,
    read_accuracies,
    read_evaluation,
)
from accel_trainer.run.folder import RunFolder
from accel_trainer.run.load import job_of, run_job
from accel_trainer.run.records import read_environment, read_found
from accel_trainer.training import wandb_run
from accel_trainer.training.tracker_calls import CALL_S, BackgroundCall
from accel_trainer.training.tracker_checks import check_trackers, wandb_mode
from accel_trainer.training.wandb_log import DEGRADED, EPOCH, logged_rows

log = logging.getLogger(__name__)
FIGURES, CURVES, JOB_TYPE = "evaluation/figures", "evaluation/curves", "evaluate"
MAX_ID = 128


@dataclass(frozen=True)
class _Found:
    """What is logged of an evaluation. name: of it among those of its run; id_: the same whenever the same is found;
    about: for the configuration; values: gives the row of the history; summary: beside what follows from that."""

    name: str
    id_: str
    epoch: int | None
    about: Mapping[str, Any]
    values: Callable[[], Mapping[str, Any]]
    summary: Mapping[str, Any]


def log_evaluation(run: RunFolder, folder: EvaluationFolder) -> None:
    """Log a complete evaluation of a run whose job has the tracker wandb, once: its figures as a table, its curves, and
    the mean accuracies of its degradations as the summary. What goes wrong with that is a line in the log."""
    with _warned(f"{folder.path} has everything"):
        record = read_evaluation(folder)
        if record is None or not record.complete:
            return
        means = mean_accuracies(read_accuracies(folder))
        summary = {f"{DEGRADED}{one}": mean for one, mean in means.items()} | {"images": record.images}
        name = folder.path.name
        _log_once(run, _Found(name, name, record.epoch, record.plan, lambda: _media(folder), summary))


def log_scores(run: RunFolder, found: Evaluation) -> None:
    """Log the scores of weights on the images of a data set, once for the same of both: those of the run's own as the
    training names them (val/acc1), of others by their name. As `log_evaluation` otherwise."""
    with _warned("its answer has everything"):
        is_own = found.dataset == run_job(run).dataset
        name = f"{_short(found.dataset)}-{found.weights}"
        split = "val" if is_own else _short(found.dataset)
        scores = {f"{split}/{score}": value for score, value in found.scores.items()}
        about = {"weights": found.weights, "dataset": found.dataset, "epoch": found.epoch}
        summary = {"images": found.images, "corrupt_images": found.corrupt}
        _log_once(run, _Found(name, f"{name}-{found.epoch}", found.epoch, about, lambda: scores, summary))


def _short(dataset: str) -> str:
    return PurePath(last_part(dataset)).name


@contextmanager
def _warned(comfort: str) -> Iterator[None]:
    try:
        yield
    except (Exception, SystemExit) as error:
        log.warning("the evaluation is not on wandb (%s); %s", first_line(error), comfort)


def _log_once(run: RunFolder, found: _Found) -> None:
    job = run_job(run)
    if "wandb" not in job.trackers:
        return
    check_trackers(job)
    id_ = _id(run, found.id_)
    if not logged_rows(run.path / "wandb", id_):
        BackgroundCall(lambda: _log(run, job, found, id_)).wait(CALL_S)


def _id(run: RunFolder, own: str) -> str:
    """The same whenever it is logged: that of the training's run, and what the evaluation is called."""
    of_run = str(read_environment(run).get("run_id") or run.path.name)
    return re.sub(r"[^0-9A-Za-z_-]+", "-", f"{of_run}-{own}")[:MAX_ID]


def _log(run: RunFolder, job: Job, found: _Found, id_: str) -> None:
    import wandb

    name = f"{job_of(run, read_environment(run))}-{found.name}"
    group = job.wandb.group or wandb_run.replicates(_as_given(job, run))
    settings = wandb_run.settings(job, run, id_=id_, name=name, group=group, job_type=JOB_TYPE)
    mode: Any = wandb_mode(job)
    resume: Any = "allow" if mode == "online" else None
    tracked: Any = wandb.init(project=job.wandb.project, mode=mode, resume=resume, **settings)
    try:
        tracked.config.update({**wandb_run.configuration(job, run, None), "evaluation": dict(found.about)})
        tracked.define_metric(EPOCH, hidden=True)
        tracked.log({**found.values(), EPOCH: found.epoch or 0})
        tracked.summary.update(found.summary)
    finally:
        tracked.finish()
        wandb.teardown()


def _as_given(job: Job, run: RunFolder) -> Job:
    """With the words of the job file in place of the numbers that were found for them, by which the training's group is
    named."""
    found = read_found(run)
    changes: dict[str, Any] = {"batch_size": "auto"} if "auto" in found else {}
    if word := next((word for word in found if word != "auto"), None):
        changes["optimizer_args"] = {**job.optimizer_args, "lr": word}
    return job.model_copy(update=changes)


def _media(folder: EvaluationFolder) -> dict[str, Any]:
    import wandb

    media: dict[str, Any] = {}
    with suppress(OSError, ValueError), open_text(folder.summary, MAX_SUMMARY) as file:
        header, *rows = csv.reader(file)
        columns = [_values(column) for column in zip(*rows, strict=True)]
        media[FIGURES] = wandb.Table([*header], [list(row) for row in zip(*columns, strict=True)])
    if folder.curves("png").is_file():
        media[CURVES] = wandb.Image(str(folder.curves("png")))
    return media


def _values(cells: Sequence[str]) -> Sequence[str | float | None]:
    """The cells of a column: numbers, by which a table is sorted, where all are such."""
    try:
        return [float(cell) if cell else None for cell in cells]
    except ValueError:
        return cells
