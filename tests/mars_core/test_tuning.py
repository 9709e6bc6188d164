"""Every arm chooses from the same grid, by validation pairs, in as many optimizer steps."""

import pandas as pd
import pytest

from mars_core.comparison import ComparisonConfig, cells, tuning_cells
from mars_core.config import ConfigError, validated
from mars_core.experiment import ExperimentConfig
from mars_core.tuning import pooled

GRID = {"fit.learning_rate": [1e-5, 1e-4], "fit.weight_decay": [0.0, 0.1]}
VALUES = {
    "name": "tiny",
    "seeds": 2,
    "baselines": ["uniform"],
    "experiment": {"rounds": 1},
    "arms": {"uniform": {"selection.tau": 0}, "mars": {"selection.tau": 0.5}},
    "tune": {"grid": GRID},
}


def comparison(**tune):
    return validated(ComparisonConfig, VALUES | {"tune": {"grid": GRID} | tune}, "tiny.yaml")


def results(*rows):
    return pd.DataFrame(rows, columns=["arm", "setting", "right", "pairs"])


def test_every_arm_tries_every_combination_under_every_tuning_seed():
    found = tuning_cells(comparison(), ExperimentConfig, {})
    tried = [
        (cell.seed, cell.arm, cell.experiment.fit.learning_rate, cell.experiment.fit.weight_decay)
        for cell in found
    ]
    assert sorted(tried) == [
        (seed, arm, rate, decay)
        for seed in (1000, 1001, 1002)
        for arm in ("mars", "uniform")
        for rate in GRID["fit.learning_rate"]
        for decay in GRID["fit.weight_decay"]
    ]
    assert len({cell.name for cell in found}) == len(found)


def test_an_arm_takes_what_it_chose_into_the_comparison_under_other_seeds():
    found = cells(comparison(), ExperimentConfig, {}, {"mars": 2, "uniform": 0})
    assert [(cell.name, cell.experiment.fit.learning_rate) for cell in found] == [
        ("uniform-setting0-seed0", 1e-5), ("mars-setting2-seed0", 1e-4),
        ("uniform-setting0-seed1", 1e-5), ("mars-setting2-seed1", 1e-4),
    ]  # fmt: skip


def test_the_choice_is_by_accuracy_over_all_seeds_pairs_and_each_arms_own():
    rows = results(
        ("mars", 0, 9, 10), ("mars", 0, 50, 90), ("mars", 1, 7, 10), ("mars", 1, 70, 90),
        ("uniform", 0, 8, 10), ("uniform", 1, 6, 10),
    )  # fmt: skip
    tuning = pooled([{"fit.learning_rate": 1e-5}, {"fit.learning_rate": 1e-4}], rows)
    assert tuning.chosen == {"mars": 1, "uniform": 0}
    assert tuning.accuracies.loc["mars"].tolist() == [0.59, 0.77]


def test_of_settings_that_are_equally_good_the_first_is_taken():
    rows = results(("mars", 1, 5, 10), ("mars", 0, 5, 10))
    assert pooled([{"a": 1}, {"a": 2}], rows).chosen == {"mars": 0}


@pytest.mark.parametrize(
    ("tune", "told"),
    [
        ({"grid": {"fit.learning_rate": [1e-5, 1e-4, 1e-3], "fit.weight_decay": [0, 0.1, 1]}}, "9 settings"),
        ({"grid": {"fit.learning_rate": [1e-5]}}, "1 settings"),
        ({"grid": {"fit.learning_rate": []}}, "0 settings"),
        ({"grid": {}}, "1 settings"),
        ({"grid": {"fit.epochs": [1, 2]}}, r"fit\.epochs cannot be tuned"),
        ({"grid": {"data.subset": [1, 2]}}, r"data\.subset cannot be tuned"),
        ({"grid": {"selection.tau": [0, 1]}}, r"arms\.uniform: selection\.tau is what arms differ in"),
        ({"settings": [{"fit.learning_rate": 1e-5}] * 2}, "a grid or settings, not both"),
        ({"grid": {}, "settings": [{"fit.epochs": 1}] * 2}, r"fit\.epochs cannot be tuned"),
        ({"grid": {}, "settings": [{"fit.learning_rate": 1e-5}, {"fit.weights": "carry"}]}, "the same keys"),
        ({"seeds": [1, 1000]}, r"tune\.seeds: \[1\] are seeds of the comparison"),
    ],
    ids=lambda part: str(part),
)
def test_a_grid_that_would_be_unfair_is_refused(tune, told):
    with pytest.raises(ConfigError, match=told):
        comparison(**tune)


def test_settings_may_be_named_one_by_one():
    few = [
        {"fit.learning_rate": 1e-5, "fit.weights": "carry"},
        {"fit.learning_rate": 1e-4, "fit.weights": "restart"},
    ]
    found = tuning_cells(comparison(grid={}, settings=few, seeds=[9]), ExperimentConfig, {})
    tried = [(cell.setting, cell.experiment.fit.learning_rate, cell.experiment.fit.weights) for cell in found]
    assert tried == [(0, 1e-5, "carry")] * 2 + [(1, 1e-4, "restart")] * 2


def test_an_unknown_key_of_the_grid_is_told_with_the_nearest():
    config = comparison(grid={"fit.learning_rat": [1, 2]})
    with pytest.raises(ConfigError, match=r"fit\.learning_rat.* nearest is fit\.learning_rate"):
        tuning_cells(config, ExperimentConfig, {})
