"""What the documents say is what the code does."""

import json
import re

import pytest
from helpers import REPOSITORY

from accel_trainer.cli import app
from accel_trainer.config import read_job
from accel_trainer.config.reference import json_schema, with_table

DOCUMENTS = [REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md", *sorted((REPOSITORY / "docs").glob("*.md"))]


def test_the_readmes_parameter_table_is_current():
    text = (REPOSITORY / "README.md").read_text()
    assert text == with_table(text), "run `make docs`"


def test_the_published_schema_is_current():
    assert json.loads((REPOSITORY / "docs/job.schema.json").read_text()) == json_schema(), "run `make docs`"


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_every_verb_and_link_in_the_documents_exists(path):
    text = path.read_text()
    verbs = {command.name or command.callback.__name__ for command in app.registered_commands}
    assert set(re.findall(r"accel-train ([a-z]+(?:-[a-z]+)*)", text)) <= verbs
    for link in re.findall(r"\]\(([^)#]+)\)", text):
        assert link.startswith("https://") or (path.parent / link).exists(), link


@pytest.mark.parametrize("target", sorted(set(re.findall(r"^    make (\w+)", DOCUMENTS[0].read_text(), re.M))))
def test_every_make_target_of_the_readme_exists(target):
    assert re.search(rf"^{target}:", (REPOSITORY / "Makefile").read_text(), re.M)


def test_the_readmes_job_file_is_a_job(tmp_path):
    (block,) = re.findall(r"```json\n(.*?)```", (REPOSITORY / "README.md").read_text(), re.S)
    path = tmp_path / "resnet18-digits.json"
    path.write_text(block)
    assert read_job(path).architecture == "resnet18"
