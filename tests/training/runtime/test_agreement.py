import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from accel_trainer.training.runtime.ranks import Agreement, Decision

# Two ranks that want different things at different steps; each prints what was decided.
RANK = """
import json, sys
from dataclasses import astuple
import torch.distributed as dist
from accel_trainer.training.runtime.ranks import Agreement

rank, folder = int(sys.argv[1]), sys.argv[2]
dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
agreement = Agreement(2, rank, save_every_s=1e9)
first = rank == 0
decisions = [
    agreement.at_step(stop=False, diverged_at=None),
    agreement.at_step(stop=not first, diverged_at=None),
    agreement.at_step(stop=False, diverged_at=None),
    agreement.at_step(stop=False, diverged_at=7 if first else 5),
    agreement.at_step(stop=False, diverged_at=3 if first else None),
    agreement.now(stop=first, diverged_at=9),
    agreement.at_step(stop=False, diverged_at=None),
]
agreement._save_every_s = 0.0
decisions += [agreement.at_step(False, None), agreement.at_step(False, None)]
print(json.dumps([astuple(decision) for decision in decisions]))
dist.destroy_process_group()
"""


def test_all_ranks_decide_the_same_at_the_same_step(tmp_path: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", RANK, str(rank), str(tmp_path)], stdout=subprocess.PIPE, env=environment, text=True
        )
        for rank in range(2)
    ]
    first, second = (json.loads(process.communicate(timeout=60)[0]) for process in ranks)
    assert first == second
    assert first == [
        [False, False, None],  # nothing was asked before
        [False, False, None],
        [True, False, None],  # what rank 1 asked at the step before
        [False, False, None],
        [False, False, 5],  # the earlier of two
        [True, False, 9],  # at once
        [False, False, None],  # and nothing is left of it
        [False, False, None],
        [False, True, None],  # rank 0 says when it is time to save
    ]


def test_alone_a_wish_is_a_decision() -> None:
    agreement = Agreement(1, 0, save_every_s=1e9)
    assert agreement.at_step(stop=False, diverged_at=None) == Decision()
    assert agreement.at_step(stop=True, diverged_at=3) == Decision(stop=True, diverged_at=3)
    assert agreement.now(stop=True, diverged_at=None) == Decision(stop=True)


def test_a_state_is_saved_when_the_last_one_is_old(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("accel_trainer.training.runtime.ranks.time.monotonic", lambda: now)
    agreement = Agreement(1, 0, save_every_s=60)
    now = 159.0
    assert not agreement.at_step(False, None).save
    now = 160.0
    assert agreement.at_step(False, None).save
    agreement.just_saved()
    assert not agreement.at_step(False, None).save
