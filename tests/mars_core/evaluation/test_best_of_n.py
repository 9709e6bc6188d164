"""The best of n responses by brute force over draws, and what is read and refused."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mars_core.config import Configuration
from mars_core.evaluation.benchmark_files import BenchmarkError
from mars_core.evaluation.benchmarks.best_of_n import BestOfN, best_of
from mars_core.report.evaluation_report import curves_figure

BEST = BestOfN(Configuration())
JUDGED = st.lists(st.tuples(st.integers(0, 3), st.integers(-5, 5)), min_size=1, max_size=6)


def row(number, gold=None, responses=4):
    judged = {} if gold is None else {"gold": gold}
    return {"prompt": f"Question {number}?", "responses": [f"answer {n}" for n in range(responses)]} | judged


def scored(source, rewards):
    rows = BEST.read(source)
    return BEST.score(BEST.results(rows, rewards))


@given(JUDGED, st.data())
def test_best_of_n_is_the_mean_over_all_draws_where_one_of_the_most_rewarded_is_taken_at_random(judged, data):
    n = data.draw(st.integers(1, len(judged)))
    rewards, gold = zip(*judged, strict=True)
    means = []
    for draw in itertools.combinations(judged, n):
        best = max(reward for reward, _ in draw)
        means.append(np.mean([value for reward, value in draw if reward == best]))
    assert best_of(gold, rewards, n) == pytest.approx(np.mean(means))


def test_thousands_of_responses_are_no_overflow():
    ranks = np.arange(3_000)
    assert best_of(ranks, ranks, 1) == pytest.approx(ranks.mean())
    assert best_of(ranks, ranks, 256) == pytest.approx(256 * 3_001 / 257 - 1)
    assert best_of(np.ones(3_000), ranks, 256) == pytest.approx(1)


def test_the_gold_model_itself_gains_all_and_a_constant_one_nothing(write):
    gold = np.array([[0, 1, 2, 5], [3, -1, 0, 0]])
    source = write([row(number, values.tolist()) for number, values in enumerate(gold)], "rows.jsonl")
    assert scored(source, gold.ravel())["gain"] == pytest.approx(1)
    assert scored(source, np.full(8, 7))["gain"] == pytest.approx(0)
    assert scored(source, -gold.ravel())["gain"] < 0


def test_gold_falls_over_n_where_a_model_likes_what_the_judge_does_not(write):
    scores = scored(write([row(1, [4, 3, 2, 1]), row(2, [8, 6, 4, 2])], "rows.jsonl"), [1, 2, 3, 4] * 2)
    assert [scores[f"own-best-of-{n}"] for n in (1, 2, 4)] == pytest.approx([2.5, 10 / 3, 4])
    assert [scores[f"gold-best-of-{n}"] for n in (1, 2, 4)] == pytest.approx([3.75, 2.5, 1.5])
    assert "gold-best-of-8" not in scores


def test_prompts_that_gold_does_not_tell_apart_count_in_the_curve_and_not_in_the_gain(write):
    scores = scored(write([row(1, [1, 1, 1, 1]), row(2, [0, 0, 0, 1])], "rows.jsonl"), [1, 2, 3, 4] * 2)
    assert scores["gain"] == pytest.approx(1)
    assert scores["gold-best-of-1"] == pytest.approx((1 + 0.25) / 2)


def test_what_was_written_of_a_judge_is_gold_for_the_next_model(write, tmp_path):
    rows = BEST.read(write([row(1), row(2)], "rows.jsonl"))
    of_the_judge = BEST.results(rows, [0, 1, 2, 3, 3, 2, 1, 0])
    assert np.isnan(BEST.score(of_the_judge)["gain"])
    of_the_judge.to_parquet(tmp_path / "best_of_n.parquet", index=False)
    assert BEST.read(str(tmp_path / "best_of_n.parquet"))["gold"] == [[0, 1, 2, 3], [3, 2, 1, 0]]


def test_prompts_without_gold_are_told_and_not_counted_in_the_gain(write):
    source = write([row(1, [0, 0, 0, 1]), row(2)], "rows.jsonl")
    assert "1 of 2 prompts have no gold" in BEST.count_warnings(BEST.read(source))[0]
    scores = scored(source, [1, 2, 3, 4] * 2)
    assert (scores["gain"], scores["n"], scores["n_of_gain"]) == (pytest.approx(1), 2, 1)
    assert "gold-best-of-1" not in scores


def test_curves_are_drawn_as_far_as_every_prompt_has_responses(write):
    source = write([row(1, [1, 2, 3, 4]), row(2, [1, 2], responses=2)], "rows.jsonl")
    assert BEST.count_warnings(BEST.read(source)) == [
        "Best of n: prompts have 2 to 4 responses; curves end at 2"
    ]
    scores = scored(source, [1, 2, 3, 4, 1, 2])
    figure = curves_figure({"best_of_n": BEST}, {f"best_of_n/{name}": one for name, one in scores.items()})
    gold, own = (panel.get_lines()[0] for panel in figure.axes)
    assert list(gold.get_xdata()) == list(own.get_xdata()) == [1, 2]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"responses": ["one"]}, "has one response: there is nothing to choose from"),
        ({"gold": [1, 2]}, "gold must be a finite number for each of its 4 responses"),
        ({"gold": [1, 2, 3, None]}, "gold must be a finite number for each of its 4 responses"),
        ({"rewards": [1, 2, 3, 4]}, "has gold and the rewards of a judge: leave one of them out"),
        ({"prompt": [{"from": "human"}]}, "prompt is neither text nor turns of role and content"),
    ],
)
def test_rows_of_another_form_are_refused_by_name(write, values, said):
    with pytest.raises(BenchmarkError, match=f"row 1 {said}"):
        BEST.read(write([row(1, [1, 2, 3, 4]) | values], "rows.jsonl"))
