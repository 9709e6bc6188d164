import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from http.server import HTTPServer, SimpleHTTPRequestHandler
from importlib.metadata import version
from pathlib import Path

import httpx
import pandas as pd
import pytest
import yaml
from rich.console import Console
from typer import Exit
from typer.testing import CliRunner

from flows.cli import _told_errors, app
from mars_core.data import reading
from mars_core.model.reward_model import RewardModel
from tasks.processes.addresses import answers
from tasks.run.preflight import check
from tasks.run.run_config import RunConfig, load_run
from tasks.run.run_folder import open_run

EXPERIMENTS = Path(__file__).parents[2] / "deployments/experiments"

COMMANDS = (
    "refine", "preview", "retrain", "evaluate", "score", "align", "winrate", "config", "show", "explain",
    "export", "publish", "serve", "ui",
)  # fmt: skip
GOOD = {"id": "a", "prompt": "What is a lark?", "chosen": "A songbird.", "rejected": "A stone."}


@pytest.fixture(autouse=True)
def _wide_terminal(monkeypatch):
    monkeypatch.setattr("flows.cli.console", Console(width=300))


def mars(*arguments):
    """Call the command in this process."""
    return CliRunner().invoke(app, list(map(str, arguments)))


def refusal(*arguments):
    """The one message of a call that ends because of what was given to it."""
    result = mars(*arguments)
    assert result.exit_code == 1, result.output
    assert isinstance(result.exception, SystemExit)
    assert result.stderr.startswith("mars: ")
    assert "Traceback" not in result.output
    return result.stderr


@pytest.fixture
def place(experiment, monkeypatch):
    """A folder with an experiment, which is the working folder too."""
    made = experiment()
    monkeypatch.chdir(made.folder)
    return made


@pytest.fixture
def before_anything_starts(place, monkeypatch):
    """The same where neither a server may be started nor a model loaded."""

    def too_late(*args, **kwargs):
        raise AssertionError("something was started for a run that cannot be")

    monkeypatch.setattr("tasks.processes.prefect_server.prefect_api", too_late)
    monkeypatch.setattr(RewardModel, "load", too_late)
    return place


def rows_file(folder, *rows):
    file = folder / "pairs.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def test_help_names_every_command_and_imports_nothing_slow():
    code = (
        "import sys; from typer.testing import CliRunner; from flows.cli import app;"
        "print(CliRunner().invoke(app, ['--help']).stdout);"
        "print({'torch', 'transformers', 'datasets', 'prefect', 'mlflow', 'pandas'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert all(f" {command} " in done.stdout for command in COMMANDS)
    assert done.stdout.rstrip().endswith("set()")


def test_servers_on_this_machine_are_asked_without_a_proxy(place, monkeypatch):
    with HTTPServer(("127.0.0.1", 0), SimpleHTTPRequestHandler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.setenv(name, "intranet")
        for name in ("http_proxy", "HTTP_PROXY"):
            monkeypatch.setenv(name, "http://127.0.0.1:9")
        address = f"http://127.0.0.1:{server.server_port}"
        assert not answers(address)
        mars("config", place.file)
        assert answers(address)
        assert os.environ["no_proxy"].startswith("intranet,")
        server.shutdown()


def test_config_prints_the_resolved_configuration(place):
    result = mars("config", place.file, "selection.tau=0.1", "rounds=7")
    assert result.exit_code == 0
    printed = RunConfig.model_validate(yaml.safe_load(result.stdout))
    assert printed == load_run(place.file, ["selection.tau=0.1", "rounds=7"])


def test_config_explains_every_key(place):
    said = mars("config", place.file, "--explain").stdout
    assert "selection.tau = 0.5\n    Sharpness" in said
    assert "[operational]" in said


@pytest.mark.parametrize(
    ("file", "key"), [("compare", "baselines"), ("retrain", "min_new_pairs"), ("quickstart", "rounds")]
)
def test_config_knows_comparisons_and_retrainings_too(file, key):
    path = EXPERIMENTS / f"{file}.yaml"
    assert key in yaml.safe_load(mars("config", path).stdout)
    said = mars("config", path, "--explain").stdout
    assert f"{key} = " in said
    assert "fit.learning_rate = " in said
    assert ("as of arm no-augmentation, seed 0" in said) is (file == "compare")


def test_config_names_an_unknown_key_of_a_comparison():
    said = refusal("config", EXPERIMENTS / "compare.yaml", "experiment.fit.trainabl=lora")
    assert "fit.trainabl: no such key; the nearest is fit.trainable" in said


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("selection.tua=0.1", "selection.tua: no such key; the nearest is selection.tau"),
        ("selection.budget=0", "selection.budget: Input should be greater than or equal to 1; found 0"),
        ("selection.tau=-1", "selection.tau: Input should be greater than or equal to 0; found -1"),
        ("rounds=two", "rounds: Input should be a valid integer"),
        ("rounds", "'rounds': an override reads key=value"),
    ],
    ids=["unknown", "no-budget", "negative", "not-a-number", "no-value"],
)
@pytest.mark.parametrize("command", ["config", "refine"])
def test_a_wrong_key_or_value_is_named(before_anything_starts, command, override, told):
    assert told in refusal(command, before_anything_starts.file, override)


