import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from accel_trainer.report import plots
from accel_trainer.report.plots import MORE_COLORS, draw_curves, draw_range_test
from accel_trainer.run.folder import RunFolder

HEADER = "epoch,split,loss,acc1,acc5,lr,images_per_s,seconds\n"


def write_epochs(run: RunFolder, count: int) -> None:
    rows = [f"{e},{s},{1 / e},{90 - 9 / e},99,0.1,100,1\n" for e in range(1, count + 1) for s in ("train", "val")]
    run.performance.write_text(HEADER + "".join(rows))


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path / "a run")
    folder.create()
    write_epochs(folder, 3)
    return folder


def drawn(run: RunFolder) -> tuple[bytes, bytes]:
    return run.plot("png").read_bytes(), run.plot("pdf").read_bytes()


def test_a_run_is_drawn_as_png_and_pdf_and_nothing_lies_beside_them(run: RunFolder) -> None:
    draw_curves(run)
    with Image.open(run.plot("png")) as image:
        image.verify()
        assert image.width > image.height > 300
    assert run.plot("pdf").read_bytes().startswith(b"%PDF-")
    assert sorted(path.name for path in run.path.iterdir() if path.is_file()) == [
        "performance.csv", "performance.pdf", "performance.png",
    ]  # fmt: skip


def test_the_same_numbers_give_the_same_files(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    draw_curves(run)
    first = drawn(run)
    monkeypatch.setattr(time, "time", lambda: 2e9)
    draw_curves(run)
    assert drawn(run) == first
    write_epochs(run, 4)
    draw_curves(run)
    assert all(new != old for new, old in zip(drawn(run), first, strict=True))


@pytest.mark.parametrize("content", [None, HEADER])
def test_a_run_without_an_epoch_is_not_drawn(run: RunFolder, content: str | None) -> None:
    run.performance.unlink()
    if content is not None:
        run.performance.write_text(content)
    draw_curves(run)
    assert not run.plot("png").exists()


@pytest.mark.parametrize(
    "content",
    [
        "1,train,1,50,90,0.1,100,1\n",
        "1,train,nan,nan,nan,0.1,100,1\n1,val,inf,0,0,0.1,100,1\n",
        "1,val,1,50,90,0.1,100,1\n",
    ],
)
def test_a_run_of_few_numbers_is_drawn(run: RunFolder, content: str) -> None:
    run.performance.write_text(HEADER + content)
    draw_curves(run)
    assert run.plot("png").exists()


@pytest.mark.parametrize("name", ["a$_$b", "costs $5", "50%_{x}^2", "é & <b>"])
def test_the_name_of_a_run_is_only_a_name(run: RunFolder, name: str) -> None:
    named = RunFolder(run.path.rename(run.path.with_name(name)))
    draw_curves(named)
    assert named.plot("pdf").exists()


def test_every_further_data_set_has_a_colour_of_its_own(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    further = [f"val_set{number}" for number in range(len(MORE_COLORS) + 1)]
    rows = [f"{e},{s},{1 / e},90,99,0.1,100,1\n" for e in (1, 2) for s in ("train", "val", *further)]
    run.performance.write_text(HEADER + "".join(rows))
    drawn = {}
    curve = plots._curve

    def remember(axes: Any, rows: list[Any], name: str, title: str, **style: Any) -> None:
        drawn[title] = (style["color"], len(rows))
        curve(axes, rows, name, title, **style)

    monkeypatch.setattr(plots, "_curve", remember)
    draw_curves(run)
    colors = [drawn[f"{split} acc1"] for split in ("train", "val", *further)]
    assert all(count == 2 for _, count in colors)
    assert len({color for color, _ in colors}) == 2 + len(MORE_COLORS)  # then they begin again


# -- the program ------------------------------------------------------------------------------------------------


@pytest.fixture
def program(run: RunFolder) -> Iterator["subprocess.Popen[str]"]:
    process = subprocess.Popen(
        [sys.executable, "-m", "accel_trainer.workers.plot", str(run.path)],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    yield process
    process.kill()
    process.communicate()


def test_the_program_draws_for_every_line_and_ends_with_its_input(
    run: RunFolder, program: "subprocess.Popen[str]"
) -> None:
    assert program.stdin is not None
    program.stdin.write("draw\n")
    program.stdin.flush()
    deadline = time.monotonic() + 60
    while not run.plot("pdf").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    first = drawn(run)
    write_epochs(run, 5)
    program.stdin.write("draw\n" * 20)
    _, errors = program.communicate(timeout=60)
    assert program.returncode == 0, errors
    assert all(new != old for new, old in zip(drawn(run), first, strict=True))


def test_the_program_ends_without_a_drawing_that_nobody_asked_for(
    run: RunFolder, program: "subprocess.Popen[str]"
) -> None:
    program.communicate(timeout=60)
    assert program.returncode == 0
    assert not run.plot("png").exists()


@pytest.mark.parametrize("found", [None, 0.01])
def test_the_tried_rates_are_drawn_and_nothing_lies_beside_them(tmp_path: Path, found: float | None) -> None:
    run = RunFolder(tmp_path)
    run.lr_finder.write_text("rate,loss,smoothed\n1e-3,2.0,2.0\n1e-2,1.0,1.5\n1e-1,3.0,2.0\n")
    draw_range_test(run, found)
    with Image.open(run.lr_finder_plot) as image:
        image.verify()
    assert sorted(path.name for path in run.path.iterdir() if path.is_file()) == ["lr_finder.csv", "lr_finder.png"]
