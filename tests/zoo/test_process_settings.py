"""What code of others does to the process when it is imported, or builds a model, is undone, and said once."""

import logging
import os
import re
import signal
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from faults.fork_server import ForkServer

from accel_trainer.data.precision import float32_as
from accel_trainer.zoo import process_settings
from accel_trainer.zoo.process_settings import settings_kept
from accel_trainer.zoo.user_models import build

# Each line by itself, and what the log calls it.
LINES = {
    "torch.backends.cuda.matmul.allow_tf32 = True": "the precision of float32",
    "torch.backends.cudnn.allow_tf32 = True": "the precision of float32",
    "torch.set_float32_matmul_precision('medium')": "the precision of float32",
    "torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False": "sums in half precision",
    "torch.backends.cudnn.benchmark = True": "cudnn.benchmark",
    "torch.backends.cudnn.deterministic = False": "cudnn.deterministic",
    "torch.backends.cudnn.enabled = False": "cudnn.enabled",
    "torch.use_deterministic_algorithms(True)": "deterministic algorithms",
    "torch.backends.cuda.enable_flash_sdp(False)": "kernels of attention",
    "torch.set_num_threads(torch.get_num_threads() + 1)": "torch's number of threads",
    "torch.set_default_dtype(torch.float64)": "torch's default dtype",
    "torch.set_default_device('meta')": "torch's default device",
    "torch.set_grad_enabled(False)": "whether gradients are computed",
    "torch.autograd.set_detect_anomaly(True)": "anomaly detection",
    "sys.stdout = io.StringIO()": "sys.stdout",
    "logging.disable(logging.CRITICAL)": "logging",
    "logging.config.dictConfig({'version': 1})": "logging",
    "warnings.filterwarnings('error', 'rude')": "warnings that are errors",
    "os.environ['OMP_NUM_THREADS'] = '1'": "environment variables",
    "os.environ['CUDA_VISIBLE_DEVICES'] = '7'": "environment variables",
    "os.environ['CUBLAS_WORKSPACE_CONFIG'] = ':0:0'": "environment variables",
    "os.chdir('/')": "the working folder",
    "gc.disable()": "garbage collection",
    "signal.signal(signal.SIGTERM, signal.SIG_IGN)": "handlers of signals",
}
IMPORTS = "import gc, io, logging, logging.config, os, signal, sys, torch, warnings"
WEIGHT = "self.weight = torch.nn.Parameter(torch.zeros(3))"
# Where torch is told in its newer way, its older one cannot be read any more: in a process of its own.
NEWER = """
import torch
from accel_trainer.zoo.process_settings import settings_kept
places = (torch.backends.cuda.matmul, torch.backends.cudnn.conv, torch.backends.mkldnn.matmul)
torch.set_float32_matmul_precision("highest")
torch.backends.cudnn.allow_tf32 = False
before = [place.fp32_precision for place in places], torch.get_float32_matmul_precision()
with settings_kept("my_lab"):
    for place in places:
        place.fp32_precision = "tf32"
assert ([place.fp32_precision for place in places], torch.get_float32_matmul_precision()) == before
assert not torch.backends.cudnn.allow_tf32
"""


@pytest.fixture(autouse=True)
def said(own_environment: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """A package of the user's that may be imported; nothing was said before, and what is said is seen."""
    monkeypatch.setenv("ACCEL_TRAIN_ALLOW_IMPORTS", "rude")
    process_settings._say.cache_clear()
    monkeypatch.setattr(logging.getLogger("accel_trainer"), "propagate", True)
    caplog.set_level(logging.INFO, "accel_trainer")
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    with float32_as(tf32=False):
        yield
    sys.modules.pop("rude", None)


@pytest.mark.parametrize("line", LINES)
def test_a_setting_is_put_back_and_named(line: str, caplog: pytest.LogCaptureFixture) -> None:
    settings = process_settings._settings()
    before = [setting.value() for setting in settings]
    with settings_kept("my_lab.models:Net"):
        exec(f"{IMPORTS}\n{line}")
        assert [setting.value() for setting in settings] != before, "it was changed at all"
    assert [setting.value() for setting in settings] == before
    (message,) = caplog.messages
    assert re.fullmatch(rf"my_lab.models:Net has changed settings of the process, .*: .*{LINES[line]}.*", message)


@pytest.mark.skipif(not hasattr(torch.backends.cuda.matmul, "fp32_precision"), reason="torch has the older way only")
def test_also_where_torch_is_told_in_its_newer_way(server: ForkServer, tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert server.script(NEWER, [], log, processes=1) == [0], log.read_text()


@pytest.mark.parametrize("where", ["import", "constructor"])
def test_a_users_model_changes_nothing_of_the_process(
    where: str, own_environment: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lines = [IMPORTS, *LINES, "torch.set_default_dtype(torch.float64)"]
    at_import, inside = (lines, ["pass"]) if where == "import" else (["pass"], lines)
    indented = [f"        {line}" for line in (*inside, "torch.nn.Module.__init__(self)", WEIGHT)]
    head = ["import torch", *at_import, "class Net(torch.nn.Linear):", "    def __init__(self, num_classes):"]
    source = "\n".join([*head, *indented, ""])
    (own_environment / "rude.py").write_text(source)
    before = [setting.value() for setting in process_settings._settings()]
    for _ in range(2):
        model = build("rude:Net", {}, num_classes=3, image_size=8)
    assert [setting.value() for setting in process_settings._settings()] == before
    assert len(caplog.messages) == 1, "once"
    if where == "import":
        assert next(model.parameters()).dtype == torch.float32
        assert next(model.parameters()).device.type == "cpu"


def test_a_model_that_fails_changes_nothing_either() -> None:
    handler = signal.getsignal(signal.SIGTERM)
    with suppress(ZeroDivisionError), settings_kept("my_lab"):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise ZeroDivisionError
    assert signal.getsignal(signal.SIGTERM) is handler


def test_what_is_everybodys_own_stays(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv("TORCH_HOME", "/before")
    with settings_kept("my_lab"):
        os.environ["TORCH_HOME"] = "/mine"
        os.environ["HF_HUB_OFFLINE"] = "1"
    assert os.environ["TORCH_HOME"] == "/mine"
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert caplog.messages == []
