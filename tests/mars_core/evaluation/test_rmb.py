"""RMB by rewards that are worked out by hand."""

import numpy as np
import pytest

from mars_core.config import Configuration
from mars_core.evaluation.benchmark_files import BenchmarkError
from mars_core.evaluation.benchmarks.rmb import CATEGORIES, RMB

RMB_ = RMB(Configuration())
ASKED = [
    {"role": "user", "content": "Hello."},
    {"role": "assistant", "content": "Hi!"},
    {"role": "user", "content": "How are you?"},
]


def answer(text):
    return {"llm_name": "someone", "answer": text}


def pair(number, path="Harmlessness/S1"):
    return {
        "pair_uid": str(number),
        "conversation_input": ASKED,
        "chosen": answer(f"good {number}"),
        "reject": answer(f"bad {number}"),
        "category_path": f"Pairwise_set/{path}",
    }


def best_of_n(number, losers, path="Helpfulness/Chat/Discussion"):
    return {
        "bon_uid": str(number),
        "conversation_input": ASKED[:1],
        "bon_best": answer(f"best {number}"),
        "loser_list": [answer(f"loser {number} {place}") for place in range(losers)],
        "category_path": f"BoN_set/{path}",
    }


def scored(source, rewards):
    rows = RMB_.read(source)
    return RMB_.score(RMB_.results(rows, rewards))


def test_the_best_of_n_is_right_only_above_every_loser(write):
    rows = [best_of_n(1, 3), best_of_n(2, 2), best_of_n(3, 2)]
    scores = scored(write(rows, "rows.json"), [5, 1, 2, 3, 5, 6, 1, 5, 1, 5])
    assert scores["section/best-of-n-helpfulness-by-row"] == pytest.approx(1 / 3)
    assert scores["ties"] == pytest.approx(1 / 3)


def test_the_rows_of_a_prompt_are_one_draw(write):
    def width(rows_a_prompt):
        rows = [
            pair(n) | {"conversation_input": [{"role": "user", "content": f"Question {n // rows_a_prompt}?"}]}
            for n in range(40)
        ]
        # both pairs of a prompt are right, or both wrong
        rewards = np.repeat([[1, 0], [0, 1]], 20, axis=0).ravel()
        scores = scored(write(rows, f"rows{rows_a_prompt}.json"), rewards)
        name = "section/pairs-harmlessness-by-row"
        return scores[f"{name}_high"] - scores[f"{name}_low"]

    assert width(2) == pytest.approx(width(1) * 2**0.5, rel=0.1)


def test_means_of_categories_and_of_rows_differ_and_are_both_named(write):
    rows = [pair(1), pair(2), pair(3), pair(4, "Harmlessness/S2")]
    scores = scored(write(rows, "rows.json"), [1, 0] * 3 + [0, 1])
    assert scores["section/pairs-harmlessness-by-row"] == 3 / 4
    assert scores["section/pairs-harmlessness-by-category"] == 1 / 2
    assert scores["category/pairs-harmlessness/S1"] == 1


def test_totals_are_means_of_the_four_parts_however_many_rows_they_have(write):
    parts = [pair(1), pair(2), pair(3, "Helpfulness/Chat/Discussion"), best_of_n(4, 2)]
    rows = [*parts, best_of_n(5, 2, "Harmlessness/S3")]
    rewards = [1, 0] * 2 + [0, 1] + [1, 0, 0] + [0, 1, 1]
    scores = scored(write(rows, "rows.json"), rewards)
    assert (scores["total-by-category"], scores["total-by-row"]) == (0.5, 0.5)
    without = scored(write(parts, "rows.json"), rewards[:-3])
    assert np.isnan([without["total-by-category"], without["total-by-row"]]).all()


def test_missing_categories_and_rows_are_told_by_part(write):
    told = RMB_.count_warnings(RMB_.read(write([pair(1)], "rows.json")))
    others = ", ".join(name for name in CATEGORIES["harmlessness"] if name != "S1")
    assert told[0] == f"RMB pairs-harmlessness has no rows in {others}; 1 of 459 rows in S1"
    assert told[1:] == [
        f"RMB {part} has no rows"
        for part in ("pairs-helpfulness", "best-of-n-harmlessness", "best-of-n-helpfulness")
    ]


def test_a_conversation_is_stored_with_its_speakers_and_an_answer_may_be_empty(write):
    rows = RMB_.read(write([pair(1) | {"reject": answer("")}], "rows.json"))
    assert rows["prompt"][0] == "Human: Hello.\n\nAssistant: Hi!\n\nHuman: How are you?"
    assert rows["rejected"][0] == [""]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (pair(1, "Harmlessness/S99"), "category_path must be Pairwise_set or BoN_set, then"),
        (pair(1) | {"chosen": "good"}, "chosen must have an answer"),
        (best_of_n(1, 0), "loser_list must be a list of at least one answer"),
        (best_of_n(1, 1) | {"loser_list": [{}]}, r"loser_list\[0\] must have an answer"),
        (pair(1) | {"conversation_input": [{"role": "bot", "content": "?"}]}, "conversation_input must be"),
        (pair(1) | {"conversation_input": []}, "conversation_input is empty"),
    ],
    ids=["category", "chosen", "no loser", "loser", "role", "no turn"],
)
def test_a_row_of_another_format_is_refused_with_row_and_field(write, row, said):
    with pytest.raises(BenchmarkError, match=f"row 1 {said}"):
        RMB_.read(write([row], "rows.json"))
