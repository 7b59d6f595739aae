import json
import shlex
from pathlib import Path

import pytest

from accel_trainer import load_run
from accel_trainer.config import Job
from accel_trainer.core.errors import InvalidJob, UserError
from accel_trainer.run.folder import RunFolder
from accel_trainer.run.load import run_job
from accel_trainer.run.records import (
    Origin,
    read_classes,
    read_config,
    read_origin,
    write_classes,
    write_config,
    write_origin,
)


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path / "run")
    folder.create()
    return folder


def test_the_classes_of_a_run_are_read_in_the_order_of_its_logits(run: RunFolder) -> None:
    write_classes(run, ["cat", "dog"], [7, 3])
    assert read_classes(run) == ["cat", "dog"]
    assert json.loads(run.classes.read_text())[1] == {"label": 1, "class": "dog", "original_index": 3}
    run.classes.unlink()
    with pytest.raises(UserError, match="classes of the run cannot be read"):
        read_classes(run)


def test_an_origin_keeps_its_keys_and_is_empty_where_there_is_none(run: RunFolder) -> None:
    assert read_origin(run) == Origin()
    origin = Origin("123-4", 3, "params/003.safetensors")
    write_origin(run, origin)
    assert read_origin(run) == origin
    assert json.loads(run.origin.read_text()) == {
        "submission": "123-4",
        "epoch": 3,
        "weights": "params/003.safetensors",
    }


@pytest.mark.parametrize("architecture", ["cornet_s", "cornet_rt", "blt_bl", "small_cnn"])
def test_a_run_with_a_heads_width_of_old_has_head_units_now(run: RunFolder, architecture: str) -> None:
    old = {"architecture": architecture, "architecture_args": {"head_depth": 2, "head_width": 100}, "seed": 3}
    write_config(run, old)
    new = {**old, "architecture_args": {"head_depth": 2, "head_units": 100}}
    assert {key: read_config(run)[key] for key in old} == new
    assert run_job(run).architecture_args == {"head_depth": 2, "head_units": 100}


@pytest.mark.parametrize("architecture", ["cornet_s_plus", "cornet_s_custom", "my_lab.models:Net", "resnet18", 3])
def test_head_width_of_any_other_architecture_stays(run: RunFolder, architecture: object) -> None:
    config = {"architecture": architecture, "architecture_args": {"head_width": 3}}
    write_config(run, config)
    assert read_config(run)["architecture_args"] == {"head_width": 3}


def test_a_job_with_an_old_name_of_an_argument_is_told_the_new_one() -> None:
    with pytest.raises(
        InvalidJob, match=r"^architecture_args\.head_width: cornet_s calls this head_units now; rename.*grid"
    ):
        Job(architecture="cornet_s", architecture_args={"head_depth": 2, "head_width": 100})
    Job(architecture="cornet_s_plus", architecture_args={"head_width": 2})


@pytest.mark.parametrize("has_args", [True, False])
def test_a_run_of_other_code_is_named_as_such_with_what_to_do(run: RunFolder, has_args: bool) -> None:
    (run.params / "best_040.pt").write_bytes(b"")
    if has_args:
        (run.path / "args.json").write_text("{}")
    for read in (read_config, lambda run: load_run(run.path)):
        with pytest.raises(UserError, match="holds a run of other code, such as the older program") as caught:
            read(run)
        said = str(caught.value)
        assert "params/best_040.pt" in said
        assert f'"starting_params": "{run.path}"' in said
        assert (f"accel-train migrate {shlex.quote(str(run.path / 'args.json'))}" in said) == has_args


def test_an_empty_folder_is_no_run_folder(run: RunFolder) -> None:
    with pytest.raises(UserError, match=r"is not a run folder: it has no config\.json"):
        read_config(run)
