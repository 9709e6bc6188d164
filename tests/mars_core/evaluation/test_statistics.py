import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mars_core.evaluation.statistics import (
    Interval,
    accuracy,
    chance_band,
    holm,
    mean_over_seeds,
    paired_accuracy_difference,
    paired_difference,
    paired_score_difference,
    pairwise_summary,
    signal_to_noise,
    stratified_bootstrap,
)

MARGINS = st.lists(st.floats(-20, 20, width=32), min_size=1, max_size=60)
STRATIFIED = st.lists(st.tuples(st.booleans(), st.sampled_from("abc")), min_size=1, max_size=60)
P_VALUES = st.dictionaries(st.sampled_from("abcdefgh"), st.floats(0, 1), min_size=1)
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
    value, low, high = stratified_bootstrap([1, 1, 0, 0, 1], list("aabbb"), {"a": 1, "b": 1}, draws=10_000)
    assert value == pytest.approx(2 / 3)
    assert (low, high) == (0.5, 1.0)


def test_strata_without_spread_give_no_certainty():
    value, *ends = stratified_bootstrap([1, 1, 0, 0], list("aabb"), {"a": 1, "b": 1})
    assert value == 0.5
    assert all(map(math.isnan, ends))


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
    assert 0 <= value <= 1 + 1e-12
    assert math.isnan(low) == math.isnan(high)
    assert math.isnan(low) or 0 <= low <= value <= high <= 1 + 1e-12


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
    *difference, effect_size = paired_difference([True, False], [True, False])
    assert difference == [0, 0, 0, 1, 2, 0, 0]
    assert math.isnan(effect_size)


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


def test_the_effect_size_of_a_comparison_is_cohens_g():
    difference = paired_difference([1, 1, 1, 0, 1], [0, 0, 0, 1, 1])
    assert difference.effect_size == 0.25
    assert math.isnan(paired_difference([1, 0], [1, 0]).effect_size)


def test_a_difference_of_scores_weighs_strata_not_examples():
    a, b = [1, 1, 1, 1, 0], [1, 1, 1, 0, 1]
    difference = paired_score_difference(a, b, list("aaaab"), {"a": 1, "b": 3})
    assert difference.value == 0.25 * 0.25 - 0.75
    assert (difference.n, difference.only_a, difference.only_b) == (5, 1, 1)
    assert difference.effect_size == pytest.approx(0.0625 / (0.0625 + 0.75) - 0.5)  # of like sign


@given(STRATIFIED, st.randoms())
def test_a_difference_of_scores_is_the_difference_of_the_two_scores(rows, random):
    correct, strata = zip(*rows, strict=True)
    other = random.sample(correct, len(correct))
    weights = weights_of(strata)
    difference = paired_score_difference(correct, other, strata, weights, draws=50)
    ours, theirs = (stratified_bootstrap(right, strata, weights, draws=2) for right in (correct, other))
    assert difference.value == pytest.approx(ours.value - theirs.value)
    if not math.isnan(difference.low):
        assert difference.low - 1e-12 <= difference.value <= difference.high + 1e-12


def test_a_difference_of_scores_without_spread_has_no_interval_and_is_no_evidence():
    difference = paired_score_difference([1, 1], [1, 0], ["a", "b"], {"a": 1, "b": 1})
    assert difference.value == 0.5
    assert math.isnan(difference.low)
    assert math.isnan(difference.high)
    assert difference.p_value == 1


def test_the_p_value_of_a_few_one_sided_gains_is_that_of_their_signs():
    difference = paired_score_difference([1] * 5, [0] * 5, ["s"] * 5, {"s": 1})
    assert difference.p_value == 2 / 2**5


@pytest.mark.parametrize(
    ("b", "p_value"), [(np.tile([1, 0], 50), 1.0), (np.zeros(100), 2 / 2001)], ids=["the same", "never right"]
)
def test_the_p_value_of_a_difference_of_scores_goes_from_one_to_nearly_zero(b, p_value):
    a = np.tile([1, 0], 50)
    assert paired_score_difference(a, b, ["s"] * 100, {"s": 1}).p_value == pytest.approx(p_value)


def test_the_p_value_of_a_difference_of_scores_is_near_mcnemars_where_there_is_one_stratum():
    a = np.repeat([1, 0, 1, 0], [40, 22, 200, 38])
    b = np.repeat([0, 1, 1, 0], [40, 22, 200, 38])
    exact = paired_difference(a, b).p_value
    assert 0.02 < exact < 0.04
    assert paired_score_difference(a, b, ["s"] * 300, {"s": 1}).p_value == pytest.approx(exact, abs=0.015)


