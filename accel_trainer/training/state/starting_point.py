"""Where a run starts: at its newest state, at the beginning, or over again from an earlier point."""

import logging
import shlex
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import assert_never

from torch import Tensor

from accel_trainer.config import Job
from accel_trainer.config.diff import Changes, describe, is_harmless, single
from accel_trainer.config.rules import changes_for
from accel_trainer.config.rules import describe as describe_rules
from accel_trainer.core.errors import UserError
from accel_trainer.core.fence import move
from accel_trainer.core.files import read_bytes, sync_folder
from accel_trainer.core.rename import list_anew, make_folder
from accel_trainer.core.text import listed
from accel_trainer.data.pipeline import OCCLUDERS, SPECTRUM
from accel_trainer.run.dataset_record import read_dataset_record, write_dataset_record
from accel_trainer.run.folder import RunFolder
from accel_trainer.run.load import is_anchor
from accel_trainer.run.older_run import set_aside
from accel_trainer.run.performance import has_results
from accel_trainer.run.records import Origin, read_config, read_found, read_origin, write_origin
from accel_trainer.training.identity.listing import MAX_LISTING
from accel_trainer.training.identity.model_source import MODEL
from accel_trainer.training.state.checkpoint import StateStore, TrainState, load_weights, save_weights

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class _Start:
    """changes: in which parameters the job of the attempt before differed from this one: {name: (then, now)}."""

    changes: Changes = field(default_factory=dict)

    @property
    def differences(self) -> Changes:
        """Of the changes those that make it another training."""
        return {key: both for key, both in self.changes.items() if not is_harmless(key)}


@dataclass(frozen=True)
class Fresh(_Start):
    """At the beginning: there is nothing of this run."""


@dataclass(frozen=True)
class FromState(_Start):
    """Where a whole state was saved."""

    state: TrainState


@dataclass(frozen=True)
class FromWeights(_Start):
    """At the end of an epoch of which only the weights are kept; 0: before the first."""

    weights: Mapping[str, Tensor]
    epoch: int


StartingPoint = Fresh | FromState | FromWeights


def find_starting_point(
    job: Job,
    run: RunFolder,
    submission: str,
    *,
    is_first: bool,
    wait_for_all: Callable[[], None],
    check: Callable[[], None] = lambda: None,
) -> StartingPoint:
    """Where this attempt starts. Every rank calls it and gets the same answer; rank 0 moves files.

    With `checkpoint` the run starts over: what is in the folder goes to `previous/`, once for each submission of
    the job, so that a job which is interrupted after that resumes and does not start over for ever.
    check: raises UserError for a job that cannot be trained; called before anything is moved for it.
    Raises UserError, on all ranks alike.
    """
    changes: Changes = {}
    refuse_anchor(run)
    refuse_run_of_other_code(job.checkpoint, run)
    refuse_doubled_folder(job, run)
    if job.checkpoint is not None and read_origin(run).submission != submission:
        # After an interruption the choice is laid out already, and what it was made from may be moved away.
        is_laid_out = _is_laid_out(run, submission)
        if run.has_run and not is_laid_out:
            check()
        chosen = None if is_laid_out else _choose(job.checkpoint, run)
        wait_for_all()
        if is_first:
            if chosen is not None:
                _stage(run, chosen, submission, job)
            _commit(run)
    else:
        changes = _accepted_changes(job, run)
        if changes and is_first:
            log.info("the job has changed: %s; going on", describe(changes))
    wait_for_all()
    start = _at_newest(run, changes)
    return _again(start, run, logs=is_first) if start.differences else start


def refuse_anchor(run: RunFolder) -> None:
    """Raises UserError where the folder has weights of others that are evaluated, which no training may replace."""
    if is_anchor(run):
        raise UserError(
            f"{run.path} holds weights that were not trained here, to be evaluated",
            key="model_dir",
            hint="choose another model_dir; to start from these weights, set pretrained to that folder",
        )


