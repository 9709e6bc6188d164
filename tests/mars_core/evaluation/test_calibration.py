import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mars_core.evaluation.calibration import brier_score, expected_calibration_error, reliability

MARGINS = st.lists(st.floats(-20, 20, width=32), min_size=1, max_size=80)
BINS = st.integers(1, 15)
LOG3 = math.log(3)  # σ(log 3) = 3/4


def calibrated_margins(n, seed=0):
    """Margins of a model that is right exactly as often as it says."""
    rng = np.random.default_rng(seed)
    size = rng.exponential(1.5, n)
    right = rng.random(n) < 1 / (1 + np.exp(-size))
    return np.where(right, size, -size)


def test_the_brier_score_is_the_squared_doubt_in_the_preferred_response():
    assert brier_score([LOG3, -LOG3]) == pytest.approx((0.25**2 + 0.75**2) / 2)


def test_a_model_without_opinion_has_the_brier_score_and_the_calibration_of_a_coin():
    assert brier_score(np.zeros(5)) == 0.25
    assert expected_calibration_error(np.zeros(5)) == 0


def test_a_model_that_is_right_as_often_as_it_says_has_no_calibration_error():
    assert expected_calibration_error(np.repeat([LOG3, -LOG3], [75, 25])) == pytest.approx(0)


def test_a_model_that_is_sure_and_wrong_has_its_confidence_as_error():
    assert expected_calibration_error([-LOG3] * 4) == pytest.approx(0.75)


def test_the_errors_of_sure_and_unsure_pairs_do_not_cancel():
    unsure_but_right, sure_but_wrong = [0.1] * 50, [-LOG3] * 50
    halves = (1 / (1 + math.exp(0.1)) + 0.75) / 2
    assert expected_calibration_error(unsure_but_right + sure_but_wrong, bins=2) == pytest.approx(halves)


def test_scaling_the_margins_of_a_calibrated_model_spoils_both_scores():
    margins = calibrated_margins(20_000)
    assert expected_calibration_error(margins) < 0.015
    for scale in (0.2, 5):
        assert expected_calibration_error(scale * margins) > 0.1
        assert brier_score(scale * margins) > brier_score(margins)


def test_the_bins_hold_equally_many_pairs():
    assert reliability(calibrated_margins(1003), bins=10)["n"].between(100, 101).all()


def test_equal_confidences_share_a_bin():
    table = reliability([1, -1, 1, 1, 1, 1, 2, 3], bins=4)
    assert table["n"].tolist() == [6, 2]
    assert table["accuracy"].tolist() == [pytest.approx(5 / 6), 1]


@given(MARGINS, BINS)
def test_the_table_holds_every_pair_in_order_of_confidence(margins, bins):
    table = reliability(margins, bins)
    assert table["n"].sum() == len(margins)
    assert len(table) <= bins
    assert table["confidence"].is_monotonic_increasing
    assert table["confidence"].between(0.5, 1).all()
    assert (table["accuracy_low"] <= table["accuracy"] + 1e-12).all()
    assert (table["accuracy"] <= table["accuracy_high"] + 1e-12).all()


@given(MARGINS, BINS, st.randoms())
def test_the_error_does_not_depend_on_the_order_of_the_pairs(margins, bins, random):
    error = expected_calibration_error(margins, bins)
    assert 0 <= error <= 1
    shuffled = random.sample(margins, len(margins))
    assert expected_calibration_error(shuffled, bins) == pytest.approx(error)


@pytest.mark.parametrize("score", [brier_score, expected_calibration_error, reliability])
@pytest.mark.parametrize("margins", [[], [1.0, math.nan]], ids=["empty", "nan"])
def test_margins_that_would_give_a_false_number_are_refused(score, margins):
    with pytest.raises(ValueError, match="margins"):
        score(margins)


def test_a_table_without_bins_is_refused():
    with pytest.raises(ValueError, match="at least one bin, got 0"):
        reliability([1.0], bins=0)


@pytest.mark.parametrize(("n", "bins"), [(39, 1), (100, 5), (1000, 10)])
def test_by_default_each_bin_holds_twenty_pairs_and_there_are_ten_at_most(n, bins):
    assert len(reliability(np.linspace(0.1, 3, n))) == bins
