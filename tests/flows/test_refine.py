import asyncio
import json
import os
import re

import numpy as np
import pandas as pd
import pytest
from datasets import Dataset
from mlflow import MlflowClient

from mars_core.method.selection import SelectionConfig
from mars_core.model.reward_model import RewardModel, pair_rewards
from mars_core.report.wording import without_figures
from tasks.run.round_metrics import read_metrics
from tasks.run.run_folder import existing_run
from tasks.run.sources import LEFT_OUT

PAIRS = ["pair_id", "prompt", "chosen", "rejected", "source"]
REWARDS = ["pair_id", "reward_chosen", "reward_rejected", "margin"]
EVALUATED = {
    "validation_rewards": REWARDS,
    "heldout_rewards": REWARDS,
    "rewardbench": [
        "id", "subset", "section", "prompt", "reward_chosen", "reward_rejected", "correct", "margin",
    ],
}  # fmt: skip
SPENT = {
    "margins": REWARDS,
    "allocation": ["pair_id", "margin", "probability", "budget"],
    "distances": ["pair_id", "distance", "threshold", "is_close"],
    "rewrites": [
        "pair_id", "rewritten", "chosen", "rejected", "distance_before", "distance_after", "attempts",
    ],
    "synthetic": [
        "synthetic_id", "parent_id", "prompt", "chosen", "rejected", "prompt_variant", "chosen_variant",
        "rejected_variant", "generator", "margin_before", "margin_after",
    ],
}  # fmt: skip
BUDGET, TAU = 40, 0.5


@pytest.fixture(scope="module")
def run(tiny):
    return tiny.run()


@pytest.fixture(scope="module")
def mlflow_run(tiny):
    """The parent run in MLflow, and the client that knows it."""
    client = MlflowClient(f"sqlite:///{tiny.folder}/mlflow.db")
    experiment_id = client.get_experiment_by_name("mars").experiment_id
    (parent,) = client.search_runs([experiment_id], filter_string="tags.`mars.kind` = 'run'")
    return client, parent


def round_tables(run, name):
    return [run.table(f"round-{t}/{name}.parquet") for t in (1, 2)]


