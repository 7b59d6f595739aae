"""`accel-train plot`: which curves are drawn, and what is said of those that are not."""

import io
import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from accel_trainer.cli import app
from accel_trainer.config import Job
from accel_trainer.core.errors import UserError
from accel_trainer.report import curves_figure
from accel_trainer.report.curves import Curve
from accel_trainer.run.folder import RunFolder
from accel_trainer.run.status import RunState, Status, write_status

HEADER = "epoch,split,loss,acc1,lr,images_per_s,seconds"
Panels = Mapping[str, Sequence[Curve]]


def write_run(architecture: str, seed: int, best: float, epochs: int = 3) -> None:
    job = Job(architecture=architecture, name=f"{architecture}-{seed}", seed=seed, num_epochs=3)
    run = RunFolder(job.run_path)
    run.create()
    run.config.write_text(json.dumps({**job.completed(), "primary_metric": "acc1"}))
    lines = [HEADER]
    for epoch, loss, below in ((1, 2.0, 20), (2, 1.0, 0), (3, 0.5, 4))[:epochs]:
        lines += [f"{epoch},train,{loss},{best - below},0.1,100,50", f"{epoch},val,{loss},{best - below},0.1,100,10"]
    run.performance.write_text("\n".join(lines) + "\n")
    run.environment.write_text(json.dumps({"job": job.name}))
    write_status(run, Status(state=RunState.FINISHED, steps_per_epoch=25))


@pytest.fixture(autouse=True)
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for architecture, best in (("resnet18", 83.0), ("vgg11", 80.0)):
        for seed in (0, 1, 3):
            write_run(architecture, seed, best + seed)


@pytest.fixture
def panels(monkeypatch: pytest.MonkeyPatch) -> list[Panels]:
    """What was drawn."""
    found: list[Panels] = []
    draw = curves_figure.curves_figure

    def note(panels: Panels, *others: Any) -> Any:
        found.append(panels)
        return draw(panels, *others)

    monkeypatch.setattr(curves_figure, "curves_figure", note)
    return found


def plot(*words: str) -> Result:
    result = CliRunner().invoke(app, ["plot", *words])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def problem(*words: str) -> list[str]:
    error = CliRunner().invoke(app, ["plot", *words]).exception
    assert isinstance(error, UserError)
    return error.problems


def test_each_run_has_a_line_of_its_primary_metric_with_its_best_epoch(panels: list[Panels]) -> None:
    result = plot("models", "--where", "seed=1")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "wrote curves.pdf\n", "")
    assert Path("curves.pdf").read_bytes().startswith(b"%PDF-")
    assert panels == [
        {
            "acc1": [
                Curve("resnet18-1", [1, 2, 3], [64, 84, 80], best=(2, 84), best_epoch=2),
                Curve("vgg11-1", [1, 2, 3], [61, 81, 77], best=(2, 81), best_epoch=2),
            ]
        }
    ]


def test_a_group_has_the_mean_and_standard_deviation_of_its_runs(panels: list[Panels]) -> None:
    result = plot("models", "--group-by", "all-but-seed", "--y", "train/acc1,loss", "--out", "a.svg")
    assert (result.exit_code, result.stderr) == (0, "")
    (found,) = panels
    assert list(found) == ["train/acc1", "loss"]
    first, second = found["train/acc1"]
    assert (first.name, second.name) == ("resnet18 (n = 3)", "vgg11 (n = 3)")
    assert first.x == [1, 2, 3]
    assert first.y == pytest.approx([statistics.mean(83 + seed - below for seed in (0, 1, 3)) for below in (20, 0, 4)])
    assert first.sd == pytest.approx([statistics.stdev([0, 1, 3])] * 3)
    text = Path("a.svg").read_text()
    assert ">training accuracy (%)</text>" in text
    assert ">resnet18 (n = 3)</text>" in text


def test_a_mean_ends_where_its_shortest_run_does(panels: list[Panels]) -> None:
    write_run("vgg11", 1, 81.0, epochs=2)
    result = plot("models", "--group-by", "architecture")
    assert result.stderr == "warning: vgg11: the mean ends with epoch 2, as far as all of its runs go\n"
    assert [curve.x for curve in panels[0]["acc1"]] == [[1, 2, 3], [1, 2]]


@pytest.mark.parametrize(
    ("axis", "places", "label"),
    [("step", [25, 50, 75], "step"), ("seconds", [60, 120, 180], "time of training and validation (min)")],
)
def test_time_and_steps_are_axes_too(axis: str, places: list[float], label: str, panels: list[Panels]) -> None:
    plot("models/resnet18/resnet18-0", "--x", axis, "--out", "a.svg")
    assert panels[0]["acc1"][0].x == places
    assert f">{label}</text>" in Path("a.svg").read_text()


def test_the_size_is_given_in_inches_and_the_style_by_a_sheet(tmp_path: Path) -> None:
    (tmp_path / "lab.mplstyle").write_text("savefig.dpi: 50\n")
    plot("models", "--size", "7,3", "--out", "a.png", "--style", "lab.mplstyle", "--log-y")
    with Image.open(io.BytesIO(Path("a.png").read_bytes())) as image:
        assert image.size == (350, 150)


def test_the_same_runs_give_the_same_bytes() -> None:
    for suffix in ("png", "pdf", "svg"):
        plot("models", "--out", f"a.{suffix}")
        plot("models", "--out", f"b.{suffix}")
        assert Path(f"a.{suffix}").read_bytes() == Path(f"b.{suffix}").read_bytes()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--y", "acc2"), "`y`: no run has measured 'acc2'; did you mean 'acc1'?"),
        (("--x", "steps"), "`x`: no axis 'steps'; did you mean 'step'?"),
        (("--group-by", "sed"), "`group_by`: no run has 'sed'; did you mean 'seed'"),
        (("--out", "a.jpg"), "`out`: a.jpg: a picture's name ends in one of .png, .pdf, .svg"),
        (("--out", "picture"), "`out`: picture: a picture's name ends in one of .png, .pdf, .svg"),
        (("--size", "7"), "`size`: '7' is no size; give width and height in inches"),
        (("--size", "7,nan"), "`size`: '7,nan' is no size"),
        (("--style", "nowhere"), "nowhere: `style`: cannot be read"),
    ],
)
def test_a_mistake_is_named(words: tuple[str, str], said: str) -> None:
    (found,) = problem("models", *words)
    assert found.startswith(said)
    assert not list(Path().glob("curves.*"))


def test_what_cannot_be_drawn_is_said(tmp_path: Path) -> None:
    result = plot("models", "--where", "seed=9")
    assert (result.exit_code, result.stderr) == (2, "none of the 6 runs fits seed=9\n")
    RunFolder(tmp_path / "models" / "vgg11" / "vgg11-0").performance.unlink()
    result = plot("models")
    assert (result.exit_code, result.stderr) == (0, "warning: without acc1, and left out: vgg11-0\n")
    assert problem("models/vgg11/vgg11-0") == ["no epoch has ended yet of vgg11-0"]


def test_a_folder_that_is_no_run_is_an_error_beside_the_picture_of_the_others(tmp_path: Path) -> None:
    result = plot("models", "nowhere")
    assert result.exit_code == 2
    assert "nowhere" in result.stderr
    assert Path("curves.pdf").exists()
