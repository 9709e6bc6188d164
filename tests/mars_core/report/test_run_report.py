import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mars_core.config import Configuration
from mars_core.evaluation.benchmarks.rewardbench import RewardBench
from mars_core.evaluation.benchmarks.rewardbench2 import RewardBench2
from mars_core.evaluation.statistics import PairedDifference, paired_difference, pairwise_summary
from mars_core.method.curvature import SHARES
from mars_core.report.run_report import RunReport, figures, markdown, rounds_table, write

GAIN = PairedDifference(
    value=0.023, low=0.004, high=0.0419, p_value=0.0213, n=400, only_a=1531, only_b=22, effect_size=0.486
)
SUITE = {"rewardbench": RewardBench(Configuration()), "rewardbench2": RewardBench2(Configuration())}
SECTIONS = ("chat", "chat-hard", "safety", "reasoning")


def metrics_of(right, n=500):
    """Metrics of a round that ranks `right` of `n` pairs rightly."""
    margins = np.repeat([0.5, -0.25], [right, n - right])
    return {
        f"{pairs}/{name}": value
        for pairs in ("validation", "heldout")
        for name, value in pairwise_summary(margins).items()
    }


def rewardbench_of(total):
    return {
        f"rewardbench/{name}{end}": total + shift
        for name in ("total", *(f"section/{section}" for section in SECTIONS))
        for end, shift in (("", 0), ("_low", -0.05), ("_high", 0.05))
    } | {"rewardbench/n": 92.0}


def report_of(rounds, **changed):
    """A report of rounds of metrics; from round 1 on each has four originals with margins and budgets.

    The benchmarks are those that some round has metrics of.
    """
    spent = range(1, len(rounds))
    run = {name.partition("/")[0] for metrics in rounds for name in metrics}
    values = {
        "name": "tiny",
        "rounds": rounds,
        "best": 1,
        "difference": GAIN,
        "suite": {key: one for key, one in SUITE.items() if key in run},
        "benchmarks": {},
        "generator": "rules",
        "by_language_model": False,
        "margins": {number: np.array([-1.0, -0.1, 0.2, 2.0], dtype=np.float32) for number in spent},
        "budgets": {number: np.array([5, 2, 1, 0]) for number in spent},
        "heldout": {},
        "synthetic": {},
        "data_notes": [],
    }
    return RunReport(**(values | changed))


@pytest.fixture
def report():
    first = {"train/originals": 1000.0, "fit/seconds": 20.0, "seconds": 31.0} | metrics_of(260)
    second = {"train/originals": 1000.0, "train/synthetic": 2000.0, "seconds": 75.5} | metrics_of(326)
    return report_of([first, second])


def table_of(report):
    """Header → cells of its column."""
    headers, rows = rounds_table(report)
    return dict(zip(headers, zip(*rows, strict=True), strict=True))


def test_the_table_marks_the_best_round_and_no_other(report):
    assert table_of(report)["round"] == ("0", "1 (best)")


def test_accuracies_stand_with_their_intervals(report):
    table = table_of(report)
    assert table["held-out"][1] == table["validation"][1] == ".652 [.609, .692]"
    assert table["chance"] == (".456–.544", ".456–.544")


def test_train_pairs_are_originals_plus_synthetic_pairs(report):
    assert table_of(report)["train pairs"] == ("1,000", "1,000 + 2,000")


def test_without_rewardbench_there_is_no_column_section_or_panel_for_it(report):
    report = dataclasses.replace(report, suite=SUITE)  # no round has its scores yet
    assert not any(header in (*SECTIONS, "RewardBench") for header in rounds_table(report)[0])
    assert "RewardBench" not in markdown(report)
    assert len(figures(report)["accuracy"].axes) == 1


def test_a_rewardbench_that_only_a_later_round_has_gets_its_columns(report):
    report = report_of([report.rounds[0], report.rounds[1] | rewardbench_of(0.6)])
    table = table_of(report)
    assert table["RewardBench"] == table["chat-hard"] == ("–", ".600")
    assert len(figures(report)["accuracy"].axes) == 2
    assert "| chat-hard | – | .600 [.550, .650] |" in markdown(report)


