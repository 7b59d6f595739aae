"""Figures beside those of scikit-learn, SciPy and closed forms."""

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.special import entr
from scipy.stats import binomtest, pearsonr
from sklearn.metrics import cohen_kappa_score, confusion_matrix, recall_score

from accel_trainer.core.errors import UserError
from accel_trainer.measures.accuracy import accuracy, class_accuracy, confusion, wilson
from accel_trainer.measures.calibration import calibration
from accel_trainer.measures.consistency import error_consistency, kappa, mean_consistency, picture_of
from accel_trainer.measures.correlation import condition_correlation, noise_ceiling
from accel_trainer.measures.corruption_error import (
    ALEXNET,
    ALEXNET_ERRORS,
    EXTRA_CORRUPTIONS,
    CorruptionErrors,
    corruption_errors,
    corruption_figures,
    mean_corruption_error,
    relative_mean_corruption_error,
)
from accel_trainer.measures.psychometric import Sigmoid, fit_sigmoid, thresholds
from accel_trainer.measures.reaction_time import entropies, reaction_time_figures, reaction_times
from accel_trainer.measures.shape_bias import shape_bias
from accel_trainer.measures.sixteen_classes import CATEGORIES, category_indices, sixteen_probabilities
from accel_trainer.measures.trials import Cell, Trials

CLASSES = ("bear", "cat", "dog", "owl", "pig")


def made_trials(n=600, seed=0, observers=("one", "two"), **columns):
    """Of each observer all n images, each under one of two conditions; some answers are none."""
    random = np.random.default_rng(seed)
    truth = random.choice(CLASSES, n)
    level = random.choice(["0.1", "0.9"], n)
    parts = []
    for observer in observers:
        response = np.where(random.random(n) < 0.6, truth, random.choice([*CLASSES, "na"], n))
        images = [f"{i:04d}.png" for i in range(n)]
        conditions = {"benchmark": "made", "level": level}
        parts.append(Trials.of(images, truth, response, observer=observer, conditions=conditions, **columns))
    return Trials.joined(parts)


def values(figures, metric):
    return [figure.value for figure in figures if figure.metric == metric]


@pytest.mark.parametrize(("k", "n"), [(0, 1), (1, 1), (0, 40), (40, 40), (13, 40), (49999, 50000), (1, 3)])
@pytest.mark.parametrize("confidence", [0.68, 0.95, 0.99])
def test_wilsons_interval_is_that_of_scipy(k, n, confidence):
    expected = binomtest(k, n).proportion_ci(confidence, method="wilson")
    assert wilson(k, n, confidence) == pytest.approx(tuple(expected), abs=1e-12)
    assert wilson(k, n, confidence)[0] <= k / n <= wilson(k, n, confidence)[1]
    assert all(map(math.isnan, wilson(0, 0)))


def test_accuracy_by_condition_is_the_mean_of_what_is_correct_in_blocks_too():
    trials = made_trials()
    whole = accuracy(trials, ["level"])
    blocks = [trials.select(np.arange(start, min(start + 7, len(trials)))) for start in range(0, len(trials), 7)]
    assert accuracy(blocks, ["level"]) == whole
    assert [(f.cell.observer, f.cell.levels) for f in whole] == [
        (who, {"level": level}) for who in ("one", "two") for level in ("0.1", "0.9")
    ]
    for figure in whole:
        rows = trials.observer.is_in([figure.cell.observer]) & trials.condition("level").is_in(
            figure.cell.levels.values()
        )
        assert (figure.value, figure.n) == (trials.correct[rows].mean(), rows.sum())
        assert figure.low < figure.value < figure.high
    with pytest.raises(UserError, match="did you mean 'level'"):
        accuracy(trials, ["levels"])


