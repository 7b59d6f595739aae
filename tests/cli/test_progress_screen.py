"""What a terminal shows of a run, as a person sees it at 80 columns."""

import os
import sys
from pathlib import Path

import pytest
from pty_screen import PtyScreen

SCREENS = Path(__file__).parent / "screens"
SCRIPT = """
import sys, time
from accel_trainer.cli import progress
from accel_trainer.run.status import RunState, Status

now = time.monotonic()
progress.time.monotonic = lambda: now
bars = progress.Bars()
several = len(sys.argv) > 2
training = dict(state=RunState.TRAINING, epoch=3, num_epochs=90, step=450, steps_per_epoch=1000, loss=2.3456,
                score=45.678, score_name="acc1", lr=0.0999, images_per_s=1234.5, eta_s=75000.0)
shown = {
    "importing": Status(state=RunState.STARTING, preparing="importing torch"),
    "spectrum": Status(state=RunState.STARTING, preparing="measuring the spectrum of the images", prepared=0.3),
    "epoch": Status(**training),
    "validation": Status(**{**training, "step": 1000, "preparing": "validating", "prepared": 0.5}),
    "evaluation": Status(state=RunState.MEASURING, images=12_000, num_images=50_000, eta_s=61.0),
}
names = ["one", "two"] if several else ["job"]
for name in names:
    bars.add(name, shows_name=several)
    bars.show(name, shown[sys.argv[1]])
bars.print("  epoch 2/90  train loss 2.9 acc1 38.00%  val loss 2.8 acc1 40.00%")
now += 42
bars.refresh()
print("end", flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("words", ["importing", "spectrum", "epoch", "validation", "evaluation", "epoch several"])
def test_bars_of_a_run_are_as_recorded(words: str) -> None:
    recorded = SCREENS / f"progress-{words.replace(' ', '-')}-80x24.txt"
    with PtyScreen([sys.executable, "-c", SCRIPT, *words.split()]) as shown:
        shown.until("end")
        lines = [line for line in shown.lines if line and line != "end"]
    text = "\n".join(lines) + "\n"
    if os.environ.get("RECORD_SCREENS"):
        recorded.write_text(text)
    assert text == recorded.read_text()
