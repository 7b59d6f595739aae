from pathlib import Path

import pytest

from accel_trainer.data.native.library import Kernel


@pytest.fixture(params=["vectors", "plain C"])
def compiled(library: Path, request: pytest.FixtureRequest) -> Kernel:
    kernel = Kernel(library)
    kernel.may_use_vectors = request.param == "vectors"
    return kernel
