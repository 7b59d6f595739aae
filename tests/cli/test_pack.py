"""The verb that packs, as it is typed."""

import json
from pathlib import Path

import numpy as np
import pytest
from helpers import write_job
from typer.testing import CliRunner

from accel_trainer.cli import app
from accel_trainer.core.errors import UserError
from accel_trainer.data.pack.format import open_pack
from accel_trainer.data.sources.digits import Digits


def typed(*words: str, code: int = 0) -> str:
    result = CliRunner().invoke(app, ["pack", *words])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result.output


def test_a_pack_is_written_below_the_data_root_with_its_dataset_name(cli) -> None:
    output = typed("digits", "--data-root", "sets")
    folder = Path("sets/digits-256.pack").absolute()
    assert output == (
        f"{folder}: 1,347 training and 450 validation images, 0.4 MB\n"
        f'in a job: "dataset": "digits-256.pack", "data_root": "{folder.parent}"\n'
    )
    digits = Digits("val")
    assert (open_pack(folder).val.read(3) == digits.read(3)).all()
    named = json.loads("{" + output.partition("in a job: ")[2] + "}")
    validated = cli("validate", write_job(Path("job.json"), **named))
    assert "10 classes, 1,347 training images" in validated.stdout


@pytest.mark.parametrize(
    ("words", "place"),
    [
        (("digits",), "home/Datasets/digits-256.pack"),
        (("digits", "--size", "4", "--format", "jpeg"), "home/Datasets/digits-4-jpeg.pack"),
        (("digits", "--output", "mine"), "work/mine"),
        (("digits-8.pack",), "home/Datasets/digits-8-256.pack"),
    ],
)
def test_the_folder_of_a_pack_follows_from_its_options(tmp_path: Path, words: tuple[str, ...], place: str) -> None:
    typed("digits", "--size", "8")
    typed(*words)
    assert len(open_pack(tmp_path / place).train.labels) == 1347


def test_the_same_command_again_finds_all_done_and_another_is_refused() -> None:
    assert typed("digits", "--size", "8") == typed("digits", "--size", "8")
    with pytest.raises(UserError, match="is a pack of size 8, raw; delete it, or choose another `output`"):
        typed("digits", "--output", str(Path("~/Datasets/digits-8.pack").expanduser()))


def test_a_damaged_pack_is_reported_in_one_line() -> None:
    typed("digits", "--output", "mine")
    assert typed("--verify", "mine").startswith("mine: sound: 1,347 training")
    pixels = Path("mine/train.pixels")
    content = np.fromfile(pixels, np.uint8)
    content[1000] ^= 1
    content.tofile(pixels)
    assert "mine: damaged images: digits train 4; delete the pack and pack again" in typed("--verify", "mine", code=1)


def test_what_is_no_pack_or_no_data_set_is_one_line(cli) -> None:
    for words, told in ((("nothing",), "no folder"), (("--verify", "nothing"), "is no pack: it has no pack.json")):
        result = cli("pack", *words)
        assert result.returncode == 2
        (line,) = result.stderr.splitlines()
        assert line.startswith("error: ")
        assert told in line
