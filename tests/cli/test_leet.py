from pathlib import Path

from typer.testing import CliRunner

from accel_trainer.cli import app
from accel_trainer.core.errors import UserError
from accel_trainer.run.folder import RunFolder


def test_runs_of_several_folders_are_gathered_for_wandbs_browser(own_environment: Path) -> None:
    for name in ("a", "b"):
        run = RunFolder(Path("models", name))
        run.create()
        run.config.write_text("{}")
        (run.path / "wandb" / f"offline-run-20261231_235959-{name}").mkdir(parents=True)
        (run.path / "wandb" / "latest-run").symlink_to(f"offline-run-20261231_235959-{name}")
    for _ in range(2):
        result = CliRunner().invoke(app, ["leet", "models", "--out", "gathered"])
        assert result.stdout == "2 runs in gathered; see them with: wandb leet gathered\n", result.output
    links = sorted(Path("gathered").iterdir())
    assert [link.name for link in links] == [f"offline-run-20261231_235959-{name}" for name in ("a", "b")]
    assert [link.resolve().parents[1].name for link in links] == ["a", "b"]


def test_where_there_is_nothing_of_wandb_that_is_one_line(own_environment: Path) -> None:
    error = CliRunner().invoke(app, ["leet", "nowhere"]).exception
    assert isinstance(error, UserError)
    assert error.problems == ["no runs of wandb in nowhere; jobs log there with the tracker wandb"]
