"""Frozen features: those of forward hooks, in the same bits however they are computed, on and off disks."""

import errno
import json
import os
from pathlib import Path
from typing import Any

import helpers
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file
from tiny_runs import finish, tiny_job
from torch import Tensor
from typer.testing import CliRunner, Result

from accel_trainer.api.trained_run import Run
from accel_trainer.cli import app
from accel_trainer.core.errors import UserError
from accel_trainer.data.sources.digits import Digits
from accel_trainer.evaluation import feature_files
from accel_trainer.evaluation.feature_files import FeatureFiles
from accel_trainer.evaluation.layers import first_tensor

one_core = pytest.fixture(autouse=True)(helpers.one_core)

# Digits of 32 pixels, in few steps.
JOB: dict[str, Any] = {"image_size": 32, "batch_size": 128, "transform_type": "none"}
RECURRENT = {"architecture": "cornet_rt", "architecture_args": {"features": [32, 32, 32, 64]}}
# Its activations work in place.
FEEDFORWARD = {"architecture": "shufflenet_v2_x0_5", "architecture_args": {}}


@pytest.fixture(autouse=True)
def on_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """A recurrent and a feedforward run. Only to be read."""
    folder = tmp_path_factory.mktemp("runs")
    architectures = {"recurrent": RECURRENT, "feedforward": FEEDFORWARD}
    return {name: finish(folder / name, **JOB, **architecture) for name, architecture in architectures.items()}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """21 digits in folders of two depths."""
    folder, digits = tmp_path_factory.mktemp("images"), Digits("val")
    for index in range(21):
        path = folder / f"{index % 3}" / ("deep" if index % 2 else "") / f"{index:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(digits.read(index).permute(1, 2, 0).numpy()).save(path)
    return folder


def paths(images: Path) -> list[Path]:
    return sorted(images.rglob("*.png"), key=str)


def hooked(run: Run, images: Path, layer: str, batch_size: int) -> list[np.ndarray]:
    """What a forward hook sees of a layer, written down at once, for each call in a pass: plain torch."""
    model, calls = run.model(), list[list[Tensor]]()

    def hook(module: Any, inputs: Any, output: Any) -> None:
        calls[-1].append(output.clone())

    model.get_submodule(layer).register_forward_hook(hook)
    tensors = [run.transform(path) for path in paths(images)]
    for start in range(0, len(tensors), batch_size):
        calls.append([])
        with torch.inference_mode():
            model(torch.stack(tensors[start : start + batch_size]))
    return [torch.cat(cycle).numpy() for cycle in zip(*calls, strict=True)]


# -- what they are --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "layer"), [("recurrent", "V2"), ("feedforward", "conv1.1"), ("feedforward", "stage4")]
)
def test_features_are_those_of_forward_hooks_bit_for_bit(
    runs: dict[str, Run], images: Path, kind: str, layer: str
) -> None:
    found = runs[kind].features(images, [layer], batch_size=8)
    expected = hooked(runs[kind], images, layer, 8)
    names = [layer] if len(expected) == 1 else [f"{layer}-t{cycle}" for cycle in range(len(expected))]
    assert list(found) == names
    for features, values in zip(found.values(), expected, strict=True):
        np.testing.assert_array_equal(features, values)
    if layer == "conv1.1":
        assert expected[0].min() < 0  # before the ReLU, which works in place


def test_the_last_layer_gives_the_logits(runs: dict[str, Run], images: Path) -> None:
    run = runs["recurrent"]
    with torch.inference_mode():
        logits = run.model()(torch.stack([run.transform(path) for path in paths(images)]))
    np.testing.assert_array_equal(run.features(images, ["decoder"])["decoder"], logits.numpy())


def test_states_of_cycles_are_those_of_the_published_recurrence(runs: dict[str, Run], images: Path) -> None:
    """CORnet-RT: the state of an area is that of the area below one cycle before, added to its own and processed."""
    run = runs["recurrent"]
    model: Any = run.model()
    found = run.features(images, ["V1", "V2"])
    with torch.inference_mode():
        below, state = (torch.from_numpy(found[name]) for name in ("V1-t2", "V2-t2"))
        expected = model.V2.recurrent(model.V2.input(below) + state)
    np.testing.assert_array_equal(found["V2-t3"], expected.numpy())


