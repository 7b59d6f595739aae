"""timm's models by name, with random weights."""

import inspect
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from faults.fork_server import ForkServer

from accel_trainer.core.errors import UserError
from accel_trainer.zoo import registry, timm_models


def build(name: str, args: dict[str, Any] | None = None, *, image_size: int = 32) -> torch.nn.Module:
    return registry.build(f"timm:{name}", args or {}, num_classes=7, image_size=image_size)


@pytest.fixture(autouse=True)
def no_download(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("weights are not to be loaded")

    monkeypatch.setattr("timm.models._builder.load_pretrained", refuse)
    monkeypatch.setattr("torch.hub.load_state_dict_from_url", refuse)


@pytest.mark.parametrize("name", ["resnet18", "convnext_atto", "vit_tiny_patch16_224", "regnetx_002"])
def test_a_model_gives_a_logit_for_each_class_at_any_image_size(name: str) -> None:
    with torch.device("meta"):
        model = build(name)
        assert model.train()(torch.empty(2, 3, 32, 32)).shape == (2, 7)


def test_it_is_timms_own_with_arguments_passed_on() -> None:
    torch.manual_seed(1)
    ours = build("vit_tiny_patch16_224", {"depth": 2, "img_size": 48}).eval()
    torch.manual_seed(1)
    plain = timm.create_model("vit_tiny_patch16_224", num_classes=7, img_size=48, depth=2).eval()
    images = torch.randn(1, 3, 48, 48)
    assert torch.equal(ours(images), plain(images))


@pytest.mark.parametrize(
    ("name", "args", "said"),
    [
        ("convnext_tini", {}, "architecture: no model 'convnext_tini' in timm; did you mean 'convnext_tiny'"),
        ("convnext_tiny.fb_in1k", {}, "in timm; did you mean 'convnext_tiny'? Weights are not loaded by it"),
        ("hf-hub:timm/resnet18", {}, "architecture: no model 'hf-hub:timm/resnet18' in timm"),
        ("local-dir:/tmp/x", {}, "architecture: no model 'local-dir:/tmp/x' in timm"),
        ("zzzzzz", {}, "architecture: no model 'zzzzzz' in timm; timm.list_models() has them all"),
        ("resnet18", {"foo": 1}, "architecture_args: timm:resnet18: ResNet.__init__() got an unexpected keyword"),
        ("resnet18", {"num_classes": 8}, "architecture_args.num_classes: 8, but the data set has 7 classes"),
        ("resnet18", {"pretrained": True}, "architecture_args.pretrained: cannot be set for models of timm"),
        ("resnet18", {"checkpoint_path": "x.pth"}, "architecture_args.checkpoint_path: cannot be set"),
        ("resnet18", {"in_chans": 1}, "architecture_args.in_chans: cannot be set"),
        ("resnet18", {"features_only": True}, "architecture_args.features_only: cannot be set"),
    ],
)
def test_a_wrong_name_or_argument_is_one_clear_line(name: str, args: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError) as caught:
        build(name, args)
    (line,) = caught.value.problems
    assert said in line
    assert "\n" not in line


def test_what_timm_decides_is_known_by_the_names_that_it_has() -> None:
    parameters = inspect.signature(timm.models.build_model_with_cfg).parameters
    decided = timm_models.DECIDED_HERE.union(inspect.signature(timm.create_model).parameters)
    assert set(parameters) - {"model_cls", "variant"} <= decided


def test_without_timm_the_command_to_install_it_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timm_models, "is_installed", lambda: False)
    with pytest.raises(UserError, match=r"^architecture: timm is not installed; pip install 'accel-train\[timm\]'$"):
        build("resnet18")


def test_timm_is_imported_only_where_it_is_named(server: ForkServer, tmp_path: Path) -> None:
    code = "import sys; from accel_trainer.zoo import registry; sys.exit('timm' in sys.modules)"
    assert server.script(code, [], tmp_path / "log", processes=1) == [0]
