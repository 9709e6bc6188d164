"""The same rewards in plain transformers and peft, in TRL, and as the rewardbench package loads and renders.

The package's way is written out here, since it needs an environment of its own:
tests/services/test_rewardbench_package.py runs it, and test_serving.py runs vLLM.
"""

import copy
import json
from functools import partial

import numpy as np
import peft
import pytest
import torch
import transformers
import trl
from datasets import Dataset

from mars_core.config import Configuration
from mars_core.errors import ModelError
from mars_core.model.plain_checkpoint import LinearReward, linear_reward, save_plain
from mars_core.model.reward_model import ModelConfig, RewardModel
from mars_core.objectives.bradley_terry import BradleyTerry
from mars_core.objectives.objective import Objective, ObjectiveConfig

FLOAT32 = ModelConfig(precision="float32")
TEXTS = (
    ["Who?", "What is a lark?", "What is a lark?", "Name a river in France."],
    [
        "I, said the fly.",
        "A small songbird.",
        "A stone, I think, of those that lie in rivers.",
        "Loire.",
    ],
)
QUIETLY = {"bf16": False, "use_cpu": True, "report_to": []}


class Weighted(Objective):
    """Two outputs, of which the second counts half and against."""

    class Config(Configuration):
        name: str = "weighted"

    outputs = 2

    def losses(self, pairs):
        raise NotImplementedError

    def reward(self, readout):
        return readout[:, 0] - 0.5 * readout[:, 1]

    def logit(self, chosen, rejected):
        return self.reward(chosen) - self.reward(rejected)


class Product(Weighted):
    """A reward that is no sum of outputs."""

    def reward(self, readout):
        return readout[:, 0] * readout[:, 1]


def with_two_outputs(folder, objective):
    """The model of a folder with a head of two outputs, under an objective."""
    network = transformers.AutoModelForSequenceClassification.from_pretrained(
        folder, num_labels=2, ignore_mismatched_sizes=True
    )
    tokenizer = RewardModel.load(str(folder), FLOAT32).tokenizer
    network.config.pad_token_id = tokenizer.pad_token_id
    network.resize_token_embeddings(len(tokenizer))
    return RewardModel(network, tokenizer, FLOAT32, objective(objective.Config()))


def conversations(tokenizer):
    """The texts by the tokenizer's chat template, as text."""
    return [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}, {"role": "assistant", "content": response}], tokenize=False
        )
        for prompt, response in zip(*TEXTS, strict=True)
    ]


def as_messages():
    """The texts as TRL takes them: prompts, and responses."""
    return (
        [[{"role": role, "content": text}] for text in texts]
        for role, texts in zip(("user", "assistant"), TEXTS, strict=True)
    )


def by_reward_trainer(folder, work):
    """As TRL's RewardTrainer loads and renders."""
    asked, said = as_messages()
    pairs = Dataset.from_dict({"prompt": asked, "chosen": said, "rejected": said[::-1]})
    arguments = trl.RewardConfig(str(work), per_device_eval_batch_size=len(pairs), **QUIETLY)
    trainer = trl.RewardTrainer(str(folder), arguments, train_dataset=pairs)
    chosen, _ = np.split(trainer.predict(trainer.train_dataset).predictions[:, 0], 2)
    return chosen


def by_grpo_trainer(folder, work, policy):
    """As TRL's GRPOTrainer asks a reward model that it is given by name."""
    asked, said = as_messages()
    arguments = trl.GRPOConfig(str(work), num_generations=2, per_device_train_batch_size=2, **QUIETLY)
    prompts = Dataset.from_dict({"prompt": asked})
    trainer = trl.GRPOTrainer(str(policy), str(folder), arguments, train_dataset=prompts)
    rows = [{"prompt": prompt} for prompt in asked]
    return trainer._calculate_rewards(rows, asked, said, [[0]] * len(rows))[:, 0].numpy()


def by_rewardbench(folder):
    """As the package's pipeline does: instead of the template's first token comes the tokenizer's own."""
    network = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    texts = [text.removeprefix(tokenizer.bos_token or "") for text in conversations(tokenizer)]
    tokenizer.padding_side = "left"
    with torch.no_grad():
        inputs = tokenizer(texts, return_tensors="pt", padding=True, truncation=False)
        return network(**inputs).logits[:, 0].numpy()


@pytest.fixture(scope="module")
def chat_model(tiny_chat_decoder):
    return RewardModel.load(str(tiny_chat_decoder), FLOAT32)


@pytest.fixture(scope="module")
def adapted(tiny_chat_decoder, tmp_path_factory):
    """Folder of adapters, their base beside them, and their rewards."""
    folder = tmp_path_factory.mktemp("adapted")
    model = RewardModel.load(str(tiny_chat_decoder), FLOAT32)
    model.save(folder / "base")
    model = RewardModel.load(str(folder / "base"), FLOAT32)
    lora = peft.LoraConfig(task_type="SEQ_CLS", target_modules="all-linear", modules_to_save=["score"])
    model.network = peft.get_peft_model(model.network, lora)
    torch.manual_seed(0)
    for weight in model.network.parameters():
        if weight.requires_grad:
            torch.nn.init.normal_(weight, std=0.1)
    model.save(folder / "adapters")
    return folder / "adapters", RewardModel.load(str(folder / "adapters"), FLOAT32).score(*TEXTS)


