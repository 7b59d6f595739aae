"""Forks in place of processes that a verb starts: they need not import torch."""

import atexit
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from typing import Any, BinaryIO

# For the end of one that is told to end.
TIMEOUT_S = 180.0


def redirect(path: str, flags: int, descriptor: int) -> None:
    opened = os.open(path, flags)
    os.dup2(opened, descriptor)
    os.close(opened)


class Forked:
    """A fork of a process that has imported torch, with what is needed of a `Popen`."""

    def __init__(
        self,
        act: Callable[[], object],
        environment: Mapping[str, str],
        *,
        output: int | None = None,
        kept: Collection[int] = (),
    ) -> None:
        """act: what it does, in this environment. output: where it prints; kept: further descriptors that it keeps."""
        self._code: int | None = None
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError):
                stream.flush()
        self.pid = os.fork()
        if self.pid:
            return
        code = 1
        atexit._clear()  # what this process does at its end is not for its fork
        try:
            os.setsid()
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            for descriptor in range(3):
                redirect(os.devnull, os.O_RDWR, descriptor)
            for descriptor in (1, 2) if output is not None else ():
                os.dup2(output, descriptor)
            for descriptor in range(3, 256):
                if descriptor not in kept:
                    with suppress(OSError):
                        os.close(descriptor)
            os.environ.clear()
            os.environ |= environment
            import torch

            torch.set_num_threads(1)  # the threads that this process may have had are not in its fork
            act()
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        except BaseException:
            traceback.print_exc()
        finally:
            atexit._run_exitfuncs()
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def poll(self) -> int | None:
        if self._code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self._code = os.waitstatus_to_exitcode(status) if pid else None
        return self._code

    def terminate(self) -> None:
        self._send(signal.SIGTERM)

    def kill(self) -> None:
        self._send(signal.SIGKILL)

    def _send(self, number: signal.Signals) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def wait(self, timeout_s: float = TIMEOUT_S) -> int | None:
        deadline = time.monotonic() + timeout_s
        while self.poll() is None and time.monotonic() < deadline:
            time.sleep(0.002)
        return self._code


def start_checker(requests: int, answers: int, environment: Mapping[str, str]) -> Forked:
    """`Program.VALIDATE` as a fork."""
    from accel_trainer.workers import validate

    words = ["--requests", str(requests), "--answers", str(answers)]
    return Forked(lambda: validate.main(words), environment, kept=(requests, answers))


def fork_launches() -> None:
    """From now on what this process launches on one device are forks of it."""
    from accel_trainer.core.processes import Program, parent_death_signal
    from accel_trainer.launch import process_group

    start, launcher = process_group.start, Program.LAUNCH.command()

    def fork(argv: Sequence[str], output: BinaryIO, environment: Mapping[str, str]) -> Any:
        if list(argv[: len(launcher)]) != launcher:
            return start(argv, output, environment)

        def launch() -> None:
            from accel_trainer.workers import launch

            parent_death_signal()()
            sys.argv[1:] = argv[len(launcher) :]
            launch.main()

        return Forked(launch, environment, output=output.fileno())

    process_group.start = fork
