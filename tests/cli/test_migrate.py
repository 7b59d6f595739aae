"""`accel-train migrate`: today's job on the output, what was changed beside it; old files stay as they are."""

import json
import subprocess
from pathlib import Path

from helpers import COMMAND
from published_jobs import published_jobs

OLD = {"architecture": "cornet-s", "identifier": "a", "Occlusion": {"type": "bars", "coverage": 0.4}}


def write(path: Path, content: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_one_job_is_printed_and_each_change_said_beside_it(cli):
    write(Path("old.json"), OLD)
    result = cli("migrate", "old.json")
    assert result.returncode == 0
    job = json.loads(result.stdout)
    assert job["architecture"] == "cornet_s"
    assert job["Occlusion"] == {"form": "bars", "visibility": 0.6}
    assert (
        "old.json: Occlusion.coverage: -> Occlusion.visibility = 0.6; what is not covered is visible" in result.stderr
    )
    assert json.loads(Path("old.json").read_text()) == OLD


def test_standard_input_is_read_as_a_file(cli):
    words = [*COMMAND, "migrate", "-"]
    result = subprocess.run(words, input=json.dumps(OLD), capture_output=True, text=True, check=True)
    assert json.loads(result.stdout)["architecture"] == "cornet_s"
    assert "standard input: identifier: -> model_dir" in result.stderr


def test_a_folder_of_jobs_is_written_under_the_same_names(cli):
    for name, job in published_jobs().items():
        write(Path("old", f"{name}.json"), job)
    result = cli("migrate", "old", "--out", "new")
    assert result.returncode == 0
    assert "25 jobs in new, 0 refused" in result.stderr
    assert {path.stem for path in Path("new").iterdir()} == set(published_jobs())
    before = {path.name: path.read_bytes() for path in Path("new").iterdir()}
    again = cli("migrate", "new", "--out", "newer")
    assert again.stderr.count("is today's already") == 25
    assert {path.name: path.read_bytes() for path in Path("newer").iterdir()} == before


def test_no_file_is_ever_replaced(cli):
    write(Path("old.json"), OLD)
    result = cli("migrate", "old.json", "--out", ".")
    assert result.returncode == 2
    assert result.stderr == "error: old.json: exists already with other content; choose another folder --out\n"
    assert json.loads(Path("old.json").read_text()) == OLD
    assert [cli("migrate", "old.json", "--out", "new").returncode for _ in range(2)] == [0, 0]


def test_a_file_that_cannot_be_translated_is_named_and_the_others_are_written(cli):
    write(Path("a.json"), OLD)
    write(Path("b.json"), {**OLD, "views_class": [0]})
    result = cli("migrate", "a.json", "b.json", "--out", "new")
    assert result.returncode == 2
    assert "error: b.json: views_class: unknown key" in result.stderr
    assert [path.name for path in Path("new").iterdir()] == ["a.json"]


def test_several_files_need_a_folder_to_go_to(cli):
    write(Path("a.json"), OLD)
    write(Path("b.json"), OLD)
    result = cli("migrate", "a.json", "b.json")
    assert result.returncode == 2
    assert result.stderr == "error: --out: there are 2 files: name the folder to write to\n"
    Path("empty").mkdir()
    assert "error: empty: has no files whose names end in .json" in cli("migrate", "empty").stderr
