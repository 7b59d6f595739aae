"""Tables in the published columns, and the traps in them."""

import gzip

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from accel_trainer.core.errors import UserError
from accel_trainer.measures.accuracy import accuracy
from accel_trainer.measures.measure import Measure, Settings, measure
from accel_trainer.measures.published import benchmark_of, read_published, without_left_out

HEADER = "subj,session,trial,rt,object_response,category,condition,imagename"
GEIRHOS = f"""{HEADER}
subject-01,1,1,0.5,cat,cat,inf,0001_hpp_s01_inf_cat_10_n1_2.png
subject-01,1,2,NaN,na,dog,inf,0002_hpp_s01_inf_dog_10_n3_4.png
subject-02,1,1,0.7,dog,cat,0.00,0001_hpp_s02_0.00_cat_10_n1_2.png
"""
OCCLUSION = """subject,stimulus_id,object_class,occluder_class,occluder_color,visibility,prediction,RT,accuracy
sub-00,00000,bison,none,none,1.0,bison,11.29,1
sub-00,00001,hare,mud_splash,black,0.1,lamp,2.69,0
"""


def made(folder, text, name="high-pass.csv"):
    path = folder / name
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return path


@pytest.mark.parametrize("name", ["high-pass.csv", "high-pass.csv.gz"])
@pytest.mark.parametrize("text", [GEIRHOS, "\ufeff" + GEIRHOS.replace(HEADER, HEADER.title()).replace("\n", "\r\n")])
def test_conditions_called_inf_and_0_00_and_the_answer_na_survive(tmp_path, name, text):
    trials = read_published(made(tmp_path, text, name))
    assert trials.conditions["condition"].values() == ["inf", "inf", "0.00"]
    assert trials.conditions["benchmark"].values() == ["high-pass"] * 3
    assert trials.response.values() == ["cat", "na", "dog"]
    assert trials.correct.tolist() == [True, False, False]
    assert trials.image.values() == ["n1_2.png", "n3_4.png", "n1_2.png"]
    np.testing.assert_array_equal(trials.seconds, [0.5, np.nan, 0.7])


def test_none_is_a_level_of_the_occlusion_study_in_csv_and_in_parquet(tmp_path):
    trials = read_published(made(tmp_path, OCCLUSION, "humans.csv"))
    rows = {
        "subject": ["sub-00"] * 2, "stimulus_id": [0, 1], "object_class": ["bison", "hare"],
        "occluder_class": ["none", "mud_splash"], "occluder_color": ["none", "black"], "visibility": [1.0, 0.1],
        "prediction": ["bison", "lamp"], "RT": [11.29, 2.69], "accuracy": [True, False],
    }  # fmt: skip
    pq.write_table(pa.table(rows), tmp_path / "humans.parquet")
    for one in (trials, read_published(tmp_path / "humans.parquet")):
        assert [(f.cell.levels, f.value) for f in accuracy(one, ["occluder_class", "visibility"])] == [
            ({"occluder_class": "mud_splash", "visibility": "0.1"}, 0),
            ({"occluder_class": "none", "visibility": "1.0"}, 1),
        ]
        np.testing.assert_array_equal(one.seconds, [11.29, 2.69])


def test_accuracies_of_parquet_give_an_mce_too(tmp_path):
    names = [(who, name, s) for who in ("net", "base") for name in ("fog", "snow") for s in range(1, 6)]
    models, corruptions, severities = zip(*names, strict=True)
    values = [0.4 if who == "net" else 0.2 for who in models]
    rows = {"model": models, "corruption": corruptions, "severity": severities, "accuracy": values}
    pq.write_table(pa.table(rows), tmp_path / "t.parquet")
    figures = measure([tmp_path / "t.parquet"], Measure.MCE, Settings(baseline="base")).figures
    found = {f.cell.observer: f.value for f in figures if f.metric == "mce"}
    assert found == {"net": pytest.approx(75), "base": pytest.approx(100)}


def test_a_benchmark_is_called_as_its_file_or_its_folder(tmp_path):
    assert benchmark_of(tmp_path / "cue-conflict.csv.gz") == "cue-conflict"
    assert benchmark_of(tmp_path / "edge/edge_subject-01_session_1.csv") == "edge"
    assert benchmark_of(tmp_path / "edge/sketch.csv") == "sketch"
    trials = read_published(made(tmp_path, GEIRHOS), "mine")
    assert trials.conditions["benchmark"].levels == ("mine",)


def test_conditions_that_the_publication_leaves_out_are_named(tmp_path):
    trials = read_published(made(tmp_path, GEIRHOS))
    kept, left_out = without_left_out(trials)
    assert (kept.conditions["condition"].values(), left_out) == (["0.00"], {"high-pass": ("inf",)})
    assert without_left_out(read_published(made(tmp_path, GEIRHOS), "mine"))[1] == {}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a,b\n1,2\n", "its columns are a, b; known are: subj, rt"),
        ("", "its columns are none"),
        (GEIRHOS + "subject-01,1\n", "row 4 has 2 cells for 8 columns"),
        (GEIRHOS.replace("0.7", "fast"), "row 3: rt is 'fast'"),
        (GEIRHOS.replace("session", "subj"), "column subj is there twice"),
        (OCCLUSION.replace("2.69,0", "2.69,0.5"), "0 or 1, but not in row 2"),
        ("model,corruption,severity,accuracy\na,fog,1,76.1\n", "76.1 is not in 0..1; give shares"),
        ("model,corruption,severity,accuracy\na,fog,1,\n", "row 1: accuracy is ''"),
    ],
)
def test_other_tables_are_refused_with_the_row_or_the_columns(tmp_path, text, words):
    with pytest.raises(UserError) as error:
        read_published(made(tmp_path, text))
    assert str(error.value).startswith(f"{tmp_path}/high-pass.csv: ")
    assert words in str(error.value)


@pytest.mark.parametrize("content", [b"\x1f\x8bnothing", gzip.compress(GEIRHOS.encode())[:-20], b"\xff\xfe\xfa"])
def test_damaged_files_are_one_line(tmp_path, content):
    path = tmp_path / "x.csv.gz"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"x\.csv\.gz: (damaged|no text)"):
        read_published(path)
