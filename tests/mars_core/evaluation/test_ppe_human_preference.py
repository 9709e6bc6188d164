import numpy as np
import pytest

from mars_core.config import Configuration
from mars_core.evaluation.benchmark_files import BenchmarkError
from mars_core.evaluation.benchmarks.ppe_human_preference import PPEHumanPreference

PPE = PPEHumanPreference(Configuration())


def vote(number, winner):
    return {
        "question_id": f"q{number}",
        "model_a": "a",
        "model_b": "b",
        "winner": winner,
        "language": "English",
        "prompt": "Hello?",
        "response_1": f"one {number}",
        "response_2": f"two {number}",
    }


def test_the_preferred_answer_is_the_winners_and_votes_for_neither_are_left_out(write):
    votes = [vote(1, "model_a"), vote(2, "tie"), vote(3, "model_b"), vote(4, "tie (bothbad)")]
    rows = PPE.read(write(votes, "votes.jsonl"))
    assert rows["chosen"][:] == ["one 1", "two 3"]
    assert rows["rejected"][:] == ["two 1", "one 3"]


def test_accuracy_is_the_share_of_votes_with_equal_rewards_wrong(write):
    rows = PPE.read(write([vote(number, "model_a") for number in range(4)], "votes.jsonl"))
    scores = PPE.score(PPE.results(rows, [1, 1, 1, 0, 0, 0, 1, 1]))
    assert (scores["total"], scores["ties"]) == (0.5, 0.25)
    assert scores["total_low"] < 0.5 < scores["total_high"]


def test_a_language_has_a_score_from_a_hundred_votes_on(write):
    votes = [vote(number, "model_a") for number in range(100)]
    votes += [vote(100, "model_a") | {"language": "German"}]
    rows = PPE.read(write(votes, "votes.jsonl"))
    scores = PPE.score(PPE.results(rows, np.repeat([1.0, 0.0], 101)))
    assert scores["language/English"] == 1
    assert "language/German" not in scores


def test_another_winner_and_a_vote_that_is_there_twice_are_refused(write):
    with pytest.raises(BenchmarkError, match="row 1 winner must be one of model_a"):
        PPE.read(write([vote(1, "both")], "votes.jsonl"))
    with pytest.raises(BenchmarkError, match="row 2 repeats id q1:a:b"):
        PPE.read(write([vote(1, "model_a")] * 2, "votes.jsonl"))
