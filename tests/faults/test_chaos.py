"""A few of the schedules of `make chaos`, small ones."""

from pathlib import Path

import pytest
from faults.chaos import run_schedule
from faults.fork_server import ForkServer
from faults.schedules import draw

pytestmark = pytest.mark.slow

NUM_SCHEDULES = 7


@pytest.mark.parametrize("seed", range(NUM_SCHEDULES))
def test_random_faults_leave_no_trace_in_results(seed: int, tmp_path: Path, server: ForkServer) -> None:
    report = run_schedule(draw(seed, is_small=True), tmp_path / "chaos", server)
    assert report.unclean == [], report.struck
    assert report.done == report.same == len(report.schedule.jobs)
