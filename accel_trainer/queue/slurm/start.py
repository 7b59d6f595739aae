"""What a job of Slurm runs, on each of its nodes: makes one attempt at the claim that it was handed, and the first node
records how it ended. Slurm may start it many times for one claim.

Told to stop, it has the state saved. If the job is not being ended, it was the signal before the time limit: then it
puts itself back into Slurm's queue, and the claim stays. Else Slurm starts it again, or has canceled it, which is seen
by what reconciles the claims.
"""

import argparse
import os
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import assert_never

from accel_trainer.core.errors import UserError
from accel_trainer.core.event_loop import run_async
from accel_trainer.core.processes import Program, stop_request
from accel_trainer.core.text import one_line
from accel_trainer.launch.accelerate_config import UnusableHere
from accel_trainer.launch.attempt_events import (
    AttemptEvent,
    AttemptFinished,
    AttemptStarted,
    AttemptStopping,
    AttemptTerminating,
    Tick,
)
from accel_trainer.launch.attempt_files import remove_abandoned
from accel_trainer.launch.command import LaunchOptions
from accel_trainer.launch.machine import Machine, Nodes, this_machine
from accel_trainer.launch.outcome import OutcomeKind
from accel_trainer.queue.control import ControlRequest, Requests
from accel_trainer.queue.finish import AttemptResult, finish_claim
from accel_trainer.queue.layout import ClaimedJob
from accel_trainer.queue.retries import Retries
from accel_trainer.queue.run_claim import ClaimRun
from accel_trainer.queue.slurm import client
from accel_trainer.queue.slurm.client import SlurmError
from accel_trainer.queue.slurm.reconcile import Record, Records, this_user
from accel_trainer.queue.store import QueueStore

