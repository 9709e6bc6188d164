"""Each method trains a tiny chat model by its trainer, two optimizer steps."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
import transformers

from mars_core.alignment.policy_trainer import TrainingSpec, train
from mars_core.alignment.trainer_setup import TrainingError
from mars_core.data.samples import preferences

METHODS = {
    "rejection_sampling": {},
    "dpo": {"divergence": "js_divergence"},
    "reward_distillation": {"pessimism": 0.1, "pairs": 2},
    "grpo": {"group_size": 2},
    "rloo": {"group_size": 2},
}


@pytest.fixture
def spec(tmp_path, tiny_chat_model, tiny_decoder, tiny_chat_decoder):
    """A specification of two steps on four prompts with four responses each, with changes."""
    draw = np.random.default_rng(0)
    rows = [
        {
            "prompt_id": str(number),
            "prompt": pair["prompt"],
            "response": f"{pair['chosen'][: 20 + sample]}.",
            "is_cut_off": bool(sample % 2),
            "reward": draw.normal(),
            "reward_0": draw.normal(),
            "reward_1": draw.normal(),
        }
        for number, pair in enumerate(preferences()[:4])
        for sample in range(4)
    ]

    def make(training, change=lambda table: table, **values):
        change(pd.DataFrame(rows)).to_parquet(tmp_path / "responses.parquet")
        keys = {"steps": 2, "batch": 2, "learning_rate": 1e-2, "schedule": "constant"} | training
        places = {name: tmp_path / name for name in ("snapshots", "output", "log")}
        return TrainingSpec.model_validate(
            {
                "policy": str(tiny_chat_model),
                "responses": tmp_path / "responses.parquet",
                "models": (str(tiny_decoder), str(tiny_chat_decoder)),
                "rewards": {"combine": "minimum", "length_penalty": 0.01},
                "reward_model": {"max_length": 64, "precision": "float32", "device": "cpu"},
                "sampling": {"max_tokens": 8},
                "training": keys,
                "seed": 0,
                "until": keys["steps"],
                **places,
                **values,
            }
        )

    return make


@pytest.mark.parametrize("method", METHODS)
def test_a_method_changes_the_policy_and_leaves_a_checkpoint_as_the_untrained_one(method, spec):
    given = spec({"method": method} | METHODS[method])
    steps = []
    result = train(given, lambda logs: steps.append(logs["step"]))
    assert (result["steps"], steps) == (2, [1, 2])
    before, after = (
        transformers.AutoModelForCausalLM.from_pretrained(folder).state_dict()
        for folder in (given.policy, given.output)
    )
    assert before.keys() == after.keys()
    assert any(not torch.equal(before[name], after[name]) for name in before)
    assert {file.suffix for file in given.output.iterdir()} <= {".json", ".jinja", ".safetensors"}
    assert [json.loads(line)["step"] for line in given.log.open()] == [1, 2]


def test_rejection_sampling_makes_the_best_responses_likelier(spec):
    given = spec({"method": "rejection_sampling", "steps": 6, "batch": 4, "trainable": "all"})
    losses = []
    train(
        given, lambda logs: losses.append(logs["loss"])
    )  # of all best responses, for a batch is all prompts
    assert losses[-1] < losses[0]


def test_what_is_sampled_in_training_is_penalised_by_its_distance_from_usual_responses(
    spec, bottleneck, tmp_path
):
    def first_reward(penalty):
        places = {name: tmp_path / f"{name}-{penalty}" for name in ("snapshots", "output", "log")}
        keys = {"models": (str(bottleneck),), "rewards": {"outlier_penalty": penalty}, "until": 1} | places
        rewards = []
        train(spec({"method": "rloo", "group_size": 2}, **keys), lambda logs: rewards.append(logs["reward"]))
        return rewards[0]

    assert first_reward(1.0) < first_reward(0.5) < first_reward(0.0)


def test_training_goes_on_from_a_snapshot_to_the_same_policy(spec, tmp_path):
    whole = spec({"method": "dpo", "steps": 4})
    train(whole, lambda logs: None)
    places = {"snapshots": tmp_path / "parts", "output": tmp_path / "half", "until": 2}
    half = spec({"method": "dpo", "steps": 4}, **places)
    train(half, lambda logs: None)
    rest = spec({"method": "dpo", "steps": 4}, **places | {"until": 4, "output": tmp_path / "rest"})
    assert train(rest, lambda logs: None)["resumed_at"] == 2
    expected, found = (
        transformers.AutoModelForCausalLM.from_pretrained(one.output).state_dict() for one in (whole, rest)
    )
    for name, weight in expected.items():
        torch.testing.assert_close(found[name], weight)


def test_a_gradient_that_is_not_finite_leaves_the_last_good_state_and_says_so(spec, monkeypatch):
    from trl import SFTTrainer

    loss, steps = SFTTrainer.compute_loss, []

    def broken_in_step_4(trainer, *args, **kwargs):
        return loss(trainer, *args, **kwargs) * (float("nan") if trainer.state.global_step == 3 else 1)

    monkeypatch.setattr(SFTTrainer, "compute_loss", broken_in_step_4)
    given = spec({"method": "rejection_sampling", "steps": 6, "snapshot_minutes": 0})
    result = train(given, lambda logs: steps.append(logs["step"]))
    # The weights after step 3 gave the gradient.
    assert (result["broken_at"], result["steps"], steps) == (4, 2, [1, 2, 3])
    weights = transformers.AutoModelForCausalLM.from_pretrained(given.output).state_dict().values()
    assert all(weight.isfinite().all() for weight in weights)


def test_without_a_good_state_training_fails_with_what_to_do(spec):
    keys = {"method": "rejection_sampling", "steps": 6, "trainable": "all", "learning_rate": 1e30}
    with pytest.raises(TrainingError, match=r"step 2: the gradient .* lower training.learning_rate"):
        train(spec(keys), lambda logs: None)


@pytest.mark.parametrize("method", METHODS)
def test_equal_rewards_end_training_before_it_begins(method, spec):
    with pytest.raises(TrainingError, match="nothing to learn"):
        train(spec({"method": method}, lambda table: table.assign(reward=1.0)), lambda logs: None)