def test_of_several_benchmarks_each_section_names_its_own_and_each_has_a_panel(report):
    both = rewardbench_of(0.6) | {"rewardbench2/total": 0.4, "rewardbench2/subset/focus": 0.7}
    report = report_of([report.rounds[0], report.rounds[1] | both])
    table = table_of(report)
    assert table["RewardBench chat"] == ("–", ".600")
    assert table["RewardBench 2"] == ("–", ".400")
    assert table["RewardBench 2 focus"] == ("–", ".700")
    assert not {"chat", "focus"} & set(table)
    titles = [axes.get_title() for axes in figures(report)["accuracy"].axes]
    assert titles == ["preference pairs", "RewardBench", "RewardBench 2"]


def test_a_benchmark_of_other_size_is_said_to_compare_with_no_published_score(report):
    rounds = [metrics | rewardbench_of(0.6) for metrics in report.rounds]
    assert "published" not in markdown(report_of(rounds))
    other = [metrics | {"rewardbench/subsets_of_other_size": 3.0} for metrics in rounds]
    assert "3 of its subsets have other numbers of rows than the official split" in markdown(report_of(other))


def test_a_benchmarks_scores_stand_above_their_definitions_and_the_rule_for_equal_rewards(report):
    cut = {"rewardbench/prompts_cut": 12.0}
    page = markdown(report_of([metrics | rewardbench_of(0.6) | cut for metrics in report.rounds]))
    assert "| texts whose prompt was cut | 12 | 12 |" in page
    assert "- total: mean of the four sections." in page
    assert "- chat, chat-hard, safety, reasoning: share of chosen rewards above the rejected ones" in page
    assert "- Equal rewards: which count as wrong." in page


def test_a_model_whose_rewards_are_all_equal_is_said_to_have_them(report):
    assert "are equal in round" not in markdown(report)
    rounds = [report.rounds[0], report.rounds[1] | {"heldout/constant": 1.0}]
    assert "**All rewards on held-out pairs are equal in round 1.**" in markdown(report_of(rounds))


def test_nan_is_shown_as_a_dash(report):
    rounds = [metrics | {"heldout/snr": math.nan} for metrics in report.rounds]
    assert table_of(report_of(rounds))["SNR"] == ("–", "–")
    assert "nan" not in markdown(report_of(rounds))


@pytest.mark.parametrize(
    ("value", "low", "high", "p_value", "said"),
    [
        (0.02, -0.01, 0.05, 0.24, "Within noise: the interval includes 0."),
        (0.02, 0.0, 0.04, 0.06, "Within noise: the interval includes 0."),
        (0.05, 0.01, 0.09, 0.01, "Above round 0: the interval excludes 0."),
        (-0.05, -0.09, -0.01, 0.01, "Below round 0: the interval excludes 0."),
    ],
    ids=["around zero", "touching zero", "above", "below"],
)
def test_the_gain_over_round_0_is_put_in_words(report, value, low, high, p_value, said):
    page = markdown(
        dataclasses.replace(report, difference=PairedDifference(value, low, high, p_value, 99, 9, 8, 0.03))
    )
    assert f"**{said}**" in page
    assert "disagrees" not in page


def test_rounds_that_rank_every_pair_alike_show_nothing_whatever_their_interval(report):
    alike = PairedDifference(0.0, 0.0, 0.0, 1.0, 7, 0, 0, math.nan)
    page = markdown(dataclasses.replace(report, difference=alike))
    assert "**Nothing is shown: every pair is ranked alike in both rounds.**" in page
    assert "Within noise" not in page


def test_the_difference_stands_with_sign_interval_p_value_and_counts(report):
    page = markdown(report)
    assert "the originals alone) on the same pairs: +.023 [+.004, +.042], p = .021." in page
    assert "Right in round 1 only: 1,531 pairs; in round 0 only: 22." in page


def test_a_tiny_p_value_is_no_zero(report):
    assert "p < .001" in markdown(dataclasses.replace(report, difference=GAIN._replace(p_value=1e-9)))


@pytest.mark.parametrize(("low", "p_value"), [(0.001, 0.06), (-0.001, 0.04)], ids=["test", "interval"])
def test_an_interval_and_a_test_that_disagree_are_too_close_to_call(report, low, p_value):
    doubtful = GAIN._replace(low=low, p_value=p_value)
    assert "The test disagrees" in markdown(dataclasses.replace(report, difference=doubtful))


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=40))
def test_noise_is_never_called_a_gain(answers):
    difference = paired_difference(*zip(*answers, strict=True), draws=50)
    page = markdown(report_of([metrics_of(260), metrics_of(300)], difference=difference))
    assert ("Above round 0" in page) == (difference.low > 0)
    assert ("Below round 0" in page) == (difference.high < 0)