def test_confusion_and_accuracy_of_classes_are_those_of_scikit_learn():
    trials = made_trials(observers=["one"])
    (matrix,) = confusion([trials.select(np.arange(100)), trials.select(np.arange(100, 600))], [])
    assert (matrix.true_classes, matrix.responses) == (CLASSES, (*CLASSES, "na"))
    truth, response = trials.true_class.values(), trials.response.values()
    np.testing.assert_array_equal(matrix.counts, confusion_matrix(truth, response, labels=matrix.responses)[:5])
    recalls = recall_score(truth, response, labels=CLASSES, average=None)
    np.testing.assert_allclose(values(class_accuracy(trials, []), "class_accuracy"), recalls, rtol=1e-15)
    assert sum(figure.value for figure in matrix.figures()) == pytest.approx(len(CLASSES))


def test_an_answer_in_other_words_may_count_as_correct_in_the_accuracy_of_a_class():
    trials = Trials.of("abc", ["cat", "cat", "dog"], ["cat", "kitten", "na"], correct=[True, True, False])
    assert values(class_accuracy(trials), "class_accuracy") == [1, 0]


@pytest.mark.parametrize("seed", range(5))
def test_kappa_of_right_and_wrong_is_scikit_learns(seed):
    random = np.random.default_rng(seed)
    first, second = random.random(200) < 0.7, random.random(200) < 0.4
    assert kappa(first, second) == pytest.approx(cohen_kappa_score(first, second), abs=1e-14)
    assert kappa(first, first) == 1
    assert kappa(first, ~first) < 0


def test_kappa_of_observers_who_are_always_right_is_one_and_of_no_images_not_known():
    assert kappa([1, 1], [1, 1]) == 1
    assert kappa([1, 1], [0, 1]) == 0
    assert math.isnan(kappa([], []))


def test_error_consistency_goes_by_the_image_and_not_by_the_order():
    trials = made_trials(observers=["one", "two", "three"])
    mixed = trials.select(np.random.default_rng(1).permutation(len(trials)))
    figures = error_consistency(trials)
    assert error_consistency(mixed) == figures
    assert len(figures) == 3 * 2
    one, two = (
        trials.correct[trials.observer.is_in([who]) & trials.condition("level").is_in(["0.1"])]
        for who in ("one", "two")
    )
    (figure,) = [
        f for f in figures if f.cell.levels["level"] == "0.1" and {f.cell.observer, f.other.observer} == {"one", "two"}
    ]
    assert figure.value == pytest.approx(cohen_kappa_score(one, two))
    (mean,) = mean_consistency(figures)
    assert (mean.value, mean.n, mean.cell.levels) == (
        pytest.approx(np.mean([f.value for f in figures])),
        6,
        {"benchmark": "made"},
    )


def test_error_consistency_with_others_is_of_pairs_of_one_of_each():
    people, model = made_trials(observers=["a", "b"]), made_trials(observers=["net"], cycle=3)
    figures = error_consistency(model, people)
    assert {(f.cell.observer, f.cell.cycle, f.other.observer) for f in figures} == {("net", 3, "a"), ("net", 3, "b")}
    assert [f.cell for f in mean_consistency(figures, of_each=True)] == [Cell("net", "", 3, (("benchmark", "made"),))]
    itself = error_consistency(model, model)
    assert values(itself, "error_consistency") == [1, 1]


def test_mean_consistency_of_models_with_cycles_is_of_the_same_cycle_of_both():
    random = np.random.default_rng(3)
    model, other = (
        Trials.joined(
            [replace(made_trials(observers=[name], cycle=t), correct=random.random(600) < 0.5) for t in (0, 1)]
        )
        for name in ("net", "other")
    )
    itself = mean_consistency(error_consistency(model, model), of_each=True)
    assert [(figure.cell.cycle, figure.value) for figure in itself] == [(0, 1), (1, 1)]
    pairs = error_consistency(model, other)
    for found in (mean_consistency(pairs, of_each=True), mean_consistency(pairs)):
        for figure in found:
            own = [f.value for f in pairs if f.cell.cycle == f.other.cycle == figure.cell.cycle]
            assert (figure.value, figure.n) == (pytest.approx(np.mean(own)), 2)
        assert len(found) == 2
    with pytest.raises(UserError, match="no two observers"):
        mean_consistency(error_consistency(model))


