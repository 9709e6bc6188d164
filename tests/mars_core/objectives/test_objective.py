"""The extension point: two objectives that are nothing like Bradley–Terry, trained as it is."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import safetensors.torch
import torch
import transformers
from datasets import Dataset
from torch.nn.functional import softplus

from mars_core.config import Configuration
from mars_core.data.samples import preferences
from mars_core.errors import ModelError
from mars_core.fit.specification import FitConfig, FitError, FitSpec
from mars_core.fit.train import fit
from mars_core.model.loading import OBJECTIVE, OBJECTIVE_WEIGHTS
from mars_core.model.reward_model import ModelConfig, RewardModel, pair_rewards
from mars_core.objectives.objective import Noise, Objective, ObjectiveConfig

FLOAT32 = ModelConfig(precision="float32")
TEXTS = ("prompt", "chosen", "rejected")
ROWS = [
    {"pair_id": row["id"], **{name: row[name] for name in TEXTS}}
    for row in preferences()
    if sum(len(row[name]) for name in TEXTS) < 300
]


class Sampled(Objective):
    """Two outputs, a mean and the logarithm of a spread; the loss is that of a reward drawn from them."""

    class Config(Configuration):
        scale: float = 1.0
        """How far a drawn reward lies from its mean, in spreads."""

    outputs = 2

    def losses(self, pairs):
        noise = pairs.noise.normal(2).to(pairs.chosen.outputs.device)
        chosen, rejected = (
            text.outputs[:, 0] + self.config.scale * text.outputs[:, 1].exp() * noise[:, side]
            for side, text in enumerate((pairs.chosen, pairs.rejected))
        )
        return softplus(rejected - chosen)

    def reward(self, readout):
        return readout[:, 0]

    def logit(self, chosen, rejected):
        return self.reward(chosen) - self.reward(rejected)

    def uncertainty(self, readout):
        return (2 * readout[:, 1]).exp()


class Attentive(Objective):
    """A small attention reads the reward from the states of all tokens; the head's output is not used."""

    reads = frozenset({"states"})

    def build(self, width):
        return {"query": torch.nn.Linear(width, 1), "value": torch.nn.Linear(width, 1, bias=False)}

    def readout(self, texts):
        own = torch.arange(texts.states.shape[1], device=texts.tokens.device) < texts.tokens[:, None]
        scores = self.modules["query"](texts.states).squeeze(-1).masked_fill(~own, -torch.inf)
        values = self.modules["value"](texts.states).squeeze(-1)
        return (scores.softmax(1) * values).sum(1, keepdim=True)

    def losses(self, pairs):
        margin = self.logit(self.readout(pairs.chosen), self.readout(pairs.rejected))
        return softplus(-margin - 0.1 * pairs.noise.normal().to(margin.device))

    def penalty(self):
        return 0.01 * self.modules["value"].weight.square().sum()

    def reward(self, readout):
        return readout[:, 0]

    def logit(self, chosen, rejected):
        return self.reward(chosen) - self.reward(rejected)


SAMPLED, ATTENTIVE = ({"name": f"{__name__}:{one.__name__}"} for one in (Sampled, Attentive))
BOTH = pytest.mark.parametrize(
    ("objective", "trainable"),
    [(SAMPLED, "all"), (SAMPLED, "head"), (SAMPLED, "lora"), (ATTENTIVE, "all"), (ATTENTIVE, "lora")],
    ids=["outputs-all", "outputs-head", "outputs-lora", "states-all", "states-lora"],
)


@pytest.fixture
def spec(tmp_path, headless):
    """Make the specification of a fit of the headless decoder."""

    def make(objective, *, name="model", model=headless, rows=ROWS[:10], validation=None, **keys):
        pd.DataFrame(rows).to_parquet(tmp_path / f"{name}-pairs.parquet")
        if validation:
            pd.DataFrame(validation).to_parquet(tmp_path / f"{name}-validation.parquet")
        return FitSpec(
            model=str(model),
            pairs=[tmp_path / f"{name}-pairs.parquet"],
            validation=tmp_path / f"{name}-validation.parquet" if validation else None,
            output=tmp_path / name,
            log=tmp_path / f"{name}.jsonl",
            seed=3,
            reward_model=FLOAT32,
            fit=FitConfig(**{"learning_rate": 1e-2, "batch_pairs": 4, "objective": objective} | keys),
        )

    return make


def load(spec):
    return RewardModel.load(str(spec.output), FLOAT32, spec.fit.objective)


def weights(spec):
    files = sorted(spec.output.glob("*.safetensors"))
    return {f"{file.stem}/{name}": tensor for file in files for name, tensor in read(file).items()}


def read(file):
    return safetensors.torch.load_file(file)


def cut_short(file):
    file.write_bytes(file.read_bytes()[:-20])