def refuse_run_of_other_code(checkpoint: int | None, run: RunFolder) -> None:
    """Raises UserError where the folder has a run that other code has trained: it can neither be gone on with nor be
    moved to previous/, and a new one would be mixed with it."""
    if not (found := run.of_other_code()):
        return
    start = run.path
    if checkpoint is not None and checkpoint >= 0 and (weights := run.params / f"{checkpoint:03d}.pt").exists():
        start = weights
    raise UserError(
        f"{run.path} holds a run of other code ({listed(found, 4)}), which cannot be gone on with or started over here",
        key="model_dir",
        hint=f"choose another model_dir; to start from its weights, set finetune to true and finetune_args to "
        f'{{"starting_params": "{start}"}}',
    )


def refuse_doubled_folder(job: Job, run: RunFolder) -> None:
    """Raises UserError where version 0.2 has put the run of this job below its model_dir twice, since finetune_dir was
    given with the model_dir before it, and there is none where it is today."""
    if job.finetuning is None or run.has_run:
        return
    then = RunFolder(job.base_path / job.finetuning.finetune_dir)
    if then.path.absolute() == run.path.absolute() or not then.has_run:
        return
    raise UserError(
        f"the run of this job is in {then.path}, where version 0.2 put it; today's place is {run.path}",
        key="finetune_args.finetune_dir",
        hint=f"move that folder there, or remove it to start anew: mv {shlex.quote(str(then.path))} "
        f"{shlex.quote(str(run.path))}",
    )


def _at_newest(run: RunFolder, changes: Changes) -> StartingPoint:
    state = StateStore(run).newest()
    if state is not None:
        return FromState(state, changes=changes)
    if has_results(run):
        raise UserError(
            f"{run.path} has results in {run.performance.name} but no whole state in {run.resume.name}/ to go on from; "
            "set checkpoint to the epoch of saved weights, or to -1 to start over (what is there is kept in previous/)"
        )
    origin = read_origin(run)
    if origin.weights and origin.epoch is not None:
        return FromWeights(load_weights(run.weights(origin.epoch)), origin.epoch, changes=changes)
    return Fresh(changes=changes)


def _accepted_changes(job: Job, run: RunFolder) -> Changes:
    """What the run's job had otherwise. Unless this one allows it, two jobs in one folder are refused: they would be
    one run with a past that is not its own."""
    if not run.has_run:
        return {}
    config, found = read_config(run), read_found(run)
    if (differences := job.incompatible_diff(config, found)) and not job.allow_changes:
        changed = "; ".join(f"{name} was {then!r}, is {now!r}" for name, then, now in single(differences))
        if "rules" in differences:
            both = differences["rules"]
            changed += f"; by rules {max(both)} {describe_rules(changes_for(job, *both))}"
        raise UserError(
            f"model_dir: {run.path} holds a run of another job ({changed}); choose another model_dir, set checkpoint "
            "to -1 to start over (the old run is kept in previous/), or allow_changes to true to go on with what is new"
        )
    return job.diff(config, found)


def with_changes(start: StartingPoint, changes: Changes, run: RunFolder, *, logs: bool) -> StartingPoint:
    """The same with further changes: where it becomes another training, an epoch that was begun is begun again."""
    changed = replace(start, changes={**start.changes, **changes})
    return _again(changed, run, logs=logs) if changes and not start.differences else changed


def _again(start: StartingPoint, run: RunFolder, *, logs: bool) -> StartingPoint:
    if isinstance(start, FromState):
        return replace(start, state=_before_the_epoch(start.state, run, logs=logs))
    return start


def _before_the_epoch(state: TrainState, run: RunFolder, *, logs: bool) -> TrainState:
    """The state from which another job resumes: an epoch that was begun is begun again, or half of it would be of the
    job before. Steps are counted on: of two states the one with more steps is the newer."""
    progress = state.progress
    if progress.step == 0:
        return state
    before = StateStore(run).at_epoch(progress.epoch)
    if logs:
        with_weights = (
            "" if before is not None else f", with the weights of its step {progress.step}: older are not kept"
        )
        log.info("epoch %d is begun again%s", progress.epoch + 1, with_weights)
    begun = replace((before or state).progress, step=0, epoch_seconds=0.0, global_step=progress.global_step)
    return replace(before or state, progress=begun)


