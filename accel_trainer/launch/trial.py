"""A small launch without a job, which shows whether this machine can train at all."""

import asyncio
import signal
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accel_trainer.config import Job
from accel_trainer.core.errors import UserError
from accel_trainer.core.processes import Program, StopRequest
from accel_trainer.core.text import duration
from accel_trainer.launch.call_worker import WorkerFailed, worker_answer
from accel_trainer.launch.command import LaunchOptions, plan_launch
from accel_trainer.launch.machine import Machine

ANY_JOB = Job(architecture="small_cnn")
LIMIT_S = 180.0


class LaunchFailed(Exception):
    """A launch that does not work, and why, in one line."""


@dataclass(frozen=True)
class Launched:
    """What a launch came to: the number of processes, the device of each, and the backend that connects several."""

    num_processes: int
    device: str
    backend: str | None


async def try_launch(options: LaunchOptions, machine: Machine) -> Launched:
    """Launch as many processes as a job would have; they add numbers up together. Raises LaunchFailed."""
    stop = StopRequest()
    limit = asyncio.get_running_loop().call_later(LIMIT_S, stop.note, signal.SIGTERM)
    try:
        with tempfile.TemporaryDirectory(prefix="accel-train-trial-") as folder:
            answer, log = Path(folder) / "answer.json", Path(folder) / "log.txt"
            plan = plan_launch(ANY_JOB, options, machine, [str(answer)], worker=Program.ALL_REDUCE)
            result = await worker_answer(plan, answer, log, stop)
    except (UserError, WorkerFailed, OSError) as error:
        raise LaunchFailed(f"accelerate launch has failed: {error}") from error
    finally:
        limit.cancel()
    if result is None:
        raise LaunchFailed(f"accelerate launch: no answer within {duration(LIMIT_S)}")
    return _checked(result, plan.num_processes)


def _checked(result: dict[str, Any], count: int) -> Launched:
    if result["processes"] != count or result["sum"] != count * (count + 1) / 2:
        raise LaunchFailed(f"accelerate launch: {count} processes do not work together: {result}")
    return Launched(count, result["device"], result["backend"])
