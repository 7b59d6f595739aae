"""Checks jobs in a process of its own, which may import torch.

Reads requests and writes verdicts as lines of JSON, by descriptors that nothing else is written to: models of users
print. This process imports torch and forks another, which checks one job after the other. When a job's model crashes
that one, or keeps it for too long, it is replaced by a new one, which starts at once.
"""

import argparse
import json
import os
import select
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from accel_trainer.api.verdicts import Check, check_evaluation, check_job, in_whole_file, make_check
from accel_trainer.config import EvaluationJob, QueueJob
from accel_trainer.config.parse import job_from
from accel_trainer.core.errors import UserError
from accel_trainer.core.late_imports import import_late
from accel_trainer.core.launched import TOKEN_VARIABLE
from accel_trainer.core.line_reader import BLOCK, LineReader
from accel_trainer.core.machine_errors import as_system_error, told, why_of_machine
from accel_trainer.core.outage import MachineFailure, expecting
from accel_trainer.core.processes import parent_death_signal, signal_name
from accel_trainer.core.text import first_line
from accel_trainer.launch.command import LaunchOptions
from accel_trainer.queue.check_process import CheckEnd, hung
from accel_trainer.queue.store import QueueStore
from accel_trainer.run.folder import RunFolder
from accel_trainer.run.inputs import known_inputs

# After so long without a request the process ends; whoever wants another check starts a new one.
IDLE_S = 600.0
# How often it is looked whether the process that checks has died without a word.
LOOK_S = 0.2
# How much is kept of what a model prints, to say what it printed last before it crashed.
TAIL = 4096
# What this process was started with is kept in every context.
OWN_VARIABLES = (TOKEN_VARIABLE, "TMPDIR")

