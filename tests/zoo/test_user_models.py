"""Models of the user's own, by import path: nothing is imported or called that is not allowed."""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import REPOSITORY
from torch import nn

from accel_trainer.core.allow_imports import ALLOW_VARIABLE, allow_imports
from accel_trainer.core.errors import UserError
from accel_trainer.zoo import registry

MODELS = """
import functools
import os
import subprocess
from pathlib import Path

import torch
from torch import nn

from my_lab.layers import Readout

Path("imported").touch()
torch.rand(3)
SCALE = torch.ones(1)
NUMBER = 3


class Net(nn.Module):
    def __init__(self, num_classes, image_size=1, *, width=4):
        super().__init__()
        self.image_size, self.width = image_size, width
        self.readout = Readout(3, num_classes)

    def forward(self, images):
        return self.readout(images.mean((2, 3)))

    class Inner(Readout):
        def __init__(self, num_classes):
            super().__init__(3, num_classes)


class Own(nn.Module):
    def __init__(self):
        super().__init__()


class Lazy(nn.Module):
    def __init__(self):
        super().__init__()
        self.readout = nn.LazyLinear(3)


def any_keywords(**kwargs):
    return Net(**kwargs)


def keyword_only(*, depth, num_classes):
    return nn.Linear(depth, num_classes)


def raises():
    raise KeyError("weights")


def leaves():
    raise SystemExit


def gives_a_number():
    return NUMBER


narrow = functools.partial(Net, width=2)
run = functools.partial(os.system, "touch called")
_private = Net
"""


@pytest.fixture(autouse=True)
def my_lab(own_environment: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package in the current folder, which Python's path has not; forgotten afterwards."""
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place not in ("", str(own_environment))])
    monkeypatch.setenv(ALLOW_VARIABLE, "my_lab")
    folder = own_environment / "my_lab"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "layers.py").write_text("from torch import nn\n\n\nclass Readout(nn.Linear):\n    pass\n")
    (folder / "models.py").write_text(MODELS)
    yield folder
    for module in [name for name in sys.modules if name.partition(".")[0] == "my_lab"]:
        del sys.modules[module]


def build(name: str, args: dict[str, Any] | None = None) -> Any:
    return registry.build(f"my_lab.models:{name}", args or {}, num_classes=7, image_size=32)


def refusal(path: str, args: dict[str, Any] | None = None) -> str:
    with pytest.raises(UserError) as caught:
        registry.build(path, args or {}, num_classes=7, image_size=32)
    (line,) = caught.value.problems
    assert "\n" not in line
    return line


def test_a_class_in_the_current_folder_gets_classes_size_and_arguments() -> None:
    model = build("Net", {"width": 9})
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 7)
    assert (model.image_size, model.width) == (32, 9)
    assert build("Net", {"image_size": 5, "num_classes": 7}).image_size == 5


def test_functions_classes_in_classes_and_what_another_module_of_the_package_defines() -> None:
    assert build("any_keywords", {"width": 5}).width == 5
    assert build("keyword_only", {"depth": 3}).out_features == 7
    assert build("narrow").width == 2
    assert build("Net.Inner").out_features == 7
    assert isinstance(build("Own"), nn.Module)
    assert build("Readout", {"in_features": 2, "out_features": 5}).out_features == 5


@pytest.mark.parametrize("packages", ["", "my_laboratory", "my_lab.layers", "my_lab.models.deep"])
def test_without_permission_nothing_of_a_user_is_imported(monkeypatch: pytest.MonkeyPatch, packages: str) -> None:
    monkeypatch.setenv(ALLOW_VARIABLE, packages)
    said = "architecture: importing 'my_lab' is not allowed; allow it with `allow_imports` my_lab or "
    assert refusal("my_lab.models:Net") == f"{said}{ALLOW_VARIABLE}=my_lab"
    assert not Path("imported").exists()
    assert "my_lab" not in sys.modules


def test_a_dotted_prefix_is_permission_for_what_is_below_it_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ALLOW_VARIABLE, "my_lab.models")
    assert isinstance(build("Net"), nn.Module)
    assert "Readout is of 'my_lab.layers', which is not an allowed package" in refusal("my_lab.models:Readout")


