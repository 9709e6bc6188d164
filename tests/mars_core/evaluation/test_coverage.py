"""What an uncertainty tells of errors, against plain counts."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mars_core.evaluation.coverage import COVERAGE, ensemble, measures

ROWS = st.lists(st.tuples(st.integers(0, 3), st.booleans()), min_size=1, max_size=6)


@given(ROWS)
def test_the_accuracy_of_the_most_certain_is_the_mean_over_orders_of_equally_certain_ones(rows):
    doubt, right = map(np.array, zip(*rows, strict=True))
    found = measures(doubt, np.where(right, 1.0, -1.0))
    orders = [
        [right[row] for row in order]
        for order in itertools.permutations(range(len(rows)))
        if (np.diff(doubt[list(order)]) >= 0).all()
    ]
    for percent in COVERAGE:
        n = max(1, round(len(rows) * percent / 100))
        wanted = np.mean([np.mean(order[:n]) for order in orders])
        assert found[f"accuracy_of_{percent}"] == pytest.approx(wanted)


def test_an_uncertainty_that_knows_every_error_has_an_auroc_of_one_and_a_constant_one_of_a_half():
    margins = [1, 1, -1, 2, -3]
    assert measures([0, 0, 1, 0, 1], margins)["error_auroc"] == 1
    assert measures([7] * 5, margins)["error_auroc"] == 0.5
    assert np.isnan(measures([1, 2], [1, 1])["error_auroc"])


def test_models_of_any_scale_have_an_equal_say_and_one_that_knows_nothing_has_none():
    one, other = np.array([1.0, -1.0, 1.0]), np.array([1.0, 1.0, -1.0])
    assert ensemble([one, 100 * other]).margins == pytest.approx(ensemble([one, other]).margins)
    assert ensemble([one, np.zeros(3)]).margins == pytest.approx(one / 2)
    assert ensemble([one, one]).disagreement == pytest.approx(np.zeros(3))
    with pytest.raises(ValueError, match="at least two models"):
        ensemble([one])


def test_an_uncertainty_for_each_margin_is_needed():
    with pytest.raises(ValueError, match="2 margins need as many uncertainties, got 3"):
        measures([1, 2, 3], [1, 2])
