"""`import accel_trainer`: cheap, and with all that is public."""

import ast
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

import accel_trainer
from accel_trainer.api import public


def test_importing_the_package_loads_nothing_else_of_it() -> None:
    code = "import accel_trainer, sys; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"pydantic", "torch", "numpy", "rich"} & set(loaded)
    assert not [name for name in loaded if name.startswith("accel_trainer.")]


def test_runs_and_queues_are_loaded_without_torch() -> None:
    code = "from accel_trainer import Job, Queue, load_run; import sys; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "torch" not in loaded


def test_editors_see_the_names_that_are_loaded() -> None:
    """What is imported for type checkers alone is what the package gives, and all of it is listed."""
    tree = ast.parse(Path(accel_trainer.__file__).read_text())
    (checked,) = [node for node in tree.body if isinstance(node, ast.If)]
    typed = [alias.name for node in checked.body if isinstance(node, ast.ImportFrom) for alias in node.names]
    assert sorted(typed) == public.__all__
    assert [*accel_trainer.__all__] == sorted([*typed, "__version__"])
    for name in accel_trainer.__all__:
        assert getattr(accel_trainer, name) is not None
        assert name in dir(accel_trainer)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = accel_trainer.nothing


def test_the_version_is_that_of_the_installed_package() -> None:
    assert accel_trainer.__version__ == version("accel-train")
    assert (Path(accel_trainer.__file__).parent / "py.typed").exists()
