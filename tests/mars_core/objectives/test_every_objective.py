"""What holds of every objective of the package: it is fitted, goes on, is saved and read again."""

import shutil

import numpy as np
import pandas as pd
import pytest
import safetensors.torch
import torch
import transformers

from mars_core.data.samples import preferences
from mars_core.fit.specification import FitConfig, FitError, FitSpec
from mars_core.fit.train import fit
from mars_core.model.reward_model import ModelConfig, RewardModel, pair_rewards
from mars_core.objectives.objective import OBJECTIVES

FLOAT32 = ModelConfig(precision="float32")
TEXTS = ("prompt", "chosen", "rejected")
ROWS = [
    {"pair_id": row["id"], **{name: row[name] for name in TEXTS}}
    for row in preferences()
    if sum(len(row[name]) for name in TEXTS) < 300
][:8]
FURTHER = {
    "ordinal": {"chosen_level": ["good", None, "normal", None] * 2},
    "paraphrase_consistency": {"paraphrase": ["In short, yes.", None] * 4},
}
"""Columns that an objective reads besides."""
KEYS = {"bayesian_nonnegative": {"factors": 16, "hidden": 8}, "information_bottleneck": {"dimensions": 4}}
FITS = [(name, trainable) for name in OBJECTIVES.names() for trainable in ("all", "lora", "head")]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory, headless):
    """Folder of a random BERT without a head."""
    folder = tmp_path_factory.mktemp("tiny-encoder")
    tokenizer = transformers.AutoTokenizer.from_pretrained(headless)
    tokenizer.add_special_tokens({"pad_token": "<|pad|>"})
    about = transformers.BertConfig(
        vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id, hidden_size=16, num_hidden_layers=2,
        num_attention_heads=2, intermediate_size=16,
    )  # fmt: skip
    torch.manual_seed(0)
    transformers.BertModel(about).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def writer(tmp_path_factory, headless):
    """Folder of a random language model with the headless decoder's vocabulary."""
    folder = tmp_path_factory.mktemp("writer")
    config = transformers.AutoConfig.from_pretrained(headless)
    torch.manual_seed(1)
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    transformers.AutoTokenizer.from_pretrained(headless).save_pretrained(folder)
    return folder


@pytest.fixture
def spec(tmp_path, encoder, headless, writer):
    """Make the specification of a fit by an objective: of the encoder, where it can be."""

    def make(objective, trainable="all", name="model", **keys):
        reads_tokens = objective == "trajectory_consistency"
        keys = KEYS.get(objective, {}) | ({"language_model": str(writer)} if reads_tokens else {}) | keys
        pairs = tmp_path / f"{name}.parquet"
        pd.DataFrame(ROWS).assign(**FURTHER.get(objective, {})).to_parquet(pairs)
        about = {"trainable": trainable, "learning_rate": 1e-2, "batch_pairs": 4, "dropout": 0.1}
        return FitSpec(
            model=str(headless if reads_tokens else encoder),
            pairs=[pairs],
            output=tmp_path / name,
            log=tmp_path / f"{name}.jsonl",
            seed=3,
            reward_model=FLOAT32,
            fit=FitConfig(**about, objective={"name": objective} | keys),
        )

    return make


def weights(spec):
    files = sorted(spec.output.glob("*.safetensors"))
    parts = [safetensors.torch.load_file(file) for file in files]
    return {
        f"{file.stem}/{name}": part
        for file, some in zip(files, parts, strict=True)
        for name, part in some.items()
    }


def texts(side="chosen"):
    return [row["prompt"] for row in ROWS], [row[side] for row in ROWS]


@pytest.mark.parametrize(("objective", "trainable"), FITS)
def test_a_fitted_model_is_saved_and_read_again_with_equal_rewards(spec, tmp_path, objective, trainable):
    fitted = spec(objective, trainable)
    result = fit(fitted)
    assert np.isfinite(result["loss"])
    model = RewardModel.load(str(fitted.output), FLOAT32)
    rewards = model.score(*texts())
    assert rewards.std() > 0
    model.save(tmp_path / "again")
    again = RewardModel.load(str(tmp_path / "again"), FLOAT32, seed=99)
    np.testing.assert_allclose(again.score(*texts()), rewards, atol=1e-5)
    margins = pair_rewards(model, pd.DataFrame(ROWS)).table["margin"]
    assert np.isfinite(margins).all()
    plain = transformers.AutoModelForSequenceClassification.from_pretrained(fitted.output)
    assert plain.config.num_labels == model.objective.outputs


@pytest.mark.parametrize("objective", OBJECTIVES.names())
def test_a_fit_that_was_asked_to_end_goes_on_to_equal_weights(spec, objective):
    whole, stopped = (spec(objective, name=name) for name in ("whole", "stopped"))
    curve = []
    fit(whole)
    with pytest.raises(FitError, match="asked to end after step 1"):
        fit(stopped, curve.append, is_to_end=lambda: len(curve) == 1)
    fit(stopped)
    found, wanted = weights(stopped), weights(whole)
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


@pytest.mark.parametrize("objective", OBJECTIVES.names())
def test_a_text_against_itself_has_no_margin(spec, objective):
    model = RewardModel.load(spec(objective).model, FLOAT32, spec(objective).fit.objective)
    readouts = model.readouts(*texts())
    np.testing.assert_allclose(model.margins(readouts, readouts), 0, atol=1e-6)


def test_an_unknown_level_is_named_by_its_row(spec):
    fitted = spec("ordinal")
    pd.DataFrame(ROWS).assign(rejected_level=[None, "bad", "poor"] + [None] * 5).to_parquet(fitted.pairs[0])
    with pytest.raises(
        FitError, match=r"row 2 has the rejected_level 'poor'; it is bad, normal, good or null"
    ):
        fit(fitted)


def test_a_language_model_is_needed_for_the_fit_alone(spec, tmp_path, writer):
    copy = shutil.copytree(writer, tmp_path / "copy")
    fitted = spec("trajectory_consistency", language_model=str(copy))
    fit(fitted)
    shutil.rmtree(copy)
    model = RewardModel.load(str(fitted.output), FLOAT32)
    assert model.shares_prefixes
    assert np.isfinite(model.score(*texts())).all()
