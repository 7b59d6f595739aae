"""What is left behind in a shell, and in its folder, changes nothing of what is trained there."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from dirty_shell import ALLOCATION, SET_ASIDE, THREADS, plant_shadows
from faults.site.injection import UNPLOTTED_VARIABLE
from helpers import REPOSITORY
from safetensors import safe_open
from tiny_runs import TINY, finish

from accel_trainer import Run, load_run

pytestmark = pytest.mark.slow
# Gradients are accumulated as the job says, on one process and on two; the second job's trainer starts before its turn.
JOBS: dict[str, dict[str, Any]] = {"one": {"gradient_accumulation": 2}, "two": {"num_processes": 2}}


def write(name: str, folder: str) -> Path:
    """A job into a folder."""
    path = Path(folder) / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({**TINY, "num_epochs": 2, **JOBS[name], "model_dir": f"runs/{name}"}))
    return path


def run_queue(cli: Any, **environment: str) -> Any:
    """Train the jobs in the folder one is in."""
    for name in JOBS:
        write(name, "training_queue")
    done = cli("run-queue", GLOO_SOCKET_IFNAME="lo", **environment)
    logs = "\n".join(path.read_text() for path in Path("training_queue").glob("logs/*.log"))
    assert done.returncode == 0, f"{done.stderr}\n{logs}"
    return done


@pytest.fixture
def clean(own_environment: Path, cli: Any, no_plots: None) -> Path:
    """Where both jobs were trained without a queue: the first in this process, the second in two of its own. Nobody has
    drawn their curves."""
    place = own_environment / "clean"
    place.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        for name in {*SET_ASIDE, *THREADS, *ALLOCATION} & os.environ.keys():
            patch.delenv(name)
        finish(Path("runs/one"), num_epochs=2, **JOBS["one"])
        known = {"PYTHONPATH": str(REPOSITORY / "tests/faults/site"), UNPLOTTED_VARIABLE: "1"}
        done = cli("train", write("two", "."), GLOO_SOCKET_IFNAME="lo", **known)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "set aside" not in done.stderr
    return place


def weights(run: Run) -> dict[str, list[Any]]:
    found = {}
    for name in ("0", "best", "final"):
        with safe_open(run.weights(name), "pt") as file:
            found |= {f"{name} {key}": file.get_tensor(key).tolist() for key in file.keys()}  # noqa: SIM118
    return found


def test_a_dirty_shell_and_folder_come_to_the_bits_of_clean_ones(
    own_environment: Path, clean: Path, cli: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant_shadows(own_environment)
    dirt = {name: value for name, value in {**SET_ASIDE, **THREADS}.items() if name != "PYTHONVERBOSE"}  # so long
    done = run_queue(cli, **dirt, **ALLOCATION)
    assert not (own_environment / "imported").exists()
    (line,) = [line for line in done.stderr.splitlines() if "set aside" in line]
    assert all(name in line for name in ("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "RANK", "ATEN_CPU_CAPABILITY"))
    for name in JOBS:
        run = load_run(f"runs/{name}")
        assert weights(run) == weights(load_run(clean / "runs" / name))
        log = (run.path / "log.txt").read_text()
        assert log.count("set aside from the environment: ") == 1
        (attempt,) = json.loads((run.path / "environment.json").read_text())["attempts"]
        assert attempt["variables_set_aside"] == sorted(dirt)
        assert "OMP_NUM_THREADS" in attempt["variables"]
        assert attempt["cpu_capability"] != "DEFAULT"
    _same_in_this_process(own_environment, clean, dirt, monkeypatch)


def _same_in_this_process(folder: Path, clean: Path, dirt: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in dirt.items():
            patch.setenv(name, value)
        before = dict(os.environ)
        run = finish(folder / "here", num_epochs=2, **JOBS["one"])
        assert dict(os.environ) == before
    assert weights(run) == weights(load_run(clean / "runs/one"))
    assert "ACCELERATE_GRADIENT_ACCUMULATION_STEPS" in (run.path / "log.txt").read_text()


@pytest.mark.usefixtures("no_plots", "unplotted")
def test_one_process_of_a_config_for_several_has_the_bits_of_an_ordinary_one(own_environment: Path, cli: Any) -> None:
    """`accelerate config` writes such a file on a machine with one GPU of several."""
    config = own_environment / "several.yaml"
    config.write_text("distributed_type: MULTI_GPU\nuse_cpu: true\nnum_processes: 1\n")
    Path("job.json").write_text(json.dumps({**TINY, "model_dir": "runs/several"}))
    done = cli("train", "job.json", "--config", config)
    assert done.returncode == 0, done.stderr
    assert weights(load_run("runs/several")) == weights(finish(own_environment / "plain"))