def test_a_configuration_that_is_not_there_is_named(place):
    assert "nowhere.yaml: No such file" in refusal("refine", "nowhere.yaml")


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([{"prompt": "p", "chosen": "c"}], "pairs.jsonl: no format reads the columns chosen, prompt"),
        ([GOOD, GOOD | {"id": "b", "chosen": " "}], "pairs.jsonl: row 2: chosen is empty"),
        ([GOOD, GOOD | {"id": "b", "rejected": None}], "pairs.jsonl: row 2: rejected is missing or null"),
        ([GOOD | {"rejected": "A songbird. "}], "pairs.jsonl: row 1: chosen equals rejected"),
        ([GOOD, GOOD], "pairs.jsonl: row 2: duplicate id: 'a', first in"),
        ([], "pairs.jsonl: no rows"),
    ],
    ids=["missing-column", "empty", "null", "equal", "duplicate", "no-rows"],
)
def test_bad_pairs_are_told_by_file_and_row(before_anything_starts, rows, told):
    file = rows_file(before_anything_starts.folder, *rows)
    assert told in refusal("refine", before_anything_starts.file, f"data.train={file}")


def test_a_folder_without_data_is_told(before_anything_starts):
    (before_anything_starts.folder / "empty").mkdir()
    assert "empty: no .jsonl" in refusal("refine", before_anything_starts.file, "data.train=./empty")


def test_a_file_that_is_not_there_is_told(before_anything_starts):
    message = refusal("refine", before_anything_starts.file, "data.train=nowhere.jsonl")
    assert "nowhere.jsonl: no such file or folder" in message


def test_no_pairs_left_by_a_condition_is_told(before_anything_starts):
    message = refusal("refine", before_anything_starts.file, "data.where.source=nobody")
    assert "sample://preferences: no pairs where {'source': 'nobody'}" in message


def test_a_budget_above_the_capacity_is_told_with_both_numbers(before_anything_starts):
    message = refusal("refine", before_anything_starts.file, "selection.budget=121", "selection.cap=2")
    assert "selection.budget=121" in message
    assert "60 pairs can take at 2 each (120)" in message
    assert not list(before_anything_starts.folder.rglob(".prepare"))  # what was read of data that do not fit


@pytest.mark.usefixtures("without_prefect")
def test_pairs_that_a_check_has_read_are_prepared_without_being_read_again(place, monkeypatch):
    from tasks.steps.prepare import prepare

    config = load_run(place.file)
    check(config)
    monkeypatch.setattr("mars_core.data.pool._batch", lambda _: pytest.fail("a pair is read again"))
    with open_run(config) as run:
        assert prepare(run)["train"].rows == 60
    assert not (config.run_folder / ".prepare").exists()


