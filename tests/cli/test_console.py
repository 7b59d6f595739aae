"""A terminal is never a reason to fail, and paths mean what a shell would make of them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from faults.fork_server import ForkServer
from helpers import write_job
from typer.testing import CliRunner

from accel_trainer.cli.app import app, system_error
from accel_trainer.config import read_job
from accel_trainer.core.errors import UserError
from accel_trainer.core.files import expand_path
from accel_trainer.data.open import open_images
from accel_trainer.queue.layout import QueuedJob, QueueUnusable
from accel_trainer.queue.store import QueueStore


def shell(command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """What a shell makes of a command line, in which `$A` is accel-train."""
    known = {**os.environ, "PYTHON": sys.executable, **environment}
    line = command.replace("$A", '"$PYTHON" -m accel_trainer.cli')
    return subprocess.run(["bash", "-o", "pipefail", "-c", line], capture_output=True, text=True, env=known)


# Command lines of accel-train, one after the other in one process: what is claimed is of how its Python was started.
ONE_BY_ONE = """
import sys
from accel_trainer.cli import main
codes = []
for line in sys.argv[1:]:
    sys.argv[1:] = line.split(" ")
    try:
        main()
    except SystemExit as end:
        codes.append(end.code)
sys.exit(max(codes))
"""


def one_by_one(*lines: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The result of several command lines; its code is the highest of theirs."""
    command = [sys.executable, "-c", ONE_BY_ONE, *lines]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment})


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", "<&- >&- 2>&-"])
def test_verbs_work_without_any_of_the_three_standard_streams(queue: QueueStore, closed: str) -> None:
    write_job(queue.folder / "a.json")
    result = shell(f"\"$PYTHON\" -c \"$LINES\" 'hold nothing' 'hold a' {closed}", LINES=ONE_BY_ONE)
    assert (result.returncode, result.stderr.count("\n")) == (2, "2>&-" not in closed), "there is no job 'nothing'"
    assert (queue.folder / "held/a.json").exists()
    result = shell(f"$A rm a {closed}")
    assert (result.returncode, result.stderr) == (0, "")
    assert not (queue.folder / "held/a.json").exists()


def test_who_stops_reading_ends_no_verb_before_its_work_is_done(queue: QueueStore) -> None:
    names = [f"job{number}" for number in range(20)]
    for name in names:
        write_job(queue.folder / f"{name}.json")
    result = shell(f"$A hold {' '.join(names)} | true")
    assert (result.returncode, result.stderr) == (0, "")
    assert len(list((queue.folder / "held").iterdir())) == 20


def test_output_that_a_full_disk_has_lost_is_one_line_and_no_success(queue: QueueStore) -> None:
    result = shell("$A status > /dev/full")
    assert result.returncode == 1
    assert result.stderr == "error: standard output: No space left on device\n"
    assert shell("$A run-queue > /dev/full").returncode == 0, "nothing of it is only on the terminal"


@pytest.mark.parametrize("environment", [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C"}])
def test_letters_that_a_terminal_lacks_are_written_out(queue: QueueStore, environment: dict[str, str]) -> None:
    write_job(queue.folder / "größe雪.json")
    result = one_by_one("status", "hold größe雪", "logs größe雪", "hold größe", **environment)
    assert result.returncode == 2, "there is no größe"
    assert "Traceback" not in result.stderr
    assert (queue.folder / "held/größe雪.json").exists()


@pytest.mark.parametrize(
    "locale", [{"LC_ALL": "C", "PYTHONUTF8": "0"}, {"LC_ALL": "POSIX", "PYTHONCOERCECLOCALE": "0"}]
)
def test_a_job_has_the_same_name_in_every_locale(queue: QueueStore, locale: dict[str, str]) -> None:
    write_job(queue.folder / "größe雪.json")
    verbs = ["hold", "release", "cancel", "retry"]
    result = one_by_one(*(f"{verb} größe雪" for verb in verbs), **locale)
    assert (result.returncode, result.stderr) == (0, "")
    assert (queue.folder / "größe雪.json").exists()
    assert "another job" not in result.stdout


def test_a_name_that_a_job_may_not_have_is_replaced_with_a_true_reason(queue: QueueStore) -> None:
    write_job(queue.folder / f"{os.fsdecode(b'b' + bytes([255]))}.json")
    write_job(queue.folder / "a\tb.json")
    said = one_by_one(f"hold {os.fsdecode(b'b' + bytes([255]))}", "hold a\tb").stdout
    for name in ("b_", "a_b"):
        assert f"{name}': a job may not have the name that it had" in said
    assert {path.name for path in (queue.folder / "held").iterdir()} == {"b_.json", "a_b.json"}


def test_a_path_has_its_variables_and_home_expanded_unless_a_file_has_that_name(monkeypatch) -> None:
    monkeypatch.setenv("SCRATCH", "/scratch/me")
    monkeypatch.setenv("HOME", "/home/me")
    assert expand_path("~/q") == Path("/home/me/q")
    assert expand_path("$SCRATCH/q") == expand_path("${SCRATCH}/q") == Path("/scratch/me/q")
    assert expand_path("~nobody_of_this_name/q") == Path("~nobody_of_this_name/q")
    assert expand_path("costs 5$") == Path("costs 5$")
    Path("$SCRATCH").mkdir()
    assert expand_path("$SCRATCH") == Path("$SCRATCH")
    with pytest.raises(UserError, match="variable NOWHERE is not set"):
        expand_path("$NOWHERE/q")


def test_without_a_home_folder_a_path_in_it_is_one_line(monkeypatch) -> None:
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("pwd.getpwuid", lambda uid: {}[uid])
    with pytest.raises(UserError, match="~/q: there is no home folder; set HOME"):
        expand_path("~/q")


def test_every_path_of_every_verb_means_what_a_shell_makes_of_it(cli, monkeypatch) -> None:
    place = Path("scratch").absolute()
    QueueStore(place / "q").create()
    write_job(place / "job.json")
    monkeypatch.setenv("PLACE", str(place))
    assert cli("status", "--queue=$PLACE/q").stdout == f"no jobs in {place}/q\n"
    assert '"dataset": "digits"' in cli("show", "${PLACE}/job.json").stdout
    assert cli("schema", "--output", "$PLACE/schema.json").returncode == 0
    assert (place / "schema.json").exists()
    result = cli("status", "--queue=$NOWHERE/q")
    assert (result.returncode, result.stderr) == (
        2,
        "error: $NOWHERE/q: the variable NOWHERE is not set; set it, or give the whole path\n",
    )


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["run-queue", "--queue="], "--queue"),
        (["status", "--queue", ""], "--queue"),
        (["evaluate", "run", "--data-root="], "--data-root"),
        (["validate", "a.json", ""], "a path"),
        (["compare", ""], "a path"),
    ],
)
def test_an_empty_path_is_refused(forked_cli, words: list[str], what: str) -> None:
    """It would be the current folder, whose files a runner would take for jobs."""
    write_job(Path("mine.json"))
    result = forked_cli(*words)
    assert (result.returncode, result.stderr) == (2, f"error: {what} is empty: is a variable of the shell not set?\n")
    assert Path("mine.json").exists()


