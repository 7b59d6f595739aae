import json
from pathlib import Path

import pytest
from ranks import run_two_ranks

from accel_trainer.training.runtime.ranks import Agreement, Decision

# Two ranks that want different things at different steps; each writes what was decided.
RANK = """
import json
from dataclasses import astuple
from pathlib import Path
from accel_trainer.training.runtime.ranks import Agreement

agreement = Agreement(2, rank, save_every_s=1e9)
first = rank == 0
decisions = [
    agreement.at_step(stop=False, diverged_at=None),
    agreement.at_step(stop=not first, diverged_at=None, corrupt=rank),
    agreement.at_step(stop=False, diverged_at=None),
    agreement.at_step(stop=False, diverged_at=7 if first else 5),
    agreement.at_step(stop=False, diverged_at=3 if first else None, corrupt=2),
    agreement.now(stop=first, diverged_at=9),
    agreement.at_step(stop=False, diverged_at=None),
]
agreement._save_every_s = 0.0
decisions += [agreement.at_step(False, None), agreement.at_step(False, None)]
Path(folder, f"{rank}.json").write_text(json.dumps([astuple(decision) for decision in decisions]))
"""


def test_all_ranks_decide_the_same_at_the_same_step(tmp_path: Path) -> None:
    run_two_ranks(RANK, tmp_path)
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    assert first == second
    assert first == [
        [False, False, None, 0],  # nothing was asked before
        [False, False, None, 0],
        [True, False, None, 1],  # what rank 1 asked at the step before, and the corrupt images that it had met
        [False, False, None, 0],
        [False, False, 5, 0],  # the earlier of two
        [True, False, 9, 0],  # at once
        [False, False, None, 4],  # and nothing is left of it, but for the corrupt images of the step before
        [False, False, None, 0],
        [False, True, None, 0],  # rank 0 says when it is time to save
    ]


def test_alone_a_wish_is_a_decision() -> None:
    agreement = Agreement(1, 0, save_every_s=1e9)
    assert agreement.at_step(stop=False, diverged_at=None) == Decision()
    assert agreement.at_step(stop=True, diverged_at=3) == Decision(stop=True, diverged_at=3)
    assert agreement.now(stop=True, diverged_at=None) == Decision(stop=True)
    assert agreement.at_step(False, None, corrupt=2) == Decision()
    assert agreement.at_step(False, None) == Decision(corrupt=2)


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
