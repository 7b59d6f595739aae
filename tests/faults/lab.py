"""A queue of small jobs in a folder of its own, the real command line on it, and every process of it in reach."""

import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil
from faults import checks
from faults.fork_server import ForkServer
from faults.site.injection import FAULTS_VARIABLE, UNCHECKED_VARIABLE, UNPLOTTED_VARIABLE, role_of
from helpers import COMMAND, REPOSITORY, wait_until

from accel_trainer.core.processes import parent_death_signal

MARK = "ACCEL_TRAIN_TEST_LAB"
SHARED_MEMORY = Path("/dev/shm")

# Two classes of the digits are 269 images: 8 steps in an epoch, each of which is saved.
SMALL_JOB: dict[str, Any] = {
    "architecture": "tiny_models:Unhurried",
    "dataset": "digits",
    "class_subset": [0, 1],
    "image_size": 8,
    "batch_size": 32,
    "num_epochs": 3,
    "num_workers": 2,
    "transform_type": "default",
    "optimizer_args": {"lr": 0.05, "momentum": 0.9},
    "save_every_minutes": 1e-6,
    "trackers": [],
}


class Lab:
    """Everything that is started in it is found again, and ended at its end."""

    def __init__(self, folder: Path, *, num_processes: int = 1, plots: bool = False) -> None:
        """plots: trainers have their curves drawn, as they do for a user."""
        self.folder, self.num_processes, self._plots = folder, num_processes, plots
        self.queue, self.models = folder / "queue", folder / "models"
        for path in (self.queue, folder / "home", folder / "struck"):
            path.mkdir(parents=True, exist_ok=True)
        self.temporary = Path(
            tempfile.mkdtemp(prefix="lab-", dir="/tmp")
        )  # short, or attempts would have theirs elsewhere
        self._hurry = folder / "hurry"
        self.mark = secrets.token_hex(8)
        self.runner: subprocess.Popen[bytes] | None = None
        self._num_runners = 0
        self._shared_memory = _entries(SHARED_MEMORY)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.kill_all()
        shutil.rmtree(self.temporary, ignore_errors=True)

    # -- jobs ---------------------------------------------------------------------------------------------------

    def add(self, name: str = "job", *, pause_s: float = 0.1, **changes: Any) -> Path:
        """Put a small job into the queue, which pauses for so long at each step until `hurry`; its run folder."""
        pauses = {"pause_s": pause_s, "until": str(self._hurry)}
        job = {**SMALL_JOB, "architecture_args": pauses, "model_dir": str(self.run(name)), **changes}
        (self.queue / f"{name}.json").write_text(json.dumps(job))
        return self.run(name)

    def run(self, name: str = "job") -> Path:
        return self.models / name

    def undisturbed(self, server: ForkServer, name: str = "job") -> Path:
        """The undisturbed run of the same job, without pauses."""
        job = json.loads(self._file(name).read_text())
        folder = self.folder / "undisturbed" / name
        folder.mkdir(parents=True)
        job |= {"model_dir": str(folder / "run"), "trackers": []}
        job["architecture_args"] |= {"pause_s": 0.0}
        (folder / "job.json").write_text(json.dumps(job))
        codes = server.attempt(folder / "job.json", "undisturbed", folder / "log", processes=self.num_processes)
        assert codes == [0] * self.num_processes, (folder / "log").read_text()
        return folder / "run"

    def hurry(self) -> None:
        """From now on no job pauses."""
        self._hurry.touch()

    def where(self, name: str = "job") -> str:
        """The state of a job: the folder it is in."""
        folder = self._file(name).parent
        return "pending" if folder == self.queue else folder.name

    def _file(self, name: str) -> Path:
        """Where a job is; on its way from one folder to another it may be seen in neither or in both."""
        (file,) = wait_until(lambda: len(found := self._files(name)) == 1 and found, 5)
        return file

    def _files(self, name: str) -> list[Path]:
        folders = (path for path in (self.queue, *self.queue.iterdir()) if path.is_dir() and path.name != "retries")
        return [path for folder in folders for path in folder.glob("*.json") if path.stem.partition("@")[0] == name]

    def retry(self, name: str = "job") -> None:
        """What a user does with a job that has failed."""
        (self.queue / "failed" / f"{name}.json").rename(self.queue / f"{name}.json")

    # -- processes ------------------------------------------------------------------------------------------------

    def start(self, *arguments: str, faults: Sequence[dict[str, Any]] = ()) -> subprocess.Popen[bytes]:
        """`accel-train run-queue`, with faults for its processes: see `injection.arm`, and `fault`."""
        if self.runner is not None:
            self.runner.wait(30)
        self._num_runners += 1
        flags = ["--num-processes", str(self.num_processes)] if self.num_processes > 1 else []
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("WANDB_")},
            MARK: self.mark,
            FAULTS_VARIABLE: json.dumps(list(faults)),
            UNCHECKED_VARIABLE: "1",  # the jobs are known to be good, and a check takes as long as a start
            "PYTHONPATH": os.pathsep.join(
                map(str, (REPOSITORY / "tests/faults/site", REPOSITORY / "tests", REPOSITORY))
            ),
            "HOME": str(self.folder / "home"),
            "TMPDIR": str(self.temporary),
            "ACCEL_TRAIN_ALLOW_IMPORTS": "tiny_models",
            "OMP_NUM_THREADS": "1",
        }
        if not self._plots:
            environment[UNPLOTTED_VARIABLE] = "1"
        with self.output.open("wb") as output:
            self.runner = subprocess.Popen(
                [*COMMAND, "run-queue", "--queue", str(self.queue), *flags, *arguments],
                stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
                cwd=self.folder, env=environment, start_new_session=True,
                preexec_fn=_on_one_core(),
            )  # fmt: skip
        return self.runner

    @property
    def output(self) -> Path:
        """What the newest runner prints."""
        return self.folder / f"runner.{self._num_runners}.txt"

    def fault(self, role: str, pattern: str | None = None, **more: Any) -> dict[str, Any]:
        """A fault that strikes once, at an event below the queue or the run folders."""
        marker = self.folder / "struck" / secrets.token_hex(4)
        folders = [str(self.queue), str(self.models)]
        return {"role": role, "pattern": pattern, "folders": folders, "marker": str(marker), **more}

    def wait(self, timeout_s: float = 300) -> int:
        """The exit code of the runner, when it has ended."""
        assert self.runner is not None
        return self.runner.wait(timeout_s)

    def processes(self, role: str | None = None, rank: int | None = None) -> list[psutil.Process]:
        """What runs in this lab, in a role: those of `injection.ROLES`, and wandb."""
        found = []
        for pid in _pids_with(f"{MARK}={self.mark}"):
            with suppress(psutil.Error, OSError):
                process = psutil.Process(pid)
                is_role = role is None or _role(process) == role
                if is_role and (rank is None or int(process.environ().get("RANK", 0)) == rank):
                    found.append(process)
        return found

    def find(self, role: str, rank: int | None = None) -> psutil.Process:
        """The process in a role, as soon as there is one."""
        return wait_until(lambda: self.processes(role, rank))[0]

    def send(self, role: str, number: int, rank: int | None = None) -> None:
        self.find(role, rank).send_signal(number)

    def kill_all(self) -> bool:
        """kill -9 of everything, also of what is just being started; whether there was anything."""
        struck = False
        while left := self.processes():
            for process in left:
                with suppress(psutil.NoSuchProcess):  # it has just ended
                    process.kill()
                    struck = True
        if self.runner is not None:
            self.runner.wait()
        return struck

    def wait_for_step(self, step: int, name: str = "job") -> None:
        """Until the job has saved this step, or a later one."""
        wait_until(lambda: checks.global_step(self.run(name)) >= step or self.is_over())
        assert checks.global_step(self.run(name)) >= step, self.all_output()

    def all_output(self) -> str:
        """All that runners and trainers have printed."""
        texts = [path.read_text(errors="replace") for path in (self.output, *sorted((self.queue / "logs").glob("*")))]
        return "\n".join(texts)

    def is_over(self) -> bool:
        """Whether no runner runs."""
        return self.runner is None or self.runner.poll() is not None

    # -- what must be true when nothing runs ------------------------------------------------------------------------

    def orphans(self) -> list[str]:
        """Processes that outlive the runner by more than it takes to save."""
        deadline = time.monotonic() + 20
        while (left := self.processes()) and time.monotonic() < deadline:
            time.sleep(0.05)
        return [f"{_role(process)} {process.pid}" for process in left]

    def leftovers(self) -> list[str]:
        """Temporary files and shared memory."""
        aside = checks.leftovers(self.queue, self.models) if self.models.exists() else checks.leftovers(self.queue)
        temporary = [str(path) for path in self.temporary.iterdir()]
        shared = sorted(map(str, filter(_is_nobodys, _entries(SHARED_MEMORY) - self._shared_memory)))
        return [*aside, *temporary, *shared]


