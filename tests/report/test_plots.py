import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TextIO

import pytest
from helpers import wait_until
from PIL import Image

from accel_trainer.report.plots import draw_curves, draw_range_test
from accel_trainer.report.range_test_figure import shown_losses
from accel_trainer.run.folder import RunFolder
from accel_trainer.workers import plot

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


def drawn(run: RunFolder) -> list[bytes]:
    return [run.plot(suffix).read_bytes() for suffix in ("png", "pdf", "svg")]


def test_a_run_is_drawn_in_three_forms_as_wide_as_a_column_and_nothing_lies_beside_them(run: RunFolder) -> None:
    draw_curves(run)
    with Image.open(run.plot("png")) as image:
        image.verify()
        assert image.width == 3.5 * 300
    pdf = run.plot("pdf").read_bytes()
    assert pdf.startswith(b"%PDF-")
    assert b"/CIDFontType2" in pdf  # TrueType
    assert b"/Type3" not in pdf
    assert ">accuracy (%)</text>" in run.plot("svg").read_text()
    assert sorted(path.name for path in run.path.iterdir() if path.is_file()) == [
        "performance.csv", "performance.pdf", "performance.png", "performance.svg",
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
    wait_until(run.plot("png").exists, 60)
    first = run.plot("png").read_bytes()
    assert not run.plot("pdf").exists()  # it and the SVG are for who looks at what is done
    write_epochs(run, 5)
    program.stdin.write("draw\n" * 20)
    _, errors = program.communicate(timeout=60)
    assert program.returncode == 0, errors
    last = drawn(run)
    assert last[0] != first
    draw_curves(run)
    assert drawn(run) == last


@dataclass
class Fork:
    """The program in a fork of this process, which has imported matplotlib; `requests` is its input."""

    process: BaseProcess
    requests: TextIO

    def end(self) -> int | None:
        """The end of its input, as of a training that is killed; its exit code."""
        self.requests.close()
        self.process.join(60)
        return self.process.exitcode


@pytest.fixture
def fork(run: RunFolder) -> Iterator[Fork]:
    reads, writes = os.pipe()

    def act() -> None:
        os.close(writes)
        sys.stdin = os.fdopen(reads)
        plot.main([str(run.path)])

    process = get_context("fork").Process(target=act)
    process.start()
    os.close(reads)
    with os.fdopen(writes, "w", buffering=1) as requests:
        yield Fork(process, requests)
    process.kill()
    process.join()


def test_the_program_draws_all_forms_when_the_training_ends_without_a_word(run: RunFolder, fork: Fork) -> None:
    fork.requests.write("draw\n")
    wait_until(run.plot("png").exists, 60)
    assert fork.end() == 0
    assert all(run.plot(suffix).exists() for suffix in ("png", "pdf", "svg"))


def test_the_program_ends_without_a_drawing_that_nobody_asked_for(run: RunFolder, fork: Fork) -> None:
    assert fork.end() == 0
    assert not run.plot("png").exists()


@pytest.mark.parametrize("found", [None, 0.01])
def test_the_tried_rates_are_drawn_and_nothing_lies_beside_them(tmp_path: Path, found: float | None) -> None:
    run = RunFolder(tmp_path)
    run.lr_finder.write_text("rate,loss,smoothed\n1e-3,2.0,2.0\n1e-2,1.0,1.5\n1e-1,3.0,2.0\n")
    draw_range_test(run, found)
    with Image.open(run.lr_finder_plot) as image:
        image.verify()
    assert sorted(path.name for path in run.path.iterdir() if path.is_file()) == ["lr_finder.csv", "lr_finder.png"]


def test_what_diverges_is_cut_off_and_the_fall_is_shown() -> None:
    losses = [2.3, 2.4, 2.2, 1.6, 1.0, 0.9, 4.0, 300.0]
    smoothed = [2.3, 2.35, 2.3, 2.0, 1.6, 1.2, 1.9, 40.0]
    low, high = shown_losses(losses, smoothed) or (0.0, 0.0)
    assert 0.5 < low < 0.9
    assert 2.4 < high < 4.0
    assert shown_losses([1.0, 2.0], [1.0, 1.5]) is None
    assert shown_losses([], []) is None