def _choose(checkpoint: int, run: RunFolder) -> StartingPoint:
    """What of the older run the new one starts from. Raises UserError."""
    if checkpoint == -1:
        return Fresh()
    if checkpoint == 0:
        saved = run.weights(0)
        return FromWeights(load_weights(saved), 0) if saved.exists() else Fresh()
    if (state := StateStore(run).at_epoch(checkpoint)) is not None:
        return FromState(state)
    path = run.weights(checkpoint)
    if not path.exists():
        there = ", ".join(sorted(p.stem for p in run.params.glob("[0-9]*.safetensors"))) or "none"
        raise UserError(f"checkpoint: {run.path} has no weights of epoch {checkpoint}; there are: {there}")
    log.info("epoch %d has weights but no whole state: the optimizer is reset", checkpoint)
    return FromWeights(load_weights(path), checkpoint)


def _is_laid_out(run: RunFolder, submission: str) -> bool:
    if run.aside is None:  # whose name is known from a listing only
        list_anew(run.path)
    return read_origin(RunFolder(run.next_run)).submission == submission


def _stage(run: RunFolder, start: StartingPoint, submission: str, job: Job) -> None:
    """Write what the new run starts from; last the file that says it is complete."""
    run.check_owner()
    new = replace(run, path=run.next_run if run.aside is None else run.aside / run.next_run.name)
    for older in (new.path, run.next_run):
        run.discard(older)
    make_folder(new.params, parents=True)  # on a network drive the answer to the first call may be lost
    origin = Origin(submission, 0, None, job.rules)
    match start:
        case Fresh():
            pass
        case FromState(state):
            StateStore(new).save(state)
            _stage_identity(run, new, job)
        case FromWeights(weights, epoch):
            save_weights(new.weights(epoch), weights, run=new)
            origin = Origin(submission, epoch, str(new.weights(epoch).relative_to(new.path)), job.rules)
            if epoch > 0:  # before the first nothing was learned of them
                _stage_identity(run, new, job)
        case _:
            assert_never(start)
    write_origin(new, origin)
    if new.path != run.next_run:  # whole at once, and of nobody who has lost the folder
        run.check_owner()
        move(new.path, run.next_run)
        sync_folder(run.path)


def _stage_identity(run: RunFolder, new: RunFolder, job: Job) -> None:
    """What the weights were trained on: a start that finds other data is refused, as where a run goes on. Masks and a
    spectrum count where the job names the same."""
    for path in (run.classes, run.dataset_listing, run.dataset_contents):
        with suppress(FileNotFoundError):
            new.write(new.path / path.name, read_bytes(path, MAX_LISTING))
    if (record := read_dataset_record(run)) is None:
        return
    changed = {key.partition(".")[0] for key in job.diff(read_config(run), read_found(run))} if run.has_run else set()
    follow_from = {"Occlusion": OCCLUDERS, "Noise": SPECTRUM, "architecture": MODEL}
    others = {split for section, split in follow_from.items() if section in changed}
    splits = {split: about for split, about in record.splits.items() if split not in others}
    write_dataset_record(new, replace(record, splits=splits))


def _commit(run: RunFolder) -> None:
    """Move the old run away and the new one in. Whoever is killed in between finds what is left to move; of an owner
    that has lost the folder, who follows has taken both over (`run.older_run`)."""
    new = replace(run, path=run.next_run)
    # One that was laid out before and never begun goes, too; origin.json of the new one is moved in last.
    is_unbegun = run.origin.exists() and read_origin(run) != read_origin(new)
    if (kept := set_aside(run, _tracker_folders(run), is_unbegun=is_unbegun)) is not None:
        log.info("starting over; the older run is in %s", kept)
    for entry in sorted(new.path.iterdir(), key=lambda path: path == new.origin):
        run.check_owner()
        _move_into(entry, run)
    with suppress(FileNotFoundError):
        new.path.rmdir()


def _tracker_folders(run: RunFolder) -> set[str]:
    """Names of the folders that trackers may have made in a run folder: wandb's own, and others' of the project."""
    folders = {"wandb"}
    with suppress(UserError):
        settings = read_config(run).get("wandb")
        project = settings.get("project") if isinstance(settings, dict) else None
        folders |= {project} if isinstance(project, str) else set()
    return folders


def _move_into(entry: Path, run: RunFolder) -> None:
    target = run.path / entry.name
    if target.is_dir() and not any(target.iterdir()):
        run.discard(target)
    move(entry, target)
