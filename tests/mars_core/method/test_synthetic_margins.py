from itertools import product

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mars_core.method.synthetic_margins import LOW, PART_SETS, summarise

ORIGINALS = pd.DataFrame({"pair_id": [*"abcde"], "margin": [-2.0, -1.0, 0.5, 1.0, 4.0]})
MARGIN = st.floats(-5, 5, width=32)
PAIRS = st.lists(
    st.tuples(
        st.sampled_from("abcde"), st.integers(0, 2), st.integers(0, 2), st.integers(0, 2), MARGIN, MARGIN
    ),
    min_size=1,
    max_size=30,
)


def synthetic(*rows):
    columns = [
        "parent_id", "prompt_variant", "chosen_variant", "rejected_variant", "margin_before", "margin_after",
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=columns)


def test_a_low_margin_is_below_a_quantile_of_the_originals():
    figures = summarise(
        synthetic(("a", 0, 1, 0, 0.9, 1.1), ("a", 0, 1, 1, -1.0, 0.2), ("a", 1, 1, 0, -0.2, 0.1)),
        ORIGINALS,
        [],
    )
    assert figures["low_limit"] == 1.0
    assert (figures["misranked_before"], figures["misranked_after"]) == pytest.approx((2 / 3, 0))
    assert (figures["mean_margin_before"], figures["mean_margin_after"]) == pytest.approx((-0.1, 1.4 / 3))
    assert figures["low_margin_before"] == figures["low_margin_after"] == pytest.approx(2 / 3)


def test_originals_taken_for_synthetic_pairs_have_the_share_of_the_quantile():
    originals = pd.DataFrame({"pair_id": range(400), "margin": range(400)})
    copies = synthetic(*((i, 0, 1, 0, float(i), float(i)) for i in range(400)))
    assert summarise(copies, originals, [])["low_margin_before"] == LOW


def test_a_pair_is_flipped_where_its_original_is_ranked_the_other_way():
    figures = summarise(
        synthetic(("a", 0, 1, 0, -1, -1), ("a", 0, 1, 0, 1, 1), ("e", 0, 1, 0, 1, 1), ("e", 0, 1, 0, 0, 1)),
        ORIGINALS, [],
    )  # fmt: skip
    assert figures["flipped"] == 0.5


def test_a_fit_turns_some_pairs_right_and_others_wrong():
    figures = summarise(
        synthetic(("a", 0, 1, 0, -1, 1), ("a", 0, 1, 0, 0, 2), ("e", 0, 1, 0, 1, 0), ("e", 0, 1, 0, 1, 1)),
        ORIGINALS, [],
    )  # fmt: skip
    assert (figures["turned_right"], figures["turned_wrong"]) == (0.5, 0.25)


def test_pairs_are_told_apart_by_their_paraphrased_parts_and_by_rewriting():
    figures = summarise(
        synthetic(("a", 0, 1, 0, -1, 1), ("b", 2, 1, 0, 1, 1), ("e", 1, 3, 2, 1, 1)), ORIGINALS, ["b", "c"]
    )
    sets = ("chosen", "prompt-chosen", "prompt-chosen-rejected")
    assert [figures[f"paraphrased/{parts}/n"] for parts in sets] == [1, 1, 1]
    assert [figures[f"paraphrased/{parts}/flipped"] for parts in sets] == [0, 1, 0]
    assert (figures["rewritten/n"], figures["not_rewritten/n"]) == (1, 2)
    assert (figures["rewritten/flipped"], figures["not_rewritten/turned_right"]) == (1, 0.5)


def test_sets_of_as_many_paraphrased_parts_are_told_apart():
    figures = summarise(
        synthetic(*(("e", *variants, 1, 1) for variants in product((0, 1), repeat=3))), ORIGINALS, []
    )
    counted = [figures[f"paraphrased/{parts}/n"] for parts in PART_SETS]
    assert list(PART_SETS) == [
        "none", "prompt", "chosen", "rejected", "prompt-chosen", "prompt-rejected", "chosen-rejected",
        "prompt-chosen-rejected",
    ]  # fmt: skip
    assert counted == [1] * 8


def test_groups_without_a_pair_have_no_figures():
    figures = summarise(synthetic(("a", 0, 1, 0, -1.0, 1.0)), ORIGINALS, [])
    assert {name.rpartition("/")[0] for name in figures} == {"", "paraphrased/chosen", "not_rewritten"}


@given(PAIRS, st.sets(st.sampled_from("abcde")))
def test_groups_add_up_to_the_whole(rows, rewritten):
    figures = summarise(synthetic(*rows), ORIGINALS, rewritten)
    for groups in (("rewritten", "not_rewritten"), [f"paraphrased/{parts}" for parts in PART_SETS]):
        there = [name for name in groups if f"{name}/n" in figures]
        assert sum(figures[f"{name}/n"] for name in there) == len(rows)
        for figure in ("low_margin_before", "flipped", "turned_right", "turned_wrong"):
            counted = sum(figures[f"{name}/n"] * figures[f"{name}/{figure}"] for name in there)
            assert counted == pytest.approx(figures[figure] * len(rows))