def test_error_consistency_refuses_other_images_and_images_twice():
    trials = made_trials()
    with pytest.raises(UserError, match=r"one and two have not seen the same images.*: 1 were shown to one"):
        error_consistency(trials.select(np.arange(1, len(trials))))
    with pytest.raises(UserError, match="one has seen an image twice"):
        error_consistency(trials.select(np.append(0, np.arange(len(trials)))))
    with pytest.raises(UserError, match="no two observers"):
        error_consistency(made_trials(observers=["one"]))


def test_pictures_are_known_by_what_follows_the_prefix_of_a_published_trial():
    assert picture_of("0002_cop_s01_c100_bicycle_10_n03792782_5966.png") == "n03792782_5966.png"
    assert picture_of("dnn/session-1/0002_cop_dnn_c100_bicycle_10_n03792782_5966.png") == "n03792782_5966.png"
    assert picture_of("0001_sil_s01_0_oven_00_oven10.png") == "oven10.png"
    for other in ("n03792782_5966.png", "bear/a_b_c_d_e_f_g.png"):
        assert picture_of(other) == other


def test_the_expected_calibration_error_of_made_confidences_is_the_one_by_hand():
    # Two bins of five that have trials: (0.4, 0.6] with 0.5, 0.6, and (0.8, 1] with 0.9, 1.
    top = np.array([[0.5, 0.5], [0.6, 0.4], [0.9, 0.1], [1.0, 0.0]], np.float32)
    trials = Trials.of("abcd", ["x", "x", "x", "x"], ["x", "y", "x", "x"], classes=("x", "y"), probabilities=top)
    expected = 0.5 * abs(0.5 - 0.55) + 0.5 * abs(1 - 0.95)
    for blocks in (trials, [trials.select(np.arange(3)), trials.select(np.arange(3, 4))]):
        (figure,) = calibration(blocks, bins=5)
        assert (figure.value, figure.n) == (pytest.approx(expected, abs=1e-7), 4)
    with pytest.raises(UserError, match="whose probabilities are no numbers"):
        calibration(replace(trials, probabilities=top * np.float32(np.nan)))
    with pytest.raises(UserError, match="needs probabilities"):
        calibration(trials.without_probabilities())


def test_a_model_that_is_right_as_often_as_it_says_has_next_to_no_calibration_error():
    random = np.random.default_rng(0)
    confidence = random.uniform(0.5, 1, 100_000)
    correct = random.random(100_000) < confidence
    both = np.stack([confidence, 1 - confidence], 1).astype(np.float32)
    trials = Trials.of(
        map(str, range(100_000)), ["x"] * 100_000, np.where(correct, "x", "y"), classes=("x", "y"), probabilities=both
    )
    assert calibration(trials)[0].value < 0.005


def test_alexnet_has_an_mce_of_100_and_resnet_50_what_its_published_errors_give():
    assert mean_corruption_error(ALEXNET, ALEXNET) == pytest.approx(100)
    assert relative_mean_corruption_error(ALEXNET, ALEXNET) == pytest.approx(100)
    # Hendrycks and Dietterich (2019), tables 1 and 2: corruption errors, clean error, mCE, relative mCE.
    published = [80, 82, 83, 75, 89, 78, 80, 78, 75, 66, 57, 71, 85, 77, 77]
    errors = {name: ce * error / 100 for (name, error), ce in zip(ALEXNET_ERRORS.items(), published, strict=True)}
    resnet = CorruptionErrors(errors, 0.239)
    assert mean_corruption_error(resnet, ALEXNET) == pytest.approx(76.7, abs=0.5)
    assert relative_mean_corruption_error(resnet, ALEXNET) == pytest.approx(105.0, abs=1)