# A listing of a network drive may be so old.
SHOWN_S, LOOK_EVERY_S = 60.0, 1.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one start of a claim; gives the exit code."""
    parser = argparse.ArgumentParser(prog=Program.SLURM_JOB, description=__doc__)
    parser.add_argument("--queue", type=Path, required=True)
    parser.add_argument("--token", required=True, help="that of the claim")
    parser.add_argument("--config", type=Path)
    parser.add_argument("--num-processes", type=int)
    parser.add_argument("--cpu", action="store_true")
    parser.add_argument("--nodes", type=int, default=1)
    parser.add_argument("--port", type=int, default=0, help="a free one of the first node")
    args = parser.parse_args(arguments)
    machine = _machine(args.nodes, args.port, cpu=args.cpu)
    remove_abandoned()
    queue = QueueStore(args.queue)
    try:
        if (claimed := _find(queue, args.token)) is None:
            _say(f"the claim {args.token} is gone: its job was returned to pending, or is over; nothing to do")
            return 0
        options = LaunchOptions(args.config, args.num_processes, cpu=args.cpu)
        if machine.nodes.rank == 0:
            FirstNode(queue, claimed).run(options, machine)
        else:
            _run_other_node(queue, claimed, options, machine)
    except UserError as error:
        print("\n".join(f"error: {problem}" for problem in error.problems), file=sys.stderr)
        return 1
    return 0


class FirstNode:
    """The start of a claim on its first node."""

    def __init__(self, queue: QueueStore, claimed: ClaimedJob) -> None:
        self._queue, self._claimed, self._owner = queue, claimed, claimed.owner
        self._records, self._retries = Records(queue), Retries(queue)
        self._job_id = int(os.environ["SLURM_JOB_ID"])
        self._token = claimed.owner.start().token
        before = self._records.of(self._owner.token)
        user = this_user() if before is None else before.user
        self._record = Record(user, self._job_id, self._token)

    def run(self, options: LaunchOptions, machine: Machine) -> None:
        """Raises UserError."""
        self._records.write(self._owner.token, self._record)
        _say(f"{self._claimed.name}: start {os.environ.get('SLURM_RESTART_COUNT', '0')} of job {self._job_id}")
        if (request := self._request()) is not None:
            self._end(AttemptResult(request.outcome, self._claimed.path))
            return
        run = ClaimRun(self._queue, self._claimed, self._token, options, machine, stop_request(), self._follow)
        try:
            self._end(run_async(run.result))
        except UnusableHere:  # no mistake of the job; and Slurm would start it here again
            self._queue.hold(self._claimed)
            self._records.forget(self._owner.token)
            _say(f"{self._claimed.name}: held; `accel-train release {self._claimed.name}` when that is put right")
            raise

    def _end(self, result: AttemptResult) -> None:
        if not self._is_newest():
            _say("another start has this claim now; what this one did does not count")
            return
        is_interrupted = stop_request() and result.outcome.kind is OutcomeKind.INTERRUPTED
        if is_interrupted and self._request() is None and self._stays_in_slurm():
            return
        finished = finish_claim(self._queue, self._retries, self._claimed, result)
        self._records.forget(self._owner.token)
        reason = f": {finished.outcome.reason}" if finished.outcome.reason else ""
        _say(f"{self._claimed.name}: {finished.state or 'taken over by another process'}{reason}")

    def _request(self) -> ControlRequest | None:
        return Requests(self._queue).of(self._owner.token)

    def _is_newest(self) -> bool:
        """False for a start that Slurm has replaced, as when its node was silent, and that wakes up again."""
        now = self._records.of(self._owner.token)
        return now is None or now.start in (None, self._token)

    def _follow(self, event: AttemptEvent) -> None:
        _print(event)
        if isinstance(event, AttemptStopping):
            self._note_stop()

    def _note_stop(self) -> None:
        """Before anything else: there may be no time for more."""
        self._record = replace(self._record, state="")
        self._records.write(self._owner.token, self._record)

    def _stays_in_slurm(self) -> bool:
        """Whether Slurm still has the claim, or may have it; if not it can be returned to pending."""
        if self._state_now() != "RUNNING":
            return True
        _say("told to stop, but not ended, as before a time limit: this job is returned to Slurm's queue")
        try:
            client.requeue(self._job_id)
        except SlurmError as error:
            _say(str(error))
            return self._state_now() != "RUNNING"
        return True

    def _state_now(self) -> str:
        """Of this job, which is noted; "" where Slurm does not answer."""
        found = None
        with suppress(SlurmError):
            found = client.job_of(self._job_id, self._owner.token)
        state, reason = ("", "") if found is None else (found.state, found.reason)
        self._record = replace(self._record, state=state, reason=reason)
        self._records.write(self._owner.token, self._record)
        return state


def _run_other_node(queue: QueueStore, claimed: ClaimedJob, options: LaunchOptions, machine: Machine) -> None:
    """Another node than the first, which alone does what is asked of the job: all processes stop together."""
    token = claimed.owner.start().token
    result = run_async(ClaimRun(queue, claimed, token, options, machine, stop_request(), _print).result)
    if result.outcome.kind in (OutcomeKind.FAILED, OutcomeKind.CANCELED):
        raise UserError(f"node {machine.nodes.rank}: {result.outcome.reason}; log: {result.log}")


def _print(event: AttemptEvent) -> None:
    """Few lines, for the output of Slurm's job; the training's own are in the attempt's log and the run folder."""
    match event:
        case AttemptStarted(name=name, run=run, log=log, is_training=is_training):
            what = "training" if is_training else "evaluating"
            _say(f"{name}: {what} in {run.path} (all output: {log})")
        case AttemptStopping(name=name):
            _say(f"{name}: told to stop; the step is finished and the state saved")
        case AttemptTerminating(name=name, reason=reason):
            _say(f"{name}: {reason}")
        case Tick() | AttemptFinished():
            pass
        case _:
            assert_never(event)


def _machine(num_nodes: int, port: int, *, cpu: bool) -> Machine:
    """This node, as far as it is allocated to the job."""
    machine = this_machine(cpu=cpu)
    if num_nodes == 1:
        return machine
    # srun runs on the first node.
    address, rank = os.environ["SLURM_LAUNCH_NODE_IPADDR"], int(os.environ["SLURM_PROCID"])
    return replace(machine, nodes=Nodes(num_nodes, rank, address, port))


def _find(queue: QueueStore, token: str) -> ClaimedJob | None:
    deadline = time.monotonic() + SHOWN_S
    while True:
        for job in queue.claims():
            if job.token == token:
                return job
        if time.monotonic() > deadline or stop_request():
            return None
        time.sleep(LOOK_EVERY_S)


def _say(text: str) -> None:
    with suppress(OSError):
        print(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {one_line(text)}", flush=True)
