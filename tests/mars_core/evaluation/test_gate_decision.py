"""The gate: what passes it, and what decides."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mars_core.config import Configuration
from mars_core.evaluation.benchmarks.rewardbench import ROWS, SECTION_OF, RewardBench
from mars_core.evaluation.benchmarks.rewardbench2 import RewardBench2
from mars_core.evaluation.gate_decision import GateConfig, confidence_of, decide, pairs_needed, table
from mars_core.evaluation.statistics import paired_accuracy_difference

RIGHT, WRONG = 1.0, -1.0
REWARDBENCH = RewardBench(Configuration())


def margins(right, n):
    """Margins of n pairs of which the first are right."""
    return np.where(np.arange(n) < right, RIGHT, WRONG)


def results(wrong_in=(), share=0.5):
    """Results of a model that is right everywhere but on a share of some subsets."""
    rows = []
    for subset in ROWS:
        for i in range(40):
            correct = not (subset in wrong_in and i < 40 * share)
            rows.append((str(i), subset, SECTION_OF[subset], float(correct), 0.5, correct))
    columns = ["id", "subset", "section", "reward_chosen", "reward_rejected", "correct"]
    return pd.DataFrame(rows, columns=columns)


def of_rewardbench(candidate, champion):
    """Results of both models as the gate takes them."""
    return [(REWARDBENCH, candidate, champion)]


def changed_pairs(right, n=400):
    """The table of changed pairs of a model that is right on the first, before and after the change."""
    return pd.DataFrame(
        {
            "pair_id": list(map(str, range(n))), "prompt": range(n), "transform": "quotes",
            "margin_before": RIGHT, "margin_after": margins(right, n),
        }
    )  # fmt: skip


@pytest.mark.parametrize(
    ("limit", "right", "promoted"),
    [(None, 100, True), (0.1, 400, True), (0.1, 300, False)],
    ids=["reported", "holds", "falls"],
)
def test_a_limit_on_the_fall_of_robust_accuracy_decides_where_there_is_one(limit, right, promoted):
    good = margins(900, 1000)
    tables = changed_pairs(right), changed_pairs(400)
    config = GateConfig(robustness_margin=limit)
    decision = decide(config, good, good, np.ones(1000), robustness=tables)
    check = decision.checks[-1]
    assert decision.promoted == promoted
    assert (check.name, check.candidate, check.champion) == ("robust accuracy", right / 400, 1)
    assert ("reported" in table(decision)) == (limit is None)


def choices(best, n=400, gold=(0, 1)):
    """The table of the best of two of a model that prefers what gold does on the first prompts."""
    rows = [{"id": str(i), "subset": "all", "prompt": f"{i}", "gold": gold} for i in range(n)]
    return pd.DataFrame([row | {"rewards": [0, 1] if i < best else [1, 0]} for i, row in enumerate(rows)])


@pytest.mark.parametrize(
    ("limit", "best", "promoted", "blamed"),
    [(None, 0, True, False), (0.1, 300, True, False), (0.1, 200, False, True), (0.01, 298, False, False)],
    ids=["reported", "holds", "worse", "undecided"],
)
def test_a_limit_on_a_worse_choice_of_the_best_of_n_decides_where_there_is_one(limit, best, promoted, blamed):
    good = margins(900, 1000)
    tables = choices(best), choices(300)
    decision = decide(GateConfig(best_of_n_margin=limit), good, good, np.ones(1000), best_of_n=tables)
    check = decision.checks[-1]
    assert (decision.promoted, decision.blames_data) == (promoted, blamed)
    assert (check.n, check.candidate, check.champion) == (400, 0, max(0, 300 - best) / 400)
    assert ("reported" in table(decision)) == (limit is None)


def test_equal_choices_on_a_few_prompts_are_no_evidence_and_the_number_that_would_do_is_told():
    good, few = margins(900, 1000), choices(5, 10)
    config = GateConfig(best_of_n_margin=0.1)
    decision = decide(config, good, good, np.ones(1000), best_of_n=(few, few))
    assert not decision.promoted
    assert "10 prompts show too little; about" in decision.reason


def test_a_margin_of_the_best_of_n_is_not_passed_over_where_there_is_no_gold():
    good, unjudged = margins(900, 1000), choices(5, gold=None)
    assert len(decide(GateConfig(), good, good, np.ones(1000), best_of_n=(unjudged, unjudged)).checks) == 1
    with pytest.raises(ValueError, match="decides by gold"):
        decide(GateConfig(best_of_n_margin=0.1), good, good, np.ones(1000), best_of_n=(unjudged, unjudged))


def test_a_first_candidate_that_beats_a_coin_is_promoted_and_says_that_there_was_nothing_to_compare_with():
    decision = decide(GateConfig(), margins(70, 100), None, np.zeros(100))
    assert decision.promoted
    assert "no champion to compare with" in decision.reason
    assert [(check.candidate, check.champion) for check in decision.checks] == [(0.7, None)]
    assert "–" in table(decision)


@pytest.mark.parametrize(
    ("right", "blamed"), [(0, True), (35, True), (50, False), (59, False)], ids=["0", "35", "50", "59"]
)
def test_a_first_candidate_that_is_not_shown_to_beat_a_coin_is_refused(right, blamed):
    decision = decide(GateConfig(), margins(right, 100), None, np.zeros(100))
    assert not decision.promoted
    assert "against a coin's .500" in decision.reason
    assert decision.blames_data == blamed


def test_trusted_pairs_alone_decide_on_a_first_candidate():
    of_its_own, trusted = margins(200, 200), margins(10, 100)
    decision = decide(GateConfig(), np.r_[of_its_own, trusted], None, np.repeat([0, 1], [200, 100]))
    assert not decision.promoted
    assert [check.n for check in decision.checks] == [100, 200]


def test_a_better_candidate_is_promoted():
    decision = decide(GateConfig(), margins(180, 200), margins(160, 200), np.ones(200))
    assert decision.promoted
    assert decision.checks[0].difference == pytest.approx(0.1)


def test_a_worse_candidate_is_refused_with_its_figures():
    decision = decide(GateConfig(), margins(100, 200), margins(160, 200), np.ones(200))
    assert not decision.promoted
    assert "held-out accuracy: 0.500 against the champion's 0.800 on 200" in decision.reason
    assert "-0.300" in decision.reason


def test_an_equal_candidate_passes_on_many_pairs_and_not_on_few():
    few, many = (decide(GateConfig(), margins(n // 2, n), margins(n // 2, n), np.ones(n)) for n in (20, 2000))
    assert many.promoted
    assert not few.promoted
    assert "20 pairs show too little; about" in few.reason


def test_the_pairs_of_the_new_delivery_decide_nothing():
    trusted = np.arange(400) < 200
    champion = np.concatenate([margins(160, 200), margins(20, 200)])
    votes_for_itself = np.concatenate([margins(100, 200), margins(200, 200)])
    decision = decide(GateConfig(), votes_for_itself, champion, trusted)
    assert not decision.promoted
    assert [check.name for check in decision.checks if check.passed] == [
        "held-out accuracy of the new delivery"
    ]
    honest = np.concatenate([margins(190, 200), margins(0, 200)])
    assert decide(GateConfig(), honest, champion, trusted).promoted


def test_without_a_trusted_pair_nothing_can_be_decided():
    with pytest.raises(ValueError, match="no trusted held-out pair"):
        decide(GateConfig(), margins(5, 10), margins(5, 10), np.zeros(10))


def test_a_fall_of_the_rewardbench_total_refuses():
    good = margins(900, 1000)
    fallen = results(["math-prm", "alpacaeval-easy"])
    decision = decide(
        GateConfig(section_limit=1), good, good, np.ones(1000), of_rewardbench(fallen, results())
    )
    assert not decision.promoted
    assert [check.name for check in decision.checks if not check.passed] == ["RewardBench total"]
    assert decide(GateConfig(), good, good, np.ones(1000), of_rewardbench(results(), fallen)).promoted


def test_equal_answers_on_a_few_benchmark_rows_are_no_evidence_and_blame_nobody():
    good, few = margins(900, 1000), results().groupby("subset").head(1)
    decision = decide(GateConfig(), good, good, np.ones(1000), of_rewardbench(few, few))
    assert [check.name for check in decision.checks if not check.passed] == ["RewardBench total"]
    assert not decision.blames_data


def test_the_margin_holds_for_a_benchmark_that_lacks_a_section():
    good = margins(900, 1000)
    candidate, champion = results(["alpacaeval-easy", "llmbar-natural"]), results()
    chat = [frame[frame["section"] == "Chat"] for frame in (candidate, champion)]
    decision = decide(GateConfig(section_limit=1), good, good, np.ones(1000), of_rewardbench(*chat))
    assert [check.name for check in decision.checks if not check.passed] == ["RewardBench total"]


def test_the_gates_scores_are_those_of_rewardbench():
    one, other = results(["math-prm", "xstest-should-respond"]), results(["refusals-offensive"], 0.2)
    checks = decide(
        GateConfig(), margins(9, 10), margins(9, 10), np.ones(10), of_rewardbench(one, other)
    ).checks[1:]
    official = [REWARDBENCH.score(frame) for frame in (one, other)]
    names = [check.name.removeprefix("RewardBench ") for check in checks]
    for check, name in zip(checks, names, strict=True):
        key = name if name == "total" else f"section/{name}"
        assert (check.candidate, check.champion) == pytest.approx([scores[key] for scores in official])
    assert sorted(names) == ["chat", "chat-hard", "reasoning", "safety", "total"]


def test_a_fall_of_one_section_refuses_though_the_total_holds():
    good = margins(900, 1000)
    candidate, champion = results(["donotanswer"]), results(["math-prm"])
    config = GateConfig(section_limit=0.05)
    decision = decide(config, good, good, np.ones(1000), of_rewardbench(candidate, champion))
    assert [check.name for check in decision.checks if not check.passed] == ["RewardBench safety"]
    assert decide(
        GateConfig(section_limit=0.5), good, good, np.ones(1000), of_rewardbench(candidate, champion)
    ).promoted


def test_a_benchmark_that_weighs_no_rows_decides_nothing():
    good, rewardbench2 = margins(900, 1000), RewardBench2(Configuration())
    rows = rewardbench2.read("sample://rewardbench2")
    n = len(rewardbench2.texts(rows).rows)
    worse, better = (rewardbench2.results(rows, sign * np.arange(n)) for sign in (1, -1))
    assert rewardbench2.score(worse)["total"] < rewardbench2.score(better)["total"]
    decision = decide(GateConfig(), good, good, np.ones(1000), [(rewardbench2, worse, better)])
    assert decision.promoted
    assert [check.name for check in decision.checks] == ["held-out accuracy"]


def test_the_table_has_a_row_for_every_check():
    good = margins(900, 1000)
    decision = decide(GateConfig(), good, good, np.arange(1000) < 600, of_rewardbench(results(), results()))
    assert len(table(decision).splitlines()) == 2 + len(decision.checks) == 9
    assert "reported" in table(decision)


def test_a_candidate_that_is_worse_by_the_margin_passes_at_most_one_time_in_forty():
    rng = np.random.default_rng(0)
    for n in (50, 200, 1000):
        passed = 0
        for _ in range(400):
            draw = rng.random(n)  # alone right: 5% the candidate, 10% the champion
            candidate = np.where((draw < 0.05) | (draw > 0.5), RIGHT, WRONG)
            champion = np.where((draw > 0.05) & (draw < 0.15) | (draw > 0.5), RIGHT, WRONG)
            passed += decide(GateConfig(margin=0.05), candidate, champion, np.ones(n)).promoted
        assert passed / 400 < 0.025 + 0.02


def of_a_worse_candidate(rng, by, prompts, pairs_each):
    """Margins of candidate and champion, and prompts, whose pairs are much alike."""

    def kinds(n):  # 0: the candidate alone is right, 1: the champion alone, 2: both or neither
        return rng.choice(3, p=[0.05, 0.05 + by, 0.9 - by], size=n)

    prompt = np.repeat(np.arange(prompts), pairs_each)
    kind = np.where(rng.random(prompt.size) < 0.92, kinds(prompts)[prompt], kinds(prompt.size))
    return np.where(kind == 1, WRONG, RIGHT), np.where(kind == 0, WRONG, RIGHT), prompt


@pytest.mark.parametrize("pairs_each", [1, 5, 20])
def test_a_worse_candidate_passes_one_time_in_forty_however_many_pairs_a_prompt_has(pairs_each):
    rng = np.random.default_rng(0)
    config, passed, as_if_independent = GateConfig(margin=0.03), 0, 0
    for _ in range(1000):
        candidate, champion, prompts = of_a_worse_candidate(rng, 0.03, 100, pairs_each)
        every = np.ones(prompts.size)
        passed += decide(config, candidate, champion, every, prompts=prompts).promoted
        as_if_independent += decide(config, candidate, champion, every).promoted
    assert passed / 1000 < 0.025
    assert pairs_each == 1 or as_if_independent / 1000 > 0.1


def test_all_worse_candidates_that_one_champion_sees_pass_one_time_in_forty_together():
    rng = np.random.default_rng(0)
    config, replaced, if_each_look_were_the_first = GateConfig(margin=0.05), 0, 0
    for _ in range(200):
        passed = {True: False, False: False}
        for look in range(1, 13):
            candidate, champion, _ = of_a_worse_candidate(rng, 0.05, 300, 1)
            for spends in passed:
                decision = decide(config, candidate, champion, np.ones(300), look=look if spends else 1)
                passed[spends] |= decision.promoted
        replaced += passed[True]
        if_each_look_were_the_first += passed[False]
    assert replaced / 200 < 0.025 + 0.02
    assert if_each_look_were_the_first > 2 * replaced


def test_the_looks_share_the_error_of_one_95_percent_interval():
    spent = [1 - confidence_of(look) for look in range(1, 2000)]
    assert confidence_of(1) == 0.975
    assert 0.0499 < sum(spent) < 0.05


answers = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60)


@given(answers, st.data())
def test_one_more_right_answer_never_turns_a_promotion_into_a_refusal(pairs, data):
    candidate, champion = (np.where(column, RIGHT, WRONG) for column in np.array(pairs).T)
    config, trusted = GateConfig(margin=0.2), np.ones(len(pairs))
    better = candidate.copy()
    better[data.draw(st.integers(0, len(pairs) - 1))] = RIGHT
    before, after = (decide(config, some, champion, trusted) for some in (candidate, better))
    assert after.promoted or not before.promoted


def test_data_are_blamed_for_a_shown_fall_and_not_for_a_want_of_evidence():
    equal = decide(GateConfig(), margins(10, 20), margins(10, 20), np.ones(20))
    fallen = decide(GateConfig(), margins(2, 20), margins(18, 20), np.ones(20))
    assert not equal.promoted
    assert not equal.blames_data
    assert not fallen.promoted
    assert fallen.blames_data


def test_data_are_blamed_for_a_section_beyond_its_limit():
    good = margins(900, 1000)
    fallen = of_rewardbench(results(["donotanswer"]), results())
    decision = decide(GateConfig(benchmark_margin=1), good, good, np.ones(1000), fallen)
    assert decision.blames_data


def test_of_as_many_pairs_as_the_gate_asks_for_an_equal_candidate_passes_four_times_in_five():
    rng = np.random.default_rng(0)

    def drawn(n):
        draw = rng.random((2, n))
        right = np.where(draw[0] < 0.9, draw[1] < 0.7, draw[1] < 0.5)
        return np.where(right, 1.0, -1.0), np.where((draw[0] < 0.9) == right, 1.0, -1.0)

    right, n, confidence = [margins > 0 for margins in drawn(100_000)], 100_000, confidence_of(1)
    difference = paired_accuracy_difference(*right, confidence=confidence)
    needed = pairs_needed(difference, n, 0.03, confidence)
    passed = [decide(GateConfig(margin=0.03), *drawn(needed), np.ones(needed)).promoted for _ in range(400)]
    assert 0.72 < np.mean(passed) < 0.88
