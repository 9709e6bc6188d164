"""PPE Correctness by brute force over draws and pairs."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mars_core.config import Configuration
from mars_core.evaluation.benchmark_files import BenchmarkError
from mars_core.evaluation.benchmarks.ppe_correctness import SETS, PPECorrectness, best_of_k
from mars_core.evaluation.statistics import auc

PPE = PPECorrectness(Configuration())
FILES = [f"PPE-{name}-Best-of-K/train.jsonl" for name in ("MMLU-Pro", "MATH", "GPQA", "IFEval", "MBPP-Plus")]
ANSWERS = st.lists(st.tuples(st.integers(0, 3), st.booleans()), min_size=1, max_size=6)


def row(number, scores=(1, 0, 1, 0), pairs=((0, 1), (3, 2))):
    return {
        "question_id": number,
        "model_name": "someone",
        "prompt": f"Question {number}?",
        **{f"response_{place}": f"answer {number} {place}" for place in range(1, len(scores) + 1)},
        "scores": list(scores),
        "sampled_conflict_pairs": [list(pair) for pair in pairs],
    }


def scored(source, rewards):
    rows = PPE.read(source)
    return PPE.score(PPE.results(rows, rewards))


@given(ANSWERS, st.integers(1, 6))
def test_best_of_k_is_the_mean_over_all_draws_where_of_equal_rewards_a_wrong_one_is_taken(answers, k):
    rewards, right = zip(*answers, strict=True)
    draws = list(itertools.combinations(answers, k))
    if not draws:
        assert np.isnan(best_of_k(rewards, right, k))
        return
    best = [max(draw, key=lambda answer: (answer[0], not answer[1]))[1] for draw in draws]
    assert best_of_k(rewards, right, k) == pytest.approx(np.mean(best), abs=1e-9)


@given(ANSWERS)
def test_auc_is_the_share_of_right_above_wrong_answers_with_equal_ones_half(answers):
    rewards, right = (np.array(values) for values in zip(*answers, strict=True))
    above = np.sign(rewards[right][:, None] - rewards[~right]) / 2 + 0.5
    expected = above.mean() if above.size else np.nan
    assert auc(rewards, right) == pytest.approx(expected, abs=1e-9, nan_ok=True)


def test_accuracy_is_over_the_publishers_pairs_whichever_answer_they_name_first(write):
    rows = [row(1), row(2, pairs=[(0, 1)])]
    scores = scored(write(rows, "math/rows.jsonl"), [1, 0, 0, 1, 0, 1, 0, 0])
    # Question 1: the first pair is right, the second (wrong answer named first) is not; question 2 is wrong.
    assert scores["section/math"] == pytest.approx(1 / 3)


def test_auc_within_prompts_and_pooled_differ_where_prompts_have_levels_of_their_own(write):
    rows = [row(1, (1, 0), []), row(2, (1, 0), [])]
    scores = scored(write(rows, "gpqa/rows.jsonl"), [1, 0, 9, 8])
    assert scores["set/gpqa-auc-within"] == 1
    assert scores["set/gpqa-auc-pooled"] == 3 / 4


def test_means_are_over_the_five_sets_and_unknown_without_one(write, tmp_path):
    for number, name in enumerate(FILES):
        write([row(number)], name)
    right, wrong = [1, 0, 1, 0], [0, 1, 0, 1]
    of_names = {row["subset"] for row in PPE.read(str(tmp_path))}
    assert of_names == set(SETS)
    scores = scored(str(tmp_path), right * 4 + wrong)
    assert scores["accuracy"] == pytest.approx(4 / 5)
    assert scores["mean/best-of-2"] == pytest.approx((4 * 5 / 6 + 1 / 6) / 5)
    (tmp_path / FILES[0]).unlink()
    assert np.isnan(scored(str(tmp_path), right * 4)["accuracy"])
    assert PPE.count_warnings(PPE.read(str(tmp_path))) == ["PPE Correctness has no rows of mmlu-pro"]


def test_scores_may_be_lists_of_one_number(write):
    source = write([row(1) | {"scores": [[1.0], [0.0], [1.0], [0.0]]}], "mbpp/rows.jsonl")
    assert PPE.read(source)["right"][0] == [True, False, True, False]


@pytest.mark.parametrize(
    ("name", "changed", "said"),
    [
        ("mine/rows.jsonl", {}, "whose name tells none of mmlu-pro"),
        ("math/rows.jsonl", {"scores": [1, 0]}, "scores must be one for each of its 4 responses"),
        ("math/rows.jsonl", {"scores": [1, 0, 2, 0]}, r"scores\[2\] must be 0 or 1, it is 2"),
        ("math/rows.jsonl", {"sampled_conflict_pairs": [[0, 2]]}, r"sampled_conflict_pairs\[0\] must be"),
        ("math/rows.jsonl", {"sampled_conflict_pairs": [[0, 9]]}, r"sampled_conflict_pairs\[0\] must be"),
    ],
    ids=["set", "number of scores", "score", "two right", "place"],
)
def test_a_row_of_another_format_is_refused_with_row_and_field(write, name, changed, said):
    with pytest.raises(BenchmarkError, match=f"row 1 .*{said}"):
        PPE.read(write([row(1) | changed], name))
