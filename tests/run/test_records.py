import json
from pathlib import Path

import pytest

from accel_trainer.core.errors import UserError
from accel_trainer.run.folder import RunFolder
from accel_trainer.run.records import Origin, read_classes, read_origin, write_classes, write_origin


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