def _is_nobodys(memory: Path) -> bool:
    """Whether shared memory is left over: that of a living process belongs to another program, since of ours
    none is left. torch has the process in the name."""
    if memory.name.startswith("accel-train-moves-"):  # of tests of moves, which may run meanwhile
        return False
    made_by = re.match(r"torch_(\d+)_", memory.name)
    return made_by is None or not psutil.pid_exists(int(made_by[1]))


def _on_one_core() -> Callable[[], None]:
    """What a runner does at its start: it ends with the test, and all that it launches has one thread to compute with,
    as the undisturbed run has. The number of threads changes the last bits of sums."""
    end_with_parent, core = parent_death_signal(signal.SIGKILL), min(os.sched_getaffinity(0))

    def prepare() -> None:
        end_with_parent()
        os.sched_setaffinity(0, {core})

    return prepare


def _pids_with(variable: str) -> list[int]:
    """Of the living processes that have this in their environment. It is asked again and again, also while a trainer
    starts on the same core: environments are read as they are, and a zombie has none."""
    found = []
    for pid in psutil.pids():
        with suppress(OSError):
            if variable.encode() in Path(f"/proc/{pid}/environ").read_bytes():
                found.append(pid)
    return found


def _role(process: psutil.Process) -> str | None:
    command = process.cmdline()
    if any("wandb" in Path(word).name for word in command[:2]):
        return "wandb"
    return role_of(command)


def _entries(folder: Path) -> set[Path]:
    return set(folder.iterdir()) if folder.is_dir() else set()
