"""The folder of an evaluation while it is written: one launch's alone."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from accelerate import Accelerator

from accel_trainer.config.evaluation import EvaluationPlan
from accel_trainer.core.errors import UserError
from accel_trainer.core.files import remove_stale_temp_files, remove_tree
from accel_trainer.core.lease import Owner
from accel_trainer.evaluation.answer_files import AnswerFiles, errors_named
from accel_trainer.evaluation.by_first import by_first
from accel_trainer.run.evaluations import EvaluationFolder, EvaluationRecord, read_evaluation, write_evaluation
from accel_trainer.run.folder import RunFolder
from accel_trainer.run.lock import FolderInUse, LockGuard, acquire, held

# What a complete evaluation consists of; the record, which says so, goes last.
_PARTS = ("trials.parquet", "summary.csv", "curves.png", "curves.pdf")

log = logging.getLogger(__name__)


class EvaluationInUse(UserError):
    """Another launch writes in the folder."""


@contextmanager
def owned_folder(path: Path, owned: RunFolder | None, accelerator: Accelerator) -> Iterator[RunFolder]:
    """The folder, which is this launch's alone, as who may write in it has it. owned: where its owner
    has it already. Every process of a launch enters it. Raises EvaluationInUse."""
    if owned is not None:
        yield owned
        return
    place = RunFolder(path)
    with ExitStack() as resources:

        def own() -> None:
            nonlocal place
            with errors_named(path):
                path.mkdir(parents=True, exist_ok=True)
            try:
                lock = acquire(place, Owner.new(), end_leftovers=lambda token: None, say=log.warning)
            except FolderInUse as error:
                # A lock says who has it in the words of a training.
                said = error.details[0].message.replace("training in", "writing").replace("trained in", "written")
                said = said.replace("begun to train in", "begun to write")
                raise EvaluationInUse(said, hint="wait for its end, or give another `name`") from error
            guard = LockGuard(lock)
            resources.enter_context(held(lock, guard.lose))
            place = guard.owned(place)

        by_first(accelerator, own)
        yield place


def set_aside(folder: EvaluationFolder, there: EvaluationRecord) -> None:
    """Make room for an evaluation of something else, as the folder's owner: a complete one goes to
    `<name>-of-epoch-<n>` beside it, by the epoch of its weights; one that is not goes away. Raises UserError."""
    with errors_named(folder.path):
        if there.complete:
            epoch = "unknown" if there.epoch is None else there.epoch
            aside = folder.path.with_name(f"{folder.path.name}-of-epoch-{epoch}")
            aside.mkdir(exist_ok=True)
            for name in (*_PARTS, folder.record.name):
                with suppress(FileNotFoundError):
                    (folder.path / name).replace(aside / name)
        folder.record.unlink(missing_ok=True)
        remove_tree(folder.unfinished)


def _differing(there: EvaluationRecord, own: EvaluationRecord) -> list[str]:
    """In what an evaluation is of something else."""
    keys = sorted(there.measured.keys() | own.measured.keys())
    differ = (key.removesuffix("_sha256") for key in keys if there.measured.get(key) != own.measured.get(key))
    return list(dict.fromkeys(differ))


def make_way(folder: EvaluationFolder, own: EvaluationRecord) -> None:
    """Set aside what the folder has of something else."""
    there = read_evaluation(folder)
    if there is not None and _differing(there, own):
        set_aside(folder, there)


def prepare(folder: EvaluationFolder, place: RunFolder, own: EvaluationRecord, files: AnswerFiles) -> None:
    """Begin an evaluation, or go on with what is there of it. Raises UserError where something else is there."""
    there = read_evaluation(folder)
    if there is not None:
        _require_same(folder, _differing(there, own))
        if there.complete:
            remove_tree(folder.unfinished)
            return
    with errors_named(folder.path):
        remove_stale_temp_files(folder.path)
        write_evaluation(folder, own, place)
    files.prepare()


def require_same_plan(folder: EvaluationFolder, plan: EvaluationPlan) -> None:
    """Raises UserError for a folder that has what another plan measured, as far as a plan says that: weights and images
    of the same names may be others."""
    if (there := read_evaluation(folder)) is None:
        return
    own = plan.measured()
    # Which batches, and where a set is, follows from more than the plan.
    differ = [
        key for key in own.keys() - {"batch_size", "degraded_set"} if there.measured.get(key, own[key]) != own[key]
    ]
    if plan.batch_size not in (None, there.measured.get("batch_size")):
        differ.append("batch_size")
    if (there.plan.get("degraded_set") is None) != (plan.degraded_set is None):
        differ.append("degraded_set")
    _require_same(folder, sorted(differ))


def _require_same(folder: EvaluationFolder, differ: Sequence[str]) -> None:
    if differ:
        raise UserError(
            f"{folder.path} has an evaluation of something else: other {', '.join(differ)}",
            hint="give another `name`, or remove it",
        )
