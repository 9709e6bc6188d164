"""Rows that were seen in training, found round by round, and the scores without them."""

import pandas as pd
import pytest
from datasets import Dataset

from mars_core.data.samples import rows as sample_rows
from tasks.run.run_config import RunConfig
from tasks.run.run_folder import open_run
from tasks.steps.measure_contamination import measure_contamination

pytestmark = pytest.mark.usefixtures("without_prefect")

EVALUATION = {"benchmarks": {"rewardbench": "sample://rewardbench"}}
ANSWER = "It is a small brown bird of open country that sings while it flies up high."


@pytest.fixture
def run(tmp_path):
    with open_run(
        RunConfig.model_validate({"name": "tiny", "folder": str(tmp_path), "evaluation": EVALUATION})
    ) as run:
        yield run


def pairs(**rows):
    """Pairs by id: prompt, chosen and rejected."""
    texts = [dict(zip(("prompt", "chosen", "rejected"), row, strict=True)) for row in rows.values()]
    return Dataset.from_list([{"pair_id": name, **row} for name, row in zip(rows, texts, strict=True)])


@pytest.fixture
def heldout(run):
    """Three held-out pairs, of which a model ranks the last one wrong."""
    table = pairs(
        a=("What is a lark?", ANSWER, "A fish."),
        b=("Name a river.", "The Loire.", "No."),
        c=("Is it late?", "It is.", "No."),
    )
    rewards = pd.DataFrame({"pair_id": ["a", "b", "c"], "margin": [1.0, 2.0, -1.0]})
    return (
        {"heldout": run.write_table("heldout.parquet", table)},
        {"heldout": run.write_table("round-0/heldout_rewards.parquet", rewards)},
    )


@pytest.mark.parametrize("responses", [(ANSWER.upper(), "None."), ("None.", ANSWER.upper())])
def test_what_a_later_round_adds_is_found_beside_what_was_seen_before(run, heldout, responses):
    train = run.write_table("train.parquet", pairs(t=("Which bird sings?", *responses)))
    synthetic = run.write_table(
        "round-1/augmented.parquet",
        pairs(s=("is it LATE", "Yes.", "Not yet.")).rename_column("pair_id", "synthetic_id"),
    )
    first = measure_contamination(run, 0, train, [], *heldout)
    second = measure_contamination(run, 1, synthetic, [first], *heldout)
    assert run.table(first)["row"].tolist() == ["a"]
    found = run.table(second).set_index("row")
    assert dict(found["training_id"]) == {"a": "t", "c": "s"}
    assert set(found["set"]) == {"heldout"}
    assert [run.metrics_of(t)["contamination/heldout/exact"] for t in (0, 1)] == [1, 2]


def test_scores_are_given_without_the_rows_that_were_seen(run, heldout):
    train = run.write_table("train.parquet", pairs(t=("is it late", "Yes.", "Not yet.")))
    measure_contamination(run, 0, train, [], *heldout)
    metrics = run.metrics_of(0)
    assert metrics["contamination/heldout/accuracy"] == 1
    assert metrics["contamination/heldout/near"] == 0


def test_where_nothing_was_seen_the_table_is_empty_and_the_score_that_of_all_rows(run, heldout):
    train = run.write_table("train.parquet", pairs(t=("Why?", "Because.", "No idea.")))
    seen = measure_contamination(run, 0, train, [], *heldout)
    assert run.table(seen).empty
    assert run.metrics_of(0)["contamination/heldout/accuracy"] == pytest.approx(2 / 3)


def test_where_all_was_seen_there_is_no_score(run, heldout):
    sets, evaluation = heldout
    measure_contamination(run, 0, sets["heldout"], [], sets, evaluation)
    assert run.metrics_of(0)["contamination/heldout/exact"] == 3
    assert "contamination/heldout/accuracy" not in run.metrics_of(0)


def test_rows_of_a_benchmark_are_counted_by_subset(run):
    rows = pd.DataFrame(sample_rows("sample://rewardbench"))
    rows["id"] = rows["id"].astype(str)
    benchmark = {"rewardbench": run.write_table("rewardbench_rows.parquet", Dataset.from_pandas(rows))}
    results = rows[["id", "subset"]].assign(reward_chosen=1.0, reward_rejected=0.0, correct=True)
    evaluation = {"rewardbench": run.write_table("round-0/rewardbench.parquet", results)}
    leaked = rows[rows["subset"] == "xstest-should-respond"].iloc[:2]
    train = run.write_table(
        "train.parquet",
        Dataset.from_pandas(
            leaked.assign(pair_id=leaked["id"])[["pair_id", "prompt", "chosen", "rejected"]],
            preserve_index=False,
        ),
    )
    measure_contamination(run, 0, train, [], benchmark, evaluation)
    metrics = run.metrics_of(0)
    assert metrics["contamination/rewardbench/subset/xstest-should-respond"] == 2
    assert metrics["contamination/rewardbench/exact"] == 2
    assert metrics["contamination/rewardbench/total"] == pytest.approx(1)