def test_cycles_within_an_area_of_cornet_s_can_be_taken() -> None:
    from accel_trainer.evaluation.layers import activations
    from accel_trainer.zoo.cornet import cornet_s

    model = cornet_s(num_classes=3, features=[8, 8, 8, 8]).eval()
    names = [one.name for one in activations(model, tiny_job(Path("run"), **JOB))]
    assert [name for name in names if ".output" in name] == [
        *("V2.output-t0", "V2.output-t1"),
        *("V4.output-t0", "V4.output-t1", "V4.output-t2", "V4.output-t3"),
        *("IT.output-t0", "IT.output-t1"),
    ]


def test_words_name_layers_cycles_and_outputs(runs: dict[str, Run], images: Path) -> None:
    run = runs["recurrent"]
    found = run.features(images, ["IT-t4", "V1.output-t1", "V1-t1", "IT"])
    assert list(found) == ["IT-t4", "V1.output-t1", "V1-t1", "IT-t0", "IT-t1", "IT-t2", "IT-t3"]
    np.testing.assert_array_equal(found["V1.output-t1"], found["V1-t1"])
    assert {name: run.layers()[name] for name in ("V1-t1", "IT-t4", "decoder")} == {
        "V1-t1": (32, 8, 8),
        "IT-t4": (64, 1, 1),
        "decoder": (3,),
    }


