"""What the documents say is what the code does."""

import json
import re
import tomllib

import numpy as np
import pytest
import typer
import yaml
from error_messages import HERE, PARTS, messages
from helpers import REPOSITORY
from PIL import Image

import accel_trainer
from accel_trainer.api.known_names import known_names
from accel_trainer.cli import app
from accel_trainer.config import read_queue_job
from accel_trainer.config.schema import json_schema, with_table

PICTURES = REPOSITORY / "docs/pictures"
DOCUMENTS = [REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md", *sorted((REPOSITORY / "docs").glob("*.md"))]


def test_the_table_of_every_parameter_is_current():
    text = (REPOSITORY / "docs/parameters.md").read_text()
    assert text == with_table(text), "run `make docs`"


def test_the_published_schema_of_jobs_is_current():
    published = json.loads((REPOSITORY / "docs/job.schema.json").read_text())
    parameters = published["$defs"]["Training"]["properties"]
    names = {name: about["examples"] for name, about in parameters.items() if "examples" in about}
    assert published == json_schema(names), "run `make docs`"
    assert names.keys() == known_names().keys()
    assert {"resnet18", "cornet_s"} <= set(names["architecture"])


def test_the_readme_is_short_and_begins_with_two_commands():
    text = DOCUMENTS[0].read_text()
    assert len(text.splitlines()) < 150
    assert re.findall(r"^    make (\w+)", text, re.M) == ["demo", "test"]


def test_every_message_of_the_program_is_found_with_its_cure():
    found = messages()
    said = {message.text: message.cure for those in found.values() for message in those}
    assert len(said) > 500
    assert said["no permission to write in …"] == "chmod u+rwx …, or ask its owner"  # a fix of the doctor
    assert said["is there already, and nothing is replaced"] == "name another folder"  # a hint of an error
    assert said["--gpus: … is not a list of different numbers such as 0,1"] == ""
    missing = found.keys() - {"doctor", *PARTS}
    assert not missing, "a part of the program has no section in docs/errors.md"
    assert HERE in (REPOSITORY / "docs/errors.md").read_text()


def test_the_reference_of_the_python_api_has_what_the_package_gives():
    listed = set(re.findall(r"^::: accel_trainer\.[\w.]+\.(\w+)$", (REPOSITORY / "docs/api.md").read_text(), re.M))
    assert {*accel_trainer.__all__} - {"__version__"} <= listed, "add them to docs/api.md"


def test_every_page_is_in_the_navigation_of_the_site():
    listed = set(re.findall(r": (\S+\.md)$", (REPOSITORY / "mkdocs.yml").read_text(), re.M))
    missing = {path.name for path in (REPOSITORY / "docs").glob("*.md")} - listed
    assert not missing, "add them to nav in mkdocs.yml"


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_every_verb_and_link_in_the_documents_exists(path):
    text = path.read_text()
    verbs = typer.main.get_command(app).commands.keys()
    assert set(re.findall(r"accel-train ([a-z]+(?:-[a-z]+)*)", text)) <= verbs
    for link in re.findall(r"\]\(([^)#]+)\)", text):
        assert link.startswith("https://") or (path.parent / link).exists(), link


@pytest.mark.parametrize("target", sorted(set(re.findall(r"^    make (\w+)", DOCUMENTS[0].read_text(), re.M))))
def test_every_make_target_of_the_readme_exists(target):
    assert re.search(rf"^{target}:", (REPOSITORY / "Makefile").read_text(), re.M)


def test_the_job_files_in_the_documents_are_jobs(tmp_path):
    blocks = [block for path in DOCUMENTS for block in re.findall(r"```json\n(.*?)```", path.read_text(), re.S)]
    assert len(blocks) >= 6
    for block in blocks:
        job = block if block.startswith("{") else f'{{"architecture": "resnet18", {block}}}'
        key = "evaluate" if '"evaluate"' in job else "architecture"
        path = tmp_path / "job.json"
        path.write_text(job)
        said = json.loads(job)
        if "base" in said:  # any job can be one
            (tmp_path / said["base"]).write_text('{"architecture": "resnet18"}')
        assert read_queue_job(path).completed()[key] == said.get(key, "resnet18")


# Its folder is where it finds what it imports.
DRAW = """
import runpy, sys
sys.path.insert(0, sys.argv[1])
sys.argv[1:] = sys.argv[2:]
runpy.run_path(f"{sys.path[0]}/draw_pictures.py", run_name="__main__")
"""


def test_the_pictures_of_the_documents_are_current(server, tmp_path):
    """Within what another version of a library may change; the script draws them by the code of the training."""
    log = tmp_path / "log"
    assert server.script(DRAW, [str(REPOSITORY / "docs"), str(tmp_path / "drawn")], log, processes=1) == [0], (
        log.read_text()
    )
    drawn, kept = (
        {path.name: path for kind in ("*.jpg", "curves-*.png") for path in folder.glob(kind)}
        for folder in (tmp_path / "drawn", PICTURES)
    )
    assert drawn.keys() == kept.keys()
    pages = [(PICTURES.parent / name).read_text() for name in ("augmentations.md", "degradations.md", "curves.md")]
    assert kept.keys() == set(re.findall(r"pictures/(.*?\.(?:jpg|png))", "".join(pages)))
    assert all(path.stat().st_size < 150_000 for path in PICTURES.glob("degraded-*"))
    for name in drawn:
        new, old = (np.asarray(Image.open(path)).astype(int) for path in (drawn[name], kept[name]))
        assert abs(new - old).mean() < 3, name


def test_the_citation_names_this_version_and_license() -> None:
    about = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text())
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    assert (about["version"], about["license"]) == (accel_trainer.__version__, project["license"])
    assert {"cff-version", "message", "title", "authors"} <= about.keys()
