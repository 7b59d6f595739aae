"""Which packages job files may have imported."""

import pytest

from accel_trainer.core.allow_imports import ALLOW_VARIABLE, allow_imports, may_import, refuse_import
from accel_trainer.core.errors import UserError


def allowed(monkeypatch: pytest.MonkeyPatch, packages: str) -> None:
    monkeypatch.setenv(ALLOW_VARIABLE, packages)


@pytest.mark.parametrize(
    ("packages", "module", "expected"),
    [
        ("", "my_lab", False),
        ("my_lab", "my_lab", True),
        ("my_lab", "my_lab.models.deep", True),
        ("my_lab", "my_laboratory", False),
        ("my_lab.models", "my_lab.models", True),
        ("my_lab.models", "my_lab.models.deep", True),
        ("my_lab.models", "my_lab", False),
        ("my_lab.models", "my_lab.models_2", False),
        (" other , my_lab,", "my_lab", True),
    ],
)
def test_a_package_allows_itself_and_what_is_below_it(
    monkeypatch: pytest.MonkeyPatch, packages: str, module: str, expected: bool
) -> None:
    allowed(monkeypatch, packages)
    assert may_import(module) == expected


def test_the_option_adds_to_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    allowed(monkeypatch, "one")
    allow_imports("two.models,one")
    assert all(may_import(module) for module in ("one", "two.models"))
    allow_imports("")
    assert may_import("one")
    assert not may_import("two")


def test_a_refused_import_is_reported_with_what_allows_it() -> None:
    said = "architecture: importing 'my_lab' is not allowed; allow it with `allow_imports` my_lab or "
    with pytest.raises(UserError) as caught:
        refuse_import("my_lab.models")
    assert str(caught.value) == f"{said}{ALLOW_VARIABLE}=my_lab"


def test_an_invalid_name_of_a_package_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"^`allow_imports`: 'my lab' is not the name of a package"):
        allow_imports("other,my lab")
    allowed(monkeypatch, "*")
    with pytest.raises(UserError, match=rf"^{ALLOW_VARIABLE}: '\*' is not the name of a package"):
        may_import("my_lab")