Request = dict[str, Any]


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line and serve requests until there are no more."""
    parser = argparse.ArgumentParser(prog="accel_trainer.workers.validate", description=__doc__)
    parser.add_argument("--requests", type=int, required=True, help="descriptor to read from")
    parser.add_argument("--answers", type=int, required=True, help="descriptor to write to")
    args = parser.parse_args(argv)
    for descriptor in (args.requests, args.answers):
        os.set_inheritable(descriptor, False)  # not for what a model starts
    with suppress(Exception):  # each check tries it again, and reports what is wrong
        import accel_trainer.training.build  # noqa: F401
    _Server(LineReader(args.requests), args.answers).serve()


class _Server:
    """Hands requests to a process that checks, one at a time, and answers each, whatever becomes of that process."""

    def __init__(self, requests: LineReader, answers: int) -> None:
        self._requests, self._answers = requests, answers
        self._context: Request = {}
        self._checker: _Checker | None = None

    def serve(self) -> None:
        """Until there are no more requests."""
        while True:
            if (line := self._requests.next()) is None:
                ready, _, _ = select.select([self._requests.descriptor], [], [], IDLE_S)
                if ready:
                    self._requests.read()
                if not ready or self._requests.is_over:
                    break
                continue
            request: Request = json.loads(line)
            if "context" in request:
                self._end_checker()
                self._context = request["context"]
            else:
                self._write(self._answer(request))
        self._end_checker()

    def _answer(self, request: Request) -> Request:
        if self._checker is None:
            try:
                self._checker = _Checker(self._context, (self._requests.descriptor, self._answers))
            except OSError as error:  # no more processes or files
                return _lacking(request, error)
        checker = self._checker
        checker.send(request)
        deadline, limit_s = time.monotonic() + request["limit_s"], request["limit_s"]
        while (answer := checker.answer()) is None or answer.get("check") != request["check"]:
            if answer is not None:  # the data set is known: what is left is the model's
                deadline, limit_s = time.monotonic() + request["model_s"], request["model_s"]
            elif self._requests.is_over:  # nobody wants to know any more
                self._end_checker()
                sys.exit()
            elif checker.is_dead:
                how = self._end_checker()
                return _answer(request, [f"its check crashed: {how}"], end=CheckEnd.CRASHED)
            elif time.monotonic() > deadline:
                self._end_checker()
                return _answer(request, [hung(limit_s)], end=CheckEnd.HUNG)
            else:
                checker.wait(self._requests, min(LOOK_S, max(0.0, deadline - time.monotonic())))
        return answer

    def _end_checker(self) -> str:
        """How it ended."""
        checker, self._checker = self._checker, None
        return "" if checker is None else checker.end()

    def _write(self, answer: Request) -> None:
        line = json.dumps(answer).encode() + b"\n"
        while line:
            line = line[os.write(self._answers, line) :]


class _Checker:
    """The process that checks, seen from the one that has forked it."""

    def __init__(self, context: Request, not_for_it: Sequence[int]) -> None:
        ours, its = socket.socketpair()
        reads, writes = os.pipe()
        try:
            pid = os.fork()
        except OSError:
            for descriptor in (reads, writes):
                os.close(descriptor)
            raise
        if pid == 0:
            try:
                for descriptor in (*not_for_it, ours.fileno(), reads):
                    os.close(descriptor)
                _be_checker(context, its, writes)
            finally:
                os._exit(1)
        its.close()
        os.close(writes)
        self._pid, self._socket, self._output = pid, ours, reads
        self._status: int | None = None
        self._lines, self._tail, self._has_output = LineReader(ours.fileno()), b"", True

    @property
    def is_dead(self) -> bool:
        """Whether it has ended, and all that it wrote is read."""
        if self._status is None:
            pid, status = os.waitpid(self._pid, os.WNOHANG)
            if pid == 0:
                return False
            self._status = status
            self._drain()
            return False  # before that it may have answered
        return True

    def send(self, request: Request) -> None:
        with suppress(OSError):  # that it has died is seen in another way
            self._socket.sendall(json.dumps(request).encode() + b"\n")

    def answer(self) -> Request | None:
        """A line that it has written."""
        while (line := self._lines.next()) is not None:
            with suppress(ValueError, RecursionError):
                answer = json.loads(line)
                if isinstance(answer, dict):
                    return answer
        return None

    def wait(self, requests: LineReader, timeout_s: float) -> None:
        """Until there is something to read, of it or of requests."""
        watched = [requests.descriptor]
        watched += [] if self._lines.is_over else [self._socket.fileno()]
        watched += [self._output] if self._has_output else []
        ready, _, _ = select.select(watched, [], [], timeout_s)
        if requests.descriptor in ready:
            requests.read()
        if self._output in ready:
            self._read_output()
        if self._socket.fileno() in ready:
            self._lines.read()

    def _drain(self) -> None:
        """Read what it has left. What it has started may still write: no end is waited for."""
        while select.select([self._socket], [], [], 0)[0] and not self._lines.is_over:
            self._lines.read()
        for _ in range(16):
            if self._has_output and select.select([self._output], [], [], 0)[0]:
                self._read_output()

    def _read_output(self) -> None:
        block = os.read(self._output, BLOCK)
        self._has_output = bool(block)
        self._tail = (self._tail + block)[-TAIL:]

    def end(self) -> str:
        """Kill it, and what it has started in its group; how it ended."""
        for kill in (os.killpg, os.kill):
            with suppress(OSError):
                kill(self._pid, signal.SIGKILL)
        if self._status is None:
            _, self._status = os.waitpid(self._pid, 0)
        self._socket.close()
        os.close(self._output)
        code = os.waitstatus_to_exitcode(self._status)
        how = f"it exited with code {code}" if code >= 0 else f"it was killed by {signal_name(-code)}"
        lines = self._tail.decode(errors="replace").strip().splitlines()
        return f"{how} after it printed {lines[-1].strip()!r}" if lines else how


# -- the process that checks ---------------------------------------------------------------------------------------


def _be_checker(context: Request, channel: socket.socket, output: int) -> None:
    os.setpgid(0, 0)
    parent_death_signal(signal.SIGKILL)()
    for descriptor in (1, 2):
        os.dup2(output, descriptor)
    os.close(output)
    own = {name: os.environ[name] for name in OWN_VARIABLES if name in os.environ}
    known = set(sys.path)
    sys.path += [path for path in dict.fromkeys(context["paths"]) if path not in known]
    gpus = None if context["gpus"] is None else tuple(context["gpus"])
    config = None if context["config"] is None else Path(context["config"])
    queue = QueueStore(Path(context["queue"]))

    def tell(answer: Mapping[str, object]) -> None:
        channel.sendall(json.dumps(answer).encode() + b"\n")

    options = LaunchOptions(config, context["num_processes"], gpus, context["cpu"])
    check = make_check(options, on_images=lambda: tell({"data set": "known"}))
    lines, own_pid = LineReader(channel.fileno()), os.getpid()
    while not lines.is_over:
        if (line := lines.next()) is None:
            lines.read()
            continue
        request: Request = json.loads(line)
        _enter(context["folder"], {**context["environment"], **own})  # anew: models change both
        answer = _verdict(request, check, queue, context["coming"])
        if os.getpid() != own_pid:  # the model has forked
            return
        tell(answer)


def _verdict(request: Request, check: Check, queue: QueueStore, coming: Collection[str]) -> Request:
    """What is found of a job. Where a disk is away from which its run has read before, it has no mistake: the trainer
    waits for the disk, or reports it, and the job is tried again."""

    def look(job: QueueJob) -> Mapping[str, Any]:
        if isinstance(job, EvaluationJob):
            return check_evaluation(job, queue, coming)
        run = RunFolder(job.run_path)
        with expecting(known_inputs(job, run), own=run.path, is_told=True):
            return check_job(job, check, queue, coming)

    try:
        if "file" in request:
            content = request["content"].encode("latin-1")  # as `CheckProcess.send` has it
            return _answer(request, [], summary=in_whole_file(Path(request["file"]), look, content))
        return _answer(request, [], summary=look(job_from(request["job"], request["name"])))
    except UserError as error:
        if why_of_machine(error) is not None:
            return _answer(request, [])
        prefix = f"{request.get('file')}: "
        return _answer(request, [line.removeprefix(prefix) for line in error.problems])
    except MachineFailure:
        return _answer(request, [])
    except (Exception, SystemExit) as error:
        if not isinstance(error, MemoryError) and (scarce := as_system_error(error)) is not None:
            return _lacking(request, scarce)
        text = f"cannot be checked: {type(error).__name__}: {first_line(error)}"
        return _answer(request, [text], end=CheckEnd.CRASHED)


def _lacking(request: Request, error: OSError) -> Request:
    return _answer(request, [f"it cannot be checked: {told(error)}"], end=CheckEnd.LACKING)


def _enter(folder: str | None, environment: Mapping[str, str]) -> None:
    """The folder and environment of who has asked."""
    os.environ.clear()
    os.environ |= environment
    tempfile.tempdir = None
    if folder is not None:
        with suppress(OSError):
            os.chdir(folder)


def _answer(
    request: Request, problems: list[str], *, summary: Mapping[str, Any] | None = None, end: CheckEnd = CheckEnd.DONE
) -> Request:
    return {"check": request["check"], "problems": problems, "summary": summary, "end": end}


if __name__ == "__main__":
    import_late()
    main()
