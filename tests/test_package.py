"""The wheel and the sdist, made of a copy of the tracked files; the wheel is used outside a checkout."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from faults.site.injection import UNCHECKED_VARIABLE
from helpers import REPOSITORY

from accel_trainer import __version__
from accel_trainer.api.new_folder import EXAMPLES
from accel_trainer.cli.verbs import MODULES

pytestmark = pytest.mark.slow
# Of an installed package, without starting Python for each: every verb's help, and what comes before there are jobs.
FIRST_WORDS = """
import sys
from typer.testing import CliRunner
import accel_trainer
from accel_trainer.cli import app
assert accel_trainer.__file__.startswith(sys.prefix), accel_trainer.__file__
def said(*words):
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, (words, result.output)
    return result.output
for verb in sys.argv[1:]:
    assert "Usage" in said(verb, "--help"), verb
said("init", ".", "--example")
print(said("schema"))
"""


def call(*words: object, cwd: Path, **environment: str) -> str:
    """What a program prints, which has to succeed."""
    variables = {**{name: value for name, value in os.environ.items() if name != "PYTHONPATH"}, **environment}
    result = subprocess.run([*map(str, words)], cwd=cwd, env=variables, capture_output=True, text=True)
    assert result.returncode == 0, f"{words}\n{result.stdout}\n{result.stderr}"
    return result.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A wheel and an sdist, of which the wheel is made."""
    folder = tmp_path_factory.mktemp("package")
    checkout = folder / "checkout"
    for name in call("git", "ls-files", "-z", cwd=REPOSITORY).rstrip("\0").split("\0"):
        if (REPOSITORY / name).is_symlink() or (REPOSITORY / name).exists():
            (checkout / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPOSITORY / name, checkout / name, follow_symlinks=False)
    call(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder / "dist", checkout, cwd=folder)
    (wheel,), (sdist,) = (folder / "dist").glob("*.whl"), (folder / "dist").glob("*.tar.gz")
    return wheel, sdist


def test_both_are_as_a_registry_wants_them(built, tmp_path):
    assert call(sys.executable, "-m", "twine", "check", "--strict", *built, cwd=tmp_path).count("PASSED") == 2


def test_both_have_what_the_program_reads_and_nothing_of_the_checkout(built):
    wheel, sdist = built
    examples = [
        f"accel_trainer/api/examples/{path.name}" for path in (REPOSITORY / "training_queue/examples").iterdir()
    ]
    configs = [
        f"accel_trainer/launch/accelerate_configs/{p.name}" for p in (REPOSITORY / "accelerate_configs").iterdir()
    ]
    data = [*examples, *configs, "accel_trainer/py.typed", "accel_trainer/launch/accelerate.yaml"]
    data += ["accel_trainer/data/sources/digits.npz", "accel_trainer/data/native/kernel.c"]
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (about,) = [name for name in names if name.endswith("/METADATA")]
        metadata = archive.read(about).decode()
    assert names >= {*data}
    assert {name.partition("/")[0] for name in names} == {"accel_trainer", f"accel_train-{__version__}.dist-info"}
    assert any(name.endswith("licenses/LICENSE") for name in names)
    extras = {line.removeprefix("Provides-Extra: ") for line in metadata.splitlines() if line.startswith("Provides-Ex")}
    assert extras >= {"dev", "docs", "notebook", "probe", "tensorboard", "test", "timm"}
    with tarfile.open(sdist) as archive:
        members = {member.name.partition("/")[2]: member for member in archive.getmembers()}
    assert members.keys() >= {
        *data,
        "setup.py",
        "pyproject.toml",
        "README.md",
        "LICENSE",
        "accel_trainer/data/native/kernel.h",
    }
    assert all(members[name].isfile() for name in data), "no links, which another system may not have"


@pytest.fixture
def installed(built, tmp_path) -> Callable[..., str]:
    """Calls a program of an environment that has the wheel, and no checkout; of the rest of the tests' packages."""
    environment = tmp_path / "environment"
    call(sys.executable, "-m", "venv", "--without-pip", environment, cwd=tmp_path)
    python = environment / "bin/python"
    packages = Path(call(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=tmp_path).strip())
    # What this folder's own .pth files add, as that of an editable installation, is not added by this.
    (packages / "of_the_tests.pth").write_text(sysconfig.get_path("purelib") + "\n")
    call(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", built[0], cwd=tmp_path)
    (tmp_path / "elsewhere").mkdir()

    def run(program: str, *words: object, **variables: str) -> str:
        place = tmp_path / "elsewhere"
        return call(environment / "bin" / program, *words, cwd=place, WANDB_MODE="offline", **variables)

    return run


def test_the_wheel_does_all_outside_a_checkout(installed, tmp_path):
    assert installed("accel-train", "--version").startswith(f"accel-train {__version__} ")
    schema = json.loads(installed("python", "-c", FIRST_WORDS, *MODULES))
    assert schema["title"] == "accel-train job"
    assert "parameters" in installed("accel-train", "validate", *EXAMPLES)
    folder = tmp_path / "elsewhere"
    job = {**json.loads((folder / EXAMPLES[0]).read_text()), "class_subset": [0, 1], "num_epochs": 1, "trackers": []}
    (folder / "tiny.json").write_text(json.dumps({**job, "scheduler": None, "scheduler_args": None}))
    installed("accel-train", "add", "tiny.json")
    assert "--num_processes 2" in installed("accel-train", "run-queue", "--dry-run", "--config", "multi_cpu.yaml")
    unchecked = {"PYTHONPATH": str(REPOSITORY / "tests/faults/site"), UNCHECKED_VARIABLE: "1"}  # `add` has checked it
    installed("accel-train", "run-queue", "--cpu", **unchecked)
    (row,) = json.loads(installed("accel-train", "compare", "models", "--json"))
    assert (row["job"], row["state"]) == ("tiny", "finished")


def test_without_a_compiler_the_sdist_installs_without_the_kernel(built, tmp_path):
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index", built[1]]
    call(*build, cwd=tmp_path, CC="/bin/false")
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        assert not [name for name in archive.namelist() if name.endswith(".so")]
    if shutil.which("cc") or shutil.which("gcc"):
        with zipfile.ZipFile(built[0]) as archive:
            assert [name for name in archive.namelist() if name.endswith(".so")]