def test_a_benchmark_that_is_not_there_is_told(before_anything_starts):
    message = refusal(
        "refine", before_anything_starts.file, "evaluation.benchmarks.rewardbench=nowhere.jsonl"
    )
    assert "nowhere.jsonl" in message


def test_a_backbone_that_is_not_there_is_told(before_anything_starts):
    message = refusal("refine", before_anything_starts.file, "model.backbone=./nowhere")
    assert "./nowhere" in message


def test_a_backbone_whose_head_has_two_outputs_is_told(before_anything_starts, tiny_decoder, tmp_path):
    import transformers

    network = transformers.AutoModelForSequenceClassification.from_pretrained(
        tiny_decoder, num_labels=2, ignore_mismatched_sizes=True
    )
    network.save_pretrained(tmp_path)
    message = refusal("refine", before_anything_starts.file, f"model.backbone={tmp_path}")
    assert f"{tmp_path}: its head has 2 outputs" in message


def test_a_chat_template_that_cannot_render_the_pairs_is_told(
    before_anything_starts, tiny_chat_decoder, tmp_path
):
    folder = shutil.copytree(tiny_chat_decoder, tmp_path / "model")
    (folder / "chat_template.jinja").write_text("{{ raise_exception('for tools only') }}")
    message = refusal("refine", before_anything_starts.file, f"model.backbone={folder}")
    assert "the chat template refuses" in message
    assert "for tools only" in message


def test_a_run_folder_that_another_process_uses_is_told(before_anything_starts):
    with open_run(load_run(before_anything_starts.file)):
        assert "runs/tiny is in use by another process" in refusal("refine", before_anything_starts.file)


def test_a_run_folder_made_with_other_scientific_keys_says_which(tiny, before_anything_starts, monkeypatch):
    monkeypatch.chdir(tiny.folder)
    message = refusal("refine", tiny.file, "selection.tau=0.7", "fit.group_tokens=99")
    assert "selection.tau: 0.5 there, 0.7 now" in message
    assert "group_tokens" not in message


def test_keys_that_led_to_an_error_before_the_first_step_may_still_be_changed(before_anything_starts):
    file = rows_file(before_anything_starts.folder, GOOD, GOOD)
    refusal("refine", before_anything_starts.file, f"data.train={file}")
    check(load_run(before_anything_starts.file))


def test_a_prefect_server_that_does_not_answer_is_told(place):
    from prefect.settings import PREFECT_API_URL, temporary_settings

    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):
        assert "no Prefect server answers at http://127.0.0.1:9/api" in refusal("refine", place.file)


