"""RewardMATH by rewards that are worked out by hand."""

import pytest

from mars_core.config import Configuration
from mars_core.evaluation.benchmark_files import BenchmarkError
from mars_core.evaluation.benchmarks.rewardmath import RewardMATH

REWARDMATH = RewardMATH(Configuration())


def solutions(problem, wrong=9):
    """The rows of a problem, the right solution not first."""
    kinds = ["rejected", "chosen", *["rejected"] * (wrong - 1)]
    return [
        {
            "problem_id": problem,
            "problem": f"What is {problem} + 1?",
            "subject": "Algebra",
            "solution_type": kind,
            "eval_solution": [f"Step {place}.", "Done."],
        }
        for place, kind in enumerate(kinds)
    ]


def test_a_problem_is_one_row_with_the_steps_of_a_solution_in_lines(write):
    [row] = REWARDMATH.read(write(solutions(7), "rows.json"))
    assert row["chosen"] == ["Step 1.\nDone."]
    assert (len(row["rejected"]), row["rejected"][0]) == (9, "Step 0.\nDone.")


def test_equal_rewards_are_wrong_and_rank_behind(write):
    rows = REWARDMATH.read(write([*solutions(1), *solutions(2), *solutions(3)], "rows.json"))
    rewards = [5, *[1] * 9, 5, 5, *[1] * 8, 5, 7, 6, *[1] * 7]
    scores = REWARDMATH.score(REWARDMATH.results(rows, rewards))
    assert scores["total"] == pytest.approx(1 / 3)
    assert scores["mean-reciprocal-rank"] == pytest.approx((1 + 1 / 2 + 1 / 3) / 3)
    assert scores["ties"] == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (solutions(7, wrong=8), "problem_id 7 has 1 chosen and 8 rejected solutions, where"),
        (solutions(7) * 2, "problem_id 7 has 2 chosen and 18 rejected solutions, where"),
        ([solutions(7)[0] | {"eval_solution": "Done."}], "row 1 eval_solution must be a list of some texts"),
    ],
    ids=["missing", "doubled", "steps"],
)
def test_solutions_that_are_missing_doubled_or_of_another_form_are_refused(write, rows, said):
    with pytest.raises(BenchmarkError, match=said):
        REWARDMATH.read(write(rows, "rows.json"))


def test_missing_problems_are_told(write):
    rows = REWARDMATH.read(write(solutions(7), "rows.json"))
    assert REWARDMATH.count_warnings(rows) == ["RewardMATH has 1 problems, the official data have 483"]
