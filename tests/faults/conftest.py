from collections.abc import Iterator

import pytest
from faults.fork_server import ForkServer


def pytest_addoption(parser: pytest.Parser) -> None:
    # Known where this folder is named on the command line, as `make chaos` does.
    parser.addoption("--every-event", action="store_true", help="kill at every event of a run, not at some of them")


@pytest.fixture(scope="module")
def server() -> Iterator[ForkServer]:
    """Forks trainers that start at once."""
    with ForkServer() as server:
        yield server
