import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mars_core.statistics import (
    accuracy,
    chance_band,
    paired_difference,
    pairwise_summary,
    signal_to_noise,
    stratified_bootstrap,
)

MARGINS = st.lists(st.floats(-20, 20, width=32), min_size=1, max_size=60)
STRATIFIED = st.lists(st.tuples(st.booleans(), st.sampled_from("abc")), min_size=1, max_size=60)
ANSWERS = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60)
WEIGHTS = {"a": 1.0, "b": 5.0, "c": 0.5}

# A nominal .95 interval, simulated 2,000 times: the standard error of the share below is .005.
SIMULATIONS = 2000
HONEST = pytest.approx(0.95, abs=0.02)


def weights_of(strata):
    return {stratum: WEIGHTS[stratum] for stratum in set(strata)}


@pytest.mark.parametrize(
    ("right", "n", "low", "high"), [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605)], ids=["81", "15"]
)
def test_accuracy_has_the_wilson_interval_of_newcombe_1998(right, n, low, high):
    margins = np.repeat([1.0, -1.0], [right, n - right])
    assert accuracy(margins) == pytest.approx((right / n, low, high), abs=5e-5)


def test_a_tie_is_a_wrong_answer():
    assert accuracy([0.5, 0.0, -0.0, -2.0]).value == 0.25


@given(MARGINS)
def test_accuracy_lies_inside_its_interval_within_zero_and_one(margins):
    value, low, high = accuracy(margins)
    assert 0 <= low <= value <= high <= 1


@given(MARGINS, st.randoms())
def test_the_order_of_the_pairs_changes_no_number_of_the_summary(margins, random):
    shuffled = random.sample(margins, len(margins))
    assert pairwise_summary(shuffled) == pytest.approx(
        pairwise_summary(margins), nan_ok=True, rel=1e-9, abs=1e-9
    )


@pytest.mark.parametrize("function", [accuracy, signal_to_noise, pairwise_summary])
@pytest.mark.parametrize(
    ("margins", "said"),
    [([], "non-empty"), ([[1.0], [2.0]], r"shape \(2, 1\)"), ([1.0, math.nan], r"margins\[1\] is nan")],
    ids=["empty", "matrix", "nan"],
)
def test_margins_that_would_give_a_false_number_are_refused(function, margins, said):
    with pytest.raises(ValueError, match=said):
        function(margins)


def test_a_coin_gets_40_to_60_of_100_pairs_right():
    assert chance_band(100) == (0.40, 0.60)


@given(st.integers(1, 5000))
def test_the_chance_band_is_symmetric_about_one_half(n):
    low, high = chance_band(n)
    assert low + high == pytest.approx(1)
    assert 0 <= low <= 0.5 <= high <= 1


def test_there_is_no_chance_band_of_no_pairs():
    with pytest.raises(ValueError, match="n = 0"):
        chance_band(0)


def test_signal_to_noise_divides_by_the_population_deviation():
    assert signal_to_noise([1.0, 3.0]) == 2.0


@given(st.floats(-20, 20), st.integers(1, 30))
def test_equal_margins_have_no_noise_to_compare_with(margin, n):
    assert math.isnan(signal_to_noise([margin] * n))


def test_the_summary_of_margins_counts_ties_as_a_share():
    summary = pairwise_summary(np.array([2.0, 0.0, -1.0, 3.0], dtype=np.float32))
    assert list(summary) == [
        "accuracy",
        "accuracy_low",
        "accuracy_high",
        "chance_low",
        "chance_high",
        "mean_margin",
        "snr",
        "ties",
        "n",
    ]
    assert (summary["accuracy"], summary["ties"], summary["n"], summary["mean_margin"]) == (0.5, 0.25, 4, 1.0)


def test_the_stratified_mean_weighs_strata_not_examples():
    estimate = stratified_bootstrap([1, 1, 1, 1, 0], list("aaaab"), {"a": 1, "b": 3})
    assert estimate.value == 0.25


def test_resampling_never_moves_an_example_to_another_stratum():
    assert stratified_bootstrap([1, 1, 0, 0], list("aabb"), {"a": 1, "b": 1}) == (0.5, 0.5, 0.5)


def test_the_bootstrap_of_any_values_has_the_width_of_their_standard_error():
    rng = np.random.default_rng(3)
    a, b = rng.gamma(2.0, size=300), rng.normal(5.0, 3.0, size=500)
    value, low, high = stratified_bootstrap(
        np.concatenate([a, b]), np.repeat(["a", "b"], [300, 500]), {"a": 3, "b": 1}, draws=10_000
    )
    standard_error = math.hypot(0.75 * a.std() / math.sqrt(300), 0.25 * b.std() / math.sqrt(500))
    assert value == pytest.approx(0.75 * a.mean() + 0.25 * b.mean())
    assert high - low == pytest.approx(2 * 1.96 * standard_error, rel=0.04)


