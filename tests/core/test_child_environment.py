"""What of an environment reaches what is launched: by name, for each kind."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from dirty_shell import (
    ALLOCATION,
    HOW_TO_TRAIN,
    NUMERICS,
    OWN,
    PASSES,
    PYTHON,
    RANKS,
    SET_ASIDE,
    THREADS,
    TRACKERS,
    plant_shadows,
)
from helpers import REPOSITORY, dead_token

from accel_trainer.core import child_environment as environment
from accel_trainer.core import launched
from accel_trainer.core.child_environment import (
    SLURM,
    THREAD_COUNTS,
    child_environment,
    in_one_line,
    leftovers,
    numeric_variables,
    without_leftovers,
)
from accel_trainer.core.launched import GPU_VARIABLE, PROCESSES_VARIABLE, SET_ASIDE_VARIABLE, TOKEN_VARIABLE
from accel_trainer.core.lease import Owner
from accel_trainer.core.processes import Program, usable_cores

FAMILIES = [
    (environment.ACCELERATE, HOW_TO_TRAIN),
    (environment.LAUNCHER, RANKS),
    (environment.NUMERICS, NUMERICS),
    (environment.TRACKER, TRACKERS),
    (environment.PYTHON, PYTHON),
    (environment.OWN, OWN),
    (SLURM, ALLOCATION),
    (THREAD_COUNTS, THREADS),
]


@pytest.mark.parametrize(("family", "dirt"), FAMILIES, ids=[family.what for family, _ in FAMILIES])
def test_every_variable_of_a_kind_is_set_aside_and_named(family: environment.Family, dirt: dict[str, str]) -> None:
    assert [name for name in dirt if name not in family] == []
    assert leftovers(dirt, family) == sorted(dirt)
    made = child_environment(family, inherited={**dirt, "PATH": "/bin"})
    assert made["PATH"] == "/bin"
    assert not {name: value for name, value in dirt.items() if made.get(name) == value}
    named = made[SET_ASIDE_VARIABLE].split(",")
    assert named == sorted(dirt) or family is SLURM, "what a submission leaves behind is nothing to its jobs"


def test_what_is_the_users_to_say_passes() -> None:
    assert leftovers(PASSES, SLURM) == []
    made = child_environment(SLURM, inherited=PASSES)
    assert {name: made.get(name) for name in PASSES} == PASSES
    assert made[SET_ASIDE_VARIABLE] == ""


def test_numbers_of_threads_pass_to_what_computes_on_no_cpu() -> None:
    assert child_environment(inherited=THREADS).items() >= THREADS.items()


def test_what_was_made_before_passes_again_without_a_word() -> None:
    """A trainer starts helpers, and a job of Slurm its trainer."""
    once = child_environment(inherited={**SET_ASIDE, "PATH": "/bin"})
    assert child_environment(inherited=once) == once


def test_how_threads_wait_is_for_the_user_to_say_and_helpers_have_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"):
        assert name not in child_environment(inherited={})
        assert child_environment(inherited={name: "7"})[name] == "7"
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "8")
    made = environment.helper_environment()
    assert {made[name] for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")} == {"1"}


@pytest.mark.parametrize(
    ("given", "expected"),
    [("", None), (":/mine", "/mine"), ("/mine:", "/mine"), ("/a::/b", "/a:/b"), (".:/mine", ".:/mine"), ("::", None)],
)
def test_an_empty_entry_of_pythonpath_is_no_wish_for_the_current_folder(given: str, expected: str | None) -> None:
    assert child_environment(inherited={"PYTHONPATH": given}).get("PYTHONPATH") == expected


def test_a_checkout_without_an_installation_is_found_by_what_it_launches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(REPOSITORY), *sys.path])
    assert child_environment(inherited={"PYTHONPATH": "/mine"})["PYTHONPATH"] == "/mine"
    monkeypatch.setattr(environment, "_is_installed", lambda: False)
    made = child_environment(inherited={"PYTHONPATH": "/mine"})
    assert made["PYTHONPATH"] == f"/mine:{REPOSITORY}"


def test_no_other_code_makes_an_environment_from_its_own() -> None:
    sources = (REPOSITORY / "accel_trainer").rglob("*.py")
    inheriting = [path.name for path in sources if re.search(r"\*\*os\.environ|environ\.copy\(", path.read_text())]
    assert inheriting == []


def test_here_they_are_gone_for_a_while_but_for_what_a_launcher_says(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {**SET_ASIDE, "ACCELERATE_USE_CPU": "true"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv(PROCESSES_VARIABLE, raising=False)
    before = dict(os.environ)
    with without_leftovers():
        assert leftovers(os.environ) == sorted(PYTHON)
        assert {"RANK", "WANDB_RUN_ID", "ACCELERATE_USE_CPU"} <= set(environment.names_set_aside())
    assert dict(os.environ) == before
    with without_leftovers(joins_group=True):
        assert leftovers(os.environ) == sorted({*PYTHON, *RANKS, "ACCELERATE_USE_CPU"})
    monkeypatch.setenv(PROCESSES_VARIABLE, "2")
    monkeypatch.setenv(TOKEN_VARIABLE, Owner.new().token)
    with without_leftovers():
        assert leftovers(os.environ) == sorted({*PYTHON, *RANKS, "ACCELERATE_USE_CPU"})


@pytest.mark.parametrize("token", [None, "", "dead"])
def test_what_another_launch_has_left_is_believed_by_nobody(monkeypatch: pytest.MonkeyPatch, token: str | None) -> None:
    cores = usable_cores()
    left = {**OWN, SET_ASIDE_VARIABLE: "WANDB_NAME"}
    left |= {} if token is None else {TOKEN_VARIABLE: dead_token() if token == "dead" else token}
    for name, value in left.items():
        monkeypatch.setenv(name, value)
    assert usable_cores() == cores
    assert not {*OWN, TOKEN_VARIABLE} & child_environment().keys()
    before = dict(os.environ)
    for joins_group in (False, True):
        with without_leftovers(joins_group=joins_group):
            assert not {*OWN, TOKEN_VARIABLE} & os.environ.keys()
            assert environment.launched_processes() == 1
            assert usable_cores() == cores
            said = environment.names_set_aside()
            assert set(OWN) <= set(said)
            assert "WANDB_NAME" not in said
            os.environ[GPU_VARIABLE] = "1"  # as `train` in Python has it
            with without_leftovers():
                assert os.environ[GPU_VARIABLE] == "1"
                assert environment.names_set_aside() == said
    assert dict(os.environ) == before


def test_what_the_launch_of_a_process_has_told_it_is_believed_also_when_the_launcher_has_died(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(launched, "_is_gone_through", False)
    for name, value in {**OWN, SET_ASIDE_VARIABLE: "WANDB_NAME", TOKEN_VARIABLE: Owner.new().token}.items():
        monkeypatch.setenv(name, value)
    environment.begin_worker()
    monkeypatch.setenv(TOKEN_VARIABLE, dead_token())
    with without_leftovers():
        assert OWN.items() <= os.environ.items()
        assert OWN.items() <= child_environment().items(), "its helpers are found by the token, too"
        assert (environment.launched_processes(), usable_cores()) == (2, 1)
        assert environment.names_set_aside() == ["WANDB_NAME"]


@pytest.mark.parametrize("token", [None, "dead"])
def test_a_worker_that_is_started_by_hand_believes_its_own_launcher_only(
    monkeypatch: pytest.MonkeyPatch, token: str | None
) -> None:
    monkeypatch.setattr(launched, "_is_gone_through", False)
    left = {**OWN, "WORLD_SIZE": "3", "RANK": "1"}
    left |= {} if token is None else {TOKEN_VARIABLE: dead_token()}
    for name, value in left.items():
        monkeypatch.setenv(name, value)
    environment.begin_worker()
    assert (environment.launched_processes(), os.environ["RANK"]) == (3, "1")
    assert GPU_VARIABLE not in os.environ
    assert os.environ.get(TOKEN_VARIABLE) == left.get(TOKEN_VARIABLE)
    for name in (PROCESSES_VARIABLE, SET_ASIDE_VARIABLE):
        monkeypatch.delenv(name)


def test_what_may_change_numbers_is_recorded_and_no_secret() -> None:
    given = {
        **PASSES,
        "NCCL_ALGO": "Ring",
        "HIPBLASLT_ALLOW_TF32": "1",
        "ROCBLAS_LAYER": "1",
        "MIOPEN_FIND_MODE": "1",
        "OMP_NUM_THREADS": "2",
        "GLIBC_TUNABLES": "x",
        "CUDA_API_KEY": "secret",
    }
    found = numeric_variables(given)
    assert {"HIPBLASLT_ALLOW_TF32", "ROCBLAS_LAYER", "MIOPEN_FIND_MODE"} <= found.keys()
    assert {"NCCL_ALGO", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "LD_PRELOAD", "GLIBC_TUNABLES"} <= found.keys()
    assert "secret" not in found.values()


def test_names_are_given_in_one_line_and_an_allocation_by_how_they_begin() -> None:
    assert in_one_line(SET_ASIDE) == ", ".join(SET_ASIDE)
    number = len([name for name in ALLOCATION if name.startswith("SLURM_")])
    assert in_one_line([*ALLOCATION, "WANDB_NAME"]).startswith(f"WANDB_NAME, SLURM_* ({number}), SLURMD_* (1), ")


def test_a_program_of_ours_imports_nothing_of_the_current_folder(own_environment: Path) -> None:
    """Neither when it is launched, nor when somebody starts it with `python -m`."""
    plant_shadows(own_environment)
    launched = Program.VALIDATE.command("--help")
    by_hand = [sys.executable, "-m", "accel_trainer.workers.validate", "--help"]
    for command, variables in ((launched, child_environment()), (by_hand, None)):
        done = subprocess.run(command, env=variables, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    assert not (own_environment / "imported").exists()


@pytest.mark.parametrize(("value", "stays"), [(":4096:8", True), (":16:8", False)])
def test_what_the_launch_says_to_cublas_stays_in_what_it_has_launched(
    value: str, stays: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", value)
    with without_leftovers():
        assert os.environ.get("CUBLAS_WORKSPACE_CONFIG") == (value if stays else None)
        assert ("CUBLAS_WORKSPACE_CONFIG" in os.environ[SET_ASIDE_VARIABLE]) != stays
    assert "CUBLAS_WORKSPACE_CONFIG" not in child_environment(), "each launch says it anew"
