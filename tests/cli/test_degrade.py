"""The verb `degrade`, as a user calls it."""

import json

import pytest
from PIL import Image
from typer.testing import CliRunner

from accel_trainer.cli import app
from accel_trainer.core.errors import UserError
from accel_trainer.degradations.registry import names_of_all


def degrade(*words):
    result = CliRunner().invoke(app, ["degrade", *map(str, words)], catch_exceptions=True)
    if isinstance(result.exception, UserError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def test_list_has_all_with_their_levels():
    rows = {row["name"]: row for row in json.loads(degrade("--list", "--json"))}
    assert list(rows) == names_of_all()
    assert rows["imagenet-c/fog"]["levels"] == ["1", "2", "3", "4", "5"]
    assert rows["noise/gaussian"]["neutral"] == "1"
    assert all(row["source"] for row in rows.values())
    assert len(degrade("--list", "geirhos", "blur").splitlines()) == 1 + 8 + 1


@pytest.mark.parametrize("words", [("--degrade", "blur", "geirhos/contrast"), ("blur", "geirhos/contrast")])
def test_a_set_of_the_named_levels_is_written(tmp_path, words):
    said = degrade(*words, "--levels", "none", "--dataset", "digits", "--size", "8", "--out", tmp_path / "set")
    assert "450 images under 2 conditions" in said
    assert len(list((tmp_path / "set" / "geirhos" / "contrast" / "none").rglob("*.png"))) == 450
    again = degrade(
        *words, "--levels", "none", "--dataset", "digits", "--size", "8", "--out", tmp_path / "set", "--json"
    )
    assert json.loads(again)["written"] == 0


def test_a_sheet_is_drawn_of_levels_as_they_are_published(tmp_path):
    degrade("geirhos/contrast", "--levels", "c05,0.3,none", "--dataset", "digits", "--sheet", tmp_path / "sheet.png")
    assert Image.open(tmp_path / "sheet.png").width == 1000


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "--out or a picture with --sheet"),
        (("--sheet", "a.png"), "either --images or --dataset"),
        (("imagenet-c/fog", "--levels", "7", "--dataset", "digits", "--sheet", "a.png"), "there are 1, 2, 3, 4, 5"),
        (("foggy", "--dataset", "digits", "--sheet", "a.png"), "no degradation 'foggy'"),
        (("occlusion", "--occluder-dir", "none", "--dataset", "digits", "--sheet", "a.png"), "occluder_dir.*no folder"),
        (("blur", "--images", "nothing", "--sheet", "a.png"), "nothing"),
    ],
)
def test_mistakes_are_a_line(tmp_path, monkeypatch, words, said):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=said) as error:
        degrade(*words)
    assert len(error.value.problems) == 1
    assert not (tmp_path / "a.png").exists()
