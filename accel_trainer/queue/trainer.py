"""A launched trainer: started, watched, asked to stop, and gone without a trace."""

import os
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

from accel_trainer import processes
from accel_trainer.queue.launcher import SHUTDOWN_S, Launch
from accel_trainer.runs import PROCESSES_VARIABLE, TOKEN_VARIABLE

POLL_S = 0.1
# What a library may need to finish after the trainer's end, such as the process that writes wandb's files.
REST_S = 10.0


class Trainer:
    """The processes of one attempt at one job. All of them carry the attempt's token in their environment."""

    def __init__(self, launch: Launch, token: str, log: Path) -> None:
        self.token, self._worker = token, launch.worker
        environment = {**os.environ, **launch.environment, TOKEN_VARIABLE: token, "PYTHONUNBUFFERED": "1"}
        environment[PROCESSES_VARIABLE] = str(launch.num_processes)
        with log.open("ab") as output:
            # A session of its own: Ctrl-C at the terminal is for the runner, which asks the trainer to save.
            self._launcher = subprocess.Popen(
                launch.argv,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
                preexec_fn=processes.parent_death_signal(),
            )

    @property
    def exit_code(self) -> int | None:
        """The launcher's, None while it runs. It tells only that it is over: the outcome is in status.json."""
        return self._launcher.poll()

    def ask_to_stop(self) -> None:
        """Finish the step, save, leave. A launcher of one process would not pass the signal on, so the trainers
        get it themselves."""
        processes.send_signal(self._workers(), signal.SIGTERM)

    def kill(self) -> None:
        """At once, all of it."""
        processes.send_signal(processes.with_variable(TOKEN_VARIABLE, self.token), signal.SIGKILL)
        self._launcher.wait()

    def end(self) -> None:
        """See to it that all is gone; what still trains (when something went wrong here) may save first."""
        if self.exit_code is None:
            self.ask_to_stop()
            with suppress(subprocess.TimeoutExpired):
                self._launcher.wait(SHUTDOWN_S)
        if self.exit_code is None:
            self.kill()
        end_leftovers(self.token)

    def _workers(self) -> list[int]:
        """The training processes themselves; all there is, while they are not started yet."""
        import psutil

        try:
            children = psutil.Process(self._launcher.pid).children()
            workers = [child.pid for child in children if self._worker in " ".join(child.cmdline())]
        except psutil.Error:
            workers = []
        return workers or processes.with_variable(TOKEN_VARIABLE, self.token)


def end_leftovers(token: str) -> None:
    """End what is left of an attempt whose launcher is gone: trainers may save, then nothing may stay."""
    asked, deadline = False, time.monotonic() + REST_S
    while left := processes.with_variable(TOKEN_VARIABLE, token):
        if not asked and time.monotonic() > deadline:
            processes.send_signal(left, signal.SIGTERM)
            asked, deadline = True, time.monotonic() + SHUTDOWN_S
        elif asked and time.monotonic() > deadline:
            processes.send_signal(left, signal.SIGKILL)
        time.sleep(POLL_S)