def corrupted(corruptions=ALEXNET_ERRORS, severities=5):
    random = np.random.default_rng(2)
    rows = [(name, str(s)) for name in corruptions for s in range(1, severities + 1) for _ in range(20)] + [
        ("none", "0")
    ] * 20
    right = random.random(len(rows)) < 0.5
    names, levels = zip(*rows, strict=True)
    return accuracy(
        Trials.of(map(str, range(len(rows))), ["x"] * len(rows), np.where(right, "x", "y"), observer="net",
                  conditions={"corruption": names, "severity": levels})
    )  # fmt: skip


def test_errors_of_trials_become_mce_or_are_called_unnormalised():
    accuracies = corrupted()
    errors = corruption_errors(accuracies, "corruption", "severity")
    by_name = {
        name: [1 - f.value for f in accuracies if f.cell.levels["corruption"] == name] for name in ALEXNET_ERRORS
    }
    expected = 100 * np.mean([np.mean(found) / ALEXNET_ERRORS[name] for name, found in by_name.items()])
    figures = corruption_figures(errors, ALEXNET)
    assert values(figures, "mce") == [pytest.approx(expected, abs=1e-10)]
    assert len(values(figures, "ce")) == 15
    plain = corruption_figures(errors, None)
    mean = np.mean(list(by_name.values()))
    assert values(plain, "unnormalised_error") == [pytest.approx(100 * mean)]
    clean = next(f.value for f in accuracies if f.cell.levels["corruption"] == "none")
    assert values(plain, "unnormalised_relative_error") == [pytest.approx(100 * (mean - (1 - clean)))]
    assert not {"mce", "ce", "relative_mce"} & {figure.metric for figure in plain}


def test_mce_is_refused_for_part_of_the_corruptions_or_severities():
    some = corruption_errors(corrupted([*ALEXNET_ERRORS][1:]), "corruption", "severity")
    with pytest.raises(UserError, match="not measured with gaussian_noise"):
        corruption_figures(some, ALEXNET)
    with pytest.raises(UserError, match=r"5 severities, but brightness \(4\)"):
        corruption_errors(corrupted(severities=4), "corruption", "severity")


def test_further_corruptions_change_no_mce():
    fifteen, more = (
        corruption_figures(corruption_errors(corrupted(names), "corruption", "severity"), ALEXNET)
        for names in (ALEXNET_ERRORS, [*ALEXNET_ERRORS, "spatter"])
    )
    assert values(fifteen, "mce") == values(more, "mce")


def test_the_sixteen_categories_are_means_over_207_classes():
    indices = category_indices()
    assert sum(map(len, indices.values())) == len({i for found in indices.values() for i in found}) == 207
    probabilities = np.random.default_rng(0).dirichlet(np.ones(1000), 3)
    means = sixteen_probabilities(probabilities)
    assert means.shape == (3, 16)
    np.testing.assert_allclose(means[:, CATEGORIES.index("bear")], probabilities[:, 294:298].mean(1), rtol=1e-14)


def test_shape_bias_leaves_out_images_whose_cues_agree_and_answers_that_are_neither():
    images = [
        "cat1-dog2.png",
        "cat2-dog1.png",
        "cat3-bear1.png",
        "cat4-cat1.png",
        "0001_s5n_s01_0_cat_00_cat1-owl3.png",
    ]
    trials = Trials.of(images, ["cat"] * 5, ["cat", "dog", "cat", "cat", "na"])
    bias, answers = shape_bias(trials)
    assert (bias.metric, bias.value, bias.n) == ("shape_bias", pytest.approx(2 / 3), 3)
    assert (answers.metric, answers.value, answers.n) == ("cue_answers", pytest.approx(3 / 4), 4)
    named = Trials.of("ab", ["cat"] * 2, ["cat", "dog"], conditions={"texture": ["dog", "dog"]})
    assert values(shape_bias(named), "shape_bias") == [0.5]
    with pytest.raises(UserError, match=r"texture of image 'x\.png' is not known"):
        shape_bias(Trials.of(["x.png"], ["cat"], ["cat"]))


