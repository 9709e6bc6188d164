"""`mars serve` on a real vLLM: SmolLM2 (de-quantised from Q4_1) with a trained head, in float32."""

import json
import os
import shlex

import httpx
import pandas as pd
import pytest

from mars_core.data.dialogue import Turn, transcript
from mars_core.data.samples import preferences
from mars_core.fit.specification import FitConfig, FitSpec
from mars_core.fit.train import fit
from mars_core.model.reward_model import ModelConfig, RewardModel
from tasks.processes.addresses import free_port
from tasks.using.serve import KEY, ServeConfig, served

pytestmark = [pytest.mark.services, pytest.mark.timeout(1500)]

PAIRS, TRAINING_PAIRS, MAX_LENGTH = 16, 16, 128
KEY_OF_THE_TEST = "a-key-of-this-test"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """Folder of the model; its head was fitted to other pairs than the server is compared on."""
    folder = tmp_path_factory.mktemp("smollm2")
    pairs = pd.DataFrame(preferences()[-TRAINING_PAIRS:]).rename(columns={"id": "pair_id"})
    pairs.to_parquet(folder / "pairs.parquet")
    spec = FitSpec(
        model="package://smollm2-135m-instruct",
        pairs=[folder / "pairs.parquet"],
        output=folder / "model",
        log=folder / "fit.jsonl",
        seed=1,
        reward_model=ModelConfig(precision="float32", max_length=MAX_LENGTH),
        fit=FitConfig(trainable="head", learning_rate=1e-2, batch_pairs=8, epochs=20),
    )
    assert fit(spec)["accuracy"] > 0.9
    return spec.output


@pytest.fixture(scope="module")
def server(vllm, checkpoint, tmp_path_factory):
    model = {"backbone": str(checkpoint), "precision": "float32", "max_length": MAX_LENGTH}
    values = {"model": model, "port": free_port(), "sample": PAIRS}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(KEY, KEY_OF_THE_TEST)
        log = tmp_path_factory.mktemp("serve") / "vllm.log"
        with served(ServeConfig.model_validate(values), log) as running:
            yield running


def test_the_server_gives_the_models_rewards(server):
    assert server.parity.holds
    assert server.parity.pairs == PAIRS
    assert server.parity.worst <= 1e-4 * server.parity.spread
    assert server.parity.signs == 1


def test_the_line_that_is_printed_gives_the_reward_of_its_text_and_needs_the_key(server, checkpoint):
    url, *options = shlex.split(server.curl)[1:]
    body = json.loads(options[options.index("-d") + 1])
    answer = httpx.post(url, json=body, headers={"Authorization": f"Bearer {KEY_OF_THE_TEST}"}, timeout=60)
    *asked, said = [Turn(**message) for message in body["messages"]]
    config = ModelConfig(precision="float32", max_length=MAX_LENGTH)
    [reward] = RewardModel.load(str(checkpoint), config).score([transcript(asked)], [said.content])
    [found] = answer.json()["data"][0]["probs"]
    assert found == pytest.approx(reward, abs=1e-4 * server.parity.spread)
    assert httpx.post(url, json=body, timeout=60).status_code == 401
    assert KEY_OF_THE_TEST not in server.curl
    assert os.environ[KEY] == KEY_OF_THE_TEST
