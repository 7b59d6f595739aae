"""Files that look like jobs and are none are named, with what to do."""

import pytest

from accel_trainer.config.file_names import is_conflicted_copy, why_no_job

COPIES = [
    "a (conflicted copy).json",
    "a (Ann's conflicted copy 2026-01-02).json",
    "a (conflicted copy 2026-01-02 101112).json",
    "a (Case Conflict 1).json",
    "a (In Konflikt stehende Kopie von Ann 2026-01-02).json",
    "a (SFConflict ann@lab.org 2026-01-02-10-11-12).json",
    "a.sync-conflict-20260102-101112-ABCDEFG.json",
    "a_conflict-20260102-101112.json",
    "a.Conflict.json",
]


@pytest.mark.parametrize("name", COPIES)
def test_the_copy_that_a_synchronized_folder_makes_is_no_job(name: str) -> None:
    assert is_conflicted_copy(name)
    assert "keep one of the two" in (why_no_job(name) or "")


@pytest.mark.parametrize("name", ["a.json", "cue-conflict.json", "a (cue conflict).json", "a (2).json", "copy.json"])
def test_names_of_jobs_are_names_of_jobs(name: str) -> None:
    assert not is_conflicted_copy(name)
    assert why_no_job(name) is None


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("a.JSON", "rename it to a.json"),
        ("a.Json", "rename it to a.json"),
        ("a.json.txt", "rename it to a.json"),
        ("a.JSON.TXT", "rename it to a.json"),
        ("a.json ", "rename it to a.json"),
        ("a.json~", "if it is a job, rename it to a.json"),
        ("a.json.bak", "if it is a job, rename it to a.json"),
        ("a.json.part", "being copied; if it is a job, rename it to a.json"),
        (".a.json.swp", "an editor has a.json open"),
        ("a.json.swp", "an editor has a.json open"),
        ("a.yaml", "to a.json"),
        ("a.yml", "to a.json"),
        ("a.b.TOML", "to a.b.json"),
        ("a.jsonl", "write each line into one"),
    ],
)
def test_what_may_be_meant_as_a_job_is_named_with_what_to_do(name: str, hint: str) -> None:
    assert hint in (why_no_job(name) or "")


@pytest.mark.parametrize("name", ["README.txt", "notes.md", "data", ".DS_Store", ".a.json.123.tmp", "a.log"])
def test_of_all_other_files_nothing_is_said(name: str) -> None:
    assert why_no_job(name) is None