def test_correlations_are_pearsons_over_conditions_and_lie_between_the_bounds():
    random = np.random.default_rng(3)
    n, names = 4000, [f"c{i}" for i in range(8)]
    level = random.integers(0, 8, n)
    parts = []
    for who in ("a", "b", "c", "net"):
        right = random.random(n) < 0.2 + 0.09 * level
        answer = np.where(right, "x", "y")
        parts.append(
            Trials.of(
                map(str, range(n)), ["x"] * n, answer, observer=who, conditions={"level": [names[i] for i in level]}
            )
        )
    people, net = Trials.joined(parts[:3]), parts[3]
    profile = {
        who: [part.correct[level == i].mean() for i in range(8)] for who, part in zip("abcn", parts, strict=True)
    }
    found = condition_correlation(net, people)
    assert [f.value for f in found] == [
        pytest.approx(pearsonr(profile["n"], profile[who])[0], abs=1e-12) for who in "abc"
    ]
    bounds = noise_ceiling(people)
    others = np.mean([profile["b"], profile["c"]], 0)
    assert bounds[0].value == pytest.approx(pearsonr(profile["a"], others)[0], abs=1e-12)
    assert bounds[0].value < bounds[1].value
    with pytest.raises(UserError, match="have not the same conditions: c0"):
        condition_correlation(net.select(level > 0), people)
    with pytest.raises(UserError, match="over 2 conditions says nothing"):
        noise_ceiling(people.select(np.tile(level < 2, 3)))


def test_a_sigmoid_is_found_again_and_crosses_where_its_formula_says():
    curve = Sigmoid(height=0.8, center=0.4, slope=9, base=0.1)
    x = np.array([0, 0.1, 0.2, 0.4, 0.6, 0.8, 1])
    found = fit_sigmoid(x, curve(x))
    assert found is not None
    assert [found.height, found.center, found.slope, found.base] == pytest.approx([0.8, 0.4, 9, 0.1], abs=1e-5)
    assert curve(curve.crossing()) == pytest.approx(0.5, abs=1e-12)
    assert curve.published_threshold() == pytest.approx(curve.crossing(), abs=0.002)
    assert math.isnan(Sigmoid(0.3, 0.4, 9, 0.1).crossing())
    assert Sigmoid(0.3, 0.4, 9, 0.1).published_threshold() == 1
    with pytest.raises(UserError, match="3 points"):
        fit_sigmoid([0, 0.5, 1], [0, 0.5, 1])


def test_thresholds_take_chance_and_whole_images_as_the_ends_of_every_curve():
    curve, levels, n = Sigmoid(0.9, 0.3, 10, 0.05), (0.1, 0.2, 0.4, 0.6, 0.8), 1000
    rows = [(form, str(v), i < round(n * curve([v])[0])) for form in "ab" for v in levels for i in range(n)]
    rows += [("none", "1.0", i < 950) for i in range(n)]
    form, visibility, right = zip(*rows, strict=True)
    trials = Trials.of(map(str, range(len(rows))), ["x"] * len(rows), ["x"] * len(rows), correct=right,
                       conditions={"form": form, "visibility": visibility})  # fmt: skip
    figures = thresholds(trials, ["form"], chance=float(curve([0])[0]))
    found = {f.cell.levels["form"]: f.value for f in figures if f.metric == "threshold_50"}
    assert found == {name: pytest.approx(curve.crossing(), abs=0.01) for name in ("a", "b", "all")}
    assert {f.n for f in figures if f.metric == "threshold_50"} == {7}
    with pytest.raises(UserError, match="no trials"):
        thresholds(trials.select(np.arange(0)), ["form"])
    with pytest.raises(UserError, match="no trials of images themselves"):
        thresholds(trials.select(trials.condition("form").is_in(["a", "b"])), ["form"])
    with pytest.raises(UserError, match="no number in column 'form'"):
        thresholds(trials, [], over="form")


def test_entropies_are_those_of_scipy_also_of_certainty():
    probabilities = np.random.default_rng(0).dirichlet(np.ones(7), 50)
    probabilities[0] = np.eye(7)[3]
    np.testing.assert_allclose(entropies(probabilities), entr(probabilities).sum(1), atol=1e-14)
    assert entropies(probabilities)[0] == 0