@given(STRATIFIED)
def test_the_stratified_mean_lies_inside_its_interval(rows):
    correct, strata = zip(*rows, strict=True)
    value, low, high = stratified_bootstrap(correct, strata, weights_of(strata), draws=200)
    assert 0 <= low <= value <= high <= 1 + 1e-12


@given(STRATIFIED, st.randoms())
def test_the_stratified_interval_does_not_depend_on_the_order_of_the_rows(rows, random):
    correct, strata = zip(*rows, strict=True)
    shuffled_correct, shuffled_strata = zip(*random.sample(rows, len(rows)), strict=True)
    weights = weights_of(strata)
    assert stratified_bootstrap(shuffled_correct, shuffled_strata, weights, draws=50) == stratified_bootstrap(
        correct, strata, weights, draws=50
    )


def test_the_seed_alone_decides_the_draws():
    rows = np.arange(50) % 3 == 0, ["a"] * 50, {"a": 1}
    first = stratified_bootstrap(*rows, seed=1, draws=51)
    assert stratified_bootstrap(*rows, seed=1, draws=51) == first
    assert stratified_bootstrap(*rows, seed=2, draws=51) != first


@pytest.mark.parametrize(
    ("strata", "weights", "said"),
    [
        (["a"], {"a": 1}, "2 values need as many strata"),
        (["a", "b"], {"a": 1}, r"\['b'\]"),
        (["a", "a"], {"a": 1, "c": 1}, r"\['c'\]"),
        (["a", "b"], {"a": 2, "b": -1}, "negative"),
        (["a", "b"], {"a": 0, "b": 0}, "not all zero"),
    ],
    ids=["length", "unweighted", "absent", "negative", "zero"],
)
def test_strata_and_weights_that_do_not_fit_are_refused(strata, weights, said):
    with pytest.raises(ValueError, match=said):
        stratified_bootstrap([1, 0], strata, weights)


def test_the_paired_test_is_mcnemars_exact_one():
    a = np.repeat([1, 0, 1, 0], [8, 2, 60, 30])
    b = np.repeat([0, 1, 1, 0], [8, 2, 60, 30])
    difference = paired_difference(a, b)
    assert (difference.n, difference.only_a, difference.only_b) == (100, 8, 2)
    assert difference.value == 0.06
    assert difference.p_value == pytest.approx(2 * (1 + 10 + 45) / 2**10)


def test_models_that_never_disagree_do_not_differ():
    assert paired_difference([True, False], [True, False]) == (0, 0, 0, 1, 2, 0, 0)


@given(ANSWERS)
def test_swapping_the_models_turns_the_difference_round(rows):
    a, b = zip(*rows, strict=True)
    forth, back = paired_difference(a, b, draws=200), paired_difference(b, a, draws=200)
    assert back.value == -forth.value
    assert back.p_value == pytest.approx(forth.p_value)
    assert (back.only_a, back.only_b) == (forth.only_b, forth.only_a)
    assert forth.low <= forth.value <= forth.high


@pytest.mark.parametrize(
    ("b", "said"), [([1], "2 and 1"), ([0.5, 1], "zeros and ones")], ids=["length", "not an answer"]
)
def test_answers_that_cannot_be_paired_are_refused(b, said):
    with pytest.raises(ValueError, match=said):
        paired_difference([1, 0], b)


def covered(intervals, truth):
    return np.mean([low <= truth <= high for low, high in intervals])


def test_the_interval_of_accuracy_covers_the_truth_as_often_as_it_says():
    margins = np.random.default_rng(0).normal(0.6, 1.0, size=(SIMULATIONS, 200))
    truth = 0.7257468822  # P(normal(0.6, 1) > 0)
    assert covered((accuracy(sample)[1:] for sample in margins), truth) == HONEST


def test_the_stratified_interval_covers_the_truth_as_often_as_it_says():
    correct = np.random.default_rng(0).random((SIMULATIONS, 200)) < np.repeat([0.8, 0.55], [120, 80])
    strata, weights = np.repeat(["a", "b"], [120, 80]), {"a": 1, "b": 2}
    intervals = (stratified_bootstrap(sample, strata, weights, draws=500)[1:] for sample in correct)
    assert covered(intervals, (0.8 + 2 * 0.55) / 3) == HONEST


def test_the_paired_interval_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(0)
    kinds = rng.choice(4, p=[0.5, 0.2, 0.1, 0.2], size=(SIMULATIONS, 200))
    a, b = np.isin(kinds, [0, 1]), np.isin(kinds, [0, 2])
    differences = (paired_difference(*pair, draws=500) for pair in zip(a, b, strict=True))
    assert covered(((d.low, d.high) for d in differences), 0.1) == HONEST
