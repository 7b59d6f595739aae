import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    # Known where this folder is named on the command line, as `make chaos` does.
    parser.addoption("--every-event", action="store_true", help="kill at every event of a run, not at some of them")