def is_equal(some, others):
    return some.keys() == others.keys() and all(torch.equal(some[name], others[name]) for name in some)


def pairs_of(rows):
    return Dataset.from_list(rows)


# Noise


def test_noise_follows_from_the_step_and_the_row_alone():
    whole = Noise((3, 0), 5, np.array([4, 8, 1])).normal(2)
    part = Noise((3, 0), 5, np.array([1, 4])).normal(2)
    assert torch.equal(part, whole[[2, 0]])
    assert whole.shape == (3, 2)
    others = [
        Noise((4, 0), 5, np.array([4])),
        Noise((3, 1), 5, np.array([4])),
        Noise((3, 0), 6, np.array([4])),
    ]
    assert all(not torch.equal(other.normal(2)[0], whole[0]) for other in others)


def test_uniform_noise_is_from_zero_to_one():
    numbers = Noise((0,), 0, np.arange(1000)).uniform()
    assert 0 <= numbers.min() < 0.01
    assert 0.99 < numbers.max() < 1


# Fits


@BOTH
def test_a_fit_that_was_asked_to_end_goes_on_to_equal_weights(spec, objective, trainable):
    about = {"trainable": trainable, "dropout": 0.1, "epochs": 2}
    undisturbed, stopped = (spec(objective, name=name, **about) for name in ("undisturbed", "stopped"))
    curves = [], []
    result = fit(undisturbed, curves[0].append)
    with pytest.raises(FitError, match="asked to end after step 2"):
        fit(stopped, curves[1].append, is_to_end=lambda: len(curves[1]) == 2)
    resumed = fit(stopped, curves[1].append)
    assert [step["step"] for step in curves[1]] == [1, 2, 3, 4, 5, 6]
    assert [step["loss"] for step in curves[0]] == [step["loss"] for step in curves[1]]
    assert is_equal(weights(undisturbed), weights(stopped))
    assert resumed["loss"] == result["loss"]


@BOTH
def test_a_fit_learns_the_pairs(spec, objective, trainable):
    rows = [
        {"pair_id": f"{n}", "prompt": f"Question {n}?", "chosen": f"Yes, {n}.", "rejected": f"No! {n}"}
        for n in range(12)
    ]
    result = fit(spec(objective, rows=rows, trainable=trainable, epochs=15, learning_rate=3e-2))
    assert result["accuracy"] > 0.9
    assert result["mean_margin"] > 0.5


@pytest.mark.parametrize("objective", [SAMPLED, ATTENTIVE], ids=["outputs", "states"])
def test_groups_do_not_change_what_is_drawn(spec, objective):
    curves = [], []
    for curve, tokens in zip(curves, (8192, 64), strict=True):
        fit(spec(objective, name=f"groups-{tokens}", group_tokens=tokens, epochs=2), curve.append)
    losses = [[step["loss"] for step in curve] for curve in curves]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_each_epoch_draws_anew(spec):
    curve = []
    fit(spec(SAMPLED, epochs=2, rows=ROWS[:1], learning_rate=1e-12, dropout=0.0), curve.append)
    assert curve[0]["loss"] != pytest.approx(curve[1]["loss"], rel=1e-3)


def test_the_head_alone_changes_where_it_alone_is_trainable(spec, headless):
    fitted = spec(SAMPLED, trainable="head")
    fit(fitted)
    drawn = RewardModel.load(str(headless), FLOAT32, fitted.fit.objective, seed=3).network.state_dict()
    after = read(fitted.output / "model.safetensors")
    assert after["score.weight"].shape[0] == 2
    assert {name for name in after if not torch.equal(after[name], drawn[name])} == {"score.weight"}


@pytest.mark.parametrize("objective", [SAMPLED, ATTENTIVE], ids=["outputs", "states"])
def test_the_validation_loss_is_minus_the_logarithm_of_the_probability(spec, objective):
    validation = ROWS[10:16]
    fitted = spec(objective, validation=validation, patience=9, evaluations_per_epoch=1)
    curve = []
    fit(fitted, curve.append)
    probabilities = torch.sigmoid(
        torch.tensor(pair_rewards(load(fitted), pairs_of(validation)).table["margin"].to_numpy())
    )
    assert curve[-1]["validation_loss"] == pytest.approx(float(-probabilities.log().mean()), rel=1e-5)


# Checkpoints


def test_a_checkpoint_holds_the_name_and_keys_of_its_objective(spec):
    fitted = spec(SAMPLED | {"scale": 0.5})
    fit(fitted)
    assert json.loads((fitted.output / OBJECTIVE).read_text()) == SAMPLED | {"scale": 0.5}
    assert not (fitted.output / OBJECTIVE_WEIGHTS).exists()


