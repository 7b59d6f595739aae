"""What the verbs ask Slurm about claims that are its own."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from accel_trainer.cli.app import print_problems, with_flags
from accel_trainer.queue.layout import ClaimedJob, JobState
from accel_trainer.queue.store import QueueStore

if TYPE_CHECKING:
    from accel_trainer.queue.slurm.reconcile import Reconciler, Settled


def end_in_slurm(store: QueueStore, job: ClaimedJob) -> None:
    """Have Slurm forget a job that it has not started; one that runs finds what is asked of it by itself."""
    from accel_trainer.queue.slurm.client import SlurmError
    from accel_trainer.queue.slurm.reconcile import end_waiting

    try:
        end_waiting(store, job)
    except SlurmError as error:
        print_problems([f"{problem}; if the job runs, it ends all the same" for problem in error.problems])


class SlurmDesk:
    """Asks Slurm about claims that are its own, again and again. Loaded when there is one: other verbs need it not."""

    def __init__(self, store: QueueStore) -> None:
        self._store = store
        self._reconciler: Reconciler | None = None

    def settle(self, jobs: Sequence[ClaimedJob]) -> Mapping[ClaimedJob, str | None]:
        """A description of each of these jobs that is a cluster's; it is moved where it belongs if Slurm has ended it.

        None: Slurm does not know it, which a look in a while will make sure.
        """
        from accel_trainer.queue.slurm.client import SlurmError

        asked = [job for job in jobs if job.owner.cluster is not None]
        if not asked:
            return {}
        try:
            return self._settle(asked)
        except SlurmError as error:
            return dict.fromkeys(asked, f"is in Slurm; {with_flags(str(error))}")

    def _settle(self, jobs: Sequence[ClaimedJob]) -> Mapping[ClaimedJob, str | None]:
        from accel_trainer.queue.retries import Retries
        from accel_trainer.queue.slurm.client import cluster_name
        from accel_trainer.queue.slurm.reconcile import Reconciler

        if self._reconciler is None:
            self._reconciler = Reconciler(self._store, Retries(self._store), cluster_name())
        ours = [job for job in jobs if job.owner.cluster == self._reconciler.cluster]
        descriptions: dict[ClaimedJob, str | None] = {
            job: f"is in Slurm on {job.owner.cluster}: ask on a machine of that cluster" for job in jobs
        }
        left, settled = self._reconciler.reconcile({job.name for job in ours})
        descriptions |= dict.fromkeys(ours, "is over")
        descriptions |= {job: None if found is None else found.description for job, found in left.items()}
        return descriptions | {one.job: _what_became(one) for one in settled}


def _what_became(settled: "Settled") -> str:
    finished = settled.finished
    where = "returned to pending" if finished.state is JobState.PENDING else finished.state
    return f"{where}; {finished.outcome.reason}"
