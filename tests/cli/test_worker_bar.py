"""What is seen of a worker that a verb waits for."""

import sys

import pytest
from pty_screen import PtyScreen

from accel_trainer.cli import worker_bar as worker_bar_module
from accel_trainer.cli.worker_bar import WorkerBar

SCRIPT = """
import sys, time
from accel_trainer.cli import worker_bar
worker_bar._BAR_AFTER_S = 0.0
with worker_bar.worker_bar("models/a: the evaluation") as show:
    show(None, None)
    show(1200, 50000)
    show._bar.refresh()
    print("drawn", flush=True)
    time.sleep(0.5)
print("end", flush=True)
time.sleep(60)
"""


def test_a_terminal_has_a_bar_until_the_answer_is_there() -> None:
    with PtyScreen([sys.executable, "-c", SCRIPT]) as shown:
        shown.until("drawn")
        assert any("models/a: the evaluation: 1,200 of 50,000 trials" in line for line in shown.lines)
        shown.until("end")
        assert not any("trials" in line for line in shown.lines)


def test_without_a_terminal_there_is_a_line_every_30_seconds(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr(worker_bar_module.time, "monotonic", lambda: now)
    bar = WorkerBar("models/a: the evaluation")
    for now, done in ((101.0, None), (131.0, None), (140.0, 5), (162.0, 1200)):  # noqa: B007
        bar(done, None if done is None else 50_000)
    assert capsys.readouterr().err.splitlines() == [
        "models/a: the evaluation: 31s",
        "models/a: the evaluation: 1,200 of 50,000 trials",
    ]
