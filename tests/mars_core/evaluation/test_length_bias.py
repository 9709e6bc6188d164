import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mars_core.evaluation.length_bias import length_bias, lengths

PAIRS = st.lists(
    st.tuples(st.floats(-20, 20, width=32), st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=40
)


def test_a_length_is_counted_in_characters():
    assert lengths(["", "lark", "größer"]).tolist() == [0, 4, 6]


def test_a_model_that_ranks_by_length_is_seen_through():
    rng = np.random.default_rng(0)
    chosen, rejected = rng.integers(1, 500, size=(2, 400))
    bias = length_bias(chosen - rejected, chosen, rejected)
    assert bias["prefers_longer"] == 1
    assert bias["length_correlation"] == pytest.approx(1)
    assert bias["length_balanced"] == 0.5
    assert np.isnan(
        [bias["length_balanced_low"], bias["length_balanced_high"]]
    ).all()  # strata without spread


def test_a_model_that_knows_the_answer_whatever_its_length_keeps_its_accuracy_on_balanced_pairs():
    bias = length_bias([1, 1, 1, 1], [9, 9, 9, 1], [1, 1, 1, 9])
    assert (bias["longer_wins"], bias["shorter_wins"], bias["prefers_longer"]) == (0.75, 0.25, 0.75)
    assert bias["length_balanced"] == 1


def test_balance_gives_the_few_pairs_with_a_shorter_chosen_response_half_of_the_weight():
    bias = length_bias([1, 1, 1, 1, -1], [9, 9, 9, 9, 1], [1, 1, 1, 1, 9])
    assert bias["length_balanced"] == 0.5


def test_responses_of_one_length_are_no_evidence_of_bias():
    bias = length_bias([1.0, -1.0], [5, 5], [5, 5])
    assert (bias["longer_wins"], bias["shorter_wins"]) == (0, 0)
    assert all(
        math.isnan(bias[name]) for name in ("prefers_longer", "length_correlation", "length_balanced_low")
    )


def test_a_model_that_gives_one_constant_score_has_no_correlation():
    assert math.isnan(length_bias([0.0, 0.0], [5, 7], [9, 3])["length_correlation"])


@given(PAIRS)
def test_swapping_chosen_and_rejected_leaves_what_the_model_prefers(rows):
    margins, chosen, rejected = map(np.array, zip(*rows, strict=True))
    bias = length_bias(margins, chosen, rejected)
    swapped = length_bias(-margins, rejected, chosen)
    assert swapped["prefers_longer"] == pytest.approx(bias["prefers_longer"], nan_ok=True)
    assert swapped["longer_wins"] == bias["shorter_wins"]
    assert swapped["length_correlation"] == pytest.approx(bias["length_correlation"], nan_ok=True)


def test_margins_without_their_lengths_are_refused():
    with pytest.raises(ValueError, match="2 margins need as many lengths, got 1"):
        length_bias([1.0, 2.0], [3], [4])
