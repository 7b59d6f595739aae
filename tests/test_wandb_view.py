"""docs/wandb_view.py: what wandb's own models of views and reports say of what it makes; no server is there."""

import importlib.util
import json
from types import ModuleType
from typing import Any

import pytest
from helpers import REPOSITORY
from wandb_workspaces import workspaces as ws
from wandb_workspaces.reports import v2 as wr


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("wandb_view", REPOSITORY / "docs/wandb_view.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def as_sent(made: Any) -> str:
    """The JSON that would go to the server."""
    return str(made._to_model().model_dump_json(by_alias=True))


@pytest.mark.parametrize("kind", ["view", "report"])
def test_it_is_valid_by_wandbs_own_models(script: ModuleType, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    interface = "wandb_workspaces.reports.v2.interface"
    monkeypatch.setattr(f"{interface}._get_api", lambda: None)
    monkeypatch.setattr(f"{interface}.execute_graphql", lambda *_: {"project": {"internalId": "id"}})
    sent = as_sent(getattr(script, kind)("lab", "project", "acc5", ["optimizer_args.lr", "seed"]))
    for name in ("val/acc5", "train/loss", "best/acc5", "optimizer_args", "Parallel Coordinates Plot", "epoch"):
        assert name in sent, name
    assert json.loads(sent)


def test_replicates_are_grouped_and_evaluations_left_out(script: ModuleType) -> None:
    made = script.view("lab", "project", "acc1", ["seed"])
    (runs,) = made._to_model().spec.section.run_sets
    assert [(key.section, key.name) for key in runs.grouping] == [("run", "group")]
    assert "train" in json.dumps(runs.model_dump()["filters"], default=str)
    lines = [panel for panel in made.sections[0].panels if isinstance(panel, wr.LinePlot)]
    assert {(panel.groupby, panel.groupby_rangefunc, panel.x) for panel in lines} == {("Group", "stddev", "epoch")}


@pytest.mark.parametrize(("words", "kind"), [([], ws.Workspace), (["--report"], wr.Report)])
def test_it_is_saved_and_its_address_printed(
    script: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    kind: type[Any],
) -> None:
    saved = list[Any]()
    monkeypatch.setattr(kind, "save", lambda made: saved.append(made))
    monkeypatch.setattr(kind, "url", property(lambda made: f"https://wandb.example/{made.project}"))
    script.main(["lab", "project", *words])
    assert [type(made) for made in saved] == [kind]
    assert capsys.readouterr().out == "https://wandb.example/project\n"
