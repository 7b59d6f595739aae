"""Which packages job files may have imported."""

import importlib
import sys
from pathlib import Path

import pytest

from accel_trainer.core.allow_imports import (
    ALLOW_VARIABLE,
    allow_imports,
    current_folder_searched,
    may_import,
    refuse_import,
)
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


def test_the_current_folder_is_searched_for_allowed_packages_and_by_them_alone(
    own_environment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Libraries try to import what may not be installed: what lies in the folder is not meant."""
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place not in ("", str(own_environment))])
    allowed(monkeypatch, "lab_of_mine.models")
    (own_environment / "lab_of_mine").mkdir()
    (own_environment / "lab_of_mine/models.py").write_text("import beside_it\nfrom lab_of_mine import layers\n")
    (own_environment / "lab_of_mine/layers.py").write_text("def lazily():\n    import beside_too\n")
    (own_environment / "beside_it.py").write_text("import beside_too\n")
    (own_environment / "beside_too.py").touch()
    (own_environment / "optional_library.py").touch()
    before = [*sys.path], [*sys.meta_path]
    with current_folder_searched():
        with pytest.raises(ModuleNotFoundError):
            importlib.import_module("optional_library")
        with pytest.raises(ModuleNotFoundError):
            importlib.import_module("beside_it")
        importlib.import_module("lab_of_mine.models")
        del sys.modules["beside_too"]
        sys.modules["lab_of_mine.layers"].lazily()
        assert "beside_too" in sys.modules
    assert ([*sys.path], [*sys.meta_path]) == before
    for name in ("lab_of_mine", "lab_of_mine.models", "lab_of_mine.layers", "beside_it", "beside_too"):
        del sys.modules[name]
