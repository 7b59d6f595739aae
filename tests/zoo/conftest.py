import helpers
import pytest

one_core = pytest.fixture(autouse=True)(helpers.one_core)
