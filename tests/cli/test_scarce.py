"""Every verb on a disk that is full, with few files that may be open, and where no thread or process may be started: a
line that says so, and no job is lost."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from faults.fork_server import ForkServer
from helpers import own_disk, write_job

from accel_trainer.cli import app
from accel_trainer.evaluation.feature_files import FeatureFiles
from accel_trainer.measures.trials import Trials
from accel_trainer.measures.trials_file import writing_trials
from accel_trainer.queue.store import QueueStore

VERBS = {
    "hold": "hold a",
    "release": "release h",
    "cancel": "cancel a",
    "retry": "retry f",
    "rm": "rm d",
    "move": "move a --to ../other",
    "pause": "pause",
    "resume": "resume",
    "reclaim": "reclaim",
    "allow": "allow my_lab",
    "init": "init started --example",
    "validate": "validate training_queue/a.json",
    "show": "show training_queue/a.json",
    "schema": "schema --output schema.json",
    "models": "models --family small",
    "preview": "preview training_queue/a.json --out sheet.png",
    "make-occluders": "make-occluders occluders --number 2 --size 32",
    "add": "add ../new.json",
    "measure": "measure trials.parquet people.csv",
    "migrate": "migrate old.json",
    "pack": "pack digits --output packed",
    "compare": "compare run --json",
    "plot": "plot run --out curves.pdf",
    "run-queue": "run-queue --dry-run",
    "sweep": "sweep ../new.json --set batch_size=32,64",
    "status": "status",
    "logs": "logs a",
    "wait": "wait d",
    "evaluate": "evaluate run --cpu",
    "leet": "leet run --out runs",
    "export": "export run exported",
    "push": "push sent my-lab/birds --dry-run",
    "features": "features run --layers layer1 --out features --cpu",
    "probe": "probe run --layers layer1 --readout knn --cpu",
    "rdm": "rdm evoked --out rdms",
    "rsa": "rsa model.csv --against people.npy",
    "degrade": "degrade blur --dataset digits --out degraded --size 8 --levels 1",
    "profile": "profile ../new.json --cpu --steps 1 --warm-up 1",
    "doctor": "doctor",
}
# train starts a trainer, as run-queue does with jobs, of which tests/faults/test_full_disk.py has some on full disks;
NOT_TRIED = {"train"}
# These start one too, or try what a queue wants of a disk, and import torch; unless they cannot even start that.
LONG = ("evaluate", "features", "probe", "profile", "doctor")
# Besides standard input, output and errors; the modules of Python and torch are read before.
FEW = (1, 3)
LIMITED = """
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, ({most}, {most}))
from accel_trainer.cli import main
main()
"""
# What a verb starts for its work is as quickly there, and has the same disk.
FORKING = "from faults.forked import fork_launches; fork_launches()\n"
FULL = "from accel_trainer.cli import main; main()"


def test_every_verb_is_tried() -> None:
    assert set(typer.main.get_command(app).commands) == VERBS.keys() | NOT_TRIED


TINY: dict[str, Any] = {
    "architecture": "small_cnn",
    "architecture_args": {"features": [4, 4, 4]},
    "class_subset": [0, 1],
    "image_size": 8,
    "num_epochs": 1,
    "num_workers": 0,
}


# What verbs import late, and a process that tests fork need not import again.
LATE = (
    "accelerate.commands.launch",
    "matplotlib.backends.backend_pdf",
    "pyarrow.parquet",
    "scipy.stats",
    "accel_trainer.degradations.registry",
    "accel_trainer.measures.measure",
    "accel_trainer.report.curves_figure",
)


@pytest.fixture(scope="module")
def laid_out(server: ForkServer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A queue with a job in every state that a verb takes one from, what other verbs read, such as a run that is
    trained, and another queue beside it. Anybody may write there. Only to be copied."""
    server.preload(*LATE)
    folder = tmp_path_factory.mktemp("laid-out") / "place"
    folder.mkdir()
    server.train(write_job(folder.parent / "run.json", **TINY, model_dir=str(folder / "run")))
    (folder / "run" / "wandb" / "offline-run-20261231_235959-a-job").mkdir(parents=True)
    queue = QueueStore(folder / "training_queue")
    queue.create()
    for number, name in enumerate(("a", "held/h", "failed/f", "done/d")):
        write_job(queue.folder / f"{name}.json", model_dir="models", seed=number)
    write_job(folder / "old.json", seed=8)
    (folder / "people.csv").write_text(
        "subj,rt,object_response,category,condition,imagename\na,0.5,cat,dog,inf,0001_x_s01_inf_dog_1_a.png\n"
    )
    with writing_trials(folder / "trials.parquet") as add:
        add(Trials.of(["a.png"], ["dog"], ["dog"], observer="net", conditions={"condition": "inf"}))
    evoked = FeatureFiles(folder / "evoked", {"IT": (2,)}, ["a.png", "b.png", "c.png"], "npy")
    evoked.prepare({})
    evoked.finish([])
    (folder / "model.csv").write_text("a,b,c\n0,1,2\n1,0,3\n2,3,0\n")
    np.save(folder / "people.npy", np.array([[1.0, 3.0, 2.0], [1.0, 2.0, 3.0]]))
    (folder / "sent").mkdir()
    (folder / "sent/config.json").write_text('{"accel_train": {"version": 1, "files": {}}}')
    subprocess.run(["chmod", "-R", "a+rwX", folder.parent], check=True)
    return folder


