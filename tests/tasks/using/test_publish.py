"""Publishing, tried against the stand-in of the hub's API in conftest.py, never against the hub."""

import json

import numpy as np
import peft
import pytest
import torch
import yaml

from mars_core.errors import ModelError
from mars_core.model.reward_model import ModelConfig, RewardModel
from mars_core.objectives.bradley_terry import BradleyTerry
from tasks.run.run_config import TrackingConfig
from tasks.using import publish as publishing
from tasks.using.publish import PublishError, check_repository, publish, staged_model

FLOAT32 = ModelConfig(precision="float32", max_length=64)
TEXTS = ["Who?", "What is a lark?"], ["I.", "A small songbird."]


@pytest.fixture
def staged(tiny_decoder):
    with staged_model(str(tiny_decoder), FLOAT32, licence="apache-2.0", tracking=TrackingConfig()) as made:
        yield made


def published_files(hub, repository="ours/lark", kind="models"):
    return list(hub.commits[kind, repository].values())[-1]


def metadata(card):
    return yaml.safe_load(card.split("---\n")[1])


def test_a_model_is_private_whole_and_scores_the_same_when_it_is_read_back(
    hub, staged, tiny_decoder, tmp_path
):
    published = publish(staged, "ours/lark")
    assert hub.private == {"ours/lark": True}
    assert published.revision == list(hub.commits["models", "ours/lark"])[-1]
    files = published_files(hub)
    assert {"model.safetensors", "config.json", "tokenizer.json", "README.md", "mars.json"} <= files.keys()
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    models = (RewardModel.load(str(place), FLOAT32) for place in (tmp_path, tiny_decoder))
    np.testing.assert_array_equal(*(model.score(*TEXTS) for model in models))


def test_a_public_repository_has_to_be_asked_for(hub, staged):
    publish(staged, "ours/lark", public=True)
    assert hub.private == {"ours/lark": False}


def test_publishing_again_is_a_new_revision_of_what_was_published_from_here(hub, staged):
    publish(staged, "ours/lark")
    (staged.folder / "README.md").write_text("---\ntags: [mars]\n---\nnew")
    again = publish(staged, "ours/lark")
    assert list(hub.commits["models", "ours/lark"])[-1] == again.revision
    assert published_files(hub)["README.md"].endswith(b"new")


def test_a_repository_that_holds_something_else_is_never_written_to(hub, staged):
    before = hub.add("models", "ours/lark", {"README.md": b"a thesis"})
    with pytest.raises(PublishError, match="ours/lark exists, and was not published from here"):
        publish(staged, "ours/lark")
    assert list(hub.commits["models", "ours/lark"]) == [before]


@pytest.mark.parametrize(
    ("token", "repository", "told"),
    [
        (None, "ours/lark", "HF_TOKEN is not set"),
        ("reader", "ours/lark", r"the token of HF_TOKEN may not write to ours/lark \(401\)"),
        ("writer", "theirs/lark", r"the token of HF_TOKEN may not write to theirs/lark \(403\)"),
    ],
    ids=["none", "without-rights", "of-another-owner"],
)
def test_a_token_without_rights_is_told_and_never_shown(hub, staged, monkeypatch, token, repository, told):
    if token is None:
        monkeypatch.delenv("HF_TOKEN")
    else:
        monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(PublishError, match=told) as raised:
        publish(staged, repository)
    assert token is None or token not in str(raised.value)
    assert hub.commits == {}


def test_what_the_hub_gives_back_otherwise_is_told(hub, staged):
    hub.spoil = lambda files: {
        name: content if name != "model.safetensors" else content[:-4] + b"\0\0\0\0"
        for name, content in files.items()
    }
    with pytest.raises(PublishError, match=r"gives back other files than were sent: \['model.safetensors'\]"):
        publish(staged, "ours/lark")


@pytest.mark.parametrize("name", ["lark", "ours/la rk", "ours/lark/two"])
def test_a_name_that_cannot_be_a_repository_is_told(name):
    with pytest.raises(PublishError, match="--to"):
        check_repository(name)


def test_a_model_larger_than_the_disk_is_told_before_anything_is_written(tiny_decoder, monkeypatch):
    usage = publishing.shutil.disk_usage("/")
    monkeypatch.setattr(publishing.shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with (
        pytest.raises(PublishError, match="set TMPDIR to a larger disk"),
        staged_model(str(tiny_decoder), FLOAT32, tracking=TrackingConfig()),
    ):
        pass


def test_a_backbone_is_no_reward_model_to_publish(headless):
    with (
        pytest.raises(ModelError, match="has no trained head"),
        staged_model(str(headless), FLOAT32, tracking=TrackingConfig()),
    ):
        pass


def test_the_card_of_a_checkpoint_says_how_to_load_it_and_what_it_does_not_know(staged):
    about = metadata(staged.card)
    assert about["license"] == "apache-2.0"
    assert about["library_name"] == "transformers"
    assert "reward-model" in about["tags"]
    for told in (
        "AutoModelForSequenceClassification", "as plain transcripts", "at most 64 tokens", "`bradley_terry`",
        "does not say what it was trained on", "## Limits",
    ):  # fmt: skip
        assert told in staged.card
    assert json.loads((staged.folder / "mars.json").read_text())["what"] == "model"


def test_the_code_of_the_card_gives_the_models_reward(staged):
    code = staged.card.split("```python\n")[1].split("```")[0].replace("(FOLDER", f"({str(staged.folder)!r}")
    names = {"prompt": TEXTS[0][1], "response": TEXTS[1][1]}
    exec(code, names)
    expected = RewardModel.load(str(staged.folder), FLOAT32).score(*TEXTS)[1]
    assert names["reward"] == pytest.approx(expected, abs=1e-5)


def test_adapters_are_published_merged(tiny_decoder, tmp_path):
    model = RewardModel.load(str(tiny_decoder), FLOAT32)
    lora = peft.LoraConfig(task_type="SEQ_CLS", target_modules=["q_proj"], modules_to_save=["score"])
    model.network = peft.get_peft_model(model.network, lora)
    torch.manual_seed(0)
    for weight in model.network.parameters():
        if weight.requires_grad:
            torch.nn.init.normal_(weight, std=0.1)
    model.save(tmp_path / "adapters")
    apart = RewardModel.load(str(tmp_path / "adapters"), FLOAT32).score(*TEXTS)
    with staged_model(str(tmp_path / "adapters"), FLOAT32, tracking=TrackingConfig()) as staged:
        assert not (staged.folder / "adapter_config.json").exists()
        merged = RewardModel.load(str(staged.folder), FLOAT32).score(*TEXTS)
    np.testing.assert_allclose(merged, apart, rtol=0, atol=1e-5)


def test_a_reward_that_is_no_linear_output_is_published_with_how_to_load_it(tiny_decoder, monkeypatch):
    monkeypatch.setattr(BradleyTerry, "reward", lambda _, readout: readout.squeeze(-1).tanh())
    with staged_model(str(tiny_decoder), FLOAT32, tracking=TrackingConfig()) as staged:
        assert "AutoModelForSequenceClassification" not in staged.card
        assert "mars score" in staged.card
