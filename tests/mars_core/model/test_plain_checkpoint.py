"""The same rewards in plain transformers, and as TRL and the rewardbench package load and render.

Their loading is written out here, since neither is part of this environment; `make bench` runs rewardbench
itself, and tests/services/test_serving.py vLLM.
"""

import numpy as np
import peft
import pytest
import torch
import transformers

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


def by_trl(folder):
    """As GRPOTrainer does with a reward model that it is given by name: special tokens are the template's."""
    network = transformers.AutoModelForSequenceClassification.from_pretrained(folder, num_labels=1).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    assert network.config.pad_token_id == tokenizer.pad_token_id
    inputs = tokenizer(
        conversations(tokenizer),
        return_tensors="pt",
        padding=True,
        padding_side="right",
        add_special_tokens=False,
    )
    with torch.inference_mode():
        return network(**inputs).logits[:, 0].numpy()


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


@pytest.mark.parametrize("load", [by_trl, by_rewardbench])
def test_a_model_that_is_saved_has_the_same_rewards_elsewhere(load, chat_model, tmp_path):
    save_plain(chat_model, tmp_path)
    np.testing.assert_allclose(load(tmp_path), chat_model.score(*TEXTS), rtol=0, atol=1e-5)


@pytest.mark.parametrize("load", [by_trl, by_rewardbench])
def test_adapters_that_were_merged_have_the_same_rewards_elsewhere(load, adapted, tmp_path):
    folder, rewards = adapted
    save_plain(RewardModel.load(str(folder), FLOAT32), tmp_path)
    np.testing.assert_allclose(load(tmp_path), rewards, rtol=0, atol=1e-5)


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
    np.testing.assert_allclose(by_trl(tmp_path), rewards, rtol=0, atol=1e-5)
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
