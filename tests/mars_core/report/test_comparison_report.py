"""What a person reads of a comparison is what was measured, and says no more than it may."""

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest

from mars_core.comparison import ComparisonConfig, cells
from mars_core.experiment import ExperimentConfig
from mars_core.report.comparison_report import (
    ComparisonReport,
    differences_table,
    markdown,
    means_table,
    rounds_table,
    write,
)

ARMS = {"uniform": {"selection.tau": 0}, "mars": {"selection.tau": 0.5}, "same": {"selection.tau": 2}}
SEEDS = 10


@pytest.fixture
def report():
    config = ComparisonConfig(
        name="tiny", seeds=SEEDS, baselines=["uniform"], experiment={"rounds": 1}, arms=ARMS
    )
    drawn = np.random.default_rng(0).normal(0.6, 0.001, SEEDS)
    accuracy = {"uniform": drawn, "mars": drawn + 0.05 + np.linspace(0, 0.001, SEEDS), "same": drawn + 0.05}
    results = pd.DataFrame(
        [
            {
                "arm": arm, "seed": seed, "heldout/accuracy": value, "heldout/snr": float("nan"),
                "optimizer_steps": 8, "pairs_seen": 64, "seconds": 90.0,
                "packages": "torch 2.12" if seed < 3 else "torch 2.13",
            }
            for arm, values in accuracy.items()
            for seed, value in enumerate(values)
        ]
    )  # fmt: skip
    curves = pd.concat(
        [
            results[["arm", "seed"]].assign(round=0, **{"heldout/accuracy": 0.55}),
            results[["arm", "seed", "heldout/accuracy"]].assign(round=1),
        ]
    )
    failed = {"mars-seed9": "ModelError: a reward is NaN or infinite"}
    found = cells(config, ExperimentConfig, {})
    return ComparisonReport(config, "mars compare tiny.yaml", found, results, curves, failed)


def test_means_have_intervals_where_arms_are_compared_and_none_where_they_are_not(report):
    headers, rows = means_table(report)
    assert headers == ["arm", "seeds", "held-out", "seconds"]  # no SNR: no cell has one
    by_arm = {row[0]: row[1:] for row in rows}
    assert by_arm["uniform"][0] == "10"
    assert by_arm["uniform"][1].startswith(".600 [")
    assert by_arm["uniform"][2] == "90"


def test_a_benchmark_that_the_cells_ran_has_its_columns_and_its_headline_is_tested(report):
    shown = report.config.model_copy(
        update={"experiment": {"rounds": 1, "evaluation": {"benchmarks": {"rewardbench": "bench.jsonl"}}}}
    )
    scores = {"rewardbench/total": 0.7, "rewardbench/section/chat": 0.8, "rewardbench2/total": 0.4}
    with_scores = dataclasses.replace(
        report, cells=cells(shown, ExperimentConfig, {}), results=report.results.assign(**scores)
    )
    headers, rows = means_table(with_scores)
    assert headers == ["arm", "seeds", "held-out", "RewardBench", "chat", "seconds"]
    assert [row[3].partition(" ")[0] for row in rows] == [".700"] * 3
    assert list(with_scores.columns) == [
        "heldout/accuracy", "rewardbench/total", "rewardbench/section/chat", "seconds",
    ]  # fmt: skip
    assert "## Paired differences: RewardBench\n" in markdown(with_scores)
    assert "## Paired differences: chat\n" not in markdown(with_scores)
    assert "RewardBench" not in markdown(report)


def test_a_p_value_is_never_zero_and_a_difference_without_spread_has_none(report):
    _, rows = differences_table(report, "heldout/accuracy")
    mars, same = rows
    assert mars[0] == "mars − uniform"
    assert mars[2].startswith("+.05")
    assert mars[3:] == ["< .001", "< .001", "higher"]
    assert same[2:] == ["+.050", "–", "–", "no claim: the seeds show no spread"]


def test_a_difference_that_is_rounded_to_zero_has_no_sign(report):
    near = report.results["arm"] == "mars"
    base = report.results.loc[report.results["arm"] == "uniform", "heldout/accuracy"].to_numpy()
    report.results.loc[near, "heldout/accuracy"] = base - np.linspace(0, 0.0002, SEEDS)
    (mars, _) = differences_table(report, "heldout/accuracy")[1]
    assert mars[2] == ".000 [.000, .000]"


def test_the_accuracy_after_each_round_stands_beside_the_curve(report):
    headers, rows = rounds_table(report)
    assert headers == ["arm", "round 0", "round 1"]
    assert [row[:2] for row in rows] == [[arm, ".550"] for arm in ARMS]
    assert "| uniform | .550 | .600 |" in markdown(report)


def test_the_numbers_of_the_page_are_kept_for_machines_and_words_as_they_are(report, tmp_path):
    write(report, tmp_path)
    values = json.loads((tmp_path / "results.json").read_text(), parse_constant=pytest.fail)
    assert [len(values[name]) for name in ("cells", "curves", "differences")] == [30, 60, 2]
    assert values["differences"][1]["adjusted_p"] is None
    assert values["failed"] == report.failed
    page = (tmp_path / "results.md").read_text()
    assert "- mars-seed9: ModelError: a reward is NaN or infinite" in page
    assert all((tmp_path / f"figures/{name}.png").stat().st_size for name in ("differences", "curves"))


def test_the_page_names_the_packages_that_the_cells_ran_with_whatever_runs_now(report):
    assert "The cells ran with torch 2.12; or torch 2.13, and took 0.75 hours" in markdown(report)