def test_the_reaction_time_is_the_first_cycle_below_and_the_last_where_none_is():
    # Entropies by image and cycle: below 0.5 from cycle 1 on; at cycle 0 and then not; never.
    table = {"a": [0.9, 0.4, 0.1], "b": [0.3, 0.9, 0.9], "c": [0.9, 0.8, 0.7]}
    rows = [
        (image, cycle, entropy) for cycle in (2, 0, 1) for image, found in table.items() for entropy in [found[cycle]]
    ]
    image, cycle, entropy = zip(*rows, strict=True)
    answers = ["x" if c == 1 else "y" for c in cycle]
    trials = Trials.of(
        image, ["x"] * 9, answers, cycle=cycle, entropy=np.array(entropy, np.float32), conditions={"level": "0"}
    )
    times, reached = reaction_times(trials, 0.5)
    assert (times.image.values(), times.cycle.tolist(), reached.tolist()) == (
        ["a", "b", "c"],
        [1, 0, 2],
        [True, True, False],
    )
    blocks = [trials.select(np.arange(start, start + 2)) for start in (0, 2, 4, 6)] + [trials.select(np.array([8]))]
    for parts in (trials, blocks):
        figures = reaction_time_figures(parts, 0.5)
        assert [(f.metric, f.value) for f in figures] == [
            ("reaction_time", 1),
            ("reached", pytest.approx(2 / 3)),
            ("accuracy_at_reaction_time", pytest.approx(1 / 3)),
        ]
    with pytest.raises(UserError, match="answer in several cycles"):
        reaction_times(made_trials(entropy=np.zeros(600, np.float32)), 0.5)
    with pytest.raises(UserError, match="probabilities of all classes"):
        reaction_times(made_trials(cycle=0), 0.5)


def test_levels_stay_the_words_they_were_and_numbers_are_in_their_order():
    words = ["inf", "0.00", "none", "10", "9", "true", "na"]
    trials = Trials.of(map(str, range(7)), ["x"] * 7, ["na"] * 7, conditions={"level": words})
    assert [f.cell.levels["level"] for f in accuracy(trials)] == ["na", "none", "true", "0.00", "9", "10", "inf"]
    assert not trials.correct.any()


def test_columns_that_do_not_fit_are_refused():
    with pytest.raises(UserError, match="2 images, 2 true classes, 3 responses"):
        Trials.of("ab", "xx", "xxx")
    with pytest.raises(UserError, match="no condition may be called cycle"):
        Trials.of("ab", "xx", "xx", conditions={"cycle": "0"})
    with pytest.raises(UserError, match="3 probabilities for 2 classes"):
        Trials.of("a", "x", "x", classes=("x", "y"), probabilities=np.ones((1, 3), np.float32))


def test_of_no_trials_there_are_no_figures():
    none = made_trials(probabilities=np.ones((600, 5), np.float32), classes=CLASSES, cycle=0).select(np.arange(0))
    for figures in (accuracy, class_accuracy, calibration, confusion):
        assert figures(none) == []
    assert reaction_time_figures(replace(none, entropy=np.zeros(0, np.float32)), 0.5) == []


def test_further_corruptions_are_in_no_mean_over_the_benchmark():
    whole = corruption_errors(corrupted([*ALEXNET_ERRORS, *EXTRA_CORRUPTIONS]), "corruption", "severity")
    (errors,) = whole.values()
    mean = 100 * np.mean([errors.by_corruption[name] for name in ALEXNET_ERRORS])
    for baseline in (None, ALEXNET):
        figures = corruption_figures(whole, baseline)
        assert values(figures, "corruption_accuracy") == [pytest.approx(1 - mean / 100)]
        assert {figure.n for figure in figures} <= {5, 15}
    assert values(corruption_figures(whole, None), "unnormalised_error") == [pytest.approx(mean)]
    alone = corruption_errors(corrupted(["spatter"]), "corruption", "severity")
    assert [figure.n for figure in corruption_figures(alone, None)] == [1, 1, 1]