def prefect_artifacts():
    """The artifacts of a run's end that Prefect keeps."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey

    async def read():
        async with get_client() as client:
            keys = ArtifactFilter(key=ArtifactFilterKey(any_=["rounds", "report", "mlflow"]))
            return await client.read_artifacts(artifact_filter=keys, limit=200)

    return asyncio.run(read())


def test_the_three_sets_share_no_prompt_and_the_originals_are_the_subset(run):
    sets = {name: run.table(f"{name}.parquet") for name in ("train", "validation", "heldout")}
    assert all(list(table.columns) == PAIRS for table in sets.values())
    prompts = {
        name: {" ".join(text.lower().split()) for text in table["prompt"]} for name, table in sets.items()
    }
    assert len(sets["train"]) == 60
    assert not prompts["train"] & prompts["validation"]
    assert not prompts["train"] & prompts["heldout"]
    assert not prompts["validation"] & prompts["heldout"]


@pytest.mark.parametrize("t", [0, 1, 2])
def test_every_round_leaves_its_evaluation_and_its_model(run, t):
    for name, columns in EVALUATED.items():
        assert list(run.table(f"round-{t}/{name}.parquet").columns) == columns
    steps = [json.loads(line) for line in (run.root / f"round-{t}/training.jsonl").open()]
    assert {"loss", "accuracy", "margin", "learning_rate", "tokens_per_second"} <= steps[-1].keys()
    model = RewardModel.load(str(run.root / f"round-{t}/model"), existing_run(run.root).config.model)
    assert model.network.config.num_labels == 1


@pytest.mark.parametrize("name", SPENT)
def test_every_round_that_spends_a_budget_leaves_its_tables(run, name):
    for table in round_tables(run, name):
        assert set(SPENT[name]) <= set(table.columns)
        assert len(table) > 0


def test_margins_are_those_of_the_previous_rounds_model(run):
    settings = existing_run(run.root).config.model
    originals = Dataset.from_pandas(run.table("train.parquet"))
    for t in (1, 2):
        model = RewardModel.load(str(run.root / f"round-{t - 1}/model"), settings)
        fresh = pair_rewards(model, originals).table
        pd.testing.assert_frame_equal(
            fresh, run.table(f"round-{t}/margins.parquet"), check_dtype=False, rtol=0, atol=1e-6
        )
    assert run.table("round-1/margins.parquet")["margin"].dtype == np.float32


def test_probabilities_are_exponential_in_the_signed_margin(run):
    assert SelectionConfig().margin == "signed"
    for table in round_tables(run, "allocation"):
        expected = np.exp(-TAU * table["margin"].to_numpy(dtype=np.float64))
        np.testing.assert_allclose(table["probability"], expected / expected.sum(), atol=1e-6)
        assert table["probability"].std() > 0


def test_budgets_sum_to_b_and_follow_the_probabilities(run):
    for table in round_tables(run, "allocation"):
        assert table["budget"].sum() == BUDGET
        assert (table["budget"] - BUDGET * table["probability"]).abs().max() < 1


def test_distances_are_against_one_threshold_over_all_originals(run):
    first, second = round_tables(run, "distances")
    assert first["threshold"].iloc[0] == pytest.approx(first["distance"].mean(), rel=1e-5)
    assert (first["is_close"] == (first["distance"] < first["threshold"])).all()
    pd.testing.assert_frame_equal(first, second)


def test_exactly_the_close_pairs_with_a_budget_are_rewritten_and_only_to_be_farther(run):
    for t in (1, 2):
        allocation, distances, rewrites = (
            run.table(f"round-{t}/{name}.parquet").set_index("pair_id")
            for name in ("allocation", "distances", "rewrites")
        )
        due = allocation.index[(allocation["budget"] > 0) & distances.loc[allocation.index, "is_close"]]
        assert set(rewrites.index) == set(due)
        rewritten = rewrites[rewrites["rewritten"] != "none"]
        assert len(rewritten) > 0
        assert (rewritten["distance_after"] > rewritten["distance_before"]).all()
        kept = rewrites[rewrites["rewritten"] == "none"]
        assert (kept["distance_after"] == kept["distance_before"]).all()


def test_no_rewrite_flips_the_order_of_its_pair_by_the_model_that_asked_for_it(run):
    config = existing_run(run.root).config
    originals = run.table("train.parquet").set_index("pair_id")
    for t in (1, 2):
        rewrites = run.table(f"round-{t}/rewrites.parquet").set_index("pair_id")
        model = RewardModel.load(str(run.root / f"round-{t - 1}/model"), config.model)
        pairs = rewrites[["chosen", "rejected"]].assign(prompt=originals["prompt"].loc[rewrites.index])
        now = pair_rewards(model, Dataset.from_pandas(pairs)).table["margin"].to_numpy()
        margins = run.table(f"round-{t}/margins.parquet").set_index("pair_id")["margin"]
        before = margins.loc[rewrites.index].to_numpy()
        assert (-now <= np.maximum(0, -before) + config.guards.order_tolerance + 1e-5).all()


def test_the_guards_say_what_they_took_and_how_long(run):
    for figures in read_metrics(existing_run(run.root))[1:]:
        dropped = sum(value for name, value in figures.items() if name.startswith("rewriting/dropped/"))
        assert dropped < figures["rewriting/samples"]
        for section in ("rewriting", "augmentation"):
            assert figures[f"{section}/guards/seconds"] > figures[f"{section}/guards/texts_seconds"] > 0


def test_synthetic_pairs_come_from_originals_with_a_budget_and_keep_within_it(run):
    moved = [figures.get("augmentation/moved") for figures in read_metrics(existing_run(run.root))]
    for t in (1, 2):
        synthetic = run.table(f"round-{t}/synthetic.parquet")
        budget = run.table(f"round-{t}/allocation.parquet").set_index("pair_id")["budget"]
        bought = synthetic.groupby("parent_id").size()
        assert set(bought.index) <= set(run.table("train.parquet")["pair_id"])
        assert (bought - budget[bought.index]).clip(lower=0).sum() <= moved[t]
        assert (budget[bought.index] > 0).all()


def test_synthetic_ids_are_unique_over_rounds_and_chosen_differs_from_rejected(run):
    synthetic = pd.concat(round_tables(run, "synthetic"))
    assert synthetic["synthetic_id"].is_unique
    assert (synthetic["chosen"].str.casefold() != synthetic["rejected"].str.casefold()).all()
    assert not synthetic.duplicated(["parent_id", "prompt", "chosen", "rejected", "margin_before"]).any()


def test_synthetic_pairs_are_measured_before_and_after_the_fit_on_them(run):
    for table in round_tables(run, "synthetic"):
        assert np.isfinite(table[["margin_before", "margin_after"]].to_numpy()).all()
        assert (table["margin_after"] != table["margin_before"]).any()


def test_each_round_trains_on_the_originals_and_its_own_pairs_from_the_previous_weights(run):
    for t in (1, 2):
        spec = json.loads((run.root / f"round-{t}/fit.json").read_text())
        assert spec["model"] == str(run.root / f"round-{t - 1}/model")
        assert spec["pairs"] == [
            str(run.root / part) for part in ("train.parquet", f"round-{t}/augmented.parquet")
        ]
    assert json.loads((run.root / "round-0/fit.json").read_text())["pairs"] == [
        str(run.root / "train.parquet")
    ]


def test_the_metrics_of_a_round_agree_with_its_tables(run):
    for t, metrics in enumerate(read_metrics(existing_run(run.root))):
        for name in ("validation", "heldout"):
            margins = run.table(f"round-{t}/{name}_rewards.parquet")["margin"]
            assert metrics[f"{name}/accuracy"] == pytest.approx((margins > 0).mean())
            assert (
                metrics[f"{name}/accuracy_low"]
                <= metrics[f"{name}/accuracy"]
                <= metrics[f"{name}/accuracy_high"]
            )
        assert metrics["rewardbench/n"] == len(run.table(f"round-{t}/rewardbench.parquet"))
        assert metrics["train/synthetic"] == (len(run.table(f"round-{t}/synthetic.parquet")) if t else 0)


def test_the_result_is_the_round_with_the_best_validation_accuracy(tiny):
    accuracies = [metrics["validation/accuracy"] for metrics in tiny.report.rounds]
    assert len(accuracies) == 3
    assert tiny.report.best == int(np.argmax(accuracies))


def test_the_report_and_the_figures_that_it_shows_are_there(run):
    report = (run.root / "report.md").read_text()
    assert "rules" in report
    for name in ("accuracy", "margins", "budget"):
        assert f"figures/{name}.png" in report
        assert (run.root / f"figures/{name}.png").read_bytes().startswith(b"\x89PNG")


def test_the_report_shows_the_hardest_originals_of_the_last_round_with_what_was_made_of_them(run):
    report = (run.root / "report.md").read_text()
    margins = run.table("round-2/margins.parquet").set_index("pair_id")["margin"]
    hardest = margins[run.table("round-2/synthetic.parquet")["parent_id"].unique()].nsmallest(5)
    shown = re.findall(r"^### Original (\S+): margin (\S+)$", report, flags=re.MULTILINE)
    assert [margin for _, margin in shown] == [f"{value:z.3f}".replace("-", "−") for value in hardest]
    assert {pair_id for pair_id, _ in shown} == set(hardest.index)


def test_more_rounds_are_added_without_making_the_first_ones_again(tiny):
    now = tiny.run().steps()
    assert {name: now[name] for name in tiny.steps_of_one_round} == tiny.steps_of_one_round
    assert any(name.startswith("round-2") for name in now.keys() - tiny.steps_of_one_round.keys())


def test_a_run_leaves_no_address_of_mlflow_to_the_next_one_in_the_process(tiny):
    assert "MLFLOW_TRACKING_URI" not in os.environ


def test_the_same_command_again_runs_no_model_and_asks_for_no_text(tiny, monkeypatch):
    from mars_core.generation import Generator
    from mars_core.method.semantics import Embedder

    def unwanted(*args, **kwargs):
        raise AssertionError("a finished step did its work again")

    monkeypatch.setattr(RewardModel, "load", unwanted)
    monkeypatch.setattr(Embedder, "__init__", unwanted)
    monkeypatch.setattr(Generator, "generate", unwanted)
    before = tiny.run().steps()
    report = tiny.start()
    assert tiny.run().steps() == before
    assert report.rounds == tiny.report.rounds


def test_mlflow_has_one_parent_with_the_configuration_the_data_and_the_best_figures(tiny, mlflow_run):
    _, parent = mlflow_run
    assert parent.info.run_name == "tiny"
    assert parent.info.status == "FINISHED"
    assert parent.data.params["selection.tau"] == str(TAU)
    datasets = {given.dataset.name: given.dataset.digest for given in parent.inputs.dataset_inputs}
    run = existing_run(tiny.run().root)
    sources = run.outputs("prepare") | run.outputs("benchmarks")
    assert sources.pop(LEFT_OUT)
    assert list(sources) == ["train", "validation", "heldout", "rewardbench"]
    assert datasets == {name: part.sha256[:36] for name, part in sources.items()}
    best = tiny.report.rounds[tiny.report.best]
    assert parent.data.metrics["result/round"] == tiny.report.best
    assert parent.data.metrics["result/heldout/accuracy"] == pytest.approx(best["heldout/accuracy"])


def test_mlflow_has_one_child_a_round_with_all_its_numbers(tiny, mlflow_run):
    client, parent = mlflow_run
    children = client.search_runs(
        [parent.info.experiment_id], filter_string=f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'"
    )
    by_round = {int(child.data.tags["mars.round"]): child for child in children}
    assert sorted(by_round) == [0, 1, 2]
    for t, metrics in enumerate(tiny.report.rounds):
        logged = by_round[t].data.metrics
        wanted = {name: value for name, value in metrics.items() if np.isfinite(value)}
        assert {name: logged[name] for name in wanted} == pytest.approx(wanted)
        assert "training/loss" in logged


def test_mlflow_shows_headline_figures_of_the_parent_as_one_curve_over_rounds(tiny, mlflow_run):
    client, parent = mlflow_run
    history = client.get_metric_history(parent.info.run_id, "heldout/accuracy")
    assert [(point.step, point.value) for point in sorted(history, key=lambda point: point.step)] == [
        (t, pytest.approx(metrics["heldout/accuracy"])) for t, metrics in enumerate(tiny.report.rounds)
    ]


def test_mlflow_gives_back_the_best_model_which_scores_as_the_checkpoint_does(tiny, mlflow_run, monkeypatch):
    import mlflow
    import torch

    client, parent = mlflow_run
    monkeypatch.setenv("MLFLOW_TRACKING_URI", client.tracking_uri)
    models = client.search_logged_models([parent.info.experiment_id])
    newest = max(models, key=lambda model: model.creation_timestamp)
    loaded = mlflow.transformers.load_model(newest.model_uri, return_type="components")
    checkpoint = RewardModel.load(
        str(tiny.run().root / f"round-{tiny.report.best}/model"), existing_run(tiny.run().root).config.model
    )
    for name, weight in checkpoint.network.state_dict().items():
        assert torch.equal(loaded["model"].state_dict()[name].cpu().float(), weight.cpu().float()), name


def test_prefect_has_the_rounds_the_report_and_a_link_to_the_mlflow_run_that_names_its_flow_run(
    tiny, mlflow_run
):
    _, parent = mlflow_run
    flow_run = parent.data.tags["prefect.flow_run"]
    artifacts = {found.key: found for found in prefect_artifacts() if str(found.flow_run_id) == flow_run}
    assert {key: found.type for key, found in artifacts.items()} == {
        "rounds": "table",
        "report": "markdown",
        "mlflow": "markdown",
    }
    assert [row["round"].split()[0] for row in json.loads(artifacts["rounds"].data)] == ["0", "1", "2"]
    assert artifacts["report"].data == without_figures((tiny.run().root / "report.md").read_text())
    assert parent.info.run_id in artifacts["mlflow"].data


@pytest.fixture(scope="module")
def plain(prefect_server, experiment, tiny_decoder):
    """Another way: a backbone that is a reward model, no rewriting, no RewardBench, restarts on all pairs."""
    made = experiment(
        name="plain",
        model={"backbone": str(tiny_decoder)},
        selection={"margin": "absolute", "tau": 2000.0, "cap": 3},
        rewriting={"enabled": False},
        fit={"weights": "restart", "synthetic": "all"},
        evaluation={"benchmarks": {}},
        tracking={"models": "none"},
    )
    made.report = made.start()
    return made


def test_a_backbone_with_a_trained_head_is_round_zero_as_it_came(plain, tiny_decoder):
    run = plain.run("plain")
    assert not (run.root / "round-0/training.jsonl").exists()
    settings = existing_run(run.root).config.model
    ours, theirs = (
        RewardModel.load(str(path), settings) for path in (run.root / "round-0/model", tiny_decoder)
    )
    asked = ["What is a lark?", "Why is the sky blue?"], ["A songbird.", "Air scatters blue light."]
    np.testing.assert_allclose(ours.score(*asked), theirs.score(*asked), atol=1e-6)


def test_no_pair_exceeds_the_cap_and_what_it_cannot_take_goes_to_others(plain):
    for table in round_tables(plain.run("plain"), "allocation"):
        assert table["budget"].max() == 3
        assert table["budget"].sum() == BUDGET
        assert (BUDGET * table["probability"]).max() > 4


def test_absolute_margins_prefer_uncertain_pairs_to_misranked_ones(plain):
    for table in round_tables(plain.run("plain"), "allocation"):
        by_uncertainty = table.assign(uncertain=-table["margin"].abs()).sort_values("uncertain")
        assert by_uncertainty["probability"].is_monotonic_increasing


def test_without_rewriting_every_pair_is_augmented_as_it_is(plain):
    run = plain.run("plain")
    originals = run.table("train.parquet").set_index("pair_id")
    for t in (1, 2):
        assert len(run.table(f"round-{t}/rewrites.parquet")) == 0
        synthetic = run.table(f"round-{t}/synthetic.parquet")
        unchanged = synthetic[synthetic["rejected_variant"] == 0]
        assert len(unchanged) > 0
        assert (
            unchanged["rejected"].to_numpy() == originals.loc[unchanged["parent_id"], "rejected"].to_numpy()
        ).all()


def test_restarted_rounds_begin_at_the_backbone_and_train_on_all_pairs_so_far(plain, tiny_decoder):
    root = plain.run("plain").root
    spec = json.loads((root / "round-2/fit.json").read_text())
    parts = ("train.parquet", "round-1/augmented.parquet", "round-2/augmented.parquet")
    assert spec["model"] == str(tiny_decoder)
    assert spec["pairs"] == [str(root / part) for part in parts]
    short = sum(figures["augmentation/shortfall"] for figures in plain.report.rounds[1:])
    assert plain.report.rounds[2]["train/synthetic"] == 2 * BUDGET - short
    assert short < 0.1 * BUDGET * 2


def test_without_rewardbench_there_is_neither_a_table_nor_a_figure_of_it(plain):
    assert not list(plain.run("plain").root.glob("round-*/rewardbench.parquet"))
    assert not any(name.startswith("rewardbench") for name in plain.report.rounds[1])
    assert "RewardBench" not in (plain.run("plain").root / "report.md").read_text()