def test_where_round_0_is_best_no_improvement_is_claimed(report):
    page = markdown(dataclasses.replace(report, best=0, difference=None))
    assert "No round improved on the originals alone" in page
    assert "Its held-out accuracy is .520 [.476, .563] on 500 pairs" in page
    assert "minus that of round 0" not in page


def test_a_backbone_that_came_as_a_reward_model_is_not_called_a_fit_on_the_originals(report):
    adopted = {key: value for key, value in report.rounds[0].items() if not key.startswith("fit/")}
    page = markdown(report_of([adopted, report.rounds[1]], best=0, difference=None))
    assert "No round improved on the backbone as it came" in page


@pytest.mark.parametrize(("right", "said"), [(260, True), (326, False)], ids=["within", "above"])
def test_an_accuracy_that_a_coin_may_get_is_not_left_unsaid(right, said):
    page = markdown(report_of([metrics_of(right)] * 2))
    assert ("a coin gets .456–.544, and this is not above it" in page) is said


def test_the_page_says_what_one_run_cannot_show(report):
    page = markdown(report)
    assert "one run with one seed" in page
    assert "chosen on validation, not on held-out" in page


def test_texts_from_rules_are_said_to_measure_the_machinery_only(report):
    served = dataclasses.replace(report, generator="vllm:Qwen/Qwen3-8B", by_language_model=True)
    assert "`rules`, not from a language model" in markdown(report)
    assert "language model" not in markdown(served)
    assert "`vllm:Qwen/Qwen3-8B`" in markdown(served)


def test_what_a_round_did_with_its_budget_stands_in_the_column_of_the_round(report):
    spent = {
        "semantics/close_share": 0.4,
        "augmentation/moved": 12.0,
        "augmentation/dropped/meaning lost": 31.0,
        "rewriting/requests": 1200.0,
        "augmentation/requests": 345.0,
        "synthetic/misranked_before": 0.52,
        "synthetic/misranked_after": 0.33,
    }
    page = markdown(report_of([*report.rounds, report.rounds[1] | spent]))
    for line in (
        "|  | round 1 | round 2 |",
        "| close share of the originals | – | .400 |",
        "| budget moved to other originals | – | 12 |",
        "| texts dropped: meaning lost | – | 31 |",
        "| requests: rewriting + augmentation | – | 1,200 + 345 |",
        "| mis-ranked share of the synthetic pairs: before → after the fit | – | .520 → .330 |",
    ):
        assert line in page


def test_the_time_that_no_part_accounts_for_is_shown_too(report):
    assert "| of which all else | 11 | 76 |" in markdown(report)


def test_every_row_of_a_table_has_as_many_cells_as_its_header(report):
    rounds = [metrics | rewardbench_of(0.6) for metrics in report.rounds]
    tables = [part.splitlines() for part in markdown(report_of(rounds)).split("\n\n") if part.startswith("|")]
    assert len(tables) == 4
    assert all(len({line.count("|") for line in table}) == 1 for table in tables)


def test_data_notes_stand_on_the_page(report):
    page = markdown(dataclasses.replace(report, data_notes=["Left out 3 rows: empty text."]))
    assert page.endswith("- Left out 3 rows: empty text.\n")


def test_every_figure_has_labelled_axes(report):
    drawn = figures(report_of([metrics | rewardbench_of(0.6) for metrics in report.rounds]))
    assert set(drawn) == {"margins", "accuracy", "budget"}
    assert all(axes.get_xlabel() and axes.get_ylabel() for axes in drawn["accuracy"].axes)
    assert all(drawn[name].get_supxlabel() and drawn[name].get_supylabel() for name in ("margins", "budget"))


def test_the_chance_line_and_band_stand_in_the_legend(report):
    axes = figures(report)["accuracy"].axes[0]
    labels = {text.get_text() for text in axes.get_legend().get_texts()}
    assert labels == {"validation", "held-out", "chance", "chance, 95% on held-out"}


def test_each_round_that_spent_a_budget_has_its_panel():
    drawn = figures(report_of([metrics_of(260)] * 5))
    for name in ("margins", "budget"):
        titles = [
            axes.get_title() or axes.get_title("left") for axes in drawn[name].axes if axes.get_visible()
        ]
        assert [title.split(":")[0] for title in titles] == ["round 1", "round 2", "round 3", "round 4"]


