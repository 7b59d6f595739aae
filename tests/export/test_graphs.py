"""ONNX and torch.export: the graph gives what the model gives, for batches of any size, and names no machine."""

import getpass
import importlib.util
import json
import socket
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from accel_trainer import Run, UserError, load_export
from accel_trainer.export import graph
from accel_trainer.zoo.registry import ZOO

REPOSITORY = Path(__file__).parents[2]
# Small ones, each with all kinds of its connections.
BLT = {"features": [4, 6, 8], "kernel_sizes": [3, 3, 3], "num_cycles": 2}
SMALL: dict[str, dict[str, Any]] = {
    "cornet_z": {"features": [4] * 4},
    # Of one channel in a group, GroupNorm makes large numbers of rounding.
    "cornet_r": {"features": [64] * 4, "num_cycles": 2},
    "cornet_rt": {"features": [64] * 4, "num_cycles": 4},
    "cornet_s": {"features": [4] * 4, "num_cycles": [1, 2, 1]},
    "cornet_s_plus": {"F": [4] * 4, "R": [1, 2, 1, 1]},
    "cornet_s_custom": {"F": [4] * 4, "R": [1, 1, 1, 2]},
    "blt_b": {**BLT, "readout": "cumulative"},
    "blt_bl": {**BLT, "readout": "cumulative"},
    "blt_bt": BLT,
    "blt_blt": BLT,
    "small_cnn": {"features": [4, 4, 4]},
}
RECURRENT = ("blt_blt", {**BLT, "num_cycles": 3, "return_cycles": "all"})


def run_onnx(path: Path, inputs: torch.Tensor) -> torch.Tensor:
    session = onnxruntime.InferenceSession(str(path))
    (output,) = session.run(None, {session.get_inputs()[0].name: inputs.numpy()})
    return torch.from_numpy(output)


@pytest.mark.slow
@pytest.mark.parametrize("name", ZOO)
def test_an_onnx_file_of_every_model_of_the_zoo_gives_its_logits(make_run, tmp_path, name: str) -> None:
    size = 64 if name in ("cornet_r", "cornet_rt") else 32
    run = make_run(name, SMALL[name], image_size=size)
    written = run.export(tmp_path / "out", "onnx")
    assert list(written.checks) == ["model.onnx, batch of 1", "model.onnx, batch of 3"]
    inputs = torch.randn(5, 3, size, size, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = run.model()(inputs)
    assert (run_onnx(tmp_path / "out/model.onnx", inputs) - expected).abs().max() < 1e-4


@pytest.mark.parametrize(("file_format", "cycles"), [("onnx", "all"), ("torch-export", "last")])
def test_of_a_recurrent_model_the_last_cycle_or_all(make_run, run_card, image, tmp_path, file_format, cycles) -> None:
    run = make_run(*RECURRENT)
    written = run.export(tmp_path / "out", file_format, cycles=cycles)
    (names,) = run_card(tmp_path / "out").values()
    with torch.inference_mode():
        expected = run.model()(run.transform(image)[None])
    assert expected.shape == (1, 3, 3)
    expected = expected[:, -1] if cycles == "last" else expected
    np.testing.assert_allclose(np.asarray(names["logits"]), expected, atol=1e-4)
    assert written.notes[0] == f"Its output is that of {'the last of 3' if cycles == 'last' else 'all 3'} cycles."
    with pytest.raises(UserError, match=rf"of the format {file_format}, whose card"):
        load_export(tmp_path / "out").model()


def test_an_onnx_file_says_how_to_use_it_and_nothing_of_the_machine(make_run, tmp_path) -> None:
    run = make_run("small_cnn", SMALL["small_cnn"])
    run.export(tmp_path / "out", "onnx")
    model = onnx.load(tmp_path / "out/model.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert [one.version for one in model.opset_import if not one.domain] == [18]
    (given,) = model.graph.input
    assert [size.dim_param or size.dim_value for size in given.type.tensor_type.shape.dim] == ["batch", 3, 16, 16]
    about = {one.key: one.value for one in model.metadata_props}
    assert json.loads(about["classes"]) == run.classes
    assert json.loads(about["preprocessing"])["mean"] == run.job.mean
    assert_names_no_machine(tmp_path / "out", tmp_path)


def test_a_program_says_nothing_of_the_machine(make_run, tmp_path) -> None:
    make_run("small_cnn", SMALL["small_cnn"]).export(tmp_path / "out", "torch-export")
    assert_names_no_machine(tmp_path / "out", tmp_path)


def assert_names_no_machine(folder: Path, place: Path) -> None:
    content = b"".join(path.read_bytes() for path in folder.iterdir())
    for word in (str(place), str(REPOSITORY), socket.gethostname(), f"/{getpass.getuser()}/", "site-packages"):
        assert word.encode() not in content, word


def test_a_graph_of_clips_takes_clips(make_run, run_card, image, tmp_path) -> None:
    run = make_run("blt_bl", BLT, video=True, num_views=2)
    run.export(tmp_path / "out", "torch-export")
    (names,) = run_card(tmp_path / "out").values()
    with torch.inference_mode():
        assert torch.allclose(names["logits"], run.model()(run.transform(image)[None]), atol=1e-5)


# -- mistakes ---------------------------------------------------------------------------------------------------------


def test_a_graph_that_gives_something_else_is_not_written(make_run, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(graph, "TOLERANCE", -1.0)
    with pytest.raises(UserError, match=r"model\.pt2: its output differs by .* not written"):
        make_run("small_cnn", SMALL["small_cnn"]).export(tmp_path / "out", "torch-export")
    assert not (tmp_path / "out").exists()


def test_a_model_that_looks_at_values_cannot_be_written_as_a_graph(make_run, tmp_path) -> None:
    with pytest.raises(UserError, match="tiny_models:LooksAtValues cannot be written as a graph"):
        make_run("tiny_models:LooksAtValues").export(tmp_path / "out", "torch-export", allow="tiny_models")


def test_all_cycles_of_a_model_that_gives_one(trained: Run, tmp_path) -> None:
    with pytest.raises(UserError, match="small_cnn gives logits of one cycle only"):
        trained.export(tmp_path / "out", "onnx", cycles="all")


def test_a_missing_package_and_a_model_that_is_too_large(trained: Run, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("accel_trainer.export.onnx_file.MAX_BYTES", 100)
    with pytest.raises(UserError, match="one ONNX file holds 2 GB"):
        trained.export(tmp_path / "out", "onnx")
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "onnx" else find(name, *rest))
    with pytest.raises(UserError, match=r"needs onnx; pip install 'accel-train\[onnx\]'"):
        trained.export(tmp_path / "out", "onnx")
