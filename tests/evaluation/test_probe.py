"""Probes: readouts are those of scikit-learn and solo-learn, and of the features that the run gives."""

import csv
import json
import re
import warnings
from pathlib import Path
from typing import Any

import helpers
import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tiny_runs import finish
from typer.testing import CliRunner, Result

from accel_trainer.api.trained_run import Run
from accel_trainer.cli import app
from accel_trainer.core.errors import UserError
from accel_trainer.data.open import open_training, open_validation
from accel_trainer.evaluation import features, probe, readouts
from accel_trainer.evaluation.features import Wanted
from accel_trainer.evaluation.readouts import Knn, Sgd
from accel_trainer.measures.accuracy import wilson
from accel_trainer.measures.trials_file import read_trials
from accel_trainer.representations.logistic import Logistic
from accel_trainer.representations.rows import Chosen, FileRows

one_core = pytest.fixture(autouse=True)(helpers.one_core)
CLASSES, VALUES = 4, 12


@pytest.fixture(autouse=True)
def on_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")


def blobs(number: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Classes that overlap, in values of different size."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(CLASSES, size=number)
    centers = np.random.default_rng(7).normal(size=(CLASSES, VALUES))
    values = (centers[labels] + rng.normal(size=(number, VALUES))) * np.geomspace(0.1, 10, VALUES)
    return values.astype(np.float32), labels.astype(np.int64)


TRAIN, TRAIN_LABELS = blobs(300, 0)
TEST, TEST_LABELS = blobs(200, 1)


# -- readouts of arrays -----------------------------------------------------------------------------------------------


def test_logistic_regression_is_scikit_learns():
    found, notes = Logistic((0.3,)).probabilities(TRAIN, TRAIN_LABELS, TEST, CLASSES)
    plain = make_pipeline(StandardScaler(), LogisticRegression(C=0.3, max_iter=1000))
    plain.fit(TRAIN.astype(np.float64), TRAIN_LABELS)
    np.testing.assert_allclose(found, plain.predict_proba(TEST.astype(np.float64)), atol=1e-6)
    assert notes == []


def test_the_best_penalty_is_found_among_training_images(monkeypatch):
    costs = (1e-6, 0.3, 1e6)
    found, notes = Logistic(costs).probabilities(TRAIN, TRAIN_LABELS, TEST, CLASSES)
    assert Logistic(costs).name == "logistic_cv"
    assert notes == ["C = 0.3"]
    np.testing.assert_array_equal(found, Logistic((0.3,)).probabilities(TRAIN, TRAIN_LABELS, TEST, CLASSES)[0])
    with pytest.raises(UserError, match="a class has 2 training images, and 5 folds need 5"):
        Logistic(costs).fit(TRAIN[:8], np.repeat(np.arange(4), 2))
    monkeypatch.setattr("accel_trainer.representations.logistic.MOST_STEPS", 2)
    assert Logistic().probabilities(TRAIN, TRAIN_LABELS, TEST, CLASSES)[1] == ["L-BFGS has not converged in 2 steps"]


def test_classes_without_training_images_are_never_the_answer():
    chosen = TRAIN_LABELS != 2
    for readout in (Logistic(), Sgd(lr=0.01, epochs=2), Knn(5)):
        found, _ = readout.probabilities(TRAIN[chosen], TRAIN_LABELS[chosen], TEST, CLASSES)
        assert found.shape == (200, CLASSES)
        np.testing.assert_allclose(found.sum(1), 1, rtol=1e-5)
        assert isinstance(readout, Sgd) or not found[:, 2].any()


@pytest.mark.parametrize("temperature", [None, 0.07])
@pytest.mark.parametrize("k", [1, 5, 20])
def test_nearest_neighbors_are_scikit_learns(k, temperature, monkeypatch):
    monkeypatch.setattr(readouts, "BLOCK_BYTES", 4 * VALUES * 30)
    monkeypatch.setattr(readouts, "piece_rows", lambda num_features: 70)
    found, _ = Knn(k, temperature).probabilities(TRAIN, TRAIN_LABELS, TEST, CLASSES)
    weights: Any = "uniform" if temperature is None else lambda distance: np.exp((1 - distance) / temperature)
    plain = KNeighborsClassifier(k, metric="cosine", weights=weights).fit(TRAIN.astype(np.float64), TRAIN_LABELS)
    np.testing.assert_allclose(found, plain.predict_proba(TEST.astype(np.float64)), atol=1e-6)
    if temperature is None:
        np.testing.assert_array_equal(found.argmax(1), plain.predict(TEST.astype(np.float64)))


def test_names_have_what_decides_the_numbers():
    assert [one.name for one in (Knn(), Knn(200, None), Logistic((0.1,)), Sgd(), Sgd(0.3, 20))] == [
        "knn_k20_t0.07",
        "knn_k200",
        "logistic_c0.1",
        "sgd_lr1",
        "sgd_lr0.3_e20",
    ]


def test_sgd_is_solo_learns_protocol(monkeypatch):
    """Its values, and what a loop of plain torch comes to with them, in the same order of images."""
    sgd = Sgd()
    assert (sgd.milestones, sgd.epochs, sgd.momentum, sgd.weight_decay, sgd.batch_size) == ([60, 80], 100, 0.9, 0, 256)
    rates = list[float]()
    step = torch.optim.SGD.step
    monkeypatch.setattr(torch.optim.SGD, "step", lambda self: (rates.append(self.param_groups[0]["lr"]), step(self))[1])
    values = (TRAIN - TRAIN.mean(0)) / TRAIN.std(0)
    layer = sgd.trained(values, TRAIN_LABELS, CLASSES)
    assert np.unique(np.round(rates, 6), return_counts=True)[1].tolist() == [2 * 20, 2 * 20, 2 * 60]
    logits = layer(torch.from_numpy(values)).detach().numpy()
    best = LogisticRegression(C=np.inf, max_iter=1000).fit(values.astype(np.float64), TRAIN_LABELS)
    assert abs((logits.argmax(1) == TRAIN_LABELS).mean() - best.score(values, TRAIN_LABELS)) < 0.02


def test_rows_of_files_give_what_arrays_do(tmp_path, monkeypatch):
    monkeypatch.setattr(readouts, "HELD_BYTES", 100)
    TRAIN.tofile(tmp_path / "rows")
    rows = FileRows(tmp_path / "rows", 0, TRAIN.shape, TRAIN.dtype)
    some = np.flatnonzero(np.arange(300) % 7)
    for readout in (Sgd(lr=0.01, epochs=2), Knn(5)):
        expected = readout.probabilities(TRAIN[some], TRAIN_LABELS[some], TEST, CLASSES)[0]
        found = readout.probabilities(Chosen(rows, some), TRAIN_LABELS[some], TEST, CLASSES)[0]
        np.testing.assert_array_equal(found, expected)


def test_what_has_diverged_is_said():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        notes = Sgd(lr=3e38, epochs=3).probabilities(TRAIN, TRAIN_LABELS, TEST, CLASSES)[1]
    assert notes == ["the training has diverged: take a lower `lr`"]


def test_the_examples_of_the_documentation_run():
    for block in re.findall(r"```python\n(.*?)```", (helpers.REPOSITORY / "docs/probes.md").read_text(), re.S):
        exec(compile(block, "docs/probes.md", "exec"), {})


# -- of runs ----------------------------------------------------------------------------------------------------------

RECURRENT = {"architecture": "cornet_rt", "architecture_args": {"features": [32, 32, 32, 64]}, "image_size": 32}
LAYERS = ["V4-t3", "V4-t4", "decoder"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A recurrent run. Others only add evaluations."""
    return finish(tmp_path_factory.mktemp("run"), **RECURRENT)


def splits(run: Run) -> dict[str, tuple[dict[str, np.ndarray], np.ndarray]]:
    """Features and labels, as `Run.features` gives them."""
    job = run.job.resolve()
    sources = {
        "train": open_training(job, run.classes),
        "val": open_validation(job, job.dataset, run.classes, needs_all=True),
    }
    wanted = Wanted(LAYERS, pool="flatten")
    return {name: (features.features(run._folder, source, wanted), source.labels) for name, source in sources.items()}


def test_a_probe_is_scikit_learn_on_the_features_of_the_run(run: Run):
    found = run.probe(LAYERS, readouts=["logistic", "knn"], k=[3, 7], temperature=None, name="facts")
    given = splits(run)
    (train, labels), (val, truth) = given["train"], given["val"]
    values = {(one.cell.layer, one.cell.cycle, one.metric): one for one in found.figures}
    assert len(values) == 3 * 3
    for name in LAYERS:
        layer, _, cycle = name.partition("-t")
        plain = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
        models = {"logistic_c1": plain}
        if layer != "decoder":  # whose directions, of a model that is hardly trained, differ by rounding alone
            models |= {f"knn_k{k}": KNeighborsClassifier(k, metric="cosine") for k in (3, 7)}
        for readout, model in models.items():
            answers = model.fit(train[name].astype(np.float64), labels).predict(val[name].astype(np.float64))
            figure = values[layer, int(cycle or 0), f"{readout}_accuracy"]
            assert figure.value == (answers == truth).mean()
            assert (figure.low, figure.high) == wilson(int((answers == truth).sum()), len(truth))
    trials = read_trials(found.folder / "trials.parquet")
    assert len(trials) == 9 * len(truth)
    assert set(trials.observer.levels) == {found.figures[0].cell.observer}
    with (found.folder / "summary.csv").open() as file:
        assert [float(row["value"]) for row in csv.DictReader(file)] == [one.value for one in found.figures]
    assert not (found.folder / "unfinished").exists()


def test_a_probe_that_was_ended_is_gone_on_with(run: Run, monkeypatch: pytest.MonkeyPatch):
    def ended(*args: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(probe, "_trials", ended)
        with pytest.raises(KeyboardInterrupt):
            run.probe(["V4"], readouts=["knn"], name="ended")
    folder = run.path / "evaluations/ended"
    assert json.loads((folder / "evaluation.json").read_text())["complete"] is False
    with monkeypatch.context() as patch:  # the features are there
        patch.setattr(features.Extraction, "_features", ended)
        found = run.probe(["V4"], readouts=["knn"], k=5, name="ended")
    assert found == run.probe(["V4"], readouts=["knn"], k=5, name="ended")
    assert found.figures == run.probe(["V4"], readouts=["knn"], k=5, name="at once").figures
    with pytest.raises(UserError, match="has an evaluation of something else: other layers, readouts"):
        run.probe(["IT"], readouts=["knn"], name="ended")


def test_mistakes_are_said_before_anything_is_computed(run: Run, monkeypatch: pytest.MonkeyPatch):
    for given, line in [
        ({"readouts": ["logistics"]}, "did you mean 'logistic'"),
        ({"readouts": ["knn"], "k": 100_000}, "there are no 100000 neighbors among"),
        ({"name": "../probe"}, "cannot be a folder's name"),
        ({"dataset": "none"}, "none"),
    ]:
        with pytest.raises(UserError, match=line):
            run.probe(["V4"], **given)
    with monkeypatch.context() as patch:
        patch.setattr("accel_trainer.representations.logistic.MOST_BYTES", 1000)
        with pytest.raises(UserError, match="has in memory at once"):
            run.probe(["V4"])
    with monkeypatch.context() as patch:
        patch.setattr("accel_trainer.representations.logistic.find_spec", lambda name: None)
        with pytest.raises(UserError, match=r"needs scikit-learn; pip install 'accel-train\[probe\]'"):
            run.probe(["V4"])
    for words, line in [
        (("--k", "x"), "'x' is no positive whole number"),
        (("--readout", "lda"), "'lda' is no readout"),
    ]:
        assert line in str(typed(run.path, "--layers", "V4", *words).exception)


def typed(*words: str | Path) -> Result:
    return CliRunner().invoke(app, ["probe", *map(str, words)])


@pytest.mark.slow
def test_two_processes_come_to_the_figures_of_one(run: Run):
    own = run.probe(["V4-t4"], readouts=["knn", "sgd"], temperature=None, epochs=3, lr=0.1, name="one")
    words = ["--readout", "knn,sgd", "--temperature", "none", "--epochs", "3", "--lr", "0.1", "--name", "two"]
    ended = typed(run.path, "--layers", "V4-t4", *words, "--num-processes", "2", "--cpu", "--csv")
    assert ended.exit_code == 0, ended.output
    there = run.path / "evaluations"
    assert (there / "two/summary.csv").read_text() == (own.folder / "summary.csv").read_text() == ended.stdout
    assert (there / "two/trials.parquet").read_bytes() == (own.folder / "trials.parquet").read_bytes()