def test_the_mean_over_seeds_has_students_interval():
    # The table of the t-distribution: 2.776 at four degrees of freedom.
    mean = mean_over_seeds([0.60, 0.62, 0.61, 0.65, 0.62])
    error = np.std([0.60, 0.62, 0.61, 0.65, 0.62], ddof=1) / math.sqrt(5)
    assert mean.value == pytest.approx(0.62)
    assert (mean.value - mean.low, mean.high - mean.value) == pytest.approx((2.776 * error,) * 2, rel=1e-3)
    assert mean.effect_size == pytest.approx(mean.value / (error * math.sqrt(5)))
    assert mean.n == 5


def test_the_p_value_over_seeds_is_that_of_a_mean_of_zero():
    assert mean_over_seeds([-0.02, 0.03, -0.01]).p_value == pytest.approx(1)
    assert mean_over_seeds([0.02, 0.03, 0.02, 0.03]).p_value < 0.01


@pytest.mark.parametrize("values", [[0.6], [0.6 - 0.5, 0.7 - 0.6], [0.0, 0.0]], ids=["one", "equal", "zero"])
def test_seeds_that_show_no_spread_have_no_interval_and_no_p_value(values):
    mean = mean_over_seeds(values)
    assert (mean.value, mean.n) == (pytest.approx(values[0]), len(values))
    assert all(map(math.isnan, (mean.low, mean.high, mean.p_value, mean.effect_size)))


def test_holm_multiplies_the_smallest_p_value_by_the_size_of_the_family():
    assert holm({"a": 0.04, "b": 0.01, "c": 0.03}) == pytest.approx({"a": 0.06, "b": 0.03, "c": 0.06})


@settings(max_examples=20)  # statsmodels collects garbage in every call
@given(P_VALUES)
def test_a_corrected_p_value_is_never_smaller_and_keeps_its_rank(p_values):
    adjusted = holm(p_values)
    assert all(p_values[name] <= adjusted[name] <= 1 for name in p_values)
    order = sorted(p_values, key=p_values.__getitem__)
    assert [adjusted[name] for name in order] == sorted(adjusted.values())


@pytest.mark.parametrize("p_value", [1.5, -0.1, math.nan])
def test_what_is_no_p_value_is_refused(p_value):
    with pytest.raises(ValueError, match=r"p[-_]values"):
        holm({"a": 0.5, "b": p_value})


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


def test_the_interval_of_a_difference_of_scores_is_that_of_the_gains():
    a, b = np.tile([1, 1, 0, 1, 0], 40), np.tile([1, 0, 1, 1], 50)
    strata, weights = np.repeat(["easy", "hard"], 100), {"easy": 1, "hard": 3}
    difference = paired_score_difference(a, b, strata, weights)
    assert difference[:3] == stratified_bootstrap(a - b, strata, weights)