def test_an_error_of_the_system_below_the_queue_means_that_the_queue_cannot_be_used() -> None:
    queue = Path("training_queue")
    inside = system_error(PermissionError(13, "Permission denied", str(queue / "done/a.json")), queue)
    assert isinstance(inside, QueueUnusable)
    assert str(inside).endswith("training_queue cannot be used: training_queue/done/a.json: Permission denied")
    outside = system_error(PermissionError(13, "Permission denied", "/elsewhere"), queue)
    assert not isinstance(outside, QueueUnusable)
    assert "ulimit -n" in str(system_error(OSError(24, "Too many open files"), None))


# Root without what lets it read, write and own the files of others, also in what it starts.
AS_STRANGER = """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
header, sets = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
assert libc.capget(header, sets) == 0
for capability in (1, 2, 3):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_FOWNER
    assert libc.prctl(24, capability, 0, 0, 0) == 0  # PR_CAPBSET_DROP
    for number in range(3):  # effective, permitted and inheritable
        sets[number] &= ~(1 << capability)
assert libc.capset(header, sets) == 0
"""


@pytest.mark.skipif(os.getuid() != 0 or sys.platform != "linux", reason="only root can be somebody else")
def test_in_a_queue_of_somebody_else_every_verb_is_one_line(queue: QueueStore, server: ForkServer) -> None:
    """Somebody who may read all of it, and write nothing."""
    for name in ("a", "held/h", "failed/f", "done/d", "running/r@elsewhere.x_1-2-3-4"):
        write_job(queue.folder / f"{name}.json")
    queue.paths.paused.mkdir()
    (queue.paths.paused / "all.json").write_text('{"host": null, "by": "x", "since": 1.0}')
    for path in (queue.folder, *queue.folder.rglob("*")):
        os.chown(path, 65534, 65534)
    verbs = ["hold a", "release h", "cancel a", "cancel r --no-wait", "retry f", "rm d", "move a --to other", "resume"]
    for verb in [*verbs, "pause", "run-queue", "run-queue --watch"]:
        result = server.command(verb.split(), before=AS_STRANGER)
        assert result.returncode == 3, verb
        assert len(result.stderr.splitlines()) == 1, verb
        assert result.stderr.startswith("error: "), verb
    for verb in ("status", "reclaim", "wait d", "run-queue --dry-run"):
        assert server.command(verb.split(), before=AS_STRANGER).stderr == "", verb


def test_one_job_that_cannot_be_moved_does_not_keep_a_verb_from_the_others(queue: QueueStore, monkeypatch) -> None:
    for name in ("a", "b"):
        write_job(queue.folder / f"{name}.json")
    hold = QueueStore.hold

    def refuse(store: QueueStore, job: QueuedJob) -> Path:
        if job.name == "a":
            raise QueueUnusable(f"{job.path} cannot be moved: Operation not permitted")
        return hold(store, job)

    monkeypatch.setattr(QueueStore, "hold", refuse)
    result = CliRunner().invoke(app, ["hold", "a", "b"])
    assert (result.exit_code, result.stdout) == (2, "b: held\n")
    assert "a.json cannot be moved: Operation not permitted" in result.stderr


def test_a_job_on_bundled_images_needs_no_home_folder(monkeypatch) -> None:
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("pwd.getpwuid", lambda uid: {}[uid])
    job = read_job(write_job(Path("a.json")))
    assert open_images(job)
