"""The house: who may import whom, shown by imports that are planted in a copy of it."""

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import REPOSITORY
from rooms_contract import rooms, with_table

from accel_trainer.core.processes import Program

PACKAGE = REPOSITORY / "accel_trainer"


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The package and its contracts, to be changed."""
    without_caches = shutil.ignore_patterns("__pycache__")
    shutil.copytree(PACKAGE, tmp_path / "accel_trainer", ignore=without_caches)
    (tmp_path / "tests").mkdir()
    for name in ("pyproject.toml", "tests/rooms_contract.py"):
        shutil.copy(REPOSITORY / name, tmp_path / name)
    return tmp_path


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    """The contracts, checked as `make lint` does."""
    code = "import sys; sys.path.insert(0, '.'); from importlinter.cli import lint_imports_command as run; run()"
    words = [sys.executable, "-c", code, "--no-cache"]
    return subprocess.run(
        words, cwd=folder, env={**os.environ, "COLUMNS": "400"}, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    ("file", "line", "broken"),
    [
        ("training/loop.py", "from accel_trainer.queue import store", "'training' may not import 'queue'"),
        ("launch/command.py", "from accel_trainer.queue.store import QueueStore", "'launch' may not import 'queue'"),
        ("queue/store.py", "def later():\n    from accel_trainer.cli import app", "'queue' may not import 'cli'"),
        (
            "queue/store.py",
            "import accel_trainer.queue.runner",
            "accel_trainer.queue.store -> accel_trainer.queue.runner",
        ),
        (
            "data/decode.py",
            "import accel_trainer.data.views",
            "accel_trainer.data.decode -> accel_trainer.data.views",
        ),
        ("zoo/blocks.py", "import accel_trainer.zoo.blt", "accel_trainer.zoo.blocks -> accel_trainer.zoo.blt"),
        (
            "training/step.py",
            "import accel_trainer.training.loop",
            "accel_trainer.training.step -> accel_trainer.training.loop",
        ),
        ("core/text.py", "import accel_trainer.config", "'core' may not import 'config'"),
        ("report/compare.py", "import torch", "accel_trainer.report.compare -> torch"),
        ("attic/__init__.py", "import accel_trainer.core.text", "the table has no room 'attic'"),
    ],
)
def test_an_import_that_the_table_does_not_allow_breaks_the_contracts(copy, file, line, broken):
    path = copy / "accel_trainer" / file
    path.parent.mkdir(exist_ok=True)
    path.write_text((path.read_text() if path.exists() else "") + f"\n{line}\n")
    result = lint(copy)
    assert result.returncode == 1
    assert broken in result.stdout


def test_the_package_as_it_is_keeps_the_contracts(copy):
    result = lint(copy)
    assert result.returncode == 0, result.stdout


def test_every_package_of_the_house_has_a_line_in_the_table():
    assert {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists()} == set(rooms())


def test_the_page_on_internals_shows_the_table_of_today():
    page = (REPOSITORY / "docs" / "internals.md").read_text()
    assert page == with_table(page), "run `make docs`"


def test_modules_are_named_in_strings_only_as_programs_that_are_launched():
    """An import by string would go around the table."""
    named = {
        node.value
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.startswith("accel_trainer.")
    }
    modules = {name for name in named if (REPOSITORY / name.replace(".", "/")).with_suffix(".py").exists()}
    packages = {name for name in named if (REPOSITORY / name.replace(".", "/")).is_dir()}
    assert (modules | packages) - {f"{program}" for program in Program} == ALLOWED_STRINGS


# Where the bundled data set lies, beside its module; and a program that has its own name in its help.
ALLOWED_STRINGS = {"accel_trainer.data.sources"}


def test_programs_are_modules_of_the_room_that_nobody_imports():
    for program in Program:
        assert program.startswith("accel_trainer.workers.")
        assert (REPOSITORY / f"{program.replace('.', '/')}.py").is_file()