def test_own_modules_are_trained_and_saved(spec, headless):
    fitted = spec(ATTENTIVE)
    fit(fitted)
    drawn = RewardModel.load(str(headless), FLOAT32, fitted.fit.objective, seed=3).objective.modules
    saved = read(fitted.output / OBJECTIVE_WEIGHTS)
    assert saved.keys() == drawn.state_dict().keys() == {"query.weight", "query.bias", "value.weight"}
    assert not torch.equal(saved["query.weight"], drawn["query"].weight)
    assert not torch.equal(saved["value.weight"], drawn["value"].weight)


def test_a_checkpoint_that_is_loaded_and_saved_again_gives_equal_rewards(spec, tmp_path):
    fitted = spec(ATTENTIVE)
    fit(fitted)
    texts = [row["prompt"] for row in ROWS[:6]], [row["chosen"] for row in ROWS[:6]]
    model = load(fitted)
    rewards = model.score(*texts)
    model.save(tmp_path / "again")
    again = RewardModel.load(str(tmp_path / "again"), FLOAT32, fitted.fit.objective, seed=99)
    np.testing.assert_array_equal(again.score(*texts), rewards)
    assert rewards.std() > 0


@pytest.mark.parametrize(
    ("damage", "told"),
    [(Path.unlink, f"lacks {OBJECTIVE_WEIGHTS}"), (cut_short, f"its {OBJECTIVE_WEIGHTS} is not of ")],
    ids=["missing", "cut short"],
)
def test_own_weights_that_are_missing_or_broken_are_told(spec, damage, told):
    fitted = spec(ATTENTIVE)
    fit(fitted)
    damage(fitted.output / OBJECTIVE_WEIGHTS)
    with pytest.raises(ModelError, match=told):
        load(fitted)


def test_adapters_alone_are_known_as_of_their_objective(spec):
    fitted = spec(SAMPLED, trainable="lora")
    fit(fitted)
    adapter = fitted.output / "adapter"
    rewards = RewardModel.load(str(adapter), FLOAT32, fitted.fit.objective).score(["Why?"], ["No."])
    np.testing.assert_allclose(rewards, load(fitted).score(["Why?"], ["No."]), rtol=1e-5)
    with pytest.raises(ModelError, match=":Sampled"):
        RewardModel.load(str(adapter), FLOAT32, ObjectiveConfig())


def test_rewards_follow_from_the_states_of_all_tokens(spec):
    fitted = spec(ATTENTIVE)
    fit(fitted)
    own = read(fitted.output / OBJECTIVE_WEIGHTS)
    tokenizer = transformers.AutoTokenizer.from_pretrained(fitted.output)
    network = transformers.AutoModel.from_pretrained(fitted.output).eval()
    text = "Human: What is a lark?\n\nAssistant: A songbird." + tokenizer.eos_token
    with torch.no_grad():
        states = network(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]
    attention = (states @ own["query.weight"][0] + own["query.bias"]).softmax(0)
    expected = float(attention @ (states @ own["value.weight"][0]))
    prompts, responses = ["Why?", "What is a lark?"], ["Because it is much longer than that.", "A songbird."]
    assert load(fitted).score(prompts, responses)[1] == pytest.approx(expected, abs=1e-5)


def test_several_outputs_are_read_as_reward_margin_and_variance(spec):
    fitted = spec(SAMPLED)
    fit(fitted)
    table = pair_rewards(load(fitted), pairs_of(ROWS[:5])).table
    chosen, rejected = (np.stack(table[f"readout_{side}"]) for side in ("chosen", "rejected"))
    assert chosen.shape == (5, 2)
    np.testing.assert_array_equal(table["reward_chosen"], chosen[:, 0])
    np.testing.assert_allclose(table["margin"], chosen[:, 0] - rejected[:, 0], rtol=1e-6)
    np.testing.assert_allclose(table["variance_rejected"], np.exp(2 * rejected[:, 1]), rtol=1e-5)


def test_own_code_is_not_taken_from_a_checkpoint(spec):
    fitted = spec(SAMPLED)
    fit(fitted)
    with pytest.raises(ModelError, match=r":Sampled, which is not known here: .* executes no code"):
        RewardModel.load(str(fitted.output), FLOAT32)


def test_a_checkpoint_of_another_objective_is_refused_by_name(spec):
    trained = spec(SAMPLED)
    fit(trained)
    for objective in (ATTENTIVE, {"name": "bradley_terry"}):
        message = rf":Sampled, but \S*{objective['name'].rpartition(':')[2]} is configured"
        with pytest.raises(ModelError, match=message):
            RewardModel.load(str(trained.output), FLOAT32, ObjectiveConfig(**objective))
        with pytest.raises(ModelError, match=message):
            fit(spec(objective, name="further", model=trained.output))