def test_pools(runs: dict[str, Run], images: Path) -> None:
    run = runs["recurrent"]
    whole = run.features(images, ["V1-t4", "decoder"])
    flat = run.features(images, ["V1-t4", "decoder"], pool="flatten")
    mean = run.features(images, ["V1-t4", "decoder"], pool="mean")
    np.testing.assert_array_equal(flat["V1-t4"], whole["V1-t4"].reshape(21, -1))
    np.testing.assert_allclose(mean["V1-t4"], whole["V1-t4"].mean((2, 3)), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(mean["decoder"], whole["decoder"])


def test_images_in_memory_are_those_of_a_folder(runs: dict[str, Run], images: Path) -> None:
    run = runs["recurrent"]
    expected = run.features(images, ["IT-t4"])["IT-t4"]
    pictures = [Image.open(path) for path in paths(images)]
    arrays = np.stack([np.asarray(picture) for picture in pictures])
    for given in (paths(images), pictures, arrays):
        np.testing.assert_array_equal(run.features(given, ["IT-t4"])["IT-t4"], expected)


def test_the_first_tensor_of_an_output_is_taken() -> None:
    tensor = torch.zeros(2)
    assert first_tensor({"hidden": (None, tensor)}) is tensor
    assert first_tensor(("no", 3)) is None


# -- in files -------------------------------------------------------------------------------------------------


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_files_have_the_same_features_and_names(runs: dict[str, Run], images: Path, tmp_path: Path) -> None:
    run = runs["recurrent"]
    expected = run.features(images, ["V1", "decoder"], batch_size=8)
    written = run.write_features(tmp_path / "npy", ["V1", "decoder"], images=images, batch_size=8)
    run.write_features(tmp_path / "one", ["V1", "decoder"], images=images, batch_size=8, file_format="safetensors")
    tensors = load_file(tmp_path / "one" / "features.safetensors")
    assert (written.images, written.corrupt, written.computed) == (21, 0, 21)
    assert list(tensors) == sorted(expected)
    names = [str(path.relative_to(images)) for path in paths(images)]
    for name, values in expected.items():
        np.testing.assert_array_equal(np.load(tmp_path / "npy" / name / "features.npy"), values)
        np.testing.assert_array_equal(tensors[name], values)
        assert (tmp_path / "npy" / name / "file_names.txt").read_text().splitlines() == names
    assert (tmp_path / "one" / "file_names.txt").read_text().splitlines() == names


def test_the_validation_images_are_the_default(runs: dict[str, Run], tmp_path: Path) -> None:
    run = runs["recurrent"]
    written = run.write_features(tmp_path / "out", ["decoder"])
    logits = np.load(tmp_path / "out" / "decoder" / "features.npy")
    digits = Digits("val")
    own = [index for index, label in enumerate(digits.labels.tolist()) if label in (0, 1, 2)]
    labels = np.array([[2, 0, 1].index(int(digits.labels[index])) for index in own])
    assert (written.images, len(logits)) == (135, 135)
    assert 100 * np.mean(logits.argmax(1) == labels) == pytest.approx(run.evaluate().scores["acc1"], abs=1e-4)


@pytest.mark.parametrize("file_format", ["npy", "safetensors"])
def test_a_call_that_was_ended_is_gone_on_with(
    runs: dict[str, Run], images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file_format: Any
) -> None:
    """Ended in each batch: before its rows are written, and after, with and without a note of what is on the disk."""
    run, layers = runs["recurrent"], ["V1", "decoder"]
    run.write_features(tmp_path / "whole", layers, images=images, batch_size=4, file_format=file_format)
    write = FeatureFiles.write
    computed = []
    for ends_in in range(6):
        out = tmp_path / f"ended{ends_in}"
        calls = [0]

        def ending(files: FeatureFiles, *args: Any, calls: list[int] = calls, last: int = ends_in) -> None:
            if calls[0] == last and last % 2:
                write(files, *args)
            if calls[0] == last:
                raise KeyboardInterrupt
            calls[0] += 1
            write(files, *args)

        with monkeypatch.context() as patch:
            patch.setattr(FeatureFiles, "write", ending)
            patch.setattr(feature_files, "FLUSH_EVERY_S", 0.0 if ends_in > 2 else 100.0)
            with pytest.raises(KeyboardInterrupt):
                run.write_features(out, layers, images=images, batch_size=4, file_format=file_format)
        assert not json.loads((out / "features.json").read_text())["complete"]
        again = run.write_features(out, layers, images=images, batch_size=4, file_format=file_format)
        computed.append(again.computed)
        assert files_of(out) == files_of(tmp_path / "whole")
    assert computed == [21, 21, 21, 5, 5, 0]  # nothing is noted before it is on the disk


def test_what_is_complete_is_not_computed_again(
    runs: dict[str, Run], images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs["recurrent"].write_features(tmp_path / "out", ["decoder"], images=images)
    monkeypatch.setattr(FeatureFiles, "write", None)
    assert runs["recurrent"].write_features(tmp_path / "out", ["decoder"], images=images).computed == 0


def test_a_corrupt_image_has_nan(runs: dict[str, Run], tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    digit = Image.fromarray(Digits("val").read(0).permute(1, 2, 0).numpy())
    for index in range(4):
        digit.save(folder / f"{index}.png")
    (folder / "1.png").write_bytes(b"no image")
    written = runs["recurrent"].write_features(tmp_path / "out", ["decoder"], images=folder, batch_size=2)
    values = np.load(tmp_path / "out" / "decoder" / "features.npy")
    assert written.corrupt == 1
    assert np.isnan(values).all(axis=1).tolist() == [False, True, False, False]
    assert json.loads((tmp_path / "out" / "features.json").read_text())["corrupt"] == ["1.png"]
    again = runs["recurrent"].write_features(tmp_path / "out", ["decoder"], images=folder, batch_size=2)
    assert (again.corrupt, again.computed) == (1, 0)
    (folder / "2.png").write_bytes(b"no image")
    with pytest.raises(UserError, match="2 of 4 validation images are corrupt"):
        runs["recurrent"].features(folder, ["decoder"])


def test_memory_does_not_grow_with_the_images(runs: dict[str, Run], images: Path, tmp_path: Path) -> None:
    peaks = []
    for count in (200, 500, 5000):  # the first warms up
        folder = tmp_path / str(count)
        folder.mkdir()
        for index in range(count):
            os.link(paths(images)[index % 21], folder / f"{index}.png")
        Path("/proc/self/clear_refs").write_text("5")  # the peak counts from now on
        runs["recurrent"].write_features(tmp_path / f"out{count}", ["V1-t4", "V2-t4"], images=folder)
        lines = Path("/proc/self/status").read_text().splitlines()
        peaks.append(next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")))
    assert (tmp_path / "out5000" / "V1-t4" / "features.npy").stat().st_size > 40e6
    assert peaks[2] < 1.05 * peaks[1]


# -- mistakes -------------------------------------------------------------------------------------------------


def test_mistakes_are_one_line_each(runs: dict[str, Run], images: Path, tmp_path: Path) -> None:
    run = runs["recurrent"]
    with pytest.raises(UserError) as caught:
        run.features(images, ["V1", "ITT.output-t3", "IT-t9"])
    assert caught.value.problems == [
        "layers: 'ITT.output-t3' is no layer of the model; did you mean 'IT'?; it has V1, V2, V4, IT, decoder and what "
        "is in them",
        "layers: IT has no cycle 9; it has IT-t0, IT-t1, IT-t2, IT-t3, IT-t4",
    ]
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no image in it"):
        run.features(tmp_path / "empty", ["V1"])
    with pytest.raises(UserError, match="no such folder"):
        run.features(tmp_path / "gone", ["V1"])


def test_a_disk_that_takes_no_features_is_a_line(
    runs: dict[str, Run], images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", full)
        with pytest.raises(UserError, match=r"`out`: .*features\.npy: no room for 0\.2 MB: No space left on device"):
            runs["recurrent"].write_features(tmp_path / "out", ["V1-t4"], images=images)
    runs["recurrent"].write_features(tmp_path / "there", ["V1-t4"], images=images)
    runs["recurrent"].write_features(tmp_path / "out", ["V1-t4"], images=images)
    assert files_of(tmp_path / "out") == files_of(tmp_path / "there")
    for call in ("pwrite", "fdatasync"):
        with monkeypatch.context() as patch:
            patch.setattr(os, call, full)
            with pytest.raises(UserError, match=f"`out`: {tmp_path}/{call}: No space left on device"):
                runs["recurrent"].write_features(tmp_path / call, ["V1-t4"], images=images)
        runs["recurrent"].write_features(tmp_path / call, ["V1-t4"], images=images)
        assert files_of(tmp_path / call) == files_of(tmp_path / "there")


def test_a_folder_with_anything_else_is_left_alone(runs: dict[str, Run], images: Path, tmp_path: Path) -> None:
    run, out = runs["recurrent"], tmp_path / "out"
    run.write_features(out, ["V1"], images=images)
    before = files_of(out)
    for changes in ({"layers": ["V2"]}, {"pool": "mean"}, {"weights": "final", "layers": ["V1"]}, {"images": None}):
        given = {"layers": ["V1"], "images": images, **changes}
        with pytest.raises(UserError, match="has features of something else"):
            run.write_features(out, **given)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").touch()
    with pytest.raises(UserError, match=r"is not empty: it has notes\.txt"):
        run.write_features(tmp_path / "other", ["V1"], images=images)
    assert files_of(out) == before


# -- typed ----------------------------------------------------------------------------------------------------


def typed(*words: str | Path) -> Result:
    return CliRunner().invoke(app, ["features", *map(str, words)])


def test_the_verb_lists_layers(runs: dict[str, Run]) -> None:
    lines = [line.split() for line in typed(runs["recurrent"].path, "--list").output.splitlines()]
    assert ["V1", "t0", "to", "t4", "32", "x", "8", "x", "8"] in lines
    assert ["decoder", "3"] in lines


def test_the_verb_needs_layers_and_a_folder(runs: dict[str, Run]) -> None:
    result = typed(runs["recurrent"].path, "--layers", "V1")
    assert "name --layers and --out, or --list all layers" in str(result.exception)


@pytest.mark.slow
def test_two_processes_write_the_bytes_of_one(runs: dict[str, Run], images: Path, tmp_path: Path) -> None:
    run = runs["recurrent"]
    run.write_features(tmp_path / "one", ["V1", "IT"], images=images, batch_size=4)
    command = [run.path, "--layers", "V1,IT", "--images", images, "--out", tmp_path / "two", "--batch-size", "4"]
    first = typed(*command, "--num-processes", "2", "--cpu", "--json")
    assert first.exit_code == 0, first.output
    answer = json.loads(first.stdout)
    assert (answer["images"], answer["computed"]) == (21, 21)
    assert files_of(tmp_path / "two") == files_of(tmp_path / "one")
    assert "21 of them were there before" in typed(*command, "--cpu").output
