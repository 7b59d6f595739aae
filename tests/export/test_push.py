"""An export goes to the hub by an explicit command only, and of a folder only what the export has written."""

from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from typer.testing import CliRunner

from accel_trainer import Run
from accel_trainer.cli import app
from accel_trainer.core.errors import SetupUnusable, UserError


@pytest.fixture
def exported(trained: Run, tmp_path: Path) -> Path:
    trained.export(tmp_path / "out")
    (tmp_path / "out/notes.txt").write_text("mine")
    return tmp_path / "out"


def run(*words: str | Path) -> Any:
    return CliRunner().invoke(app, ["push", *map(str, words)])


def test_a_dry_run_lists_the_files_and_asks_the_hub_nothing(exported: Path, calls) -> None:
    result = run(exported, "my-lab/birds", "--dry-run")
    assert result.exit_code == 0
    assert "model.safetensors" in result.output
    assert "no export has written it: notes.txt" in result.output
    assert "nothing was sent" in result.output
    assert calls == []


def test_a_push_makes_the_repository_and_uploads_the_export_alone(exported: Path, calls) -> None:
    result = run(exported, "my-lab/birds", "--private")
    assert result.exit_code == 0, result.output
    assert calls[0] == ("create", {"repository": "my-lab/birds", "private": True, "exist_ok": True})
    (_, given) = calls[1]
    assert (given["repo_id"], given["folder_path"]) == ("my-lab/birds", exported)
    assert set(given["allow_patterns"]) == {path.name for path in exported.iterdir()} - {"notes.txt"}
    assert "https://hub/my-lab/birds" in result.output


@pytest.mark.parametrize(("name", "words"), [("birds", "no repository such as"), ("my-lab/birds", "is no export")])
def test_what_is_no_repository_and_no_export(tmp_path, calls, name: str, words: str) -> None:
    result = run(tmp_path, name)
    assert words in str(result.exception)
    assert calls == []


@pytest.mark.parametrize(
    ("error", "kind"), [(ConnectionRefusedError("no route"), SetupUnusable), (OSError("no token"), UserError)]
)
def test_whether_the_hub_refuses_or_is_away_is_told_apart(
    exported: Path, calls, monkeypatch: pytest.MonkeyPatch, error: Exception, kind: type[Exception]
) -> None:
    def fail(self: object, repository: str, **given: Any) -> None:
        raise error

    monkeypatch.setattr(huggingface_hub.HfApi, "create_repo", fail)
    found = run(exported, "my-lab/birds").exception
    assert type(found) is kind
    assert str(error) in str(found)
    assert ("hf auth login" in str(found)) == (kind is UserError)
