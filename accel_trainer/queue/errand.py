"""A launched worker that trains nothing: it is sent for one answer, a JSON object in a file."""

import asyncio
import json
from pathlib import Path
from typing import Any

from accel_trainer.core.errors import UserError
from accel_trainer.core.lease import Owner
from accel_trainer.core.processes import StopRequest
from accel_trainer.queue.ending import last_words
from accel_trainer.queue.launcher import Launch
from accel_trainer.queue.trainer import POLL_S, Trainer


class NoAnswer(Exception):
    """The worker ended without a word, for this reason."""


def send(launch: Launch, answer: Path, log: Path, stop: StopRequest) -> dict[str, Any] | None:
    """Launch a worker and wait for what it writes to `answer`; None if it was stopped, which ends it at once, and of a
    machine that is not the first of several.

    Raises UserError for the problems that it tells, and NoAnswer.
    """
    worker = asyncio.run(_until_it_ends(launch, log, stop))
    if stop or (launch.machine_rank > 0 and worker.exit_code == 0):
        return None
    try:
        told: dict[str, Any] = json.loads(answer.read_text())
    except FileNotFoundError as error:
        assert worker.exit_code is not None
        raise NoAnswer(last_words(log, worker.exit_code)) from error
    if "problems" in told:
        raise UserError(*told["problems"])
    return told


async def _until_it_ends(launch: Launch, log: Path, stop: StopRequest) -> Trainer:
    worker = Trainer(launch, Owner.new().token, log)
    try:
        while worker.exit_code is None:
            if stop:
                worker.kill()
            await asyncio.sleep(POLL_S)
    finally:
        await worker.end()
    return worker
