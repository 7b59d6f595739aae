"""A JOB is a file, or the name of a job of the queue; mistakes name the line; a mistyped queue is no new folder."""

import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from faults.fork_server import ForkServer
from helpers import write_job

from accel_trainer.queue.store import QueueStore

Cli = Callable[..., subprocess.CompletedProcess[str]]
PROGRAM = [sys.executable, "-m", "accel_trainer.cli"]


# A shell completes by the name of a program.
PROGRAM_FILE = Path(sys.executable).with_name("accel-train")


def asked(words: str) -> dict[str, str]:
    """What a shell asks with."""
    about = {"COMP_WORDS": f"accel-train {words}", "COMP_CWORD": str(len(words.split(" ")))}
    return {"_ACCEL_TRAIN_COMPLETE": "complete_bash", **about}


def test_validate_and_sweep_take_a_job_of_the_queue(forked_cli: Cli, queue: QueueStore) -> None:
    write_job(Path("training_queue/held/a-job.json"), image_size=32)
    checked = forked_cli("validate", "a-job")
    assert (checked.returncode, checked.stderr) == (0, "")
    assert "training images" in checked.stdout
    swept = forked_cli("sweep", "a-job", "--set", "seed=1,2", "--out", "swept")
    assert (swept.returncode, swept.stderr) == (0, "")
    assert sorted(path.name for path in Path("swept").iterdir()) == ["a-job-seed1.json", "a-job-seed2.json"]
    wrong = forked_cli("train", "a-jbo")
    assert wrong.returncode == 2
    assert "did you mean 'a-job'?" in wrong.stderr


def test_a_mistake_names_its_line_in_the_file_or_in_its_base(forked_cli: Cli) -> None:
    Path("base.json").write_text('{\n  "architecture": "small_cnn",\n  "batch_size": 0\n}\n')
    Path("mine.json").write_text(
        '{\n  "base": "base.json",\n  "optimizer_args": {\n    "lrr": 1\n  },\n  "num_epoch": 3\n}\n'
    )
    for verb in ("validate", "add", "train", "show"):
        ended = forked_cli(verb, "mine.json")
        assert ended.returncode == 2, ended
        lines = ended.stderr.splitlines()
        assert [line.partition(": ")[2].partition(" ")[0] for line in lines if "num_epoch" in line] == ["mine.json:6:"]
        assert any(line.startswith("error: base.json:3: batch_size: 0 is not allowed") for line in lines), ended
    in_json = json.loads(forked_cli("validate", "--json", "mine.json").stdout)
    assert any(problem.startswith("mine.json:6: num_epoch:") for problem in in_json["problems"])


def test_a_job_with_a_base_is_added_as_one_that_stands_alone(cli: Cli) -> None:
    write_job(Path("base.json"), num_epochs=3, val_batch_size=32)
    Path("mine.json").write_text('{"base": "base.json", "num_epochs": 4, "val_batch_size": null}')
    assert cli("add", "mine.json").returncode == 0
    added = json.loads(Path("training_queue/mine.json").read_text())
    base = json.loads(Path("base.json").read_text())
    assert base.pop("val_batch_size") == 32
    assert added == {**base, "num_epochs": 4}
    assert "in the queue already, the same" in cli("add", "mine.json").stdout
    Path("base.json").unlink()
    assert cli("show", "mine").returncode == 0


def test_show_says_what_is_not_the_default(cli: Cli) -> None:
    Path("plain.json").write_text('{"architecture": "small_cnn"}')
    assert "not the default: nothing but the architecture" in cli("show", "plain.json").stderr
    Path("mine.json").write_text(
        '{"architecture": "small_cnn", "seed": 3, "optimizer_args": {"lr": 0.5}, "priority": 2}'
    )
    lines = cli("show", "mine.json").stderr.splitlines()
    assert lines[0] == "not the default: optimizer_args.lr 0.5, seed 3, priority 2"


def test_a_mistyped_queue_is_no_new_folder(forked_cli: Cli, queue: QueueStore) -> None:
    for words in (("run-queue",), ("run-queue", "--watch"), ("run-queue", "--dry-run"), ("status",)):
        refused = forked_cli(*words, "--queue", "training_qeue")
        assert refused.returncode == 3
        assert "there is no queue in training_qeue; did you mean 'training_queue'?" in refused.stderr
        assert not Path("training_qeue").exists()


@pytest.mark.parametrize(("answer", "code"), [(b"n\n", 3), (b"y\n", 0)])
def test_at_a_terminal_it_is_a_question(answer: bytes, code: int, queue: QueueStore) -> None:
    terminal, side = pty.openpty()
    with subprocess.Popen([*PROGRAM, "run-queue", "--queue", "other"], stdin=side, stdout=side, stderr=side) as asked:
        os.close(side)
        os.write(terminal, answer)
        said = b""
        try:
            while part := os.read(terminal, 4096):
                said += part
        except OSError:  # the other side is closed
            pass
        assert asked.wait(60) == code, said
    os.close(terminal)
    assert b"there is no queue in other" in said
    assert Path("other").exists() == (code == 0)


def test_a_shell_completes_jobs_files_and_runs(queue: QueueStore, server: ForkServer) -> None:
    def completed(words: str) -> list[str]:
        return server.command(
            [], before=f"import sys; sys.argv[0] = {str(PROGRAM_FILE)!r}\n", **asked(words)
        ).stdout.split()

    write_job(Path("training_queue/a-job.json"))
    write_job(Path("training_queue/held/another.json"))
    write_job(Path("folder/mine.json"))
    Path("folder/notes.txt").write_text("")
    write_job(Path("models/small_cnn/a-run/config.json"))
    environment = {**os.environ, **asked("logs a")}
    ended = subprocess.run([PROGRAM_FILE], env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert ended.stdout.split() == completed("logs a") == ["a-job", "another"]
    assert completed("hold --queue elsewhere a") == []
    assert completed("show a") == ["a-job", "another"]
    assert completed("show f") == ["folder/"]
    assert completed("validate folder/") == ["folder/mine.json"]
    assert completed("probe models/small_cnn/") == ["models/small_cnn/a-run"]
    assert completed("run") == ["run-queue"]