def test_an_error_in_the_middle_of_the_flow_has_no_stack_trace_either(place, prefect_server, tiny_decoder):
    import torch
    import transformers
    from prefect.settings import get_current_settings

    network = transformers.AutoModelForSequenceClassification.from_pretrained(tiny_decoder)
    with torch.no_grad():
        network.score.weight.fill_(torch.nan)
    network.save_pretrained("broken")
    transformers.AutoTokenizer.from_pretrained(tiny_decoder).save_pretrained("broken")
    ended = subprocess.run(
        [sys.executable, "-m", "flows.cli", "refine", place.file, "model.backbone=./broken"],
        env=os.environ | {"PREFECT_API_URL": get_current_settings().api.url},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 1
    message = ended.stderr[ended.stderr.index("mars: ") :]
    assert "are NaN or infinite" in message
    assert place.run().table("validation.parquet")["pair_id"].iloc[0] in message
    assert "Traceback" not in ended.stdout + ended.stderr


def test_a_dry_run_estimates_and_leaves_nothing(before_anything_starts, monkeypatch):
    monkeypatch.undo()
    monkeypatch.chdir(before_anything_starts.folder)
    Path("mlflow.db").unlink()
    result = mars("refine", before_anything_starts.file, "--dry-run")
    assert result.exit_code == 0, result.output
    for figure in ("requests", "tokens", "optimizer steps", "disk", "hours"):
        assert figure in result.stdout
    # 60 originals once, and 60 + 40 pairs twice, in batches of 8
    assert "34 on 260 pairs" in result.stdout
    assert {path.name for path in before_anything_starts.folder.iterdir()} == {"experiment.yaml"}


@pytest.fixture
def _known_rate(monkeypatch):
    """The estimates of a machine whose rate of matrix products, which takes seconds to measure, is known."""
    monkeypatch.setattr("tasks.inspect.estimate.matrix_product_rate", lambda model: 1e6)


@pytest.mark.usefixtures("_known_rate")
@pytest.mark.parametrize(
    ("scheme", "asked"),
    [
        (["augmentation.scheme=repeat"], "at most 0 for 0 texts"),
        (["augmentation.pool=4"], "at most 120 for 120 texts"),
        ([], "at most 120 for 40 texts"),
        (["evaluation.benchmark_rounds=all"], "of which benchmarks 690"),
        (["evaluation.benchmark_rounds=last"], "of which benchmarks 230"),
    ],
    ids=["repeat", "pool", "minimal", "benchmarks", "one benchmark"],
)
def test_an_estimate_knows_what_a_scheme_asks_for(place, scheme, asked):
    assert asked in mars("refine", place.file, "--dry-run", *scheme).stdout


@pytest.mark.usefixtures("_known_rate")
def test_where_the_head_alone_is_trained_more_epochs_cost_no_more_hours(place):
    def hours(*changes):
        said = mars("refine", place.file, "--dry-run", *changes).stdout
        return float(re.search(r"hours\W+about ([\d.,]+)", said)[1].replace(",", ""))

    assert hours("fit.epochs=9") > 2 * hours("fit.epochs=1")
    assert hours("fit.trainable=head", "fit.epochs=9") == hours("fit.trainable=head", "fit.epochs=1") > 0


@pytest.mark.usefixtures("_known_rate")
def test_a_dry_run_tells_which_rows_are_left_out(place, tmp_path):
    rows = [GOOD | {"id": str(number), "prompt": f"{GOOD['prompt']} {number}"} for number in range(40)]
    file = tmp_path / "rows.jsonl"
    file.write_text("\n".join(map(json.dumps, [*rows, GOOD | {"chosen": None}])))
    data = [f"data.train={file}", "data.subset=null", "data.invalid=drop", "selection.budget=8"]
    assert "; left out: 1 " in mars("refine", place.file, "--dry-run", *data).stdout


@pytest.mark.usefixtures("_known_rate")
def test_a_dry_run_of_a_comparison_counts_its_cells_and_estimates_one(place):
    experiment = yaml.safe_load(place.file.read_text())
    del experiment["name"]
    arms = {"uniform": {"selection.tau": 0}, "no-augmentation": {"augmentation.scheme": "repeat"}}
    tune = {"grid": {"fit.learning_rate": [1e-3, 1e-2]}, "seeds": [8, 9, 10]}
    values = {"name": "dry", "seeds": 5, "arms": arms, "tune": tune, "experiment": experiment}
    file = place.folder / "compare.yaml"
    file.write_text(yaml.safe_dump(values, sort_keys=False))
    said = mars("compare", file, "--dry-run").stdout
    assert "of one cell of no-augmentation" in said
    assert re.search(r"cells\W+10\b", said)
    assert re.search(r"cells that try settings\W+12\b", said)
    assert "at most 0 for 0 texts" in said
    assert not (place.folder / "runs").exists()


def test_a_dry_run_tells_of_an_embedder_that_is_not_there(place):
    said = refusal("refine", place.file, "--dry-run", "semantics.embedder=./nothere")
    assert "./nothere: no such checkpoint folder" in said


def test_a_preview_shows_requests_samples_verdicts_and_pairs_and_keeps_the_answers(place, tiny_chat_model):
    asking = [
        "generation.backend=transformers",
        f"generation.model={tiny_chat_model}",
        "guards.cut_off=false",
    ]
    asking += [f"generation.{role}.max_tokens=8" for role in ("paraphrase_chosen", "rewrite_rejected")]
    page = mars("preview", place.file, *asking, "--pairs", 1)
    assert page.exit_code == 0, page.output
    assert "1 originals, those of" in page.output
    assert "Reword the assistant's reply between the tags" in page.output
    assert re.search(r"\*\*Sample 1: dropped, [a-z ]+\*\*", page.output)
    assert "### Synthetic pairs: " in page.output
    assert "## In all" in page.output
    told = place.folder / "page.md"
    again = mars("preview", place.file, *asking, "generation.offline=true", "--pairs", 1, "--output", told)
    assert again.exit_code == 0, again.output
    assert "Sample 1" in told.read_text()


def test_a_preview_says_what_each_guard_measured_and_what_the_run_would_cost(place):
    page = mars("preview", place.file, "--pairs", 2).output
    assert re.search(r"\*\*Sample 1: usable\*\* \(word overlap 0?\.\d+\)", page)
    assert re.search(r"✓ meaning lost \(0?\.\d+, limit 0?\.80\)", page)
    strict = mars("preview", place.file, "guards.min_similarity=1", "--pairs", 2).output
    assert re.search(r"✗ meaning lost \(0?\.\d+, limit 1\.00\)", strict)
    assert re.search(r"of paraphrases, \d+ tokens, of which 0 could be used", strict)


def test_a_preview_of_a_run_with_margins_takes_those_of_the_smallest(tiny, monkeypatch):
    monkeypatch.chdir(tiny.folder)
    run = tiny.run()
    margins = run.table("round-2/margins.parquet").sort_values("margin")
    page = mars("preview", tiny.file, "--pairs", 1).output
    assert "those of the smallest margin in round-2" in page
    assert f"## {margins['pair_id'].iloc[0]}" in page


def test_show_prints_the_table_of_rounds(tiny):
    result = mars("show", tiny.run().root)
    assert result.exit_code == 0
    assert all(f"round {t}" in result.stdout for t in (0, 1, 2))
    assert f"round {tiny.report.best} (best)" in result.stdout


def test_a_generator_that_does_not_answer_is_told_before_anything_starts(before_anything_starts):
    vllm = [
        "generation.backend=vllm",
        "generation.model=a/model",
        "generation.options.base_url=http://127.0.0.1:9/v1",
    ]
    said = refusal("refine", before_anything_starts.file, *vllm)
    assert "no server answers at http://127.0.0.1:9/v1" in said


def test_an_mlflow_address_that_is_none_is_told_before_anything_starts(before_anything_starts):
    said = refusal("refine", before_anything_starts.file, "tracking.uri=ftp://nowhere")
    assert "MLflow at ftp://nowhere failed" in said


def test_the_version_is_that_of_the_package():
    assert mars("--version").stdout == f"mars {version('mars')}\n"


def test_show_of_what_is_no_run_is_told(tmp_path):
    assert f"{tmp_path}: no run here" in refusal("show", tmp_path)
    (tmp_path / "cells").mkdir()
    assert f"{tmp_path}: a comparison" in refusal("show", tmp_path)


def test_explain_follows_a_synthetic_pair_back_to_its_original_and_the_requests(tiny, monkeypatch):
    monkeypatch.chdir(tiny.folder)
    run = tiny.run()
    synthetic = run.table("round-2/synthetic.parquet")
    rewrites = run.table("round-2/rewrites.parquet").set_index("pair_id")
    rewrites = rewrites[rewrites["rewritten"] != "none"]
    pair = synthetic[synthetic["parent_id"].isin(rewrites.index) & (synthetic["chosen_variant"] > 0)].iloc[0]
    allocation = run.table("round-2/allocation.parquet").set_index("pair_id").loc[pair["parent_id"]]
    variants = run.table("round-2/variants.parquet")
    bought = variants[
        (variants["parent_id"] == pair["parent_id"])
        & (variants["part"] == "chosen")
        & (variants["variant"] == pair["chosen_variant"])
    ].iloc[0]
    assert bought["text"] == pair["chosen"]

    said = mars("explain", run.root, pair["synthetic_id"]).stdout
    for fact in (
        f"Synthetic pair {pair['synthetic_id']} (round-2)",
        f"Original {pair['parent_id']}",
        f"{allocation['margin']:.4f}",
        f"{allocation['probability']:.2e}",
        bought["request"],
        rewrites.loc[pair["parent_id"], "request"],
    ):
        assert fact in said
    assert said.count("paraphrase_chosen") == 1


def test_texts_that_look_like_markup_are_printed_as_they_are(monkeypatch):
    facts = {"Original": {"prompt": "[INST] Is [red] a colour? [/INST]", "budget": 7}}
    monkeypatch.setattr("tasks.inspect.lineage.lineage", lambda run, synthetic_id: facts)
    assert "[INST] Is [red] a colour? [/INST]" in mars("explain", "run", "id").stdout


def test_an_export_into_a_folder_is_refused_and_leaves_it_alone(tiny, tmp_path):
    (tmp_path / "kept.txt").write_text("kept")
    assert "is a folder: name a file" in refusal("export", tiny.run().root, "--output", tmp_path)
    assert (tmp_path / "kept.txt").read_text() == "kept"


def test_explain_of_an_unknown_pair_is_told(tiny):
    assert "no synthetic pair 'nobody'" in refusal("explain", tiny.run().root, "nobody")


def test_explain_of_an_original_names_the_pairs_that_were_made_of_it(tiny):
    made = pd.read_parquet(tiny.run().root / "round-1/synthetic.parquet").iloc[0]
    said = refusal("explain", tiny.run().root, made["parent_id"])
    assert f"{made['parent_id']} is an original; the pairs made of it are" in said
    assert f"{made['synthetic_id']} (round 1)" in said


def test_explain_from_another_folder_says_where_the_store_of_generations_was_looked_for(
    tiny, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    run = tiny.run()
    synthetic_id = run.table("round-1/synthetic.parquet")["synthetic_id"][0]
    assert f"{tmp_path}/generations: no store" in refusal("explain", run.root, synthetic_id)
    assert not (tmp_path / "generations").exists()


@pytest.mark.parametrize("form", ["hh", "trl"])
def test_exported_pairs_are_read_again_as_the_same_pairs(tiny, tmp_path, form):
    file = tmp_path / "out.jsonl"
    result = mars("export", tiny.run().root, "--format", form, "--output", file)
    made = pd.concat(tiny.run().table(f"round-{t}/synthetic.parquet") for t in (1, 2))
    assert f"{len(made)} synthetic pairs written to {file}" in result.stdout
    again, left_out, _ = reading.read(str(file), invalid="drop")
    texts = ["prompt", "chosen", "rejected"]
    assert set(again.to_pandas()[texts].itertuples(index=False, name=None)) == set(
        made[texts].itertuples(index=False, name=None)
    )
    assert len(again) + left_out.total() == len(made)
    assert set(left_out) <= {"duplicate id"}  # two rounds may have made the same texts


def test_parquet_export_keeps_every_column_beside_the_runs_artifacts(tiny):
    mars("export", tiny.run().root, "--format", "parquet")
    made = pd.concat((tiny.run().table(f"round-{t}/synthetic.parquet") for t in (1, 2)), ignore_index=True)
    pd.testing.assert_frame_equal(tiny.run().table("synthetic.parquet"), made, check_dtype=False)


def test_a_row_that_cannot_be_scored_is_told_by_file_and_row(tmp_path, tiny_decoder):
    file = rows_file(tmp_path, {"prompt": "Who?", "response": "I."}, {"prompt": "Who?", "response": " "})
    assert "pairs.jsonl: row 2: response is empty" in refusal("score", tiny_decoder, file)


def test_scores_go_to_standard_output_and_all_else_to_standard_error(tmp_path, tiny_decoder):
    file = rows_file(tmp_path, {"id": "a", "prompt": "Who?", "response": "I."})
    result = mars("score", tiny_decoder, file, "model.precision=float32")
    [line] = result.stdout.splitlines()
    assert json.loads(line)["id"] == "a"
    assert "scoring: 1 texts" in result.stderr


def test_serving_without_a_key_or_at_a_taken_port_is_told(tiny_decoder, monkeypatch):
    monkeypatch.delenv("VLLM_API_KEY", raising=False)
    assert "VLLM_API_KEY is not set" in refusal("serve", tiny_decoder)
    monkeypatch.setenv("VLLM_API_KEY", "key")
    with HTTPServer(("127.0.0.1", 0), SimpleHTTPRequestHandler) as server:
        said = refusal("serve", tiny_decoder, "--port", server.server_port)
    assert f"port {server.server_port} of 127.0.0.1 is taken" in said


def test_a_run_is_published_with_the_card_of_its_best_round_and_mlflow_knows_the_revision(
    tiny, hub, monkeypatch
):
    from mlflow import MlflowClient

    monkeypatch.chdir(tiny.folder)
    result = mars("publish", "runs/tiny", "--to", "ours/tiny")
    assert result.exit_code == 0, result.output
    revision = re.search(r"Revision: (ours/tiny@\w{40})", result.stdout)[1]
    card = list(hub.commits["models", "ours/tiny"].values())[-1]["README.md"].decode()
    for told in (
        "sample://preferences",
        "Apache-2.0",
        "heldout/accuracy | .",
        "in the layout of RewardBench: not comparable",
        "arxiv.org/abs/2602.17658",
        "tau",
    ):
        assert told in card
    assert str(tiny.folder) not in card
    client = MlflowClient(f"sqlite:///{tiny.folder}/mlflow.db")
    experiment = client.get_experiment_by_name("mars").experiment_id
    [run] = client.search_runs([experiment], "tags.`mars.kind` = 'run' and tags.`mars.published` != ''")
    assert run.data.tags["mars.published"] == revision


def test_a_dry_run_shows_the_card_of_the_pairs_and_sends_nothing(tiny, hub, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    said = mars("publish", tiny.run().root, "--to", "ours/pairs", "--pairs", "--dry-run").stdout
    for told in (
        "# Synthetic pairs of tiny",
        "rules of MARS (licence: Apache-2.0)",
        "guards dropped",
        "synthetic.parquet",
    ):
        assert told in said
    assert hub.commits == {}


def test_an_exported_model_is_whole_and_has_its_card(tiny, tmp_path):
    assert mars("export", tiny.run().root, "--format", "model", "--output", tmp_path / "out").exit_code == 0
    assert {"model.safetensors", "tokenizer.json", "README.md"} <= {
        file.name for file in (tmp_path / "out").iterdir()
    }


def test_a_prefect_api_that_goes_away_is_told_with_how_to_go_on(capsys):
    with pytest.raises(Exit) as ended, _told_errors():
        raise httpx.ConnectError("Connection refused")
    assert ended.value.exit_code == 1
    told = capsys.readouterr().err
    assert "mars: Prefect's API does not answer any more" in told
    assert "the same command continues" in told


def test_a_request_to_end_is_told_like_ctrl_c(capsys):
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Exit) as ended, _told_errors():
        signal.raise_signal(signal.SIGTERM)
    assert ended.value.exit_code == 130
    assert "interrupted; the same command continues" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGTERM) is before