@pytest.mark.parametrize(
    ("path", "home"),
    [
        ("os", "os"),
        ("os.system", "os"),
        ("subprocess.Popen", "subprocess"),
        ("torch.hub.load", "torch"),
        ("Path", Path.__module__),
        ("functools.partial", "functools"),
        ("run", "posix"),
        ("Net.load_state_dict", "torch.nn.modules.module"),
        ("Net.mro", "builtins"),
    ],
)
def test_what_an_allowed_package_imports_cannot_be_reached_through_it(path: str, home: str) -> None:
    assert f"is of '{home}', which is not an allowed package" in refusal(f"my_lab.models:{path}", {"command": "x"})
    assert not Path("called").exists()


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("my_lab.models:Ned", "there is no 'Ned' in my_lab.models; did you mean 'Net'"),
        ("my_lab.models:Net.Iner", "there is no 'Iner' in Net; did you mean 'Inner'?"),
        ("my_lab.models:NUMBER", "is of type int; it must be a class or function"),
        ("my_lab.models:NUMBER.real", "real is neither in a module nor in a class"),
        ("my_lab.models:_private", "_private is private"),
        ("my_lab.models:Net.__init__", "__init__ is private"),
        ("my_lab.models:Net-2", "is not an import path such as"),
        ("my_lab..models:Net", "is not an import path such as"),
        ("my_lab.models:Net.", "is not an import path such as"),
        ("my_lab.model:Net", "there is no module 'my_lab.model', neither in /"),
        ("my_lab.models.deep:Net", "there is no module 'my_lab.models.deep'"),
        ("my_lab.models:raises", "my_lab.models:raises: KeyError: 'weights' (models.py, line 52)"),
        ("my_lab.models:leaves", "my_lab.models:leaves: SystemExit (models.py, line 56)"),
        ("my_lab.models:gives_a_number", "gives something of type int, not a torch.nn.Module"),
        ("my_lab.models:Lazy", "has lazy layers"),
    ],
)
def test_a_path_that_leads_to_no_model_is_reported(path: str, said: str) -> None:
    line = refusal(path)
    assert line.startswith("architecture: ")
    assert said in line


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("import nothing_like_it", "ModuleNotFoundError: No module named 'nothing_like_it' (broken.py, line 1)"),
        ("def f(:", "SyntaxError: invalid syntax (broken.py, line 1)"),
        ("1 / 0", "ZeroDivisionError: division by zero (broken.py, line 1)"),
        ("raise SystemExit(3)", "SystemExit: 3 (broken.py, line 1)"),
    ],
)
def test_a_package_that_cannot_be_imported_is_reported(my_lab: Path, source: str, said: str) -> None:
    (my_lab / "broken.py").write_text(source)
    assert refusal("my_lab.broken:Net") == f"architecture: my_lab.broken cannot be imported: {said}"


@pytest.mark.parametrize(
    ("name", "args", "said"),
    [
        (
            "Net",
            {"widht": 3},
            "architecture_args.widht: my_lab.models:Net takes no such argument; did you mean 'width'",
        ),
        ("Net", {"widht": 3}, "it takes num_classes, image_size, width"),
        ("Net", {"num_classes": 8}, "architecture_args.num_classes: 8, but the data set has 7 classes"),
        ("any_keywords", {"num_classes": 8}, "architecture_args.num_classes: 8, but the data set has 7 classes"),
        ("raises", {"x": 1}, "architecture_args.x: my_lab.models:raises takes no such argument; it takes none"),
        ("raises", {"num_classes": 7}, "architecture_args.num_classes: my_lab.models:raises takes no such argument"),
        ("keyword_only", {}, "architecture_args: my_lab.models:keyword_only needs depth"),
        ("any_keywords", {"x": 1}, "my_lab.models:any_keywords: TypeError: "),
    ],
)
def test_arguments_that_do_not_fit_are_reported(name: str, args: dict[str, Any], said: str) -> None:
    assert said in refusal(f"my_lab.models:{name}", args)


def test_what_is_installed_is_not_hidden_by_the_current_folder(
    my_lab: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = tmp_path / "installed"
    installed.mkdir()
    my_lab.rename(installed / "my_lab")
    my_lab.mkdir()
    (my_lab / "__init__.py").write_text("raise RuntimeError('the one of the current folder')")
    monkeypatch.setattr(sys, "path", [*sys.path, str(installed)])
    assert isinstance(build("Net"), nn.Module)


def test_weights_do_not_depend_on_whether_the_module_was_imported_before() -> None:
    torch.manual_seed(3)
    first = build("Net").readout.weight
    torch.manual_seed(3)
    assert torch.equal(build("Net").readout.weight, first)


def test_values_made_at_import_are_real_where_models_are_on_meta() -> None:
    with torch.device("meta"):
        assert build("Net").readout.weight.is_meta
    assert sys.modules["my_lab.models"].SCALE.tolist() == [1.0]


# -- the document ------------------------------------------------------------------------------------------------

DOCUMENT = (REPOSITORY / "docs/your_model.md").read_text()


def test_the_example_in_the_document_works_as_described(my_lab: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ALLOW_VARIABLE)
    (code,) = re.findall(r"```python\n(.*?)```", DOCUMENT, re.S)
    (job,) = map(json.loads, re.findall(r"```json\n(.*?)```", DOCUMENT, re.S))
    (option,) = re.findall(r"^    accel-train run-queue --allow-imports (\S+)$", DOCUMENT, re.M)
    (my_lab / "models.py").write_text(code)

    def build() -> nn.Module:
        size = job["image_size"]
        return registry.build(job["architecture"], job["architecture_args"], num_classes=10, image_size=size)

    with pytest.raises(UserError, match="importing 'my_lab' is not allowed"):
        build()
    assert f"`{ALLOW_VARIABLE}={option}`" in DOCUMENT
    monkeypatch.setenv(ALLOW_VARIABLE, "")
    allow_imports(option)
    model = build()
    assert model(torch.randn(2, 3, job["image_size"], job["image_size"])).shape == (2, 5, 10)
    assert model.get_submodule("bottom_up").out_channels == job["architecture_args"]["features"]


def test_the_path_of_python_is_as_before_once_a_model_is_built(own_environment: Path, my_lab: Path) -> None:
    (own_environment / "beside.py").write_text("WIDTH = 5\n")
    lazily = "def lazily(num_classes):\n    import beside\n    return nn.Linear(beside.WIDTH, num_classes)\n"
    (my_lab / "models.py").write_text(f"{MODELS}\n\n{lazily}")
    before = [*sys.path]
    for _ in range(2):
        sys.modules.pop("beside", None)
        assert build("lazily").in_features == 5
        assert sys.path == before
    sys.modules.pop("beside")
    refusal("my_lab.nowhere:Net")
    assert sys.path == before
