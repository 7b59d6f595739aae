"""Trials come back from a file as they were, and memory does not grow with it."""

import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from accel_trainer.core.errors import UserError
from accel_trainer.measures.accuracy import accuracy
from accel_trainer.measures.trials import COLUMNS, Trials
from accel_trainer.measures.trials_file import read_trials, trial_blocks, writing_trials

CLASSES = ("ape", "bee", "cat")


def made(n=50, start=0, top=None, **others):
    random = np.random.default_rng(start)
    images = [f"{i:05d}.png" for i in range(start, start + n)]
    probabilities = random.dirichlet(np.ones(3), n).astype(np.float32)
    answers = [CLASSES[i] for i in probabilities.argmax(1)]
    if top:
        others["top_classes"] = np.argsort(-probabilities, 1)[:, :top].astype(np.int32)
        probabilities = -np.sort(-probabilities, 1)[:, :top]
    conditions = {"benchmark": "noise", "level": random.choice(["inf", "0.00", "none"], n)}
    return Trials.of(
        images, random.choice(CLASSES, n), answers, observer="net", conditions=conditions, classes=CLASSES,
        probabilities=probabilities, **others,
    )  # fmt: skip


def write(path, *parts):
    with writing_trials(path) as add:
        for part in parts:
            add(part)


def assert_same(one, other):
    assert one.classes == other.classes
    assert list(one.conditions) == list(other.conditions)
    for name in COLUMNS:
        first, second = getattr(one, name), getattr(other, name)
        if name in ("image", "true_class", "response", "observer", "layer"):
            assert (first and first.values()) == (second and second.values())
        elif first is None or second is None:
            assert first is second is None
        else:
            np.testing.assert_array_equal(first, second)
            assert first.dtype == second.dtype
    for name, column in one.conditions.items():
        assert column.values() == other.conditions[name].values()


EVERYTHING = {
    "cycle": 3,
    "layer": "IT",
    "entropy": np.linspace(0, 1, 50, dtype=np.float32),
    "seconds": np.append(np.nan, np.ones(49)),
}


@pytest.mark.parametrize("trials", [made(), made(top=2), made(**EVERYTHING), made().without_probabilities()])
def test_trials_come_back_bit_for_bit(tmp_path, trials):
    path = tmp_path / "trials.parquet"
    write(path, *(trials.select(np.arange(start, start + 10)) for start in range(0, 50, 10)))
    assert_same(read_trials(path), trials)
    assert_same(read_trials(path, probabilities=False), trials.without_probabilities())


def test_other_tools_read_the_columns_by_their_names(tmp_path):
    trials = made(cycle=1)
    write(tmp_path / "t.parquet", trials)
    table = pq.read_table(tmp_path / "t.parquet").to_pandas()
    assert list(table.columns) == [
        "image", "true_class", "response", "observer", "benchmark", "level", "correct", "cycle", "probabilities"
    ]  # fmt: skip
    assert table.groupby("level", observed=True).correct.mean().to_dict() == {
        figure.cell.levels["level"]: figure.value for figure in accuracy(trials, ["level"])
    }
    np.testing.assert_array_equal(np.stack(table.probabilities), trials.probabilities)


def test_a_file_appears_whole_or_not_at_all(tmp_path):
    path = tmp_path / "folder" / "t.parquet"
    path.parent.mkdir()
    with pytest.raises(UserError, match="same columns, conditions and classes"):
        write(path, made(70_000), made(start=70_000).without_probabilities())
    with pytest.raises(UserError, match="no trials to write"), writing_trials(path):
        pass
    assert list(path.parent.iterdir()) == []


def test_small_parts_become_few_row_groups_and_a_large_one_several(tmp_path):
    write(tmp_path / "small.parquet", *(made(start=start) for start in range(0, 5000, 50)))
    assert pq.ParquetFile(tmp_path / "small.parquet").metadata.num_row_groups == 1
    write(tmp_path / "large.parquet", made(140_000))
    file = pq.ParquetFile(tmp_path / "large.parquet")
    assert [file.metadata.row_group(i).num_rows for i in range(3)] == [65536, 65536, 8928]
    assert [len(block) for block in trial_blocks(tmp_path / "large.parquet")] == [65536, 65536, 8928]


