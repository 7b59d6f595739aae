import json
import os
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from pydantic import BaseModel

from accel_trainer.core.record_store import RecordStore


@dataclass(frozen=True)
class Part:
    name: str


@dataclass(frozen=True)
class Note:
    by: str
    since: float
    number: int | None = None
    parts: dict[str, Part] = field(default_factory=dict)


class Model(BaseModel):
    by: str


NOTES = RecordStore(Note)


def test_a_record_comes_back_from_its_file_as_it_was(tmp_path: Path) -> None:
    note = Note("me@host", 1.5, 3, {"a": Part("b")})
    NOTES.write(tmp_path / "note.json", note, durable=False)
    assert NOTES.read(tmp_path / "note.json") == note
    assert [path.name for path in tmp_path.glob("*note*")] == ["note.json"]


def test_the_keys_of_a_file_are_the_fields_in_order(tmp_path: Path) -> None:
    NOTES.write(tmp_path / "note.json", Note("me", 1.0))
    assert (tmp_path / "note.json").read_text() == '{"by": "me", "since": 1.0, "number": null, "parts": {}}\n'


def test_pydantic_models_are_records_as_dataclasses_are(tmp_path: Path) -> None:
    store = RecordStore(Model)
    store.write(tmp_path / "m.json", Model(by="me"))
    assert store.read(tmp_path / "m.json") == Model(by="me")


def test_a_file_that_is_not_there_has_no_record(tmp_path: Path) -> None:
    treat = RecordStore(Note, damaged=lambda path: Note("damaged", 0.0))
    assert treat.read(tmp_path / "none.json") is None
    (tmp_path / "file").touch()
    assert treat.read(tmp_path / "file" / "none.json") is None


@pytest.mark.parametrize(
    "content", [b"", b"\xff", b"[]", b"{", b'{"by": "me"}', b'{"by": [], "since": 1}', b"[" * 100_000]
)
def test_each_record_store_defines_what_a_damaged_file_means(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "note.json"
    path.write_bytes(content)
    assert NOTES.read(path) is None
    assert RecordStore(Note, damaged=lambda path: Note(path.name, 0.0)).read(path) == Note("note.json", 0.0)
    with pytest.raises(ValueError, match=r"Note|JSON"):
        NOTES.decode(content)


def test_a_pipe_and_a_huge_file_count_as_damaged(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "huge").write_text(json.dumps({"by": "x" * 2000, "since": 0}))
    assert NOTES.read(tmp_path / "pipe") is None
    assert RecordStore(Note, max_bytes=1024).read(tmp_path / "huge") is None


def test_keys_of_a_later_version_are_passed_over() -> None:
    assert NOTES.decode(b'{"by": "me", "since": 2, "colour": "red"}') == Note("me", 2.0)
