"""Win rates from recorded judgements, each against what a reader can count or a symmetry that must hold.

The length-controlled form is that of the package `alpaca_eval`, of which no copy of the formula is made here.
"""

import math
import sys

import numpy as np
import pytest
from typer.testing import CliRunner

from flows.cli import app
from mars_core.alignment.judgements import read_judgements
from mars_core.alignment.win_rates import MINIMAL, WinRateError, agreement, win_rates
from mars_core.evaluation.benchmark_files import BenchmarkError

WORDS = ["a", "an", "one", "two", "three", "several", "a great many"]


def judged(prompts=40, judge=lambda response, baseline: 1.0, seed=0, **fields):
    """Judgements of responses of random lengths."""
    random = np.random.default_rng(seed)
    rows = []
    for number in range(prompts):
        response, baseline = (" ".join(random.choice(WORDS, random.integers(3, 60))) for _ in range(2))
        row = {"prompt": f"Question {number}?", "response": response, "baseline": baseline}
        rows.append(row | {"preference": judge(response, baseline)} | fields)
    return rows


def as_alpaca_eval(rows):
    """The same in AlpacaEval's form, where 0 is a tie."""
    return [
        {
            "instruction": row["prompt"],
            "output_1": row["baseline"],
            "generator_1": "reference",
            "output_2": row["response"],
            "generator_2": "ours",
            "annotator": "somebody",
            "preference": 0 if row["preference"] == 0.5 else row["preference"] + 1,
        }
        for row in rows
    ]


def likes(response, baseline):
    """A soft judge of odd lengths and, a little, of longer texts, with ties."""
    wins = len(response) % 3 / 2
    return wins if wins == 0.5 else 0.9 * wins + 0.1 * (len(response) > len(baseline))


@pytest.mark.parametrize("name", ["judgements.json", "judgements.jsonl", "judgements.jsonl.gz"])
def test_both_forms_of_the_same_judgements_give_the_same_rates(write, name):
    rows = judged(judge=likes)
    ours = win_rates(read_judgements(write(rows, f"own/{name}")))
    theirs = read_judgements(write(as_alpaca_eval(rows), f"alpaca/{name}"))
    assert (theirs.model, theirs.baseline) == ("ours", "reference")
    told = win_rates(theirs)
    assert told.plain.value == pytest.approx(np.mean([row["preference"] for row in rows]), abs=1e-12)
    assert told.plain.value == pytest.approx(ours.plain.value, abs=1e-12)
    assert told.length_controlled == pytest.approx(ours.length_controlled, abs=1e-9)
    assert told.ties == ours.ties > 0


def likes_length(response, baseline):
    """A soft judge who looks at nothing but the difference in length."""
    return 1 / (1 + math.exp(-3 * math.tanh((len(response) - len(baseline)) / 100)))


def test_a_model_that_wins_by_length_alone_wins_half_once_length_is_controlled_for(write):
    rows = [
        row
        for number, row in enumerate(judged(prompts=300, judge=likes_length))
        if len(row["response"]) > len(row["baseline"]) or number % 4 == 0
    ]
    told = win_rates(read_judgements(write(rows)))
    assert told.longer > 0.7
    assert told.plain.value > 0.6
    assert told.length_controlled[MINIMAL] == pytest.approx(0.5, abs=0.02)


def test_exchanged_sides_have_the_rest_of_each_rate(write):
    rows = judged(prompts=60, judge=likes)
    turned = [
        row | {"response": row["baseline"], "baseline": row["response"], "preference": 1 - row["preference"]}
        for row in rows
    ]
    one, other = (
        win_rates(read_judgements(write(given, f"{number}.jsonl")))
        for number, given in enumerate([rows, turned])
    )
    assert one.plain.value + other.plain.value == pytest.approx(1)
    assert one.plain.low + other.plain.high == pytest.approx(1, abs=0.02)
    assert one.length_controlled[MINIMAL] + other.length_controlled[MINIMAL] == pytest.approx(1, abs=1e-3)


def test_what_could_not_be_read_is_missing_and_bounds_the_rate(write):
    rows = judged(prompts=10, judge=lambda *_: None)
    for row in rows[:8]:
        row["preference"] = 1.0 if row["prompt"] < "Question 6" else 0.0
    told = win_rates(read_judgements(write(rows)))
    assert (told.judgements, told.missing) == (10, 2)
    assert told.plain.value == pytest.approx(6 / 8)
    assert (told.if_missing_lost, told.if_missing_won) == pytest.approx((6 / 10, 8 / 10))


