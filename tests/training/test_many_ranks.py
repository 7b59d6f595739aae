"""Three and more processes: sums of three numbers depend on their order, and so do bits."""

import json
from pathlib import Path
from typing import Any

import pytest
from ranks import launched, run_ranks

TINY: dict[str, Any] = {
    "architecture": "tiny_models:NormAndDropout",
    "dataset": "digits",
    "class_subset": [0, 1],
    "image_size": 8,
    "num_epochs": 1,
    "batch_size": 48,
    "optimizer_args": {"lr": 0.05, "momentum": 0.9, "weight_decay": 0.01},
    "trackers": [],
}
JOBS: dict[str, dict[str, Any]] = {
    "BatchNorm and dropout": {},
    "a model of torchvision": {
        "architecture": "squeezenet1_1",
        "image_size": 32,
        "gradient_accumulation": 2,
        "ema": 0.9,
    },
    "recurrent": {"architecture": "cornet_rt", "architecture_args": {"features": [32] * 4, "num_cycles": 4}},
    "state of its own": {"architecture": "tiny_models:Remembers"},
    "parameters without a gradient": {"architecture": "tiny_models:Unused"},
    "a layer that is left out at random": {"architecture": "tiny_models:LayerDrop"},
}
ON_RANKS = launched("""
import json
from pathlib import Path
from loops import assert_same, outcome
from worlds import train_on

from accel_trainer.training.build import build

for number, given in enumerate(json.loads(JOBS)):
    outcomes = []
    for name, stops in (("whole", [99]), ("taken up", [2, 3, 99])):
        for stop in stops:
            loop, _ = train_on(Path(folder) / str(number) / name, given, stop)
        assert loop.progress.epoch == given["num_epochs"]
        if rank == 0:  # it writes; what it writes at the moment others cannot read
            outcomes.append(outcome(loop))
    if rank == 0:
        assert_same(*outcomes)
    start = build(loop.job, 1).model.state_dict()
    for name, tensor in loop.plain_model.state_dict().items():
        if "unused" in name:  # weight decay does nothing to it, as in one process
            assert torch.equal(tensor, start[name])
""")


@pytest.mark.usefixtures("tiny_models")
@pytest.mark.parametrize("name", JOBS)
def test_a_run_that_is_taken_up_has_the_bits_of_one_that_was_not(tmp_path: Path, name: str) -> None:
    run_ranks(f"JOBS = {json.dumps([{**TINY, **JOBS[name]}])!r}\n{ON_RANKS}", tmp_path, 3)


LEFT_OUT = launched("""
import json
from pathlib import Path
from worlds import train_on

from accel_trainer.core.errors import UserError

given = json.loads(GIVEN)
loop, _ = train_on(Path(folder) / "says so", {**given, "architecture": "tiny_models:SaysThatItFreezes"}, 99)
assert loop.progress.epoch == given["num_epochs"]
try:
    train_on(Path(folder) / "says nothing", {**given, "architecture": "tiny_models:Freezes"}, 99)
except UserError as error:
    assert str(error).startswith("architecture: tiny_models:Freezes has left more.weight, more.bias out of a step")
    assert "find_unused_parameters = True" in str(error)
else:
    raise AssertionError("a step of other gradients on each rank")
states = Path(folder) / "says nothing" / "resume"
assert not states.exists() or not list(states.glob("*/manifest.json")), "nothing of it is saved"
""")


@pytest.mark.usefixtures("tiny_models")
def test_a_step_without_a_layer_that_others_wait_for_is_refused_and_not_taken(tmp_path: Path) -> None:
    run_ranks(f"GIVEN = {json.dumps(TINY)!r}\n{LEFT_OUT}", tmp_path, 2)
