"""Where a claimed job goes when its attempt is over."""

from pathlib import Path

import pytest

from accel_trainer.launch.outcome import Outcome, OutcomeKind
from accel_trainer.queue.control import ControlAction, Requests
from accel_trainer.queue.finish import AttemptResult, finish_claim
from accel_trainer.queue.layout import JobState
from accel_trainer.queue.retries import Retries
from accel_trainer.queue.store import QueueStore
from accel_trainer.run.status import RunState


@pytest.mark.parametrize(("action", "state"), [(ControlAction.CANCEL, "failed"), (ControlAction.HOLD, "held")])
def test_what_was_asked_of_a_job_is_done_when_its_attempt_fails_by_itself(
    tmp_path: Path, action: ControlAction, state: str
) -> None:
    """Else a job that has retries would be trained again, and who has canceled it believes that it is not."""
    queue = QueueStore(tmp_path)
    queue.create()
    queue.add("a", b"{}")
    claimed = queue.claim(queue.jobs(JobState.PENDING)[0])
    assert claimed is not None
    Requests(queue).put(claimed, action)
    result = AttemptResult(Outcome(OutcomeKind.FAILED, "a crash", RunState.FAILED), claimed.path, retries=3)
    assert finish_claim(queue, Retries(queue), claimed, result).state == state
    assert {name: found.value for name, found in queue.states().items()} == {"a": state}
