"""A few of the schedules of `make chaos`, small ones."""

from pathlib import Path

import pytest
from faults.chaos import run_schedule
from faults.fork_server import ForkServer
from faults.schedules import draw

pytestmark = pytest.mark.slow

# By what is trained. All kinds of faults are among them: damage; a kill of all; a pause; a signal, and a kill of the
# runner at an event; a kill at an event of one of two processes.
SEEDS = {7: "mixed", 20: "seldom saved", 35: "averaged", 54: "tracked", 66: "plain"}


@pytest.mark.parametrize("seed", SEEDS, ids=SEEDS.get)
def test_random_faults_leave_no_trace_in_results(seed: int, tmp_path: Path, server: ForkServer) -> None:
    schedule = draw(seed, is_small=True)
    assert schedule.jobs == (SEEDS[seed],)
    report = run_schedule(schedule, tmp_path / "chaos", server, plots=False)
    assert report.unclean == [], report.struck
    assert report.done == report.same == len(schedule.jobs)