def lay_out(folder: Path, laid_out: Path) -> None:
    """The same in a folder, with another queue and a new job beside it."""
    shutil.copytree(laid_out, folder, dirs_exist_ok=True)
    for path in (folder.parent, folder, folder.parent / "other"):
        path.mkdir(exist_ok=True)
        path.chmod(0o777)
    write_job(folder.parent / "new.json", seed=9).chmod(0o666)


def jobs(folder: Path) -> Counter[str]:
    """What is in the job files of both queues, however they are named."""
    found = [*folder.rglob("training_queue/**/*.json"), *folder.parent.glob("other/**/*.json")]
    return Counter(path.read_text() for path in found if path.parent.name in ("training_queue", "other", *STATES))


STATES = ("running", "held", "failed", "done")


def tried(server: ForkServer, words: str, script: str, tmp_path: Path) -> tuple[int, str]:
    log = tmp_path / "output"
    (code,) = server.script(script, words.split(), log, processes=1)
    return code, log.read_text()


# As somebody of whom one task may be there, which it is; with the right to read and write what root has made.
ALONE = (
    """
import ctypes
import os
import resource
libc = ctypes.CDLL(None, use_errno=True)
libc.prctl(8, 1, 0, 0, 0)  # PR_SET_KEEPCAPS
resource.setrlimit(resource.RLIMIT_NPROC, (1, 1))
os.setgroups([])
os.setresgid(54321, 54321, 54321)
os.setresuid(54321, 54321, 54321)
allowed = 1 << 1 | 1 << 2  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
caps = (ctypes.c_uint32 * 6)(allowed, allowed, 0, 0, 0, 0)
assert libc.capset((ctypes.c_uint32 * 2)(0x20080522, 0), caps) == 0
"""
    + FULL
)
LACK = "no more threads or processes may be started"


def check(words: str, code: int, text: str, before: Counter[str], after: Counter[str]) -> None:
    assert "Traceback" not in text, text
    assert "report a bug" not in text, text
    if words == "doctor":  # says in a line each what is well and what is not
        assert code in (0, 1), text
        assert (code == 0) == ("problem  " not in text), text
        return
    errors = [line for line in text.splitlines() if line.startswith("error: ")]
    assert code in (0, 1, 2, 3), text
    assert len(errors) <= 1, text
    assert (code == 0) == (errors == []), text
    lost = before - after
    assert not lost or (words.startswith("rm ") and code == 0), (lost, text)


def takes_long(verb: str) -> Any:
    return pytest.param(verb, marks=pytest.mark.slow) if verb in LONG else verb