def test_judgements_of_one_prompt_are_one_draw(write):
    rows = judged(judge=likes)
    once, often = (
        win_rates(read_judgements(write(given, f"{len(given)}.jsonl"))).plain for given in (rows, rows * 20)
    )
    assert often == pytest.approx(once)


@pytest.mark.parametrize(
    ("judge", "first_wins", "consistent"),
    [(lambda first, fair: float(first == "response"), 1, 0), (lambda first, fair: fair, 0.5, 1)],
    ids=["of the order alone", "blind to the order"],
)
def test_the_order_in_which_responses_are_shown_is_told_from_their_merit(
    write, judge, first_wins, consistent
):
    rows = [
        row | {"shown_first": first, "preference": judge(first, row["preference"])}
        for row in judged(judge=lambda response, baseline: float(len(response) > len(baseline)))
        for first in ("response", "baseline")
    ]
    position = win_rates(read_judgements(write(rows))).position
    assert position.pairs == 40
    assert position.first_wins.value == pytest.approx(first_wins)
    assert position.consistent.value == consistent


def test_no_order_is_judged_where_none_is_recorded(write):
    assert win_rates(read_judgements(write(judged(judge=likes)))).position is None


def test_agreement_counts_the_pairs_in_which_both_judges_prefer_one(write):
    rows = judged(prompts=12, judge=lambda *_: 1.0)
    other = [dict(row) for row in rows[:10]]
    for place, preference in enumerate([0.0, 0.0, 0.5, None]):
        other[place]["preference"] = preference
    value, n = agreement(
        read_judgements(write(rows, "one.jsonl")), read_judgements(write(other, "two.jsonl"))
    )
    assert n == 8  # of the ten in common one ties, and one could not be read
    assert value.value == 6 / 8
    assert value.low < value.value < value.high


def test_judges_of_different_responses_have_nothing_to_agree_on(write):
    one, two = (read_judgements(write(judged(seed=seed), f"{seed}.jsonl")) for seed in (0, 1))
    with pytest.raises(WinRateError, match="0 prompts with the same two responses"):
        agreement(one, two)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"preference": 1.5}, "row 2 preference is 1.5; it must be between 0 and 1"),
        ({"preference": "first"}, "row 2 preference must be a number or null"),
        ({"response": None}, "row 2 response must be text"),
        ({"shown_first": "left"}, "row 2 shown_first must be one of response, baseline"),
        ({"model": "another"}, "row 2 judges the model 'another'"),
    ],
    ids=lambda value: next(iter(value)) + str(next(iter(value.values()))) if isinstance(value, dict) else "",
)
def test_a_row_that_is_no_judgement_is_named(write, change, said):
    rows = judged(prompts=3)
    rows[1] |= change
    with pytest.raises(BenchmarkError, match=said):
        read_judgements(write(rows))


def test_pairs_without_a_preference_are_no_judgements(write):
    with pytest.raises(BenchmarkError, match="has no field preference: these are no judgements"):
        read_judgements(write([{"prompt": "Why?", "chosen": "So.", "rejected": "No."}]))


def test_there_is_no_rate_where_no_answer_could_be_read(write):
    with pytest.raises(WinRateError, match="none of 4 judgements could be read"):
        win_rates(read_judgements(write(judged(prompts=4, judge=lambda *_: None))))


def test_four_pairs_have_no_length_controlled_rate_and_are_told_so(write):
    told = win_rates(read_judgements(write(judged(prompts=4, judge=likes))))
    assert told.length_controlled == {}
    assert "4 pairs are too few" in told.notes[0]


def test_without_the_package_the_command_says_how_to_install_it(write, monkeypatch):
    monkeypatch.setitem(sys.modules, "alpaca_eval.metrics.glm_winrate", None)
    done = CliRunner().invoke(app, ["winrate", write(judged(judge=likes))])
    assert done.exit_code == 1
    assert 'pip install "mars[align]"' in done.stderr


def test_the_command_prints_the_rates_and_writes_a_page_figures_and_a_picture(write, tmp_path):
    rows = judged(judge=likes)
    recorded = write(judged(judge=likes), "recorded.jsonl")
    arguments = [
        "winrate",
        write(as_alpaca_eval(rows)),
        "--recorded",
        recorded,
        "--output",
        str(tmp_path / "out"),
    ]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    rate = f"{100 * np.mean([row['preference'] for row in rows]):.4f}"
    page = (tmp_path / "out/winrate.md").read_text()
    for told in (done.output, page):
        assert rate in told
        assert MINIMAL in told
        assert "no figure of AlpacaEval's leaderboard" in told
    assert '"agreement": 100.0' in (tmp_path / "out/winrate.json").read_text()
    assert (tmp_path / "out/winrate.png").stat().st_size > 10_000
