"""What the options of a step are worth on this machine: `python benchmarks/step.py [ARCHITECTURE] [IMAGE_SIZE]`.

Each is profiled as `accel-train profile` does, all in turn and several times; medians of images/s, and the ratio to the
plain step. And what it costs that a step can be profiled at all.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from accel_trainer.core.spans import Phase, span

ROUNDS, STEPS, WARM_UP = 3, 20, 5
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "channels_last": {"channels_last": True},
    "compile": {"compile": True},
    "channels_last, compile": {"channels_last": True, "compile": True},
    "optimizer as torch has it": {"optimizer_args": {"lr": 0.001, "foreach": True}},
}


def main() -> None:
    architecture, size = [*sys.argv[1:], *["resnet18", "64"][len(sys.argv) - 1 :]]
    job = {"architecture": architecture, "dataset": "digits", "image_size": int(size), "batch_size": 32, "trackers": []}
    job |= {"optimizer": "AdamW", "optimizer_args": {"lr": 0.001}}
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in OPTIONS}
    for _ in range(ROUNDS):
        for name, given in OPTIONS.items():
            found[name].append(measure({**job, **given}))
    print(f"{architecture}, {size} pixels       images/s  ratio   optimizer  validation/forward")
    plain = statistics.median(row["images_per_s"] for row in found["plain"])
    for name, rows in found.items():
        rate = statistics.median(row["images_per_s"] for row in rows)
        share = statistics.median(row["step"][Phase.OPTIMIZER] / sum(row["step"].values()) for row in rows)
        relative = statistics.median(row["validation"][Phase.FORWARD] / row["step"][Phase.FORWARD] for row in rows)
        print(f"  {name:26}{rate:10.1f}{rate / plain:7.2f}{share:12.1%}{relative:12.2f}")
    print(f"a span that nobody hears     {1e9 * of_a_span():.0f} ns")


def measure(job: dict[str, Any]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        (file := Path(folder, "job.json")).write_text(json.dumps(job))
        words = [sys.executable, "-m", "accel_trainer.cli", "profile", str(file), "--json", f"--steps={STEPS}"]
        words += [f"--warm-up={WARM_UP}", f"--trace={folder}/trace.json"]
        row: dict[str, Any] = json.loads(subprocess.run(words, capture_output=True, text=True, check=True).stdout)
    return row


def of_a_span(times: int = 100_000) -> float:
    """Seconds."""
    began = time.perf_counter()
    for _ in range(times):
        with span(Phase.STEP):
            pass
    return (time.perf_counter() - began) / times


if __name__ == "__main__":
    main()
