"""What must be true after every fault. Each check gives a line for everything that is not as it must be."""

import csv
import json
import re
from collections import Counter
from pathlib import Path

import torch
from safetensors.torch import load_file

from accel_trainer.run.folder import RunFolder

# What is written aside, and must not outlive the run or the queue that it was written for.
ASIDE = re.compile(r"\..*\.tmp|\.probe-.*|\.new.*|\.moving.*|\.error-rank-.*|\.writing-.*")
OWN_TIMES = ("images_per_s", "seconds")


def differences(run: Path, undisturbed: Path) -> list[str]:
    """What is not bit for bit that of the undisturbed run: weights, and all rows but for how long they took."""
    ours, theirs = RunFolder(run), RunFolder(undisturbed)
    found = [f"{name} is missing" for name in _weights(theirs) - _weights(ours)]
    found += [f"{name} is too much" for name in _weights(ours) - _weights(theirs)]
    for name in sorted(_weights(ours) & _weights(theirs)):
        one, other = load_file(ours.params / name), load_file(theirs.params / name)
        if one.keys() != other.keys():
            found.append(f"{name} has other tensors")
        found += [f"{name}: {key} differs" for key in one if key in other and not torch.equal(one[key], other[key])]
    if rows(run) != rows(undisturbed):
        found.append("performance.csv differs")
    return found


def rows(run: Path) -> list[dict[str, str]]:
    """performance.csv, but for how long everything took; empty when there is none."""
    try:
        lines = list(csv.DictReader((RunFolder(run).performance).read_text().splitlines()))
    except FileNotFoundError:
        return []
    return [{key: value for key, value in line.items() if key not in OWN_TIMES} for line in lines]


def duplicates(run: Path) -> list[str]:
    """Rows of performance.csv that are there more than once."""
    counts = Counter((row["epoch"], row["split"]) for row in rows(run))
    return [f"epoch {epoch} {split}: {count} rows" for (epoch, split), count in counts.items() if count > 1]


def leftovers(*folders: Path) -> list[str]:
    """What was written aside in these folders and is still there."""
    return [str(path) for folder in folders for path in folder.rglob("*") if ASIDE.fullmatch(path.name)]


def wandb_ids(run: Path) -> set[str]:
    """The ids under which wandb has kept a run offline."""
    return {path.name.rpartition("-")[2] for path in (run / "wandb").glob("offline-run-*")}


def state_of(run: Path) -> str:
    """The last word of rank 0."""
    status = json.loads(RunFolder(run).status_file.read_text())
    return str(status["state"])


def global_step(run: Path) -> int:
    """The step of the newest state; 0 before the first."""
    names = [path.name for path in RunFolder(run).resume.glob("[0-9]*")]
    return max((int(name.partition("-")[0]) for name in names), default=0)


def _weights(run: RunFolder) -> set[str]:
    return {path.name for path in run.params.glob("*.safetensors")}
