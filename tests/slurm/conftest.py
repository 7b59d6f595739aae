import os
from collections.abc import Iterator

import pytest
from slurm.cluster import NEEDED_VARIABLE, Cluster, why_not


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A Slurm of our own; its commands work in the processes that tests start."""
    if (reason := why_not()) is not None:
        if os.environ.get(NEEDED_VARIABLE) == "1":
            pytest.fail(f"{NEEDED_VARIABLE} is set, and there is no Slurm: {reason}")
        pytest.skip(f"no Slurm here: {reason}")
    with pytest.MonkeyPatch.context() as patch, Cluster() as cluster:
        for name, value in cluster.environment.items():
            patch.setenv(name, value)
        yield cluster
