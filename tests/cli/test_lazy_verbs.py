"""Of the verbs only the one that is called is imported, and all the same all are known."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from helpers import COMMAND, write_job

from accel_trainer import cli
from accel_trainer.cli import app
from accel_trainer.cli.verbs import IMPORTED, MODULES


def modules_after(*words: str) -> set[str]:
    """The modules that are loaded when a verb has ended."""
    script = f"""
import atexit, sys
atexit.register(lambda: print(*sys.modules, file=sys.stderr))
sys.argv[1:] = {list(words)!r}
from accel_trainer.cli import main
main()
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    return set(ended.stderr.split())


def test_the_table_has_all_verbs_each_with_its_module() -> None:
    commands = typer.main.get_command(app).commands
    assert list(commands) == list(MODULES)
    assert {name: command.name for name, command in commands.items()} == {name: name for name in MODULES}
    assert IMPORTED.keys() == MODULES.keys()
    for name, module in MODULES.items():
        assert IMPORTED[name].registered_commands[0].callback.__module__ == f"accel_trainer.cli.{module}"


def test_no_module_has_a_verb_that_is_not_in_the_table() -> None:
    for path in Path(cli.__path__[0]).glob("*.py"):
        decorators = [
            ast.unparse(decorator)
            for function in ast.parse(path.read_text()).body
            if isinstance(function, ast.FunctionDef)
            for decorator in function.decorator_list
        ]
        verbs = [word for word in decorators if word.startswith("app.command(")]
        assert len(verbs) == list(MODULES.values()).count(path.stem), path


def test_a_verb_that_is_called_imports_no_other() -> None:
    loaded = modules_after("status", "--queue", ".")
    assert {name for name in set(MODULES.values()) if f"accel_trainer.cli.{name}" in loaded} == {"status"}


def test_the_hint_at_a_mistyped_verb_names_verbs_that_are_not_imported() -> None:
    ended = subprocess.run([*COMMAND, "run-qeue"], capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert "Did you mean 'run-queue'?" in ended.stderr


@pytest.mark.parametrize("incomplete", ["", "re"])
def test_completion_knows_all_verbs(incomplete: str) -> None:
    command = typer.main.get_command(app)
    found = command.shell_complete(command.context_class(command), incomplete)
    assert [item.value for item in found] == [name for name in MODULES if name.startswith(incomplete)]


def test_the_status_of_jobs_that_wait_loads_no_definition_of_a_job(tmp_path: Path) -> None:
    write_job(tmp_path / "a.json")
    write_job(tmp_path / "b.json", after=["a"], seed=1)
    loaded = modules_after("status", "--queue", str(tmp_path))
    assert "accel_trainer.queue.status_table" in loaded
    rooms = ("config.job", "config.parse", "run.status", "launch.command", "launch.nvidia", "queue.slurm", "api")
    assert not {f"accel_trainer.{room}" for room in rooms} & loaded
    assert not {"asyncio", "yaml", "rich"} & loaded


def test_before_it_starts_the_trainer_train_imports_nothing_of_a_queue_at_work(tmp_path: Path) -> None:
    write_job(tmp_path / "job.json", model_dir=str(tmp_path / "run"))
    script = f"""
import os, subprocess, sys
begin = subprocess.Popen.__init__
def note(self, command, *args, **kwargs):
    if "accel_trainer.workers.launch" in command:
        from accel_trainer.launch.accelerate_config import AccelerateConfig
        os.write(2, " ".join([*sys.modules, str(AccelerateConfig.__pydantic_complete__)]).encode())
        os._exit(0)
    begin(self, command, *args, **kwargs)
subprocess.Popen.__init__ = note
sys.argv[1:] = ["train", "--cpu", {str(tmp_path / "job.json")!r}]
from accel_trainer.cli import main
main()
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path, check=False)
    loaded = set(ended.stderr.split())
    assert "accel_trainer.launch.process_group" in loaded, ended.stdout + ended.stderr
    unused = ("queue.events", "queue.runner", "queue.scheduler", "queue.prewarm", "cli.event_lines")
    assert not {f"accel_trainer.{module}" for module in unused} & loaded
    assert not {"torch", "numpy", "yaml", "rich"} & loaded
    assert "False" in loaded, "the table of an accelerate config is made where there is one"
