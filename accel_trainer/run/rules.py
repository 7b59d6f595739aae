"""By which rules the run of a job is trained: those that it was begun by."""

from accel_trainer.config import Job
from accel_trainer.config.rules import CHANGES, OLD_VERSIONS, RULES, Change, changes_for, describe
from accel_trainer.core.errors import UserError
from accel_trainer.run.folder import RunFolder
from accel_trainer.run.records import read_config, read_origin


def rules_of(run: RunFolder) -> int | None:
    """The rules that a run was begun by; None where there is no run, or none that says so. Raises UserError."""
    rules = read_config(run)["rules"] if run.has_run else read_origin(run).rules
    if rules is None:
        return None
    if type(rules) is not int or rules < 1:
        raise UserError(f"{run.config} is damaged: rules is {rules!r}"[:300])
    if rules > RULES:
        raise UserError(
            f"model_dir: the run in {run.path} was begun by rules {rules} of a newer accel-train; this one knows "
            f"{RULES}: update it (pip install -U accel-train)"
        )
    return rules


def as_its_run_goes_on(job: Job, run: RunFolder, submission: str | None = None) -> Job:
    """The job by the rules that its run was begun by; as it is where it says `rules` itself, or begins a run.

    submission: that of an attempt, which goes on with what it has begun; None for one that is yet to begin. Raises
    UserError, also where jobs are not trained by these rules any more.
    """
    if "rules" not in job.model_fields_set and (rules := _rules_of_what_goes_on(job, run, submission)) is not None:
        job = job.under(rules)
    if lost := [change for change in changes_for(job, job.rules) if not change.is_kept]:
        raise UserError(_not_kept(job, run, lost))
    return job


def _rules_of_what_goes_on(job: Job, run: RunFolder, submission: str | None) -> int | None:
    if job.checkpoint is None or (submission is not None and read_origin(run).submission == submission):
        return rules_of(run)
    laid_out = read_origin(RunFolder(run.next_run))
    if submission is not None and laid_out.submission == submission:
        return laid_out.rules
    # From the weights of an epoch on it is the run's past that goes on.
    return rules_of(run) if job.checkpoint > 0 else None


def _not_kept(job: Job, run: RunFolder, lost: list[Change]) -> str:
    return (
        f"rules: the run in {run.path} was begun by rules {job.rules}, which this version does not train by any more: "
        f"{describe(lost)}; go on with accel-train {OLD_VERSIONS[job.rules]}, set rules to {RULES} and allow_changes "
        "to true to go on by the new ones, or checkpoint to -1 to start over (the old run is kept in previous/)"
    )


def changes_since(job: Job) -> str | None:
    """What a job by older rules means that it would not mean by the newest ones; None where there is nothing."""
    concerned = [*changes_for(job.under(RULES), job.rules), *changes_for(job, job.rules)]
    return describe([change for change in CHANGES if change in concerned]) if concerned else None
