"""What the command line says of itself, for 80 columns."""

import re
import shlex
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import typer
from helpers import write_job
from typer.testing import CliRunner

from accel_trainer import __version__
from accel_trainer.cli import app
from accel_trainer.cli.examples import EXAMPLES
from accel_trainer.cli.verbs import GROUPS, LINE, MODULES
from accel_trainer.core.errors import UserError
from accel_trainer.queue.store import QueueStore


def lines_of(*words: str) -> list[str]:
    result = CliRunner().invoke(app, [*words], env={"COLUMNS": "80", "TERMINAL_WIDTH": "80"})
    assert result.exit_code == 0, result.output
    return result.output.splitlines()


def test_the_verbs_are_in_groups_in_the_order_of_use_with_a_line_each() -> None:
    lines = lines_of("--help")
    titles = [match[1] for line in lines if (match := re.match(r"╭─ (\w+) ─", line))]
    assert titles == ["Options", *GROUPS]
    named = [line.split()[1] for line in lines if re.match(r"│ [a-z-]+  ", line)]
    assert [name for name in named if not name.startswith("--")] == list(MODULES)
    for verb, entry in ((verb, entry) for verbs in GROUPS.values() for verb, entry in verbs.items()):
        assert len(entry.line) <= LINE, verb
        assert any(entry.line in line for line in lines), verb
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize("verb", [[], *([name] for name in MODULES)])
def test_the_help_says_what_one_types_and_no_types_of_python(verb: list[str]) -> None:
    lines = lines_of(*verb, "--help")
    assert not [line for line in lines if re.search(r"<(list|str|path|int|float|bool)|[{}]", line)]
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize("verb", MODULES)
def test_each_verb_has_examples_that_it_takes(verb: str) -> None:
    assert EXAMPLES[verb]
    lines = lines_of(verb, "--help")
    command: Any = typer.main.get_command(app)
    for example in EXAMPLES[verb]:
        assert f"   accel-train {example}" in lines
        first, *words = shlex.split(example)
        assert first == verb
        command.commands[verb].make_context(verb, words)  # raises for a flag or a word that it does not take


def test_the_version_comes_with_those_of_what_trains() -> None:
    (line,) = lines_of("--version")
    assert line.startswith(f"accel-train {__version__} (torch {version('torch').split('+')[0]}")
    assert f"accelerate {version('accelerate')}; Python 3." in line


@pytest.mark.parametrize("verb", ["show", "preview"])
@pytest.mark.parametrize("state", ["", "held/", "done/"])
def test_a_job_is_named_by_its_file_or_as_in_the_queue(verb: str, state: str, own_environment: Path) -> None:
    QueueStore(Path("training_queue")).create()
    write_job(Path(f"training_queue/{state}a-job.json"), image_size=32)
    for word in ("a-job", f"training_queue/{state}a-job.json"):
        result = CliRunner().invoke(app, [verb, word])
        assert result.exit_code == 0, (result.output, result.exception)
    error = CliRunner().invoke(app, [verb, "a-jbo"]).exception
    assert isinstance(error, UserError)
    assert "did you mean 'a-job'?" in error.problems[0]