def test_a_run_folder_gets_the_page_and_every_figure_that_it_shows(report, tmp_path):
    write(report, tmp_path / "run")
    page = (tmp_path / "run" / "report.md").read_text(encoding="utf-8")
    assert page == markdown(report)
    shown = {f"figures/{name}.png" for name in figures(report)}
    assert all(f"]({place})" in page for place in shown)
    assert all((tmp_path / "run" / place).read_bytes().startswith(b"\x89PNG") for place in shown)


def test_a_run_that_has_only_round_0_yet_has_a_page_too(report, tmp_path):
    first = report_of(report.rounds[:1], best=0, difference=None)
    write(first, tmp_path)
    assert {path.name for path in (tmp_path / "figures").iterdir()} == {"accuracy.png"}
    assert "](figures/accuracy.png)" in (tmp_path / "report.md").read_text(encoding="utf-8")
    assert markdown(first).count("](figures/") == 1
    assert "Only round 0 has run" in markdown(first)


CURVATURE = {
    f"curvature/{of}/{name}": 0.2
    for of in ("originals", "synthetic", "mixture")
    for name in ("mean_c", "trace", "lambda_min", "rank", "condition")
} | {"curvature/beta": 0.5, "curvature/alpha": 0.4, "curvature/mean_gain": 0.9, "curvature/worst_gain": 0.5}


def theory(premises, gamma_curv):
    """Curvature figures of a round in which A2 holds, and A1 for these shares of the pairs."""
    whole = {"curvature/premises": float(1.0 in premises), "curvature/bound": 0.6}
    return (
        CURVATURE
        | whole
        | {
            f"curvature/{name}/{share}": value
            for share in SHARES
            for name, value in {
                "gamma_org": 0.1,
                "gamma_aug": 0.2,
                "gamma_curv": gamma_curv,
                "a1": float(share in premises),
            }.items()
        }
    )


def with_round_1(report, **figures):
    return report_of([report.rounds[0], report.rounds[1] | figures])


@pytest.mark.parametrize(
    ("premises", "gamma_curv", "said"),
    [
        ((), 2.0, "the premises do not hold for all pairs; no gain is promised."),
        ((0.9, 0.5), 1.5, "the premises do not hold for all pairs; no gain is promised."),
        (SHARES, 0.3, "the premises hold for all pairs; γ_curv = 0.3, so no gain is promised."),
        (SHARES, 1.5, "the premises hold for all pairs; γ_curv = 1.5, so a gain is promised."),
    ],
    ids=["no premises", "most pairs", "no gain", "gain"],
)
def test_what_the_theorem_promises_is_put_in_words(report, premises, gamma_curv, said):
    assert f"Round 1: {said}" in markdown(with_round_1(report, **theory(premises, gamma_curv)))


def test_what_could_fool_an_accuracy_stands_beside_it(report):
    page = markdown(
        with_round_1(
            report,
            **{
                "heldout/longer_wins": 0.61,
                "contamination/heldout/exact": 2.0,
                "contamination/heldout/near": 3.0,
            },
            **{f"contamination/heldout/accuracy{end}": 0.6 for end in ("", "_low", "_high")},
            **{"contamination/rewardbench/subset/math-prm": 7.0},
        )
    )
    assert "| the rule “the longer response wins” | – | .610 |" in page
    assert "| rows seen in training: exact + near | – | 2 + 3 |" in page
    assert "| without the rows seen in training | – | .600 [.600, .600] |" in page
    assert "7 in rewardbench math-prm" in page


def test_what_could_fool_rewardbench_2_stands_beside_it_too(report):
    fooled = {"rewardbench2/longer_wins": 0.31, "rewardbench2/shorter_wins": 0.22, "rewardbench2/ties": 0.05}
    page = markdown(with_round_1(report, **fooled, **{"rewardbench2/total": 0.4}))
    assert "| **RewardBench 2** | – | .400 |" in page
    assert "| the rule “the longer response wins” | – | .310 |" in page
    assert "| the rule “the shorter response wins” | – | .220 |" in page
    assert "| ties (equal rewards, worst right and best wrong one) | – | .050 |" in page
    assert "the longest or the shortest of all responses to a prompt" in page


