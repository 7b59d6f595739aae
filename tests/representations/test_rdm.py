"""`accel-train rdm`: matrices of a folder of features, as rsatoolbox, NumPy and spreadsheets read them."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.spatial.distance import pdist, squareform
from typer.testing import CliRunner, Result

from accel_trainer.cli import app
from accel_trainer.evaluation.feature_files import FeatureFiles, Format
from accel_trainer.representations import dissimilarity
from accel_trainer.representations.rdm_files import read_rdms

# 25 images of five classes, in an order that is not that of their names, and one with a letter that is not ASCII.
NAMES = [f"{'cébda'[image // 5]}/{24 - image}.png" for image in range(25)]
SHAPES: dict[str, tuple[int, ...]] = {"V1-t0": (4, 3, 3), "V1-t1": (4, 3, 3), "IT": (7,)}


def written(folder: Path, file_format: Format = "npy", corrupt: tuple[int, ...] = ()) -> dict[str, np.ndarray]:
    """Features in a folder, as `accel-train features` writes them."""
    rng = np.random.default_rng(0)
    values = {name: rng.normal(size=(25, *shape)).astype(np.float32) for name, shape in SHAPES.items()}
    is_corrupt = np.isin(np.arange(25), corrupt)
    for array in values.values():
        array[is_corrupt] = np.nan
    files = FeatureFiles(folder, SHAPES, NAMES, file_format)
    files.prepare({})
    with files:
        files.write(0, values, is_corrupt)
        files.flush()
    files.finish([NAMES[image] for image in corrupt])
    return {name: array.reshape(25, -1).astype(np.float64) for name, array in values.items()}


def run(*words: object) -> Result:
    return CliRunner().invoke(app, ["rdm", *map(str, words)])


def rdm(*words: object) -> dict[str, Any]:
    ended = run(*words, "--json")
    assert ended.exit_code == 0, ended.exception
    return json.loads(ended.stdout)


@pytest.mark.parametrize("file_format", ["npy", "safetensors"])
def test_rsatoolbox_opens_25_conditions_in_their_order(tmp_path, file_format, monkeypatch):
    toolbox = pytest.importorskip("rsatoolbox", reason="rsatoolbox is not installed: it comes with the extra `test`")
    monkeypatch.setattr(dissimilarity, "OUTER_BYTES", 8 * 36 * 10)
    values = written(tmp_path / "features", file_format)
    row = rdm(tmp_path / "features", "--out", tmp_path / "rdms")
    assert (row["layers"], row["conditions"]) == (list(SHAPES), 25)
    found = toolbox.rdm.load_rdm(str(tmp_path / "rdms/rdms.h5"))
    assert found.dissimilarity_measure == "pearson"
    assert [name.encode().decode("unicode_escape") for name in found.pattern_descriptors["condition"]] == NAMES
    assert list(found.rdm_descriptors["layer"]) == ["V1", "V1", "IT"]
    assert list(found.rdm_descriptors["cycle"]) == [0, 1, -1]
    for matrix, array in zip(found.get_matrices(), values.values(), strict=True):
        np.testing.assert_allclose(matrix, squareform(pdist(array, "correlation")), atol=1e-12)
    theirs = toolbox.rdm.calc_rdm(
        toolbox.data.Dataset(values["IT"], obs_descriptors={"condition": NAMES}), method="correlation"
    )
    np.testing.assert_allclose(found.subset("layer", "IT").get_vectors(), theirs.get_vectors(), atol=1e-12)


def test_the_same_lies_there_for_numpy_and_spreadsheets(tmp_path):
    values = written(tmp_path / "features")
    rdm(tmp_path / "features", "--out", tmp_path / "rdms", "--distance", "euclidean", "--layers", "V1", "--csv")
    assert sorted(path.name for path in (tmp_path / "rdms").iterdir()) == [
        "V1-t0",
        "V1-t1",
        "conditions.txt",
        "rdms.h5",
    ]
    assert (tmp_path / "rdms/conditions.txt").read_text().splitlines() == NAMES
    vector = np.load(tmp_path / "rdms/V1-t1/rdm.npy")
    np.testing.assert_allclose(vector, pdist(values["V1-t1"]), rtol=1e-12)
    with (tmp_path / "rdms/V1-t1/rdm.csv").open() as file:
        header, *lines = list(csv.reader(file))
    assert header[1:] == [line[0] for line in lines] == NAMES
    np.testing.assert_array_equal([[float(cell) for cell in line[1:]] for line in lines], squareform(vector))
    for kind in ("rdm.npy", "rdm.csv"):
        np.testing.assert_array_equal(read_rdms(tmp_path / "rdms/V1-t1" / kind).vectors[0], vector)
    np.testing.assert_array_equal(read_rdms(tmp_path / "rdms").vectors[1], vector)


def test_images_of_a_folder_are_one_condition_and_corrupt_ones_none(tmp_path):
    values = written(tmp_path / "features", corrupt=(6,))
    ended = run(tmp_path / "features", "--out", tmp_path / "rdms", "--by", "class", "--layers", "IT")
    assert "1 corrupt images are left out" in ended.stderr
    found = read_rdms(tmp_path / "rdms")
    assert found.conditions == ("c", "\\xe9", "b", "d", "a")
    means = [np.nanmean(values["IT"][start : start + 5], 0) for start in range(0, 25, 5)]
    np.testing.assert_allclose(found.vectors[0], pdist(means, "correlation"), atol=1e-12)


def test_a_table_says_conditions_and_partitions(tmp_path):
    values = written(tmp_path / "features")
    chosen = [(24, "x", "1"), (0, "y", "1"), (3, "x", "2"), (7, "y", "2"), (8, "y", "2")]
    lines = [f"{NAMES[image]},{condition},{partition}" for image, condition, partition in chosen]
    (tmp_path / "table.csv").write_text("\n".join(["image,condition,partition", *lines]))
    rdm(tmp_path / "features", "--out", tmp_path / "rdms", "--by", tmp_path / "table.csv", "--distance", "crossnobis")
    found = read_rdms(tmp_path / "rdms")
    assert found.conditions == ("x", "y")
    for vector, array in zip(found.vectors, values.values(), strict=True):
        first, second = array[24] - array[0], array[3] - array[[7, 8]].mean(0)
        np.testing.assert_allclose(vector, [first @ second / len(first)], rtol=1e-10)


def test_mistakes_are_a_line_and_leave_nothing(tmp_path):
    written(tmp_path / "features")
    (tmp_path / "table.csv").write_text("image,condition\nnone.png,a\n")
    (tmp_path / "names.csv").write_text("name,condition\nnone.png,a\n")
    features, out = tmp_path / "features", tmp_path / "rdms"
    for words, line in [
        (("--layers", "V2"), "no features of 'V2'"),
        (("--by", tmp_path / "table.csv"), "no features of none.png"),
        (("--by", tmp_path / "names.csv"), "has no column image"),
        (("--distance", "crossnobis"), "IT|V1-t0: crossnobis needs two partitions"),
        (("--noise",), "of crossnobis alone"),
    ]:
        error = run(features, "--out", out, *words).exception
        assert any(part in str(error) for part in line.split("|")), error
        assert not out.exists()
    out.mkdir()
    (out / "mine").touch()
    assert "is not empty" in str(run(features, "--out", out).exception)
    assert "no features" in str(run(out, "--out", tmp_path / "other").exception)
    content = json.loads((features / "features.json").read_text())
    (features / "features.json").write_text(json.dumps(content | {"complete": False}))
    assert "not complete" in str(run(features, "--out", tmp_path / "other").exception)
    (features / "features.json").write_text(json.dumps(content))
    npy = features / "IT" / "features.npy"
    npy.write_bytes(npy.read_bytes()[:-4])
    assert "ends before its last row" in str(run(features, "--out", tmp_path / "other").exception)


def test_memory_does_not_grow_with_the_images(tmp_path, monkeypatch):
    for name in ("OUTER_BYTES", "INNER_BYTES", "RESULT_BYTES"):
        monkeypatch.setattr(dissimilarity, name, 2**22)
    peaks, values = [], np.random.default_rng(0).normal(size=(5000, 50)).astype(np.float32)
    for count in (200, 500, 5000):  # the first warms up
        folder, names = tmp_path / str(count), [f"{image}.png" for image in range(count)]
        files = FeatureFiles(folder, {"IT": (50,)}, names, "npy")
        files.prepare({})
        with files:
            files.write(0, {"IT": values[:count]}, np.zeros(count, bool))
            files.flush()
        files.finish([])
        Path("/proc/self/clear_refs").write_text("5")  # the peak counts from now on
        rdm(folder, "--out", tmp_path / f"out{count}")
        lines = Path("/proc/self/status").read_text().splitlines()
        peaks.append(next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")))
    assert (tmp_path / "out5000/IT/rdm.npy").stat().st_size > 99e6
    assert peaks[2] < 1.05 * peaks[1]
