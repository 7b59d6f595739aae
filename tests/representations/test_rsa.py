"""`accel-train rsa`: similarities, noise ceilings and samples are those of rsatoolbox; files are read as they are."""

import csv
import io
import re
from pathlib import Path

import numpy as np
import pytest
from helpers import REPOSITORY
from scipy.spatial.distance import squareform
from scipy.stats import kendalltau, pearsonr, spearmanr
from typer.testing import CliRunner, Result

from accel_trainer.cli import app
from accel_trainer.core.errors import UserError
from accel_trainer.representations.rdm_files import Rdms, read_rdms, writing_rdms
from accel_trainer.representations.rsa import RsaSettings, _samples, compare
from accel_trainer.representations.similarity import Similarity, kendall_tau_a, noise_ceiling, pooled, similarities

THEIRS = {
    Similarity.SPEARMAN: "spearman",
    Similarity.KENDALL_TAU_A: "tau-a",
    Similarity.PEARSON: "corr",
    Similarity.COSINE: "cosine",
    Similarity.WHITENED_COSINE: "cosine_cov",
}
CONDITIONS = 12
NAMES = tuple(f"stimulus {place}" for place in range(CONDITIONS))


def vectors(number: int, seed: int, *, with_ties: bool = False) -> np.ndarray:
    """Matrices that are alike, and of which some values are the same."""
    rng = np.random.default_rng(seed)
    shared = np.random.default_rng(9).uniform(size=CONDITIONS * (CONDITIONS - 1) // 2)
    found = shared + rng.uniform(size=(number, len(shared)))
    return np.round(found, 1) if with_ties else found


def toolbox():
    return pytest.importorskip("rsatoolbox", reason="rsatoolbox is not installed: it comes with the extra `test`")


@pytest.mark.parametrize("with_ties", [False, True])
@pytest.mark.parametrize("kind", Similarity)
def test_similarities_are_those_of_rsatoolbox(kind, with_ties):
    first, second = vectors(3, 0, with_ties=with_ties), vectors(2, 1, with_ties=with_ties)
    rdms = toolbox().rdm.RDMs
    theirs = toolbox().rdm.compare(rdms(first), rdms(second), method=THEIRS[kind])
    np.testing.assert_allclose(similarities(first, second, kind), theirs, rtol=1e-10)


def test_similarities_are_those_of_scipy():
    first, second = vectors(1, 0, with_ties=True), vectors(1, 1, with_ties=True)
    for kind, function in ((Similarity.SPEARMAN, spearmanr), (Similarity.PEARSON, pearsonr)):
        assert similarities(first, second, kind)[0, 0] == pytest.approx(function(first[0], second[0]).statistic)
    distinct = vectors(1, 0)[0], vectors(1, 1)[0]  # without ties tau-a is tau-b
    assert kendall_tau_a(*distinct) == pytest.approx(kendalltau(*distinct).statistic)
    assert kendall_tau_a(np.array([1, 1, 2, 3.0]), np.array([1, 2, 3, 3.0])) == pytest.approx(4 / 6)
    assert kendall_tau_a(np.ones(4), np.arange(4.0)) == 0


@pytest.mark.filterwarnings("ignore:Noise ceiling for tau based on averaged ranks")
@pytest.mark.parametrize("kind", [kind for kind in Similarity if kind is not Similarity.WHITENED_COSINE])
def test_noise_ceilings_are_those_of_rsatoolbox(kind):
    subjects = vectors(4, 2, with_ties=True)
    theirs = toolbox().inference.boot_noise_ceiling(toolbox().rdm.RDMs(subjects), method=THEIRS[kind])
    lower, upper = noise_ceiling(subjects, kind)
    np.testing.assert_allclose((lower, upper), theirs, rtol=1e-10)
    assert lower < upper


def test_what_is_most_similar_to_whitened_matrices_is_rsatoolboxs():
    """In its `util.pooling`: its ceilings pool by lengths that are not whitened, and are a little less similar to
    all."""
    toolbox()
    from rsatoolbox.rdm import RDMs
    from rsatoolbox.util.pooling import pool_rdm

    subjects, kind = vectors(4, 2), Similarity.WHITENED_COSINE
    found = pooled(subjects, kind)
    theirs = pool_rdm(RDMs(subjects), "cosine_cov").get_vectors()[0]
    np.testing.assert_allclose(found / np.linalg.norm(found), theirs / np.linalg.norm(theirs), rtol=1e-4)
    upper = noise_ceiling(subjects, kind)[1]
    others = [*subjects, subjects.mean(0), theirs]
    assert upper >= max(similarities(one[None], subjects, kind).mean() for one in others) - 1e-9


@pytest.mark.parametrize("kind", Similarity)
def test_samples_of_conditions_are_compared_as_by_rsatoolbox(kind):
    first, second = vectors(2, 0), vectors(1, 1)
    rdms = toolbox().rdm.RDMs
    drawn = np.sort(np.random.default_rng(3).integers(CONDITIONS, size=CONDITIONS))  # as `_samples` draws first
    theirs = toolbox().rdm.compare(
        *(rdms(given.copy()).subsample_pattern("index", drawn) for given in (first, second)), method=THEIRS[kind]
    )
    pairs, kept = next(_samples(CONDITIONS, RsaSettings(seed=3)))
    assert kept.sum() < len(kept)
    np.testing.assert_allclose(similarities(first[:, pairs], second[:, pairs], kind, kept), theirs, rtol=1e-10)


def test_whitening_makes_independent_what_independent_patterns_give():
    """Of matrices of noise alone, dissimilarities that share a condition correlate: whitened ones do not."""
    rng, near = np.random.default_rng(4), list[float]()
    for kind in (Similarity.COSINE, Similarity.WHITENED_COSINE):
        patterns = rng.normal(size=(300, CONDITIONS, 50))
        squared = np.square(patterns[:, :, None] - patterns[:, None]).sum(-1)
        found = squared[:, *np.triu_indices(CONDITIONS, 1)] - 100  # the expected distance of noise
        near.append(float(np.square(similarities(found, found, kind)[np.triu_indices(300, 1)]).mean()))
    freedom = CONDITIONS * (CONDITIONS - 1) / 2
    assert near[1] == pytest.approx(1 / freedom, rel=0.2)  # as of vectors in a random direction
    assert near[0] > 1.3 / freedom


def test_intervals_have_the_value_and_shrink_with_conditions():
    widths = []
    for number in (10, 40):
        patterns = np.random.default_rng(5).normal(size=(number, 30))
        noisy = patterns + np.random.default_rng(6).normal(size=patterns.shape)
        first, second = (
            Rdms(np.square(one[:, None] - one).sum(-1)[np.triu_indices(number, 1)][None]) for one in (patterns, noisy)
        )
        (figure,) = compare("model", first, "people", second, RsaSettings(samples=200))
        assert figure.low < figure.value < figure.high
        assert (figure.metric, figure.n) == ("rsa_spearman", number)
        widths.append(figure.high - figure.low)
    assert widths[1] < 0.7 * widths[0]


def test_a_matrix_without_variance_has_no_correlation():
    flat, other = Rdms(np.full((1, 66), 0.1)), Rdms(vectors(1, 0))
    (figure,) = compare("model", flat, "people", other, RsaSettings(samples=5))
    assert np.isnan([figure.value, figure.low, figure.high]).all()


def test_the_examples_of_the_documentation_run():
    for block in re.findall(r"```python\n(.*?)```", (REPOSITORY / "docs/rsa.md").read_text(), re.S):
        exec(compile(block, "docs/rsa.md", "exec"), {})


# -- files ------------------------------------------------------------------------------------------------------------


def run(*words: object) -> Result:
    return CliRunner().invoke(app, ["rsa", *map(str, words), "--samples", "20"])


def rows(*words: object) -> list[dict[str, str]]:
    ended = run(*words, "--csv")
    assert ended.exit_code == 0, ended.exception
    return list(csv.DictReader(io.StringIO(ended.stdout)))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Two layers, one of them in two cycles."""
    (tmp_path / "net").mkdir()
    layers: list[tuple[str, int | None]] = [("V1", 0), ("V1", 1), ("IT", None)]
    with writing_rdms(tmp_path / "net/rdms.h5", NAMES, layers, "pearson") as add:
        for vector in vectors(3, 0):
            add(vector)
    return tmp_path / "net"


def test_subjects_in_any_form_and_order_give_the_same_figures(model: Path, tmp_path: Path):
    people = vectors(3, 1)
    squares = np.stack([squareform(vector) for vector in people])
    order = np.random.default_rng(0).permutation(CONDITIONS)
    names = [NAMES[place] for place in order]
    (tmp_path / "people").mkdir()
    for number, square in enumerate(squares):
        shuffled = square[order][:, order]
        lines = [",".join(["", *names])] + [
            f"{name},{','.join(map(str, row))}" for name, row in zip(names, shuffled.tolist(), strict=True)
        ]
        (tmp_path / f"people/s{number}.csv").write_text("\n".join(lines))
    np.save(tmp_path / "vectors.npy", people)
    np.save(tmp_path / "squares.npy", squares)
    files = ["people", "vectors.npy", "squares.npy"]
    found = [rows(model, "--against", tmp_path / file, "--similarity", "spearman,kendall-tau-a") for file in files]
    keys = ("layer", "cycle", "metric", "value", "low", "n")
    expected = similarities(vectors(3, 0), people, Similarity.SPEARMAN).mean(1)
    assert [float(row["value"]) for row in found[1][:3]] == pytest.approx(expected.tolist())
    assert [(row["layer"], row["cycle"], row["n"]) for row in found[1][:3]] == [
        ("V1", "0", "12"),
        ("V1", "1", "12"),
        ("IT", "", "12"),
    ]
    assert [row["metric"] for row in found[1][6:]] == [
        f"rsa_{kind}_ceiling_{bound}" for kind in ("spearman", "kendall_tau_a") for bound in ("lower", "upper")
    ]
    for other in found:
        for row, same in zip(other, found[1], strict=True):
            assert [row[key] for key in keys[:3]] == [same[key] for key in keys[:3]]
            assert [float(row[key] or "nan") for key in keys[3:]] == pytest.approx(
                [float(same[key] or "nan") for key in keys[3:]], nan_ok=True
            )
    separate = [word for number in range(3) for word in ("--against", tmp_path / f"people/s{number}.csv")]
    assert [row["value"] for row in rows(model, *separate, "--similarity", "spearman,kendall-tau-a")] == [
        row["value"] for row in found[0]
    ]


def test_a_file_of_rsatoolbox_is_read_by_the_names_of_its_conditions(tmp_path: Path):
    people, order = vectors(2, 1), np.random.default_rng(0).permutation(CONDITIONS)
    shuffled = np.stack([squareform(vector)[order][:, order] for vector in people])
    descriptors = {"stim": [NAMES[place] for place in order], "half": ["a", "b"] * 6}
    rdms = toolbox().rdm.RDMs(shuffled, pattern_descriptors=descriptors, dissimilarity_measure="euclidean")
    rdms.save(str(tmp_path / "theirs.hdf5"), file_type="hdf5")
    found = read_rdms(tmp_path / "theirs.hdf5")
    assert (found.distance, found.layers) == ("euclidean", ("", ""))
    np.testing.assert_array_equal(found.in_order_of(NAMES).vectors, people)


def test_mistakes_are_a_line(model: Path, tmp_path: Path):
    asymmetric = squareform(vectors(1, 0)[0])
    asymmetric[0, 1] += 1
    np.save(tmp_path / "asymmetric.npy", asymmetric)
    np.save(tmp_path / "small.npy", np.arange(10))
    np.save(tmp_path / "flat.npy", np.ones(66))
    np.save(tmp_path / "seven.npy", np.ones(7))
    np.save(tmp_path / "objects.npy", np.array([{}]), allow_pickle=True)
    (tmp_path / "rdm.pkl").write_bytes(b"")
    (tmp_path / "words.csv").write_text("a,b\n0,x\ny,0\n")
    (tmp_path / "other.csv").write_text("a,b,c\n0,1,2\n1,0,3\n2,3,0\n")
    (tmp_path / "no.h5").write_text("none")
    (tmp_path / "empty").mkdir()
    for file, line in {
        "asymmetric.npy": "a matrix is not symmetric",
        "small.npy": "net has 12 conditions, and small 5",
        "flat.npy": "matrix 1 has no variance",
        "seven.npy": "7 dissimilarities are the pairs of no number of conditions",
        "objects.npy": "is no array of numbers",
        "rdm.pkl": "a pickle may run any program",
        "words.csv": "is no table of numbers",
        "other.csv": "conditions are not the same",
        "no.h5": "is no HDF5 file of rsatoolbox",
        "empty": "has no files of matrices",
    }.items():
        error = run(model, "--against", tmp_path / file).exception
        assert isinstance(error, UserError), error
        assert line in str(error)
    assert "did you mean 'spearman'" in str(run(model, "--against", model, "--similarity", "sperman").exception)


def test_matrices_are_read_as_they_were_written(model: Path):
    found = read_rdms(model)
    np.testing.assert_array_equal(found.vectors, vectors(3, 0))
    assert (found.conditions, found.layers, found.cycles) == (NAMES, ("V1", "V1", "IT"), (0, 1, None))