@pytest.fixture(params=["trl.RewardTrainer", "trl.GRPOTrainer", "rewardbench"])
def elsewhere(request, tmp_path, tiny_chat_model):
    """Rewards of the texts by the checkpoint of a folder in other software."""
    work = tmp_path / "work"
    return {
        "trl.RewardTrainer": partial(by_reward_trainer, work=work),
        "trl.GRPOTrainer": partial(by_grpo_trainer, work=work, policy=tiny_chat_model),
        "rewardbench": by_rewardbench,
    }[request.param]


def test_a_model_that_is_saved_has_the_same_rewards_elsewhere(elsewhere, chat_model, tmp_path):
    save_plain(chat_model, tmp_path / "saved")
    np.testing.assert_allclose(elsewhere(tmp_path / "saved"), chat_model.score(*TEXTS), rtol=0, atol=1e-5)


def test_adapters_that_were_merged_have_the_same_rewards_elsewhere(elsewhere, adapted, tmp_path):
    folder, rewards = adapted
    save_plain(RewardModel.load(str(folder), FLOAT32), tmp_path / "saved")
    np.testing.assert_allclose(elsewhere(tmp_path / "saved"), rewards, rtol=0, atol=1e-5)


def test_adapters_apart_have_the_same_rewards_in_trl(adapted, tmp_path, tiny_chat_model):
    folder, rewards = adapted
    np.testing.assert_allclose(by_reward_trainer(folder, tmp_path), rewards, rtol=0, atol=1e-5)
    found = by_grpo_trainer(folder, tmp_path, tiny_chat_model)
    np.testing.assert_allclose(found, rewards, rtol=0, atol=1e-5)


def test_adapters_apart_have_the_same_rewards_in_peft(adapted):
    folder, rewards = adapted
    network = peft.AutoPeftModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    inputs = tokenizer(conversations(tokenizer), return_tensors="pt", padding=True, add_special_tokens=False)
    with torch.inference_mode():
        found = network(**inputs).logits[:, 0].numpy()
    np.testing.assert_allclose(found, rewards, rtol=0, atol=1e-5)


def test_a_weighted_sum_of_outputs_becomes_the_one_output(tiny_chat_decoder, tmp_path):
    model = with_two_outputs(tiny_chat_decoder, Weighted)
    rewards = model.score(*TEXTS)
    save_plain(model, tmp_path)
    np.testing.assert_allclose(by_rewardbench(tmp_path), rewards, rtol=0, atol=1e-5)
    np.testing.assert_allclose(RewardModel.load(str(tmp_path), FLOAT32).score(*TEXTS), rewards, atol=1e-5)


def test_a_reward_that_is_no_weighted_sum_is_refused_by_the_objectives_name(tiny_chat_decoder, tmp_path):
    with pytest.raises(ModelError, match="the objective weighted is more than a linear function"):
        save_plain(with_two_outputs(tiny_chat_decoder, Product), tmp_path)


def test_what_reads_more_than_the_heads_outputs_is_not_linear(monkeypatch):
    objective = ObjectiveConfig().open()
    assert linear_reward(objective).is_the_output
    monkeypatch.setattr(BradleyTerry, "reads", frozenset({"states"}))
    assert linear_reward(objective) is None


def test_modules_of_an_objective_that_weigh_the_outputs_count():
    class Decoded(Weighted):
        def build(self, width):
            return {"decoder": torch.nn.Linear(2, 1)}

        def reward(self, readout):
            return self.modules["decoder"](readout).squeeze(-1)

    objective = Decoded(Decoded.Config())
    objective.modules = torch.nn.ModuleDict(objective.build(8))
    decoder = objective.modules["decoder"]
    weights, offset = linear_reward(objective)
    np.testing.assert_allclose(weights, decoder.weight[0].detach(), atol=1e-6)
    assert offset == pytest.approx(decoder.bias.item(), abs=1e-6)


def test_what_is_added_to_each_reward_is_found():
    class Shifted(Weighted):
        def reward(self, readout):
            return super().reward(readout) + 3

    weights, offset = linear_reward(Shifted(Shifted.Config()))
    assert (weights.tolist(), offset) == ([1.0, -0.5], 3.0)
    assert not LinearReward(weights, offset).is_the_output


def test_transformers_4_finds_the_positions_and_the_tokenizer(chat_model, tmp_path):
    rotary = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
              "original_max_position_embeddings": 64}  # fmt: skip
    config = copy.deepcopy(chat_model.network.config)
    config.rope_parameters = rotary | {"rope_theta": 1e5}
    network = transformers.LlamaForSequenceClassification(config)
    save_plain(RewardModel(network, chat_model.tokenizer, FLOAT32, chat_model.objective), tmp_path)
    about, tokenizer = (
        json.loads((tmp_path / name).read_text()) for name in ("config.json", "tokenizer_config.json")
    )
    assert (about["rope_theta"], about["rope_scaling"]) == (1e5, rotary)
    assert tokenizer["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert tokenizer["model_input_names"] == ["input_ids", "attention_mask"]
    again = transformers.AutoConfig.from_pretrained(tmp_path)
    assert again.rope_parameters == rotary | {"rope_theta": 1e5}