def test_comparisons_of_one_family_are_corrected_for_each_other(report):
    page = markdown(
        dataclasses.replace(report, benchmarks={"RewardBench total": GAIN, "RewardBench chat": GAIN})
    )
    assert "| RewardBench chat | +.023 [+.004, +.042] | .021 | .064 |" in page


def test_where_round_0_is_best_the_last_round_is_compared_with_it(report):
    page = markdown(dataclasses.replace(report, best=0))
    assert "No round improved on the originals alone" in page
    assert "Held-out accuracy of round 1, the last, minus that of round 0" in page


def test_what_was_made_of_synthetic_pairs_stands_by_group(report):
    page = markdown(
        with_round_1(
            report,
            **{"synthetic/flipped": 0.1, "synthetic/rewritten/n": 8.0, "synthetic/rewritten/flipped": 0.25},
            **{"synthetic/paraphrased/none/n": 3.0, "synthetic/paraphrased/prompt-rejected/n": 5.0},
        )
    )
    assert "| flipped: ranked the other way than their original | .100 |" in page
    assert "| **original rewritten**: pairs | 8 |" in page
    assert "| **nothing paraphrased**: pairs | 3 |" in page
    assert "| **prompt + rejected paraphrased**: pairs | 5 |" in page
    assert "**chosen paraphrased**" not in page


def test_every_figure_has_its_axes_named_and_its_lines_in_a_legend(report):
    rng = np.random.default_rng(0)
    full = dataclasses.replace(
        with_round_1(report, **theory((0.5,), 0.3), **{"synthetic/low_limit": 0.1}),
        heldout={0: rng.normal(size=100), 1: rng.normal(size=100)},
        synthetic={1: rng.normal(size=(2, 50))},
    )
    drawn = figures(full)
    assert set(drawn) == {"accuracy", "calibration", "margins", "budget", "synthetic", "curvature"}
    for name in ("calibration", "synthetic"):
        assert drawn[name].get_supxlabel()
        assert drawn[name].get_supylabel()
        assert drawn[name].legends
    for axes in drawn["curvature"].axes:
        assert axes.get_xlabel()
        assert axes.get_ylabel()
        assert axes.get_legend()
    assert "chance" in {text.get_text() for text in drawn["calibration"].legends[0].get_texts()}


def test_a_report_that_is_not_drawn_shows_no_figure(report, tmp_path):
    undrawn = dataclasses.replace(report, is_drawn=False)
    write(undrawn, tmp_path)
    assert "![" in markdown(report)
    assert "![" not in markdown(undrawn)
    assert [path.name for path in tmp_path.iterdir()] == ["report.md"]


# Robustness

ROBUST = {
    f"robustness/{name}{measure}": value
    for name in ("", "rot13/", "quotes/")
    for measure, value in {
        "robust_accuracy": 0.4, "robust_accuracy_low": 0.3, "robust_accuracy_high": 0.5, "before": 0.6,
        "after": 0.5, "change": -0.1, "change_low": -0.2, "change_high": 0.0, "sign_kept": 0.7,
        "sign_kept_low": 0.6, "sign_kept_high": 0.8, "to_wrong": 0.2, "to_right": 0.1, "reward_shift": 0.25,
        "n": 30.0,
    }.items()
}  # fmt: skip


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (
            0.02,
            0.18,
            "**Refinement raised robustness**: robust accuracy is .500 in round 1 and .400 in round 0",
        ),
        (-0.18, -0.02, "**Refinement lowered robustness**"),
        (-0.1, 0.1, "**Refinement is not shown to have changed robustness**"),
    ],
    ids=["raised", "lowered", "within noise"],
)
def test_what_refinement_did_to_robustness_stands_in_a_sentence_with_its_interval(report, low, high, said):
    rounds = [report.rounds[0] | ROBUST, report.rounds[1] | ROBUST | {"robustness/robust_accuracy": 0.5}]
    difference = GAIN._replace(value=(low + high) / 2, low=low, high=high)
    page = markdown(report_of(rounds, robustness=difference))
    assert said in page
    assert "The changes move accuracy by −.100 in round 1 and by −.100 in round 0." in page
    assert "| rot13 | .400 [.300, .500] | .600 | .500 | −.100 [−.200, .000] |" in page
    assert table_of(report_of(rounds))["robust accuracy"] == (".400", ".500")


def test_without_robustness_the_report_has_no_section_of_it(report):
    assert "obust" not in markdown(report)
