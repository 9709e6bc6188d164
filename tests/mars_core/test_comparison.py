"""Arms are matched where they have to be, and compared within seeds."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from scipy import stats

from mars_core.comparison import (
    ComparisonConfig,
    arm_means,
    arms_table,
    cells,
    differences,
    load_comparison,
    tuning_cells,
)
from mars_core.config import ConfigError
from mars_core.experiment import ExperimentConfig
from mars_core.report.comparison_report import ComparisonReport, _forest_plot
from tasks.run.run_config import RunConfig

ARMS = {"uniform": {"selection.tau": 0}, "mars": {"selection.tau": 0.5, "selection.margin": "signed"}}
VALUES = {"name": "tiny", "seeds": 3, "baselines": ["uniform"], "experiment": {"rounds": 2}, "arms": ARMS}


def comparison(**changes):
    return ComparisonConfig.model_validate(VALUES | changes)


def cells_of(config):
    return cells(config, ExperimentConfig, {})


EXPERIMENTS = Path(__file__).parents[2] / "deployments/experiments"
COMPARISONS = {file.stem: file for file in EXPERIMENTS.rglob("*.yaml") if "\narms:" in file.read_text()}


@pytest.mark.parametrize("file", COMPARISONS)
def test_the_arms_of_every_comparison_in_the_box_are_matched(file):
    whole = load_comparison(COMPARISONS[file])
    tune = whole.tune and whole.tune.model_copy(update={"seeds": [1000]})
    config = whole.model_copy(update={"seeds": [0], "tune": tune})
    found = [*cells_of(config), *tuning_cells(config, ExperimentConfig, {})]
    assert {cell.arm for cell in found} == set(config.arms)


def results(**by_arm):
    """A cell a value: the n-th of an arm is that of seed n. All were trained alike."""
    return pd.DataFrame(
        [
            {"arm": arm, "seed": seed, "heldout/accuracy": value, "optimizer_steps": 8, "pairs_seen": 64}
            for arm, values in by_arm.items()
            for seed, value in enumerate(values)
        ]
    )


def test_a_cell_is_the_common_experiment_with_its_arms_keys_and_its_seed():
    found = cells(comparison(), RunConfig, {"tracking": {"models": "none"}})
    assert [(cell.arm, cell.seed) for cell in found] == [(arm, seed) for seed in range(3) for arm in ARMS]
    last = found[-1].experiment
    assert (last.selection.tau, last.seed, last.rounds, last.name) == (0.5, 2, 2, "mars-seed2")
    assert last.tracking.models == "none"
    assert len({str(cell.experiment.run_folder) for cell in found}) == len(found)
    assert {cell.experiment.shared_steps for cell in found} == {"runs/tiny/.shared"}


def test_what_is_another_default_in_a_comparison_may_still_be_set():
    changed = comparison(experiment={"tracking": {"models": "all"}})
    first = cells(changed, RunConfig, {"tracking": {"models": "none", "experiment": "arms"}})[0].experiment
    assert (first.tracking.models, first.tracking.experiment) == ("all", "arms")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("fit.epochs", 2),
        ("selection.budget", 7),
        ("rounds", 1),
        ("data.subset", 10),
        ("model.max_length", 64),
        ("semantics.embedder", "other"),
        ("augmentation.max_paraphrases", 9),
    ],
    ids=lambda part: str(part),
)
def test_arms_that_differ_in_what_has_to_be_matched_are_refused(key, value):
    with pytest.raises(ConfigError, match=f"uniform and mars differ in {key} .* set it under experiment"):
        cells_of(comparison(arms=ARMS | {"mars": {key: value}}))


def test_arms_may_differ_in_the_objective_of_the_fit_and_its_keys_in_the_guards_and_in_the_generator():
    ensemble = {"fit.objective.name": "ensemble", "fit.objective.members": 3}
    other = ensemble | {"guards.min_similarity": 0.1, "generation.store": "texts"}
    found = cells_of(comparison(arms=ARMS | {"other": other}))
    assert [cell.experiment.fit.objective.name for cell in found[:3]] == ["bradley_terry"] * 2 + ["ensemble"]
    assert found[2].experiment.fit.objective.members == 3


@pytest.mark.parametrize(
    "key", [{"selection": {"budget_unit": "paraphrases"}}, {"fit": {"patience": 2}}], ids=str
)
def test_what_would_give_arms_different_numbers_of_steps_is_refused(key):
    with pytest.raises(ConfigError, match="arm uniform: all arms of a comparison train on as many pairs"):
        cells_of(comparison(experiment=key))


def test_an_arm_is_changed_on_the_command_line_key_by_key(tmp_path):
    file = tmp_path / "compare.yaml"
    file.write_text(yaml.safe_dump(VALUES))
    changed = load_comparison(file, ["arms.mars.selection.tau=1"])
    mars = next(cell for cell in cells_of(changed) if cell.arm == "mars").experiment.selection
    assert (mars.tau, mars.margin) == (1, "signed")


def test_an_arm_of_the_file_is_left_out_on_the_command_line(tmp_path):
    file = tmp_path / "comparison.yaml"
    file.write_text(yaml.safe_dump(VALUES | {"arms": ARMS | {"tau-0.1": {"selection.tau": 0.1}}}))
    assert set(load_comparison(file, ["arms.tau-0.1=null"]).arms) == set(ARMS)
    with pytest.raises(ConfigError, match="baselines: 'uniform' is no arm"):
        load_comparison(file, ["arms.uniform=null"])
    with pytest.raises(ConfigError, match=r"arms\.third: Input should be a valid dictionary"):
        load_comparison(file, ["arms.third=null"])


def test_a_key_of_an_arm_is_emptied_on_the_command_line(tmp_path):
    file = tmp_path / "comparison.yaml"
    file.write_text(yaml.safe_dump(VALUES | {"arms": ARMS | {"mars": {"selection.cap": 3}}}))
    changed = load_comparison(file, ["arms.mars.selection.cap=null"])
    mars = next(cell for cell in cells_of(changed) if cell.arm == "mars")
    assert mars.experiment.selection.cap is None


def test_an_arm_that_the_file_leaves_empty_is_refused(tmp_path):
    file = tmp_path / "comparison.yaml"
    file.write_text(yaml.safe_dump(VALUES | {"arms": ARMS | {"third": None}}))
    with pytest.raises(ConfigError, match=r"arms\.third: Input should be a valid dictionary"):
        load_comparison(file)


def test_an_arm_of_another_strategy_does_not_inherit_the_keys_of_the_shared_one():
    shared = {"selection": {"strategy": "softmax", "tau": 0.3, "budget": 7}}
    arms = {"uniform": {"selection.tau": 0}, "hardest": {"selection.strategy": "hardest"}}
    uniform, hardest = cells_of(comparison(experiment=shared, arms=arms))[:2]
    assert (uniform.experiment.selection.tau, uniform.experiment.selection.budget) == (0, 7)
    selection = hardest.experiment.selection
    assert (selection.strategy, selection.budget, hasattr(selection, "tau")) == ("hardest", 7, False)


def test_an_unknown_key_of_an_arm_is_told_with_the_arm():
    with pytest.raises(ConfigError, match=r"tiny, arm mars: selection\.tua: .* nearest is selection\.tau"):
        cells_of(comparison(arms=ARMS | {"mars": {"selection.tua": 1}}))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("name: tiny\narms: {a: {}, b: {}}\nexperiment: {}\nbaselines: [c]", "'c' is no arm; arms are a, b"),
        (
            "name: tiny\narms: {a: {}, b: {}}\nexperiment: {}\nbaselines: [a]\nseeds: [1, 1]",
            "different seeds",
        ),
        ("name: tiny\narms: {a: {}, b: {}}\nexperiment: {}\nbaselines: [a]\nseed: 1", "nearest is seeds"),
        ("name: tiny\narms: {a: {}}\nexperiment: {}", "arms: Dictionary should have at least 2"),
    ],
    ids=["baseline", "seeds", "key", "arms"],
)
def test_a_comparison_that_cannot_be_is_told(text, told, tmp_path):
    file = tmp_path / "compare.yaml"
    file.write_text(f"name: tiny\nexperiment: {{}}\n{text}")
    with pytest.raises(ConfigError, match=told):
        load_comparison(file)


def test_the_table_of_arms_holds_the_keys_that_differ_and_no_other():
    table = arms_table(
        cells_of(comparison(arms=ARMS | {"capped": {"selection.tau": 0.5, "selection.cap": 3}}))
    )
    assert list(table.columns) == ["uniform", "mars", "capped"]
    assert table.to_dict("index") == {
        "selection.cap": {"uniform": "None", "mars": "None", "capped": "3"},
        "selection.tau": {"uniform": "0.0", "mars": "0.5", "capped": "0.5"},
    }


def test_means_are_taken_over_the_seeds_that_finished():
    means = arm_means(results(uniform=[0.5, 0.7], mars=[0.6, math.nan]), "heldout/accuracy")
    assert means["uniform"].value == pytest.approx(0.6)
    assert (means["mars"].value, means["mars"].n) == (0.6, 1)


def test_a_difference_is_paired_by_seed():
    random = np.random.default_rng(0)
    luck = random.normal(size=10)  # of the seed: shared by both arms, so it cancels
    uniform, mars = 0.6 + luck, 0.61 + luck + random.normal(scale=0.001, size=10)
    (one,) = differences(results(uniform=uniform, mars=mars), "heldout/accuracy", ["uniform"])
    assert one.over_seeds.p_value == pytest.approx(stats.ttest_rel(mars, uniform).pvalue)
    assert one.over_seeds.value == pytest.approx(0.01, abs=0.002)
    assert one.words == "higher"


def test_seeds_that_only_one_arm_finished_are_left_out():
    (one,) = differences(results(uniform=[0.5, 0.6, 0.7], mars=[0.6]), "heldout/accuracy", ["uniform"])
    assert (one.over_seeds.n, one.over_seeds.value) == (1, pytest.approx(0.1))


def test_nothing_is_claimed_on_fewer_than_ten_seeds_or_an_adjusted_p_above_the_level():
    sure = results(uniform=np.linspace(0, 1, 9), mars=np.linspace(1, 2.1, 9))
    (few,) = differences(sure, "heldout/accuracy", ["uniform"])
    assert few.adjusted_p < 0.05
    assert few.words == "no claim: 9 seeds, 10 are needed"
    alternating = [0.1, -0.1] * 5
    (noise,) = differences(results(uniform=[0.0] * 10, mars=alternating), "heldout/accuracy", ["uniform"])
    assert noise.words == "within noise"


def test_nothing_is_claimed_of_arms_that_were_not_trained_alike():
    drawn = results(
        uniform=np.linspace(0.5, 0.6, 10), good=np.linspace(0.7, 0.81, 10), odd=np.linspace(0.8, 0.9, 10)
    )
    drawn.loc[drawn["arm"] == "odd", "pairs_seen"] = 63
    words = {
        (one.arm, one.baseline): one.words for one in differences(drawn, "heldout/accuracy", ["uniform"])
    }
    assert words == {
        ("good", "uniform"): "higher",
        ("odd", "uniform"): "no claim: the two were not trained alike",
    }


def test_nobody_can_set_what_the_comparison_sets():
    with pytest.raises(ConfigError, match="arm mars: remove the key seed: the comparison sets it"):
        cells_of(comparison(arms=ARMS | {"mars": {"seed": 7}}))
    with pytest.raises(ConfigError, match=r"remove the key augmentation\.top_up"):
        cells_of(comparison(experiment={"augmentation": {"top_up": False}}))


def test_holms_adjustment_runs_over_all_arms_and_baselines():
    random = np.random.default_rng(1)
    drawn = results(**{arm: random.normal(size=10) for arm in ("uniform", "none", "v1", "v2")})
    found = differences(drawn, "heldout/accuracy", ["uniform", "none"])
    assert [(one.arm, one.baseline) for one in found] == [
        ("none", "uniform"), ("v1", "uniform"), ("v2", "uniform"), ("v1", "none"), ("v2", "none"),
    ]  # fmt: skip
    least = min(one.over_seeds.p_value for one in found)
    assert min(one.adjusted_p for one in found) == pytest.approx(min(1.0, 5 * least))


def test_ten_equal_differences_are_no_certainty_and_no_member_of_holms_family():
    random = np.random.default_rng(2)
    drawn = results(uniform=[0.5] * 10, same=[0.6] * 10, mars=random.normal(0.7, 0.01, size=10))
    same, mars = differences(drawn, "heldout/accuracy", ["uniform"])
    assert same.words == "no claim: the seeds show no spread"
    assert math.isnan(same.adjusted_p)
    assert mars.adjusted_p == mars.over_seeds.p_value
    figure = _forest_plot(
        ComparisonReport(comparison(), "mars compare", [], drawn, curves=pd.DataFrame(), failed={})
    )
    widths = [container.lines[2][0].get_segments() for container in figure.axes[0].containers]
    assert [len(segments[0]) for segments in widths] == [0, 2]  # points of each bar
