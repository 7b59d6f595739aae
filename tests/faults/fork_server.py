"""Trainers in a tenth of the time: a process that has imported everything, and computed nothing, forks them.

As a program it reads requests, JSON in a line each, from standard input and answers each on standard output with the
exit codes of its ranks, that of a signal being negative.
"""

import atexit
import gc
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, Self

HERE = Path(__file__).parent
# Less than what a test may take (`timeout` in pyproject.toml).
TIMEOUT_S = 180.0
COMMAND_LINE = "from accel_trainer.cli import main; main()"


class ForkServer:
    """The side of the tests."""

    def __init__(self, timeout_s: float = TIMEOUT_S, **variables: str) -> None:
        """timeout_s: for which the processes of one call may run; then they are killed. variables: more of its
        environment."""
        self._home = tempfile.TemporaryDirectory(prefix="fork-server-")
        paths = [str(HERE.parent.parent), str(HERE.parent), str(HERE / "site")]
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(paths),
            "OMP_NUM_THREADS": "1",
            "GLOO_SOCKET_IFNAME": "lo",
            "ACCELERATE_USE_CPU": "true",
            "ACCEL_TRAIN_ALLOW_IMPORTS": "tiny_models",
            "HOME": self._home.name,
            **variables,
        }
        environment.pop("XDG_CACHE_HOME", None)
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / "fork_server.py"), str(timeout_s)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def forked(self) -> list[int]:
        """The ids of the processes that it has forked and that have not ended."""
        return [int(pid) for pid in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()]

    def attempt(
        self,
        job: Path,
        token: str,
        log: Path,
        *,
        processes: int = 1,
        faults: Sequence[dict[str, Any]] = (),
        kill_after_step: int | None = None,
        **variables: str,
    ) -> list[int]:
        """One attempt at a job, and the exit codes of its ranks. When a rank is killed, all are.

        faults: those of `injection.arm`, on rank 0; kill_after_step: all ranks are killed after so many steps of the
        whole run, when all is written that was being saved meanwhile. variables: more of the environment.
        """
        what = {"job": str(job), "token": token, "faults": list(faults), "kill_after_step": kill_after_step}
        return self._codes(processes, log, **what, variables=variables)

    def script(
        self, script: str, arguments: Sequence[str], log: Path, *, processes: int, **environment: str
    ) -> list[int]:
        """Run Python source in several processes, in the environment and folder of the caller, and their exit codes.

        In each, `sys.argv` is the rank and the arguments.
        """
        place = {"environment": {**os.environ, **environment}, "folder": str(Path.cwd())}
        return self._codes(processes, log, script=script, arguments=list(arguments), **place)

    def command(
        self, arguments: Sequence[str], *, before: str = "", **environment: str
    ) -> "subprocess.CompletedProcess[str]":
        """Run accel-train in the environment and folder of the caller, in a process that has imported torch before.

        before: source that the process runs first.
        """
        output, errors = Path(self._home.name) / "output", Path(self._home.name) / "errors"
        place = {"environment": {**os.environ, **environment}, "folder": str(Path.cwd()), "errors": str(errors)}
        (code,) = self._codes(1, output, script=before + COMMAND_LINE, arguments=list(arguments), **place)
        done = subprocess.CompletedProcess(arguments, code, output.read_text(), errors.read_text())
        output.unlink()
        errors.unlink()
        return done

    def preload(self, *modules: str) -> None:
        """Import modules that are not yet, for all that is forked from now on."""
        self._ask(modules=modules)

    def _codes(self, processes: int, log: Path, **request: Any) -> list[int]:
        return self._ask(processes=processes, log=str(log), **request)

    def _ask(self, **request: Any) -> list[int]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        codes: list[int] = json.loads(self._process.stdout.readline())
        return codes

    def train(self, job: Path, *, processes: int = 1) -> None:
        """Train a job, which names its run folder by an absolute path, to its end."""
        log = job.with_suffix(".log.txt").absolute()
        codes = self.attempt(job.absolute(), "token", log, processes=processes)
        assert codes == [0] * processes, log.read_text()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(TIMEOUT_S)
        finally:
            self._process.kill()
            self._process.stdout.close()
            self._home.cleanup()


@cache
def shared() -> ForkServer:
    """The one server of a process of pytest; it ends with the process."""
    import hang_guard

    server = ForkServer()
    hang_guard.SPARED.add(server.pid)
    atexit.register(server.__exit__, None, None, None)
    return server


# -- the side of the server ----------------------------------------------------------------------------------------


