"""The page of the docs, followed from its top to its end as a reader would, with one run."""

import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import REPOSITORY
from typer.testing import CliRunner

from accel_trainer.cli import app

PAGE = (REPOSITORY / "docs/export.md").read_text()
# Commands, code in Python, and what a sentence says that the same is in Python.
SNIPPETS = re.compile(
    r"^    accel-train (?P<command>[^\n]*)$|^```python\n(?P<code>.*?)```|`(?P<words>run\.[^`\n]*)`", re.M | re.S
)


def test_what_the_page_of_exports_shows_runs_as_it_stands(
    make_run, image: Path, calls: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run("resnet18", image_size=32, name="models/resnet18/birds")
    shutil.copyfile(image, tmp_path / "image.png")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"run": run}
    kinds = []
    for snippet in SNIPPETS.finditer(PAGE):
        kinds.append(snippet.lastgroup)
        if snippet.lastgroup == "command":
            result = CliRunner().invoke(app, shlex.split(snippet["command"]))
            assert result.exit_code == 0, (snippet[0], result.output)
        else:
            exec(compile(snippet["code"] or snippet["words"], "docs/export.md", "exec"), names)
    assert kinds == ["command", "words", "code", "code", "command", "command"]
    with torch.inference_mode():
        assert torch.equal(names["logits"], run.model()(run.transform("image.png")[None]))
    assert [what for what, _ in calls] == ["create", "upload"]
    assert "license: cc-by-4.0" not in (tmp_path / "birds-resnet18/README.md").read_text()  # the second one has none


def test_each_format_of_the_page_is_one_of_the_verb() -> None:
    from accel_trainer.export.write import FORMATS

    shown = set(re.findall(r"`--format ([\w-]+)`", PAGE))
    assert shown == FORMATS.keys()