@pytest.mark.parametrize("verb", [*map(takes_long, VERBS)])
def test_a_verb_on_a_full_disk_is_at_most_a_line_and_loses_no_job(
    server: ForkServer, laid_out: Path, verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with own_disk(tmp_path / "disk", "size=2m") as disk:
        lay_out(disk, laid_out)
        subprocess.run(["dd", "if=/dev/zero", f"of={disk}/rest", "bs=4k"], capture_output=True)
        before = jobs(disk)
        with monkeypatch.context() as there:
            there.chdir(disk)
            code, text = tried(server, VERBS[verb], FORKING + FULL, tmp_path)
        check(VERBS[verb], code, text, before, jobs(disk))


@pytest.mark.parametrize(
    ("words", "few"),
    [
        *((words, few) for words in VERBS.values() for few in FEW),
        ("train training_queue/a.json --cpu", 1),
        ("run-queue", 1),
    ],
)
def test_a_verb_with_few_open_files_is_at_most_a_line_and_loses_no_job(
    server: ForkServer, laid_out: Path, words: str, few: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "place"
    lay_out(folder, laid_out)
    monkeypatch.chdir(folder)
    before = jobs(folder)
    code, text = tried(server, words, LIMITED.format(most=3 + few), tmp_path)
    check(words, code, text, before, jobs(folder))


# What cannot be done without another process.
STARTING = ("validate", "add", "sweep", "train", "run-queue --cpu", *LONG)


@pytest.mark.skipif(os.geteuid() != 0 or sys.platform != "linux", reason="only root can be somebody who may do less")
@pytest.mark.parametrize("words", [*VERBS.values(), "train ../new.json --cpu", "run-queue --cpu"])
def test_a_verb_that_may_start_no_thread_or_process_is_at_most_a_line_and_loses_no_job(
    server: ForkServer, laid_out: Path, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tempfile.TemporaryDirectory() as anybodys:  # pytest's own folders are only its user's
        folder = Path(anybodys) / "place"
        lay_out(folder, laid_out)
        before = jobs(folder)
        with monkeypatch.context() as there:
            there.chdir(folder)
            code, text = tried(server, words, ALONE, tmp_path)
        check(words, code, text, before, jobs(folder))
    if words == "logs a":
        assert "it was not started yet" in text
        return
    assert code == 0 or LACK in text, text
    assert code in ((0, 1) if words == "doctor" else (0, 3)), text
    assert code or words.split()[0] not in STARTING, text


@pytest.mark.skipif(os.geteuid() != 0 or sys.platform != "linux", reason="only root can be somebody who may do less")
def test_the_interrupt_by_which_openblas_ends_who_may_start_no_thread_is_a_line(
    server: ForkServer, tmp_path: Path
) -> None:
    as_when_numpy_is_imported = """
from accel_trainer import cli
cli.app = lambda: os.kill(os.getpid(), 2) or time.sleep(9)
"""
    script = ALONE.replace(FULL, f"import time{as_when_numpy_is_imported}cli.main()")
    code, text = tried(server, "preview a.json", script, tmp_path)
    assert (code, text.count("error: "), LACK in text) == (3, 1, True), text
    code, text = tried(server, "run-queue", script, tmp_path)  # what it does when it is interrupted counts
    assert code == 130, text


def test_train_says_in_a_line_that_there_is_no_room_for_its_log(server: ForkServer, tmp_path: Path) -> None:
    with own_disk(tmp_path / "disk", "nr_inodes=3") as disk:  # for its root, the run folder and one in that
        job, log = write_job(tmp_path / "a.json", model_dir=str(disk / "run")), tmp_path / "output"
        (code,) = server.script(FULL, ["train", str(job), "--cpu"], log, processes=1)
    assert code == 2
    assert log.read_text().splitlines() == [
        f"error: model_dir: cannot write to {disk}/run: No space left on device; "
        "the disk is full: the run goes on when that is over"
    ]