def serve(timeout_s: float) -> None:
    from faults.forked import start_checker

    import accel_trainer.api.verdicts
    import accel_trainer.cli
    import accel_trainer.training.trainer
    import accel_trainer.workers.train  # noqa: F401
    from accel_trainer.queue import check_process

    check_process.start = start_checker
    _prepare()
    # A search for garbage, with which each training ends, would go through all that is imported, and copy it.
    gc.collect()
    gc.freeze()

    for line in sys.stdin:
        request = json.loads(line)
        codes = _preload(**request) if "modules" in request else _ranks(timeout_s, **request)
        print(json.dumps(codes), flush=True)


def _preload(modules: Sequence[str]) -> list[int]:
    for module in modules:
        importlib.import_module(module)
    gc.collect()
    gc.freeze()
    return []


def _prepare() -> None:
    """Do what each trainer would do again, and what computes nothing: half of the time of a tiny training."""
    import PIL.Image
    import psutil  # noqa: F401 - as the next two, it would be imported when it is used
    import tiny_models  # noqa: F401
    import torch.utils.serialization  # noqa: F401

    from accel_trainer.config import Job
    from accel_trainer.core.child_environment import FAMILIES

    PIL.Image.preinit()
    Job.model_rebuild()
    assert not any("HOME" in family for family in FAMILIES)  # their patterns are compiled by that


def _ranks(timeout_s: float, processes: int, **request: Any) -> list[int]:
    """Fork the ranks and wait for them."""
    port = _free_port()
    codes: dict[int, int] = {}
    pids = {_fork(rank, processes, port, **request): rank for rank in range(processes)}
    deadline = time.monotonic() + timeout_s
    while pids:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid:
            codes[pids.pop(pid)] = os.waitstatus_to_exitcode(status)
        if any(code < 0 for code in codes.values()) or time.monotonic() > deadline:
            for left in pids:
                os.kill(left, signal.SIGKILL)
        if not pid:
            time.sleep(0.002)
    return [codes[rank] for rank in range(processes)]


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def _fork(rank: int, processes: int, port: int, **request: Any) -> int:
    if pid := os.fork():
        return pid
    code = 70
    try:
        code = _run(rank, processes, port, **request)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _run(
    rank: int, processes: int, port: int, log: str, errors: str | None = None, script: str | None = None, **request: Any
) -> int:
    from faults.forked import redirect

    from accel_trainer.core.processes import parent_death_signal

    parent_death_signal(signal.SIGKILL)()
    redirect(os.devnull, os.O_RDONLY, 0)
    redirect(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 1)
    redirect(errors or log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 2)
    return _train(rank, processes, port, **request) if script is None else _execute(rank, script, **request)


def _execute(rank: int, script: str, arguments: list[str], environment: dict[str, str], folder: str) -> int:
    """Run source as `python -c` would, and give the exit code."""
    os.environ.clear()
    os.environ |= environment
    os.chdir(folder)
    sys.path[:1] = [folder, *filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))]
    sys.argv = [str(rank), *arguments]
    try:
        exec(script, {"__name__": "__main__"})
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    finally:
        atexit._run_exitfuncs()
    return 0


def _train(
    rank: int,
    processes: int,
    port: int,
    job: str,
    token: str,
    faults: list[dict[str, Any]],
    kill_after_step: int | None,
    variables: dict[str, str],
) -> int:
    """What a rank that `accelerate launch` has started does."""
    import injection

    from accel_trainer.training import trainer
    from accel_trainer.workers import train

    os.environ |= {"ACCEL_TRAIN_TOKEN": token, "ACCEL_TRAIN_PROCESSES": str(processes), **variables}
    if processes > 1:
        numbers = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes}
        os.environ |= {name: str(number) for name, number in numbers.items()}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    trainer.Plotter = _NoPlotter
    if kill_after_step is not None:
        _kill_after(kill_after_step)
    if rank == 0:
        injection.arm(faults)
    return train.main([job, "--name=job"])


class _NoPlotter:
    """Curves take longer to draw than these trainings last."""

    def __init__(self, run: object) -> None: ...

    def start(self) -> None: ...

    def draw(self, *, now: bool = False) -> None: ...

    def close(self) -> None: ...


def _kill_after(step: int) -> None:
    from accel_trainer.training.loop import TrainingLoop

    after_step = TrainingLoop._after_step

    def kill_or_go_on(loop: TrainingLoop) -> None:
        if loop.progress.global_step == step:
            loop.saver.wait()
            while loop.rank:  # until rank 0 is dead, with which all are killed
                signal.pause()
            os.kill(os.getpid(), signal.SIGKILL)
        after_step(loop)

    TrainingLoop._after_step = kill_or_go_on


if __name__ == "__main__":
    serve(float(sys.argv[1]))
