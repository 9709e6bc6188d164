"""`mars align` with a training method: a tiny chat model is trained, sampled again, and compared."""

import json

import pytest
from typer.testing import CliRunner

from flows.cli import app

SAMPLES, PROMPTS = 4, 4
BARE = "policy={bare}"


@pytest.fixture(scope="module")
def trained(alignment, tiny_policy):
    """An alignment that was never started."""
    return alignment(
        PROMPTS,
        SAMPLES,
        policy=str(tiny_policy),
        training={"method": "dpo", "steps": 4, "batch": 4, "learning_rate": 1e-2, "evaluations": 2},
    )


@pytest.fixture
def folder(trained):
    return trained.folder


@pytest.fixture(scope="module")
def aligned(trained, prefect_server):
    trained.report = trained.start()
    return trained


def test_each_evaluation_compares_the_trained_policy_with_the_untrained_on_the_same_prompts(aligned):
    assert list(aligned.report.trained.evaluations) == [2, 4]
    rewards = aligned.table("round-0/response_rewards")
    for number in (1, 2):
        table = aligned.table(f"round-{number}/policy_by_prompt").set_index("prompt_id")
        before = rewards.groupby("prompt_id")[["reward", "gold"]].mean().loc[table.index]
        assert table["reward_before"].to_numpy() == pytest.approx(before["reward"])
        assert table["gold_before"].to_numpy() == pytest.approx(before["gold"])
        assert (table["kl"] > 0).all()


def test_the_page_and_the_summary_tell_what_training_did(aligned):
    page = (aligned.root / "report.md").read_text()
    assert aligned.report.sentence.endswith("nats from the untrained one.")
    assert all(part in page for part in ("## The trained policy", "![Over training](training.png)"))
    summary = json.loads((aligned.root / "summary.json").read_text())
    assert set(summary["training"]) == {"2", "4"}
    assert summary["training"]["4"]["policy/kl"] is not None


def test_the_policy_that_is_kept_can_be_loaded_and_asked(aligned):
    import transformers

    policy = aligned.root / "policy"
    assert {file.suffix for file in policy.iterdir()} <= {".json", ".jinja", ".safetensors"}
    transformers.AutoModelForCausalLM.from_pretrained(policy)
    tokenizer = transformers.AutoTokenizer.from_pretrained(policy)
    chat = tokenizer.apply_chat_template([{"role": "user", "content": "?"}], tokenize=False)
    assert chat.startswith("user: ?")


def test_mlflow_has_what_was_measured_by_optimizer_step(aligned):
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{aligned.folder}/mlflow.db")
    [run] = client.search_runs([client.get_experiment_by_name("mars").experiment_id])
    steps = {
        name: [one.step for one in client.get_metric_history(run.info.run_id, name)]
        for name in run.data.metrics
    }
    assert sorted(steps["policy/gold"]) == [2, 4]
    assert sorted(steps["training/loss"]) == [1, 2, 3, 4]


def test_a_second_start_trains_and_asks_nothing(aligned):
    asked = aligned.asked()
    assert len(asked) == 3 * PROMPTS  # of the untrained policy, and at each evaluation
    before = aligned.steps()
    assert aligned.start().sentence == aligned.report.sentence
    assert aligned.steps() == before
    assert aligned.asked() == asked


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("training.method=ppo", "there is no alignment method 'ppo'"),
        ("training.step=1", "training.step: no such key; the nearest is training.steps"),
        ("training={method: grpo, group_size: 1}", "training.group_size"),
        ("training={method: dpo, group_size: 4}", "training.group_size: no such key"),
        ("training={stop_on_gold: true} & rewards.gold=null", "needs a gold model"),
        ("generation={backend: vllm}", "set generation.launch={}"),
        ("generation.respond.max_tokens=2000", "longer than the 2,048 tokens"),
        (BARE, "has no chat template"),
    ],
)
def test_what_cannot_be_trained_is_told_before_any_work(folder, tiny_decoder, monkeypatch, change, said):
    monkeypatch.chdir(folder)
    changes = change.format(bare=tiny_decoder) if change == BARE else change
    done = CliRunner().invoke(app, ["align", "align.yaml", "name=none", *changes.split(" & "), "--dry-run"])
    assert done.exit_code == 1
    assert said in " ".join(done.stderr.split())


def test_without_the_package_that_trains_the_command_that_installs_it_is_told(folder, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    done = CliRunner().invoke(app, ["align", "align.yaml", "--dry-run"])
    assert 'pip install "mars[align]"' in done.stderr


def test_a_dry_run_counts_the_steps_and_what_is_sampled_in_training(folder, monkeypatch):
    monkeypatch.chdir(folder)
    keys = ["training={method: grpo, steps: 10, batch: 4, group_size: 8, evaluations: 2}"]
    done = CliRunner().invoke(app, ["align", "align.yaml", *keys, "--dry-run"])
    said = " ".join(done.output.replace("│", " ").split())
    assert "10 optimizer steps of grpo, in which 320 responses are sampled and scored" in said
    assert f"{3 * PROMPTS} to transformers" in said
