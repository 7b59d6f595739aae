"""Every test has an environment of its own, and the command line as a user has it."""

import atexit
import gc
import logging
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from faults.fork_server import ForkServer, shared
from faults.forked import start_checker
from faults.site.injection import FLUSH_VARIABLE, HANGS_VARIABLE, UNCHECKED_VARIABLE, UNPLOTTED_VARIABLE
from helpers import COMMAND, REPOSITORY, NoPlotter, kill_tree

from accel_trainer.core.child_environment import SLURM, THREAD_COUNTS, leftovers
from accel_trainer.launch import attempt_files

pytest_plugins = ["hang_guard", "network.fixtures"]
# Before torch is imported: what a shell has left there is set aside by trainings too, which would say so.
for _name in leftovers(os.environ, SLURM, THREAD_COUNTS):
    del os.environ[_name]
# Tests have fewer cores than threads, and threads that spin make them many times slower.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")


def pytest_configure() -> None:
    """Signals are as at a terminal, also under nohup, or in the background of a shell, which has Ctrl-C ignored."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    _keep_to_own_cores()
    # Where there is no list of fonts at home, which is empty in each test, matplotlib looks through all of them.
    os.environ["MPLCONFIGDIR"] = tempfile.mkdtemp(prefix="matplotlib-of-tests-")
    atexit.register(shutil.rmtree, os.environ["MPLCONFIGDIR"], ignore_errors=True)


def _keep_to_own_cores() -> None:
    """Each worker of pytest-xdist has its share of the cores, or one that it shares, with all that it starts: threads
    that wait for each other on too few cores make training many times slower."""
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    if worker is None or not hasattr(os, "sched_setaffinity"):
        return
    cores, number = sorted(os.sched_getaffinity(0)), int(worker.removeprefix("gw"))
    os.sched_setaffinity(0, cores[number % len(cores) :: int(os.environ["PYTEST_XDIST_WORKER_COUNT"])])


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests come first, so that no worker is left with one of them at the end."""
    slow_files = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow_files)


def pytest_collection_finish() -> None:
    """What is imported by now stays: each training ends with a search for garbage, which would go through all of it."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def own_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home and working folder: nothing that the user has configured counts, nothing of theirs is touched."""
    home, work = tmp_path / "home", tmp_path / "work"
    for folder in (home, work):
        folder.mkdir()
    monkeypatch.setenv("HOME", str(home))
    for name in (
        "WANDB_API_KEY",
        "WANDB_MODE",
        "HF_HOME",
        "XDG_CACHE_HOME",
        "CUDA_VISIBLE_DEVICES",
        "ACCEL_TRAIN_DISK_PATIENCE_S",
        "ACCEL_TRAIN_HOST",
        "ACCEL_TRAIN_ALLOW_IMPORTS",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(work)
    return work


@pytest.fixture(autouse=True)
def same_signal_handlers() -> Iterator[None]:
    """What a test has installed for Ctrl-C, as a verb does that is called in this process, is not there in the next."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in numbers}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


Cli = Callable[..., subprocess.CompletedProcess[str]]


# These start processes themselves, or look at their own.
LAUNCHING = ("doctor", "evaluate", "profile", "run-queue", "train")


@pytest.fixture
def cli(server: ForkServer) -> Cli:
    """Runs accel-train in the test's working folder; the result has its exit code and output."""

    def run(*words: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
        if "--dry-run" in words or not any(verb in words for verb in LAUNCHING):
            return server.command(list(map(str, words)), **environment)
        return subprocess.run(
            [*COMMAND, *map(str, words)],
            capture_output=True,
            text=True,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
        )

    return run


@pytest.fixture
def forked_cli(server: ForkServer) -> Cli:
    """As `cli`, of a verb that starts no training: also one that would is then there at once."""
    return lambda *words, **environment: server.command(list(map(str, words)), **environment)


@pytest.fixture
def background() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts accel-train and gives its process; what still runs at the end of the test is killed."""
    started: list[subprocess.Popen[str]] = []

    def start(*words: str | Path) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [*COMMAND, *map(str, words)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        started.append(process)
        return process

    yield start
    for process in started:
        kill_tree(process.pid)
        process.communicate()


@pytest.fixture(scope="session")
def server() -> ForkServer:
    """Forks trainers that start at once, for tests whose claim is not about launching."""
    return shared()


@pytest.fixture
def no_plots(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trainings in this process draw no curves, which takes ten times as long as a tiny training, unless the test is
    marked with `plots`."""
    if request.node.get_closest_marker("plots") is None:
        monkeypatch.setattr("accel_trainer.training.trainer.Plotter", NoPlotter)


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs are known to be good: a runner does not check them first, which takes as long as to start a training."""
    _set_at_start_of_python(monkeypatch, UNCHECKED_VARIABLE, "1")


@pytest.fixture
def unplotted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trainings in processes of their own draw no curves, which takes as long as a tiny training (`no_plots` is for
    those in this process)."""
    _set_at_start_of_python(monkeypatch, UNPLOTTED_VARIABLE, "1")


@pytest.fixture
def hangs_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """A call on a disk counts as one that hangs after two seconds, in the processes that a test starts."""
    _set_at_start_of_python(monkeypatch, HANGS_VARIABLE, "2")


@pytest.fixture
def notes_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Evaluations in processes of their own have on the disk what they have computed until a tenth of a second ago, not
    five seconds."""
    _set_at_start_of_python(monkeypatch, FLUSH_VARIABLE, "0.1")


def _set_at_start_of_python(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    """Set what faults/site looks at when Python starts."""
    site = str(REPOSITORY / "tests/faults/site")
    if site not in os.environ.get("PYTHONPATH", "").split(os.pathsep):
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [site, os.environ.get("PYTHONPATH")])))
    monkeypatch.setenv(name, value)


@pytest.fixture
def forked_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    """What checks jobs for this process is a fork of it, which need not import torch."""
    import accel_trainer.training.build  # noqa: F401 - before it is forked
    from accel_trainer.queue import check_process

    monkeypatch.setattr(check_process, "start", start_checker)


@pytest.fixture(autouse=True)
def heard_log(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """What is logged reaches caplog, also after a trainer has run in this process."""
    logger = logging.getLogger("accel_trainer")
    monkeypatch.setattr(logger, "propagate", True)
    monkeypatch.setattr(logger, "handlers", [])
    return caplog


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where scratch folders are made: of this test alone, and of a path short enough to be taken for that."""
    folder = Path("/tmp") / f"at-{os.getpid()}"
    folder.mkdir()
    monkeypatch.setattr(attempt_files.tempfile, "gettempdir", lambda: str(folder))
    yield folder
    shutil.rmtree(folder)