def test_a_bradley_terry_checkpoint_is_refused_by_another_objective(tiny_decoder):
    with pytest.raises(ModelError, match=r"trained with the objective bradley_terry, but .*:Sampled"):
        RewardModel.load(str(tiny_decoder), FLOAT32, ObjectiveConfig(**SAMPLED))


class Consistent(Objective):
    """Bradley–Terry, and a response and its paraphrase are drawn to one reward (a squared term)."""

    reads = frozenset({"paraphrase"})

    def losses(self, pairs):
        losses = softplus(-self.logit(pairs.chosen.outputs, pairs.rejected.outputs))
        if pairs.paraphrase is None:
            return losses
        apart = self.reward(pairs.chosen.outputs)[pairs.paraphrased] - self.reward(pairs.paraphrase.outputs)
        return losses.index_add(0, pairs.paraphrased, 1000 * apart.square())

    def reward(self, readout):
        return readout[:, 0]

    def logit(self, chosen, rejected):
        return self.reward(chosen) - self.reward(rejected)


@pytest.mark.parametrize("trainable", ["all", "head"])
def test_a_loss_may_read_a_paraphrase_beside_the_pairs_that_have_one(spec, trainable):
    paraphrases = [f"{row['chosen']} Yes." if n % 2 else None for n, row in enumerate(ROWS[:10])]
    rows = [row | {"paraphrase": text} for row, text in zip(ROWS[:10], paraphrases, strict=True)]

    def apart(model):
        asked = [(row["prompt"], row["chosen"], row["paraphrase"]) for row in rows if row["paraphrase"]]
        prompts, chosen, others = map(list, zip(*asked, strict=True))
        return np.square(model.score(prompts, chosen) - model.score(prompts, others)).mean()

    keys = {"trainable": trainable, "epochs": 10, "learning_rate": 3e-2 if trainable == "head" else 1e-2}
    drawn = spec({"name": f"{__name__}:Consistent"}, name="together", rows=rows, **keys)
    plain = spec({}, name="plain", rows=rows, **keys)
    fit(drawn)
    fit(plain)
    assert apart(load(drawn)) < apart(load(plain)) / 2
    without = spec({"name": f"{__name__}:Consistent"}, name="without", **keys)
    fit(without)  # no row has one
    np.testing.assert_allclose(
        load(without).score(["Why?"], ["No."]), load(plain).score(["Why?"], ["No."]), rtol=1e-5
    )


class Likely(Objective):
    """The loss of a pair weighs by how likely a language model has its chosen response."""

    class Config(Configuration):
        language_model: str
        """Its reference."""

    reads = frozenset({"log_probabilities"})

    @property
    def language_model(self):
        return self.config.language_model

    def losses(self, pairs):
        likely = (pairs.chosen.log_probabilities.sum(1) / pairs.chosen.tokens).exp()
        return likely * softplus(-self.logit(pairs.chosen.outputs, pairs.rejected.outputs))

    def reward(self, readout):
        return readout[:, 0]

    def logit(self, chosen, rejected):
        return self.reward(chosen) - self.reward(rejected)


@pytest.fixture
def language_model(headless, tmp_path):
    """Folder of a random causal model with the headless decoder's vocabulary."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(headless)
    config = transformers.AutoConfig.from_pretrained(headless)
    transformers.LlamaForCausalLM(config).save_pretrained(tmp_path / "writer")
    tokenizer.save_pretrained(tmp_path / "writer")
    return tmp_path / "writer"


def test_a_loss_may_read_next_token_probabilities_of_a_named_language_model(spec, headless, language_model):
    objective = {"name": f"{__name__}:Likely", "language_model": str(language_model)}
    model = RewardModel.load(str(headless), FLOAT32, ObjectiveConfig(**objective))
    ids = model.renderer.render(["Why?", "What is a lark?"], ["No.", "A bird."]).ids
    found = model.forward(ids).log_probabilities
    writer = transformers.AutoModelForCausalLM.from_pretrained(language_model).eval()
    for row, text in enumerate(ids):
        with torch.no_grad():
            known = torch.log_softmax(writer(torch.tensor([text])).logits[0, :-1], -1)
        expected = known[torch.arange(len(text) - 1), torch.tensor(text[1:])]
        torch.testing.assert_close(found[row, 1 : len(text)], expected, rtol=1e-4, atol=1e-5)
        assert not found[row, len(text) :].any()
        assert found[row, 0] == 0
    result = fit(spec(objective))
    assert np.isfinite(result["loss"])


def test_a_language_model_of_another_vocabulary_is_refused(spec, tiny_chat_model):
    objective = {"name": f"{__name__}:Likely", "language_model": str(tiny_chat_model)}
    with pytest.raises(ModelError, match="its vocabulary is not that of the reward model"):
        fit(spec(objective))