def test_the_interval_of_gains_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(0)
    size = (SIMULATIONS // 2, 120)  # each of them is a bootstrap of two strata
    easy, hard = (
        rng.choice(4, p=[0.6, 0.2, 0.1, 0.1], size=size),
        rng.choice(4, p=[0.3, 0.1, 0.2, 0.4], size=size),
    )
    kinds = np.concatenate([easy, hard], axis=1)
    gains = np.isin(kinds, [0, 1]).astype(float) - np.isin(kinds, [0, 2])
    strata, weights = np.repeat(["easy", "hard"], 120), {"easy": 1, "hard": 3}
    intervals = (stratified_bootstrap(sample, strata, weights, draws=500)[1:] for sample in gains)
    assert covered(intervals, (0.1 - 3 * 0.1) / 4) == HONEST


def test_the_interval_over_ten_seeds_covers_the_truth_as_often_as_it_says():
    figures = np.random.default_rng(0).normal(0.62, 0.01, size=(SIMULATIONS, 10))
    assert covered((mean_over_seeds(runs)[1:3] for runs in figures), 0.62) == HONEST


def test_the_accuracy_difference_adds_one_disagreement_each_way():
    a, b = [1, 1, 1, 0, *[1] * 6], [0, 0, 0, 1, *[1] * 6]
    centre, deviation = 4 / 12 - 2 / 12, math.sqrt((6 / 12 - (2 / 12) ** 2) / 12)
    expected = 0.2, centre - 1.959964 * deviation, centre + 1.959964 * deviation
    assert paired_accuracy_difference(a, b) == pytest.approx(expected, abs=1e-6)


@given(ANSWERS, st.floats(0.1, 10))
def test_an_accuracy_difference_of_equally_weighted_examples_is_that_of_examples(answers, weight):
    a, b = zip(*answers, strict=True)
    weighted = paired_accuracy_difference(a, b, [weight] * len(a))
    assert weighted == pytest.approx(paired_accuracy_difference(a, b))


@pytest.mark.parametrize("rows", [10, 100])
@pytest.mark.parametrize("disagreeing", [4, 1], ids=["everywhere", "among the heavy"])
def test_a_weighted_accuracy_difference_keeps_its_word_wherever_the_models_disagree(rows, disagreeing):
    rng = np.random.default_rng(0)
    weights = np.repeat([4.0, 1.0, 1.0, 0.5], rows)
    kinds = rng.choice(3, p=[0.8, 0.1, 0.1], size=(SIMULATIONS, 4 * rows))  # neither, A or B alone right
    kinds[:, disagreeing * rows :] = 0
    intervals = (paired_accuracy_difference(draw == 1, draw == 2, weights)[1:] for draw in kinds)
    assert covered(intervals, 0) >= 0.95


@given(ANSWERS)
def test_the_interval_of_an_accuracy_difference_holds_its_value_and_is_never_without_width(answers):
    a, b = zip(*answers, strict=True)
    value, low, high = paired_accuracy_difference(a, b)
    assert low <= value <= high
    assert high - low > 0
    assert paired_accuracy_difference(b, a) == pytest.approx((-value, -high, -low))


def test_the_interval_of_an_accuracy_difference_covers_the_truth_at_least_as_often_as_it_says():
    rng = np.random.default_rng(0)
    draws = rng.random((SIMULATIONS, 40))
    only_a, only_b = draws < 0.15, (draws >= 0.15) & (draws < 0.2)
    intervals = [paired_accuracy_difference(a, b) for a, b in zip(only_a, only_b, strict=True)]
    assert np.mean([low <= 0.1 <= high for _, low, high in intervals]) >= 0.95 - 0.015


def alike(rng, prompts, pairs_each, chances):
    """Kinds of pairs, drawn with these chances, most of a prompt the same; and each pair's prompt."""
    prompt = np.repeat(np.arange(prompts), pairs_each)
    kind, own = (rng.choice(len(chances), p=chances, size=n) for n in (prompts, prompt.size))
    return np.where(rng.random(prompt.size) < 0.8, kind[prompt], own), prompt


CLUSTERED = {
    "accuracy": lambda kinds, prompts: accuracy(np.where(kinds < 3, 1, -1), prompts),
    "accuracy difference": lambda kinds, prompts: paired_accuracy_difference(
        kinds == 0, kinds == 1, clusters=prompts
    ),
    "paired difference": lambda kinds, prompts: Interval(
        *paired_difference(kinds == 0, kinds == 1, clusters=prompts, draws=500)[:3]
    ),
    "stratified mean": lambda kinds, prompts: stratified_bootstrap(
        kinds < 3, np.arange(kinds.size) % 2, {0: 1.0, 1: 1.0}, clusters=prompts, draws=500
    ),
}
TRUTHS = dict(zip(CLUSTERED, (0.7, 0.1, 0.1, 0.7), strict=True))


@pytest.mark.parametrize("pairs_each", [1, 5, 20])
@pytest.mark.parametrize("name", CLUSTERED)
def test_intervals_of_pairs_that_share_prompts_cover_the_truth_as_often_as_they_say(name, pairs_each):
    rng, times = np.random.default_rng(0), 500
    drawn = (alike(rng, 150, pairs_each, [0.2, 0.1, 0.4, 0.3]) for _ in range(times))
    assert covered((CLUSTERED[name](*pairs)[1:] for pairs in drawn), TRUTHS[name]) == pytest.approx(
        0.95, abs=0.03
    )


@pytest.mark.parametrize("name", CLUSTERED)
def test_a_prompt_of_its_own_for_each_pair_changes_no_interval(name):
    kinds, prompts = alike(np.random.default_rng(0), 200, 1, [0.2, 0.1, 0.4, 0.3])
    assert CLUSTERED[name](kinds, prompts) == CLUSTERED[name](kinds, None)


@pytest.mark.parametrize("name", CLUSTERED)
def test_a_pair_that_is_repeated_is_no_more_evidence(name):
    kinds, prompts = alike(np.random.default_rng(0), 200, 1, [0.2, 0.1, 0.4, 0.3])
    once, repeated = CLUSTERED[name](kinds, prompts), CLUSTERED[name](kinds.repeat(9), prompts.repeat(9))
    assert repeated.value == pytest.approx(once.value)
    assert repeated.high - repeated.low == pytest.approx(once.high - once.low, rel=0.1)


def test_all_pairs_right_are_as_sure_as_their_prompts_are_many():
    assert accuracy(np.ones(200), np.repeat(np.arange(10), 20)) == pytest.approx(accuracy(np.ones(10)))


def test_the_p_value_of_pairs_that_share_prompts_is_that_of_the_signs_of_prompts():
    a, b = np.ones(100), np.r_[np.zeros(60), np.ones(40)]
    difference = paired_difference(a, b, clusters=np.repeat(np.arange(5), 20))
    assert difference.p_value == 2 / 2**3
    assert (difference.n, difference.only_a) == (100, 60)


def test_a_label_for_each_pair_is_asked_for():
    with pytest.raises(ValueError, match="3 examples need as many labels"):
        accuracy([1.0, 1.0, -1.0], [0, 1])
