"""The examples of docs/python.md, run one after the other as a reader would."""

import re
from typing import Any

from helpers import REPOSITORY


def test_the_examples_of_the_python_page_run_as_they_stand() -> None:
    text = (REPOSITORY / "docs/python.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", text, re.S)
    assert len(blocks) >= 6
    names: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block, "docs/python.md", "exec"), names)
    assert names["run"].status.state == "finished"
    assert [row.job for row in names["queue"].jobs()] == ["digits-0", "digits-1", "digits-2"]
    assert names["best"]["digits"] > 50


def test_the_example_of_the_readme_names_what_there_is() -> None:
    """It trains for minutes: its names and keywords are looked at, and nothing is run."""
    section = (REPOSITORY / "README.md").read_text().partition("## From Python")[2]
    (imported,) = re.findall(r"^from accel_trainer import (.*)$", section, re.M)[:1]
    import accel_trainer

    assert set(imported.split(", ")) <= set(accel_trainer.__all__)
    for attribute in re.findall(r"\brun\.(\w+)", section):
        assert hasattr(accel_trainer.Run, attribute), attribute
