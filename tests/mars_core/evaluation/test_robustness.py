"""What is measured of pairs before and after changes that keep their ranking."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from mars_core.config import scientific
from mars_core.errors import ModelError
from mars_core.evaluation.contamination import Texts
from mars_core.evaluation.evaluation_config import EvaluationConfig
from mars_core.evaluation.measure import measure_robustness
from mars_core.evaluation.robustness import (
    ORIGINAL,
    RobustnessConfig,
    measures,
    results,
    robustness_difference,
    robustness_interval,
    sample,
    transformed,
)
from mars_core.evaluation.transforms.transform import TRANSFORMS, Pair
from mars_core.model.scoring import Cut

PAIRS = [
    Pair("Name a bird.", "A lark is a small songbird that sings.", "A trout, which swims in cold rivers."),
    Pair("Name a fish.", "Trout live in rivers, lakes and streams.", "Larks build their nests on fields."),
    Pair("Name a tree.", "Yes.", "No."),
]
IDS = ["1", "2", "3"]
NAMES = ("quotes", "handle", "spaced_punctuation", "swapped_characters", "code_comments")
ROWS = transformed(IDS, PAIRS, RobustnessConfig(transforms=list(NAMES)).by_key, None)


def table_of(before, after, prompts=None, transform="quotes", shift=0.0):
    """A table of results with these margins, each pair with a prompt of its own unless they are named."""
    n = len(before)
    return pd.DataFrame(
        {
            "pair_id": list(map(str, range(n))),
            "prompt": list(range(n)) if prompts is None else prompts,
            "transform": transform,
            "margin_before": np.asarray(before, float),
            "margin_after": np.asarray(after, float),
            "reward_shift": shift,
        }
    )


# The changed pairs


def test_pairs_stand_as_they_are_and_then_as_each_transform_changes_them():
    found = pd.Series(ROWS["transform"]).value_counts().to_dict()
    assert found == {ORIGINAL: 3, "quotes": 3, "handle": 3, "spaced_punctuation": 3, "swapped_characters": 2}
    assert ROWS[0] == {"pair_id": "1", "transform": ORIGINAL, **PAIRS[0]._asdict()}


def test_a_pair_that_a_transform_leaves_as_it_is_is_not_counted_for_it():
    plain = [Pair("Name a bird", "lark", "trout")]
    rows = transformed(["1"], plain, RobustnessConfig(transforms=["spaced_punctuation"]).by_key, None)
    assert rows["transform"][:] == [ORIGINAL]
    assert measures(results(rows, [1, 0], [1])) == {}


def test_a_sample_is_the_same_ones_when_rows_are_added():
    names = [str(n) for n in range(50)]
    texts = Texts(names * 2, names * 2, [f"c{n}" for n in names] + [f"r{n}" for n in names])
    few, pairs = sample(texts, 10)
    more, _ = sample(texts, 20)
    assert len(few) == 10
    assert set(few) < set(more)
    assert few == sorted(few, key=int)
    assert all(pair == Pair(name, f"c{name}", f"r{name}") for name, pair in zip(few, pairs, strict=True))
    assert sample(texts, 99)[0] == names


# Properties


@given(st.floats(-100, 100))
def test_a_model_with_constant_rewards_has_robust_accuracy_0_and_keeps_no_sign(reward):
    found = measures(results(ROWS, np.full(2 * len(ROWS), reward), np.zeros(len(ROWS))))
    robust = {name: value for name, value in found.items() if name.endswith("robust_accuracy")}
    assert len(robust) == 5
    assert set(robust.values()) == {0.0}
    assert found["sign_kept"] == 0
    assert np.isnan(found["reward_shift"])


def test_a_perfect_oracle_has_robust_accuracy_1():
    margins = np.ones(len(ROWS))
    found = measures(results(ROWS, np.r_[margins, 0 * margins], margins))
    for name in ("", "quotes/", "handle/", "spaced_punctuation/", "swapped_characters/"):
        assert found[f"{name}robust_accuracy"] == 1
        assert found[f"{name}change"] == 0
        assert found[f"{name}sign_kept"] == 1
        assert found[f"{name}reward_shift"] == 0
    assert (found["n"], found["quotes/n"], found["swapped_characters/n"]) == (11, 3, 2)


@given(st.lists(st.tuples(st.sampled_from([-1, 0, 2]), st.sampled_from([-1, 0, 2])), min_size=1, max_size=30))
def test_the_shares_add_up(margins):
    found = measures(table_of(*zip(*margins, strict=True)))
    assert found["before"] == pytest.approx(found["robust_accuracy"] + found["to_wrong"])
    assert found["after"] == pytest.approx(found["robust_accuracy"] + found["to_right"])
    assert found["change"] == pytest.approx(found["after"] - found["before"])
    assert found["robust_accuracy"] <= found["sign_kept"]
    assert found["sign_kept"] + found["to_wrong"] + found["to_right"] <= 1 + 1e-9


# Measures


def test_measures_of_a_few_pairs():
    found = measures(table_of([1, 1, -1, 0], [1, -1, 1, 0], shift=0.5))
    assert (found["before"], found["after"], found["robust_accuracy"]) == (0.5, 0.5, 0.25)
    assert (found["to_wrong"], found["to_right"], found["sign_kept"]) == (0.25, 0.25, 0.25)
    assert found["reward_shift"] == 0.5


@pytest.mark.parametrize("margins", [(0, 0), (0, 1), (1, 0), (-1, 0)])
def test_a_margin_of_zero_has_no_sign_to_keep(margins):
    assert measures(table_of(*([margin] for margin in margins)))["sign_kept"] == 0


def test_a_tiny_margin_has_a_sign():
    assert measures(table_of([1e-300], [1e-300]))["sign_kept"] == 1


def test_pairs_of_one_prompt_and_the_changes_of_one_pair_make_no_interval_narrower():
    before, after = np.tile([1, 1, -1, 1], 25), np.tile([1, -1, 1, 1], 25)
    apart = measures(table_of(before, after))
    twice = pd.concat([table_of(before, after, transform=transform) for transform in ("quotes", "handle")])
    together = measures(twice)
    for name in ("robust_accuracy", "change", "sign_kept"):
        width, of_both = (one[f"{name}_high"] - one[f"{name}_low"] for one in (apart, together))
        assert of_both == pytest.approx(width, rel=0.02)


def test_the_shift_of_rewards_is_in_standard_deviations_of_those_before():
    rows = transformed(["1"], PAIRS[:1], RobustnessConfig(transforms=["quotes"]).by_key, None)
    table = results(rows, [3, 4, 1, 1.5], [2, 2.5])  # 3 and 1 before, 4 and 1.5 after
    assert table["reward_shift"].tolist() == [0.75]
    assert table[["margin_before", "margin_after"]].to_numpy().tolist() == [[2, 2.5]]


def test_metrics_have_their_names_and_a_reward_that_is_no_number_is_told_with_its_pair_and_transform():
    rewards = np.arange(2 * len(ROWS), dtype=np.float32)
    measured = measure_robustness(
        ROWS, {"rewards": rewards, "margins": np.ones(len(ROWS))}, cut=Cut(2, 1, [])
    )
    assert measured.metrics["robustness/robust_accuracy"] == 1
    assert measured.metrics["robustness/quotes/n"] == 3
    assert measured.metrics["robustness/prompts_cut"] == 2
    rewards[4] = np.nan
    with pytest.raises(ModelError, match=r"NaN or infinite: 2 \(quotes\)"):
        measure_robustness(ROWS, {"rewards": rewards, "margins": np.ones(len(ROWS))}, cut=Cut(0, 0, []))


# Two models


def test_two_models_are_compared_on_the_same_changed_pairs():
    better, worse = table_of([1] * 40, [1] * 40), table_of([1] * 40, [1] * 20 + [-1] * 20)
    difference = robustness_difference(better, worse)
    assert (difference.value, difference.only_a, difference.only_b) == (0.5, 20, 0)
    assert difference.low > 0
    interval = robustness_interval(better, worse, 0.95)
    assert interval.value == 0.5
    assert interval.low > 0


def test_an_interval_for_decisions_is_wide_where_the_models_agree_on_few_pairs():
    same = table_of([1] * 5, [1] * 5)
    interval = robustness_interval(same, same, 0.95)
    assert interval.value == 0
    assert interval.high - interval.low > 0.5


def test_tables_of_other_pairs_are_refused():
    with pytest.raises(ValueError, match="same changed pairs"):
        robustness_difference(table_of([1], [1]), table_of([1], [1], transform="handle"))


# Configuration


def test_by_default_robustness_is_not_measured_and_no_key_of_a_step_knows_of_it():
    assert RobustnessConfig().rows == 0
    assert "robustness" not in scientific(EvaluationConfig())
    assert "robustness" in scientific(EvaluationConfig(robustness={"rows": 5}))


def test_by_default_all_transforms_are_chosen_that_need_no_generator():
    chosen = RobustnessConfig(rows=1).by_key
    assert set(TRANSFORMS.names()) - set(chosen) == {"back_translation", "paraphrase", "prompt_paraphrase"}


def test_an_unknown_transform_is_named_with_the_nearest():
    with pytest.raises(ValidationError, match=r"no transform 'rot_13'.*The nearest is rot13"):
        RobustnessConfig(transforms=["rot_13"])


def test_a_transform_that_follows_instructions_needs_a_chat_model():
    wanted = RobustnessConfig(rows=1, transforms=["paraphrase", "back_translation"])
    wanted.check({"chat"})
    with pytest.raises(ValueError, match=r"back_translation of evaluation.robustness needs a chat model"):
        wanted.check(())


@pytest.mark.parametrize("of", ["rewardbench2", "judgebench"], ids=["not pairwise", "not here"])
def test_robustness_is_measured_on_pairs_or_on_a_pairwise_benchmark_that_is_run(of):
    samples = {name: f"sample://{name}" for name in ("rewardbench", "rewardbench2")}
    EvaluationConfig(benchmarks=samples, robustness={"of": "rewardbench"})
    with pytest.raises(ValidationError, match="one chosen and one rejected response: rewardbench"):
        EvaluationConfig(benchmarks=samples, robustness={"of": of})


OWN = """
from mars_core.evaluation.transforms.transform import TextTransform


class Shout(TextTransform):
    changes = "responses"

    def change(self, text):
        return text.upper()
"""


def test_a_transform_of_ones_own_goes_by_its_attribute_and_its_source_is_in_the_keys_of_steps(
    tmp_path, monkeypatch
):
    (tmp_path / "own_transforms.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    wanted = RobustnessConfig(rows=1, transforms=["own_transforms:Shout"])
    rows = transformed(["1"], PAIRS[2:], wanted.by_key, None)
    assert rows[1] == {
        "pair_id": "1", "transform": "Shout", "prompt": "Name a tree.", "chosen": "YES.", "rejected": "NO."
    }  # fmt: skip
    assert len(wanted.identity()["own_transforms:Shout version"]) == 64
