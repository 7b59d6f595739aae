"""Every verb on a disk that is full, and with few files that may be open: a line that says so, and no job is lost."""

import subprocess
from collections import Counter
from pathlib import Path

import pytest
import typer
from faults.fork_server import ForkServer
from helpers import own_disk, write_job

from accel_trainer.cli import app
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
    "validate": "validate training_queue/a.json",
    "show": "show training_queue/a.json",
    "schema": "schema --output schema.json",
    "models": "models --family small",
    "preview": "preview training_queue/a.json --out sheet.png",
    "make-occluders": "make-occluders occluders --number 2 --size 32",
    "add": "add ../new.json",
    "migrate": "migrate old.json",
    "pack": "pack digits --output packed",
    "compare": "compare run",
    "run-queue": "run-queue --dry-run",
    "sweep": "sweep ../new.json --set batch_size=32,64",
    "status": "status",
    "logs": "logs a",
    "wait": "wait d",
    "evaluate": "evaluate run",
}
# They take long: doctor tells what is wrong in a line for each thing, and the others start trainers, of which
# tests/faults/test_full_disk.py has some on full disks.
NOT_TRIED = {"doctor", "train", "profile"}
# Besides standard input, output and errors; the modules of Python and torch are read before.
FEW = (1, 3)
LIMITED = """
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, ({most}, {most}))
from accel_trainer.cli import main
main()
"""
FULL = "from accel_trainer.cli import main; main()"


def test_every_verb_is_tried() -> None:
    assert set(typer.main.get_command(app).commands) == VERBS.keys() | NOT_TRIED


def lay_out(folder: Path) -> None:
    """A queue with a job in every state that a verb takes one from, and what other verbs read."""
    queue = QueueStore(folder / "training_queue")
    queue.create()
    for number, name in enumerate(("a", "held/h", "failed/f", "done/d")):
        write_job(queue.folder / f"{name}.json", model_dir="models", seed=number)
    write_job(folder / "old.json", seed=8)
    for place in (folder.parent / "other", folder / "run"):
        place.mkdir()


def jobs(folder: Path) -> Counter[str]:
    """What is in the job files of both queues, however they are named."""
    found = [*folder.rglob("training_queue/**/*.json"), *folder.parent.glob("other/**/*.json")]
    return Counter(path.read_text() for path in found if path.parent.name in ("training_queue", "other", *STATES))


STATES = ("running", "held", "failed", "done")


def tried(server: ForkServer, verb: str, script: str, tmp_path: Path) -> tuple[int, str]:
    log = tmp_path / "output"
    (code,) = server.script(script, VERBS[verb].split(), log, processes=1)
    return code, log.read_text()


def check(verb: str, code: int, text: str, before: Counter[str], after: Counter[str]) -> None:
    assert "Traceback" not in text, text
    errors = [line for line in text.splitlines() if line.startswith("error: ")]
    assert code in (0, 1, 2, 3), text
    assert len(errors) <= 1, text
    assert (code == 0) == (errors == []), text
    lost = before - after
    assert not lost or (verb == "rm" and code == 0), (lost, text)


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_on_a_full_disk_is_at_most_a_line_and_loses_no_job(
    server: ForkServer, verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_job(tmp_path / "new.json", seed=9)
    with own_disk(tmp_path / "disk", "size=2m") as disk:
        lay_out(disk)
        subprocess.run(["dd", "if=/dev/zero", f"of={disk}/rest", "bs=4k"], capture_output=True)
        before = jobs(disk)
        with monkeypatch.context() as there:
            there.chdir(disk)
            code, text = tried(server, verb, FULL, tmp_path)
        check(verb, code, text, before, jobs(disk))


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("few", FEW)
def test_a_verb_with_few_open_files_is_at_most_a_line_and_loses_no_job(
    server: ForkServer, verb: str, few: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_job(tmp_path / "new.json", seed=9)
    folder = tmp_path / "place"
    folder.mkdir()
    lay_out(folder)
    monkeypatch.chdir(folder)
    before = jobs(folder)
    code, text = tried(server, verb, LIMITED.format(most=3 + few), tmp_path)
    check(verb, code, text, before, jobs(folder))
