"""The folder of an evaluation while it is written: one launch's alone."""

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from accelerate import Accelerator

from accel_trainer.core.errors import UserError
from accel_trainer.core.lease import Owner
from accel_trainer.evaluation.answer_files import errors_named
from accel_trainer.evaluation.by_first import by_first
from accel_trainer.run.folder import RunFolder
from accel_trainer.run.lock import FolderInUse, LockGuard, acquire, held

log = logging.getLogger(__name__)


@contextmanager
def owned_folder(path: Path, owned: RunFolder | None, accelerator: Accelerator) -> Iterator[RunFolder]:
    """The folder, which is this launch's alone, as who may write in it has it. owned: where its owner
    has it already. Every process of a launch enters it. Raises UserError while another launch writes there."""
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
                raise UserError(said, hint="wait for its end, or give another `name`") from error
            guard = LockGuard(lock)
            resources.enter_context(held(lock, guard.lose))
            place = guard.owned(place)

        by_first(accelerator, own)
        yield place
