"""A launched trainer: started, watched, asked to stop, and gone without a trace."""

import asyncio
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import BinaryIO

from accel_trainer.core import processes
from accel_trainer.core.child_environment import THREAD_COUNTS, child_environment
from accel_trainer.core.disk_calls import on_disk
from accel_trainer.core.files import MEBIBYTE, append_text, open_to_write, read_bytes, rename_over
from accel_trainer.core.launched import PROCESSES_VARIABLE, TOKEN_VARIABLE
from accel_trainer.launch.attempt_files import make_scratch, remove_scratch
from accel_trainer.launch.command import SHUTDOWN_S, Launch

POLL_S = 0.1
# What a library may need to finish after the trainer's end, such as the process that writes wandb's files.
REST_S = 10.0
# What a process may need to write its stacks.
DUMP_S = 1.0
MAX_LOG = 64 * MEBIBYTE


class ProcessGroup:
    """The processes of one attempt at one job. All of them carry the attempt's token in their environment."""

    def __init__(self, launch: Launch, token: str, log: Path) -> None:
        self.token, self._worker, self._log = token, launch.worker, log
        self._becomes_worker = launch.becomes_worker
        made = child_environment(THREAD_COUNTS) if launch.is_on_cpu else child_environment()
        environment = {**made, **make_scratch(token), **launch.environment}
        environment |= launch.beforehand(environment)
        environment |= {TOKEN_VARIABLE: token, PROCESSES_VARIABLE: str(launch.num_processes)}
        with on_disk(partial(open_to_write, log), log) as output:
            self._launcher = start(launch.argv, output, environment)

    @property
    def exit_code(self) -> int | None:
        """The launcher's, None while it runs. It shows only that it is over: the outcome is in status.json."""
        return self._launcher.poll()

    def log_to(self, log: Path) -> None:
        """Its output goes to another file from now on, after what is there."""
        before = on_disk(lambda: read_bytes(log, MAX_LOG) if log.exists() else b"", log)
        with on_disk(partial(open_to_write, self._log), self._log) as output:
            output.write(before)
        self._log = on_disk(partial(rename_over, self._log, log), log)

    def ask_to_stop(self) -> None:
        """Finish the step, save, leave. The trainers get the signal themselves, also those that have a launcher."""
        if workers := self._workers():
            processes.send_signal(workers, signal.SIGTERM)
        else:  # where no process can be seen
            self._launcher.terminate()

    async def dump_stacks(self) -> None:
        """Have every training process write to the log what each of its threads is doing."""
        for pid in self._workers():
            append_text(self._log, f"\nstacks of rank {processes.env_of(pid, 'RANK') or 0} (process {pid}):\n")
            processes.send_signal([pid], processes.STACKS_SIGNAL)
            await asyncio.sleep(DUMP_S)

    def kill(self) -> None:
        """At once, all of it."""
        self._launcher.kill()  # in its first moment its token cannot be seen yet
        processes.send_signal(processes.pids_with_env(TOKEN_VARIABLE, self.token), signal.SIGKILL)
        self._launcher.wait()

    async def stop(self, is_urgent: Callable[[], bool] = lambda: False) -> int:
        """End all processes; what still trains may save first, unless it is urgent. Gives the launcher's exit code."""
        if self.exit_code is None:
            self.ask_to_stop()
            deadline = time.monotonic() + SHUTDOWN_S
            while self.exit_code is None and time.monotonic() < deadline and not is_urgent():
                await asyncio.sleep(POLL_S)
        if self.exit_code is None:
            self.kill()
        for _ in ending_leftovers(self.token, is_urgent):
            await asyncio.sleep(POLL_S)
        return self._launcher.wait()

    def _workers(self) -> list[int]:
        """The training processes themselves; all there is, while they are not started yet."""
        mine = processes.pids_with_env(TOKEN_VARIABLE, self.token)
        return [pid for pid in mine if self._is_worker(pid)] or mine

    def _is_worker(self, pid: int) -> bool:
        """Whether a process runs the worker's module, and is not a launcher that only names it."""
        import psutil

        with suppress(psutil.Error):
            words = psutil.Process(pid).cmdline()
            return self._worker in words and (self._becomes_worker or pid != self._launcher.pid)
        return False


def start(argv: Sequence[str], output: BinaryIO, environment: Mapping[str, str]) -> "subprocess.Popen[bytes]":
    """Start a launcher, which ends with this process, with a session of its own: Ctrl-C at the terminal is for the
    runner, which asks the trainer to save. Raises OSError."""
    return subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        env=environment,
        start_new_session=True,
        preexec_fn=processes.parent_death_signal(),
    )


def end_leftovers(token: str, waiting: Callable[[], None] = lambda: None) -> None:
    """End what is left of an attempt whose launcher is gone, and wait until it is; `waiting` is called once, if so."""
    for number, _ in enumerate(ending_leftovers(token)):
        if number == 0:
            waiting()
        time.sleep(POLL_S)


def ending_leftovers(token: str, is_urgent: Callable[[], bool] = lambda: False) -> Iterator[None]:
    """End what is left of an attempt whose launcher is gone: trainers may save, then nothing may stay.

    Yields as long as there is something left, to be called again in a moment.
    """
    asked, deadline = False, time.monotonic() + REST_S
    while left := processes.pids_with_env(TOKEN_VARIABLE, token):
        if is_urgent() or (asked and time.monotonic() > deadline):
            processes.send_signal(left, signal.SIGKILL)
        elif not asked and time.monotonic() > deadline:
            processes.send_signal(left, signal.SIGTERM)
            asked, deadline = True, time.monotonic() + SHUTDOWN_S
        yield
    remove_scratch(token)
