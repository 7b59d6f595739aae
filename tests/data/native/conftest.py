import shutil
import subprocess
from pathlib import Path

import pytest

from accel_trainer.data import native
from accel_trainer.data.native.library import Kernel

SOURCES = [Path(native.__file__).with_name(name) for name in ("kernel.c", "jpeg.c")]


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The kernel, compiled of the source as it is, with every warning an error."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler")
    path = tmp_path_factory.mktemp("kernel") / "kernel.so"
    flags = ["-O3", "-ffp-contract=off", "-Wall", "-Wextra", "-Wconversion", "-Werror", "-shared", "-fPIC"]
    subprocess.run([compiler, *flags, *map(str, SOURCES), "-o", str(path), "-lm"], check=True)
    return path


@pytest.fixture(params=["vectors", "plain C"])
def compiled(library: Path, request: pytest.FixtureRequest) -> Kernel:
    kernel = Kernel(library)
    kernel.may_use_vectors = request.param == "vectors"
    return kernel
