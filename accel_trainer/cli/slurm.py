"""`run-queue --slurm`, and what other verbs do with jobs that are in Slurm."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import typer

from accel_trainer.cli.app import tell
from accel_trainer.core.errors import UserError
from accel_trainer.launch.command import Flags
from accel_trainer.launch.outcome import EndingKind
from accel_trainer.queue.layout import QueuedJob
from accel_trainer.queue.store import Queue

if TYPE_CHECKING:
    from accel_trainer.queue.slurm.reconcile import Reconciler, Settled
    from accel_trainer.queue.slurm.script import Wishes
    from accel_trainer.queue.slurm.submitter import Submitter


def refuse_options(options: Mapping[str, object], why: str) -> None:
    """Raises UserError for the first of some options that is given."""
    if given := [name for name, value in options.items() if value]:
        raise UserError(f"{given[0]}: {why}")


def hand_to_slurm(queue: Queue, flags: Flags, wishes: "Wishes", retry_after_s: float, *, watch: bool) -> "Submitter":
    """Hand all jobs over, and stay until they are over."""
    from accel_trainer.display import TerminalWatcher
    from accel_trainer.queue.slurm.submitter import Submitter

    submitter = Submitter(queue, flags, wishes, TerminalWatcher(), retry_after_s)
    submitter.run(watch=watch)
    if submitter.stop and submitter.has_jobs_in_slurm:
        typer.echo("what was handed over goes on in Slurm; `accel-train run-queue --slurm` shows it again")
    return submitter


def end_in_slurm(store: Queue, job: QueuedJob) -> None:
    """Have Slurm forget a job that it has not started; one that runs finds what is asked of it by itself."""
    from accel_trainer.queue.slurm.client import SlurmError
    from accel_trainer.queue.slurm.reconcile import end_waiting

    try:
        end_waiting(store, job)
    except SlurmError as error:
        tell([f"{problem}; if the job runs, it ends all the same" for problem in error.problems])


class SlurmDesk:
    """Asks Slurm about claims that are its own, again and again. Loaded when there is one: other verbs need it not."""

    def __init__(self, store: Queue) -> None:
        self._store = store
        self._reconciler: Reconciler | None = None

    def settle(self, jobs: Sequence[QueuedJob]) -> Mapping[QueuedJob, str | None]:
        """What is said of each of these jobs that is a cluster's; it is put where it belongs if Slurm has ended it.

        None: Slurm does not know it, which a look in a while will make sure.
        """
        from accel_trainer.queue.slurm.client import SlurmError

        asked = [job for job in jobs if job.owner is not None and job.owner.cluster is not None]
        if not asked:
            return {}
        try:
            return self._settle(asked)
        except SlurmError as error:
            return dict.fromkeys(asked, f"is in Slurm; {error}")

    def _settle(self, jobs: Sequence[QueuedJob]) -> Mapping[QueuedJob, str | None]:
        from accel_trainer.queue.retries import Retries
        from accel_trainer.queue.slurm.client import cluster_name
        from accel_trainer.queue.slurm.reconcile import Reconciler

        if self._reconciler is None:
            self._reconciler = Reconciler(self._store, Retries(self._store), cluster_name())
        ours = [job for job in jobs if job.owner is not None and job.owner.cluster == self._reconciler.cluster]
        said: dict[QueuedJob, str | None] = {
            job: f"is in Slurm on {job.owner.cluster}: ask on a machine of that cluster" for job in jobs if job.owner
        }
        left, settled = self._reconciler.look({job.name for job in ours})
        said |= dict.fromkeys(ours, "is over")
        said |= {job: None if found is None else found.told for job, found in left.items()}
        return said | {one.job: _became(one) for one in settled}


def _became(settled: "Settled") -> str:
    ending = settled.recorded.ending
    where = "failed" if settled.recorded.has_failed else "held" if ending.kind is EndingKind.HELD else "put back"
    return f"{where}; {ending.reason}"