def test_what_is_no_table_of_trials_is_refused_by_name(tmp_path):
    path = tmp_path / "x.parquet"
    path.write_bytes(b"PAR1 and then nothing")
    with pytest.raises(UserError, match=r"x\.parquet: no Parquet file"):
        list(trial_blocks(path))
    pq.write_table(pa.table({"image": ["a"]}), path)
    with pytest.raises(UserError, match="no table of trials"):
        list(trial_blocks(path))
    for about in (
        b"[]",
        b"{",
        b'{"version": 1, "conditions": "level", "classes": []}',
        b'{"version": 1, "conditions": [1]}',
    ):
        pq.write_table(pa.table({"image": ["a"]}).replace_schema_metadata({"accel_train_trials": about}), path)
        with pytest.raises(UserError, match="description of trials is damaged"):
            list(trial_blocks(path))
    about = b'{"version": 2, "conditions": [], "classes": []}'
    pq.write_table(pa.table({"image": ["a"]}).replace_schema_metadata({"accel_train_trials": about}), path)
    with pytest.raises(UserError, match="version 2"):
        list(trial_blocks(path))
    about = about.replace(b"2", b"1")
    pq.write_table(pa.table({"image": ["a"]}).replace_schema_metadata({"accel_train_trials": about}), path)
    with pytest.raises(UserError, match="without true_class, response, observer, correct"):
        list(trial_blocks(path))
    words = {name: ["a"] for name in ("image", "true_class", "response", "observer")}
    wrong = (
        ({"correct": pa.array([None], pa.bool_())}, "column correct has rows without a value"),
        ({"correct": [True], "layer": [1]}, "column layer is no text"),
        ({"correct": ["yes"]}, "column correct is of string, not of bool"),
        ({"correct": [True], "probabilities": [[0.5]]}, "column probabilities is list<.*>, no lists of one length"),
    )
    for columns, words_of_error in wrong:
        pq.write_table(pa.table(words | columns).replace_schema_metadata({"accel_train_trials": about}), path)
        with pytest.raises(UserError, match=rf"x\.parquet: {words_of_error}"):
            list(trial_blocks(path))


def test_a_file_cut_off_or_written_over_is_refused(tmp_path):
    path = tmp_path / "t.parquet"
    write(path, made())
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match="no Parquet file"):
        list(trial_blocks(path))


SCRIPT = """
import resource, sys
import numpy as np
from pathlib import Path
from accel_trainer.measures.accuracy import accuracy
from accel_trainer.measures.calibration import calibration
from accel_trainer.measures.trials import Trials
from accel_trainer.measures import trials_file
from accel_trainer.measures.trials_file import trial_blocks, writing_trials

trials_file.GROUP_BYTES = 2**21
path, parts = Path(sys.argv[1]), int(sys.argv[2])
names = tuple(f"class {i}" for i in range(100))
probabilities = np.random.default_rng(0).dirichlet(np.ones(100), 1000).astype(np.float32)
answers = [names[i] for i in probabilities.argmax(1)]
with writing_trials(path) as add:
    for part in range(parts):
        images = [f"{part}-{i}" for i in range(1000)]
        columns = dict(classes=names, probabilities=probabilities, conditions={"level": str(part % 5)})
        add(Trials.of(images, answers, answers, **columns))
for figures in (calibration(trial_blocks(path)), accuracy(trial_blocks(path))):
    assert sum(figure.n for figure in figures) == parts * 1000
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_memory_does_not_grow_with_the_trials(tmp_path):
    """Of 400 bytes a row, 8 MB in the shorter file and 48 MB in the longer one, in groups of 2 MB."""

    def peak_kib(parts):
        words = [sys.executable, "-c", SCRIPT, str(tmp_path / "t.parquet"), str(parts)]
        return int(subprocess.run(words, check=True, capture_output=True, text=True).stdout)

    unit = 1024 if sys.platform != "darwin" else 1
    assert peak_kib(120) - peak_kib(20) < 20 * 1024 * 1024 // unit
