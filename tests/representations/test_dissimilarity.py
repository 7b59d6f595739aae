"""Dissimilarities: those of scipy's pdist, scikit-learn's covariance and rsatoolbox, in whatever pieces they are
computed."""

import numpy as np
import pytest
from scipy.spatial.distance import pdist
from scipy.stats import rankdata
from sklearn.covariance import ledoit_wolf

from accel_trainer.core.errors import UserError
from accel_trainer.representations import dissimilarity
from accel_trainer.representations.conditions import conditions_of
from accel_trainer.representations.crossnobis import crossnobis, noise_covariance
from accel_trainer.representations.dissimilarity import Distance, dissimilarities
from accel_trainer.representations.rows import Means

IMAGES, VALUES = 47, 301


def patterns() -> np.ndarray:
    """As of a layer after ReLU, with ties; two images that are the same, two that are nearly, one far from 0."""
    values = np.maximum(np.random.default_rng(0).normal(size=(IMAGES, VALUES)), 0).astype(np.float32)
    values[7] = values[3]
    values[9] = values[5] * np.float32(1 + 1e-6)
    values[11] += 1000
    return values


def expected(values: np.ndarray, distance: Distance) -> np.ndarray:
    given = values.astype(np.float64)
    match distance:
        case Distance.PEARSON:
            return pdist(given, "correlation")
        case Distance.SPEARMAN:
            return pdist(rankdata(given, axis=1), "correlation")
        case Distance.EUCLIDEAN:
            return pdist(given)
        case _:
            return pdist(given, "sqeuclidean")


@pytest.mark.parametrize("rows", [1, 5, IMAGES])
@pytest.mark.parametrize("distance", [one for one in Distance if one is not Distance.CROSSNOBIS])
def test_dissimilarities_are_those_of_pdist_whatever_is_in_memory(distance, rows, monkeypatch):
    monkeypatch.setattr(dissimilarity, "OUTER_BYTES", 8 * VALUES * rows)
    monkeypatch.setattr(dissimilarity, "INNER_BYTES", 8 * VALUES * (rows // 2))
    found = dissimilarities(patterns(), distance)
    np.testing.assert_allclose(found, expected(patterns(), distance), rtol=1e-12, atol=1e-12)
    if distance in (Distance.EUCLIDEAN, Distance.SQUARED_EUCLIDEAN):
        assert found.min() == 0  # of the same pattern twice, exactly


def test_a_pattern_without_variance_correlates_with_none():
    values = patterns()
    values[0] = 0.1  # whose mean rounding makes another number
    found = dissimilarities(values, Distance.PEARSON)
    assert np.isnan(found[: IMAGES - 1]).all()
    assert np.isfinite(found[IMAGES - 1 :]).all()


def test_one_pattern_has_no_dissimilarities():
    with pytest.raises(UserError, match="two are needed"):
        dissimilarities(patterns()[:1], Distance.EUCLIDEAN)


# -- repeats ----------------------------------------------------------------------------------------------------------

LABELS = [f"condition {image % 5}" for image in range(60)]
SESSIONS = [f"session {image // 15}" for image in range(60)]


def repeats() -> np.ndarray:
    """Of five conditions, with noise that is correlated over 8 values."""
    rng = np.random.default_rng(1)
    means = rng.normal(size=(5, 8))
    return means[np.arange(60) % 5] + rng.normal(size=(60, 8)) @ rng.normal(size=(8, 8))


def test_the_covariance_of_noise_is_that_of_ledoit_and_wolf():
    values = repeats()
    residuals = values.copy()
    for one in range(5):
        residuals[one::5] -= residuals[one::5].mean(0)
    covariance, shrinkage = ledoit_wolf(residuals, assume_centered=True)
    assert 0 < shrinkage < 1
    found = noise_covariance(values, conditions_of(LABELS))
    np.testing.assert_allclose(found, covariance * 60 / 55, rtol=1e-12)


def test_crossnobis_is_that_of_rsatoolbox():
    toolbox = pytest.importorskip("rsatoolbox", reason="rsatoolbox is not installed: it comes with the extra `test`")
    from rsatoolbox.data.noise import cov_from_measurements

    values, conditions = repeats(), conditions_of(LABELS, SESSIONS)
    data = toolbox.data.Dataset(values, obs_descriptors={"condition": LABELS, "session": SESSIONS})
    covariance = noise_covariance(values, conditions)
    theirs = cov_from_measurements(data, "condition", dof=55, method="shrinkage_eye")
    np.testing.assert_allclose(covariance, theirs, rtol=1e-12)
    for noise in (None, covariance):
        precision = None if noise is None else np.linalg.inv(noise)
        rdm = toolbox.rdm.calc_rdm(data, "crossnobis", "condition", noise=precision, cv_descriptor="session")
        np.testing.assert_allclose(crossnobis(values, conditions, noise), rdm.dissimilarities[0], rtol=1e-10)


def test_crossnobis_of_conditions_that_do_not_differ_is_zero_on_average():
    values = np.random.default_rng(2).normal(size=(400, 500))
    found = crossnobis(values, conditions_of([str(image % 40) for image in range(400)]))
    biased = dissimilarities(Means(values, conditions_of(LABELS).members), Distance.SQUARED_EUCLIDEAN) / 500
    assert abs(found.mean()) < 3 * found.std() / np.sqrt(40) < 0.01
    assert (found < 0).any()
    assert biased.min() > 0.1


def test_what_crossnobis_cannot_be_of_is_said():
    with pytest.raises(UserError, match="'session 0' has no images of b"):
        conditions_of(["a", "b", "a", "b"], ["session 0", "session 1", "session 1", "session 1"])
    with pytest.raises(UserError, match="two partitions at least"):
        crossnobis(repeats(), conditions_of(LABELS, ["the only"] * 60))
    with pytest.raises(UserError, match="no inverse"):
        crossnobis(np.zeros((60, 8)), conditions_of(LABELS), noise_covariance(np.zeros((60, 8)), conditions_of(LABELS)))
    with pytest.raises(UserError, match="5,000 values are the most"):
        noise_covariance(np.zeros((60, 5001)), conditions_of(LABELS))
    with pytest.raises(UserError, match="no condition has two images"):
        noise_covariance(np.zeros((2, 3)), conditions_of(["a", "b"]))
